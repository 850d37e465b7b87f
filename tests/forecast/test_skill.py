"""Skill: who may forecast at which lead, told at the transition, and not with every hour."""

import numpy as np
import pytest

from derms.domain.alarm import Event, Severity
from derms.domain.arrays import FloatArray
from derms.forecast.skill import Contest, SkillMonitor
from tests.forecast.sight import NOON


def test_a_model_worse_than_persistence_is_demoted_with_a_reason_and_taken_back_when_good_again() -> None:
    monitor = SkillMonitor()
    lead, actual = np.array([3.0]), np.array([1e6])
    for _ in range(60):
        monitor.score(lead, actual + 2e5, actual + 1e5, actual)
    assert monitor.demoted
    assert monitor.reason == "up to 6 h ahead the model errs by 200 kW, persistence by 100 kW"
    for _ in range(400):
        monitor.score(lead, actual + 1e4, actual + 1e5, actual)
    assert (monitor.demoted, monitor.reason) == (False, "")


def test_what_never_arrived_is_not_scored() -> None:
    monitor = SkillMonitor()
    for _ in range(100):
        monitor.score(np.array([3.0]), np.array([1e6]), np.array([1e6]), np.array([np.nan]))
    assert not monitor.demoted


def test_a_model_that_is_a_little_worse_now_and_a_little_better_then_keeps_what_it_has() -> None:
    monitor = SkillMonitor()
    lead, actual = np.array([3.0]), np.array([1e6])
    for share in (1.02, 0.98, 1.03):
        for _ in range(100):
            monitor.score(lead, actual + share * 1e5, actual + 1e5, actual)
        assert not monitor.demoted


def test_where_persistence_is_better_it_is_used_and_where_the_model_is_better_that_is() -> None:
    monitor = SkillMonitor(("yesterday", "last week"))
    leads, actual = np.array([0.5, 3.0, 12.0, 36.0]), np.full(4, 1e6)
    model = actual + np.array([1e4, 1e4, 3e5, 1e4])
    rivals = actual[:, None] + np.array([2e5, 1e5])
    for _ in range(60):
        monitor.score(leads, model, rivals, actual)
    np.testing.assert_allclose(monitor.trust(np.array([0.5, 3.5, 15.0, 36.0])), [1.0, 1.0, 0.0, 1.0])
    assert 0.0 < monitor.trust(np.array([10.0]))[0] < 1.0
    assert monitor.reason == "up to 24 h ahead the model errs by 300 kW, last week by 100 kW"
    assert monitor.rival == 1
    np.testing.assert_allclose(monitor.rival_error_w(np.array([12.0])), 1e5)


def test_a_rival_that_is_not_known_yet_judges_nobody() -> None:
    monitor = SkillMonitor(("yesterday", "last week"))
    lead, actual = np.array([3.0]), np.array([1e6])
    for _ in range(60):
        monitor.score(lead, actual + 1e5, np.array([[np.nan, 1e6 + 2e5]]), actual)
    assert not monitor.demoted
    for _ in range(60):
        monitor.score(lead, actual + 1e5, np.array([[1e6 + 1e4, 1e6 + 2e5]]), actual)
    assert (monitor.demoted, monitor.rival) == (True, 0)


def _quantiles(model_w: float, half_w: float = 1e4) -> FloatArray:
    return np.tile(model_w + half_w * np.array([-1.0, 0.0, 1.0]), (6, 1))


def _run(contest: Contest, hours: range, model_w: float, rival_w: float) -> list[tuple[str, Severity]]:
    """Every hour a forecast of the next six; every hour comes with 1 MW."""
    said: list[Event] = []
    for hour in hours:
        said += contest.settle(NOON, hour, 1e6)
        contest.promise(hour + 1, _quantiles(model_w), np.full((6, 1), rival_w))
    return [(event.kind, event.severity) for event in said]


def test_a_contest_tells_once_when_a_model_loses_its_place_and_once_when_it_has_it_back() -> None:
    contest = Contest("load", ("the last day",))
    assert _run(contest, range(40), 1.2e6, 1.1e6) == []
    assert _run(contest, range(40, 80), 1.2e6, 1.1e6) == [("forecast-demoted", Severity.WARNING)]
    assert _run(contest, range(80, 400), 1.01e6, 1.1e6) == [("forecast-restored", Severity.INFO)]


def test_a_new_model_is_judged_anew() -> None:
    contest = Contest("load", ("the last day",))
    _run(contest, range(200), 1.2e6, 1.1e6)
    assert contest.monitor.demoted
    contest.restart()
    assert not contest.monitor.demoted
    assert _run(contest, range(200, 230), 1.0e6, 1.1e6) == []


def test_an_hour_that_nobody_measured_says_nothing() -> None:
    contest = Contest("load", ("the last day",))
    for hour in range(200):
        assert contest.settle(NOON, hour, np.nan) == ()
        contest.promise(hour + 1, _quantiles(9e6), np.full((6, 1), 1e6))
    assert not contest.monitor.demoted


@pytest.mark.parametrize(("half_w", "share"), [(0.3e5, 1.28 / 0.3), (1.28e5, 1.0), (2.0e5, 0.64)])
def test_a_band_that_holds_too_little_of_what_comes_grows_until_it_holds_four_in_five(
    half_w: float, share: float
) -> None:
    """Errors are normal with a deviation of 100 kW, so that 128 kW to both sides hold 80 %."""
    contest, draw = Contest("load", ("the last day",)), np.random.default_rng(2)
    for hour in range(2000):
        contest.settle(NOON, hour, 1e6 + 1e5 * draw.standard_normal())
        contest.promise(hour + 1, _quantiles(1e6, half_w), np.full((6, 1), 1e6))
    assert contest.width == pytest.approx(min(share, 3.0), rel=0.15)
