"""A simulated device on a real socket: requests, refusals, fragments, faults."""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from pymodbus.client import AsyncModbusTcpClient

from drivers.sunspec.models import layout
from hil.registers import BASE, Bank
from hil.server import DeviceServer, Fault

TIMEOUT_S = 2.0


def request(function: int, body: bytes, *, transaction: int = 1, unit: int = 1) -> bytes:
    return struct.pack(">HHHBB", transaction, 0, 2 + len(body), unit, function) + body


def read(address: int, count: int, transaction: int = 1) -> bytes:
    return request(3, struct.pack(">HH", address, count), transaction=transaction)


def exception(function: int, code: int, *, unit: int = 1) -> bytes:
    return struct.pack(">HHHBBB", 1, 0, 3, unit, function | 0x80, code)


@dataclass
class Bench:
    """A device, and a raw connection to it."""

    bank: Bank
    device: DeviceServer
    port: int
    commands: list[tuple[int, int, int, bytes]]
    tapped: list[bytes]
    limit_at: int
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def ask(self, adu: bytes, size: int) -> bytes:
        reader, writer = await self.connect()
        writer.write(adu)
        return await asyncio.wait_for(reader.readexactly(size), TIMEOUT_S)


def on_bench(scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        bank = Bank(2, [layout(1), layout(704)], {"704.WMaxLimPct_SF": -2})
        for name in ("Ena", "", "Rvrt", "EnaRvrt", "RvrtTms"):
            bank.put(f"704.WMaxLimPct{name}", 0)
        commands: list[tuple[int, int, int, bytes]] = []
        tapped: list[bytes] = []
        device = DeviceServer(
            bank, 1, rng=np.random.default_rng(5), on_write=lambda *what: commands.append(what), tap=tapped.append
        )
        port = await device.start("127.0.0.1", 0)
        bench = Bench(bank, device, port, commands, tapped, BASE + bank.start[704] + 14)
        try:
            await scenario(bench)
        finally:
            for writer in bench.writers:
                writer.close()
            device.stop()

    asyncio.run(run())


def test_pymodbus_reads_the_image_and_writes_a_block() -> None:
    async def scenario(bench: Bench) -> None:
        async with AsyncModbusTcpClient("127.0.0.1", port=bench.port) as client:
            answer = await client.read_holding_registers(BASE, count=125)
            assert b"".join(struct.pack(">H", r) for r in answer.registers) == bytes(bench.bank.row(1)[:250])
            written = await client.write_registers(bench.limit_at, [1, 4250, 0, 0, 0, 900])
            assert not written.isError()
            single = await client.write_register(bench.limit_at + 1, 4300)
            assert not single.isError()
        np.testing.assert_array_equal(bench.bank.get("704.WMaxLimPct"), [0.0, 43.0])
        assert bench.commands[0] == (1, 704, 14, struct.pack(">HHHHI", 1, 4250, 0, 0, 900))
        assert bench.commands[1] == (1, 704, 15, struct.pack(">H", 4300))
        assert [adu[7] for adu in bench.tapped] == [16, 6]

    on_bench(scenario)


@pytest.mark.parametrize(
    ("adu", "answer"),
    [
        pytest.param(request(4, bytes(4)), exception(4, 1), id="another function"),
        pytest.param(read(BASE - 1, 2), exception(3, 2), id="below the base"),
        pytest.param(read(BASE, 125)[:8] + struct.pack(">HH", 41_000, 1), exception(3, 2), id="beyond the end"),
        pytest.param(read(BASE, 0), exception(3, 3), id="no registers"),
        pytest.param(read(BASE, 126), exception(3, 3), id="too many registers"),
        pytest.param(request(3, bytes(3)), exception(3, 3), id="a body cut short"),
        pytest.param(request(16, struct.pack(">HHBH", BASE, 2, 2, 7)), exception(16, 3), id="counts that disagree"),
        pytest.param(request(16, struct.pack(">HHBH", BASE, 1, 2, 7)), exception(16, 2), id="a read-only point"),
        pytest.param(request(6, struct.pack(">HH", BASE, 7)), exception(6, 2), id="one read-only register"),
        pytest.param(
            request(3, struct.pack(">HH", BASE, 1), unit=9), exception(3, 11, unit=9), id="a unit that is not there"
        ),
    ],
)
def test_a_wrong_request_gets_its_exception_and_changes_nothing(adu: bytes, answer: bytes) -> None:
    async def scenario(bench: Bench) -> None:
        before = bench.bank.image.copy()
        assert await bench.ask(adu, len(answer)) == answer
        np.testing.assert_array_equal(bench.bank.image, before)
        assert bench.commands == []

    on_bench(scenario)


def test_several_requests_in_one_segment_and_fragments_are_all_answered_in_order() -> None:
    async def scenario(bench: Bench) -> None:
        adus = b"".join(read(BASE + i, 1, transaction=i) for i in range(3))
        answers = await bench.ask(adus, 3 * 11)
        assert [struct.unpack_from(">H", answers, 11 * i)[0] for i in range(3)] == [0, 1, 2]
        assert answers[9:11] + answers[20:22] == b"SunS"
        reader, writer = await bench.connect()
        for byte in read(BASE, 2):
            writer.write(bytes((byte,)))
            await writer.drain()
        assert (await asyncio.wait_for(reader.readexactly(13), TIMEOUT_S))[9:] == b"SunS"

    on_bench(scenario)


def test_a_stream_out_of_step_is_dropped() -> None:
    async def scenario(bench: Bench) -> None:
        reader, writer = await bench.connect()
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await asyncio.wait_for(_to_the_end(reader), TIMEOUT_S) == b""

    on_bench(scenario)


async def _to_the_end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


def test_a_stopped_device_drops_its_clients_and_listens_on_the_same_port_when_healed() -> None:
    async def scenario(bench: Bench) -> None:
        reader, _ = await bench.connect()
        await bench.ask(read(BASE, 2), 13)
        bench.device.fault(Fault.STOP)
        assert await asyncio.wait_for(_to_the_end(reader), TIMEOUT_S) == b""
        with pytest.raises(OSError):
            await bench.connect()
        await bench.device.heal()
        assert (await bench.ask(read(BASE, 2), 13))[9:] == b"SunS"

    on_bench(scenario)


def test_a_refusing_device_accepts_and_resets_at_once() -> None:
    async def scenario(bench: Bench) -> None:
        bench.device.fault(Fault.REFUSE)
        reader, writer = await bench.connect()
        writer.write(read(BASE, 2))
        assert await asyncio.wait_for(_to_the_end(reader), TIMEOUT_S) == b""
        await bench.device.heal()
        assert (await bench.ask(read(BASE, 2), 13))[9:] == b"SunS"

    on_bench(scenario)


def test_a_babbling_device_never_gives_the_answer() -> None:
    async def scenario(bench: Bench) -> None:
        right = await bench.ask(read(BASE, 2), 13)
        bench.device.fault(Fault.GARBAGE)
        reader, writer = await bench.connect()
        for _ in range(20):
            writer.write(read(BASE, 2))
            babble = await asyncio.wait_for(reader.read(100), TIMEOUT_S)
            assert babble
            assert right not in babble

    on_bench(scenario)


def test_a_hanging_device_answers_nothing_but_its_writes_are_still_tapped() -> None:
    async def scenario(bench: Bench) -> None:
        bench.device.fault(Fault.HANG)
        write = request(6, struct.pack(">HH", bench.limit_at, 1))
        reader, writer = await bench.connect()
        writer.write(read(BASE, 2) + write)
        writer.write_eof()  # the server closes after it has seen everything
        assert await asyncio.wait_for(reader.read(), TIMEOUT_S) == b""
        assert bench.tapped == [write]
        assert bench.commands == []

    on_bench(scenario)


def test_a_frozen_device_stands_still_and_only_pretends_to_obey() -> None:
    async def scenario(bench: Bench) -> None:
        bench.bank.put("704.WMaxLimPct", 80.0)
        bench.device.fault(Fault.FREEZE)
        bench.bank.put("704.WMaxLimPct", 70.0)
        write = request(6, struct.pack(">HH", bench.limit_at + 1, 6000))
        assert await bench.ask(write, 12) == write
        held = await bench.ask(read(bench.limit_at + 1, 1), 11)
        assert struct.unpack(">H", held[9:]) == (8000,)
        await bench.device.heal()
        moved = await bench.ask(read(bench.limit_at + 1, 1), 11)
        assert struct.unpack(">H", moved[9:]) == (7000,)
        assert bench.commands == []

    on_bench(scenario)
