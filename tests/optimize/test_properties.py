"""What holds for any fleet, price and state: one direction at a time, sums as planned, more room never worse, and no
plan from garbage."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derms.domain.arrays import FloatArray
from derms.domain.settings import PlanWeights
from derms.errors import PlanError
from derms.optimize.fleet import FleetPlan, FleetPlanner
from derms.optimize.master import BOTH_MAX_FRAC, Master, Solution
from derms.optimize.portfolio import Desk, Portfolio
from derms.optimize.share import Fairness
from derms.optimize.verify_fleet import check_shares
from derms.optimize.zones import Zoning, singletons, stores, zoning
from tests.optimize.states import measured
from tests.optimize.territory import territory

SHARED = 12
NOBODY = np.zeros(0, dtype=np.intp)
OBJECTIVE_TOLERANCE = 1e-5

slow = pytest.mark.slow


def _scale(portfolio: Portfolio) -> float:
    return float(np.abs(portfolio.feeders.net_load_w.sum(axis=0)).max())


def _planned(portfolio: Portfolio, fairness: Fairness = Fairness.TIME_TO_GO) -> FleetPlan:
    planner = FleetPlanner(PlanWeights(), scale_w=_scale(portfolio), shared_steps=SHARED, fairness=fairness)
    return planner.plan(portfolio)


def _solved(portfolio: Portfolio, zones: Zoning, weights: PlanWeights) -> Solution:
    given = portfolio.checked()
    master = Master(given, zones, weights, scale_w=_scale(portfolio))
    return master.solve(given, np.zeros((len(zones.rows), len(given.hours))))


def _burnt_frac(portfolio: Portfolio, zones: Zoning, found: Solution) -> FloatArray:
    """Power that each zone takes and gives at once, told from energy that is lost more than by the net power, as a
    share of the zone's power, shape (zones, steps)."""
    now = stores(portfolio, zones)
    efficiency, power_w = now.efficiency_frac[:, None], found.injected_w
    course_wh = np.hstack([now.stored_wh[:, None], found.stored_wh])
    explained_wh = np.maximum(power_w / efficiency, power_w * efficiency) * portfolio.hours
    lost_w = (-np.diff(course_wh, axis=1) - explained_wh) / portfolio.hours / (1.0 / efficiency - efficiency)
    burnt: FloatArray = lost_w / now.power_w[:, None]
    return burnt


@slow
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([-300.0, -30.0, -3.0, -0.3, 0.3, 30.0]),
    st.integers(0, 1000),
    st.booleans(),
    st.sampled_from([0.0, 1.0]),
)
def test_no_store_charges_and_discharges_at_once_at_any_price_that_comes_and_goes(
    most: float, seed: int, exact: bool, wear: float
) -> None:
    rng = np.random.default_rng(seed)
    portfolio = territory(ders=10, feeders=2, congested=int(rng.integers(0, 3)), seed=seed)
    portfolio = replace(portfolio, price=most * rng.uniform(-0.2, 1.0, len(portfolio.hours)))
    zones = singletons(portfolio) if exact else zoning(portfolio, NOBODY, NOBODY, per_feeder=3)
    found = _solved(portfolio, zones, PlanWeights(throughput=wear))
    # Beside the tolerance of the planner there is that of its solver, which the scale of the system sets.
    solver_frac = 1e-5 * _scale(portfolio) / stores(portfolio, zones).power_w.min()
    assert _burnt_frac(portfolio, zones, found).max() <= BOTH_MAX_FRAC + solver_frac


@slow
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(list(Fairness)))
def test_setpoints_sum_to_the_plan_of_their_zone_or_the_shortfall_is_told_and_no_store_there_had_more(
    seed: int, fairness: Fairness
) -> None:
    rng = np.random.default_rng(seed)
    portfolio = measured(rng)
    portfolio = replace(portfolio, devices=replace(portfolio.devices, turn=rng.random(len(portfolio.devices))))
    believed, plan = portfolio.checked(), _planned(portfolio, fairness)
    devices, shares, zone = believed.devices, plan.shares, plan.zones.zone
    sums_w = plan.zones.total(shares.power_w)
    able_w = float(devices.discharge_max_w.sum()) + 1.0
    wanted_w = plan.solution.injected_w[:, :SHARED]
    np.testing.assert_allclose(sums_w + shares.shortfall_w, wanted_w, atol=1e-9 * able_w)
    np.testing.assert_allclose(shares.power_w.sum(axis=0), plan.promised_w, atol=1e-9 * able_w)
    assert check_shares(believed, shares.power_w, plan.held_w, plan.promised_w, {s.limit for s in plan.gave_way}) == []
    course_wh = devices.stored_wh[:, None] - np.cumsum(
        np.maximum(shares.power_w / devices.efficiency_frac[:, None], shares.power_w * devices.efficiency_frac[:, None])
        * believed.hours[:SHARED],
        axis=1,
    )
    lacking = (np.abs(shares.shortfall_w) > 1e-4 * able_w)[zone]
    gives = (wanted_w > 0.0)[zone]
    most_w = np.where(gives, devices.discharge_max_w, devices.charge_max_w)
    at_most = np.abs(shares.power_w) >= most_w * (1.0 - 1e-6) - 1.0
    at_end = np.where(
        gives, course_wh <= devices.stored_min_wh[:, None] + 1.0, course_wh >= devices.stored_max_wh[:, None] - 1.0
    )
    assert (at_most | at_end)[lacking].all()


def _higher_thermal(portfolio: Portfolio, more: float) -> Portfolio:
    return replace(portfolio, feeders=replace(portfolio.feeders, high_w=portfolio.feeders.high_w * (1.0 + more)))


def _more_reverse(portfolio: Portfolio, more: float) -> Portfolio:
    return replace(portfolio, feeders=replace(portfolio.feeders, low_w=portfolio.feeders.low_w * (1.0 + more)))


def _wider_rows(portfolio: Portfolio, more: float) -> Portfolio:
    rows = portfolio.rows
    return replace(portfolio, rows=replace(rows, low=rows.low - 0.1 * more, high=rows.high + 0.1 * more))


def _less_margin(portfolio: Portfolio, more: float) -> Portfolio:
    return replace(portfolio, rows=replace(portfolio.rows, margin=portfolio.rows.margin * (1.0 - more)))


def _less_reserve(portfolio: Portfolio, more: float) -> Portfolio:
    desk = portfolio.desk
    return replace(
        portfolio,
        desk=replace(
            desk, reserve_up_w=desk.reserve_up_w * (1.0 - more), reserve_down_w=desk.reserve_down_w * (1 - more)
        ),
    )


def _faster_ramp(portfolio: Portfolio, more: float) -> Portfolio:
    return replace(portfolio, desk=replace(portfolio.desk, ramp_w_per_h=portfolio.desk.ramp_w_per_h * (1.0 + more)))


def _more_power(portfolio: Portfolio, more: float) -> Portfolio:
    devices = portfolio.devices
    return replace(
        portfolio,
        devices=replace(
            devices,
            charge_max_w=devices.charge_max_w * (1.0 + more),
            discharge_max_w=devices.discharge_max_w * (1.0 + more),
        ),
    )


def _more_room(portfolio: Portfolio, more: float) -> Portfolio:
    devices = portfolio.devices
    return replace(portfolio, devices=replace(devices, stored_max_wh=devices.stored_max_wh * (1.0 + more)))


WIDER: tuple[Callable[[Portfolio, float], Portfolio], ...] = (
    _higher_thermal,
    _more_reverse,
    _wider_rows,
    _less_margin,
    _less_reserve,
    _faster_ramp,
    _more_power,
    _more_room,
)


@slow
@settings(max_examples=40, deadline=None)
@given(st.sampled_from(WIDER), st.floats(0.0, 0.5), st.integers(0, 500))
def test_more_room_in_any_limit_never_makes_the_optimum_worse(
    wider: Callable[[Portfolio, float], Portfolio], more: float, seed: int
) -> None:
    portfolio = territory(ders=10, feeders=2, congested=2, seed=seed)
    able_w = float(portfolio.devices.discharge_max_w.sum())
    desk = Desk(reserve_up_w=0.4 * able_w, reserve_down_w=0.3 * able_w, ramp_w_per_h=0.5 * able_w)
    portfolio = replace(portfolio, desk=desk)
    # The spread is priced by shares of the stores' power, which is another where they have more.
    weights = PlanWeights(change=0.0, spread=0.0)
    roomy = wider(portfolio, more)
    scale_w = _scale(portfolio)
    objectives = []
    for known in (portfolio, roomy):
        master = Master(known, singletons(known), weights, scale_w=scale_w)
        objectives.append(master.solve(known, np.zeros((len(known.rows), len(known.hours)))).objective)
    assert objectives[1] <= objectives[0] + OBJECTIVE_TOLERANCE


NUMBERS = (np.nan, np.inf, -np.inf, 1e12, -1e12)
SYSTEM = (
    "hours",
    "past_net_w",
    "previous_w",
    "price",
    "feeders.net_load_w",
    "feeders.pv_w",
    "rows.base",
    "rows.margin",
)
STORE = ("charge_max_w", "discharge_max_w", "stored_wh", "stored_min_wh", "stored_max_wh", "efficiency_frac")


def _with(portfolio: Any, path: str, change: Callable[[FloatArray], FloatArray]) -> Any:
    first, _, rest = path.partition(".")
    value = getattr(portfolio, first)
    return replace(portfolio, **{first: _with(value, rest, change) if rest else change(value)})


def _put(values: FloatArray, seed: int, number: float) -> FloatArray:
    changed = np.array(values)
    changed.flat[seed % changed.size] = number
    return changed


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(SYSTEM), st.sampled_from(NUMBERS), st.integers(0, 10_000))
def test_garbage_of_the_system_is_refused_wherever_it_stands(path: str, number: float, seed: int) -> None:
    portfolio = _with(territory(ders=12, feeders=2, congested=1, seed=3), path, partial(_put, seed=seed, number=number))
    with pytest.raises(PlanError, match="no plan"):
        _planned(portfolio)


@slow
@settings(max_examples=40, deadline=None)
@given(st.sampled_from(STORE), st.sampled_from(NUMBERS), st.integers(0, 11))
def test_a_store_with_garbage_is_never_commanded_and_the_others_are(column: str, number: float, store: int) -> None:
    portfolio = territory(ders=12, feeders=2, congested=1, seed=3)
    plan = _planned(_with(portfolio, f"devices.{column}", partial(_put, seed=store, number=number)))
    assert not plan.shares.power_w[store].any()
    assert np.delete(plan.shares.power_w, store, axis=0).any()
    assert np.isfinite(plan.shares.power_w).all()


@slow
@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(
        [
            (("charge_max_w", "discharge_max_w"), 1e-3),  # kW
            (("stored_wh", "stored_min_wh", "stored_max_wh"), 3600.0),  # J
            (("stored_max_wh",), 1e-3),  # kWh
            (("stored_wh",), 1e3),  # mWh
            (("efficiency_frac",), 100.0),  # %
        ]
    ),
    st.integers(0, 11),
)
def test_a_store_in_swapped_units_is_never_commanded(swapped: tuple[tuple[str, ...], float], store: int) -> None:
    portfolio = territory(ders=12, feeders=2, congested=1, seed=3)
    columns, factor = swapped
    for column in columns:
        wrong = factor * float(getattr(portfolio.devices, column).flat[store])
        portfolio = _with(portfolio, f"devices.{column}", partial(_put, seed=store, number=wrong))
    plan = _planned(portfolio)
    assert not plan.shares.power_w[store].any()
    assert np.delete(plan.shares.power_w, store, axis=0).any()
