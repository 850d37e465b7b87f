"""Peaks and rises are counted by the local day, from what the day has had already."""

from dataclasses import replace

import numpy as np

from derms.domain.arrays import FloatArray
from derms.domain.settings import PlanWeights
from derms.optimize.fleet import FleetPlanner
from derms.optimize.portfolio import Days, Portfolio
from tests.optimize.territory import territory

ONLY_PEAK = PlanWeights(ramp_3h=0.0, ramp=0.0, change=0.0, spread=0.0)
ONLY_RISE = PlanWeights(peak=0.0, ramp=0.0, change=0.0, spread=0.0)


def _given() -> Portfolio:
    return territory(ders=40, feeders=2, congested=0, seed=5)


def _days(given: Portfolio, *, first: int, peak_w: float = -np.inf, rise_w: float = -np.inf) -> Portfolio:
    """Today has the first steps, tomorrow the others."""
    day = (np.arange(len(given.hours)) >= first).astype(np.intp)
    before = (np.array([peak_w, -np.inf]), np.array([rise_w, -np.inf]))
    return replace(given, days=Days(day=day, peak_w=before[0], rise_w=before[1]))


def _net_w(given: Portfolio, weights: PlanWeights) -> FloatArray:
    scale_w = float(given.feeders.net_load_w.sum(axis=0).max())
    return FleetPlanner(weights, scale_w=scale_w, shared_steps=4).plan(given).solution.net_w


def test_each_day_has_a_peak_of_its_own() -> None:
    """From 14:00, today's evening comes before tomorrow's noon: the lower peak is shaved as well as the higher one."""
    given = _given()
    first = int(np.searchsorted(np.cumsum(given.hours), 10.0))
    bare_w = given.feeders.net_load_w.sum(axis=0)
    together_w, apart_w = _net_w(given, ONLY_PEAK), _net_w(_days(given, first=first), ONLY_PEAK)
    tomorrow = slice(first, None)
    assert bare_w[tomorrow].max() < bare_w[:first].max()
    assert apart_w[tomorrow].max() < together_w[tomorrow].max() - 1e-3 * bare_w.max()
    assert apart_w[:first].max() <= together_w[:first].max() + 1e-3 * bare_w.max()


def test_nothing_is_spent_under_a_peak_that_has_been() -> None:
    given = _given()
    bare_w = given.feeders.net_load_w.sum(axis=0)
    reached = _days(given, first=len(given.hours), peak_w=1.01 * bare_w.max())
    net_w = _net_w(reached, replace(ONLY_PEAK, terminal=0.0))
    np.testing.assert_allclose(net_w, bare_w, atol=1e-3 * bare_w.max())


def test_a_rise_that_has_been_is_free_to_come_again() -> None:
    given = _given()
    bare_w = given.feeders.net_load_w.sum(axis=0)
    reached = _days(given, first=len(given.hours), rise_w=2.0 * bare_w.max())
    lower = _net_w(_days(given, first=len(given.hours)), ONLY_RISE)
    np.testing.assert_allclose(_net_w(reached, replace(ONLY_RISE, terminal=0.0)), bare_w, atol=1e-3 * bare_w.max())
    assert np.abs(lower - bare_w).max() > 0.02 * bare_w.max()


def test_a_rise_across_now_counts_to_today_and_one_after_midnight_to_tomorrow() -> None:
    """With today's rises free, only what ends tomorrow is flattened, although it begins today."""
    given = _given()
    first = int(np.searchsorted(np.cumsum(given.hours), 2.5))
    bare_w = given.feeders.net_load_w.sum(axis=0)
    free_today = _days(given, first=first, rise_w=2.0 * bare_w.max())
    net_w = _net_w(free_today, ONLY_RISE)

    def worst_w(course_w: FloatArray) -> float:
        """Greatest rise over three hours that ends tomorrow: two and a half hours are four steps an hour after 12."""
        quarters_w = np.concatenate([course_w[:12].reshape(4, 3).mean(axis=1), course_w[12:]])
        rises_w = quarters_w[12:] - quarters_w[:-12]
        return float(rises_w.max())

    assert worst_w(net_w) < worst_w(bare_w) - 0.02 * bare_w.max()


def test_periods_of_an_hour_give_the_same_as_quarters_of_one() -> None:
    """A day by the hour and the same day by the quarter, with flat quarters, win about the same."""
    fine = _given()
    steps = 24
    hourly_w = np.array([[900.0 + 400.0 * np.exp(-(((hour - 8.0) / 2.0) ** 2)) for hour in range(steps)]] * 2) * 100.0

    def with_steps(hours: FloatArray, period_h: float, repeat: int) -> Portfolio:
        feeders = replace(fine.feeders, net_load_w=np.repeat(hourly_w, repeat, axis=1), pv_w=np.zeros((2, len(hours))))
        rows = replace(fine.rows, base=np.full((len(fine.rows), len(hours)), 1.0), low=np.full(len(fine.rows), 0.1))
        return replace(
            fine,
            hours=hours,
            period_h=period_h,
            feeders=replace(feeders, low_w=np.full(2, -1e6), high_w=np.full(2, 1e6)),
            rows=rows,
            past_net_w=np.full(round(3.0 / period_h), 2.0 * hourly_w[0, 0]),
            previous_w=np.zeros((2, len(hours))),
            price=np.zeros(len(hours)),
        )

    weights = PlanWeights(ramp=0.0, change=0.0, spread=0.0)
    coarse_w = _net_w(with_steps(np.ones(steps), 1.0, 1), weights)
    quarters_w = _net_w(with_steps(np.full(4 * steps, 0.25), 0.25, 4), weights)
    assert abs(coarse_w.max() - quarters_w.max()) < 2e-3 * hourly_w.sum(axis=0).max()
