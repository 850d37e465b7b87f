"""The brain's memory: quarter-hour means, the last half hour, and honest guesses for devices that are not seen."""

from datetime import timedelta

import numpy as np
import pytest

from derms.domain.quality import Quality
from derms.service.observation import Observation
from tests.control.values import NOON, fleet_of, snapshot_of

FLEET = fleet_of(batteries=1, inverters=3)
FREE = np.zeros(4, dtype=np.bool_)
POWERS_W = (5e3, 15e3, 15e3, 15e3)
GOOD, LOST = Quality.GOOD, Quality.STALE


def _memory(steps: int = 12) -> Observation:
    return Observation(FLEET, step_s=900.0, steps=steps)


def test_gross_load_is_net_load_with_everything_that_is_injected_behind_it() -> None:
    memory = _memory()
    memory.add(snapshot_of(POWERS_W), 1e6, FREE, sky_frac=0.5)
    seen = memory.seen(NOON)
    assert (seen.at, seen.gross_w.tolist(), seen.pv_frac.tolist()) == ([NOON], [1.05e6], [0.5])


def test_an_inverter_that_is_not_seen_counts_as_the_others_do_and_a_battery_as_at_rest() -> None:
    memory = _memory()
    memory.add(snapshot_of((5e3, 15e3, 99e3, 9e3), quality=[LOST, GOOD, LOST, GOOD]), 1e6, FREE, sky_frac=0.5)
    seen = memory.seen(NOON)
    assert seen.pv_frac[0] == pytest.approx(0.4)
    assert seen.gross_w[0] == pytest.approx(1e6 + 15e3 + 9e3 + 12e3)


def test_what_the_sun_gives_is_read_from_inverters_that_nobody_holds_back() -> None:
    memory = _memory()
    memory.add(snapshot_of((0.0, 3e3, 15e3, 15e3)), 1e6, np.array([False, True, False, False]), sky_frac=0.5)
    seen = memory.seen(NOON)
    assert seen.pv_frac[0] == pytest.approx(0.5)
    assert seen.gross_w[0] == pytest.approx(1.033e6)


def test_with_all_inverters_held_back_and_one_lost_the_load_is_still_known() -> None:
    """Else no plan could be made any more, and the limits that hide the sun would stand for ever."""
    memory = _memory()
    held_back = FLEET.is_pv
    memory.add(snapshot_of((0.0, 6e3, 6e3, 9e3), quality=[GOOD, GOOD, GOOD, LOST]), 1e6, held_back, sky_frac=0.5)
    seen = memory.seen(NOON)
    assert np.isnan(seen.pv_frac[0])
    assert seen.gross_w[0] == pytest.approx(1e6 + 12e3 + 6e3)


def test_an_unknown_net_load_is_not_a_number_instead_of_zero() -> None:
    memory = _memory()
    memory.add(snapshot_of(POWERS_W), np.nan, FREE, sky_frac=0.5)
    assert np.isnan(memory.seen(NOON).gross_w[0])


@pytest.mark.parametrize("sky_frac", [0.0, 0.5])
def test_when_no_inverter_tells_as_at_night_the_sky_does(sky_frac: float) -> None:
    memory = _memory()
    memory.add(snapshot_of(POWERS_W, quality=[GOOD, LOST, LOST, LOST]), 1e6, FREE, sky_frac=sky_frac)
    seen = memory.seen(NOON)
    assert seen.gross_w[0] == pytest.approx(1e6 + 5e3 + sky_frac * 90e3)
    assert np.isnan(seen.pv_frac[0])


def test_only_the_last_half_hour_is_seen() -> None:
    memory = _memory()
    for minutes in range(61):
        memory.add(snapshot_of(POWERS_W, at=NOON + timedelta(minutes=minutes)), 1e6, FREE, sky_frac=0.5)
    seen = memory.seen(NOON + timedelta(minutes=60))
    assert len(seen.at) == len(seen.gross_w) == len(seen.pv_frac) == 31
    assert seen.at[0] == NOON + timedelta(minutes=30)


def test_the_past_is_the_mean_of_each_quarter_hour_oldest_first() -> None:
    memory = _memory(steps=3)
    for minutes in range(45):
        at = NOON + timedelta(minutes=minutes)
        memory.add(snapshot_of(POWERS_W, at=at), np.nan if minutes == 20 else 1e6 + 1e3 * minutes, FREE, sky_frac=0.5)
    past_w = memory.past_net_w(NOON + timedelta(minutes=45) - timedelta(seconds=1), 0.0)
    later = [minutes for minutes in range(15, 30) if minutes != 20]
    np.testing.assert_allclose(past_w, [1e6 + 7e3, 1e6 + 1e3 * sum(later) / len(later), 1e6 + 37e3])


def test_a_gap_takes_the_next_later_value_or_the_last_one_and_the_present_only_where_nothing_is_known() -> None:
    """A meter lost for a quarter hour must not put a hole into what the optimizer is given."""
    memory = _memory(steps=5)
    for minutes, net_w in ((50, 1e6), (20, 2e6)):
        memory.add(snapshot_of(POWERS_W, at=NOON - timedelta(minutes=minutes)), net_w, FREE, sky_frac=0.5)
    np.testing.assert_array_equal(memory.past_net_w(NOON, np.nan), [1e6, 1e6, 2e6, 2e6, 2e6])
    np.testing.assert_array_equal(_memory(steps=2).past_net_w(NOON, 3e6), [3e6, 3e6])


def test_the_utilitys_records_count_as_the_past_before_the_first_measurement() -> None:
    memory = _memory(steps=3)
    memory.seed([NOON - timedelta(minutes=15 * n) for n in (2, 1, 0)], np.array([1e6, 2e6, 3e6]))
    np.testing.assert_array_equal(memory.past_net_w(NOON, np.nan), [1e6, 2e6, 3e6])
    assert np.isnan(memory.seen(NOON).gross_w).all()


def test_the_memory_is_bounded() -> None:
    memory = _memory(steps=2)
    for hours in range(100):
        memory.add(snapshot_of(POWERS_W, at=NOON + timedelta(hours=hours)), 1e6, FREE, sky_frac=0.5)
    past_w = memory.past_net_w(NOON + timedelta(hours=1), 5.0)
    np.testing.assert_array_equal(past_w, [5.0, 5.0])
