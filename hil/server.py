"""A simulated device on Modbus TCP: answers from its byte image, obeys writes, and fails on demand.

Runs on standard event-loop calls only, so the same code serves loopback sockets and a simulated network.
Source: MODBUS Application Protocol 1.1b3 (functions 3, 6, 16; exceptions 1, 2, 3), MODBUS Messaging on TCP/IP 1.0b.
"""

import asyncio
import struct
from collections.abc import Callable
from enum import StrEnum
from typing import cast

import numpy as np

from hil.registers import BASE, ILLEGAL_ADDRESS, ILLEGAL_VALUE, Bank

_READ = struct.Struct(">HHHBBHH")
_ANSWER = struct.Struct(">HHHBBB")
_MBAP_BYTES = 7
_LENGTH_MAX = 254
_READ_MAX = 125
_WRITE_MAX = 123
_ILLEGAL_FUNCTION = 1
_GATEWAY_TARGET_SILENT = 11
_WRITES = (6, 16)

WriteHook = Callable[[int, int, int, bytes], None]
"""Told after a write: row in the bank, model, offset of the first register in that model, data."""
WriteTap = Callable[[bytes], None]
"""Told of every write request that reaches the server, before anything is done with it: the whole ADU."""


class Fault(StrEnum):
    """Ways in which a device fails."""

    STOP = "stop"
    """Nobody listens; connections are dropped."""
    REFUSE = "refuse"
    """Connections are accepted and reset at once."""
    GARBAGE = "garbage"
    """Every request is answered with random bytes."""
    HANG = "hang"
    """No request is answered."""
    FREEZE = "freeze"
    """Registers stand still; writes are acknowledged and ignored."""


class DeviceServer:
    """One row of a bank behind one TCP port."""

    def __init__(
        self,
        bank: Bank,
        row: int,
        *,
        rng: np.random.Generator,
        on_write: WriteHook,
        tap: WriteTap,
        unit: int = 1,
    ) -> None:
        self.bank = bank
        self.row = row
        self.unit = unit
        self.view = bank.row(row)
        self.failing: Fault | None = None
        self.tap = tap
        self.links: set[asyncio.Transport] = set()
        self._rng = rng
        self._on_write = on_write
        self._server: asyncio.AbstractServer | None = None
        self._address = ("127.0.0.1", 0)

    async def start(self, host: str, port: int) -> int:
        """Listen; port 0 takes any free one. Returns the port."""
        self._server = await asyncio.get_running_loop().create_server(lambda: _Link(self), host, port)
        bound: int = self._server.sockets[0].getsockname()[1]
        self._address = (host, bound)
        return bound

    def stop(self) -> None:
        """Close the listener and drop every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._drop()

    def fault(self, kind: Fault) -> None:
        """Fail from now on, in one way."""
        self.failing = kind
        if kind is Fault.FREEZE:
            self.view = memoryview(bytes(self.view))
        elif kind is Fault.STOP:
            self.stop()
        elif kind is Fault.REFUSE:
            self._drop()

    async def heal(self) -> None:
        """End whatever fault there is; listens again on the port it had."""
        self.failing = None
        self.view = self.bank.row(self.row)
        if self._server is None:
            await self.start(*self._address)

    def babble(self) -> bytes:
        """A few random bytes."""
        return self._rng.bytes(int(self._rng.integers(1, 64)))

    def write(self, address: int, data: bytes) -> int:
        """Store registers, all or none. Returns 0 or a Modbus exception code; see `Bank.refusal`."""
        register = address - BASE
        refused = self.bank.refusal(self.row, register, data)
        if not refused and self.failing is not Fault.FREEZE:
            self.bank.store(self.row, register, data)
            place = self.bank.covered(register, len(data) // 2)[0]
            self._on_write(self.row, place.model, place.point.offset, data)
        return refused

    def _drop(self) -> None:
        for transport in tuple(self.links):
            transport.abort()


class _Link(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, device: DeviceServer) -> None:
        self._device = device
        self._rest = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # a stream's, on every loop
        if self._device.failing is Fault.REFUSE:
            self._transport.abort()
        else:
            self._device.links.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._device.links.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        device = self._device
        if len(data) == 12 and not self._rest and device.failing is None:  # one whole read: nearly all traffic
            transaction, protocol, length, unit, function, address, count = _READ.unpack(data)
            at = 2 * (address - BASE)
            end = at + 2 * count
            view = device.view
            whole = at >= 0 and end <= len(view) and 0 < count <= _READ_MAX
            if whole and (protocol, length, unit, function) == (0, 6, device.unit, 3):
                head = _ANSWER.pack(transaction, 0, 3 + 2 * count, unit, 3, 2 * count)
                self._transport.write(head + view[at:end])
                return
        self._rest += data
        while self._one():
            pass

    def _one(self) -> bool:
        """Take one request off the buffer and answer it; False when there is no whole one."""
        rest = self._rest
        if len(rest) < _MBAP_BYTES + 1:
            return False
        _, protocol, length = struct.unpack_from(">HHH", rest)
        if protocol or not 2 <= length <= _LENGTH_MAX:
            self._transport.abort()  # out of step with the stream: nothing after this can be believed
            self._rest = b""
            return False
        if len(rest) < 6 + length:
            return False
        adu, self._rest = rest[: 6 + length], rest[6 + length :]
        self._serve(adu)
        return True

    def _serve(self, adu: bytes) -> None:
        device, unit, function = self._device, adu[6], adu[7]
        if function in _WRITES:
            device.tap(adu)
        if device.failing is Fault.GARBAGE:
            self._transport.write(device.babble())
        elif device.failing is not Fault.HANG:
            answer = self._answer(function, adu[8:]) if unit == device.unit else _GATEWAY_TARGET_SILENT
            pdu = bytes((function | 0x80, answer)) if isinstance(answer, int) else bytes((function,)) + answer
            self._transport.write(adu[:4] + struct.pack(">HB", 1 + len(pdu), unit) + pdu)

    def _answer(self, function: int, body: bytes) -> bytes | int:
        """The body of the answer to a request, or an exception code."""
        match function:
            case 3 if len(body) == 4:
                return self._read(*struct.unpack(">HH", body))
            case 6 if len(body) == 4:
                return self._device.write(int.from_bytes(body[:2], "big"), body[2:]) or body
            case 16 if len(body) >= 5:
                return self._write_many(body)
            case 3 | 6 | 16:
                return ILLEGAL_VALUE
        return _ILLEGAL_FUNCTION

    def _read(self, address: int, count: int) -> bytes | int:
        if not 0 < count <= _READ_MAX:
            return ILLEGAL_VALUE
        at, view = 2 * (address - BASE), self._device.view
        if at < 0 or at + 2 * count > len(view):
            return ILLEGAL_ADDRESS
        return bytes((2 * count,)) + view[at : at + 2 * count]

    def _write_many(self, body: bytes) -> bytes | int:
        address, count, size = struct.unpack_from(">HHB", body)
        data = body[5:]
        if not 0 < count <= _WRITE_MAX or size != 2 * count or len(data) != size:
            return ILLEGAL_VALUE
        return self._device.write(address, data) or body[:4]
