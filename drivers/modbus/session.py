"""Who owns the connections: one session per endpoint, shared by all units there, and one rate for all new connections.

A connection that fails, or is lost before anything was answered, puts its endpoint off for a growing, jittered time.
"""

import asyncio
import math
import random
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cached_property, partial

from derms.domain.der import Endpoint, Transport
from derms.errors import DeviceRefused, DeviceUnreachable, TurnedAway, WriteForbidden
from derms.ports import FieldOptions
from drivers.modbus import serial
from drivers.modbus.frames import ADDRESSES, MBAP, RTU, Framing, Question, read_question, write_question
from drivers.modbus.link import Link
from drivers.modbus.quirks import STANDARD, LinkQuirks
from drivers.modbus.tls import LOSS_HINT, client_context
from drivers.modbus.unit import MAX_READ, Priority, Span, Table, Unit

BURST_S = 0.1
"""Connections that the rate allows in this time may be made at once [s]."""
DOUBLINGS_MAX = 16


class Sessions:
    """All sessions of a fleet; see the module's text.

    Parameters
    ----------
    options : FieldOptions
        Time-outs, requests in flight, back-off, rate, certificates; `read_only` refuses every write.
    chance : random.Random
        Draws the jitter of back-offs.
    """

    def __init__(self, options: FieldOptions, chance: random.Random) -> None:
        self._options = options
        self._chance = chance
        self._rate = _Rate(options.reconnects_per_s)
        self._sessions: dict[tuple[str, int, Transport], _Session] = {}

    def unit(self, endpoint: Endpoint, quirks: LinkQuirks = STANDARD) -> Unit:
        """A unit, not connected yet; raises ConfigError for an endpoint over TLS when there are no certificates."""
        key = (endpoint.host, endpoint.port, endpoint.transport)
        context = self._context if endpoint.transport is Transport.TLS else None
        if key not in self._sessions:
            self._sessions[key] = _Session(endpoint, self._options, self._chance, self._rate, context)
        session = self._sessions[key]
        session.mind(quirks)
        return _SessionUnit(session, endpoint, quirks, self._options)

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return client_context(self._options)


class _Rate:
    """Hands out the times at which new connections may be made, over all endpoints."""

    def __init__(self, per_s: float) -> None:
        self._interval_s = 1.0 / per_s
        self._next_s = 0.0

    async def turn(self) -> None:
        """Wait for one's turn."""
        now_s = asyncio.get_running_loop().time()
        self._next_s = max(self._next_s + self._interval_s, now_s)
        wait_s = self._next_s - now_s - BURST_S
        if wait_s > 0.0:
            await asyncio.sleep(wait_s)


class _Session:
    """The owner of one endpoint: makes its connection, and holds off when it cannot be made."""

    def __init__(
        self,
        endpoint: Endpoint,
        options: FieldOptions,
        chance: random.Random,
        rate: _Rate,
        context: ssl.SSLContext | None,
    ) -> None:
        self._endpoint = endpoint
        self._options = options
        self._chance = chance
        self._rate = rate
        self._context = context
        self._loss_hint = LOSS_HINT if context else ""
        self._quirks = STANDARD
        self._link: Link | None = None
        self._opening = asyncio.Lock()
        self._failures = 0
        self._again_s = -math.inf
        self._failed_with = ""
        self._failed_as: type[DeviceUnreachable] = DeviceUnreachable

    @property
    def framing(self) -> Framing:
        return MBAP if self._endpoint.transport in (Transport.TCP, Transport.TLS) else RTU

    def mind(self, quirks: LinkQuirks) -> None:
        """Take over what a unit needs of the connections to come."""
        mine, in_flight = self._quirks, quirks.in_flight or self._options.in_flight
        self._quirks = replace(
            mine,
            in_flight=min(mine.in_flight or in_flight, in_flight),
            gap_s=max(mine.gap_s, quirks.gap_s),
            settle_s=max(mine.settle_s, quirks.settle_s),
            zero_transaction=mine.zero_transaction or quirks.zero_transaction,
        )

    async def join(self, unit: "_SessionUnit") -> Link:
        """The connection that stands, or a new one; raises DeviceUnreachable, at once while the endpoint is put off."""
        async with self._opening:
            link = self._link
            if link is None or not link.open:
                self._judge_last()
                link = self._link = await self._open(unit.name)
            link.users.add(unit)
            return link

    def _judge_last(self) -> None:
        """A connection on which something was answered is a success; one that nobody had time to use is neither."""
        last, self._link = self._link, None
        if last is not None and last.heard:
            self._failures = 0
        elif last is not None and not last.left:
            self._put_off(last.ended_s, last.ended, turned_away=last.turned_away)

    def _put_off(self, from_s: float, why: str, *, turned_away: bool = False) -> None:
        options = self._options
        wait_s = min(options.backoff_max_s, options.backoff_min_s * 2.0 ** min(self._failures, DOUBLINGS_MAX))
        self._failures += 1
        self._again_s = from_s + wait_s * (0.5 + 0.5 * self._chance.random())
        self._failed_with = why
        self._failed_as = TurnedAway if turned_away else DeviceUnreachable

    async def _open(self, name: str) -> Link:
        loop = asyncio.get_running_loop()
        wait_s = self._again_s - loop.time()
        if wait_s > 0.0:
            raise self._failed_as(f"{name}: no connection: next try in {wait_s:.1f} s; {self._failed_with}")
        await self._rate.turn()
        link = self._new_link(loop)
        timeout_s = self._options.connect_timeout_s
        with ExitStack() as undo:
            undo.callback(link.drop, "not connected in time")
            try:
                async with asyncio.timeout(timeout_s):
                    await self._dial(loop, link)
            except TimeoutError as error:
                self._put_off(loop.time(), f"no connection in {timeout_s:g} s")
                raise DeviceUnreachable(f"{name}: {self._failed_with}") from error
            except OSError as error:
                why = f"no connection: {str(error) or 'closed by the device' + self._loss_hint}"
                self._put_off(loop.time(), why, turned_away=isinstance(error, ConnectionResetError))
                raise self._failed_as(f"{name}: {self._failed_with}") from error
            undo.pop_all()
        return link

    def _new_link(self, loop: asyncio.AbstractEventLoop) -> Link:
        endpoint, quirks = self._endpoint, self._quirks
        line_s = serial.silence_s(endpoint.port) if endpoint.transport is Transport.SERIAL else 0.0
        return Link(
            loop,
            self.framing,
            in_flight=quirks.in_flight or 1,
            gap_s=max(quirks.gap_s, line_s),
            settle_s=quirks.settle_s,
            zero_transaction=quirks.zero_transaction,
            loss_hint=self._loss_hint,
        )

    async def _dial(self, loop: asyncio.AbstractEventLoop, link: Link) -> None:
        host, port = self._endpoint.host, self._endpoint.port
        if self._endpoint.transport is Transport.SERIAL:
            await serial.open_port(link, host, port, self._options.serial_parity)
        elif self._context is not None:
            await loop.create_connection(lambda: link, host, port, ssl=self._context, server_hostname=host)
        else:
            await loop.create_connection(lambda: link, host, port)


class _SessionUnit:
    """One unit of a session; see drivers.modbus.unit.Unit."""

    __slots__ = (
        "_answers_as",
        "_framing",
        "_link",
        "_quirks",
        "_read_only",
        "_session",
        "_unit",
        "name",
        "timeout_s",
    )

    def __init__(self, session: _Session, endpoint: Endpoint, quirks: LinkQuirks, options: FieldOptions) -> None:
        self.name = str(endpoint)
        self.timeout_s = options.timeout_s if quirks.timeout_s is None else quirks.timeout_s
        self._session = session
        self._framing = session.framing
        self._unit = endpoint.unit
        self._answers_as = endpoint.unit if quirks.answers_as is None else quirks.answers_as
        self._quirks = quirks
        self._read_only = options.read_only
        self._link: Link | None = None

    @property
    def connected(self) -> bool:
        return self._link is not None and self._link.open

    @property
    def registers_max(self) -> int:
        return self._quirks.registers_max

    async def connect(self) -> None:
        self._link = link = await self._session.join(self)
        if self in link.unsure:
            await self._prove_fresh(link)

    async def _prove_fresh(self, link: Link) -> None:
        """Have a question answered, or refused, that no late answer to the last one fits."""
        last = link.unsure[self]
        one, two = self._questions(Span(last.address, 1)), self._questions(Span(min(last.address, ADDRESSES - 2), 2))
        with suppress(DeviceRefused):
            await self._ask(two if one[0].size == last.size else one, Priority.READ)
        link.unsure.pop(self, None)

    def cut_off(self) -> None:
        self._link = None

    def read(
        self, address: int, count: int, *, table: Table = Table.HOLDING, priority: Priority = Priority.READ
    ) -> Awaitable[bytes]:
        return self._ask(self._questions(Span(address, count, table)), priority)

    def reading(self, spans: Sequence[Span]) -> Callable[[], Awaitable[bytes]]:
        questions = tuple(question for span in spans for question in self._questions(span))
        return partial(self._ask, questions, Priority.READ)

    def _questions(self, span: Span) -> tuple[Question, ...]:
        """The question for a span, or several for what this device does not give at once."""
        count = span.count
        most = self.registers_max if 0 < count <= MAX_READ else max(count, 1)
        ask = partial(read_question, self._framing, self._unit, self._answers_as, span.table)
        return tuple(ask(span.address + at, min(most, count - at)) for at in range(0, max(count, 1), most))

    async def write(self, address: int, data: bytes, *, priority: Priority = Priority.WRITE) -> None:
        quirks = self._quirks
        question = write_question(
            self._framing, self._unit, self._answers_as, address, data, single=quirks.single_writes
        )
        if self._read_only:
            raise WriteForbidden(f"{self.name}: {question.text}: this connection is read-only")
        if len(data) > 2 * quirks.writes_max:
            raise WriteForbidden(f"{self.name}: {question.text}: the device takes {quirks.writes_max} at once")
        await self._ask((question,), priority)

    def disconnect(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.leave(self)

    def _ask(self, questions: tuple[Question, ...], priority: Priority) -> asyncio.Future[bytes]:
        if self._link is None:
            raise DeviceUnreachable(f"{self.name}: {questions[0].text}: not connected")
        return self._link.ask(questions, self, priority)
