"""Restoring: leaving AUTO moves the fleet no faster than its ramp, and every device gets home."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derms.control.restoring import restoring

QUICKLY = settings(max_examples=40, deadline=None)
RAMP_W_PER_MIN = 60e3
"""1 kW/s."""
POWERS = st.lists(
    st.tuples(st.floats(-500e3, 500e3), st.floats(-500e3, 500e3), st.floats(0.0, 1.0, exclude_max=True)),
    min_size=1,
    max_size=12,
)


@QUICKLY
@given(POWERS, st.lists(st.floats(0.0, 1.0), min_size=2, max_size=20))
def test_all_devices_together_never_move_faster_than_the_ramp(
    devices: list[tuple[float, float, float]], shares: list[float]
) -> None:
    held, default, place = (np.array(column) for column in zip(*devices, strict=True))
    plan = restoring(held, default, np.abs(held), place, start_s=100.0, ramp_w_per_min=RAMP_W_PER_MIN)
    times = np.sort(100.0 + np.array(shares) * (plan.until_s - 100.0) * 1.1)
    powers = [np.where(plan.due(t), default, plan.wanted_w(t)) for t in times]
    for before, after, dt_s in zip(powers[:-1], powers[1:], np.diff(times), strict=True):
        assert np.abs(after - before).sum() <= RAMP_W_PER_MIN / 60.0 * dt_s + 1e-3
    np.testing.assert_allclose(plan.until_s - 100.0, np.abs(held - default).sum() / 1e3, atol=1e-9)
    assert plan.due(plan.until_s).all()
    assert np.isnan(plan.wanted_w(plan.until_s)).all()


def test_devices_go_one_after_another_by_their_place() -> None:
    held, default = np.array([10e3, -20e3, np.nan]), np.zeros(3)
    plan = restoring(held, default, held, np.array([0.7, 0.2, 0.5]), start_s=0.0, ramp_w_per_min=RAMP_W_PER_MIN)
    np.testing.assert_array_equal(plan.wanted_w(0.0), held)
    np.testing.assert_allclose(plan.wanted_w(10.0), [10e3, -10e3, np.nan])
    np.testing.assert_allclose(plan.wanted_w(25.0), [5e3, np.nan, np.nan])
    np.testing.assert_array_equal(plan.due(25.0), [False, True, False])
    assert plan.until_s == 30.0


def test_a_device_of_unknown_default_keeps_its_value_for_as_long_as_its_rating_takes() -> None:
    held, default = np.array([10e3]), np.array([np.nan])
    plan = restoring(held, default, np.array([30e3]), np.zeros(1), start_s=0.0, ramp_w_per_min=RAMP_W_PER_MIN)
    assert plan.wanted_w(29.9)[0] == 10e3
    assert plan.due(30.0)[0]


@pytest.mark.parametrize("ramp", [0.0, -1.0, np.nan])
def test_a_ramp_that_never_arrives_is_refused(ramp: float) -> None:
    nothing = np.zeros(1)
    with pytest.raises(ValueError, match="ramp"):
        restoring(nothing, nothing, nothing, nothing, start_s=0.0, ramp_w_per_min=ramp)
