"""Plans for a fleet: shares add up, limits are kept, garbage is refused, and an independent problem agrees."""

from dataclasses import replace

import cvxpy as cp
import numpy as np
import piqp
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from derms.domain.arrays import FloatArray
from derms.domain.settings import PlanWeights
from derms.errors import PlanError
from derms.optimize.fleet import FleetPlan, FleetPlanner, PlannerState
from derms.optimize.horizon import FleetShape, fleet_form
from derms.optimize.master import Master, Solution
from derms.optimize.portfolio import Desk, Portfolio, Rank
from derms.optimize.share import Fairness, share
from derms.optimize.verify_fleet import check_shares
from derms.optimize.zones import singletons, zoning
from tests.optimize.territory import territory

NOBODY = np.zeros(0, dtype=np.intp)


def _small(**changes: object) -> Portfolio:
    return replace(territory(ders=12, feeders=2, congested=0, seed=3), **changes)  # type: ignore[arg-type]


def _scale(portfolio: Portfolio) -> float:
    return float(portfolio.feeders.net_load_w.sum(axis=0).max())


def _plan(portfolio: Portfolio, weights: PlanWeights | None = None) -> FleetPlan:
    planner = FleetPlanner(weights or PlanWeights(), scale_w=_scale(portfolio), shared_steps=12)
    return planner.plan(portfolio)


def _exact(portfolio: Portfolio) -> Solution:
    master = Master(portfolio, singletons(portfolio), PlanWeights(change=0.0), scale_w=_scale(portfolio))
    return master.solve(portfolio, np.zeros((len(portfolio.rows), len(portfolio.hours))))


def _oracle_peak(portfolio: Portfolio) -> tuple[float, float]:
    """Peak and steepest rise of an independent problem over every device, with all else of no weight [pu]."""
    devices, hours, scale = portfolio.devices, portfolio.hours, _scale(portfolio)
    n, steps = len(devices), len(hours)
    charge, discharge = cp.Variable((n, steps), nonneg=True), cp.Variable((n, steps), nonneg=True)
    flow = charge * 0.0 + cp.multiply(devices.efficiency_frac[:, None], charge)
    flow = flow - cp.multiply(1.0 / devices.efficiency_frac[:, None], discharge)
    stored = devices.stored_wh[:, None] / scale + cp.cumsum(cp.multiply(hours[None, :], flow), axis=1)
    net = portfolio.feeders.net_load_w.sum(axis=0) / scale + cp.sum(charge - discharge, axis=0)
    limits = [
        charge <= devices.charge_max_w / scale,
        discharge <= devices.discharge_max_w / scale,
        stored >= devices.stored_min_wh[:, None] / scale,
        stored <= devices.stored_max_wh[:, None] / scale,
    ]
    problem = cp.Problem(cp.Minimize(cp.max(net)), limits)
    problem.solve(solver=cp.CLARABEL, ignore_dpp=True)
    return float(problem.value), scale


def test_the_exact_problem_finds_the_peak_that_an_independent_one_does() -> None:
    portfolio = _small()
    peak, scale = _oracle_peak(portfolio)
    weights = PlanWeights(peak=1e3, ramp_3h=0.0, ramp=0.0, throughput=0.0, curtail=100.0, change=0.0)
    master = Master(portfolio, singletons(portfolio), weights, scale_w=scale)
    found = master.solve(portfolio, np.zeros((len(portfolio.rows), len(portfolio.hours))))
    assert found.net_w.max() / scale == pytest.approx(peak, abs=1e-4)


def test_a_congested_feeder_is_kept_within_its_limits_with_its_stores_and_the_limits_that_bind_are_named() -> None:
    portfolio = territory(ders=200, feeders=4, congested=4, seed=1)
    plan = _plan(portfolio)
    bare = portfolio.feeders.net_load_w > portfolio.feeders.high_w[:, None]
    flow_w = portfolio.feeders.net_load_w - plan.feeder_w + plan.held_w
    assert bare.any()
    assert (flow_w <= portfolio.feeders.high_w[:, None] * 1.003).all()
    assert plan.agreed
    assert plan.solution.binding
    assert plan.gave_way == ()


@settings(max_examples=15, deadline=None)
@given(st.floats(-3.0, 3.0), st.integers(0, 1000))
def test_no_zone_charges_and_discharges_at_once_at_any_price(price: float, seed: int) -> None:
    portfolio = territory(ders=12, feeders=2, congested=1, seed=seed)
    portfolio = replace(portfolio, price=np.full(len(portfolio.hours), price))
    master = Master(
        portfolio, zoning(portfolio, NOBODY, NOBODY, per_feeder=3), PlanWeights(), scale_w=_scale(portfolio)
    )
    found = master.solve(portfolio, np.zeros((0, len(portfolio.hours))))
    # With both at once the stored energy would fall by more than the net power explains.
    assert _lost_wh(portfolio, master, found) <= 1e-4 * portfolio.devices.stored_max_wh.sum()


def _lost_wh(portfolio: Portfolio, master: Master, found: Solution) -> float:
    devices, zones = portfolio.devices, master.zones
    weight_w = devices.charge_max_w[:, 0]
    efficiency = (zones.total(weight_w * devices.efficiency_frac) / zones.total(weight_w))[:, None]
    power_w = found.injected_w
    flow_w = np.where(power_w > 0.0, -power_w / efficiency, -power_w * efficiency)
    followed_wh: FloatArray = zones.total(devices.stored_wh)[:, None] + np.cumsum(flow_w * portfolio.hours, axis=1)
    return float(np.abs(followed_wh - found.stored_wh).max())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(list(Fairness)), st.floats(0.1, 30.0))
def test_shares_sum_to_the_plan_or_tell_the_shortfall(seed: int, fairness: Fairness, size: float) -> None:
    rng = np.random.default_rng(seed)
    devices = territory(ders=30, feeders=3, congested=0, seed=seed).devices
    wanted_w = size * 1e4 * rng.standard_normal((3, 8))
    hours, devices = np.full(8, 0.25), replace(devices, turn=rng.random(30))
    found = share(wanted_w, devices, devices.feeder, hours, fairness=fairness)
    sums_w = np.array([found.power_w[devices.feeder == zone].sum(axis=0) for zone in range(3)])
    np.testing.assert_allclose(sums_w + found.shortfall_w, wanted_w, atol=1e-6 * size * 1e4)
    assert (np.abs(found.power_w) <= devices.charge_max_w * (1.0 + 1e-9)).all()
    assert (found.stored_wh >= devices.stored_min_wh - 1e-3).all()
    assert (found.stored_wh <= devices.stored_max_wh + 1e-3).all()
    # A shortfall is told only where everybody does all that they can.
    lacking = np.abs(found.shortfall_w) > 1e-6 * size * 1e4
    assert (np.abs(sums_w) <= np.abs(wanted_w) + 1e-3).all()
    assert not (lacking & (np.abs(sums_w) > np.abs(wanted_w))).any()


def test_in_order_the_first_gives_all_before_the_next_gives_any() -> None:
    devices = replace(territory(ders=4, feeders=1, congested=0, seed=1).devices, turn=np.array([3.0, 0.0, 2.0, 1.0]))
    most_w = devices.discharge_max_w[:, 0]
    wanted_w = np.array([[most_w[1] + 0.5 * most_w[3]]])
    found = share(wanted_w, devices, np.zeros(4, dtype=np.intp), np.array([0.25]), fairness=Fairness.IN_ORDER)
    np.testing.assert_allclose(found.power_w[:, 0], [0.0, most_w[1], 0.0, 0.5 * most_w[3]], atol=1e-6)


def test_a_store_that_was_switched_to_another_feeder_counts_there_in_the_next_plan() -> None:
    portfolio = territory(ders=40, feeders=2, congested=2, seed=1)
    planner = FleetPlanner(PlanWeights(), scale_w=_scale(portfolio), shared_steps=12)
    planner.plan(portfolio)
    feeder = portfolio.devices.feeder.copy()
    feeder[:10] = 1 - feeder[:10]
    moved = replace(portfolio, devices=replace(portfolio.devices, feeder=feeder))
    plan = planner.plan(moved)
    blocks = np.append(plan.zones.feeders, -1)[plan.zones.block[plan.zones.zone]]
    assert (blocks[blocks >= 0] == feeder[blocks >= 0]).all()
    by_feeder_w = np.array([plan.shares.power_w[feeder == number].sum(axis=0) for number in range(2)])
    np.testing.assert_allclose(plan.feeder_w[:, :12], by_feeder_w, atol=1e-3)


def test_rows_are_known_by_their_names_wherever_they_stand_in_the_next_portfolio() -> None:
    portfolio = territory(ders=40, feeders=1, congested=1, seed=1)
    planner = FleetPlanner(PlanWeights(), scale_w=_scale(portfolio), shared_steps=12)
    rank = np.full(len(portfolio.rows), Rank.NOT_WORSE.value)
    rows = replace(portfolio.rows, high=portfolio.rows.base.min(axis=1), rank=rank)
    portfolio = replace(portfolio, rows=rows)
    planner.plan(portfolio)
    before = planner.state()
    modelled = {rows.names[row] for row in before.rows}
    assert modelled
    assert len(rows) > 1

    def state_after(chosen: list[int]) -> PlannerState:
        per_row = {name: getattr(rows, name)[chosen] for name in ("feeder", "base", "low", "high", "margin", "rank")}
        names = tuple(rows.names[row] for row in chosen)
        fewer = replace(rows, names=names, per_w=rows.per_w[chosen], per_pv_w=rows.per_pv_w[chosen], **per_row)
        resumed, given = FleetPlanner.resumed(before), replace(portfolio, rows=fewer)
        plan = resumed.plan(given)
        named = {slack.limit for slack in plan.gave_way}
        assert check_shares(given, plan.shares.power_w, plan.held_w, plan.promised_w, named) == []
        return resumed.state()

    turned = state_after(list(range(len(rows)))[::-1])
    assert {turned.row_names[row] for row in turned.rows} >= modelled
    gone = before.rows[0]
    without = state_after([row for row in range(len(rows)) if row != gone])
    assert {without.row_names[row] for row in without.rows} >= modelled - {rows.names[gone]}
    same = state_after(list(range(len(rows))))
    assert same.built is before.built, "what stands where it stood is not built anew"


def _first_step(fairness: Fairness, turn: FloatArray | None = None) -> tuple[Portfolio, FleetPlan]:
    """A plan of which the first step is shared: 60 % of what the fleet can give, on one feeder."""
    portfolio = territory(ders=40, feeders=1, congested=0, seed=1)
    devices = replace(portfolio.devices, turn=turn)
    desk = Desk(hold_w={0: 0.6 * float(devices.discharge_max_w.sum())})
    portfolio = replace(portfolio, devices=devices, desk=desk)
    planner = FleetPlanner(PlanWeights(), scale_w=_scale(portfolio), shared_steps=1, fairness=fairness)
    return portfolio, planner.plan(portfolio)


def test_a_plan_can_be_shared_pro_rata() -> None:
    portfolio, plan = _first_step(Fairness.PRO_RATA)
    part = plan.shares.power_w[:, 0] / portfolio.devices.discharge_max_w[:, 0]
    for number in range(plan.zones.zones):
        assert np.ptp(part[plan.zones.zone == number]) < 1e-6
    assert _faults(portfolio, plan, plan.shares.power_w) == []


def test_a_plan_can_be_shared_last_in_first_out_or_the_cheapest_first() -> None:
    turn = np.random.default_rng(1).permutation(40).astype(np.float64)
    portfolio, plan = _first_step(Fairness.IN_ORDER, turn)
    part = plan.shares.power_w[:, 0] / portfolio.devices.discharge_max_w[:, 0]
    for number in range(plan.zones.zones):
        mine = part[plan.zones.zone == number][np.argsort(turn[plan.zones.zone == number])]
        # Some give all, one the rest, those after it nothing.
        assert (np.diff(mine) <= 1e-9).all()
        assert ((mine > 1e-9) & (mine < 1.0 - 1e-9)).sum() <= 1
    assert _faults(portfolio, plan, plan.shares.power_w) == []


def test_a_plan_in_order_asks_for_the_order() -> None:
    with pytest.raises(PlanError, match="have no turns"):
        _first_step(Fairness.IN_ORDER)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.0, 0.1), st.integers(0, 50))
@example(0.0, 45)  # a feeder without anybody
def test_a_higher_limit_never_makes_the_optimum_worse(more: float, seed: int) -> None:
    portfolio = territory(ders=10, feeders=2, congested=2, seed=seed)
    feeders = portfolio.feeders
    wider = replace(portfolio, feeders=replace(feeders, high_w=feeders.high_w * (1.0 + more)))
    assert _exact(wider).objective <= _exact(portfolio).objective + 1e-5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e12])
@pytest.mark.parametrize("column", ["net_load_w", "pv_w"])
def test_garbage_is_refused_by_the_gate_and_never_a_plan(bad: float, column: str) -> None:
    portfolio = _small()
    values = getattr(portfolio.feeders, column).copy()
    values[0, 7] = bad
    with pytest.raises(PlanError, match=r"not finite|below zero"):
        _plan(replace(portfolio, feeders=replace(portfolio.feeders, **{column: values})))


def test_a_network_row_without_a_value_is_refused_by_the_gate() -> None:
    portfolio = _small()
    per_pv_w = portfolio.rows.per_pv_w.copy()
    per_pv_w[0] = np.inf
    with pytest.raises(PlanError, match="a network row is not finite"):
        _plan(replace(portfolio, rows=replace(portfolio.rows, per_pv_w=per_pv_w)))


def test_a_store_with_swapped_units_or_without_a_value_is_left_alone() -> None:
    portfolio = _small()
    stored_max_wh = portfolio.devices.stored_max_wh.copy()
    stored_max_wh[0] *= 3.6e6  # joules, and more
    stored_wh = portfolio.devices.stored_wh.copy()
    stored_wh[1] = np.nan
    devices = replace(portfolio.devices, stored_max_wh=stored_max_wh, stored_wh=stored_wh)
    plan = _plan(replace(portfolio, devices=devices))
    assert not plan.shares.power_w[:2].any()
    assert plan.shares.power_w[2:].any()


def test_a_solver_that_fails_gives_no_plan_and_not_the_last_one() -> None:
    portfolio = _small()
    master = Master(
        portfolio, zoning(portfolio, NOBODY, NOBODY, per_feeder=3), PlanWeights(), scale_w=_scale(portfolio)
    )
    bias = np.zeros((0, len(portfolio.hours)))
    master.solve(portfolio, bias)
    with pytest.raises(PlanError, match="PIQP_MAX_ITER_REACHED"):
        master.solve(portfolio, bias, iterations=2)
    assert piqp.PIQP_SOLVED != piqp.PIQP_MAX_ITER_REACHED


def test_the_problem_of_a_thousand_zones_is_built_without_the_dense_tensor_of_parameters() -> None:
    """With cvxpy parameters this size asks for 28 GB; the largest matrix here has a few entries in each column."""
    portfolio = territory(ders=1000, feeders=10, congested=0, seed=1)
    zones = singletons(portfolio)
    shape = FleetShape(
        hours=portfolio.hours,
        efficiency_frac=np.full(1000, 0.95),
        power=np.full(1000, 1e-4),
        block=zones.block,
        blocks=10,
        zone_effect=portfolio.rows.per_w[:0],
        pv_effect=portfolio.rows.per_w[:0, :11],
    )
    form = fleet_form(shape, PlanWeights())
    assert form.a.nnz < 20 * len(form.c)
    assert form.p.nnz < 2 * len(form.c)


def test_a_power_held_on_a_feeder_is_held_for_an_hour_and_then_the_schedule_returns() -> None:
    portfolio = territory(ders=40, feeders=2, congested=0, seed=1)
    able_w = portfolio.devices.discharge_max_w[portfolio.devices.feeder == 1].sum()
    held = _plan(replace(portfolio, desk=Desk(hold_w={1: 0.3 * able_w})))
    np.testing.assert_allclose(held.feeder_w[1, :12], 0.3 * able_w, rtol=1e-3)
    assert np.abs(held.feeder_w[1, 12:] - 0.3 * able_w).max() > 0.05 * able_w


def test_in_an_emergency_the_fleet_gives_all_that_it_can() -> None:
    portfolio = territory(ders=40, feeders=2, congested=0, seed=1)
    plan = _plan(replace(portfolio, desk=Desk(emergency=True, hold_h=0.5)))
    able_w = portfolio.devices.discharge_max_w.sum()
    assert plan.feeder_w[:, :3].sum(axis=0).min() > 0.97 * able_w


def test_reserve_is_kept_free() -> None:
    portfolio = territory(ders=40, feeders=2, congested=0, seed=1)
    able_w = float(portfolio.devices.discharge_max_w.sum())
    plan = _plan(replace(portfolio, desk=Desk(reserve_up_w=0.6 * able_w)))
    assert plan.solution.injected_w.sum(axis=0).max() <= 0.401 * able_w


@pytest.mark.parametrize(("up", "down"), [(70.0, 0.0), (0.0, 70.0), (70.0, 70.0)])
def test_a_reserve_beyond_the_fleet_is_kept_as_far_as_it_goes_and_named_and_costs_no_pv(up: float, down: float) -> None:
    portfolio = territory(ders=40, feeders=2, congested=0, seed=1)
    able_w = float(portfolio.devices.discharge_max_w.sum())
    stored_wh = portfolio.devices.stored_max_wh if up else portfolio.devices.stored_min_wh
    full = replace(portfolio, devices=replace(portfolio.devices, stored_wh=stored_wh))
    plan = _plan(replace(full, desk=Desk(reserve_up_w=up * able_w, reserve_down_w=down * able_w)))
    fleet_w = plan.solution.injected_w.sum(axis=0)
    assert (fleet_w.max() <= 1e-3 * able_w) or not up
    assert (fleet_w.min() >= -1e-3 * able_w) or not down
    (slack,) = plan.gave_way
    assert (slack.limit, slack.steps) == ("held reserve", len(portfolio.hours))
    assert slack.most == pytest.approx(69.0 * able_w, rel=0.02)
    assert plan.held_w.sum() == pytest.approx(0.0, abs=1.0)


def test_a_reserve_with_no_battery_there_changes_nothing() -> None:
    portfolio = _small()
    away = replace(portfolio, devices=replace(portfolio.devices, available=np.zeros(12, dtype=np.bool_)))
    plan = _plan(replace(away, desk=Desk(reserve_up_w=5e4)))
    (slack,) = plan.gave_way
    assert slack.limit == "held reserve"
    assert slack.most == pytest.approx(5e4)
    np.testing.assert_allclose(plan.solution.net_w, portfolio.feeders.net_load_w.sum(axis=0), atol=1.0)


def test_a_limit_that_leaves_no_play_has_a_price_that_can_be() -> None:
    """All that batteries can do is held in both directions: their power is pinned at nothing."""
    portfolio = territory(ders=40, feeders=2, congested=0, seed=1)
    devices = portfolio.devices
    up_w, down_w = (float(most_w.sum(axis=0).min()) for most_w in (devices.discharge_max_w, devices.charge_max_w))
    pinned = _plan(replace(portfolio, desk=Desk(reserve_up_w=up_w, reserve_down_w=down_w)))
    nearly = _plan(replace(portfolio, desk=Desk(reserve_up_w=0.98 * up_w, reserve_down_w=0.98 * down_w)))
    (price,), (near,) = pinned.solution.binding, nearly.solution.binding
    assert price.limit == near.limit == "held reserve"
    assert 0.5 * near.per_mw < price.per_mw < 3.0 * near.per_mw


def _faults(portfolio: Portfolio, plan: FleetPlan, power_w: FloatArray) -> list[str]:
    return check_shares(portfolio, power_w, plan.held_w, plan.promised_w, set())


def test_the_verifier_passes_the_planners_shares_and_finds_each_thing_that_is_wrong() -> None:
    portfolio = territory(ders=40, feeders=2, congested=0, seed=1)
    plan = _plan(portfolio)
    power_w = plan.shares.power_w
    assert _faults(portfolio, plan, power_w) == []
    beyond = power_w.copy()
    beyond[3, 2] = 2.0 * portfolio.devices.discharge_max_w[3, 0]
    assert _faults(portfolio, plan, beyond)[0] == "1 stores beyond their power"
    assert any("differ from the plan" in sentence for sentence in _faults(portfolio, plan, beyond))
    assert _faults(portfolio, plan, power_w * np.nan) == ["setpoints that are not finite"]
    tight = replace(portfolio.feeders, high_w=portfolio.feeders.net_load_w.max(axis=1))
    much = -portfolio.devices.charge_max_w * np.ones(12)
    found = _faults(replace(portfolio, feeders=replace(tight, high_w=tight.net_load_w[:, :12].max(axis=1))), plan, much)
    assert any("feeder 0 beyond its limits" in sentence for sentence in found)
