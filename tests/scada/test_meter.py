"""Net load from a polled meter, and how far a value of the utility's system may move at once."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import numpy as np
import pytest

from derms.domain.quality import Quality
from derms.domain.scada import Sample
from derms.scada.meter import MeterScada
from tests.control.values import snapshot_of
from tests.scada.rig import LOAD, START, Room, room

FEEDER = replace(LOAD, step=3.6e6)


@pytest.mark.parametrize(
    ("p_w", "quality"),
    [
        (2e6, Quality.GOOD),
        (0.0, Quality.GOOD),
        (np.nan, Quality.NOT_IMPLEMENTED),
        (np.inf, Quality.SUSPECT),
        (-np.inf, Quality.SUSPECT),
    ],
)
def test_net_load_of_a_meter_is_good_only_when_it_is_a_number(p_w: float, quality: Quality) -> None:
    snapshot = snapshot_of([0.0], at=START)
    told = replace(snapshot, p_w=np.full_like(snapshot.p_w, p_w), quality=np.zeros_like(snapshot.quality))
    reading = MeterScada(0).reading(told)
    assert reading.values["net_load"].quality is quality
    assert np.isfinite(reading.net_load_w) == (quality is Quality.GOOD)


@dataclass
class Said:
    """A link that delivers what a test says [kW], with a source time or without."""

    kw: float | str = 2500.0
    age_s: float | None = None
    room: Room | None = field(default=None, init=False)

    async def fetch(self) -> Sequence[Sample]:
        assert self.room is not None
        at = None if self.age_s is None else self.room.clock.utc() - timedelta(seconds=self.age_s)
        return [Sample("load", self.kw, "", at)]

    def told(self, *values_kw: float) -> list[float]:
        """Net load [kW] as it is known after each of these, told 10 s apart."""
        found = []
        for self.kw in values_kw:
            assert self.room is not None
            found.append(self.room.poll(10.0).net_load_w / 1e3)
        return found


def saying(*, age_s: float | None = None) -> tuple[Said, Room]:
    said = Said(age_s=age_s)
    said.room = room(said, [FEEDER])
    asyncio.run(said.room.source.poll())
    return said, said.room


def test_a_spike_never_enters_net_load_and_is_named_once() -> None:
    said, story = saying()
    assert said.told(2500.0, 25e3, 2600.0) == [2500.0, 2500.0, 2600.0]
    assert story.kinds == ["points-refused", "points-refused-over"]
    assert "2.5e+07 after 2.5e+06 is a leap of more than 3.6e+06" in story.events[0].text


def test_a_leap_that_is_told_twice_is_believed() -> None:
    said, story = saying()
    assert said.told(25e3, 25.1e3, 25.2e3) == [2500.0, 25.1e3, 25.2e3]
    assert story.kinds == ["points-refused", "points-refused-over"]


def test_two_different_leaps_confirm_nothing() -> None:
    assert saying()[0].told(25e3, -25e3, 80e3) == [2500.0] * 3


def test_the_same_sample_again_is_no_second_telling() -> None:
    said, _ = saying(age_s=0.0)
    first = said.told(25e3)
    said.age_s = 10.0  # of the same moment as before
    again = said.told(25e3)
    said.age_s = 0.0
    assert first + again + said.told(25e3) == [2500.0, 2500.0, 25e3]


def test_half_of_what_a_large_system_was_is_no_leap() -> None:
    assert saying()[0].told(25e3, 25e3, 36e3, 20e3) == [2500.0, 25e3, 36e3, 20e3]


def test_after_what_was_known_is_stale_any_plausible_value_is_believed() -> None:
    said, story = saying()
    story.clock.pass_(120.0)
    assert said.told(25e3) == [25e3]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", "1e308"])
def test_what_is_no_finite_number_is_never_good(value: str) -> None:
    said, story = saying()
    said.kw = value
    assert story.poll().net_load_w == 2.5e6
    assert story.kinds == ["points-refused"]
    assert story.poll(120.0).values["load"].quality is not Quality.GOOD
