"""Reconciliation: drives what devices hold towards what the dispatch wants.

Each interval is cut into groups; a device's commands go out in its own group, so that a fleet never steps at once.
A turn watches the effect of what was written, passes what is wanted through the guards, enters the intents and sends
every device of the group on an errand of its own: journal, look, write, read back. No turn waits for a device. One
whose errand is still under way when its group comes round has its turn with the first group after that, with what is
wanted then; so a device never has two errands at a time, and one that is slow or silent costs nobody else anything.
What is not worth a write (`derms/field/thrift.py`) is only looked at: a device that still holds its value keeps it.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from derms.control.guards import GuardInput, guard
from derms.domain.alarm import Event, Severity
from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.der import Fleet
from derms.domain.dispatch import CommandRecord, Dispatch, Quantity
from derms.domain.quality import Quality
from derms.domain.settings import DispatchSettings
from derms.domain.telemetry import TelemetrySnapshot
from derms.field.custody import Custody
from derms.field.ending import end
from derms.field.holdings import Holdings, Key
from derms.field.journal import Journal
from derms.field.ledger import CommandCounts, Ledger, Pending
from derms.field.poller import Poller, phase
from derms.field.thrift import Thrift, Verdict
from derms.field.writer import Writer
from derms.ports import Clock, DeviceDriver

SILENT = (Quality.STALE, Quality.EXPECTED_SILENT, Quality.MISSING)
"""Qualities of a device that does not answer."""
ERRAND_S = 40.0
"""Longest errand at one device: more than all time-outs of a driver together."""
FINISH_S = 5.0
"""For errands that are under way when the service stops. What has become of one that is broken off then does not
matter: the device is released next."""
HAND_BACK_S = 30.0
"""For releasing one device at the end, all at the same time: thirty units that share a slow serial line need most of
it. A device that does not answer takes a few of the driver's time-outs."""
JOURNAL_S = 2.0
"""For the journal to take these releases; after that they go out without it."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A value that a dispatch wants a device to hold."""

    key: Key
    value_w: float
    """What the guards left of it [W], NaN for nothing."""
    wanted_w: float
    by: str
    """The guard that changed or refused it; empty for none."""
    dispatch: Dispatch


@dataclass(slots=True)
class Reconciler:
    """Writes what is wanted; see the module's text."""

    fleet: Fleet
    drivers: Mapping[str, DeviceDriver]
    poller: Poller
    journal: Journal
    clock: Clock
    settings: DispatchSettings
    on_outcome: Callable[[CommandRecord], None]
    on_event: Callable[[Event], None]
    ledger: Ledger = field(init=False)
    custody: Custody = field(init=False)
    thrift: Thrift = field(init=False)
    writer: Writer = field(init=False)
    _groups: list[list[int]] = field(init=False)
    """Rows with a driver, by the group in which they have their turn."""
    _turns: int = 0
    _late: list[int] = field(default_factory=list)
    """Rows whose turn came while they were on an errand."""
    _under_way: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _dispatch: Dispatch | None = None

    def __post_init__(self) -> None:
        fleet, clock, settings = self.fleet, self.clock, self.settings
        self.ledger = Ledger(fleet, self.journal, clock, settings, self.on_outcome, self.on_event)
        self.custody = Custody(fleet, clock, settings.corrections_per_h, self.on_event)
        self.thrift = Thrift(fleet, clock, settings, self.on_event, self.journal.tally())
        self.writer = Writer(fleet, self.drivers, clock, self.ledger, self.custody, self.thrift, self.on_event)
        self._groups = [[] for _ in range(max(1, round(settings.interval_s / settings.group_s)))]
        for row, device in enumerate(fleet.devices):
            if device.id in self.drivers:
                self._groups[int(phase(device.id) * len(self._groups))].append(row)
                if device.is_dispatched:
                    self.custody.unknown.update((row, quantity) for quantity in Quantity)

    @property
    def counts(self) -> CommandCounts:
        return self.ledger.counts

    @property
    def holdings(self) -> Holdings:
        """What devices were seen to hold of ours, from the read-back on until the next write."""
        return self.custody.holdings

    @property
    def holding(self) -> list[str]:
        """Devices that have been written to and have not been seen to be released since."""
        return [self.fleet.devices[row].id for row in sorted({row for row, _ in self.custody.held})]

    @property
    def handed_over(self) -> list[str]:
        """Devices that are left to another master for now."""
        return [self.fleet.devices[row].id for row in sorted(self.custody.handed_over)]

    def adopt(self, dispatch: Dispatch) -> None:
        """Take a newer dispatch; it goes out group by group."""
        self._dispatch = dispatch

    def given_w(self, snapshot: TelemetrySnapshot) -> FloatArray:
        """Setpoint that each device was seen to hold, else its power if that is good [W], shape (n,); else NaN."""
        given_w = np.where(snapshot.good("p_w"), snapshot.p_w, np.nan)
        for (row, quantity), holding in self.holdings.items():
            if quantity is Quantity.P_SET:
                given_w[row] = holding.held.value_w
        return given_w

    def soon(self, seconds: float) -> BoolArray:
        """Devices that have their turn in that time, shape (n,)."""
        count = min(math.ceil(seconds / self.settings.group_s), len(self._groups))
        rows = np.zeros(len(self.fleet), dtype=np.bool_)
        rows[self._late] = True
        for turn in range(self._turns, self._turns + count):
            rows[self._groups[turn % len(self._groups)]] = True
        return rows

    async def run(self) -> None:
        """A turn per group until cancelled; errands that are under way then end first, so that each has its outcome.

        After a while, or cancelled once more, it breaks them off.
        """
        due_s = self.clock.monotonic_s()
        async with asyncio.TaskGroup() as errands:
            try:
                while True:
                    await asyncio.sleep(max(0.0, due_s - self.clock.monotonic_s()))
                    self.turn(errands)
                    due_s = max(due_s + self.settings.group_s, self.clock.monotonic_s())
            finally:
                await self._come_home()

    async def _come_home(self) -> None:
        """Wait a while for the errands that are under way; then, or when that is cancelled, break them off in order."""
        under_way = list(self._under_way.values())
        try:
            if under_way:
                await asyncio.wait(under_way, timeout=FINISH_S)
        finally:
            for task in under_way:
                task.cancel()

    def turn(self, errands: asyncio.TaskGroup) -> None:
        """Watch effects, look for what others wrote, then send the devices of this group on their errands."""
        snapshot = self.poller.snapshot()
        self.ledger.watch(snapshot, self.poller.requested_s)
        self.custody.take_back(snapshot.now_s)
        if self._dispatch is not None and self._dispatch.valid_until_s < snapshot.now_s:
            self._expire()
        rows = self._free()
        if not rows:
            return
        if self._dispatch is None:
            due, kept = self._released(rows), list[Wish]()
        else:
            due, kept = self._wanted(self._dispatch, rows, snapshot)
        answering = [row for row in rows if snapshot.quality[row] not in SILENT]
        self.custody.look(answering, snapshot)
        unknown = self.custody.keys(answering, self.custody.unknown)
        if due or kept or unknown:
            self._send(errands, due, kept, unknown)
        self.thrift.tell()

    def _free(self) -> list[int]:
        """Rows that have their turn now: of this group, and of earlier ones in which they were on an errand."""
        called = sorted({*self._groups[self._turns % len(self._groups)], *self._late})
        self._turns += 1
        self._late = [row for row in called if row in self._under_way]
        handed_over = self.custody.handed_over
        return [row for row in called if row not in self._under_way and row not in handed_over]

    def _expire(self) -> None:
        self._dispatch = None
        text = "the dispatch has expired: devices are handed back to their defaults"
        self.on_event(Event(self.clock.utc(), Severity.ALARM, "gateway", "dispatch-expired", text))

    def _wanted(
        self, dispatch: Dispatch, rows: list[int], snapshot: TelemetrySnapshot
    ) -> tuple[list[Pending], list[Wish]]:
        """What is to be written for a dispatch, and what devices may keep."""
        due, kept = list[Pending](), list[Wish]()
        given = GuardInput(self.fleet, snapshot, self.settings.reversion_s + self.settings.reversion_jitter_s)
        for quantity in Quantity:
            wanted_w = np.full(len(self.fleet), np.nan)
            wanted_w[rows] = dispatch.wanted_w(quantity, snapshot.now_s)[rows]
            guarded = guard(wanted_w, given)
            for row in rows:
                key, wish_w = (row, quantity), float(wanted_w[row])
                if np.isfinite(wish_w):
                    wish = Wish(key, float(guarded.value_w[row]), wish_w, guarded.by[row], dispatch)
                    match self._judged(wish):
                        case Verdict.WRITE:
                            due.append(self._intended(wish))
                        case Verdict.KEEP:
                            kept.append(wish)
                        case Verdict.LET_GO:
                            due.append(self.ledger.intend(key, None, dispatch=dispatch))
                elif key in self.custody.held and snapshot.quality[row] not in SILENT:
                    # One that does not answer is left to its own reversion timer until it is back.
                    due.append(self.ledger.intend(key, None, dispatch=dispatch))
        return due, kept

    def _judged(self, wish: Wish) -> Verdict:
        """Whether a value is to be written; where the device keeps its own, that is valid for this dispatch too."""
        key, custody = wish.key, self.custody
        if np.isnan(wish.value_w):
            return Verdict.WRITE
        holding = None if key in self.ledger.unheeded else custody.holdings.get(key)
        verdict = self.thrift.judge(key, wish.value_w, wish.by, holding, holds=key in custody.held)
        if verdict is Verdict.KEEP and key in custody.holdings:
            custody.holdings[key] = custody.holdings[key].prolonged(wish.dispatch.valid_until_s)
        return verdict

    def _intended(self, wish: Wish) -> Pending:
        value_w, wanted_w = wish.value_w, wish.wanted_w
        return self.ledger.intend(wish.key, value_w, wanted_w=wanted_w, by=wish.by, dispatch=wish.dispatch)

    def _released(self, rows: Sequence[int]) -> list[Pending]:
        return [self.ledger.intend(key, None, dispatch=None) for key in self.custody.keys(rows, self.custody.held)]

    def _send(
        self, errands: asyncio.TaskGroup, due: Sequence[Pending], kept: Sequence[Wish], unknown: Sequence[Key]
    ) -> None:
        """Make intents durable together, and start an errand per device that begins when they are."""
        durable = errands.create_task(self.ledger.make_durable(due), name="intents")
        writes: defaultdict[int, list[Pending]] = defaultdict(list)
        looks: defaultdict[int, list[Wish]] = defaultdict(list)
        questions: defaultdict[int, list[Key]] = defaultdict(list)
        for pending in due:
            writes[pending.row].append(pending)
        for wish in kept:
            looks[wish.key[0]].append(wish)
        for key in unknown:
            questions[key[0]].append(key)
        for row in dict.fromkeys((*writes, *looks, *questions)):
            errand = partial(self._errand, durable, writes[row], looks[row], questions[row])
            self._start(row, errands.create_task(self._bounded(row, errand, ERRAND_S), name=f"errand {row}"))

    async def _errand(
        self, durable: asyncio.Task[None], due: Sequence[Pending], kept: Sequence[Wish], unknown: Sequence[Key]
    ) -> None:
        """Write what is due and what the device has lost, then learn what it holds that nobody here has given it."""
        await asyncio.shield(durable)
        await self.writer.write_all(due)
        await self._mend(kept)
        await self.writer.ask_all(unknown)

    async def _mend(self, kept: Collection[Wish]) -> None:
        """Look whether a device holds what it may keep, and write what it does not hold any more."""
        lost = await self.writer.lost([wish.key for wish in kept])
        due = [self._intended(wish) for wish in kept if wish.key in lost]
        await self.ledger.make_durable(due)
        await self.writer.write_all(due)

    async def _let_go(self, row: int) -> None:
        """Release whatever a device holds."""
        await self.writer.ask_all(self.custody.keys([row], self.custody.unknown))
        due = self._released([row])
        durable = asyncio.ensure_future(self.ledger.make_durable(due))
        if (await asyncio.wait([durable], timeout=JOURNAL_S))[0]:
            durable.result()
        await self.writer.write_all(due)

    def _start(self, row: int, task: asyncio.Task[None]) -> None:
        assert row not in self._under_way
        self._under_way[row] = task
        task.add_done_callback(partial(self._ended, row))

    def _ended(self, row: int, task: asyncio.Task[None]) -> None:
        del self._under_way[row]

    async def _bounded(self, row: int, errand: Callable[[], Coroutine[Any, Any, None]], most_s: float) -> None:
        """See an errand through, within bounds; whatever ends it, its commands have their outcomes or are watched.

        It is a task of its own, so that a driver which does not mind being broken off holds up nobody else.
        """
        task = asyncio.create_task(errand())
        why = "broken off: the service stops"
        try:
            if not (await asyncio.wait([task], timeout=most_s))[0]:
                why = f"broken off: the device took more than {most_s:.0f} s"
        finally:
            try:
                await end([task])
            finally:
                for quantity in Quantity:
                    self.ledger.break_off((row, quantity), why)
        if task.done() and not task.cancelled():
            task.result()

    async def hand_back(self) -> None:
        """Release every device that holds a command, of ours or of a service before us, to its own default, now.

        For when `run` has ended.
        """
        self._dispatch = None
        rows = sorted({row for row, _ in self.custody.held | self.custody.unknown})
        for row in rows:
            release = self._bounded(row, partial(self._let_go, row), HAND_BACK_S)
            self._start(row, asyncio.create_task(release, name=f"release {row}"))
        ended = await asyncio.gather(*(self._under_way[row] for row in rows), return_exceptions=True)
        self.ledger.supersede_all()
        for error in ended:
            if isinstance(error, Exception):
                raise error
