"""RTU frames through a TCP connection and on a serial port: no transaction ids, a checksum, one request at a time."""

import asyncio
import os
import pty
import struct
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pymodbus.framer import FramerRTU, FramerType
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from derms.domain.der import Endpoint, Transport
from derms.errors import DeviceRefused, DeviceUnreachable, ProtocolViolation
from derms.service.simulated import SimulatedLoop, run_simulated
from drivers.modbus.quirks import LinkQuirks
from drivers.modbus.unit import Unit
from tests.drivers.oracles import Script, connection_to, registers_at, scripted_device, sessions_with

Answer = Callable[[bytes], bytes]


def with_checksum(frame: bytes) -> bytes:
    return frame + FramerRTU.compute_CRC(frame).to_bytes(2, "big")


def good_rtu_answer(request: bytes) -> bytes:
    """What a sound device answers; every register it reads holds its own address."""
    if request[1] in (6, 16):
        return with_checksum(request[:6])
    address, count = struct.unpack(">HH", request[2:6])
    return with_checksum(request[:2] + bytes([2 * count]) + registers_at(address, count))


def whole_rtu_request(received: bytes) -> bool:
    """Whether it is all there: 8 bytes, or as many more as a block write says."""
    return len(received) >= (9 + received[6] if received[1:2] == b"\x10" and len(received) > 6 else 8)


def rtu_answering(answer: Answer) -> Script:
    """A scripted device that speaks RTU."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = b""
        while data := await reader.read(300):
            received += data
            if whole_rtu_request(received):
                writer.write(answer(received))
                received = b""

    return script


def rtu_unit(port: int, *, timeout_s: float = 5.0, quirks: LinkQuirks | None = None) -> Unit:
    return connection_to(port, timeout_s=timeout_s, quirks=quirks or LinkQuirks(), transport=Transport.RTU_TCP)


def test_rtu_through_tcp_agrees_with_the_server_of_pymodbus() -> None:
    async def scenario() -> None:
        values = [SimData(1000, values=list(range(1000, 1200)), datatype=DataType.REGISTERS)]
        server: Any = ModbusTcpServer(SimDevice(1, values), framer=FramerType.RTU, address=("127.0.0.1", 0))
        await server.serve_forever(background=True)
        unit = rtu_unit(server.transport.sockets[0].getsockname()[1])
        await unit.connect()
        assert await unit.read(1003, 125) == registers_at(1003, 125)
        await unit.write(1010, registers_at(1, 123))
        assert await unit.read(1010, 123) == registers_at(1, 123)
        with pytest.raises(DeviceRefused, match=r"illegal address \(2\)"):
            await unit.read(5000, 2)
        assert await unit.read(1000, 1) == registers_at(1000, 1)
        unit.disconnect()
        await server.shutdown()

    asyncio.run(scenario())


def flipped(position: int) -> Answer:
    """The good answer with one bit of one byte turned over."""

    def answer(request: bytes) -> bytes:
        frame = bytearray(good_rtu_answer(request))
        frame[position] ^= 1
        return bytes(frame)

    return answer


WRONG_RTU_READS: dict[str, Answer] = {
    "another unit": lambda request: with_checksum(b"\x02" + good_rtu_answer(request)[1:-2]),
    "another function": lambda request: with_checksum(b"\x01\x04" + good_rtu_answer(request)[2:-2]),
    "short": lambda request: with_checksum(b"\x01\x03\x02\x00\x64"),
    "odd byte count": lambda request: with_checksum(b"\x01\x03\x03\x00\x64\x00"),
    "long": lambda request: with_checksum(b"\x01\x03\x06" + registers_at(100, 3)),
    "surplus": lambda request: good_rtu_answer(request) + b"\x00",
    "damaged value": flipped(4),
    "damaged checksum": flipped(-1),
    "damaged exception": lambda request: b"\x01\x83\x02\x00\x00",
    "echo of the request": lambda request: request,
    "garbage": lambda request: b"HTTP/1.1 400",
    "twice": lambda request: good_rtu_answer(request) * 2,
}


@pytest.mark.parametrize("answer", WRONG_RTU_READS.values(), ids=WRONG_RTU_READS.keys())
def test_wrong_rtu_answer_drops_the_connection_and_the_next_read_is_right(answer: Answer) -> None:
    async def scenario() -> None:
        async with scripted_device(rtu_answering(answer), rtu_answering(good_rtu_answer)) as port:
            unit = rtu_unit(port)
            await unit.connect()
            with pytest.raises(ProtocolViolation):
                await unit.read(100, 2)
            assert not unit.connected
            await unit.connect()
            assert await unit.read(200, 2) == registers_at(200, 2)
            unit.disconnect()

    asyncio.run(scenario())


def test_rtu_echo_of_a_write_must_fit_in_every_byte() -> None:
    async def scenario() -> None:
        other_address = rtu_answering(lambda request: with_checksum(request[:3] + b"\x65" + request[4:6]))
        async with scripted_device(rtu_answering(good_rtu_answer), other_address) as port:
            unit = rtu_unit(port, quirks=LinkQuirks(single_writes=True))
            await unit.connect()
            await unit.write(100, b"\x00\x01")
            await unit.write(100, b"\x00\x01\x00\x02")
            unit.disconnect()
            await unit.connect()
            with pytest.raises(ProtocolViolation, match="echo"):
                await unit.write(100, b"\x00\x01")

    asyncio.run(scenario())


def test_rtu_answer_in_single_bytes_is_put_together() -> None:
    async def bytewise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in good_rtu_answer(await reader.readexactly(8)):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    async def scenario() -> None:
        async with scripted_device(bytewise) as port:
            unit = rtu_unit(port)
            await unit.connect()
            assert await unit.read(300, 5) == registers_at(300, 5)
            unit.disconnect()

    asyncio.run(scenario())


async def two_units_at(port: int) -> tuple[Unit, Unit]:
    """Units 1 and 2 of one line through TCP, connected; a time-out is 2 s."""
    sessions = sessions_with(timeout_s=2.0)
    ends = (Endpoint("127.0.0.1", port, number, Transport.RTU_TCP) for number in (1, 2))
    one, two = (sessions.unit(end, LinkQuirks(in_flight=4)) for end in ends)
    await one.connect()
    await two.connect()
    return one, two


def test_rtu_link_has_one_request_in_flight() -> None:
    seen: list[int] = []

    def noted(request: bytes) -> bytes:
        seen.append(len(request))
        return good_rtu_answer(request)

    async def scenario(loop: SimulatedLoop) -> None:
        async with scripted_device(rtu_answering(noted)) as port:
            one, _ = await two_units_at(port)
            assert await asyncio.gather(*(one.read(n, 1) for n in range(8))) == [registers_at(n, 1) for n in range(8)]
            assert seen == [8] * 8, "each request came alone"

    run_simulated(scenario, seed=1)


def test_dead_unit_of_a_line_costs_its_siblings_two_time_outs_and_no_answer() -> None:
    async def scenario(loop: SimulatedLoop) -> None:
        script = rtu_answering(lambda request: b"" if request[0] == 2 else good_rtu_answer(request))
        async with scripted_device(script) as port:
            one, two = await two_units_at(port)
            begun_s = loop.time()
            dead, waiting = two.read(100, 2), [one.read(n, 2) for n in range(5)]
            also_dead = two.read(300, 2)
            with pytest.raises(DeviceUnreachable, match="no answer in 2 s"):
                await dead
            with pytest.raises(DeviceUnreachable, match="silent before"):
                await also_dead
            assert await asyncio.gather(*waiting) == [registers_at(n, 2) for n in range(5)]
            assert loop.time() - begun_s == pytest.approx(4.0, abs=0.1)
            assert one.connected
            assert not two.connected
            with pytest.raises(DeviceUnreachable, match="no answer in 2 s"):
                await two.connect()
            assert one.connected

    run_simulated(scenario, seed=1)


def late_by(delay_s: float, requests: list[bytes]) -> Script:
    """A line on which unit 2 gives the first answer of all too late."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while request := await reader.read(300):
            requests.append(request)
            answer = good_rtu_answer(request)
            if len(requests) == 1:
                loop.call_later(delay_s, writer.write, answer)
            else:
                writer.write(answer)

    return script


def test_late_answer_on_a_line_is_thrown_away_while_nothing_is_asked() -> None:
    requests: list[bytes] = []

    async def scenario(loop: SimulatedLoop) -> None:
        async with scripted_device(late_by(3.0, requests)) as port:
            one, two = await two_units_at(port)
            with pytest.raises(DeviceUnreachable, match="no answer"):
                await two.read(100, 2)
            assert await one.read(500, 2) == registers_at(500, 2)
            await two.connect()
            assert await two.read(200, 2) == registers_at(200, 2)
            assert one.connected
            assert [request[0] for request in requests] == [2, 1, 2, 2]

    run_simulated(scenario, seed=1)


@pytest.mark.parametrize("count", [1, 2, 120])
def test_answer_that_is_later_still_is_never_taken_for_the_answer_to_the_same_question(count: int) -> None:
    async def slow_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers unit 2 one question late, each time with what the register was when it was asked."""
        behind: list[bytes] = []
        while request := await reader.read(300):
            if request[0] == 2:
                behind.append(good_rtu_answer(request))
                if len(behind) > 1:
                    writer.write(behind.pop(0))
            else:
                writer.write(good_rtu_answer(request))

    async def scenario(loop: SimulatedLoop) -> None:
        async with scripted_device(slow_line, rtu_answering(good_rtu_answer)) as port:
            one, two = await two_units_at(port)
            with pytest.raises(DeviceUnreachable, match="no answer"):
                await two.read(100, count)
            assert await one.read(500, 2) == registers_at(500, 2)
            with pytest.raises(ProtocolViolation):
                await two.connect()
            assert not one.connected, "nobody knows what else is under way"
            await two.connect()
            assert await two.read(300, count) == registers_at(300, count)

    run_simulated(scenario, seed=1)


@contextmanager
def serial_line(answer: Answer) -> Iterator[tuple[str, list[bytes]]]:
    """A pseudo-terminal with a device at its far end, run by the loop; gives the port and what the device was asked."""
    far, near = pty.openpty()
    for end in (far, near):
        tty.setraw(end)
    requests: list[bytes] = []
    received = bytearray()
    loop = asyncio.get_running_loop()

    def answer_whole() -> None:
        received.extend(os.read(far, 512))
        if whole_rtu_request(bytes(received)):
            requests.append(bytes(received))
            received.clear()
            os.write(far, answer(requests[-1]))

    loop.add_reader(far, answer_whole)
    try:
        yield os.ttyname(near), requests
    finally:
        loop.remove_reader(far)
        os.close(far)
        os.close(near)


def serial_units(port: str, *numbers: int, timeout_s: float = 2.0) -> list[Unit]:
    sessions = sessions_with(timeout_s=timeout_s)
    return [sessions.unit(Endpoint(port, 115200, number, Transport.SERIAL)) for number in numbers]


def test_serial_line_is_shared_by_its_units_and_read_and_written() -> None:
    async def scenario() -> None:
        with serial_line(good_rtu_answer) as (port, requests):
            one, two = serial_units(port, 1, 2)
            await one.connect()
            await two.connect()
            wanted = [(one, 100, 2), (two, 200, 120), (one, 300, 2)]
            answers = await asyncio.gather(*(unit.read(address, count) for unit, address, count in wanted))
            assert answers == [registers_at(address, count) for _, address, count in wanted]
            await two.write(100, registers_at(1, 123))
            assert [request[0] for request in requests] == [1, 2, 1, 2]
            one.disconnect()
            assert two.connected
            two.disconnect()
            await one.connect()
            assert await one.read(100, 2) == registers_at(100, 2)
            one.disconnect()

    asyncio.run(asyncio.wait_for(scenario(), 5))


@pytest.mark.parametrize("answer", WRONG_RTU_READS.values(), ids=WRONG_RTU_READS.keys())
def test_wrong_answer_on_a_serial_line_is_not_believed(answer: Answer) -> None:
    async def scenario() -> None:
        with serial_line(answer) as (port, _):
            (unit,) = serial_units(port, 1)
            await unit.connect()
            with pytest.raises(ProtocolViolation):
                await unit.read(100, 2)
            assert not unit.connected

    asyncio.run(asyncio.wait_for(scenario(), 5))


def test_silent_serial_line_is_a_time_out_and_can_be_opened_again() -> None:
    async def scenario() -> None:
        with serial_line(lambda request: b"" if request[3] == 100 else good_rtu_answer(request)) as (port, _):
            (unit,) = serial_units(port, 1, timeout_s=0.05)
            await unit.connect()
            with pytest.raises(DeviceUnreachable, match="no answer"):
                await unit.read(100, 2)
            await unit.connect()
            assert await unit.read(200, 2) == registers_at(200, 2)
            unit.disconnect()

    asyncio.run(asyncio.wait_for(scenario(), 5))


def test_serial_adapter_that_is_pulled_out_fails_what_is_in_flight() -> None:
    async def scenario() -> None:
        far, near = pty.openpty()
        (unit,) = serial_units(os.ttyname(near), 1, timeout_s=600)
        await unit.connect()
        reading = asyncio.ensure_future(unit.read(100, 2))
        await asyncio.sleep(0)
        os.close(near)
        os.close(far)
        with pytest.raises(DeviceUnreachable, match="connection lost"):
            await reading
        assert not unit.connected

    asyncio.run(asyncio.wait_for(scenario(), 5))


def test_serial_port_that_is_not_there_is_an_unreachable_device() -> None:
    async def scenario() -> None:
        (unit,) = serial_units("/dev/no-such-port", 1)
        with pytest.raises(DeviceUnreachable, match=r"no connection.*no-such-port"):
            await unit.connect()

    asyncio.run(scenario())
