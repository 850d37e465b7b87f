"""Device physics: setpoints, limits, ramps, states of charge, volt-var, reversion."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derms.domain.arrays import FloatArray
from hil.physics import Commands, Control, Ratings, State, possible_w, step

PV, BATTERY = 0, 1
RATED_W, RATED_VA, ENERGY_WH = 50e3, 55e3, 200e3
SUN_W = np.array([40e3, 0.0])
NOMINAL_PU = np.ones(2)


@pytest.fixture
def ratings() -> Ratings:
    """One inverter and one battery."""
    return Ratings(
        is_battery=np.array([False, True]),
        p_rated_w=np.full(2, RATED_W),
        s_rated_va=np.full(2, RATED_VA),
        energy_wh=np.array([0.0, ENERGY_WH]),
    )


def at_rest(soc_frac: float = 0.5) -> State:
    return State(p_w=np.zeros(2), q_var=np.zeros(2), soc_frac=np.array([np.nan, soc_frac]))


def told(
    *, limit_w: float | None = None, setpoint_w: float | None = None, volt_var: bool = False, permitted: bool = True
) -> Commands:
    limit, setpoint = Control.off(2), Control.off(2)
    if limit_w is not None:
        limit.enabled[:], limit.value_w[:] = True, limit_w
    if setpoint_w is not None:
        setpoint.enabled[BATTERY], setpoint.value_w[BATTERY] = True, setpoint_w
    return Commands(limit, setpoint, np.full(2, permitted), np.full(2, volt_var))


def after(
    ratings: Ratings,
    state: State,
    commands: Commands,
    *,
    seconds: int,
    sun_w: FloatArray = SUN_W,
    v_pu: FloatArray = NOMINAL_PU,
) -> State:
    for _ in range(seconds):
        state = step(ratings, state, commands, v_pu, sun_w, 1.0)
    return state


def test_uncommanded_the_inverter_gives_what_the_sun_gives_and_the_battery_rests(ratings: Ratings) -> None:
    state = after(ratings, at_rest(), told(), seconds=10)
    np.testing.assert_allclose(state.p_w, [40e3, 0.0])
    assert state.soc_frac[BATTERY] == 0.5


def test_power_follows_a_setpoint_no_faster_than_the_ramp(ratings: Ratings) -> None:
    one = after(ratings, at_rest(), told(setpoint_w=-30e3), seconds=1)
    assert one.p_w[BATTERY] == pytest.approx(-10e3)  # 20 %/s
    assert after(ratings, one, told(setpoint_w=-30e3), seconds=5).p_w[BATTERY] == pytest.approx(-30e3)


def test_a_limit_holds_back_the_inverter_and_the_discharge(ratings: Ratings) -> None:
    state = after(ratings, at_rest(), told(limit_w=12.5e3, setpoint_w=30e3), seconds=10)
    np.testing.assert_allclose(state.p_w, 12.5e3)


def test_a_limit_does_not_stop_charging(ratings: Ratings) -> None:
    assert after(ratings, at_rest(), told(limit_w=0.0, setpoint_w=-30e3), seconds=10).p_w[BATTERY] == -30e3


def test_without_permission_for_service_everything_goes_to_zero(ratings: Ratings) -> None:
    running = after(ratings, at_rest(), told(setpoint_w=30e3), seconds=10)
    stopped = after(ratings, running, told(setpoint_w=30e3, permitted=False), seconds=10)
    np.testing.assert_array_equal(stopped.p_w, 0.0)


def test_an_empty_battery_stops_at_its_floor_and_a_full_one_at_its_ceiling(ratings: Ratings) -> None:
    low = after(ratings, at_rest(0.0502), told(setpoint_w=50e3), seconds=60)
    assert low.soc_frac[BATTERY] == pytest.approx(0.05)
    assert low.p_w[BATTERY] == pytest.approx(0.0)
    full = after(ratings, at_rest(0.9998), told(setpoint_w=-50e3), seconds=60)
    assert full.soc_frac[BATTERY] == pytest.approx(1.0)
    assert full.p_w[BATTERY] == pytest.approx(0.0)


def test_a_round_trip_costs_both_efficiencies(ratings: Ratings) -> None:
    charged = after(ratings, at_rest(), told(setpoint_w=-20e3), seconds=3600)
    in_wh = (charged.soc_frac[BATTERY] - 0.5) * ENERGY_WH
    assert in_wh == pytest.approx(20e3 * 0.95, rel=2e-3)
    back = after(ratings, replace(charged, p_w=np.zeros(2)), told(setpoint_w=20e3), seconds=3600)
    out_wh = (charged.soc_frac[BATTERY] - back.soc_frac[BATTERY]) * ENERGY_WH
    assert out_wh == pytest.approx(20e3 / 0.95, rel=2e-3)


def test_a_falling_sun_is_followed_at_once(ratings: Ratings) -> None:
    running = after(ratings, at_rest(), told(), seconds=10)
    shaded = step(ratings, running, told(), NOMINAL_PU, np.array([5e3, 0.0]), 1.0)
    assert shaded.p_w[PV] == pytest.approx(5e3)


@pytest.mark.parametrize(("v_pu", "share"), [(0.92, 0.44), (0.95, 0.22), (1.0, 0.0), (1.05, -0.22), (1.2, -0.44)])
def test_volt_var_settles_on_the_curve(ratings: Ratings, v_pu: float, share: float) -> None:
    state = after(ratings, at_rest(), told(volt_var=True), seconds=200, v_pu=np.full(2, v_pu))
    assert state.q_var[PV] == pytest.approx(share * RATED_VA, abs=1.0)


def test_volt_var_comes_gradually_and_sleeps_with_the_sun(ratings: Ratings) -> None:
    high = np.full(2, 1.08)
    first = after(ratings, at_rest(), told(volt_var=True), seconds=1, v_pu=high)
    assert -0.1 * RATED_VA < first.q_var[PV] < 0.0
    night = step(ratings, first, told(volt_var=True), high, np.zeros(2), 1.0)
    assert night.q_var[PV] == 0.0


def test_reactive_power_has_priority_within_the_apparent_power(ratings: Ratings) -> None:
    bright = np.array([60e3, 0.0])
    state = after(ratings, at_rest(), told(volt_var=True), seconds=300, sun_w=bright, v_pu=np.full(2, 1.1))
    assert np.hypot(state.p_w[PV], state.q_var[PV]) <= RATED_VA * (1 + 1e-9)
    assert state.p_w[PV] == pytest.approx(RATED_VA * np.sqrt(1 - 0.44**2), rel=1e-3)


def test_a_timer_that_runs_out_reverts_its_function_once() -> None:
    control = Control.off(2)
    control.set(0, enabled=True, value_w=3e3, rvrt_enabled=True, rvrt_value_w=1e3, left_s=10.0)
    control.set(1, enabled=True, value_w=3e3, rvrt_enabled=False, rvrt_value_w=0.0, left_s=np.inf)
    counting, expired = control.counted_down(6.0)
    assert not expired.any()
    np.testing.assert_array_equal(counting.left_s, [4.0, np.inf])
    reverted, expired = counting.counted_down(6.0)
    np.testing.assert_array_equal(expired, [True, False])
    np.testing.assert_array_equal(reverted.enabled, [True, True])
    np.testing.assert_array_equal(reverted.value_w, [1e3, 3e3])
    assert not reverted.counted_down(1e9)[1].any()


@given(
    setpoint_w=st.floats(-1e6, 1e6),
    limit_w=st.floats(0, 1e6),
    soc_frac=st.floats(0.05, 1.0),
    sun_w=st.floats(0, 1e5),
    v_pu=st.floats(0.5, 1.5),
    before_w=st.floats(-RATED_W, RATED_W),
    dt_s=st.sampled_from([0.1, 1.0, 5.0, 60.0]),
)
def test_whatever_it_is_told_a_device_keeps_its_own_limits(
    setpoint_w: float, limit_w: float, soc_frac: float, sun_w: float, v_pu: float, before_w: float, dt_s: float
) -> None:
    plates = Ratings(np.array([False, True]), np.full(2, RATED_W), np.full(2, RATED_VA), np.array([0.0, ENERGY_WH]))
    before = State(np.array([max(before_w, 0.0), before_w]), np.zeros(2), np.array([np.nan, soc_frac]))
    commands = told(setpoint_w=setpoint_w, limit_w=limit_w, volt_var=True)
    available_w = np.array([sun_w, 0.0])
    state = step(plates, before, commands, np.full(2, v_pu), available_w, dt_s)
    low_w, high_w = possible_w(plates, before.soc_frac, available_w, dt_s)
    assert (state.p_w >= low_w).all()
    assert (state.p_w <= high_w).all()
    assert (np.abs(state.p_w) <= RATED_W).all()
    assert (np.abs(state.q_var) <= 0.44 * RATED_VA * (1 + 1e-9)).all()
    assert 0.05 <= state.soc_frac[BATTERY] <= 1.0
