"""Energy that is due: cars leave with it, loads that wait are served in time, aggregators stay in their envelopes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from derms.domain.arrays import FloatArray
from derms.domain.settings import PlanWeights
from derms.errors import PlanError
from derms.optimize.envelopes import course, within_envelopes
from derms.optimize.fleet import FleetPlan, FleetPlanner, energy_due
from derms.optimize.portfolio import Desk, Devices, Envelopes, Portfolio, Sites
from derms.optimize.resources import aggregators, joined, waiting_loads, with_sessions
from derms.optimize.share import Fairness, share
from derms.optimize.verify_fleet import check_shares
from derms.optimize.zones import due_h, zoning
from tests.optimize.territory import HOURS, territory

STEPS = len(HOURS)
ENDS_H = np.cumsum(HOURS)
CHARGER_W = 7e3
ONE_FEEDER = np.zeros(0, dtype=np.intp)


def _with(devices: Devices, seed: int = 1) -> Portfolio:
    """A territory whose stores are these, all of them on feeders that meet no limit."""
    portfolio = territory(ders=4, feeders=2, congested=0, seed=seed)
    rows = replace(portfolio.rows, per_w=csr_array((len(portfolio.rows), len(devices))))
    return replace(portfolio, devices=devices, rows=rows)


def _cars(
    *, due_wh: FloatArray, arrive_h: FloatArray, leave_h: FloatArray, stored_wh: float = 20e3, back_w: float = 0.0
) -> Devices:
    """Cars with 60 kWh at chargers of 7 kW, on two feeders in turn."""
    count = len(due_wh)
    stores = Devices(
        feeder=np.arange(count) % 2,
        charge_max_w=np.full((count, 1), CHARGER_W),
        discharge_max_w=np.full((count, 1), back_w),
        stored_wh=np.full(count, stored_wh),
        stored_min_wh=np.full(count, 6e3),
        stored_max_wh=np.full(count, 60e3),
        efficiency_frac=np.full(count, 0.93),
        available=np.ones(count, dtype=np.bool_),
    )
    return with_sessions(stores, HOURS, device=np.arange(count), due_wh=due_wh, arrive_h=arrive_h, leave_h=leave_h)


def _some_cars(seed: int, *, count: int = 12, hurry: float = 0.9, back_w: float = 0.0) -> Devices:
    """Cars that come and go at random; each could have up to `hurry` of what its time allows."""
    rng = np.random.default_rng(seed)
    arrive_h = np.where(rng.random(count) < 0.5, 0.0, rng.uniform(0.0, 6.0, count))
    leave_h = arrive_h + rng.uniform(0.5, 12.0, count)
    most_wh = 0.93 * CHARGER_W * np.maximum(leave_h - arrive_h - 0.5, 0.0)
    due_wh = np.minimum(20e3 + rng.uniform(0.1, hurry, count) * most_wh, 59e3)
    return _cars(due_wh=due_wh, arrive_h=arrive_h, leave_h=leave_h, back_w=back_w)


def _scale(portfolio: Portfolio) -> float:
    return float(portfolio.feeders.net_load_w.sum(axis=0).max())


def _plan(portfolio: Portfolio, shared: int = STEPS) -> FleetPlan:
    return FleetPlanner(PlanWeights(change=0.0), scale_w=_scale(portfolio), shared_steps=shared).plan(portfolio)


def _faults(portfolio: Portfolio, plan: FleetPlan, power_w: FloatArray | None = None) -> list[str]:
    named = {slack.limit for slack in plan.gave_way}
    shown_w = plan.shares.power_w if power_w is None else power_w
    return check_shares(portfolio.checked(), shown_w, plan.held_w, plan.promised_w, named)


def _followed_wh(devices: Devices, power_w: FloatArray) -> FloatArray:
    """Energy at the end of each step, by the definition of efficiency."""
    efficiency = devices.efficiency_frac[:, None]
    rise_w = np.maximum(-power_w, 0.0) * efficiency - np.maximum(power_w, 0.0) / efficiency
    followed: FloatArray = devices.stored_wh[:, None] + np.cumsum(rise_w * HOURS[: power_w.shape[1]], axis=1)
    return followed


def test_a_car_leaves_with_the_energy_that_is_due_and_has_no_power_before_it_comes_and_after() -> None:
    cars = _cars(due_wh=np.array([40e3, 45e3]), arrive_h=np.array([0.0, 3.1]), leave_h=np.array([5.0, 13.4]))
    portfolio = _with(cars)
    plan = _plan(portfolio)
    stored_wh = _followed_wh(cars, plan.shares.power_w)
    begins_h = ENDS_H - HOURS
    assert stored_wh[0, ENDS_H <= 5.0][-1] >= 40e3 - 1.0
    assert stored_wh[1, ENDS_H <= 13.4][-1] >= 45e3 - 1.0
    assert not plan.shares.power_w[0, ENDS_H > 5.0 + 1e-9].any()
    assert not plan.shares.power_w[1, (begins_h < 3.1) | (ENDS_H > 13.4)].any()
    assert plan.gave_way == ()
    assert _faults(portfolio, plan) == []


def test_a_car_that_leaves_after_the_horizon_is_so_far_at_its_end_that_the_rest_can_follow() -> None:
    end_h = float(ENDS_H[-1])
    cars = _cars(due_wh=np.array([55e3]), arrive_h=np.array([end_h - 3.0]), leave_h=np.array([end_h + 3.0]))
    plan = _plan(_with(cars))
    reached_wh = _followed_wh(cars, plan.shares.power_w)[0, -1]
    assert reached_wh + 0.93 * CHARGER_W * 3.0 >= 55e3 - 1.0


def test_a_car_that_cannot_have_it_any_more_charges_at_full_power_and_is_named_with_what_is_missing() -> None:
    cars = _cars(due_wh=np.array([30e3, 58e3]), arrive_h=np.zeros(2), leave_h=np.array([9.0, 3.0]))
    portfolio = _with(cars)
    plan = _plan(portfolio)
    named = {slack.limit: slack.most for slack in plan.gave_way}
    assert set(named) == {energy_due(1)}
    assert named[energy_due(1)] == pytest.approx(58e3 - 20e3 - 3.0 * 0.93 * CHARGER_W)
    np.testing.assert_allclose(plan.shares.power_w[1, ENDS_H <= 3.0], -CHARGER_W, rtol=1e-6)
    assert _faults(portfolio, plan) == []


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([Fairness.TIME_TO_GO, Fairness.PRO_RATA]), st.floats(-2.0, 2.0))
def test_whatever_is_planned_no_store_misses_energy_that_is_due_while_that_is_possible(
    seed: int, fairness: Fairness, size: float
) -> None:
    cars = _some_cars(seed, hurry=1.3, back_w=CHARGER_W)
    rng = np.random.default_rng(seed)
    wanted_w = size * 12 * CHARGER_W * rng.uniform(-1.0, 1.0, (3, STEPS))
    narrowed, missing_wh = within_envelopes(cars, HOURS)
    zone = np.arange(12) % 3
    found = share(wanted_w, narrowed, zone, HOURS, fairness=fairness)
    portfolio = _with(cars)
    named = {energy_due(int(store)) for store in np.flatnonzero(missing_wh > 1.0)}
    wrong = check_shares(portfolio, found.power_w, 0.0 * portfolio.feeders.pv_w, found.power_w.sum(axis=0), named)
    assert not [sentence for sentence in wrong if "stores" in sentence]
    # The shortfall, with its sign, is all that the shares differ by from the plan.
    sums_w = np.array([found.power_w[zone == number].sum(axis=0) for number in range(3)])
    np.testing.assert_allclose(sums_w + found.shortfall_w, wanted_w, atol=1e-3)


def test_cars_in_no_hurry_take_what_is_planned_and_those_in_a_hurry_take_it_first() -> None:
    """Two are due soon, two late, one of them with less in its battery than anybody could ask for."""
    cars = _cars(
        due_wh=np.array([40e3, 40e3, 40e3, 7e3]), arrive_h=np.zeros(4), leave_h=np.array([4.0, 4.0, 20.0, 24.0])
    )
    narrowed, _ = within_envelopes(cars, HOURS)
    for wanted_w in (2.0 * CHARGER_W, 4.0 * CHARGER_W):
        found = share(np.full((1, 1), -wanted_w), narrowed, np.zeros(4, dtype=np.intp), HOURS)
        assert not np.abs(found.shortfall_w).max() > 1e-3
        np.testing.assert_allclose(found.power_w[:2, 0], -CHARGER_W, rtol=1e-6)


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.0, CHARGER_W]))
def test_plans_for_many_cars_pass_the_verifier_an_hour_and_a_day_ahead(seed: int, back_w: float) -> None:
    portfolio = _with(_some_cars(seed, count=30, hurry=1.1, back_w=back_w))
    for shared in (12, STEPS):
        assert _faults(portfolio, _plan(portfolio, shared)) == []


def test_cars_behind_a_connection_that_is_too_small_for_both_are_named_and_share_it() -> None:
    cars = _cars(due_wh=np.array([45e3, 45e3]), arrive_h=np.zeros(2), leave_h=np.full(2, 6.0))
    site = Sites(
        site=np.zeros(2, dtype=np.intp),
        load_w=np.full((1, STEPS), 1e3),
        pv_w=np.zeros((1, STEPS)),
        import_max_w=np.array([7e3]),
        export_max_w=np.array([7e3]),
        inverter=np.full(2, -1),
        inverter_pv_w=np.zeros((0, STEPS)),
        inverter_max_w=np.zeros(0),
        backup_wh=np.zeros(2),
        solar_only=np.zeros(2, dtype=np.bool_),
    )
    portfolio = replace(_with(cars), sites=site)
    plan = _plan(portfolio)
    missing_wh = 25e3 - 6.0 * 0.93 * 3e3
    assert {slack.limit: slack.most for slack in plan.gave_way} == {
        energy_due(car): pytest.approx(missing_wh) for car in range(2)
    }
    np.testing.assert_allclose(plan.shares.power_w[:, ENDS_H <= 6.0], -3e3, rtol=1e-6)
    assert _faults(portfolio, plan) == []


def test_the_verifier_finds_a_car_that_waits_too_long_and_one_that_nobody_says_will_miss() -> None:
    cars = _cars(due_wh=np.array([32e3, 58e3]), arrive_h=np.zeros(2), leave_h=np.array([2.0, 3.0]))
    portfolio = _with(cars)
    plan = _plan(portfolio, 12)
    late_w = plan.shares.power_w.copy()
    late_w[0] = 0.0
    assert "1 stores miss energy that is due and need not" in _faults(portfolio, plan, late_w)
    silent = replace(plan, gave_way=())
    assert "1 stores cannot keep to their envelope, and nobody says so" in _faults(portfolio, silent)


def test_a_load_that_waits_through_the_evening_is_served_in_time_with_its_rebound() -> None:
    load_w = np.full((6, STEPS), 2e3)
    loads = waiting_loads(
        HOURS,
        feeder=np.arange(6) % 2,
        load_w=load_w,
        rated_w=np.full(6, 4e3),
        wait_max_wh=np.full(6, 3e3),
        waiting_wh=np.full(6, 500.0),
        rebound_frac=np.full(6, 1.25),
        due_h=np.full(6, 9.0),
        available=np.ones(6, dtype=np.bool_),
    )
    portfolio = _with(loads)
    plan = _plan(portfolio)
    power_w, until = plan.shares.power_w, ENDS_H <= 9.0
    waited_wh = 500.0 + (np.maximum(power_w, 0.0) * HOURS)[:, until].sum(axis=1)
    served_wh = (np.maximum(-power_w, 0.0) * HOURS)[:, until].sum(axis=1)
    assert waited_wh.min() > 1e3
    np.testing.assert_allclose(served_wh, 1.25 * waited_wh, rtol=1e-3)
    assert (power_w <= load_w + 1e-6).all()
    assert (load_w - power_w <= 4e3 + 1e-6).all()
    assert _faults(portfolio, plan) == []


def _aggregators() -> tuple[Devices, FloatArray]:
    """One on each of two feeders, whose energy has to be low at four hours and high at ten."""
    low_wh, high_wh = np.full((2, STEPS), 10e3), np.full((2, STEPS), 90e3)
    low_wh[:, ENDS_H == 10.0], high_wh[:, ENDS_H == 4.0] = 80e3, 30e3
    return aggregators(
        HOURS,
        feeder=np.arange(2),
        least_w=np.full((2, STEPS), -20e3),
        most_w=np.full((2, STEPS), 15e3),
        stored_wh=np.full(2, 50e3),
        least_wh=low_wh,
        most_wh=high_wh,
        efficiency_frac=np.full(2, 0.95),
        available=np.ones(2, dtype=np.bool_),
    )


def test_an_aggregator_is_one_store_whose_power_and_energy_stay_in_its_envelope() -> None:
    stores, base_w = _aggregators()
    assert not base_w.any()
    portfolio = _with(stores)
    plan = _plan(portfolio)
    stored_wh = _followed_wh(stores, plan.shares.power_w)
    assert (stored_wh[:, ENDS_H == 4.0] <= 30e3 + 1.0).all()
    assert (stored_wh[:, ENDS_H == 10.0] >= 80e3 - 1.0).all()
    assert plan.shares.power_w.max() <= 15e3 + 1e-3
    assert plan.shares.power_w.min() >= -20e3 - 1e-3
    assert plan.gave_way == ()
    assert _faults(portfolio, plan) == []


def test_what_an_aggregator_must_draw_at_least_is_its_base_and_its_energy_counts_both() -> None:
    stores, base_w = aggregators(
        HOURS,
        feeder=np.arange(2),
        least_w=np.full((2, STEPS), -20e3),
        most_w=np.full((2, STEPS), -1e3),
        stored_wh=np.full(2, 20e3),
        least_wh=np.where(ENDS_H >= 10.0, 55e3, 0.0) * np.ones((2, 1)),
        most_wh=np.full((2, STEPS), 90e3),
        efficiency_frac=np.full(2, 0.95),
        available=np.ones(2, dtype=np.bool_),
    )
    np.testing.assert_array_equal(base_w, -1e3)
    plan = _plan(_with(stores))
    setpoint_w = base_w + plan.shares.power_w
    assert (setpoint_w <= -1e3 + 1e-6).all()
    assert (setpoint_w >= -20e3 - 1e-6).all()
    stored_wh = 20e3 + np.cumsum(-0.95 * setpoint_w * HOURS, axis=1)
    assert (stored_wh[:, ENDS_H >= 10.0] >= 55e3 - 1.0).all()
    assert (stored_wh <= 90e3 + 1.0).all()


def test_batteries_cars_loads_and_aggregators_are_planned_together() -> None:
    cars, (held, _) = _some_cars(4), _aggregators()
    batteries = territory(ders=20, feeders=2, congested=0, seed=2).devices
    together = joined([batteries, cars, held], STEPS)
    portfolio = _with(together)
    plan = _plan(portfolio, 12)
    assert together.envelopes is not None
    np.testing.assert_array_equal(together.envelopes.device, np.arange(20, 34))
    assert _faults(portfolio, plan) == []
    # Stores with envelopes have zones of their own.
    bound = set(plan.zones.zone[20:])
    assert not bound & set(plan.zones.zone[:20])


def test_cars_of_one_zone_leave_at_about_the_same_time() -> None:
    leave_h = np.repeat([3.0, 8.0, 16.0], 20)
    cars = _cars(due_wh=np.full(60, 30e3), arrive_h=np.zeros(60), leave_h=leave_h)
    zones = zoning(_with(cars), ONE_FEEDER, ONE_FEEDER, per_feeder=2)
    for number in range(zones.zones):
        assert np.ptp(leave_h[zones.zone == number]) == 0.0


def test_zones_are_made_anew_when_other_cars_have_come() -> None:
    early, late = np.repeat([2.0, 14.0], 20), np.tile([2.0, 14.0], 20)
    planner = FleetPlanner(PlanWeights(change=0.0), scale_w=1e6, shared_steps=12)
    for leave_h in (early, late):
        cars = _cars(due_wh=np.full(40, 30e3), arrive_h=np.zeros(40), leave_h=leave_h)
        plan = planner.plan(_with(cars))
        for number in range(plan.zones.zones):
            assert np.ptp(leave_h[plan.zones.zone == number]) == 0.0
    fewer = _cars(due_wh=np.full(10, 30e3), arrive_h=np.zeros(10), leave_h=np.full(10, 5.0))
    assert len(planner.plan(_with(fewer)).shares.power_w) == 10


def test_in_an_emergency_no_car_charges_and_those_that_will_miss_are_named() -> None:
    cars = _cars(due_wh=np.array([32e3, 24e3]), arrive_h=np.zeros(2), leave_h=np.array([2.0, 9.0]))
    portfolio = replace(_with(cars), desk=Desk(emergency=True, hold_h=1.0))
    plan = _plan(portfolio, 12)
    assert not plan.shares.power_w.any()
    assert [slack.limit for slack in plan.gave_way] == [energy_due(0)]
    assert _faults(portfolio, plan) == []


def test_an_emergency_finds_a_plan_with_stores_below_their_least_energy() -> None:
    portfolio = territory(ders=40, feeders=2, congested=0, seed=1)
    devices = replace(portfolio.devices, stored_wh=0.5 * portfolio.devices.stored_min_wh)
    portfolio = replace(portfolio, devices=devices, desk=Desk(emergency=True, hold_h=0.5))
    plan = _plan(portfolio, 12)
    assert not plan.shares.power_w[:, :6].any()
    assert _faults(portfolio, plan) == []


@pytest.mark.parametrize("due_wh", [np.nan, np.inf, 60e6])
def test_a_car_whose_due_energy_is_no_number_or_absurd_is_left_alone(due_wh: float) -> None:
    cars = _cars(due_wh=np.array([due_wh, 40e3]), arrive_h=np.zeros(2), leave_h=np.full(2, 6.0))
    plan = _plan(_with(cars))
    assert not plan.shares.power_w[0].any()
    assert plan.shares.power_w[1].any()
    assert plan.gave_way == ()


def _bounds(rng: np.random.Generator, count: int, steps: int) -> tuple[FloatArray, FloatArray]:
    low_wh = np.where(rng.random((count, steps)) < 0.3, rng.uniform(0.0, 10.0, (count, steps)), -np.inf)
    high_wh = np.where(rng.random((count, steps)) < 0.3, rng.uniform(0.0, 10.0, (count, steps)), np.inf)
    return low_wh, np.maximum(high_wh, low_wh)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 100_000))
def test_a_course_can_always_be_kept_to_and_gives_up_nothing_that_could_be_met(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low_wh, high_wh = _bounds(rng, 3, 7)
    gain_wh, loss_wh = rng.uniform(0.0, 4.0, (2, 3, 7))
    stored_wh = rng.uniform(0.0, 10.0, 3)
    kept = course(low_wh, high_wh, stored_wh, gain_wh, loss_wh)
    for path in (kept.fullest_wh, kept.emptiest_wh):
        step = np.diff(path, axis=1, prepend=stored_wh[:, None])
        assert (step <= gain_wh + 1e-9).all()
        assert (step >= -loss_wh - 1e-9).all()
        assert (path >= kept.low_wh - 1e-9).all()
        assert (path <= kept.high_wh + 1e-9).all()
    # Full power from now on is the most that any course has, so where it meets what is due, this one has to.
    most_wh = stored_wh[:, None] + np.cumsum(gain_wh, axis=1)
    reached = most_wh >= low_wh
    assert (kept.fullest_wh[reached] >= low_wh[reached] - 1e-9).all()


def test_shares_in_order_without_turns_are_refused() -> None:
    cars = _some_cars(1)
    assert isinstance(cars.envelopes, Envelopes)
    assert len(due_h(cars, HOURS)) == 12
    with pytest.raises(PlanError, match="have no turns"):
        share(np.zeros((1, 1)), cars, np.zeros(12, dtype=np.intp), HOURS, fairness=Fairness.IN_ORDER)
