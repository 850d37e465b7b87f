"""Aims that the operator puts first: no weight trades them away, limits and a plan for every state come before them."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linprog

from derms.domain.arrays import FloatArray
from derms.domain.settings import ORDERS, PlanSettings, PlanWeights
from derms.historian.replay import pack, unpack
from derms.optimize.fleet import FleetPlan, FleetPlanner
from derms.optimize.master import KEPT_PU
from derms.optimize.portfolio import Desk, Portfolio
from tests.optimize.states import SCALE_W, measured
from tests.optimize.territory import territory

STEPS, LAG = 24, 3
DEVICES = 6
PEAK_FIRST = PlanSettings(first="peak, ramp_3h").order
RAMP_FIRST = PlanSettings(first="ramp_3h, peak").order
SEEN_PU = 1e-4
"""What the solver, and what follows with next to no weight, may be off."""
NEXT_PU = 10.0 * KEPT_PU
"""What the second aim wins by what the first may be worse."""


def _day() -> Portfolio:
    """A day by the hour with a steep morning and a higher evening, six unlike batteries, and no PV to hold back."""
    bare = territory(ders=DEVICES, feeders=1, congested=0, seed=2)
    hour = np.arange(STEPS) + 0.5
    morning, evening = (np.exp(-(((hour - at) / wide) ** 2)) for at, wide in ((8.0, 1.5), (19.0, 2.5)))
    able_w = float(bare.devices.discharge_max_w.sum())
    net_w = 6.0 * able_w * (0.5 + 0.35 * morning + 0.5 * evening)
    feeders = bare.feeders
    wide = {"low_w": np.full(1, -1e9), "high_w": np.full(1, 1e9)}
    return replace(
        bare,
        devices=replace(bare.devices, efficiency_frac=np.ones(DEVICES)),
        hours=np.ones(STEPS),
        period_h=1.0,
        feeders=replace(feeders, net_load_w=net_w[None], pv_w=np.zeros((1, STEPS)), **wide),
        rows=replace(bare.rows, base=np.ones((len(bare.rows), STEPS))),
        past_net_w=np.full(LAG, net_w[0]),
        previous_w=np.zeros((1, STEPS)),
        price=np.zeros(STEPS),
    )


def _scale_w(given: Portfolio) -> float:
    return float(np.abs(given.feeders.net_load_w.sum(axis=0)).max())


def _plan(given: Portfolio, first: tuple[str, ...] = (), weights: PlanWeights | None = None) -> FleetPlan:
    planner = FleetPlanner(weights or PlanWeights(), scale_w=_scale_w(given), shared_steps=4, first=first)
    return planner.plan(given)


def _reached_pu(given: Portfolio, plan: FleetPlan) -> tuple[float, float]:
    """Peak and steepest rise over three hours of a plan, in per unit of the scale."""
    course_w = np.concatenate([given.past_net_w, plan.solution.net_w])
    rise_w = max(float((course_w[LAG:] - course_w[:-LAG]).max()), 0.0)
    return float(plan.solution.net_w.max()) / _scale_w(given), rise_w / _scale_w(given)


def _exact_pu(given: Portfolio, peak_first: bool) -> tuple[float, float]:
    """Best peak and rise in this order, each store by itself, by two linear programs of another solver."""
    devices, load_w = given.devices, given.feeders.net_load_w[0]
    each = DEVICES * STEPS
    size = 2 * each + 2
    below, most = [], []
    until = np.tril(np.ones((STEPS, STEPS)))
    for store in range(DEVICES):
        course = np.zeros((STEPS, size))
        efficiency = devices.efficiency_frac[store]
        course[:, store * STEPS : (store + 1) * STEPS] = efficiency * until
        course[:, each + store * STEPS : each + (store + 1) * STEPS] = -until / efficiency
        below += [course, -course]
        most += [
            np.full(STEPS, devices.stored_max_wh[store] - devices.stored_wh[store]),
            np.full(STEPS, devices.stored_wh[store] - devices.stored_min_wh[store]),
        ]
    net = np.hstack([np.tile(np.eye(STEPS), DEVICES), -np.tile(np.eye(STEPS), DEVICES), np.zeros((STEPS, 2))])
    before = np.vstack([np.zeros((LAG, size)), net[:-LAG]])
    before_w = np.concatenate([given.past_net_w, load_w[:-LAG]])
    peak, rise = np.zeros(size), np.zeros(size)
    peak[-2] = rise[-1] = 1.0
    below += [net - peak, net - before - rise]
    most += [-load_w, before_w - load_w]
    power_w = [np.repeat(column[:, 0], STEPS) for column in (devices.charge_max_w, devices.discharge_max_w)]
    bounds = [(0.0, limit_w) for limit_w in np.concatenate(power_w)] + [(None, None), (0.0, None)]
    one, other = (peak, rise) if peak_first else (rise, peak)
    best = linprog(one, np.vstack(below), np.concatenate(most), bounds=bounds)
    then = linprog(
        other, np.vstack([*below, one]), np.concatenate([*most, [best.fun + 1e-6 * _scale_w(given)]]), bounds=bounds
    )
    reached: FloatArray = then.x[-2:] / _scale_w(given)
    return float(reached[0]), float(reached[1])


def test_weights_trade_a_peak_for_a_ramp_and_what_comes_first_is_not_traded() -> None:
    given, weights = _day(), PlanWeights(ramp_3h=5.0)
    peak, rise = _reached_pu(given, _plan(given, weights=weights))
    for first, place in ((PEAK_FIRST, 0), (RAMP_FIRST, 1)):
        reached, exact = _reached_pu(given, _plan(given, first, weights)), _exact_pu(given, peak_first=place == 0)
        assert exact[place] - SEEN_PU < reached[place] < exact[place] + KEPT_PU + SEEN_PU
        assert exact[1 - place] - NEXT_PU < reached[1 - place] < exact[1 - place] + KEPT_PU + SEEN_PU
    best_peak, _ = _exact_pu(given, peak_first=True)
    assert peak > best_peak + 20.0 * KEPT_PU
    assert rise < _exact_pu(given, peak_first=True)[1] - 5.0 * KEPT_PU


def test_what_comes_first_alone_leaves_the_other_aim_to_its_weight() -> None:
    given = _day()
    for aim, place in (("peak", 0), ("ramp_3h", 1)):
        weightless = replace(PlanWeights(), **{aim: 0.0})
        alone = _reached_pu(given, _plan(given, (aim,), weightless))
        assert alone[place] < _exact_pu(given, peak_first=place == 0)[place] + KEPT_PU + SEEN_PU


def test_no_other_weight_is_too_heavy_for_what_comes_first() -> None:
    given, heavy = _day(), PlanWeights(ramp_3h=1e4, throughput=1e4, change=1e4)
    assert _reached_pu(given, _plan(given, ("peak",), heavy))[0] < _exact_pu(given, True)[0] + KEPT_PU + SEEN_PU
    assert _reached_pu(given, _plan(given, weights=heavy))[0] > _exact_pu(given, True)[0] + 10.0 * KEPT_PU


@pytest.mark.parametrize("first", [PEAK_FIRST, RAMP_FIRST])
def test_limits_and_an_emergency_come_before_what_comes_first(first: tuple[str, ...]) -> None:
    given = territory(ders=24, feeders=2, congested=2, seed=3)
    assert _plan(given, first).gave_way == ()
    urgent = replace(given, desk=Desk(emergency=True))
    given_w, wanted_w = (_plan(urgent, order).solution.injected_w.sum(axis=0)[:12] for order in (first, ()))
    assert wanted_w.mean() > 0.0
    assert given_w.mean() > 0.999 * wanted_w.mean()


def test_a_plan_with_an_order_is_made_again_bit_by_bit_from_its_record() -> None:
    given = territory(ders=24, feeders=2, congested=2, seed=3)
    planner = FleetPlanner(PlanWeights(), scale_w=_scale_w(given), shared_steps=4, first=PEAK_FIRST)
    planner.plan(given)
    resumed = FleetPlanner.resumed(unpack(pack(planner.state())))
    for later in (given, replace(given, price=np.linspace(-1.0, 1.0, len(given.hours)))):
        again, made = resumed.plan(later), planner.plan(later)
        np.testing.assert_array_equal(again.shares.power_w, made.shares.power_w)
        assert again.solution.objective == made.solution.objective


def test_bounds_of_an_order_are_gone_with_the_plan_that_they_were_made_for() -> None:
    """A lower day is planned in between: its best peak is none that the higher one could keep to."""
    given = _day()
    lower = replace(given, feeders=replace(given.feeders, net_load_w=0.5 * given.feeders.net_load_w))
    planner = FleetPlanner(PlanWeights(), scale_w=_scale_w(given), shared_steps=4, first=PEAK_FIRST)
    before, _, after = (planner.plan(known) for known in (given, lower, given))
    np.testing.assert_array_equal(before.solution.net_w, after.solution.net_w)


def _in_every_order(states: int, seed: int) -> Iterator[FleetPlan]:
    rng, orders = np.random.default_rng(seed), [PlanSettings(first=order).order for order in ORDERS]
    planners = [FleetPlanner(PlanWeights(), scale_w=SCALE_W, shared_steps=4, first=order) for order in orders]
    for number in range(states):
        yield planners[number % len(planners)].plan(measured(rng))


def test_states_that_nobody_would_wish_for_get_a_plan_in_every_order() -> None:
    assert len(list(_in_every_order(4, seed=5))) == 4


@pytest.mark.slow
def test_a_hundred_states_that_nobody_would_wish_for_get_a_plan_in_every_order() -> None:
    assert len(list(_in_every_order(100, seed=6))) == 100
