"""The utility's system on pymodbus's own server: points from its registers, and the plan in a block of them."""

import asyncio
import math
import random
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from pymodbus.pdu import ModbusPDU
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from derms.domain.der import Endpoint
from derms.domain.grid import SwitchState
from derms.domain.mode import Mode
from derms.domain.quality import Quality
from derms.domain.scada import PointKind, RegisterPlace, Sample, ScadaPoint, modbus_place
from derms.errors import DeviceRefused, DeviceUnreachable, FieldError, WriteForbidden
from derms.ports import FieldOptions
from derms.scada.intake import QualityMap
from drivers.modbus.unit import Table
from drivers.scada import HEAD_REGISTERS, LAST_OFFSET, STEPS_MAX, ModbusEms, ModbusOutlet, ModbusScada, packed
from tests.drivers.spanwise import Spanwise
from tests.scada.rig import START, publication_of, room

OPTIONS = FieldOptions(timeout_s=2.0, connect_timeout_s=2.0, read_only=False, backoff_min_s=0.0)


def point(where: str, kind: PointKind = PointKind.NET_LOAD, **more: Any) -> ScadaPoint:
    return ScadaPoint(id=where, kind=kind, element="system", where=where, **more)


class Server:
    """pymodbus's server with one unit, and the function codes of the requests it got."""

    def __init__(self, address: int, registers: Sequence[int]) -> None:
        self.functions: list[int] = []
        self._at = (address, len(registers))
        data = [SimData(address, values=list(registers), datatype=DataType.REGISTERS)]
        self._server: Any = ModbusTcpServer(SimDevice(1, data), address=("127.0.0.1", 0), trace_pdu=self._note)

    def _note(self, sending: bool, pdu: ModbusPDU) -> ModbusPDU:
        if not sending:
            self.functions.append(pdu.function_code)
        return pdu

    async def __aenter__(self) -> "Server":
        await self._server.serve_forever(background=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.shutdown()

    @property
    def url(self) -> str:
        return f"modbus://127.0.0.1:{self._server.transport.sockets[0].getsockname()[1]}"

    async def registers(self) -> list[int]:
        found: list[int] = await self._server.async_getValues(1, 3, *self._at)
        return found


def test_values_of_every_type_come_in_one_request_where_they_lie_together() -> None:
    data = struct.pack(">hHiIfH", -5, 65000, -70000, 4_000_000_000, 2500.5, 2)
    types = ("int16", "uint16", "int32", "uint32", "float32", "uint16")
    wheres = [f"1/holding/{at}/{type_}" for at, type_ in zip((100, 101, 102, 104, 106, 108), types, strict=True)]

    async def main() -> tuple[Sequence[Sample], list[int]]:
        async with Server(100, struct.unpack(">9H", data)) as server:
            ems = ModbusEms(OPTIONS, random.Random(1))
            link = ems.source(server.url, [point(where) for where in wheres])
            samples = await link.fetch()
            return samples, server.functions

    samples, functions = asyncio.run(main())
    assert [sample.value for sample in samples] == [-5.0, 65000.0, -70000.0, 4e9, 2500.5, 2.0]
    assert [sample.where for sample in samples] == wheres
    assert functions == [3]


class Registers(Spanwise):
    """A unit in memory that refuses some addresses."""

    name = "memory"
    connected = True

    def __init__(self, refuses: int = -1) -> None:
        self.refuses = refuses
        self.reads: list[tuple[int, int, Table]] = []

    async def connect(self) -> None:
        """There is nothing to connect."""

    def disconnect(self) -> None:
        """Nor to leave."""

    async def read(self, address: int, count: int, *, table: Table = Table.HOLDING, **_: Any) -> bytes:
        self.reads.append((address, count, table))
        if address <= self.refuses < address + count:
            raise DeviceRefused("illegal data address", 2)
        return struct.pack(f">{count}H", *range(address, address + count))

    async def write(self, address: int, data: bytes, **_: Any) -> None:
        raise WriteForbidden("memory is read-only")


def source_over(unit: Registers, *wheres: str) -> ModbusScada:
    places = {where: place for where in wheres if (place := RegisterPlace.parse(where))}
    assert len(places) == len(wheres)
    return ModbusScada({1: unit}, places)


def test_points_far_apart_or_of_two_tables_are_read_by_themselves_and_near_ones_together() -> None:
    unit = Registers()
    link = source_over(unit, "1/holding/10/int16", "1/holding/18/int16/300", "1/input/10/int16", "1/holding/150/uint32")
    samples = {sample.where: sample for sample in asyncio.run(link.fetch())}
    assert unit.reads == [
        (10, 9, Table.HOLDING),
        (150, 2, Table.HOLDING),
        (300, 1, Table.HOLDING),
        (10, 1, Table.INPUT),
    ]
    assert samples["1/holding/18/int16/300"] == Sample("1/holding/18/int16/300", 18.0, "300")
    assert samples["1/holding/150/uint32"].value == 150 * 65536 + 151


def test_a_refused_range_costs_its_own_points_alone() -> None:
    told = room(
        source_over(Registers(refuses=500), "1/holding/10/int16", "1/holding/500/int16"),
        [point("1/holding/10/int16"), point("1/holding/500/int16", PointKind.TAP)],
    )
    assert told.poll().net_load_w == 10.0
    assert told.kinds == ["points-refused"]
    assert "1/holding/500/int16: it is not in what the source delivers" in told.events[0].text


def test_quality_bits_stand_in_a_register_of_their_own_and_switches_in_two_bits() -> None:
    where = "1/holding/2/uint16/8"
    switch = point(where, PointKind.SWITCH, double=True)
    bits = QualityMap(bits={3: Quality.SUSPECT})
    told = room(source_over(Registers(), where), [switch], qualities=bits)
    told.poll()
    assert told.quality(where) is Quality.SUSPECT
    told = room(source_over(Registers(), where), [switch], qualities=QualityMap(bits={3: Quality.GOOD}))
    assert told.poll().topology.switches == {"system": SwitchState.CLOSED}


def test_a_nan_of_the_wire_is_no_value() -> None:
    async def main() -> Sequence[Sample]:
        async with Server(0, struct.unpack(">2H", struct.pack(">f", math.nan))) as server:
            return await ModbusEms(OPTIONS, random.Random(1)).source(server.url, [point("1/holding/0/float32")]).fetch()

    (sample,) = asyncio.run(main())
    assert isinstance(sample.value, float)
    assert math.isnan(sample.value)


def test_a_server_that_goes_away_is_a_field_error_and_is_found_again() -> None:
    async def main() -> tuple[str, float | str | None]:
        wanted = [point("1/holding/0/uint16")]
        async with Server(0, [17]) as server:
            link = ModbusEms(OPTIONS, random.Random(1)).source(server.url, wanted)
            await link.fetch()
        with pytest.raises(FieldError) as caught:
            await link.fetch()
        async with Server(0, [18]) as server:
            link = ModbusEms(OPTIONS, random.Random(1)).source(server.url, wanted)
            (sample,) = await link.fetch()
        return type(caught.value).__name__, sample.value

    assert asyncio.run(main()) == (DeviceUnreachable.__name__, 18.0)


BLOCK = 1000


def block_of(registers: Sequence[int]) -> bytes:
    return struct.pack(f">{len(registers)}H", *registers)


def test_the_plan_stands_in_a_block_of_registers_between_two_equal_counters() -> None:
    async def main() -> tuple[bytes, bytes]:
        async with Server(BLOCK, [0] * (LAST_OFFSET + 1)) as server:
            outlet = ModbusEms(OPTIONS, random.Random(1)).outlet(f"{server.url}/1/{BLOCK}")
            await outlet.send(publication_of([2e6, -5e5]))
            first = block_of(await server.registers())
            await outlet.send(publication_of([1e6] * 300, plan_id=8))
            return first, block_of(await server.registers())

    first, second = asyncio.run(main())
    counter, version, status, mode, source, steps = struct.unpack_from(">6H", first)
    assert (counter, version, status, mode, source, steps) == (1, 1, 1, 1, 0, 2)
    start_s = int(START.timestamp())
    assert struct.unpack_from(">4IH", first, 12) == (7, start_s, start_s + 1800, start_s, 900)
    assert struct.unpack_from(">4f", first, 2 * HEAD_REGISTERS) == (2e6, 2e5, -5e5, -5e4)
    assert struct.unpack_from(">H", first, 2 * LAST_OFFSET) == (1,)
    assert struct.unpack_from(">H", second) == struct.unpack_from(">H", second, 2 * LAST_OFFSET) == (2,)
    assert struct.unpack_from(">5H", second, 2)[4] == STEPS_MAX
    assert len(second) == 2 * (LAST_OFFSET + 1)


class Block(Registers):
    """Registers that keep what is written, and break off at one of the writes."""

    def __init__(self, breaks_at: int) -> None:
        super().__init__()
        self.breaks_at = breaks_at
        self.connected = True
        self.written: dict[int, bytes] = {}

    def disconnect(self) -> None:
        self.connected = False

    async def read(self, address: int, count: int, **_: Any) -> bytes:
        return bytes(2 * count)

    async def write(self, address: int, data: bytes, **_: Any) -> None:
        if len(self.written) == self.breaks_at:
            raise DeviceUnreachable("gone")
        self.written[address - BLOCK] = data


@pytest.mark.parametrize("breaks_at", [1, 2, 3, 4])
def test_what_breaks_off_leaves_the_counters_unequal_and_begins_on_a_new_connection(breaks_at: int) -> None:
    unit = Block(breaks_at)
    with pytest.raises(DeviceUnreachable):
        asyncio.run(ModbusOutlet(unit, BLOCK).send(publication_of([1e6] * 100)))
    assert unit.written[0][:2] == b"\0\1"
    assert LAST_OFFSET not in unit.written
    assert not unit.connected


def test_an_outlet_that_may_only_read_sends_no_write() -> None:
    async def main() -> list[int]:
        async with Server(BLOCK, [0] * (LAST_OFFSET + 1)) as server:
            ems = ModbusEms(replace(OPTIONS, read_only=True), random.Random(1))
            with pytest.raises(WriteForbidden):
                await ems.outlet(f"{server.url}/1/{BLOCK}").send(publication_of([2e6]))
            return server.functions

    assert set(asyncio.run(main())) == {3}


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("modbus://10.0.0.5", (Endpoint("10.0.0.5", 502, 1), None)),
        ("modbus://ems:1502/7/1000", (Endpoint("ems", 1502, 7), 1000)),
        ("modbus://ems:0", None),
        ("modbus://ems/256/0", None),
        ("modbus://ems/1/65536", None),
        ("http://ems", None),
    ],
)
def test_a_modbus_address_has_host_port_unit_and_register(url: str, place: tuple[Endpoint, int | None] | None) -> None:
    assert modbus_place(url) == place


def test_the_block_says_observe_when_nobody_acts_on_the_plan() -> None:
    publication = replace(publication_of([2e6]), mode=Mode.OBSERVE)
    assert struct.unpack_from(">3H", packed(publication)) == (1, 1, 0)
