"""The portfolio that the service plans: local days with what they have had, the feeder, and the rest of the system."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from derms.control.compose import LOOK_BACK_H, PlanTerms, batteries, compose, days
from derms.domain.arrays import FloatArray
from derms.domain.forecast import Forecast
from derms.domain.plan import PlanSource, even_steps
from derms.domain.settings import PlanSettings, PlanWeights
from derms.optimize.aggregate import VirtualBattery
from derms.optimize.fallback import defaults
from derms.optimize.fleet import FleetPlanner
from derms.optimize.portfolio import Desk, Portfolio
from derms.optimize.verify_fleet import check_shares
from tests.control.values import TERMS, ZONE, fleet_of, forecast_of, snapshot_of

HOURS = PlanSettings().hours
PAST = 4 * LOOK_BACK_H


def _forecast(*local: int) -> Forecast:
    start = datetime(*local, tzinfo=ZONE).astimezone(UTC)  # type: ignore[misc, arg-type]
    return replace(forecast_of(np.full(len(HOURS), 1e6), start=start), hours=HOURS)


def _past(**at_hours_ago: float) -> FloatArray:
    """A flat megawatt, but for some quarters that ended so many hours ago (`h5=2e6`)."""
    past_w = np.full(PAST, 1e6)
    for name, value_w in at_hours_ago.items():
        past_w[PAST - 1 - round(4 * float(name[1:].replace("_", ".")))] = value_w
    return past_w


@pytest.mark.parametrize("hour", [0, 1, 11, 12, 13, 23])
def test_days_are_as_many_whatever_the_hour_is(hour: int) -> None:
    found = days(_forecast(2026, 4, 15, hour), _past(), ZONE, TERMS)
    assert len(found) == 3
    assert found.day[0] == 0
    first_midnight = int(np.searchsorted(np.cumsum(HOURS), 24 - hour + 1e-6))
    assert (found.day[:first_midnight] == 0).all()
    assert (found.day[first_midnight:][:4] == 1).all()


@pytest.mark.parametrize(("date", "length_h"), [((2026, 3, 8), 23.0), ((2026, 11, 1), 25.0), ((2026, 4, 15), 24.0)])
def test_a_day_is_as_long_as_its_clocks_make_it(date: tuple[int, int, int], length_h: float) -> None:
    found = days(_forecast(*date, 0), _past(), ZONE, TERMS)
    assert HOURS[found.day == 0].sum() == pytest.approx(length_h)


def test_a_peak_that_today_has_had_does_not_end_the_effort() -> None:
    assert days(_forecast(2026, 4, 15, 17), _past(h5=2e6), ZONE, TERMS).peak_w.tolist() == [-np.inf] * 3


def test_a_rise_that_ended_today_counts_from_where_it_began_yesterday() -> None:
    found = days(_forecast(2026, 4, 15, 2), _past(h4=0.4e6), ZONE, TERMS)
    assert found.rise_w[0] == pytest.approx(0.6e6)
    assert days(_forecast(2026, 4, 15, 2), _past(h6=0.4e6), ZONE, TERMS).rise_w[0] == 0.0


def test_under_the_peak_of_the_season_no_peak_counts() -> None:
    terms = PlanTerms(peak_floor_w=3e6, desk=Desk())
    assert days(_forecast(2026, 4, 15, 17), _past(h5=2e6), ZONE, terms).peak_w.tolist() == [3e6] * 3


def _portfolio(forecast: Forecast, *, soc_frac: float = 0.5) -> Portfolio:
    fleet = fleet_of(3, 1)
    snapshot = snapshot_of([0.0] * 4, soc_frac=[soc_frac, np.nan, soc_frac, np.nan])
    return compose(
        batteries(fleet, snapshot, np.array([True, False, True, True])),
        forecast,
        past_net_w=_past(),
        previous_w=np.zeros(len(forecast.net_load_w)),
        timezone=ZONE,
        terms=TERMS,
    )


def test_the_rest_of_the_system_is_what_the_feeder_is_not() -> None:
    forecast = replace(_forecast(2026, 4, 15, 12), feeder_w=np.full(len(HOURS), 0.3e6))
    given = _portfolio(forecast)
    np.testing.assert_allclose(given.feeders.net_load_w, [np.full(len(HOURS), 0.3e6), np.full(len(HOURS), 0.7e6)])
    np.testing.assert_allclose(given.feeders.net_load_w.sum(axis=0), forecast.net_load_w)


def test_a_battery_that_may_not_be_commanded_has_nothing_and_does_not_spoil_the_gate() -> None:
    given = _portfolio(_forecast(2026, 4, 15, 12)).checked()
    np.testing.assert_array_equal(given.devices.available, [True, False, True])
    np.testing.assert_array_equal(given.devices.stored_wh, [50e3, 0.0, 50e3])
    assert len(given.past_net_w) == 12


@pytest.mark.parametrize(("import_max_w", "least_w"), [(np.inf, -50e3), (0.99e6, 10e3)])
def test_the_limit_of_the_feeder_is_kept_by_its_batteries(import_max_w: float, least_w: float) -> None:
    forecast = _forecast(2026, 4, 15, 12)
    terms = replace(TERMS, import_max_w=import_max_w)
    given = compose(
        replace(_portfolio(forecast).devices, stored_wh=np.array([90e3, 0.0, 90e3])),
        # A megawatt for two hours, and half of it after them.
        replace(forecast, net_load_w=np.where(np.cumsum(HOURS) <= 2.0, 1e6, 5e5)),
        past_net_w=_past(),
        previous_w=np.zeros(len(HOURS)),
        timezone=ZONE,
        terms=terms,
    )
    weights = PlanWeights(peak=0.0, ramp=0.0, ramp_3h=0.0)
    plan = FleetPlanner(weights, scale_w=3e6, shared_steps=12).plan(given)
    given_w = plan.shares.power_w.sum(axis=0)
    assert given_w.min() >= least_w - 10.0
    assert (given_w.max() < 1e3) == np.isinf(import_max_w)
    assert check_shares(given, plan.shares.power_w, plan.held_w, plan.promised_w, ()) == []
    wrong = check_shares(given, plan.shares.power_w - 15e3, plan.held_w, plan.promised_w, ())
    assert any("feeder 0 beyond" in text for text in wrong) != np.isinf(import_max_w)


def test_batteries_charge_where_energy_is_cheap_and_give_it_back_where_it_is_dear() -> None:
    forecast = _forecast(2026, 4, 15, 12)
    hour = np.cumsum(HOURS)
    # For a kWh half of what a kW of peak costs, five hours on and off: the higher peak is worth it.
    price = np.where((hour % 10.0) <= 5.0, -0.5, 0.5)
    given = replace(_portfolio(forecast), price=price)
    assert not _portfolio(forecast).price.any()
    planned_w = FleetPlanner(PlanWeights(), scale_w=3e6, shared_steps=12).plan(given).solution.injected_w.sum(axis=0)
    assert planned_w[price < 0.0].mean() < -1e3
    assert planned_w[price > 0.0].mean() > 1e3


def test_a_plan_told_in_even_steps_has_the_same_energy() -> None:
    forecast = replace(_forecast(2026, 4, 15, 12), net_load_w=np.linspace(1e6, 3e6, len(HOURS)))
    battery = VirtualBattery(p_rated_w=1e5, energy_wh=1e5, energy_min_wh=0.0, energy_max_wh=2e5, efficiency_frac=0.9)
    plan = defaults(forecast, battery, plan_id=1, reason="")
    assert plan.source is PlanSource.DEFAULTS
    step_s, net_w, battery_w = even_steps(plan)
    assert (step_s, len(net_w), len(battery_w)) == (900.0, 144, 144)
    assert net_w.sum() * 0.25 == pytest.approx(float(plan.net_load_w @ HOURS))
    np.testing.assert_allclose(net_w[0], plan.net_load_w[:3].mean())
