"""pysunspec2, pymodbus, libmodbus and our client on the same devices over real sockets: all see and say the same."""

import asyncio
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
import sunspec2.device

from derms.domain.der import Endpoint
from derms.errors import DeviceUnreachable
from drivers.sunspec.codec import Image
from drivers.sunspec.models import is_numeric
from feeders.catalog import load
from hil.registers import BASE, Bank
from hil.specimen import MODELS, Specimen
from hil.unit import BankUnit
from hil.world import World
from tests.drivers.oracles import pymodbus_device, registers_at, sessions_with
from tests.field.rig import NOON
from tests.wire.libraries import LIBRARIES, Client, Refusal, served

READ_MAX = 125
WORLD_DEVICES = {
    "bat01": (1, 701, 702, 703, 704, 713, 705),
    "bat03": (1, 103, 120, 121, 122, 123, 124),
    "head": (1, 203),
}
"""A newer and an older battery, and a meter, with the models of their maps."""
CASES = [*(("specimen", model) for model in MODELS), *((d, model) for d in WORLD_DEVICES for model in WORLD_DEVICES[d])]


@pytest.fixture(scope="module", autouse=True)
def libmodbus_is_there() -> None:
    try:
        with served({1: Specimen((1,))}) as port:
            LIBRARIES["libmodbus"](port).close()
    except OSError as error:
        pytest.skip(f"no libmodbus: {error}")


@pytest.fixture(scope="module")
def units() -> Mapping[str, BankUnit]:
    world = World(load("ieee123"), seed=1, start=NOON)
    for _ in range(12):
        world.step()
    return {"specimen": Specimen(), **{device: world.servers[device] for device in WORLD_DEVICES}}


Registers = Mapping[tuple[str, int], Mapping[str, bytes]]


@pytest.fixture(scope="module")
def read(units: Mapping[str, BankUnit]) -> Registers:
    """The registers of every model of every device, by library."""
    found: dict[tuple[str, int], dict[str, bytes]] = {case: {} for case in CASES}
    for device, unit in units.items():
        with served({1: unit}) as port:
            for library, client in opened(port):
                for name, model in found:
                    if name == device:
                        first, count = span(unit.bank, model)
                        found[name, model][library] = read_all(client, BASE + first, count)
    return found


def opened(port: int) -> Iterator[tuple[str, Client]]:
    """Each library with a connection, one after the other."""
    for name, library in LIBRARIES.items():
        client: Client = library(port)
        try:
            yield name, client
        finally:
            client.close()


def span(bank: Bank, model: int) -> tuple[int, int]:
    """First register of a model, and how many with ID and L."""
    first = bank.start[model]
    return first, 2 + int.from_bytes(bank.row(0)[2 * first + 2 : 2 * first + 4], "big")


def read_all(client: Client, address: int, count: int) -> bytes:
    parts = range(0, count, READ_MAX)
    return b"".join(client.read(address + at, min(READ_MAX, count - at)) for at in parts)


@pytest.mark.parametrize(("device", "model"), CASES)
def test_all_libraries_read_the_same_registers(
    device: str, model: int, read: Registers, units: Mapping[str, BankUnit]
) -> None:
    first, count = span(units[device].bank, model)
    held = bytes(units[device].view[2 * first : 2 * (first + count)])
    assert read[device, model] == dict.fromkeys(LIBRARIES, held)
    assert int.from_bytes(held[:2], "big") == model


@pytest.mark.parametrize(("device", "model"), CASES)
def test_what_each_library_read_has_the_same_values_in_pysunspec2_and_in_our_codec(
    device: str, model: int, read: Registers
) -> None:
    image = Image(model, read[device, model]["ours"])
    names = [point.name for point in image.model.points.values() if point.type != "pad"]
    assert len(names) >= 4
    for library, registers in read[device, model].items():
        theirs = sunspec2.device.Model(model, model_len=len(registers) // 2 - 2, data=registers)
        values = {name: their_value(theirs, name) for name in names}
        assert values == {name: pytest.approx(our_value(image, name), nan_ok=True) for name in names}, library
    implemented = [name for name in names if our_value(image, name) not in (None, "")]
    assert len(implemented) >= 4


def our_value(image: Image, name: str) -> float | str | None:
    point = image.model.points[name]
    if not is_numeric(point.type):
        return image.raw(name) if image.raw(name) is None else image.text(name)
    number = image.number(name)
    return None if math.isnan(number) else number


def their_value(model: Any, path: str) -> float | str | None:
    """A point of pysunspec2's tree by our path; it has no word for an accumulator that is not there (0)."""
    group = model
    for part in path.split("."):
        name, _, index = part.partition("[")
        group = getattr(group, name)
        if index:
            group = group[int(index[:-1])]
    value = group.cvalue
    return None if group.pdef["type"].startswith("acc") and value == 0 else value


LIMIT = bytes.fromhex("0001 1d4c 2710 0000 0000 012c")
"""704 from WMaxLimPctEna on: enabled, 75.00 %, reverting to 100 % and disabled, after 300 s."""


@pytest.mark.parametrize("writer", LIBRARIES)
def test_what_one_library_writes_the_others_read(writer: str) -> None:
    specimen = Specimen((1, 701, 702, 704))
    block, single = (BASE + specimen.bank.place(f"704.{name}").register for name in ("WMaxLimPctEna", "WMaxLimPct"))
    with served({1: specimen}) as port, ExitStack() as stack:
        clients: dict[str, Client] = {name: library(port) for name, library in LIBRARIES.items()}
        for client in clients.values():
            stack.callback(client.close)
        before = {name: client.read(block, 6) for name, client in clients.items()}
        assert before != dict.fromkeys(LIBRARIES, LIMIT)
        clients[writer].write(block, LIMIT)
        assert {name: client.read(block, 6) for name, client in clients.items()} == dict.fromkeys(LIBRARIES, LIMIT)
        assert specimen.value("704.WMaxLimPct") == pytest.approx(75.0)
        clients[writer].write(single, b"\x13\x88")
        assert {name: client.read(single, 1) for name, client in clients.items()} == dict.fromkeys(
            LIBRARIES, b"\x13\x88"
        )
        assert specimen.value("704.WMaxLimPct") == pytest.approx(50.0)


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_library_is_told_of_a_refusal_alike(library: str) -> None:
    specimen = Specimen((1, 701))
    with served({1: specimen}) as port:
        client: Client = LIBRARIES[library](port)
        with pytest.raises(Refusal) as nowhere:
            client.read(BASE - 1, 1)
        with pytest.raises(Refusal) as read_only:
            client.write(BASE + specimen.bank.place("701.W").register, b"\0\0")
        client.close()
    assert (nowhere.value.code, read_only.value.code) == (2, 2)


def test_wrong_answer_08_a_server_that_drops_pipelined_requests_costs_one_time_out_and_no_value() -> None:
    """The server of pymodbus answers the first of several requests in one segment, and forgets the others."""

    async def scenario() -> None:
        async with pymodbus_device(registers_at(1000, 10), base=1000) as device:
            sessions = sessions_with(timeout_s=0.3, in_flight=3)
            unit = sessions.unit(Endpoint("127.0.0.1", device.port))
            await unit.connect()
            asked = (unit.read(1000 + at, 1) for at in range(3))
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert answers[0] == registers_at(1000, 1)
            for at, answer in enumerate(answers[1:], start=1):
                assert isinstance(answer, DeviceUnreachable) or answer == registers_at(1000 + at, 1)
            await unit.connect()
            assert await unit.read(1005, 2) == registers_at(1005, 2)
            unit.disconnect()

    asyncio.run(scenario())
