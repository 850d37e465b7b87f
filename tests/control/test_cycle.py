"""The control cycle: down the ladder rung by rung, eased where the feeder strains, and nobody told without need."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from derms.control.cycle import ControlState, CycleInput, CycleSettings, Decision, Optimizer, decide
from derms.domain.arrays import FloatArray
from derms.domain.plan import PlanSource
from derms.domain.strain import Strain
from derms.errors import NotConverged, PlanError
from derms.optimize.fleet import FleetPlan
from derms.optimize.master import Slack
from derms.optimize.portfolio import Portfolio
from derms.optimize.share import Fairness
from derms.optimize.verify import FeederLookAhead
from tests.control.values import (
    NOON,
    PAST_PERIODS,
    STEP_S,
    TERMS,
    ZONE,
    fleet_of,
    fleet_plan_of,
    forecast_of,
    snapshot_of,
    strain_of,
)

STEPS, NOW_S = 96, 5000.0
BATTERIES, INVERTERS = 3, 2
COUNT = BATTERIES + INVERTERS
CALM = strain_of(COUNT)
SETTINGS = CycleSettings(shared_h=1.0, validity_s=1800.0, last_good_age_max_s=4 * 3600.0, timezone=ZONE, terms=TERMS)

Powers = Callable[[Portfolio], FloatArray]


def _given(**changes: object) -> CycleInput:
    """Three half-full batteries and two inverters at half power, on an evening whose load rises."""
    net_w = 1e6 + 1e3 * np.arange(STEPS, dtype=np.float64)
    usual = CycleInput(
        fleet=fleet_of(BATTERIES, INVERTERS),
        available=np.ones(COUNT, dtype=np.bool_),
        snapshot=snapshot_of([0.0, 0.0, 0.0, 15e3, 15e3], soc_frac=[0.5, 0.5, 0.5, np.nan, np.nan]),
        forecast=forecast_of(net_w, pv_rated_w=60e3, pv_frac=0.5),
        past_net_w=np.full(PAST_PERIODS, 1e6),
        der_rows=tuple(range(COUNT)),
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def _planning(battery_w: float | FloatArray, curtail_w: float | FloatArray = 0.0, *, off_w: float = 0.0) -> Optimizer:
    """An optimizer that gives these powers; `off_w` is by how much its net load does not add up."""

    def optimizer(given: Portfolio) -> FleetPlan:
        return fleet_plan_of(given, np.zeros(STEPS) + battery_w, np.zeros(STEPS) + curtail_w, off_w=off_w)

    return optimizer


def _first(*powers_w: float) -> FloatArray:
    """These powers in the first steps, nothing after."""
    column = np.zeros(STEPS)
    column[: len(powers_w)] = powers_w
    return column


def _failing(given: Portfolio) -> FleetPlan:
    raise PlanError("no solution in time")


def _calm(der_w: FloatArray, factor: float) -> Strain:
    return CALM


def _strained_by(row: int, most_w: float) -> FeederLookAhead:
    """A feeder that is strained by one DER beyond a power, in either direction, and by no other."""

    def look_ahead(der_w: FloatArray, factor: float) -> Strain:
        over_w = max(abs(der_w[row]) - most_w, 0.0)
        per_w = np.where(np.arange(COUNT) == row, np.sign(der_w[row]) / 1e5, 0.0)
        return strain_of(COUNT, over_w / 1e5, excess_per_w=per_w)

    return look_ahead


def _decide(
    given: CycleInput,
    optimizer: Optimizer,
    *,
    state: ControlState | None = None,
    look_ahead: FeederLookAhead = _calm,
    settings: CycleSettings = SETTINGS,
) -> Decision:
    return decide(
        state or ControlState(),
        given,
        now=given.forecast.start,
        now_s=NOW_S,
        optimizer=optimizer,
        look_ahead=look_ahead,
        settings=settings,
    )


def _later(given: CycleInput, minutes: float) -> CycleInput:
    start = NOON + timedelta(minutes=minutes)
    return replace(given, forecast=replace(given.forecast, made_at=start, start=start))


def test_a_good_plan_is_followed_as_it_is() -> None:
    decision = _decide(_given(), _planning(_first(60e3, 30e3)))
    assert (decision.plan.source, decision.plan.id, decision.rejected) == (PlanSource.OPTIMIZER, 1, ())
    assert decision.state == ControlState(plan_id=1, last_good=decision.plan, previous=decision.plan)
    shares_w = decision.dispatch.p_set_w
    np.testing.assert_allclose(np.nansum(shares_w[:, 1:], axis=0), [60e3, 30e3, 0.0, 0.0], atol=1.0)
    assert decision.dispatch.valid_until_s == NOW_S + 1800.0


def test_support_points_are_now_and_the_middles_of_the_steps() -> None:
    dispatch = _decide(_given(), _planning(_first(60e3, 30e3))).dispatch
    np.testing.assert_allclose(dispatch.times_s - NOW_S, [0.0, 450.0, 1350.0, 2250.0, 3150.0])
    # The line through 20 and 10 kW at the first two middles starts at 25 kW.
    np.testing.assert_allclose(dispatch.p_set_w[0, :3], [25e3, 20e3, 10e3], atol=1.0)


def test_without_a_solution_the_last_good_plan_goes_on_shifted_in_time() -> None:
    first = _decide(_given(), _planning(_first(60e3, 30e3, -15e3)))
    second = _decide(_later(_given(), 15.0), _failing, state=first.state)
    assert (second.plan.source, second.plan.id) == (PlanSource.LAST_GOOD, 2)
    np.testing.assert_allclose(second.plan.battery_w[:3], [30e3, -15e3, 0.0])
    assert "no solution in time" in second.plan.reason
    assert second.state.last_good is first.plan


def test_a_last_good_plan_that_is_too_old_is_passed_over_for_the_rules() -> None:
    first = _decide(_given(), _planning(_first(60e3)))
    still = _decide(_later(_given(), 240.0), _failing, state=first.state)
    assert still.plan.source is PlanSource.LAST_GOOD
    over = _decide(_later(_given(), 241.0), _failing, state=still.state)
    assert over.plan.source is PlanSource.RULES
    assert any("too old" in why for why in over.rejected)


def test_following_the_last_good_plan_does_not_make_it_younger() -> None:
    state = _decide(_given(), _planning(_first(60e3))).state
    for minutes in (100.0, 200.0, 300.0):
        decision = _decide(_later(_given(), minutes), _failing, state=state)
        state = decision.state
    assert decision.plan.source is PlanSource.RULES


def test_without_any_good_plan_the_rules_charge_below_the_mean_and_discharge_above_it() -> None:
    decision = _decide(_given(), _failing)
    assert decision.plan.source is PlanSource.RULES
    assert decision.plan.battery_w[0] < 0.0 < decision.plan.battery_w[-1]
    assert [why.partition(":")[0] for why in decision.rejected] == ["optimizer", "last good plan"]
    assert decision.state.last_good is None


def test_below_the_optimizer_a_plan_that_takes_the_feeder_beyond_its_limit_is_refused() -> None:
    # The rules would charge in the first hour, and let the feeder take 1 MW and what the batteries draw.
    settings = replace(SETTINGS, terms=replace(TERMS, import_max_w=1.01e6))
    decision = _decide(_given(), _failing, settings=settings)
    assert decision.plan.source is PlanSource.DEFAULTS
    assert "rules: feeder beyond its limits by" in decision.rejected[-1]
    with_room = replace(SETTINGS, terms=replace(TERMS, import_max_w=1.2e6))
    decision = _decide(_given(), _failing, settings=with_room)
    assert decision.plan.source is PlanSource.RULES
    assert decision.dispatch.leeway is not None
    heads = decision.dispatch.leeway.heads
    assert heads is not None
    assert (heads.low_w.tolist(), heads.high_w.tolist()) == ([-np.inf], [1.2e6])


@pytest.mark.parametrize(
    ("optimizer", "finding"),
    [
        (_planning(_first(80e3)), "battery power beyond"),
        (_planning(60e3), "energy falls"),
        (_planning(-60e3), "energy rises"),
        (_planning(0.0, 31e3), "more PV held back"),
        (_planning(0.0, -1e3), "more PV held back"),
        (_planning(0.0, off_w=1e3), "does not add up"),
        (_planning(_first(np.nan)), "not finite"),
    ],
)
def test_a_plan_whose_numbers_cannot_be_is_refused_whatever_the_solver_says(optimizer: Optimizer, finding: str) -> None:
    decision = _decide(_given(), optimizer)
    assert decision.plan.source is PlanSource.RULES
    assert decision.rejected[0].startswith("optimizer: ")
    assert finding in decision.rejected[0]
    assert finding in decision.plan.reason


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_battery_that_strains_the_feeder_is_eased_and_the_others_do_its_part(sign: float) -> None:
    decision = _decide(_given(), _planning(_first(sign * 60e3)), look_ahead=_strained_by(1, 10e3))
    assert decision.plan.source is PlanSource.OPTIMIZER
    assert decision.rejected == ()
    shares_w = sign * decision.dispatch.p_set_w[:3]
    assert 7e3 < shares_w[1, 1] <= 10e3, "as little as helps"
    assert np.abs(shares_w[1]).max() <= 10e3
    np.testing.assert_allclose(shares_w[[0, 2], 1], 25e3, atol=1.0)


def test_where_no_battery_has_a_part_in_the_strain_all_are_eased() -> None:
    def look_ahead(der_w: FloatArray, factor: float) -> Strain:
        return strain_of(COUNT, max(float(der_w[:BATTERIES].sum()) - 40e3, 0.0) / 1e4)

    decision = _decide(_given(), _planning(_first(60e3)), look_ahead=look_ahead)
    assert decision.plan.source is PlanSource.OPTIMIZER
    np.testing.assert_allclose(decision.dispatch.p_set_w[:3, 1], 12.5e3, atol=1.0)


def test_a_plan_that_no_easing_helps_is_refused_down_to_device_defaults() -> None:
    def hopeless(der_w: FloatArray, factor: float) -> Strain:
        moving = bool(der_w[:BATTERIES].any())
        return strain_of(COUNT, 1.0 + moving, violations=7)

    first = _decide(_given(), _planning(_first(60e3)))
    decision = _decide(_given(), _planning(_first(60e3)), state=first.state, look_ahead=hopeless)
    assert decision.plan.source is PlanSource.DEFAULTS
    assert [why.partition(":")[0] for why in decision.rejected] == ["optimizer", "last good plan", "rules"]
    assert all("7 nodes outside their voltage range" in why for why in decision.rejected)


def test_a_feeder_without_a_solution_refuses_a_plan() -> None:
    def diverging(der_w: FloatArray, factor: float) -> Strain:
        raise NotConverged("the power flow does not converge")

    decision = _decide(_given(), _planning(_first(60e3)), look_ahead=diverging)
    assert decision.plan.source is PlanSource.DEFAULTS
    assert "does not converge" in decision.plan.reason


def test_a_feeder_that_is_as_bad_without_the_plan_does_not_refuse_it() -> None:
    bad = replace(CALM, violations=9, excess_pu=0.3)
    decision = _decide(_given(), _planning(_first(60e3)), look_ahead=lambda der_w, factor: bad)
    assert decision.plan.source is PlanSource.OPTIMIZER


def test_the_feeder_is_asked_with_what_would_be_sent_at_the_load_of_the_step() -> None:
    asked: list[tuple[FloatArray, float]] = []

    def look_ahead(der_w: FloatArray, factor: float) -> Strain:
        asked.append((der_w, factor))
        return CALM

    given = _given()
    given = replace(
        given, forecast=replace(given.forecast, net_load_w=970e3 + 100e3 * np.arange(STEPS, dtype=np.float64))
    )
    _decide(given, _planning(_first(0.0, 0.0, 60e3), _first(12e3)), look_ahead=look_ahead)
    assert len(asked) == 5  # now, and the middle of each step that is shared out
    np.testing.assert_allclose(asked[1][0], [0.0, 0.0, 0.0, 9e3, 9e3], atol=1.0)
    np.testing.assert_allclose(asked[3][0], [20e3, 20e3, 20e3, 15e3, 15e3], atol=1.0)
    assert [factor for _, factor in asked] == pytest.approx([1.0, 1.0, 1.1, 1.2, 1.3])


def test_what_is_sent_before_the_first_middle_is_verified_too() -> None:
    """Taken back along the line, a steep plan starts beyond its first two means: the feeder is asked about that."""
    asked: list[FloatArray] = []

    def look_ahead(der_w: FloatArray, factor: float) -> Strain:
        asked.append(der_w)
        return CALM

    dispatch = _decide(_given(), _planning(_first(0.0, -60e3)), look_ahead=look_ahead).dispatch
    assert dispatch.p_set_w[0, 0] > 5e3
    np.testing.assert_allclose(asked[0][:BATTERIES], dispatch.p_set_w[:BATTERIES, 0])


def test_a_dispatch_ends_with_the_last_step_that_was_shared_out() -> None:
    long = replace(SETTINGS, validity_s=86_400.0)
    dispatch = _decide(_given(), _planning(_first(60e3)), settings=long).dispatch
    assert dispatch.valid_until_s == pytest.approx(dispatch.times_s[-1] + STEP_S / 2.0)


def test_device_defaults_command_nobody() -> None:
    def hopeless(der_w: FloatArray, factor: float) -> Strain:
        raise NotConverged("no")

    dispatch = _decide(_given(), _failing, look_ahead=hopeless).dispatch
    assert np.isnan(dispatch.p_set_w).all()
    assert np.isnan(dispatch.p_limit_w).all()


def test_even_with_nothing_known_there_is_a_decision_and_it_commands_nobody() -> None:
    given = _given()
    given = replace(given, forecast=replace(given.forecast, net_load_w=np.full(STEPS, np.nan)))
    decision = _decide(given, _failing)
    assert decision.plan.source is PlanSource.DEFAULTS
    assert np.isnan(decision.dispatch.p_set_w).all()


def test_inverters_are_limited_only_in_the_steps_that_hold_power_back() -> None:
    decision = _decide(_given(), _planning(0.0, _first(0.0, 12e3, 0.1e3)))
    limits_w = decision.dispatch.p_limit_w
    # 12 of 30 kW held back leaves 9 kW of each inverter's 15; 0.1 kW is solver noise.
    np.testing.assert_allclose(limits_w[BATTERIES:, 2], 9e3)
    assert np.isnan(limits_w[BATTERIES:, [0, 1, 3, 4]]).all()
    assert np.isnan(limits_w[:BATTERIES]).all()


def test_devices_that_are_not_available_are_left_alone_and_the_others_bear_their_part() -> None:
    available = np.array([True, False, True, True, False])
    decision = _decide(_given(available=available), _planning(_first(40e3), _first(12e3)))
    dispatch = decision.dispatch
    np.testing.assert_allclose(dispatch.p_set_w[[0, 2], 1], 20e3, atol=1.0)
    assert np.isnan(dispatch.p_set_w[[1, 3, 4]]).all()
    assert np.isfinite(dispatch.p_limit_w[3, 1])
    assert np.isnan(dispatch.p_limit_w[4]).all()


def test_shares_follow_the_energy_that_each_battery_has_left_step_by_step() -> None:
    snapshot = snapshot_of([0.0] * COUNT, soc_frac=[0.15, 0.5, 0.5, np.nan, np.nan])
    plan_w = _first(60e3, 60e3, 60e3, 60e3)
    shares_w = _decide(_given(snapshot=snapshot), _planning(plan_w)).dispatch.p_set_w[:3, 1:]
    given_wh = shares_w.sum(axis=1) * STEP_S / 3600.0
    assert (given_wh <= np.array([5e3, 40e3, 40e3]) * 0.95 + 1.0).all()
    assert (np.abs(shares_w) <= 25e3).all()
    # The nearly empty battery rests until only its help meets the total.
    assert shares_w[0, 0] == pytest.approx(10e3, abs=1.0)
    assert shares_w[1:].sum(axis=0) == pytest.approx([50e3] * 4, abs=1.0)


@pytest.mark.parametrize(
    ("fairness", "expected_w"),
    [
        # 15, 35, and 7 points above the reserve, of 100 kWh each.
        (Fairness.TIME_TO_GO, [5e3, 25e3, 0.0]),
        (Fairness.PRO_RATA, [10e3, 10e3, 10e3]),
        (Fairness.IN_ORDER, [25e3, 5e3, 0.0]),
    ],
)
def test_the_operator_chooses_who_goes_first(fairness: Fairness, expected_w: list[float]) -> None:
    snapshot = snapshot_of([0.0] * COUNT, soc_frac=[0.25, 0.45, 0.17, np.nan, np.nan])
    settings = replace(SETTINGS, fairness=fairness)
    dispatch = _decide(_given(snapshot=snapshot), _planning(_first(30e3)), settings=settings).dispatch
    np.testing.assert_allclose(dispatch.p_set_w[:3, 1], expected_w, atol=10.0)


def test_the_next_plan_starts_from_the_last_one_shifted_by_the_time_between() -> None:
    seen: list[FloatArray] = []

    def watching(given: Portfolio) -> FleetPlan:
        seen.append(given.previous_w[0])
        return _planning(_first(60e3, 30e3))(given)

    first = _decide(_given(), watching)
    _decide(_later(_given(), 15.0), watching, state=first.state)
    assert not seen[0].any()
    np.testing.assert_allclose(seen[1][:2], [30e3, 0.0])


def test_bounds_that_gave_way_are_told_in_the_reason() -> None:
    def giving(given: Portfolio) -> FleetPlan:
        return replace(_planning(0.0)(given), gave_way=(Slack("held reserve", 3, 2.5e3),))

    assert _decide(_given(), giving).plan.reason == "held reserve gave way by 2500"
    assert _decide(_given(), _planning(0.0)).plan.reason == ""


def test_a_plan_tells_what_eased_batteries_really_do() -> None:
    """A battery that strains the feeder beyond 10 kW gives no more; the plan's net load is then what comes of it."""
    decision = _decide(_given(), _planning(_first(75e3, 75e3)), look_ahead=_strained_by(0, 10e3))
    shared_w = np.nansum(decision.dispatch.p_set_w[:, 1:], axis=0)
    assert shared_w[0] < 75e3 - 10e3
    np.testing.assert_allclose(decision.plan.battery_w[:4], shared_w, atol=1e-6)
    plan, forecast = decision.plan, _given().forecast
    np.testing.assert_allclose(plan.net_load_w, forecast.net_load_w - plan.battery_w + plan.curtail_w, atol=1e-6)
    assert decision.caps[0] < 1.0
    assert (decision.caps[1:] == 1.0).all()


def test_a_plan_that_makes_loss_of_control_worse_says_so() -> None:
    """Three limits where nobody's plan would violate one; asked at the moment when batteries work hardest."""
    asked: list[tuple[float, float]] = []

    def lost(planned_w: FloatArray, reverted_w: FloatArray, factor: float) -> int:
        asked.append((planned_w[:BATTERIES].sum(), reverted_w[:BATTERIES].sum()))
        return 3

    given = _given()
    planning = _planning(_first(30e3, 60e3, 60e3, 10e3))
    decision = decide(
        ControlState(),
        given,
        now=given.forecast.start,
        now_s=NOW_S,
        optimizer=planning,
        look_ahead=_calm,
        settings=SETTINGS,
        control_lost=lost,
    )
    assert decision.contingency == "if all control were lost in 22 min: 3 limits violated, 0 without the plan"
    [(planned_w, reverted_w)] = asked
    np.testing.assert_allclose((planned_w, reverted_w), (60e3, 0.0), atol=1e-6)
    assert _decide(given, planning).contingency == ""
