"""The verifier: each wrong number is found and named, a right plan is not refused, and the feeder has a say."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.domain.plan import Plan
from derms.domain.strain import Strain
from derms.errors import NotConverged
from derms.optimize.aggregate import VirtualBattery
from derms.optimize.fallback import defaults, rules, shifted
from derms.optimize.verify import FeederFinding, check_feeder, check_numbers, eased
from tests.control.values import forecast_of, strain_of

BATTERY = VirtualBattery(p_rated_w=0.5e6, energy_wh=1e6, energy_min_wh=0.2e6, energy_max_wh=1.9e6, efficiency_frac=0.95)
HOURS = (np.arange(96, dtype=np.float64) + 0.5) / 4.0
FORECAST = forecast_of(3e6 + 0.8e6 * np.sin(np.pi * (HOURS - 6.0) / 12.0), pv_rated_w=1e6, pv_frac=0.4)


def _plan(battery_w: FloatArray | float = 0.0, curtail_w: FloatArray | float = 0.0) -> Plan:
    """A plan whose own numbers agree."""
    resting = defaults(FORECAST, BATTERY, plan_id=1, reason="")
    battery, curtail = resting.battery_w + battery_w, resting.curtail_w + curtail_w
    return replace(resting, battery_w=battery, curtail_w=curtail, net_load_w=FORECAST.net_load_w - battery + curtail)


def _wrong(plan: Plan, battery: VirtualBattery = BATTERY) -> list[str]:
    return check_numbers(plan, battery, FORECAST.pv_w, FORECAST.net_load_w)


def _first(*powers_w: float) -> FloatArray:
    column = np.zeros(96)
    column[: len(powers_w)] = powers_w
    return column


@pytest.mark.parametrize("column", ["battery_w", "curtail_w", "energy_wh", "net_load_w"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_found_in_every_column(column: str, bad: float) -> None:
    plan = _plan()
    spoiled = getattr(plan, column).copy()
    spoiled[40] = bad
    assert _wrong(replace(plan, **{column: spoiled})) == ["the plan holds values that are not finite"]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_power_up_to_the_rating_passes_and_beyond_it_does_not(sign: float) -> None:
    assert _wrong(_plan(_first(sign * 0.5e6))) == []
    assert _wrong(_plan(_first(sign * 0.502e6))) == ["battery power beyond 500.0 kW"]


@pytest.mark.parametrize(("curtail_w", "passes"), [(0.4e6, True), (0.402e6, False), (-0.002e6, False)])
def test_no_more_sun_can_be_held_back_than_shines(curtail_w: float, passes: bool) -> None:
    assert _wrong(_plan(curtail_w=_first(0.0, curtail_w))) == ([] if passes else ["more PV held back than there is"])


def test_a_net_load_that_does_not_add_up_is_found_with_its_amount() -> None:
    plan = _plan(_first(0.1e6))
    off_w = _first(0.0, 0.0, 2e3)
    assert _wrong(replace(plan, net_load_w=plan.net_load_w + off_w)) == ["net load does not add up by 2.0 kW"]


def test_energy_is_followed_with_losses_and_not_taken_from_the_plans_own_column() -> None:
    """0.8 MWh above the reserve give 0.76 MWh at the terminals: six quarters of 0.5 MW are 0.75, seven too many."""
    assert _wrong(_plan(_first(*[0.5e6] * 6))) == []
    assert len(found := _wrong(_plan(_first(*[0.5e6] * 7)))) == 1
    assert found[0].startswith("energy falls to 78.9 kWh")
    # 0.9 MWh of room take 0.947 MWh from the terminals: seven quarters are 0.875, eight too many.
    assert _wrong(_plan(_first(*[-0.5e6] * 7))) == []
    assert _wrong(_plan(_first(*[-0.5e6] * 8)))[0].startswith("energy rises to 1950.0 kWh")


def test_a_store_that_starts_outside_its_bounds_may_come_back_but_not_go_further() -> None:
    empty = replace(BATTERY, energy_wh=0.1e6)
    assert _wrong(_plan(_first(-0.2e6, -0.2e6)), empty) == []
    assert _wrong(_plan(), empty) == []
    assert _wrong(_plan(_first(0.2e6, 0.2e6)), empty)[0].startswith("energy falls")


@pytest.mark.parametrize("energy_wh", [0.1e6, 0.2e6, 1e6, 1.9e6, 1.95e6])
def test_rules_and_defaults_always_pass(energy_wh: float) -> None:
    battery = replace(BATTERY, energy_wh=energy_wh)
    by_rule = rules(FORECAST, battery, plan_id=2, reason="")
    assert np.abs(by_rule.battery_w).max() > 0.1e6
    assert _wrong(by_rule, battery) == []
    assert _wrong(defaults(FORECAST, battery, plan_id=2, reason=""), battery) == []


def test_rules_flatten_the_day_within_what_the_battery_holds() -> None:
    plan = rules(FORECAST, BATTERY, plan_id=2, reason="why")
    assert plan.net_load_w.max() <= FORECAST.net_load_w.max()
    assert np.ptp(plan.net_load_w[:24]) < np.ptp(FORECAST.net_load_w[:24])
    inside = (plan.energy_wh >= BATTERY.energy_min_wh - 1.0) & (plan.energy_wh <= BATTERY.energy_max_wh + 1.0)
    assert inside.all()
    assert plan.energy_wh.min() == pytest.approx(BATTERY.energy_min_wh)
    assert (plan.reason, plan.id) == ("why", 2)


ROOMY = replace(BATTERY, energy_wh=50e6, energy_max_wh=100e6)


def test_a_shifted_plan_leaves_out_what_the_battery_cannot_do_any_more() -> None:
    plan = _plan(_first(*[0.4e6] * 8))
    lower = replace(BATTERY, energy_wh=0.4e6)
    moved = shifted(plan, FORECAST, lower, plan_id=2, reason="")
    assert moved.battery_w[0] == pytest.approx(0.4e6)
    assert moved.energy_wh[-1] == pytest.approx(BATTERY.energy_min_wh)
    assert check_numbers(moved, lower, FORECAST.pv_w, FORECAST.net_load_w) == []


def test_a_shifted_plan_keeps_each_power_at_its_time_and_rests_beyond_its_end() -> None:
    plan = _plan(np.arange(96, dtype=np.float64) * 1e3, 0.1e6)
    start = plan.start + timedelta(minutes=40)
    later = forecast_of(FORECAST.net_load_w + 5e4, pv_rated_w=1e6, pv_frac=0.05, start=start)
    moved = shifted(plan, later, ROOMY, plan_id=9, reason="late")
    # Step 0 spans minutes 40 to 55: a third of it lies in the old step 2, the rest in step 3.
    np.testing.assert_allclose(moved.battery_w[:93], (np.arange(93) + 8 / 3) * 1e3)
    np.testing.assert_allclose(moved.battery_w[93:], [95e3 / 3, 0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(moved.curtail_w[:93], 0.05e6)  # no more than now shines
    np.testing.assert_allclose(moved.curtail_w[93:], [0.1e6 / 3, 0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(moved.net_load_w, later.net_load_w - moved.battery_w + moved.curtail_w)
    assert (moved.id, moved.start, moved.reason) == (9, later.start, "late")


@pytest.mark.parametrize("minutes", [5, 7, 10, 14])
def test_a_plan_that_fills_the_battery_still_does_after_a_part_of_a_step_and_no_more(minutes: int) -> None:
    """Eight quarters of 0.47 MW fill 0.9 MWh of room; taken by their middles, one would be counted one and a half."""
    plan = _plan(_first(*[-0.47e6] * 8))
    start = plan.start + timedelta(minutes=minutes)
    later = replace(FORECAST, start=start, made_at=start)
    charged_wh = 0.47e6 * 0.95 * minutes / 60.0
    battery = replace(BATTERY, energy_wh=BATTERY.energy_wh + charged_wh)
    moved = shifted(plan, later, battery, plan_id=2, reason="")
    assert check_numbers(moved, battery, later.pv_w, later.net_load_w) == []
    assert moved.battery_w.sum() / 4.0 == pytest.approx(-0.47e6 * (2.0 - minutes / 60.0))


def _feeder(excess_pu: Callable[[FloatArray], float]) -> Callable[[FloatArray, float], Strain]:
    def look_ahead(der_w: FloatArray, factor: float) -> Strain:
        excess = excess_pu(der_w) * factor
        return strain_of(2, excess, violations=3 * (excess > 0.0), excess_per_w=np.array([1e-3, 2e-3]))

    return look_ahead


def _check(look_ahead: Callable[[FloatArray, float], Strain], factor: float = 1.0) -> list[FeederFinding]:
    return check_feeder(
        np.array([[10.0, 0.0]]), np.array([factor]), look_ahead, lambda point: look_ahead(np.zeros(2), factor)
    )


def test_a_plan_that_makes_voltages_worse_is_found_with_its_point_and_who_makes_them() -> None:
    (finding,) = _check(_feeder(lambda der_w: 0.01 if der_w[0] else 0.004))
    assert (finding.point, finding.per_w.tolist()) == (0, [1e-3, 2e-3])
    assert finding.added == pytest.approx(0.006)
    assert finding.text.startswith("point 0: 3 nodes outside their voltage range, 0.010 pu to be expected in sum")


@pytest.mark.parametrize("bare_pu", [0.01, 0.0095, 0.2])
def test_voltages_no_worse_than_without_the_plan_are_no_finding(bare_pu: float) -> None:
    assert _check(_feeder(lambda der_w: 0.01 if der_w[0] else bare_pu)) == []


def test_the_load_of_the_step_decides() -> None:
    worse = _feeder(lambda der_w: 0.004 * float(der_w[0] > 0.0))
    assert _check(worse) == []
    assert len(_check(worse, factor=1.5)) == 1


def test_a_feeder_without_a_solution_is_a_finding() -> None:
    def diverging(der_w: FloatArray, factor: float) -> Strain:
        raise NotConverged("no power-flow solution")

    (finding,) = _check(diverging)
    assert "no power-flow solution" in finding.text
    np.testing.assert_array_equal(eased(np.ones(2), np.full(2, 10.0), np.array([[10.0, 0.0]]), [finding]), [0.5, 0.5])


def _eased(per_w: list[float], powers_w: list[float], added: float, caps: FloatArray | None = None) -> FloatArray:
    """Of three batteries of 10 W."""
    finding = FeederFinding(0, "", added, np.array(per_w))
    return eased(np.ones(3) if caps is None else caps, np.full(3, 10.0), np.array([powers_w]), [finding])


def test_easing_takes_away_what_the_plan_adds_and_a_tenth_more_first_where_a_watt_counts_most() -> None:
    per_w, powers_w = [0.01, 0.02, 0.04], [5.0, 5.0, 5.0]
    caps = _eased(per_w, powers_w, 0.1)
    assert 10.0 * caps @ per_w == pytest.approx(0.35 - 1.1 * 0.1)
    assert caps[0] > caps[1] > caps[2]
    np.testing.assert_allclose(_eased(per_w, powers_w, 1.0), 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("per_w", "powers_w", "same"),
    [
        ([0.01, -0.01, 0.0], [5.0, 5.0, 5.0], [False, True, True]),  # the second helps, the third is elsewhere
        ([-0.01, -0.01, -0.01], [5.0, -5.0, 0.0], [True, False, True]),  # too low: charging strains
    ],
)
def test_easing_leaves_those_alone_that_do_not_strain(
    per_w: list[float], powers_w: list[float], same: list[bool]
) -> None:
    assert ((_eased(per_w, powers_w, 0.01) == 1.0) == same).all()


def test_where_nobody_strains_all_are_halved_and_what_was_eased_before_stays_so() -> None:
    np.testing.assert_array_equal(_eased([0.0] * 3, [5.0] * 3, 0.1, np.array([1.0, 1.0, 0.5])), [0.5, 0.5, 0.25])
    assert _eased([0.01, 0.0, 0.0], [1.0, 0.0, 0.0], 1e-6, np.array([0.05, 1.0, 1.0]))[0] == 0.05


@pytest.mark.parametrize(("with_plan", "without", "found"), [(0.3, 0.0, 1), (0.3, 0.29, 0), (0.0, 0.5, 0)])
def test_plan_that_overloads_lines_or_transformers_is_found_and_one_that_does_not_worsen_them_is_not(
    with_plan: float, without: float, found: int
) -> None:
    findings = _check(lambda der_w, factor: strain_of(2, overload=with_plan if der_w[0] else without))
    assert len(findings) == found
    assert all("beyond their ratings" in finding.text for finding in findings)
