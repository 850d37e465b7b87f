"""Simulated devices on Modbus: listens, answers from byte images, obeys writes, and fails on demand.

Runs on standard event-loop calls only, so the same code serves loopback sockets and a simulated network.
Source: MODBUS Messaging on TCP/IP 1.0b; exception 11 of MODBUS Application Protocol 1.1b3 for a unit that is not there.
"""

import asyncio
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import cast

import numpy as np

from hil import distort
from hil.fault_kinds import OF_CONNECTIONS, RECONNECTING, Fault
from hil.framing import Answer, Framing, Mbap, OutOfStep, Request
from hil.registers import Bank
from hil.unit import READ_MAX, WRITE_MANY, WRITE_ONE, BankUnit, FaultHook, SimulatedUnit, WriteHook, nothing

__all__ = ["DeviceServer", "Endpoint", "Fault", "WriteHook", "WriteTap", "listening"]

_READ = struct.Struct(">HHHBBHH")
_ANSWER = struct.Struct(">HHHBBB")
_GATEWAY_TARGET_SILENT = 11
_SPLIT_S = 0.0005
"""Between bytes that are to be segments of their own: more than a turn of the loop."""

WriteTap = Callable[[bytes], None]
"""Told of every write request that reaches the server, before anything is done with it: the whole frame."""


class Endpoint:
    """One port, and the units behind it."""

    def __init__(
        self,
        units: Mapping[int, SimulatedUnit],
        *,
        rng: np.random.Generator,
        tap: WriteTap = nothing,
        framing: Framing | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Modbus TCP; with another framing what that makes of it, and with a TLS context inside TLS."""
        self.units = units
        self.failing: Fault | None = None
        """The fault that has befallen all units."""
        self.tap = tap
        self.framing = framing or Mbap()
        self.links: set[asyncio.Transport] = set()
        self._link = _Link if framing is None else _FramedLink
        self._rng = rng
        self._tls = tls
        self._server: asyncio.AbstractServer | None = None
        self._address = ("127.0.0.1", 0)

    async def start(self, host: str, port: int) -> int:
        """Listen; port 0 takes any free one. Returns the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: self._link(self), host, port, ssl=self._tls)
        bound: int = self._server.sockets[0].getsockname()[1]
        self._address = (host, bound)
        return bound

    def stop(self) -> None:
        """Close the listener and drop every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._drop()

    def fault(self, kind: Fault, value: float | None = None, *, unit: int | None = None) -> None:
        """Fail from now on, in one way: all units, or one. Faults of connections befall all.

        Raises ValueError for a number that this kind does not take.
        """
        alone = unit is not None and kind not in OF_CONNECTIONS
        for befallen in [self.units[unit]] if alone and unit is not None else self.units.values():
            befallen.fail(kind, value)
        self.failing = self.failing if alone else kind
        if kind in (Fault.STOP, Fault.REBOOT):
            self.stop()
        elif kind in RECONNECTING:
            self._drop()

    async def heal(self) -> None:
        """End whatever fault there is; listens again on the port it had."""
        moved = any(unit.failing in RECONNECTING for unit in self.units.values())
        self.failing = None
        for unit in self.units.values():
            unit.mend()
        if moved:
            self._drop()
        if self._server is None:
            await self.start(*self._address)

    def babble(self) -> bytes:
        """A few random bytes."""
        return self._rng.bytes(int(self._rng.integers(1, 64)))

    def _drop(self) -> None:
        for transport in tuple(self.links):
            transport.abort()


@asynccontextmanager
async def listening(endpoint: Endpoint, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """Have an endpoint listen for a while; gives the port."""
    bound = await endpoint.start(host, port)
    try:
        yield bound
    finally:
        endpoint.stop()


class DeviceServer(BankUnit):
    """One row of a bank, alone behind a port of its own."""

    def __init__(
        self,
        bank: Bank,
        row: int,
        *,
        rng: np.random.Generator,
        on_write: WriteHook,
        tap: WriteTap,
        unit: int = 1,
        on_fault: FaultHook = nothing,
    ) -> None:
        super().__init__(bank, row, on_write=on_write, on_fault=on_fault)
        self.endpoint = Endpoint({unit: self}, rng=rng, tap=tap)

    @property
    def links(self) -> set[asyncio.Transport]:
        """The connections that there are."""
        return self.endpoint.links

    @property
    def tap(self) -> WriteTap:
        """Who is told of writes."""
        return self.endpoint.tap

    @tap.setter
    def tap(self, tap: WriteTap) -> None:
        self.endpoint.tap = tap

    async def start(self, host: str, port: int) -> int:
        """Listen; port 0 takes any free one. Returns the port."""
        return await self.endpoint.start(host, port)

    def stop(self) -> None:
        """Close the listener and drop every connection."""
        self.endpoint.stop()

    def fault(self, kind: Fault, value: float | None = None) -> None:
        """Fail from now on, in one way; see `Endpoint.fault`."""
        self.endpoint.fault(kind, value)

    async def heal(self) -> None:
        """End whatever fault there is; listens again on the port it had."""
        await self.endpoint.heal()


class _FramedLink(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._units = endpoint.units
        self._rest = b""
        self._held = b""
        """The answer that comes late."""
        self._drops: deque[int] = deque()
        """Bytes that go out one by one."""
        self._dripping = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        endpoint = self._endpoint
        self._transport = cast(asyncio.Transport, transport)  # a stream's, on every loop
        alone = endpoint.failing is Fault.SECOND_REFUSED
        if endpoint.failing is Fault.REFUSE or (alone and endpoint.links):
            self._transport.abort()
        else:
            endpoint.links.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._endpoint.links.discard(self._transport)
        self._drops.clear()

    def eof_received(self) -> bool:
        return self._endpoint.failing is Fault.HALF_OPEN  # and so stays open

    def data_received(self, data: bytes) -> None:
        if self._endpoint.failing is Fault.HALF_OPEN:
            return
        self._rest += data
        try:
            while request := self._endpoint.framing.cut(self._rest):
                self._rest = self._rest[len(request.frame) :]
                self._serve(request)
        except OutOfStep:
            self._transport.abort()
            self._rest = b""

    def _serve(self, request: Request) -> None:
        function = request.pdu[0]
        if function in (WRITE_ONE, WRITE_MANY):
            self._endpoint.tap(request.frame)
        unit = self._units.get(request.unit)
        if unit is None:
            self._answer(request, bytes((function | 0x80, _GATEWAY_TARGET_SILENT)))
        elif unit.failing is None:
            self._answer(request, unit.answer(request.pdu))
        else:
            self._misbehave(request, unit, unit.failing)

    def _answer(self, request: Request, pdu: bytes) -> None:
        self._transport.write(self._endpoint.framing.pack(Answer(request.transaction, request.unit, pdu)))

    def _misbehave(self, request: Request, unit: SimulatedUnit, kind: Fault) -> None:
        if kind is Fault.HANG:
            return
        if kind is Fault.GARBAGE:
            self._write(self._endpoint.babble())
            return
        right = Answer(request.transaction, request.unit, unit.answer(request.pdu))
        frame = self._endpoint.framing.pack(distort.answer(kind, unit.fault_value, right))
        match kind:
            case Fault.DELAY:
                asyncio.get_running_loop().call_later(unit.fault_value, self._write, frame)
            case Fault.DRIBBLE | Fault.SPLIT:
                self._drip(frame, unit.fault_value if kind is Fault.DRIBBLE else _SPLIT_S)
            case Fault.DROP_MID_FRAME:
                self._write(frame[: len(frame) // 2])
                self._transport.close()
            case Fault.DUPLICATE:
                self._write(frame + frame)
            case Fault.LATE:
                late, self._held = self._held, frame
                self._write(late)
            case _:
                self._write(frame)

    def _write(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _drip(self, frame: bytes, step_s: float) -> None:
        self._drops.extend(frame)
        if not self._dripping:
            self._drop_one(step_s)

    def _drop_one(self, step_s: float) -> None:
        """Send the next byte, and the others after it."""
        self._dripping = bool(self._drops) and not self._transport.is_closing()
        if self._dripping:
            self._write(bytes((self._drops.popleft(),)))
            asyncio.get_running_loop().call_later(step_s, self._drop_one, step_s)


class _Link(_FramedLink):
    """A connection with plain Modbus TCP: nearly all of it is whole reads that a sound unit's bytes can answer."""

    def data_received(self, data: bytes) -> None:
        if len(data) == 12 and not self._rest:
            transaction, protocol, length, unit_id, function, address, count = _READ.unpack(data)
            unit = self._units.get(unit_id)
            if unit is not None and unit.failing is None:
                at = 2 * (address - unit.base)
                end = at + 2 * count
                view = unit.view
                whole = at >= 0 and end <= len(view) and 0 < count <= READ_MAX
                if whole and (protocol, length, function) == (0, 6, 3):
                    head = _ANSWER.pack(transaction, 0, 3 + 2 * count, unit_id, 3, 2 * count)
                    self._transport.write(head + view[at:end])
                    return
        super().data_received(data)
