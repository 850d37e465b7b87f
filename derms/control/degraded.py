"""The degraded ladder: how far the service has come down, as one pure function of what is there and for how long.

What a rung needs is missing once it has been away for `enter_s`, and there again once it has not been away for
`leave_s`: entry is by age, exit by time without a break. The rung is the worst of what is missing. Times in s on the
monotonic clock.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


class Rung(IntEnum):
    """From all well to stopped."""

    NORMAL = 0
    NO_FORECAST = 1
    NO_MODEL = 2
    NO_OPTIMIZER = 3
    NO_DATABASE = 4
    NO_BRAIN = 5
    ISOLATED = 6
    EMERGENCY = 7

    @property
    def word(self) -> str:
        """For programs and events."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class Presence:
    """For how long each thing that the service needs has been away [s]: 0 while it is there, infinite: never was.

    NaN, for nobody knows, counts as away.
    """

    forecast_s: float
    """Since a forecast passed its gates."""
    model_s: float
    """Since an estimate of the feeder could be believed."""
    optimizer_s: float
    """Since the optimizer made a plan that passed the verifier."""
    database_s: float
    """Since the database took something."""
    brain_s: float
    """Since the brain was heard; infinite without the lease."""
    stopped: bool
    """A stop of everything is latched."""


@dataclass(frozen=True, slots=True)
class Step:
    """One rung: when it is entered and left, what still goes on, and what the operator reads."""

    rung: Rung
    needs: str
    """Field of Presence; empty for the latch, which is not there while `stopped` is."""
    text: str
    enter_s: float = 0.0
    leave_s: float = 0.0
    setpoints: bool = True
    """New setpoints go out."""
    schedules: bool = True
    """New schedules of operators are taken."""

    def missing(self, presence: Presence) -> bool:
        """Whether what it needs has been away for too long."""
        if not self.needs:
            return presence.stopped
        return not getattr(presence, self.needs) <= self.enter_s


LADDER: tuple[Step, ...] = (
    Step(
        Rung.NO_FORECAST,
        needs="forecast_s",
        enter_s=1800.0,
        leave_s=600.0,
        text="No fresh forecast: plans are made from the usual day. Expect a less flat peak.",
    ),
    Step(
        Rung.NO_MODEL,
        needs="model_s",
        enter_s=300.0,
        leave_s=300.0,
        text="The feeder model is not to be believed: static limits take its place, and its feeder is back in shadow.",
    ),
    Step(
        Rung.NO_OPTIMIZER,
        needs="optimizer_s",
        enter_s=900.0,
        leave_s=600.0,
        text="No plan from the optimizer: the last good one holds until its end, then plain rules, then the defaults.",
    ),
    Step(
        Rung.NO_DATABASE,
        needs="database_s",
        enter_s=30.0,
        leave_s=60.0,
        schedules=False,
        text="The database is away: commands are journalled here and go out; new schedules are not taken.",
    ),
    Step(
        Rung.NO_BRAIN,
        needs="brain_s",
        enter_s=30.0,  # it gives a sign of life every few seconds
        leave_s=30.0,
        schedules=False,
        text="The brain is silent: nothing is planned, and its last plan holds until its end.",
    ),
    Step(
        Rung.ISOLATED,
        needs="brain_s",
        enter_s=1800.0,  # for as long as a plan may be followed, nobody at a device notices
        leave_s=30.0,
        setpoints=False,
        schedules=False,
        text="Alone: no new setpoints go out, and devices return to their defaults as what they hold ends. Stops work.",
    ),
    Step(
        Rung.EMERGENCY,
        needs="",
        setpoints=False,
        schedules=False,
        text="Everything is stopped: nothing but stops goes out until two people have released it.",
    ),
)
"""The mildest first."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where on the ladder the service stands."""

    rung: Rung
    since_s: float
    there_since_s: Mapping[Rung, float]
    """Per rung that holds: since when what it needs has been there again; infinite while it is away."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """All rungs that hold, the worst first."""
        return tuple(step for step in reversed(LADDER) if step.rung in self.there_since_s)

    @property
    def setpoints(self) -> bool:
        """New setpoints go out."""
        return all(step.setpoints for step in self.steps)

    @property
    def schedules(self) -> bool:
        """New schedules of operators are taken."""
        return all(step.schedules for step in self.steps)

    @property
    def text(self) -> str:
        """For the operator, the worst first."""
        return " ".join(step.text for step in self.steps) or "All is there."


def position(before: Position | None, presence: Presence, now_s: float) -> Position:
    """Where the service stands now, given where it stood (None: it starts) and what is there.

    It comes down at once and goes up only when what was missing has been there for `leave_s` without a break.
    """
    held = {} if before is None else before.there_since_s
    there_since_s: dict[Rung, float] = {}
    for step in LADDER:
        if step.missing(presence):
            there_since_s[step.rung] = math.inf
        elif step.rung in held:
            since_s = min(held[step.rung], now_s)
            if now_s - since_s < step.leave_s:
                there_since_s[step.rung] = since_s
    rung = max(there_since_s, default=Rung.NORMAL)
    kept = before is not None and before.rung is rung
    return Position(rung, before.since_s if before is not None and kept else now_s, there_since_s)


class Work(IntEnum):
    """What the gateway does, the most urgent first."""

    STOP = 0
    CONTROL = 1
    """Writes, their read-backs, and the refreshing of what devices hold."""
    WATCH = 2
    """Polls of devices whose effect is awaited."""
    POLL = 3
    SETTINGS = 4
    """Looking for drift in what engineers set."""


POLLS = (Work.WATCH, Work.POLL, Work.SETTINGS)
"""What overload sheds, the last first; stops and controls it never does."""


def shed(asked: Mapping[Work, float], capacity: float) -> Mapping[Work, float]:
    """What is let through of the work that is asked for, both in the same unit (requests/s); polls give way.

    Stops and controls pass whole, even beyond the capacity: then no poll does.
    """
    passed = {work: amount for work, amount in asked.items() if work not in POLLS}
    for work in POLLS:
        if work in asked:
            passed[work] = min(asked[work], max(0.0, capacity - sum(passed.values())))
    return passed
