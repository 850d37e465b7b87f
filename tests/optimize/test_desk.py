"""What the desk shows can be had: a fleet that is asked for it gives it, for as long, and no independent problem finds
much more."""

from dataclasses import replace
from itertools import pairwise

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derms.domain.arrays import FloatArray
from derms.domain.desk import Answers, Headroom
from derms.domain.settings import PlanWeights
from derms.optimize.desk import headroom
from derms.optimize.fleet import FleetPlan, FleetPlanner
from derms.optimize.portfolio import Portfolio
from derms.optimize.resources import with_sessions
from derms.optimize.share import share
from tests.optimize.territory import territory

STEPS_IN_H = {1.0 / 6.0: 2, 1.0: 12, 4.0: 24}
ALL = Answers(silent_frac=0.0)


def _planned(portfolio: Portfolio) -> FleetPlan:
    scale_w = float(portfolio.feeders.net_load_w.sum(axis=0).max())
    return FleetPlanner(PlanWeights(), scale_w=scale_w, shared_steps=12).plan(portfolio)


def _resting(portfolio: Portfolio) -> FleetPlan:
    """A plan that asks nothing of anybody."""
    plan = _planned(portfolio)
    return replace(
        plan,
        solution=replace(plan.solution, injected_w=0.0 * plan.solution.injected_w),
        shares=replace(plan.shares, power_w=0.0 * plan.shares.power_w, stored_wh=portfolio.checked().devices.stored_wh),
        held_w=0.0 * plan.held_w,
    )


def _total_w(portfolio: Portfolio, plan: FleetPlan, steps: int) -> FloatArray:
    """Power of all stores as the plan has it shared out, shape (steps,)."""
    found = share(plan.solution.injected_w[:, :steps], portfolio.devices, plan.zones.zone, portfolio.hours)
    total_w: FloatArray = found.power_w.sum(axis=0)
    return total_w


def _most_by_an_oracle(portfolio: Portfolio, total_w: FloatArray, way: int) -> float:
    """The greatest constant power beside a course of the fleet, by a linear problem over every store."""
    devices, steps = portfolio.devices, len(total_w)
    hours, efficiency = portfolio.hours[:steps], devices.efficiency_frac[:, None]
    shape = (len(devices), steps)
    charge, discharge, more = cp.Variable(shape, nonneg=True), cp.Variable(shape, nonneg=True), cp.Variable()
    flow = cp.multiply(efficiency, charge) - cp.multiply(1.0 / efficiency, discharge)
    stored = devices.stored_wh[:, None] / 1e3 + cp.cumsum(cp.multiply(hours[None, :], flow), axis=1)
    asked = total_w / 1e3 + way * more
    given_w = cp.sum(discharge - charge, axis=0)
    limits = [
        charge <= devices.charge_max_w / 1e3,
        discharge <= devices.discharge_max_w / 1e3,
        stored >= devices.stored_min_wh[:, None] / 1e3,
        stored <= devices.stored_max_wh[:, None] / 1e3,
        way * given_w >= way * asked,
    ]
    problem = cp.Problem(cp.Maximize(more), limits)
    problem.solve(solver=cp.CLARABEL)
    return 1e3 * max(float(more.value), 0.0)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("way", [1, -1])
def test_a_fleet_that_is_asked_for_what_the_desk_shows_gives_it_for_as_long(seed: int, way: int) -> None:
    portfolio = territory(ders=40, feeders=1, congested=0, seed=seed)
    plan = _planned(portfolio)
    zone = np.zeros(40, dtype=np.intp)
    able_w = float(portfolio.devices.discharge_max_w.sum())
    for offer in headroom(portfolio, plan, answers=ALL).offers:
        steps = STEPS_IN_H[offer.lasting_h]
        beside_w = offer.beside.up_w if way > 0 else offer.beside.down_w
        instead_w = offer.instead.up_w if way > 0 else offer.instead.down_w
        planned_w = _total_w(portfolio, plan, steps)
        for asked_w, without_w in (
            (planned_w + way * beside_w, planned_w),
            (np.full(steps, way * instead_w), np.zeros(steps)),
        ):
            lacking_w, before_w = (
                share(total_w[None, :], portfolio.devices, zone, portfolio.hours).shortfall_w
                for total_w in (asked_w, without_w)
            )
            # A plan that fills stores to the brim falls a little short of itself.
            assert (way * lacking_w).max() <= max((way * before_w).max(), 0.0) + 5e-3 * able_w


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("way", [1, -1])
def test_no_independent_problem_finds_much_more_than_the_desk_shows(seed: int, way: int) -> None:
    portfolio = territory(ders=12, feeders=1, congested=0, seed=seed)
    plan = _planned(portfolio)
    able_w = float(portfolio.devices.discharge_max_w.sum())
    for offer in headroom(portfolio, plan, answers=ALL).offers:
        steps = STEPS_IN_H[offer.lasting_h]
        for reach, total_w in ((offer.beside, _total_w(portfolio, plan, steps)), (offer.instead, np.zeros(steps))):
            told_w = reach.up_w if way > 0 else reach.down_w
            most_w = _most_by_an_oracle(portfolio, total_w, way)
            assert told_w <= most_w + 2e-3 * able_w
            # The oracle burns energy by charging and discharging at once, where that makes room to take more.
            assert told_w >= most_w - (0.01 if steps <= 12 else 0.1) * able_w


def test_without_a_plan_a_store_gives_its_power_or_what_its_energy_lasts_for() -> None:
    portfolio = territory(ders=30, feeders=2, congested=0, seed=5)
    devices = portfolio.devices
    found = headroom(portfolio, _resting(portfolio), answers=ALL)
    for offer in found.offers:
        energy_wh = (devices.stored_wh - devices.stored_min_wh) * devices.efficiency_frac
        room_wh = (devices.stored_max_wh - devices.stored_wh) / devices.efficiency_frac
        up_w = np.minimum(devices.discharge_max_w[:, 0], energy_wh / offer.lasting_h).sum()
        down_w = np.minimum(devices.charge_max_w[:, 0], room_wh / offer.lasting_h).sum()
        assert offer.beside == offer.instead
        np.testing.assert_allclose([offer.instead.up_w, offer.instead.down_w], [up_w, down_w], rtol=1e-9)
        np.testing.assert_allclose([found.energy_up_wh, found.energy_down_wh], [energy_wh.sum(), room_wh.sum()])


def test_a_feeder_gives_no_more_than_its_limits_let_through() -> None:
    portfolio = territory(ders=30, feeders=1, congested=0, seed=2)
    load_w = portfolio.feeders.net_load_w[0]
    tight = replace(
        portfolio.feeders, low_w=np.array([load_w[:24].min() - 20e3]), high_w=np.array([load_w.max() + 9e3])
    )
    found = headroom(replace(portfolio, feeders=tight), _resting(portfolio), answers=ALL)
    by_time = {offer.lasting_h: offer.instead for offer in found.offers}
    for time_h, steps in STEPS_IN_H.items():
        room_w = load_w[:steps].min() - tight.low_w[0]
        assert by_time[time_h].up_w <= room_w * (1.0 + 1e-9)
        assert by_time[time_h].down_w <= (tight.high_w[0] - load_w[:steps].max()) * (1.0 + 1e-9)
    assert by_time[4.0].up_w == pytest.approx(20e3, rel=1e-6)


def test_a_voltage_near_its_limit_leaves_its_feeder_less() -> None:
    portfolio = territory(ders=30, feeders=2, congested=0, seed=2)
    plan = _resting(portfolio)
    rows = portfolio.rows
    mine = rows.feeder == 0
    room = 2e-3
    near = replace(rows, high=np.where(mine, rows.base.max(axis=1) + rows.margin + room, rows.high))
    free, kept = (headroom(given, plan, answers=ALL) for given in (portfolio, replace(portfolio, rows=near)))
    assert 0.0 < kept.offers[0].instead.up_w < 0.9 * free.offers[0].instead.up_w
    assert kept.offers[0].instead.down_w == free.offers[0].instead.down_w


def test_a_car_that_is_due_gives_nothing_of_what_it_needs() -> None:
    portfolio = territory(ders=1, feeders=1, congested=0, seed=1)
    devices = portfolio.devices
    full_wh = devices.stored_max_wh
    leaving = with_sessions(
        replace(devices, stored_wh=full_wh.copy()),
        portfolio.hours,
        device=np.array([0]),
        due_wh=full_wh,
        arrive_h=np.array([0.0]),
        leave_h=np.array([1.0]),
    )
    given = replace(portfolio, devices=leaving)
    offers = headroom(given, _resting(given), answers=ALL).offers
    assert offers[1].instead.up_w == pytest.approx(0.0, abs=1.0)


def _offers(found: Headroom, name: str) -> list[float]:
    return [getattr(offer.beside, name) for offer in found.offers]


def test_longer_is_less_sure_is_less_and_who_is_away_gives_nothing() -> None:
    portfolio = territory(ders=60, feeders=2, congested=0, seed=4)
    plan = _planned(portfolio)
    found = headroom(portfolio, plan)
    for way in ("up", "down"):
        powers_w, sure_w = _offers(found, f"{way}_w"), _offers(found, f"{way}_sure_w")
        assert all(later <= sooner + 1e-3 for sooner, later in pairwise(powers_w))
        assert all(0.0 <= sure <= power for sure, power in zip(sure_w, powers_w, strict=True))
    assert _offers(found, "up_sure_w")[0] > 0.8 * _offers(found, "up_w")[0]
    nobody = replace(portfolio, devices=replace(portfolio.devices, available=np.zeros(60, dtype=np.bool_)))
    away = headroom(nobody, _planned(nobody))
    assert away.energy_up_wh == 0.0
    assert _offers(away, "up_w") == [0.0, 0.0, 0.0]


def test_a_time_beyond_the_horizon_is_not_offered() -> None:
    portfolio = territory(ders=6, feeders=1, congested=0, seed=4)
    found = headroom(portfolio, _planned(portfolio), lasting_h=(1.0, 30.0))
    assert [offer.lasting_h for offer in found.offers] == [1.0]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.floats(0.01, 0.4), st.sampled_from([0.8, 0.95, 0.99]), st.integers(0, 99))
def test_what_is_sure_is_reached_as_often_as_it_says(count: int, silent: float, confidence: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    power_w = rng.uniform(0.0, 10e3, count) ** 2 / 10e3
    sure_w = Answers(silent_frac=silent, confidence_frac=confidence).sure_w(power_w)
    sums_w = (rng.random((2000, count)) >= silent) @ power_w
    reached = (sums_w >= sure_w - 1e-6).mean()
    assert reached >= confidence - 4.0 * np.sqrt(confidence * (1.0 - confidence) / 2000)


def test_for_a_large_fleet_what_is_sure_is_near_the_mean() -> None:
    assert Answers(silent_frac=0.05, confidence_frac=0.95).sure_w(np.full(10_000, 5e3)) > 0.94 * 50e6
    assert Answers(silent_frac=0.0).sure_w(np.full(3, 5e3)) == 15e3
