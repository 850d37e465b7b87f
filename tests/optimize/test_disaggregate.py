"""Sharing a fleet power: every battery within its own bounds, the sum as wanted where the fleet can."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from derms.domain.arrays import FloatArray
from derms.optimize.aggregate import disaggregate


@given(
    st.floats(-1e6, 1e6),
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(*(st.lists(st.floats(0.0, 1e5), min_size=n, max_size=n).map(np.array) for _ in range(3)))
    ),
)
def test_shares_stay_within_power_and_energy_and_meet_the_total_where_possible(
    total_w: float, columns: tuple[FloatArray, FloatArray, FloatArray]
) -> None:
    p_max_w, stored_wh, room_wh = columns
    dt_h = 0.25
    share_w = disaggregate(total_w, p_max_w, stored_wh, room_wh, dt_h=dt_h)
    assert (np.abs(share_w) <= p_max_w * (1 + 1e-9)).all()
    assert (share_w * dt_h <= stored_wh * (1 + 1e-9) + 1e-6).all()
    assert (-share_w * dt_h <= room_wh * (1 + 1e-9) + 1e-6).all()
    energy_wh = stored_wh if total_w >= 0.0 else room_wh
    able_w = float(np.minimum(p_max_w, energy_wh / dt_h).sum())
    wanted_w = min(abs(total_w), able_w)
    assert abs(float(np.abs(share_w).sum()) - wanted_w) <= 1e-6 * max(able_w, 1.0) + 1e-3


def test_the_fuller_battery_discharges_first() -> None:
    share_w = disaggregate(10e3, np.array([10e3, 10e3]), np.array([40e3, 10e3]), np.array([0.0, 30e3]), dt_h=0.25)
    np.testing.assert_allclose(share_w, [10e3, 0.0], atol=1e-6)


def test_the_emptier_battery_charges_first() -> None:
    share_w = disaggregate(-10e3, np.array([10e3, 10e3]), np.array([40e3, 10e3]), np.array([0.0, 30e3]), dt_h=0.25)
    np.testing.assert_allclose(share_w, [0.0, -10e3], atol=1e-6)
