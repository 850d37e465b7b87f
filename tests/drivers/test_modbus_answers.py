"""The Modbus link against pymodbus's server, and against devices that answer wrongly in every known way."""

import asyncio
import struct
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derms.errors import DeviceRefused, DeviceUnreachable, ProtocolViolation
from drivers.modbus.unit import Unit
from tests.drivers.oracles import (
    answering,
    connection_to,
    good_answer,
    pymodbus_device,
    registers_at,
    scripted_device,
    sound,
)


def with_bytes(start: int, new: bytes) -> Callable[[bytes], list[bytes]]:
    """The good answer with some of its bytes replaced."""

    def answer(request: bytes) -> list[bytes]:
        good = good_answer(request)
        return [good[:start] + new + good[start + len(new) :]]

    return answer


def exact(pdu: bytes) -> Callable[[bytes], list[bytes]]:
    """A well-framed answer with another content."""
    return lambda request: [request[:2] + struct.pack(">HH", 0, 1 + len(pdu)) + request[6:7] + pdu]


def previous_transaction(request: bytes) -> list[bytes]:
    tid = (int.from_bytes(request[:2], "big") - 1) & 0xFFFF
    return [(tid or 0xFFFF).to_bytes(2, "big") + good_answer(request)[2:]]


WRONG_READS = {
    "short: one register of two": exact(b"\x03\x02\x00\x01"),
    "short: byte count right, bytes missing": exact(b"\x03\x04\x00\x01"),
    "long: three registers of two": exact(b"\x03\x06\x00\x01\x00\x02\x00\x03"),
    "long: bytes after the frame": lambda request: [good_answer(request) + b"\x00"],
    "odd byte count": exact(b"\x03\x03\x00\x01\x02"),
    "byte count that does not match": with_bytes(8, b"\x02"),
    "function code of another read": with_bytes(7, b"\x04"),
    "function code of a write": with_bytes(7, b"\x10"),
    "echo of a write": exact(b"\x10\x00\x64\x00\x02"),
    "unknown function code": exact(b"\x2b\x0e\x01\x00"),
    "exception to another function": exact(b"\x90\x02"),
    "exception of function 0": exact(b"\x80\x01"),
    "exception that is too long": exact(b"\x83\x02\x00"),
    "previous transaction": previous_transaction,
    "transaction 0": with_bytes(0, b"\x00\x00"),
    "another unit": with_bytes(6, b"\x02"),
    "unit 255": with_bytes(6, b"\xff"),
    "another protocol": with_bytes(2, b"\x00\x01"),
    "frame length too small": with_bytes(4, b"\x00\x02"),
    "frame length too great": with_bytes(4, b"\xff\xff"),
    "garbage": lambda _: [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
    "the answer twice": lambda request: [good_answer(request) * 2],
}


@pytest.mark.parametrize("answer", WRONG_READS.values(), ids=WRONG_READS.keys())
def test_wrong_answer_to_a_read_drops_the_connection_and_the_next_read_is_right(
    answer: Callable[[bytes], list[bytes]],
) -> None:
    async def scenario() -> None:
        async with scripted_device(answering(answer), sound) as port:
            connection = connection_to(port)
            await connection.connect()
            with pytest.raises(ProtocolViolation):
                await connection.read(100, 2)
            assert not connection.connected
            with pytest.raises(DeviceUnreachable, match="not connected"):
                await connection.read(100, 2)
            await connection.connect()
            assert await connection.read(200, 2) == registers_at(200, 2)
            connection.disconnect()

    asyncio.run(scenario())


WRONG_ECHOES = {
    "another address": exact(b"\x10\x00\x65\x00\x02"),
    "another count": exact(b"\x10\x00\x64\x00\x01"),
    "shorter": exact(b"\x10\x00\x64\x00"),
    "answer of a read": exact(b"\x03\x02\x00\x01"),
    "echo of a single write": exact(b"\x06\x00\x64\x00\x02"),
}


@pytest.mark.parametrize("answer", WRONG_ECHOES.values(), ids=WRONG_ECHOES.keys())
def test_wrong_echo_of_a_write_is_refused(answer: Callable[[bytes], list[bytes]]) -> None:
    async def scenario() -> None:
        async with scripted_device(answering(answer)) as port:
            connection = connection_to(port)
            await connection.connect()
            with pytest.raises(ProtocolViolation):
                await connection.write(100, b"\x00\x01\x00\x02")
            assert not connection.connected

    asyncio.run(scenario())


def test_reads_and_writes_what_the_server_of_pymodbus_holds() -> None:
    async def scenario() -> None:
        async with pymodbus_device(registers_at(1000, 200), base=1000) as device:
            connection = connection_to(device.port)
            await connection.connect()
            assert await connection.read(1003, 125) == registers_at(1003, 125)
            await connection.write(1010, registers_at(1, 123))
            assert (await device.image())[20 : 20 + 246] == registers_at(1, 123)
            assert await connection.read(1000, 1) == registers_at(1000, 1)
            connection.disconnect()

    asyncio.run(scenario())


def test_exception_answer_names_its_code_and_the_connection_stays() -> None:
    async def scenario() -> None:
        async with pymodbus_device(registers_at(1000, 10), base=1000) as device:
            connection = connection_to(device.port)
            await connection.connect()
            with pytest.raises(DeviceRefused, match=r"illegal address \(2\)") as refused:
                await connection.read(5000, 2)
            assert refused.value.code == 2
            assert await connection.read(1000, 2) == registers_at(1000, 2)
            connection.disconnect()

    asyncio.run(scenario())


EXCEPTIONS = {
    1: "illegal function",
    2: "illegal address",
    3: "illegal value",
    4: "device failure",
    6: "device busy",
    10: "gateway path unavailable",
    11: "gateway target device failed to respond",
    0x77: "unknown exception",
}


@pytest.mark.parametrize(("code", "name"), EXCEPTIONS.items(), ids=EXCEPTIONS.values())
def test_refusal_says_in_words_what_the_device_answered(code: int, name: str) -> None:
    async def scenario() -> None:
        async with scripted_device(answering(exact(bytes([0x83, code])))) as port:
            connection = connection_to(port)
            await connection.connect()
            with pytest.raises(DeviceRefused, match=rf"{name} \({code}\)") as refused:
                await connection.read(100, 2)
            assert refused.value.code == code
            assert connection.connected
            connection.disconnect()

    asyncio.run(scenario())


def test_answer_in_single_bytes_is_put_together() -> None:
    async def scenario() -> None:
        bytewise = answering(lambda request: [bytes([byte]) for byte in good_answer(request)])
        async with scripted_device(bytewise) as port:
            connection = connection_to(port)
            await connection.connect()
            assert await connection.read(300, 5) == registers_at(300, 5)
            await connection.write(300, b"\x00\x01")
            assert await connection.read(301, 5) == registers_at(301, 5)
            connection.disconnect()

    asyncio.run(scenario())


@pytest.mark.parametrize(("address", "count"), [(0, 0), (0, 126), (-1, 2), (65535, 2)])
def test_read_that_no_frame_can_carry_is_a_mistake_of_the_caller(address: int, count: int) -> None:
    with pytest.raises(ValueError):
        _ = connection_to(1).read(address, count)


@pytest.mark.parametrize("data", [b"", b"\x00", bytes(248)])
def test_write_that_no_frame_can_carry_is_a_mistake_of_the_caller(data: bytes) -> None:
    with pytest.raises(ValueError):
        asyncio.run(connection_to(1).write(0, data))


class Memory(asyncio.Transport):
    """A transport whose far end answers within the write: no sockets, for runs of many requests."""

    def __init__(self, protocol: asyncio.Protocol, answer: Callable[[bytes], list[bytes]]) -> None:
        super().__init__()
        self._protocol = protocol
        self._answer = answer

    def write(self, data: Any) -> None:
        for chunk in self._answer(bytes(data)):
            self._protocol.data_received(chunk)

    def abort(self) -> None:
        self._protocol.connection_lost(None)


Told = TypeVar("Told")


def over_memory(answer: Callable[[bytes], list[bytes]], talk: Callable[[Unit], Coroutine[Any, Any, Told]]) -> Told:
    """Run a talk with a device on a loop whose network is this process's memory."""

    async def scenario() -> Told:
        async def create_connection(factory: Callable[[], asyncio.Protocol], host: str, port: int) -> None:
            protocol = factory()
            protocol.connection_made(Memory(protocol, answer))

        setattr(asyncio.get_running_loop(), "create_connection", create_connection)  # noqa: B010
        connection = connection_to(502, timeout_s=0.0)
        await connection.connect()
        return await talk(connection)

    return asyncio.run(scenario())


def test_transaction_ids_go_round_without_zero() -> None:
    seen: list[int] = []

    def answer(request: bytes) -> list[bytes]:
        seen.append(int.from_bytes(request[:2], "big"))
        return [good_answer(request)]

    async def talk(connection: Unit) -> None:
        for _ in range(0x10001):
            await connection.read(7, 1)

    over_memory(answer, talk)
    assert seen == [*range(1, 0x10000), 1, 2]


@settings(max_examples=60, deadline=None)
@given(noise=st.binary(max_size=40))
def test_random_bytes_are_never_taken_for_an_answer(noise: bytes) -> None:
    async def talk(connection: Unit) -> None:
        with pytest.raises((ProtocolViolation, DeviceUnreachable)):
            await connection.read(7, 2)
        assert not connection.connected

    over_memory(lambda _: [noise], talk)


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 8), flip=st.integers(1, 255))
def test_any_damage_to_the_head_of_an_answer_is_noticed(at: int, flip: int) -> None:
    def damaged(request: bytes) -> list[bytes]:
        frame = bytearray(good_answer(request))
        frame[at] ^= flip
        return [bytes(frame)]

    async def talk(connection: Unit) -> None:
        with pytest.raises((ProtocolViolation, DeviceUnreachable)):
            await connection.read(7, 2)
        assert not connection.connected

    over_memory(damaged, talk)


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(1, 19), unique=True).map(sorted))
def test_answer_cut_anywhere_is_put_together(cuts: list[int]) -> None:
    def cut(request: bytes) -> list[bytes]:
        frame = good_answer(request)
        return [frame[a:b] for a, b in zip([0, *cuts], [*cuts, len(frame)], strict=True)]

    async def talk(connection: Unit) -> bytes:
        return await connection.read(7, 6)

    assert over_memory(cut, talk) == registers_at(7, 6)
