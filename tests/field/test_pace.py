"""From where devices move, and how far they may: what they hold, what they do, and what moved in the last minute."""

from dataclasses import replace

import numpy as np
import pytest

from derms.control.guards import AUTHOR_RAMP, FLEET_RAMP, Moves
from derms.domain.dispatch import Command, Held, Quantity
from derms.domain.settings import DispatchSettings
from derms.domain.telemetry import TelemetrySnapshot
from derms.field.holdings import Holding, Holdings
from derms.field.pace import Pace
from derms.field.wants import Wants
from tests.control.values import fleet_of, snapshot_of

FLEET = fleet_of(2, inverters=1)
SETTINGS = DispatchSettings(ramp_frac_per_min=0.5, author_ramp_frac_per_min=0.25, device_ramp_frac_per_min=2.0)
ROWS = [0, 1, 2]


def _wants(value_w: float = 5e3, **authors: int) -> Wants:
    values_w = np.full(3, value_w)
    own = {name: np.arange(3) == row for name, row in authors.items()}
    nothing = np.zeros(3, dtype=np.intp)
    return Wants(values_w, values_w, ("",) * 3, np.full(3, 1e3), nothing, np.ones(3, dtype=np.bool_), own)


def _at(now_s: float) -> TelemetrySnapshot:
    return replace(snapshot_of([10e3, -20e3, 8e3], soc_frac=[0.5, 0.5, 0.0]), now_s=now_s)


def _moves(pace: Pace, quantity: Quantity, holdings: Holdings, wants: Wants, now_s: float = 0.0) -> Moves:
    return pace.moves(quantity, holdings, wants, _at(now_s), ROWS)


def _holding(quantity: Quantity, value_w: float) -> Holding:
    return Holding(Command(quantity, value_w, 900.0), Held(value_w, 900.0, 900.0, 1.0), 0.0, 0.0, 1e3)


def test_a_start_without_memory_moves_devices_from_what_they_do() -> None:
    moves = _moves(Pace(FLEET, SETTINGS), Quantity.P_SET, Holdings(), _wants())
    np.testing.assert_array_equal(moves.change_w(np.array([12e3, 0.0, 8e3])), [2e3, 20e3, 0.0])


def test_a_release_counts_as_far_as_the_device_is_expected_to_move() -> None:
    pace = Pace(FLEET, SETTINGS)
    rated_w = float(FLEET.p_rated_w[2])
    assert pace.release_w(0, Quantity.P_SET, -15e3, np.nan) == 15e3
    assert pace.release_w(0, Quantity.P_LIMIT, 15e3, 15e3) == 0.0
    assert pace.release_w(2, Quantity.P_LIMIT, 8e3, 8e3) == rated_w - 8e3
    assert pace.release_w(2, Quantity.P_LIMIT, 8e3, np.nan) == rated_w - 8e3, "what it does is not known"
    assert pace.release_w(2, Quantity.P_LIMIT, 8e3, 2e3) == 0.0, "its limit does not hold it back"
    most_w = pace.ramp_w_per_min
    assert pace.lets(2 * most_w, 0.0, 0.0), "one that is more than the ramp goes alone"
    assert pace.lets(0.4 * most_w, 0.6 * most_w, 0.0)
    assert not pace.lets(0.5 * most_w, 0.6 * most_w, 0.0)


def test_a_device_that_holds_something_moves_from_there() -> None:
    holdings = Holdings()
    holdings[0, Quantity.P_SET] = _holding(Quantity.P_SET, 15e3)
    moves = _moves(Pace(FLEET, SETTINGS), Quantity.P_SET, holdings, _wants())
    assert moves.change_w(np.array([12e3, -20e3, 8e3]))[0] == 3e3


def test_a_limit_moves_what_it_lets_rise_or_has_to_take_away() -> None:
    holdings = Holdings()
    free = _moves(Pace(FLEET, SETTINGS), Quantity.P_LIMIT, holdings, _wants())
    changes_w = [free.change_w(np.array([np.nan, np.nan, limit_w]))[2] for limit_w in (30e3, 8e3, 5e3)]
    assert changes_w == [0.0, 0.0, 3e3]
    holdings[2, Quantity.P_LIMIT] = _holding(Quantity.P_LIMIT, 8e3)
    held = _moves(Pace(FLEET, SETTINGS), Quantity.P_LIMIT, holdings, _wants())
    changes_w = [held.change_w(np.array([np.nan, np.nan, limit_w]))[2] for limit_w in (30e3, 8e3, 5e3)]
    assert changes_w == [22e3, 0.0, 3e3]


def test_what_moved_in_the_last_minute_counts_for_the_fleet_and_for_whoever_moved_it() -> None:
    pace, wants = Pace(FLEET, SETTINGS), _wants(smith=0)
    pace.moved({0: 15e3, 1: 5e3}, wants, 0.0)
    for now_s, fleet_w, smith_w in ((30.0, 20e3, 5e3), (59.9, 20e3, 5e3), (60.0, 40e3, 20e3)):
        moves = _moves(pace, Quantity.P_SET, Holdings(), wants, now_s)
        left = {quota.by: quota.left_w for quota in moves.quotas}
        assert left == {FLEET_RAMP: fleet_w, AUTHOR_RAMP: smith_w}
    assert _moves(pace, Quantity.P_SET, Holdings(), _wants(lee=0), 61.0).quotas[0].left_w == 20e3


def test_a_device_may_step_as_far_as_its_ramp_since_its_last_move_at_most_a_minute() -> None:
    pace = Pace(FLEET, SETTINGS)
    pace.moved({0: 1e3}, _wants(), 100.0)
    for now_s, step_w in ((115.0, 12.5e3), (130.0, 25e3), (160.0, 50e3), (1e4, 50e3)):
        assert _moves(pace, Quantity.P_SET, Holdings(), _wants(), now_s).step_w[0] == pytest.approx(step_w)


def test_what_is_on_its_way_back_to_its_default_is_held_up_by_no_ramp() -> None:
    moves = _moves(Pace(FLEET, SETTINGS), Quantity.P_SET, Holdings(), _wants(np.nan))
    assert moves.change_w(np.array([-25e3, 25e3, 0.0])).sum() == 0.0
