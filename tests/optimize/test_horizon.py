"""The problem of one feeder's batteries: flatter with them, feasible whatever they hold, never believed when wrong."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from derms.domain.arrays import FloatArray
from derms.domain.settings import PlanWeights
from derms.errors import PlanError
from derms.forecast.climate import standard_profile
from derms.optimize.fleet import FleetPlan, FleetPlanner
from derms.optimize.portfolio import Devices, Feeders, Portfolio, Rank, Rows

PEAK_W = 3.6e6
BATTERIES = 20
EACH_W, EACH_WH = 0.72e6 / BATTERIES, 2.88e6 / BATTERIES


def _planner() -> FleetPlanner:
    return FleetPlanner(PlanWeights(), scale_w=PEAK_W, shared_steps=4)


def _duck(*, soc_frac: float = 0.5) -> Portfolio:
    """A spring day from midnight with PV of 60 % of the peak, and batteries of 20 % of it."""
    hours = (np.arange(96) + 0.5) / 4.0
    pv_w = 0.55 * PEAK_W * np.clip(np.sin(np.pi * (hours - 6.4) / 13.0), 0.0, None) ** 1.3
    net_w = standard_profile(PEAK_W) - pv_w
    each, one, none = np.ones(BATTERIES), np.ones(1), np.zeros(0)
    return Portfolio(
        hours=np.full(96, 0.25),
        devices=Devices(
            feeder=np.zeros(BATTERIES, dtype=np.intp),
            charge_max_w=EACH_W * each[:, None],
            discharge_max_w=EACH_W * each[:, None],
            stored_wh=soc_frac * EACH_WH * each,
            stored_min_wh=0.1 * EACH_WH * each,
            stored_max_wh=0.95 * EACH_WH * each,
            efficiency_frac=0.95 * each,
            available=np.ones(BATTERIES, dtype=np.bool_),
        ),
        feeders=Feeders(
            net_load_w=net_w[None],
            pv_w=pv_w[None],
            low_w=-np.inf * one,
            high_w=np.inf * one,
            rank=np.full(1, Rank.NOT_WORSE.value),
        ),
        rows=Rows(
            names=(),
            feeder=np.zeros(0, dtype=np.intp),
            base=np.zeros((0, 96)),
            low=none,
            high=none,
            margin=none,
            rank=np.zeros(0, dtype=np.intp),
            per_w=csr_array((0, BATTERIES)),
            per_pv_w=none,
        ),
        past_net_w=np.full(12, net_w[0]),
        previous_w=np.zeros((1, 96)),
        price=np.zeros(96),
    )


def _rise_w(net_w: FloatArray) -> float:
    return float((net_w[12:] - net_w[:-12]).max())


def _powers(plan: FleetPlan) -> FloatArray:
    total_w: FloatArray = plan.solution.injected_w.sum(axis=0)
    return total_w


def test_the_plan_flattens_peak_and_ramp_of_a_duck_day() -> None:
    given = _duck()
    plan = _planner().plan(given)
    before_w = given.feeders.net_load_w[0]
    assert plan.solution.net_w.max() < 0.9 * before_w.max()
    assert _rise_w(plan.solution.net_w) < 0.6 * _rise_w(before_w)
    assert np.abs(_powers(plan)).max() <= BATTERIES * EACH_W * (1.0 + 1e-9)
    assert plan.gave_way == ()


def test_a_second_solve_with_the_same_input_gives_the_same_plan_bit_by_bit() -> None:
    planner, given = _planner(), _duck()
    first, second = planner.plan(given), planner.plan(given)
    np.testing.assert_array_equal(_powers(first), _powers(second))


@pytest.mark.parametrize("soc_frac", [0.0, 0.03, 1.0])
def test_batteries_outside_their_bounds_still_get_a_plan_and_what_gave_way_is_told(soc_frac: float) -> None:
    plan = _planner().plan(_duck(soc_frac=soc_frac))
    assert any("state of charge" in slack.limit for slack in plan.gave_way)
    stored_wh = plan.solution.stored_wh.sum(axis=0)
    whole_wh = BATTERIES * EACH_WH
    assert ((stored_wh > 0.1 * whole_wh - 1e4) & (stored_wh < 0.95 * whole_wh + 1e4))[16:].all()


def test_without_batteries_the_plan_is_the_forecast() -> None:
    given = _duck()
    nobody = replace(given.devices, available=np.zeros(BATTERIES, dtype=np.bool_))
    dark = replace(given.feeders, pv_w=np.zeros((1, 96)))
    plan = _planner().plan(replace(given, devices=nobody, feeders=dark))
    assert np.abs(_powers(plan)).max() == 0.0
    np.testing.assert_allclose(plan.solution.net_w, given.feeders.net_load_w[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e12])
def test_absurd_input_is_refused_instead_of_answered_with_the_last_solution(bad: float) -> None:
    planner, given = _planner(), _duck()
    planner.plan(given)
    spoiled_w = given.feeders.net_load_w.copy()
    spoiled_w[0, 17] = bad
    with pytest.raises(PlanError):
        planner.plan(replace(given, feeders=replace(given.feeders, net_load_w=spoiled_w)))


def test_a_solver_that_is_stopped_too_early_gives_no_plan() -> None:
    planner, given = _planner(), _duck()
    planner.plan(given)
    with pytest.raises(PlanError, match=r"PIQP.*Clarabel"):
        planner.plan(given, iterations=2)


def test_a_plan_that_comes_too_late_is_none() -> None:
    with pytest.raises(PlanError, match="in time, after 1 rounds"):
        _planner().plan(_duck(), late=lambda: True)
