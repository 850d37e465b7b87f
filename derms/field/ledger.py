"""The ledger of commands: each intent is durable before it goes on the wire, and each has exactly one outcome.

A command is intended, sent, read back and then watched until its effect is seen. At any time at most one command per
device and quantity is without its outcome: a newer one takes its place. Values in W, + = injection; times in s on the
monotonic clock.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto
from typing import Protocol

import numpy as np

from derms.domain.alarm import Event, Severity
from derms.domain.der import Fleet
from derms.domain.dispatch import (
    GOOD_OUTCOMES,
    Applied,
    Clamped,
    Command,
    Expired,
    Failed,
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
from derms.errors import JournalError
from derms.field.holdings import Key
from derms.field.journal import Journal
from derms.field.poller import phase
from derms.ports import Clock

SEND_S = 60.0
"""Within which an intent is to be on the wire: longer than any errand."""
WORDS = {Quantity.P_SET: "setpoint of", Quantity.P_LIMIT: "limit of"}


class Behind(Protocol):
    """What a command is for: a dispatch, or what a person has set."""

    @property
    def plan_id(self) -> int:
        """0 for none."""
        ...

    @property
    def valid_until_s(self) -> float: ...


class Stage(Enum):
    """How far a command has come."""

    INTENDED = auto()
    SENT = auto()
    """It may be on the wire; nobody knows yet what the device made of it."""
    WATCHED = auto()
    """Read back; its effect is awaited."""
    ENDED = auto()


@dataclass(slots=True)
class Pending:
    """A command on its way to its outcome."""

    seq: int
    row: int
    command: Command
    plan_id: int
    token: int
    wanted_w: float
    by: str
    """The guard that changed or refused what was wanted; empty for none."""
    at: datetime
    valid_until_s: float
    deadline_s: float
    """It is not sent later."""
    written_s: float = np.inf
    stage: Stage = Stage.INTENDED

    @property
    def key(self) -> Key:
        return self.row, self.command.quantity


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
class Ledger:
    """Enters intents, makes them durable, watches effects and gives outcomes; see the module's text."""

    fleet: Fleet
    journal: Journal
    clock: Clock
    settings: DispatchSettings
    on_event: Callable[[Event], None]
    counts: CommandCounts = field(default_factory=CommandCounts)
    unheeded: set[Key] = field(default_factory=set)
    """What devices hold and were not seen to follow: worth another write."""
    _open: dict[Key, Pending] = field(default_factory=dict)
    """Commands without an outcome."""
    _journal_fails: bool = False

    def intend(
        self, key: Key, value_w: float | None, *, wanted_w: float = np.nan, by: str = "", dispatch: Behind | None
    ) -> Pending:
        """Enter an intent, None to release; what it replaces ends as Superseded.

        `value_w` is what the guards left of `wanted_w`, NaN for nothing.
        """
        row, quantity = key
        device_id = self.fleet.devices[row].id
        plan_id = 0 if dispatch is None else dispatch.plan_id
        reversion_s = self.settings.reversion_s + phase(device_id) * self.settings.reversion_jitter_s
        command = Command(quantity, None if value_w is None else float(value_w), reversion_s)
        if key in self._open:
            self.end(self._open[key], Superseded())
        at = self.clock.utc()
        now_s, journal = self.clock.monotonic_s(), self.journal
        valid_until_s = np.inf if dispatch is None or value_w is None else dispatch.valid_until_s
        deadline_s = min(valid_until_s, now_s + SEND_S)
        wanted = None if value_w is None else float(wanted_w)
        seq = journal.intend(at, now_s, device_id, command, plan_id, deadline_s=deadline_s, wanted_w=wanted)
        pending = Pending(seq, row, command, plan_id, journal.token, float(wanted_w), by, at, valid_until_s, deadline_s)
        self._open[key] = pending
        return pending

    def under_way_w(self, key: Key, *, released_w: float | None = None) -> list[float]:
        """What a command without an outcome tells a device [W]; `released_w` for a release, none where that is None."""
        pending = self._open.get(key)
        if pending is None:
            return []
        value_w = released_w if pending.command.value_w is None else pending.command.value_w
        return [value_w] if value_w is not None and not np.isnan(value_w) else []

    async def make_durable(self, due: Sequence[Pending]) -> None:
        """Commit intents together. Without a journal setpoints end as Rejected; releases go out all the same."""
        if not due:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(None, self.journal.commit)
        except JournalError as error:
            self._without_journal(due, error)
        else:
            self._with_journal()

    def _without_journal(self, due: Sequence[Pending], error: JournalError) -> None:
        if not self._journal_fails:
            self._journal_fails = True
            text = f"commands cannot be journalled, so none is sent: {error}"
            self.on_event(Event(self.clock.utc(), Severity.ALARM, "gateway", "journal-failed", text))
        for pending in due:
            if pending.command.value_w is not None:
                self.end(pending, Rejected("journal"))

    def _with_journal(self) -> None:
        lost = self.journal.lost()
        if self._journal_fails or lost:
            self._journal_fails = False
            severity, text = Severity.INFO, "commands can be journalled again"
            if lost:
                severity, text = Severity.WARNING, f"{text}; {lost} records of before are not in the journal"
            self.on_event(Event(self.clock.utc(), severity, "gateway", "journal-back", text))

    def watch(self, snapshot: TelemetrySnapshot, requested_s: Callable[[int], float]) -> None:
        """End the commands whose effect can be seen, and those whose time for it is over.

        `requested_s` gives the time of a row's latest reading: only what was read after the write counts.
        """
        for pending in [pending for pending in self._open.values() if pending.stage is Stage.WATCHED]:
            fresh = requested_s(pending.row) > pending.written_s
            outcome = self._judged(pending, snapshot, fresh=fresh)
            if outcome is not None:
                self.end(pending, outcome)

    def _judged(self, pending: Pending, snapshot: TelemetrySnapshot, *, fresh: bool) -> Outcome | None:
        """What became of a watched command; None while it has time left to take effect."""
        row, value_w = pending.row, pending.command.value_w
        assert value_w is not None
        effect_w = float(snapshot.p_w[row])
        seen = fresh and snapshot.quality[row] == Quality.GOOD and np.isfinite(effect_w)
        tolerance_w = self.settings.tolerance_frac * self.fleet.devices[row].p_rated_w
        over_w = effect_w - value_w
        follows = abs(over_w) <= tolerance_w if pending.command.quantity is Quantity.P_SET else over_w <= tolerance_w
        if seen and follows:
            return Clamped(pending.by, pending.wanted_w, effect_w) if pending.by else Applied(effect_w)
        if snapshot.now_s - pending.written_s < self.settings.settle_s:
            return None
        return NotFollowing(effect_w) if seen else Unknown("no good reading while its effect was awaited")

    def break_off(self, key: Key, why: str) -> None:
        """End a command that is not watched and will not get any further; nothing where there is none."""
        pending = self._open.get(key)
        if pending is None or pending.stage is Stage.WATCHED:
            return
        self.end(pending, Unknown(why) if pending.stage is Stage.SENT else Failed(why))

    def supersede(self, row: int) -> None:
        """End the watched commands of a device: something else has it from now on."""
        for pending in [it for it in self._open.values() if it.row == row and it.stage is Stage.WATCHED]:
            self.end(pending, Superseded())

    def supersede_all(self) -> None:
        """End every command that has no outcome yet: nobody will watch it any more."""
        for pending in list(self._open.values()):
            self.end(pending, Superseded())

    def end(self, pending: Pending, outcome: Outcome) -> None:
        """Give a command its one outcome: the first, where a driver comes back to one that was broken off."""
        if pending.stage is Stage.ENDED:
            return
        pending.stage = Stage.ENDED
        del self._open[pending.key]
        if isinstance(outcome, GOOD_OUTCOMES):
            self.unheeded.discard(pending.key)
        else:
            self.unheeded.add(pending.key)
        device_id, command = self.fleet.devices[pending.row].id, pending.command
        name, now = type(outcome).__name__, self.clock.utc()
        self.journal.outcome(now, self.clock.monotonic_s(), pending.seq, outcome)
        self.counts.outcomes[name] = self.counts.outcomes.get(name, 0) + 1
        if not isinstance(outcome, GOOD_OUTCOMES):
            value = f"{WORDS[command.quantity]} {pending.wanted_w / 1e3:.2f} kW"
            text = f"{device_id}: {'release' if command.value_w is None else value}: {_sentence(outcome)}"
            self.on_event(Event(now, Severity.ALARM, device_id, f"command-{name.lower()}", text))


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
