"""Memory, clocks and disk of a process are looked at, and each change for the worse and back is told once."""

import asyncio
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from derms.domain.alarm import Event, Severity
from derms.service.cadence import run_scheduled
from derms.service.surroundings import Surroundings
from derms.service.watching import LOOK_EVERY_S, SCARCE_BYTES, Watching, resident_bytes, room_of, watching

GB, MB = 1_000_000_000, 1_000_000


@dataclass
class Machine:
    """A machine that a test arranges, and what is told of it."""

    now_s: float = 5.0
    wall: datetime = datetime(2026, 4, 15, 19, 0, tzinfo=UTC)
    room: tuple[int, int] = (50 * GB, 100 * GB)
    held: int = 300 * MB
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.watching = Watching("gateway", self, self.events.append, lambda: self.room, lambda: self.held)

    def monotonic_s(self) -> float:
        return self.now_s

    def utc(self) -> datetime:
        return self.wall

    def minutes(self, number: int = 1) -> list[str]:
        """Kinds of what is told in so many minutes."""
        before = len(self.events)
        for _ in range(number):
            asyncio.run(self.watching.look())
            self.now_s += LOOK_EVERY_S
            self.wall += timedelta(seconds=LOOK_EVERY_S)
        return [event.kind for event in self.events[before:]]


@pytest.mark.parametrize(("whole", "scarce"), [(20 * GB, 4 * GB), (2000 * GB, SCARCE_BYTES)])
def test_a_disk_with_little_room_left_is_an_alarm_before_it_is_full(whole: int, scarce: int) -> None:
    machine = Machine(room=(scarce + MB, whole))
    assert machine.minutes() == []
    machine.room = (scarce - MB, whole)
    assert machine.minutes(3) == ["disk-low"]
    assert machine.events[-1].severity is Severity.ALARM
    machine.room = (scarce + MB, whole)
    assert machine.minutes(3) == [], "it does not flutter"
    machine.room = (2 * scarce, whole)
    assert machine.minutes(3) == ["disk-enough"]


@pytest.mark.parametrize("step_s", [3600.0, -3600.0, 2.5])
def test_a_wall_clock_that_is_set_is_an_alarm_with_by_how_much(step_s: float) -> None:
    machine = Machine()
    assert machine.minutes(3) == []
    machine.wall += timedelta(seconds=step_s)
    assert machine.minutes(3) == ["clock-stepped"]
    assert f"{step_s:+.1f} s" in machine.events[-1].text
    assert machine.events[-1].severity is Severity.ALARM


def test_a_wall_clock_that_is_put_right_slowly_is_none() -> None:
    machine = Machine()
    for _ in range(120):
        machine.wall += timedelta(seconds=0.03)
        assert machine.minutes() == []


@pytest.mark.parametrize(("usual", "most"), [(300 * MB, 800 * MB), (2000 * MB, 4000 * MB)])
def test_memory_that_grows_beyond_what_was_held_after_the_first_hour_is_an_alarm(usual: int, most: int) -> None:
    machine = Machine(held=usual)
    assert machine.minutes(61) == []
    machine.held = most
    assert machine.minutes(3) == []
    machine.held = most + MB
    assert machine.minutes(3) == ["memory-grown"]
    assert machine.events[-1].severity is Severity.ALARM
    machine.held = usual
    assert machine.minutes(3) == ["memory-back"]


def test_what_is_held_in_the_first_hour_counts_for_nothing() -> None:
    machine = Machine(held=20 * MB)
    assert machine.minutes(30) == []
    machine.held = 2000 * MB
    assert machine.minutes(90) == []


def test_a_process_beside_the_gateway_watches_its_memory_only() -> None:
    machine = Machine()
    machine.watching.room = None
    assert machine.minutes(2) == []
    machine.wall += timedelta(hours=1)
    assert machine.minutes(2) == []


def test_the_real_ones_can_be_read(tmp_path: Path) -> None:
    free, whole = room_of(tmp_path)
    assert 0 <= free <= whole
    assert resident_bytes() > MB


def test_a_service_in_simulated_time_looks_at_no_machine() -> None:
    machine = Machine()
    around = Surroundings(clock=machine, runner=run_scheduled, chance=random.Random(1))
    assert watching("brain", around, machine.events.append) == ()
