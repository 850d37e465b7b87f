"""The degraded ladder in the gateway: what the brain tells, what its silence means, and what people read."""

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime

from derms.control.degraded import Rung
from derms.domain.alarm import Event, Severity
from derms.domain.presence import BrainTold
from derms.field.ladder import Ladder

NOON = datetime(2026, 4, 15, 19, 0, tzinfo=UTC)
WELL = BrainTold(0.0, 0.0, 0.0, 0.0)
NEVER = BrainTold(math.inf, math.inf, math.inf, math.nan)


@dataclass
class Tower:
    """A ladder with what it says."""

    now_s: float = 1000.0
    stopped: bool = False
    events: list[Event] = field(default_factory=list)
    doubts: list[tuple[str, str]] = field(default_factory=list)
    ladder: Ladder = field(init=False)

    def __post_init__(self) -> None:
        self.ladder = Ladder(self, self.events.append, lambda: self.stopped, self._doubt)

    def _doubt(self, topology: str, model: str) -> None:
        self.doubts.append((topology, model))

    def monotonic_s(self) -> float:
        return self.now_s

    def utc(self) -> datetime:
        return NOON

    def after(self, seconds: float, told: BrainTold | None = None) -> Rung:
        self.now_s += seconds
        if told is not None:
            self.ladder.heard(told)
        return self.ladder.look().rung


def test_what_never_was_there_counts_from_the_start_of_the_gateway() -> None:
    tower = Tower()
    assert tower.after(0.0) is Rung.NORMAL
    assert tower.after(29.0, NEVER) is Rung.NORMAL
    assert tower.after(2.0, NEVER) is Rung.NO_DATABASE
    assert tower.after(1000.0, NEVER) is Rung.NO_DATABASE
    assert "No plan from the optimizer" in tower.ladder.look().text
    assert tower.doubts == [("", "")] * 3, "one that has only begun says nothing against its model"


def test_a_silent_brain_takes_the_service_down_rung_by_rung_and_its_return_up() -> None:
    tower = Tower()
    tower.after(0.0, WELL)
    found = [tower.after(10.0) for _ in range(181)]
    assert found[2] is Rung.NORMAL
    assert set(found) == {Rung.NORMAL, Rung.NO_BRAIN, Rung.ISOLATED}
    assert found[-1] is Rung.ISOLATED
    assert not tower.ladder.setpoints
    assert [event.kind for event in tower.events] == ["ladder-no-brain", "ladder-isolated"]
    assert tower.events[0].text.startswith("The brain is silent: ")
    assert tower.events[-1].severity is Severity.ALARM
    assert tower.events[-1].text.startswith("Alone: no new setpoints go out")
    assert "The brain is silent: " in tower.events[-1].text
    assert not [thing for thing in ("database", "model") if thing in tower.events[-1].text], "it says nothing of them"
    assert tower.doubts == [("", "")], "it says nothing against its model either"
    for _ in range(700):
        tower.after(1.0, WELL)
    assert tower.ladder.look().rung is Rung.NORMAL
    assert [event.kind for event in tower.events[2:]] == ["ladder-no-optimizer", "ladder-normal"]


def test_a_brain_that_was_never_heard_is_silent_and_no_database_is_said_to_be_away() -> None:
    tower = Tower()
    assert tower.after(29.0) is Rung.NORMAL
    assert tower.after(2.0) is Rung.NO_BRAIN
    text = tower.ladder.look().text
    assert text.startswith("The brain is silent: nothing is planned")
    assert "database" not in text
    assert tower.ladder.setpoints


def test_a_model_in_doubt_and_a_stop_of_everything_are_told_on() -> None:
    tower = Tower()
    tower.after(1.0, BrainTold(0.0, 299.0, 0.0, 0.0))
    tower.after(1.0, BrainTold(0.0, 301.0, 0.0, 0.0, "switch 7 is not known"))
    assert tower.doubts[0] == ("", "")
    assert tower.doubts[1][0] == "switch 7 is not known"
    assert "has not been believable" in tower.doubts[1][1]
    tower.stopped = True
    assert tower.after(1.0, WELL) is Rung.EMERGENCY
    tower.stopped = False
    assert tower.after(1.0, WELL) is not Rung.EMERGENCY
