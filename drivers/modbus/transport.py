"""Modbus TCP client on asyncio: one request in flight, every answer checked, a doubtful connection never reused.

Frames are made and read by pymodbus's framer and PDUs; the rest is a protocol of its own, because pymodbus's
client accepts answers that do not fit their question. Only the running loop is used for sockets and time.
Addresses are protocol addresses from 0, counts are registers of two bytes.
Source: MODBUS Messaging on TCP/IP Implementation Guide 1.0b, 3.1.3; MODBUS Application Protocol 1.1b3, 6.3, 6.12, 7.
"""

import asyncio
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from pymodbus.constants import ExcCodes
from pymodbus.framer import FramerSocket
from pymodbus.pdu import DecodePDU, ExceptionResponse
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadHoldingRegistersResponse,
    WriteMultipleRegistersRequest,
    WriteMultipleRegistersResponse,
)

from derms.errors import DeviceRefused, DeviceUnreachable, FieldError, ProtocolViolation, WriteForbidden

MAX_READ = 125
MAX_WRITE = 123
"""Registers that fit one request."""


class _RegisterBytes(ReadHoldingRegistersResponse):
    """An FC3 answer that keeps its bytes as they came instead of a list of numbers."""

    payload = b""

    def __init__(self) -> None:
        """Set nothing: this is made once per poll, and the framer fills in what is needed."""

    def decode(self, data: bytes) -> None:
        self.payload = data[1:]

    def __str__(self) -> str:
        # The decoder formats every answer for its debug log, whether that is on or off.
        return "registers"


def _framer() -> FramerSocket:
    decoder = DecodePDU(is_server=False)
    decoder.register(_RegisterBytes)
    return FramerSocket(decoder)


_FRAMER = _framer()
_MBAP = struct.Struct(">HHHBB")
"""Transaction id, protocol id, length of what follows, unit; then the function code."""
_MBAP_BYTES = 6
"""Bytes that the length field does not count."""
_EXCEPTION_BIT = 0x80
_EXCEPTION_LENGTH = 3


@dataclass(frozen=True, slots=True)
class _Request:
    """A question without its transaction id, and what the answer to it must look like."""

    tail: bytes
    answer: bytes
    """What follows the transaction id in a good answer, up to the payload."""
    answer_size: int
    """Bytes of the whole good answer."""
    function: int
    unit: int
    text: str


@lru_cache(maxsize=4096)
def _read_request(unit: int, address: int, count: int) -> _Request:
    if not (1 <= count <= MAX_READ and 0 <= address <= 0x10000 - count):
        raise ValueError(f"{count} registers at {address} cannot be read at once")
    question = ReadHoldingRegistersRequest(dev_id=unit, address=address, count=count)
    answer = ReadHoldingRegistersResponse(dev_id=unit, registers=[0] * count)
    frame = _FRAMER.buildFrame(answer)
    text = f"reading {count} registers at {address}"
    head = frame[2 : len(frame) - 2 * count]
    return _Request(_FRAMER.buildFrame(question)[2:], head, len(frame), answer.function_code, unit, text)


def _write_request(unit: int, address: int, data: bytes) -> _Request:
    count, odd = divmod(len(data), 2)
    if odd or not (1 <= count <= MAX_WRITE and 0 <= address <= 0x10000 - count):
        raise ValueError(f"{len(data)} bytes at {address} cannot be written at once")
    registers = struct.unpack(f">{count}H", data)
    question = WriteMultipleRegistersRequest(dev_id=unit, address=address, registers=registers)
    echo = WriteMultipleRegistersResponse(dev_id=unit, address=address, count=count)
    frame = _FRAMER.buildFrame(echo)
    text = f"writing {count} registers at {address}"
    return _Request(_FRAMER.buildFrame(question)[2:], frame[2:], len(frame), echo.function_code, unit, text)


class ModbusConnection:
    """One TCP connection to one unit; calls may overlap and are answered in order.

    Calls raise DeviceUnreachable (not connected, lost, no answer in time), ProtocolViolation (an answer that
    does not fit its question) or DeviceRefused (a Modbus exception). After the first two, and after a caller was
    cancelled while waiting, the connection is closed: a late answer cannot be taken for another one.
    """

    def __init__(
        self, host: str, port: int, unit: int, *, timeout_s: float, connect_timeout_s: float, read_only: bool
    ) -> None:
        self._host = host
        self._port = port
        self._unit = unit
        self._name = f"{host}:{port}/{unit}"
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._read_only = read_only
        self._turn = asyncio.Lock()
        self._link: _Link | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def connected(self) -> bool:
        return self._link is not None and self._link.open

    async def connect(self) -> None:
        """Open a new connection, after closing the one there is; raises DeviceUnreachable."""
        self.disconnect()
        async with self._turn:
            loop = asyncio.get_running_loop()
            link = _Link(self._name, self._timeout_s, loop)
            try:
                async with asyncio.timeout(self._connect_timeout_s):
                    await loop.create_connection(lambda: link, self._host, self._port)
            except TimeoutError as error:
                raise DeviceUnreachable(f"{self._name}: no connection in {self._connect_timeout_s:g} s") from error
            except OSError as error:
                raise DeviceUnreachable(f"{self._name}: no connection: {error}") from error
            self._link = link

    async def read(self, address: int, count: int) -> bytes:
        """Read holding registers (FC3); 2 * count bytes as they came."""
        return await self._ask(_read_request(self._unit, address, count))

    async def write(self, address: int, data: bytes) -> None:
        """Write holding registers (FC16); raises WriteForbidden on a read-only connection before anything is sent."""
        request = _write_request(self._unit, address, data)
        if self._read_only:
            raise WriteForbidden(f"{self._name}: {request.text}: this connection is read-only")
        await self._ask(request)

    def disconnect(self) -> None:
        """Close the connection; what is in flight fails with DeviceUnreachable."""
        if self._link is not None:
            self._link.drop(DeviceUnreachable(f"{self._name}: disconnected"))
            self._link = None

    async def _ask(self, request: _Request) -> bytes:
        link = self._link  # the one of now: a caller that waited for its turn must not speak on a later one
        async with self._turn:
            if link is None or not link.open:
                raise DeviceUnreachable(f"{self._name}: {request.text}: not connected")
            try:
                return await link.ask(request)
            except asyncio.CancelledError:
                link.abandon()
                raise


class _Link(asyncio.Protocol):
    """One TCP connection from its making to its loss, with at most one request waiting for its answer."""

    def __init__(self, name: str, timeout_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self.open = False
        self._name = name
        self._timeout_s = timeout_s
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._transaction = 0
        self._request: _Request | None = None
        self._answered: asyncio.Future[bytes] | None = None
        self._head = b""
        self._received = b""
        self._deadline_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, request: _Request) -> asyncio.Future[bytes]:
        """Send a request on an open link; the future gives the payload or the error."""
        assert self._transport is not None
        self._transaction = self._transaction % 0xFFFF + 1
        transaction = self._transaction.to_bytes(2, "big")
        self._request = request
        self._head = transaction + request.answer
        self._answered = answered = self._loop.create_future()
        self._deadline_s = self._loop.time() + self._timeout_s
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline_s, self._check_deadline)
        self._transport.write(transaction + request.tail)
        return answered

    def abandon(self) -> None:
        """Nobody waits for the answer any more: if it is still to come, it must find no connection."""
        if self._request is not None:
            self.drop(DeviceUnreachable(f"{self._name}: {self._request.text}: abandoned"))

    def drop(self, error: FieldError) -> None:
        """Close at once and fail what is in flight."""
        if not self.open or self._transport is None:
            return
        self.open = False
        self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()
        self._settle(error)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.drop(DeviceUnreachable(f"{self._name}: connection lost: {exc or 'closed by the device'}"))

    def data_received(self, data: bytes) -> None:
        if not self.open:
            return
        request = self._request
        if request is None:
            self.drop(ProtocolViolation(f"{self._name}: {len(data)} bytes that nobody asked for"))
            return
        frame = self._received + data if self._received else data
        if len(frame) != request.answer_size or not frame.startswith(self._head):
            wrong = _mismatch(frame, self._transaction, request)
            if wrong:
                self.drop(ProtocolViolation(f"{self._name}: {request.text}: {wrong}"))
                return
            if len(frame) < _MBAP.size or len(frame) < _MBAP_BYTES + int.from_bytes(frame[4:6], "big"):
                self._received = frame
                return
        pdu = _FRAMER.handleFrame(frame, 0, 0)[1]
        assert pdu is not None, "a whole frame decodes"
        if isinstance(pdu, ExceptionResponse):
            self._settle(_refusal(f"{self._name}: {request.text}", pdu.exception_code))
        else:
            self._settle(pdu.payload if isinstance(pdu, _RegisterBytes) else b"")

    def _settle(self, outcome: bytes | FieldError) -> None:
        answered, self._answered = self._answered, None
        self._received = b""
        self._request = None
        if answered is None or answered.done():
            return
        if isinstance(outcome, bytes):
            answered.set_result(outcome)
        else:
            answered.set_exception(outcome)

    def _check_deadline(self) -> None:
        """Run once per time-out at most, not once per request: an answered request leaves its timer to the next."""
        self._timer = None
        if self._request is None:
            return
        if self._loop.time() < self._deadline_s:
            self._timer = self._loop.call_at(self._deadline_s, self._check_deadline)
        else:
            text = f"{self._name}: {self._request.text}: no answer in {self._timeout_s:g} s"
            self.drop(DeviceUnreachable(text))


def _mismatch(frame: bytes, transaction: int, request: _Request) -> str:
    """Say how the bytes so far cannot be the answer to a request; empty while they can."""
    if len(frame) < _MBAP.size:
        return ""
    got_transaction, protocol, length, unit, function = _MBAP.unpack_from(frame)
    refused = function == request.function | _EXCEPTION_BIT
    rest_due = b"" if refused else request.answer[_MBAP.size - 2 :]
    rest = frame[_MBAP.size : _MBAP.size + len(rest_due)]
    checks = (
        ("protocol id", protocol, 0),
        ("transaction id", got_transaction, transaction),
        ("unit", unit, request.unit),
        ("function code", function, function if refused else request.function),
        ("frame length", length, _EXCEPTION_LENGTH if refused else request.answer_size - _MBAP_BYTES),
        ("byte count or echo", rest.hex(), rest_due[: len(rest)].hex()),
        ("surplus bytes", max(0, len(frame) - _MBAP_BYTES - length), 0),
    )
    return next((f"{what} {got}, expected {due}" for what, got, due in checks if got != due), "")


def _refusal(text: str, code: int) -> DeviceRefused:
    known = code in {int(known) for known in ExcCodes}
    name = ExcCodes(code).name.lower().replace("_", " ") if known else "unknown exception"
    return DeviceRefused(f"{text}: refused with {name} ({code})", code)
