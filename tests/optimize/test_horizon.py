"""The horizon problem: flatter with batteries, feasible whatever the state of charge, never believed when wrong."""

from dataclasses import replace

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.domain.settings import PlanWeights
from derms.errors import PlanError
from derms.forecast.netload import standard_profile
from derms.optimize.aggregate import VirtualBattery
from derms.optimize.horizon import PAST_STEPS, Horizon, HorizonInput, SolverLimits

PEAK_W = 3.6e6
BATTERY = VirtualBattery(
    p_rated_w=0.72e6, energy_wh=1.44e6, energy_min_wh=0.288e6, energy_max_wh=2.736e6, efficiency_frac=0.95
)


def _horizon() -> Horizon:
    return Horizon(steps=96, step_s=900.0, scale_w=PEAK_W, weights=PlanWeights())


def _duck() -> HorizonInput:
    """A spring day from midnight with PV of 60 % of the peak."""
    hours = (np.arange(96) + 0.5) / 4.0
    pv_w = 0.55 * PEAK_W * np.clip(np.sin(np.pi * (hours - 6.4) / 13.0), 0.0, None) ** 1.3
    net_w = standard_profile(PEAK_W) - pv_w
    return HorizonInput(
        net_load_w=net_w,
        pv_w=pv_w,
        past_net_w=np.full(PAST_STEPS, net_w[0]),
        previous_w=np.zeros(96),
        battery=BATTERY,
    )


def _rise_w(net_w: FloatArray) -> float:
    return float((net_w[12:] - net_w[:-12]).max())


def test_the_plan_flattens_peak_and_ramp_of_a_duck_day() -> None:
    given = _duck()
    plan = _horizon().solve(given, SolverLimits())
    assert plan.net_load_w.max() < 0.9 * given.net_load_w.max()
    assert _rise_w(plan.net_load_w) < 0.6 * _rise_w(given.net_load_w)
    assert np.abs(plan.battery_w).max() <= BATTERY.p_rated_w
    assert plan.slack_wh < 100.0


def test_a_second_solve_with_the_same_input_gives_the_same_plan_within_tolerance() -> None:
    horizon, given = _horizon(), _duck()
    first = horizon.solve(given, SolverLimits())
    second = horizon.solve(given, SolverLimits())
    assert np.abs(first.battery_w - second.battery_w).max() < 0.02 * BATTERY.p_rated_w


@pytest.mark.parametrize("energy_wh", [0.0, 0.1e6, 2.88e6])
def test_a_battery_outside_its_bounds_still_gets_a_plan_and_the_slack_is_told(energy_wh: float) -> None:
    plan = _horizon().solve(replace(_duck(), battery=replace(BATTERY, energy_wh=energy_wh)), SolverLimits())
    assert plan.slack_wh > 0.0
    inside = (plan.energy_wh > BATTERY.energy_min_wh - 1e4) & (plan.energy_wh < BATTERY.energy_max_wh + 1e4)
    assert inside[8:].all()


def test_without_batteries_the_plan_is_the_forecast() -> None:
    nothing = replace(BATTERY, p_rated_w=0.0, energy_wh=0.0, energy_min_wh=0.0, energy_max_wh=0.0)
    given = replace(_duck(), battery=nothing, pv_w=np.zeros(96))
    plan = _horizon().solve(given, SolverLimits())
    assert np.abs(plan.battery_w).max() == 0.0
    np.testing.assert_allclose(plan.net_load_w, given.net_load_w)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e12])
def test_absurd_input_is_refused_instead_of_answered_with_the_last_solution(bad: float) -> None:
    horizon, given = _horizon(), _duck()
    horizon.solve(given, SolverLimits())
    spoiled_w = given.net_load_w.copy()
    spoiled_w[17] = bad
    with pytest.raises(PlanError):
        horizon.solve(replace(given, net_load_w=spoiled_w), SolverLimits())


def test_osqp_agrees_with_the_reference_solver() -> None:
    given = _duck()
    osqp = _horizon().solve(given, SolverLimits())
    reference = _horizon().solve(given, SolverLimits(iterations=1))
    assert (osqp.solver, reference.solver) == ("OSQP", "CLARABEL")
    assert osqp.objective == pytest.approx(reference.objective, rel=2e-3)
