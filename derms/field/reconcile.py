"""Reconciliation: drives what devices hold towards what plans and people want.

Each interval is cut into groups; a device's commands go out in its own group, so that a fleet never steps at once.
A turn watches the effect of what was written, passes what is wanted through the guards, enters the intents and sends
every device of the group on an errand of its own: journal, look, write, read back. No turn waits for a device. One
whose errand is still under way when its group comes round has its turn with the first group after that, with what is
wanted then; so a device never has two errands at a time, and one that is slow or silent costs nobody else anything.
What is not worth a write (`derms/field/thrift.py`) is only looked at: a device that still holds its value keeps it.
What a person has set does not wait for its group. A device under a stop belongs to whoever stops it, one under a tag
that forbids energizing keeps what it holds: neither gets anything here.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from derms.domain.alarm import Event
from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.domain.der import Fleet
from derms.domain.dispatch import Dispatch, Quantity
from derms.domain.quality import Quality
from derms.domain.refusal import Reason
from derms.domain.settings import DispatchSettings
from derms.domain.telemetry import TelemetrySnapshot
from derms.field.custody import Custody
from derms.field.ending import end
from derms.field.holdings import Holdings, Key
from derms.field.journal import Journal
from derms.field.ledger import CommandCounts, Ledger, Pending
from derms.field.orders import Orders
from derms.field.poller import Poller, phase
from derms.field.thrift import Thrift
from derms.field.wants import Plans
from derms.field.wishes import SILENT, Wish, Wishes
from derms.field.writer import Writer
from derms.ports import Clock, DeviceDriver

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


@dataclass(slots=True)
class Reconciler:
    """Writes what is wanted; see the module's text."""

    fleet: Fleet
    drivers: Mapping[str, DeviceDriver]
    poller: Poller
    journal: Journal
    clock: Clock
    settings: DispatchSettings
    on_event: Callable[[Event], None]
    orders: Orders
    ledger: Ledger = field(init=False)
    custody: Custody = field(init=False)
    thrift: Thrift = field(init=False)
    writer: Writer = field(init=False)
    wishes: Wishes = field(init=False)
    _groups: list[list[int]] = field(init=False)
    """Rows with a driver, by the group in which they have their turn."""
    _turns: int = 0
    _late: list[int] = field(default_factory=list)
    """Rows whose turn came while they were on an errand."""
    _under_way: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _seized: set[int] = field(default_factory=set)
    """Rows whose errand is broken off by a stop."""
    _hurried: set[int] = field(default_factory=set)
    """Rows that do not wait for their group."""
    _resuming: set[int] = field(default_factory=set)
    """Rows with values by hand from before the start, which do not wait for their group."""
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        fleet, clock, settings = self.fleet, self.clock, self.settings
        self.ledger = Ledger(fleet, self.journal, clock, settings, self.on_event)
        self.custody = Custody(fleet, clock, settings.corrections_per_h, self.on_event)
        self.thrift = Thrift(fleet, clock, settings, self.on_event, self.journal.tally())
        self.writer = Writer(fleet, self.drivers, clock, self.ledger, self.custody, self.thrift, self.on_event)
        self.wishes = Wishes(
            fleet, self.orders, self.poller, settings, self.ledger, self.custody, self.thrift, self.on_event
        )
        self._resuming = {row for claim in self.orders.claims.live(clock.monotonic_s()) for row in claim.rows.tolist()}
        self._groups = [[] for _ in range(max(1, round(settings.interval_s / settings.group_s)))]
        for row, device in enumerate(fleet.devices):
            if device.id in self.drivers:
                self._groups[int(phase(device.id) * len(self._groups))].append(row)
                if device.is_dispatched:
                    self.custody.unknown.update((row, quantity) for quantity in Quantity)

    @property
    def turns(self) -> int:
        """Turns taken since the start."""
        return self._turns

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

    def adopt(self, dispatch: Dispatch) -> tuple[Reason, ...]:
        """Take a newer dispatch; it goes out group by group, where modes and tags let it. Or why it is refused."""
        return self.wishes.adopt(dispatch)

    def hasten(self, rows: BoolArray) -> None:
        """Have some devices, shape (n,), take their turn now: a person waits, or a guard minds what they hold."""
        self._hurried.update(np.flatnonzero(rows).tolist())
        self._hurry.set()

    def seize(self, rows: IntArray) -> None:
        """Break off the errands that are under way at some rows: a stop is to have these devices to itself.

        Their commands end as what is known of them; the next turns leave alone what a stop is latched over.
        """
        for row in rows.tolist():
            self.ledger.supersede(row)
            if row in self._under_way:
                self._seized.add(row)
                self._under_way[row].cancel()

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
                    if await self._hurries(due_s):
                        self._act(errands, self._called(self._hurried))
                    else:
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

    async def _hurries(self, due_s: float) -> bool:
        """Wait for the next turn; true when somebody is in a hurry before it."""
        wait_s = due_s - self.clock.monotonic_s()
        if wait_s <= 0.0:
            await asyncio.sleep(0.0)
            return False
        try:
            async with asyncio.timeout(wait_s):
                await self._hurry.wait()
        except TimeoutError:
            return False
        return True

    def turn(self, errands: asyncio.TaskGroup) -> None:
        """The turn of the next group: see to its devices, and to those that a ramp has to go on."""
        now_s = self.clock.monotonic_s()
        self.wishes.expire(now_s)
        rows = {*self._groups[self._turns % len(self._groups)], *self._late}
        rows.update(np.flatnonzero(self.wishes.restore(now_s)).tolist())
        rows.update(self._resumed())
        self._turns += 1
        self._late = []
        self._act(errands, self._called(rows | self._hurried))

    def _resumed(self) -> list[int]:
        """Rows for which people had set values before this service began, and that can be told since now."""
        if not self._resuming:
            return []
        quality = self.poller.snapshot().quality
        able = [row for row in self._resuming if quality[row] == Quality.GOOD]
        self._resuming.difference_update(able)
        return able

    def _act(self, errands: asyncio.TaskGroup, rows: list[int]) -> None:
        """Watch effects, look for what others wrote, then send some devices on their errands."""
        snapshot = self.poller.snapshot()
        self.ledger.watch(snapshot, self.poller.requested_s)
        self.custody.take_back(snapshot.now_s)
        local = snapshot.local  # whoever has it there is not to be overruled: no value, no release, no correction
        rows = [row for row in rows if row not in self.custody.handed_over and not local[row]]
        if not rows:
            return
        due = self.wishes.due(rows, snapshot)
        self._late.extend(due.again)
        answering = [row for row in rows if snapshot.quality[row] not in SILENT]
        self.custody.look(answering, snapshot)
        unknown = self.custody.keys(answering, self.custody.unknown)
        if due.writes or due.kept or unknown:
            self._send(errands, due.writes, due.kept, unknown)
        self.thrift.tell()

    def _called(self, rows: Collection[int]) -> list[int]:
        """Those of some rows that can have a turn now; those that are on an errand have it later."""
        alone = self.orders.laid.alone
        called = [row for row in sorted(rows) if not alone[row]]
        self._late.extend(row for row in called if row in self._under_way)
        self._hurried.clear()
        self._hurry.clear()
        return [row for row in called if row not in self._under_way]

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
        """Learn what the device holds that nobody here has given it, then write what is due and what it has lost.

        Of a service that died before us it is not known what it still sent: nothing is written blindly on top of that.
        """
        await asyncio.shield(durable)
        await self.writer.ask_all([key for key in unknown if self.custody.unasked(key)])
        for pending in due:
            value_w = pending.command.value_w
            if self.custody.unasked(pending.key) and value_w is not None and math.isfinite(value_w):
                self.ledger.break_off(pending.key, "the device did not say what it holds")
        await self.writer.write_all(due)
        await self._mend(kept)
        await self.writer.ask_all([key for key in unknown if key in self.custody.unknown])

    async def _mend(self, kept: Collection[Wish]) -> None:
        """Look whether a device holds what it may keep, and write what it does not hold any more."""
        lost = await self.writer.lost([wish.key for wish in kept])
        due = [self.wishes.intended(wish) for wish in kept if wish.key in lost]
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
        self._seized.discard(row)

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
                why = "broken off: a stop has the device" if row in self._seized else why
                for quantity in Quantity:
                    self.ledger.break_off((row, quantity), why)
        if task.done() and not task.cancelled():
            task.result()

    async def hand_back(self) -> None:
        """Release every device that holds a command, of ours or of a service before us, to its own default, now.

        For when `run` has ended. What a stop holds, or a tag keeps from energizing, is left to its own timer.
        """
        self.wishes.plans = Plans()
        alone = self.orders.laid.alone
        rows = sorted({row for row, _ in self.custody.held | self.custody.unknown if not alone[row]})
        for row in rows:
            release = self._bounded(row, partial(self._let_go, row), HAND_BACK_S)
            self._start(row, asyncio.create_task(release, name=f"release {row}"))
        ended = await asyncio.gather(*(self._under_way[row] for row in rows), return_exceptions=True)
        self.ledger.supersede_all()
        for error in ended:
            if isinstance(error, Exception):
                raise error
