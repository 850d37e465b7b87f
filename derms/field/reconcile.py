"""Reconciliation: drives what devices hold towards what the dispatch wants, and gives every command one outcome.

Each interval is cut into groups; a device's commands go out in its own group, so that a fleet never steps at once.
A turn: watch the effect of what was written, pass what is wanted through the guards, record the intents durably,
look whether the device still holds what it was given, write, read back. A setpoint that nobody refreshes falls back
by the device's own reversion timer. A device that another master keeps writing to is left to it for an hour.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from derms.control.guards import GuardInput, guard
from derms.domain.alarm import Event, Severity
from derms.domain.der import Fleet
from derms.domain.dispatch import (
    GOOD_OUTCOMES,
    Applied,
    Clamped,
    Command,
    CommandRecord,
    Dispatch,
    Expired,
    Failed,
    Held,
    NotFollowing,
    Outcome,
    Quantity,
    Rejected,
    Superseded,
    Unknown,
)
from derms.domain.quality import Quality
from derms.domain.settings import DispatchSettings
from derms.domain.telemetry import TelemetrySnapshot
from derms.errors import DeviceRefused, FieldError, JournalError, ProtocolViolation, WriteForbidden
from derms.field.holdings import Corrections, Deviation, Finding, Holding, Key, deviation
from derms.field.journal import Journal
from derms.field.poller import Poller, phase
from derms.ports import Clock, DeviceDriver

SILENT = (Quality.STALE, Quality.EXPECTED_SILENT, Quality.MISSING)
"""Qualities of a device that does not answer."""


@dataclass(slots=True)
class _Pending:
    """A command on its way to its outcome."""

    seq: int
    row: int
    command: Command
    plan_id: int
    wanted_w: float
    by: str
    at: datetime
    valid_until_s: float
    written_s: float = np.inf
    ended: bool = False


@dataclass(slots=True)
class CommandCounts:
    """Commands written, and their outcomes by name."""

    writes: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)

    @property
    def verified(self) -> int:
        """Commands whose effect was seen."""
        return self.outcomes.get("Applied", 0) + self.outcomes.get("Clamped", 0)

    @property
    def failed(self) -> int:
        """Every outcome but Applied, Clamped and Superseded."""
        good = {outcome.__name__ for outcome in GOOD_OUTCOMES}
        return sum(number for name, number in self.outcomes.items() if name not in good)


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
    counts: CommandCounts = field(default_factory=CommandCounts)
    holdings: dict[Key, Holding] = field(default_factory=dict)
    """What devices were seen to hold of ours, from the read-back on until the next write."""
    _corrections: Corrections = field(init=False)
    _noticed: dict[Key, Finding] = field(default_factory=dict)
    alone_with: defaultdict[int, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    """Per row: a device is compared with what it was given while nobody else gives it anything."""
    """Deviations that have been told, each until the device is seen to hold again what it should."""
    _dispatch: Dispatch | None = None
    _journal_fails: bool = False
    _turns: int = 0
    _pending: dict[Key, _Pending] = field(default_factory=dict)
    _held: set[Key] = field(default_factory=set)
    """What devices hold, of ours or of a service before us."""
    _unknown: set[Key] = field(default_factory=set)
    """What nobody has asked devices about yet."""

    def __post_init__(self) -> None:
        self._corrections = Corrections(self.settings.corrections_per_h)
        self._unknown = {
            (row, quantity)
            for row, device in enumerate(self.fleet.devices)
            if device.is_dispatched and device.id in self.drivers
            for quantity in Quantity
        }

    def adopt(self, dispatch: Dispatch) -> None:
        """Take a newer dispatch; it goes out group by group."""
        self._dispatch = dispatch

    async def run(self) -> None:
        """A turn per group until cancelled; a turn that has begun ends, so that every command has its outcome."""
        due_s = self.clock.monotonic_s()
        while True:
            await asyncio.sleep(max(0.0, due_s - self.clock.monotonic_s()))
            turn = asyncio.ensure_future(self.turn())
            try:
                await asyncio.shield(turn)
            except asyncio.CancelledError:
                await turn
                raise
            due_s = max(due_s + self.settings.group_s, self.clock.monotonic_s())

    async def turn(self) -> None:
        """Watch effects, then write what is due in this group."""
        snapshot = self.poller.snapshot()
        self._watch(snapshot)
        self._take_back(snapshot.now_s)
        groups = max(1, round(self.settings.interval_s / self.settings.group_s))
        group = self._turns % groups
        self._turns += 1
        rows = [
            row
            for row, device in enumerate(self.fleet.devices)
            if int(phase(device.id) * groups) == group
            and device.id in self.drivers
            and row not in self._corrections.handed_over
        ]
        if self._dispatch is not None and self._dispatch.valid_until_s < snapshot.now_s:
            self._expire()
        due = self._released(rows) if self._dispatch is None else self._wanted(self._dispatch, rows, snapshot)
        await self._carry_out(due)
        await self._learn(rows, snapshot)

    async def _learn(self, rows: list[int], snapshot: TelemetrySnapshot) -> None:
        """Once per device: what it holds from before this service began is ours to release."""
        unknown = [key for key in sorted(self._unknown) if key[0] in rows and snapshot.quality[key[0]] not in SILENT]
        await self._ask_all(unknown)

    async def _ask_all(self, keys: list[Key]) -> None:
        """Ask devices what they hold, side by side; one whose driver fails unexpectedly is said and left alone."""
        ended = await asyncio.gather(*(self._ask(*key) for key in keys), return_exceptions=True)
        for key, error in zip(keys, ended, strict=True):
            if isinstance(error, Exception):
                self._unknown.discard(key)
                device_id = self.fleet.devices[key[0]].id
                text = f"{device_id}: its driver failed unexpectedly with {type(error).__name__}: {error}"
                self.on_event(Event(self.clock.utc(), Severity.ALARM, device_id, "driver-failed", text))

    async def _ask(self, row: int, quantity: Quantity) -> None:
        try:
            held = await self.drivers[self.fleet.devices[row].id].read_back(quantity)
        except WriteForbidden:  # it does not take this quantity
            self._unknown.discard((row, quantity))
        except FieldError:
            return
        else:
            self._unknown.discard((row, quantity))
            if held.value_w is not None and held.reversion_s > 0.0:
                self._held.add((row, quantity))
            elif held.value_w is not None:
                device_id = self.fleet.devices[row].id
                text = f"{device_id} holds a {_WORDS[quantity]} {held.value_w / 1e3:.2f} kW without a reversion timer"
                text += ": it is not ours, and stays until a plan commands the device"
                self.on_event(Event(self.clock.utc(), Severity.WARNING, device_id, "foreign-command", text))

    def _expire(self) -> None:
        self._dispatch = None
        text = "the dispatch has expired: devices are handed back to their defaults"
        self.on_event(Event(self.clock.utc(), Severity.ALARM, "gateway", "dispatch-expired", text))

    def _wanted(self, dispatch: Dispatch, rows: list[int], snapshot: TelemetrySnapshot) -> list[_Pending]:
        due = []
        given = GuardInput(self.fleet, snapshot, self.settings.reversion_s + self.settings.reversion_jitter_s)
        for quantity in Quantity:
            wanted_w = np.full(len(self.fleet), np.nan)
            wanted_w[rows] = dispatch.wanted_w(quantity, snapshot.now_s)[rows]
            guarded = guard(wanted_w, given)
            for row in rows:
                if np.isfinite(wanted_w[row]):
                    due.append(
                        self._intend(row, quantity, wanted_w[row], guarded.value_w[row], guarded.by[row], dispatch)
                    )
                elif (row, quantity) in self._held and snapshot.quality[row] not in SILENT:
                    # One that does not answer is left to its own reversion timer until it is back.
                    due.append(self._intend(row, quantity, np.nan, None, "", dispatch))
        return due

    def _released(self, rows: list[int]) -> list[_Pending]:
        return [
            self._intend(row, quantity, np.nan, None, "", None) for row, quantity in sorted(self._held) if row in rows
        ]

    def _intend(
        self, row: int, quantity: Quantity, wanted_w: float, value_w: float | None, by: str, dispatch: Dispatch | None
    ) -> _Pending:
        """Enter an intent into the journal; what it replaces ends as Superseded."""
        settings = self.settings
        device_id = self.fleet.devices[row].id
        plan_id = 0 if dispatch is None else dispatch.plan_id
        reversion_s = settings.reversion_s + phase(device_id) * settings.reversion_jitter_s
        command = Command(quantity, None if value_w is None else float(value_w), reversion_s)
        replaced = self._pending.pop((row, quantity), None)
        if replaced is not None:
            self._end(replaced, Superseded())
        at = self.clock.utc()
        seq = self.journal.intend(at, self.clock.monotonic_s(), device_id, command, plan_id)
        valid_until_s = np.inf if dispatch is None or value_w is None else dispatch.valid_until_s
        return _Pending(seq, row, command, plan_id, float(wanted_w), by, at, valid_until_s)

    async def _carry_out(self, due: list[_Pending]) -> None:
        """Make the intents durable, then write them, all devices of the group side by side."""
        if not due:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(None, self.journal.commit)
        except JournalError as error:
            due = self._without_journal(due, error)
        else:
            self._with_journal()
        ended = await asyncio.gather(*(self._execute(pending) for pending in due), return_exceptions=True)
        for pending, failure in zip(due, ended, strict=True):
            if isinstance(failure, Exception) and not pending.ended:
                self._end(pending, Unknown(f"its driver failed unexpectedly with {type(failure).__name__}: {failure}"))

    def _without_journal(self, due: list[_Pending], error: JournalError) -> list[_Pending]:
        """No new setpoint without its intent on disk; releases go out all the same."""
        if not self._journal_fails:
            self._journal_fails = True
            text = f"commands cannot be journalled, so none is sent: {error}"
            self.on_event(Event(self.clock.utc(), Severity.ALARM, "gateway", "journal-failed", text))
        for pending in due:
            if pending.command.value_w is not None:
                self._end(pending, Rejected("journal"))
        return [pending for pending in due if pending.command.value_w is None]

    def _with_journal(self) -> None:
        if self._journal_fails:
            self._journal_fails = False
            text = "commands can be journalled again"
            self.on_event(Event(self.clock.utc(), Severity.INFO, "gateway", "journal-back", text))

    async def _execute(self, pending: _Pending) -> None:
        """Write one command and read it back; the effect is watched later."""
        command = pending.command
        if command.value_w is not None and np.isnan(command.value_w):
            self._end(pending, Rejected(pending.by))
            return
        key = (pending.row, command.quantity)
        driver = self.drivers[self.fleet.devices[pending.row].id]
        try:
            if not driver.connected:
                await driver.connect()
        except FieldError as error:
            self._end(pending, Failed(f"not connected: {error}"))
            return
        async with self.alone_with[pending.row]:
            held = await self._write(pending, key, driver)
        if command.value_w is not None and held is not None and not _is_armed(command, held):
            # It would keep the value after our death: better none at all.
            await self._carry_out([self._intend(pending.row, command.quantity, np.nan, None, "", None)])

    async def _write(self, pending: _Pending, key: Key, driver: DeviceDriver) -> Held | None:
        """Write a command to a connected device; what it holds then, None when that is nothing or nobody knows."""
        command = pending.command
        if not await self._is_ours(key, driver):
            self._end(pending, Rejected("conflict"))
            return None
        if self.clock.monotonic_s() > pending.valid_until_s:
            self._end(pending, Expired())
            return None
        self.counts.writes += 1
        self._held.add(key)
        self.holdings.pop(key, None)
        doubt = ""
        try:
            await driver.write(command)
        except (DeviceRefused, WriteForbidden) as error:
            self._end(pending, Rejected(f"device: {error}"))
            return None
        except ProtocolViolation as error:  # it may have taken all, a part or nothing: what it holds decides
            doubt = f"{error}; "
        except FieldError as error:
            self._end(pending, Unknown(str(error)))
            return None
        try:
            held = await driver.read_back(command.quantity)
        except FieldError as error:
            self._end(pending, Unknown(f"{doubt}written, but not read back: {error}"))
            return None
        self._read_back(pending, held, doubt)
        return None if held.value_w is None else held

    async def _is_ours(self, key: Key, driver: DeviceDriver) -> bool:
        """Look whether the device still holds what it was given; false for one that is left to another master."""
        row, quantity = key
        if key in self.holdings:
            try:
                found = self.notice(key, await driver.read_back(quantity))
            except FieldError:
                return True  # the write that follows will tell
            if found is not None and found.corrects and not self._corrections.made(row, self.clock.monotonic_s()):
                self._hand_over(row)
        return row not in self._corrections.handed_over

    def notice(self, key: Key, held: Held) -> Deviation | None:
        """Compare what a device holds now with its holding; a deviation is an event once, until it is mended."""
        holding = self.holdings.get(key)
        found = None if holding is None else deviation(holding, held, self.clock.monotonic_s())
        if found is None:
            self._noticed.pop(key, None)
        elif self._noticed.get(key) is not found.finding:
            self._noticed[key] = found.finding
            severity = Severity.ALARM if found.finding is Finding.REVERSION_LOST else Severity.WARNING
            device_id = self.fleet.devices[key[0]].id
            text = f"{device_id} ({key[1].value}) {found.text}"
            self.on_event(Event(self.clock.utc(), severity, device_id, found.finding.value, text))
        return found

    def _hand_over(self, row: int) -> None:
        """Leave a device to another master: it is not written to, and what it holds is not ours to release."""
        for quantity in Quantity:
            self._held.discard((row, quantity))
            self.holdings.pop((row, quantity), None)
        device_id = self.fleet.devices[row].id
        text = f"{device_id} was given other values more than {self._corrections.most_per_h:.0f} times in an hour"
        text += ": it is left alone for an hour"
        self.on_event(Event(self.clock.utc(), Severity.ALARM, device_id, "conflict", text))

    def _take_back(self, now_s: float) -> None:
        """Command again the devices whose hour is over."""
        for row in self._corrections.ended(now_s):
            device_id = self.fleet.devices[row].id
            text = f"{device_id} is commanded again after its conflict"
            self.on_event(Event(self.clock.utc(), Severity.INFO, device_id, "conflict-over", text))

    def _read_back(self, pending: _Pending, held: Held, doubt: str) -> None:
        command = pending.command
        key = (pending.row, command.quantity)
        if command.value_w is None:
            if held.value_w is None:
                self._held.discard(key)
                self._end(pending, Applied(float("nan")))
            else:
                self._end(pending, Failed(f"{doubt}released, but read back {held.value_w:.0f} W"))
        elif held.value_w is None or not abs(held.value_w - command.value_w) <= 1.001 * held.resolution_w:
            shown = "disabled" if held.value_w is None else f"{held.value_w:.0f} W"
            self._end(pending, Failed(f"{doubt}wrote {command.value_w:.0f} W, read back {shown}"))
        elif not _is_armed(command, held):
            armed = f"wrote a reversion time of {command.reversion_s:.0f} s, read back {held.reversion_s:.0f} s"
            self._end(pending, Failed(f"{armed}: released"))
        else:
            pending.written_s = now_s = self.clock.monotonic_s()
            self._pending[key] = pending
            self.holdings[key] = Holding(command, held, now_s, now_s, pending.valid_until_s)

    def _watch(self, snapshot: TelemetrySnapshot) -> None:
        """End the commands whose effect can be seen, and those whose time for it is over."""
        for key, pending in list(self._pending.items()):
            row, value_w = pending.row, pending.command.value_w
            assert value_w is not None
            effect_w = float(snapshot.p_w[row])
            fresh = self.poller.requested_s(row) > pending.written_s
            seen = fresh and snapshot.quality[row] == Quality.GOOD and np.isfinite(effect_w)
            tolerance_w = self.settings.tolerance_frac * self.fleet.devices[row].p_rated_w
            over_w = effect_w - value_w
            follows = (
                abs(over_w) <= tolerance_w if pending.command.quantity is Quantity.P_SET else over_w <= tolerance_w
            )
            if seen and follows:
                outcome: Outcome = Applied(effect_w)
                if pending.by:
                    outcome = Clamped(pending.by, pending.wanted_w, effect_w)
            elif snapshot.now_s - pending.written_s < self.settings.settle_s:
                continue
            elif seen:
                outcome = NotFollowing(effect_w)
            else:
                outcome = Unknown("no good reading while its effect was awaited")
            del self._pending[key]
            self._end(pending, outcome)

    def _end(self, pending: _Pending, outcome: Outcome) -> None:
        """Give a command its one outcome."""
        pending.ended = True
        device_id = self.fleet.devices[pending.row].id
        name = type(outcome).__name__
        now = self.clock.utc()
        self.journal.outcome(now, self.clock.monotonic_s(), pending.seq, outcome)
        self.counts.outcomes[name] = self.counts.outcomes.get(name, 0) + 1
        command = pending.command
        self.on_outcome(
            CommandRecord(
                pending.seq,
                pending.at,
                device_id,
                command.quantity,
                pending.plan_id,
                pending.wanted_w,
                command.value_w,
                outcome,
                now,
            )
        )
        if not isinstance(outcome, GOOD_OUTCOMES):
            what = (
                "release" if command.value_w is None else f"{_WORDS[command.quantity]} {pending.wanted_w / 1e3:.2f} kW"
            )
            text = f"{device_id}: {what}: {_sentence(outcome)}"
            self.on_event(Event(now, Severity.ALARM, device_id, f"command-{name.lower()}", text))

    @property
    def holding(self) -> list[str]:
        """Devices that have been written to and have not been seen to be released since."""
        return [self.fleet.devices[row].id for row in sorted({row for row, _ in self._held})]

    @property
    def handed_over(self) -> list[str]:
        """Devices that are left to another master for now."""
        return [self.fleet.devices[row].id for row in sorted(self._corrections.handed_over)]

    async def hand_back(self) -> None:
        """Release every device that holds a command, of ours or of a service before us, to its own default, now."""
        self._dispatch = None
        await self._ask_all(sorted(self._unknown))
        await self._carry_out(self._released(list(range(len(self.fleet)))))
        for pending in list(self._pending.values()):
            self._end(pending, Superseded())
        self._pending.clear()


def _is_armed(command: Command, held: Held) -> bool:
    """Whether the device counts down to its own release; a timer that it does not have reads as NaN."""
    return 0.0 < held.reversion_s <= command.reversion_s + 1.0


_WORDS = {Quantity.P_SET: "setpoint of", Quantity.P_LIMIT: "limit of"}


def _sentence(outcome: Outcome) -> str:
    """What became of a command that did not end well."""
    match outcome:
        case NotFollowing(effect_w):
            return f"written and read back, but the device gives {effect_w / 1e3:.2f} kW"
        case Rejected(by):
            return f"refused by {by}"
        case Failed(why) | Unknown(why):
            return f"{type(outcome).__name__.lower()}: {why}"
        case Expired():
            return "expired before it could be written"
        case _:
            return type(outcome).__name__.lower()
