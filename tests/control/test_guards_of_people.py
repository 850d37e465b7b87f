"""Guards that look at what people have laid down, and those that pace what moves."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derms.control.guards import (
    AUTHOR_RAMP,
    DEVICE_RAMP,
    FLEET_RAMP,
    GUARDS,
    GuardInput,
    Moves,
    Permits,
    PowerBounds,
    Quota,
    guard,
    unbounded,
)
from derms.domain.arrays import BoolArray
from derms.domain.quality import Quality
from tests.control.values import fleet_of, snapshot_of

COUNT = 3
FLEET = fleet_of(2, inverters=1)
SNAPSHOT = snapshot_of([0.0, 10e3, 20e3], soc_frac=[0.5, 0.5, 0.0])
YES = np.ones(COUNT, dtype=np.bool_)
FREE = Permits(YES, YES, YES, unbounded(COUNT), unbounded(COUNT))
HERE = Moves(SNAPSHOT.p_w, SNAPSHOT.p_w, np.full(COUNT, np.inf))
POWER = st.floats(-60e3, 60e3)


def _given(permits: Permits = FREE, moves: Moves | None = None) -> GuardInput:
    return GuardInput(FLEET, SNAPSHOT, 900.0, permits, moves)


def _but(row: int) -> BoolArray:
    others: BoolArray = np.arange(COUNT) != row
    return others


@pytest.mark.parametrize(
    ("permits", "by"),
    [
        (replace(FREE, matched=_but(1)), "identity"),
        (replace(FREE, reverts=_but(1)), "certificate"),
        (replace(FREE, open=_but(1)), "mode"),
    ],
)
def test_a_device_without_a_permit_gets_nothing_and_the_guard_says_why(permits: Permits, by: str) -> None:
    guarded = guard(np.array([5e3, 0.0, 5e3]), _given(permits))
    np.testing.assert_array_equal(guarded.value_w, [5e3, np.nan, 5e3])
    assert guarded.by == ("", by, "")


def test_a_tag_against_energizing_lets_no_device_export_and_a_stop_leaves_its_bounds() -> None:
    nobody = PowerBounds(np.full(COUNT, -np.inf), np.zeros(COUNT))
    guarded = guard(np.array([5e3, -5e3, 9e3]), _given(replace(FREE, tags=nobody)))
    np.testing.assert_array_equal(guarded.value_w, [0.0, -5e3, 0.0])
    assert guarded.by == ("tag", "", "tag")
    ceased = PowerBounds(np.zeros(COUNT), np.zeros(COUNT))
    assert guard(np.array([5e3, -5e3, 9e3]), _given(replace(FREE, stops=ceased))).by == ("stop",) * 3


def test_a_device_goes_no_farther_than_its_step() -> None:
    moves = replace(HERE, step_w=np.array([4e3, 4e3, 4e3]))
    guarded = guard(np.array([20e3, -20e3, 21e3]), _given(moves=moves))
    np.testing.assert_array_equal(guarded.value_w, [4e3, 6e3, 21e3])
    assert guarded.by == (DEVICE_RAMP, DEVICE_RAMP, "")


def test_where_all_would_move_too_far_each_goes_the_same_part_of_its_way() -> None:
    moves = replace(HERE, quotas=(Quota(FLEET_RAMP, YES, 15e3),))
    guarded = guard(np.array([20e3, 0.0, 20e3]), _given(moves=moves))
    np.testing.assert_allclose(guarded.value_w, [10e3, 5e3, 20e3])
    assert guarded.by == (FLEET_RAMP, FLEET_RAMP, "")
    one = replace(HERE, quotas=(Quota(AUTHOR_RAMP, ~_but(0), 5e3), Quota(FLEET_RAMP, YES, 1e6)))
    assert guard(np.array([20e3, 0.0, 20e3]), _given(moves=one)).by == (AUTHOR_RAMP, "", "")


def test_a_limit_above_what_a_free_device_gives_moves_nothing() -> None:
    high_w = np.full(COUNT, np.inf)
    moves = Moves(SNAPSHOT.p_w, high_w, np.full(COUNT, 1e3), (Quota(FLEET_RAMP, YES, 0.0),))
    guarded = guard(np.array([np.nan, np.nan, 25e3]), _given(moves=moves))
    assert (guarded.value_w[2], guarded.by[2]) == (25e3, "")
    lowered = guard(np.array([np.nan, np.nan, 5e3]), _given(moves=moves))
    assert (lowered.value_w[2], lowered.by[2]) == (20e3, DEVICE_RAMP)


@pytest.mark.parametrize("wanted_w", [25e3, 5e3, -25e3])
def test_what_has_to_go_to_a_bound_goes_there_at_once_whatever_the_ramps_say(wanted_w: float) -> None:
    """A full battery that charges, and an empty one that discharges: the state of charge is before the ramps."""
    snapshot = snapshot_of([-20e3, 20e3, 0.0], soc_frac=[0.95, 0.1, 0.0])
    moves = Moves(snapshot.p_w, snapshot.p_w, np.full(COUNT, 1.0), (Quota(FLEET_RAMP, YES, 0.0),))
    guarded = guard(np.array([wanted_w, wanted_w, np.nan]), GuardInput(FLEET, snapshot, 900.0, FREE, moves))
    assert guarded.value_w[0] >= 0.0
    assert guarded.value_w[1] <= 0.0


ROW = st.tuples(POWER, POWER, st.floats(0.0, 50e3), st.sampled_from([Quality.GOOD] * 3 + [Quality.SUSPECT]))


@given(st.lists(ROW, min_size=COUNT, max_size=COUNT), st.floats(0.0, 100e3), st.floats(0.0, 1.0))
def test_ramps_never_widen_what_other_guards_leave_and_the_fleet_keeps_to_its_quota(
    rows: Sequence[tuple[float, float, float, Quality]], left_w: float, soc_frac: float
) -> None:
    wanted_w, p_w, step_w = (np.array(column) for column in list(zip(*rows, strict=True))[:3])
    snapshot = snapshot_of(list(p_w), soc_frac=[soc_frac] * COUNT, quality=[row[3] for row in rows])
    moves = Moves(p_w, p_w, step_w, (Quota(FLEET_RAMP, YES, left_w),))
    without = guard(wanted_w, GuardInput(FLEET, snapshot, 900.0, FREE))
    guarded = guard(wanted_w, GuardInput(FLEET, snapshot, 900.0, FREE, moves))
    assert (np.isnan(guarded.value_w) == np.isnan(without.value_w)).all()
    bounds = unbounded(COUNT)
    for name, narrow in GUARDS:
        if "ramp" not in name:
            bounds = narrow(bounds, GuardInput(FLEET, snapshot, 900.0, FREE))
    known = ~np.isnan(guarded.value_w)
    assert (bounds.low_w <= guarded.value_w)[known].all()
    assert (guarded.value_w <= bounds.high_w)[known].all()
    forced_w = np.maximum(bounds.low_w - p_w, 0.0) + np.maximum(p_w - bounds.high_w, 0.0)
    if known.all():
        assert moves.change_w(guarded.value_w).sum() <= max(left_w, 0.0) + forced_w.sum() + 1e-6
        assert (moves.change_w(guarded.value_w) <= np.maximum(step_w, forced_w) + 1e-6).all()
