"""Watches the health of devices: what happened at each poll becomes a condition, and each turn of it one event.

Their values are watched beside it: a device may answer well, and what it says be beyond belief.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from derms.domain.alarm import Event, Severity
from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.domain.der import DeviceKind, Fleet
from derms.domain.health import Condition, Fact, Health
from derms.domain.telemetry import LOCAL
from derms.errors import DeviceMismatch, DeviceRefused, FieldError
from derms.field.doubts import Doubts
from derms.field.judge import Judgement
from derms.field.rollup import Notice, Rollup
from derms.ports import Clock

FACTS: Mapping[int, Fact] = {1: Fact.REFUSED, 2: Fact.REFUSED, 3: Fact.REFUSED, 6: Fact.BUSY}
"""What a Modbus exception says of a device; every other one, a gateway's 10 and 11 too, is a failure."""

ALARMS: Mapping[Fact, tuple[str, str]] = {
    Fact.REFUSED: ("device-refuses", "refuses what it is asked for: is its configuration right"),
    Fact.MISMATCHED: ("device-mismatch", "is not polled: somebody else answers in its place"),
    Fact.CRASHED: ("device-quarantined", "is set aside: its answers are more than this program copes with"),
}
"""Kind and words of losses that are a device's own, and not the way's to it."""


def fact_of(error: FieldError) -> Fact:
    """What an error says of the device."""
    if isinstance(error, DeviceMismatch):
        return Fact.MISMATCHED
    return FACTS.get(error.code, Fact.FAILED) if isinstance(error, DeviceRefused) else Fact.FAILED


class Watch:
    """Conditions by fleet row, and the events at their turns; losses with one cause are one event (see `rollup`).

    `turn_s` is the time within which every device is read once.
    """

    def __init__(
        self, fleet: Fleet, clock: Clock, on_event: Callable[[Event], None], rollup: Rollup, turn_s: float
    ) -> None:
        self._devices = fleet.devices
        self._clock = clock
        self._on_event = on_event
        self._rollup = rollup
        self._conditions = [Condition() for _ in fleet.devices]
        self._doubts = Doubts(fleet, turn_s)
        self._doubted: BoolArray = np.zeros(len(fleet), dtype=np.bool_)
        self._local: BoolArray = np.zeros(len(fleet), dtype=np.bool_)

    @property
    def due_s(self) -> float:
        """When `tell` next has something to say; inf for never."""
        return min(self._rollup.due_s, self._doubts.due_s)

    def health(self, row: int) -> Health:
        return self._conditions[row].health

    def note(self, row: int, fact: Fact, why: str = "", *, asleep: bool = False, turned_away: bool = False) -> None:
        """Move a device's condition by a fact; what people must know is said at the turn, once.

        `turned_away`: it has answered before, and closes our connections at once now.
        """
        before = self._conditions[row]
        self._conditions[row] = after = before.after(fact, asleep=asleep)
        quarantined = after.health is Health.QUARANTINED is not before.health
        if before.lost and not after.lost:
            self._say(self._rollup.back(row, self._clock.monotonic_s()))
        elif after.lost and not before.lost:
            self._lost(row, fact, why, turned_away)
        elif quarantined:
            kind, text = ALARMS[fact]
            self.event(row, Severity.ALARM, kind, f"{text}: {why}")

    def _lost(self, row: int, fact: Fact, why: str, turned_away: bool) -> None:
        if fact in ALARMS:
            kind, text = ALARMS[fact]
        elif self._devices[row].kind is DeviceKind.SYSTEM_METER:
            kind, text = "system-meter-lost", "is the meter of system net load, and does not answer"
        else:
            self._rollup.lost(row, why, self._clock.monotonic_s(), turned_away=turned_away)
            return
        self._rollup.alone(row)
        self.event(row, Severity.ALARM, kind, f"{text}: {why}")

    def tell(self, now_s: float) -> None:
        """Say what has been held back until others had their turn."""
        if now_s >= self._rollup.due_s:
            self._say(self._rollup.told(now_s))
        if now_s >= self._doubts.due_s:
            self._say(self._doubts.told(now_s))

    def judged(self, rows: IntArray, judgement: Judgement, asleep: Callable[[IntArray], BoolArray]) -> None:
        """Note whose readings in these rows, shape (k,), are not believed any more, or again.

        `asleep` says of which devices nothing is expected: whatever they show is no news. It is asked only of those
        whose readings are doubted.
        """
        doubted, before = judgement.doubt > 0, self._doubted[rows]
        if np.count_nonzero(doubted):
            doubted[doubted] = ~asleep(rows[doubted])
        self._doubted[rows] = doubted  # a device that is there twice: its last reading counts
        turned = np.flatnonzero(before != self._doubted[rows]).tolist()
        now_s = self._clock.monotonic_s() if turned else 0.0
        for row, at in {int(rows[at]): at for at in turned}.items():
            if doubted[at]:
                self._doubts.raised(row, int(judgement.doubt[at]), judgement.why(at), now_s)
            else:
                self._doubts.over(row, now_s)

    def controlled(self, rows: IntArray, local: FloatArray) -> None:
        """Say which of some devices are under local control now, and which are not any more.

        `local` is the column of that name, shape (k,): what is neither 0 nor 1 is no news.
        """
        told = ((local == LOCAL) & ~self._local[rows]) | ((local == 0.0) & self._local[rows])
        for at in np.flatnonzero(told).tolist():
            row, self._local[rows[at]] = int(rows[at]), local[at] == LOCAL
            if self._local[row]:
                text = "is under local control: nothing is sent to it, and what it holds is left to its timer"
                self.event(row, Severity.WARNING, "local-control", text)
            else:
                self.event(row, Severity.INFO, "remote-control", "is under remote control again")

    def event(self, row: int, severity: Severity, kind: str, text: str) -> None:
        """Say something of one device; the text goes on after its name."""
        device = self._devices[row].id
        self._on_event(Event(self._clock.utc(), severity, device, kind, f"{device} {text}"))

    def _say(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            self._on_event(Event(self._clock.utc(), notice.severity, notice.source, notice.kind, notice.text))
