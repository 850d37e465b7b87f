"""One connection from its making to its loss: who may ask, what is in flight, and which answers are believed.

Each request has a deadline of its own, which no trickle of bytes moves; one timer serves them all. An answer that does
not fit its question closes the connection. A caller that gives up leaves its request in flight: the answer is still
matched and checked, and then thrown away. Only the running loop is used for time.

After a time-out an answer may still come. Where frames carry transaction ids it is known by its own. On a serial line
nothing is asked and nothing believed for one more time-out; then the others go on, and the silent unit is cut off
until it has answered a question of another length, which no late answer fits.
"""

import asyncio
import heapq
import math
from itertools import count
from typing import Protocol, cast

from derms.errors import DeviceRefused, DeviceUnreachable, FieldError, ProtocolViolation, TurnedAway
from drivers.modbus.frames import Framing, Question, exception_name
from drivers.modbus.unit import Priority

WAITING_MAX = 1024
"""Calls that may wait for their turn on one connection."""
SILENT_MAX = 3
"""Units that may be silent one after the other before a connection is held to be dead."""


class Asker(Protocol):
    """A unit as the link sees it."""

    @property
    def name(self) -> str: ...

    @property
    def timeout_s(self) -> float: ...

    def cut_off(self) -> None:
        """It was silent, and is no user of the link any more."""
        ...


class _Call:
    """Questions on their way, one after the other, and the future that waits for the answers to all."""

    __slots__ = ("answered", "asker", "deadline_s", "got", "priority", "question", "rest")

    def __init__(
        self, questions: tuple[Question, ...], asker: Asker, priority: Priority, answered: asyncio.Future[bytes]
    ) -> None:
        self.question, *self.rest = questions
        self.asker = asker
        self.priority = priority
        self.answered = answered
        self.got = b""
        self.deadline_s = 0.0

    def fail(self, kind: type[FieldError], why: str) -> None:
        if not self.answered.done():
            self.answered.set_exception(kind(f"{self}: {why}"))

    def __str__(self) -> str:
        return f"{self.asker.name}: {self.question.text}"


class Link(asyncio.Protocol):
    """A connection with a window of requests in flight and a queue by priority behind it.

    Parameters
    ----------
    framing : Framing
        How frames are wrapped on it.
    in_flight : int
        Requests that may wait for an answer at once; 1 where answers carry no transaction id.
    gap_s, settle_s : float
        Pause around each request, and before the first one [s].
    zero_transaction : bool
        Every request carries transaction 0, and a time-out closes the connection.
    loss_hint : str
        What may be the reason when it is lost before anything was answered.
    """

    __slots__ = (
        "_deadline_timer",
        "_deadline_timer_s",
        "_deaf_until_s",
        "_framing",
        "_gap_s",
        "_ids",
        "_in_flight",
        "_late",
        "_loop",
        "_loss_hint",
        "_order",
        "_queue",
        "_ready_s",
        "_received",
        "_settle_s",
        "_silent",
        "_transaction",
        "_transport",
        "_turn_timer",
        "_window",
        "ended",
        "ended_s",
        "heard",
        "left",
        "open",
        "turned_away",
        "unsure",
        "users",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        framing: Framing,
        *,
        in_flight: int = 1,
        gap_s: float = 0.0,
        settle_s: float = 0.0,
        zero_transaction: bool = False,
        loss_hint: str = "",
    ) -> None:
        self.open = False
        self.heard = False
        """Something was answered as it should be."""
        self.left = False
        """Closed because nobody used it any more."""
        self.turned_away = False
        """Closed by the other side before it said anything."""
        self.ended = "never made"
        """Why it is not open."""
        self.ended_s = -math.inf
        self.users: set[Asker] = set()
        self.unsure: dict[Asker, Question] = {}
        """Who was cut off, with the question that may still be answered."""
        self._loop = loop
        self._framing = framing
        self._ids = framing.id_bytes > 0 and not zero_transaction
        self._in_flight = in_flight if self._ids else 1
        self._gap_s = gap_s
        self._settle_s = settle_s
        self._loss_hint = loss_hint
        self._transport: asyncio.Transport | None = None
        self._transaction = 0
        self._window: dict[bytes, _Call] = {}
        self._late: dict[bytes, Question] = {}
        """What was given up, and may still be answered."""
        self._silent: set[Asker] = set()
        """Who has let a deadline pass since anybody was heard."""
        self._received = b""
        self._queue: list[tuple[Priority, int, _Call]] = []
        self._order = count()
        self._ready_s = -math.inf
        self._deaf_until_s = -math.inf
        self._turn_timer: asyncio.TimerHandle | None = None
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._deadline_timer_s = math.inf

    def ask(self, questions: tuple[Question, ...], asker: Asker, priority: Priority) -> asyncio.Future[bytes]:
        """Send questions now or in their turn, each after the answer to the one before it.

        The future gives the registers read, those of all questions joined, or the first error.
        """
        call = _Call(questions, asker, priority, self._loop.create_future())
        now_s = self._loop.time()
        if not self.open:
            call.fail(self._gone, f"not connected: {self.ended}")
        elif self._queue or len(self._window) >= self._in_flight or now_s < self._ready_s:
            self._wait(call)
        else:
            self._send(call, now_s)
        return call.answered

    def leave(self, asker: Asker) -> None:
        """A unit disconnects: what it waits for fails; the last one closes the connection."""
        self.users.discard(asker)
        self._silent.discard(asker)
        if not self.users:
            self.left = True
            self.drop("disconnected")
            return
        self._fail_all_of(asker, "disconnected")

    def _fail_all_of(self, asker: Asker, why: str) -> None:
        for call in (*self._window.values(), *(waiting for _, _, waiting in self._queue)):
            if call.asker is asker:
                call.fail(DeviceUnreachable, why)

    def drop(self, why: str) -> None:
        """Close at once and fail what is in flight and what waits."""
        if not self.open:
            return
        self.open = False
        self.ended, self.ended_s = why, self._loop.time()
        assert self._transport is not None
        self._transport.abort()
        for timer in (self._deadline_timer, self._turn_timer):
            if timer is not None:
                timer.cancel()
        calls = [*self._window.values(), *(waiting for _, _, waiting in self._queue)]
        self._window.clear()
        self._queue.clear()
        for call in calls:
            call.fail(self._gone, why)

    @property
    def _gone(self) -> type[DeviceUnreachable]:
        return TurnedAway if self.turned_away else DeviceUnreachable

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.open = True
        self._ready_s = self._loop.time() + self._settle_s

    def connection_lost(self, exc: Exception | None) -> None:
        hint = "" if self.heard else self._loss_hint
        self.turned_away = self.open and not (self.heard or self._received)
        self.drop(f"connection lost: {exc or 'closed by the device'}{hint}")

    def data_received(self, data: bytes) -> None:
        if self._ids and not self._received:
            transaction = data[:2]
            call = self._window.get(transaction)
            if call is not None:
                question = call.question
                if len(data) == question.size and data.startswith(question.answer, 2):
                    self._settle(transaction, call, data[question.payload_at :])
                    return
        if self.open and self._loop.time() >= self._deaf_until_s:
            self._sort(self._received + data)

    def _wait(self, call: _Call) -> None:
        if len(self._queue) >= WAITING_MAX and call.priority is not Priority.EMERGENCY:
            call.fail(DeviceUnreachable, f"{len(self._queue)} calls are waiting for this connection")
            return
        self._line_up(call)
        self._serve()

    def _line_up(self, call: _Call) -> None:
        heapq.heappush(self._queue, (call.priority, next(self._order), call))

    def _serve(self) -> None:
        """Send what waits, as far as the window and the pause allow."""
        while self._queue and len(self._window) < self._in_flight:
            if self._queue[0][2].answered.done():
                heapq.heappop(self._queue)
                continue
            now_s = self._loop.time()
            if now_s < self._ready_s:
                if self._turn_timer is None:
                    self._turn_timer = self._loop.call_at(self._ready_s, self._take_turn)
                return
            self._send(heapq.heappop(self._queue)[2], now_s)

    def _take_turn(self) -> None:
        self._turn_timer = None
        self._serve()

    def _send(self, call: _Call, now_s: float) -> None:
        transaction = b""
        if self._ids:
            self._transaction = self._transaction % 0xFFFF + 1
            transaction = self._transaction.to_bytes(2, "big")
            if self._late:
                self._late.pop(transaction, None)
        elif self._framing.id_bytes:
            transaction = b"\0\0"
        call.deadline_s = deadline_s = now_s + call.asker.timeout_s
        self._window[transaction] = call
        self._ready_s = now_s + self._gap_s
        if deadline_s < self._deadline_timer_s:
            self._set_deadline_timer(deadline_s)
        assert self._transport is not None
        self._transport.write(transaction + call.question.frame)

    def _settle(self, transaction: bytes, call: _Call, outcome: bytes | DeviceRefused) -> None:
        """Take a believed answer out of the window; the call's next question goes out or waits, or the call is done."""
        del self._window[transaction]
        self.heard = True
        if self._silent:
            self._silent.clear()
        if self._gap_s:
            self._ready_s = self._loop.time() + self._gap_s
        if not call.answered.done():
            if not isinstance(outcome, bytes):
                call.answered.set_exception(outcome)
            elif not call.rest:
                call.answered.set_result(call.got + outcome)
            else:
                call.got += outcome
                call.question = call.rest.pop(0)
                if not (self._queue or self._gap_s):
                    self._send(call, self._loop.time())
                    return
                self._line_up(call)
        if self._queue:
            self._serve()

    def _sort(self, received: bytes) -> None:
        """Take whole frames off what was received, judge each as soon as it can be, keep the rest for later."""
        framing = self._framing
        while received and self.open:
            self._received = b""
            if not self._window and not self._late:
                self._violated(None, f"{len(received)} bytes that nobody asked for")
            elif len(received) < framing.head_bytes:
                self._received = received
            else:
                received = self._judge(received)
                continue
            return

    def _judge(self, received: bytes) -> bytes:
        """Judge the frame that begins what was received; what follows it, or nothing when it is not whole yet."""
        framing = self._framing
        transaction = received[: framing.id_bytes]
        call = self._window.get(transaction)
        question = self._late.get(transaction) if call is None else call.question
        if question is None:
            due = " or ".join(str(int.from_bytes(known, "big")) for known in self._window or self._late)
            self._violated(None, f"transaction id {int.from_bytes(transaction, 'big')}, expected {due}")
            return b""
        refused, wrong = framing.refuses(received, question), framing.wrong(received, question)
        size = framing.refused_size if refused else question.size
        frame, rest = received[:size], received[size:]
        if not wrong and rest and len(self._window) + len(self._late) == 1:
            wrong = f"{len(rest)} surplus bytes"
        if wrong:
            self._violated(call, wrong)
            return b""
        if len(frame) < size:
            self._received = received
            return b""
        if call is None:
            del self._late[transaction]
            self._silent.clear()
        elif refused:
            code = framing.exception_code(frame)
            text = f"{call}: refused with {exception_name(code)} ({code})"
            self._settle(transaction, call, DeviceRefused(text, code))
        else:
            self._settle(transaction, call, framing.payload(frame, question))
        return rest

    def _violated(self, call: _Call | None, wrong: str) -> None:
        """An answer cannot be believed: its call fails for that, or all in flight when nobody knows whose it is."""
        for culprit in (*self._window.values(),) if call is None else (call,):
            culprit.fail(ProtocolViolation, wrong)
        self.drop(f"an answer could not be believed: {wrong}")

    def _set_deadline_timer(self, deadline_s: float) -> None:
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._deadline_timer_s = deadline_s
        self._deadline_timer = self._loop.call_at(deadline_s, self._check_deadlines)

    def _check_deadlines(self) -> None:
        """Run once per time-out at most, not once per request: answered requests leave the timer to later ones."""
        self._deadline_timer, self._deadline_timer_s = None, math.inf
        now_s = self._loop.time()
        for transaction, call in [item for item in self._window.items() if item[1].deadline_s <= now_s]:
            if self.open:
                self._give_up(transaction, call)
        if self._window:
            self._set_deadline_timer(min(call.deadline_s for call in self._window.values()))
        self._serve()

    def _give_up(self, transaction: bytes, call: _Call) -> None:
        """A deadline has passed: go on where a late answer cannot be taken for another, and others still answer."""
        why, now_s, serial = f"no answer in {call.asker.timeout_s:g} s", self._loop.time(), not self._framing.id_bytes
        call.fail(DeviceUnreachable, why)
        self._silent.add(call.asker)
        muddled = not serial and (not self._ids or self._received)
        if muddled or len(self._silent) >= min(len(self.users), SILENT_MAX):
            self.drop(f"connection closed: {call}: {why}")
            return
        del self._window[transaction]
        if serial:
            self._received = b""
            self._ready_s = self._deaf_until_s = now_s + call.asker.timeout_s
            self._cut_off(call.asker, call.question)
        else:
            self._late[transaction] = call.question
            self._ready_s = now_s + self._gap_s

    def _cut_off(self, asker: Asker, unanswered: Question) -> None:
        self.users.discard(asker)
        self.unsure[asker] = unanswered
        self._fail_all_of(asker, "it was silent before")
        asker.cut_off()
