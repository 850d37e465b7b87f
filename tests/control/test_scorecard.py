"""The scorecard: sums by the hour, what they come to, and what falls out of the window."""

import math
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from derms.control.modes import MARKS, Scorecard
from derms.control.scorecard import HOUR_S, WINDOW_H, Ahead, Hour, Tally
from derms.domain.forecast import Forecast
from tests.control.test_authority_page import _table

NOON = datetime(2026, 4, 15, 19, 0, tzinfo=UTC)
NOW_S = 5000.0
GOOD = {
    "watched_s": 1800.0,
    "plans": 3.0,
    "verified": 3.0,
    "forecasts": 2.0,
    "forecast_error_w": 60e3,
    "peak_w": 1e6,
    "voltages": 4e4,
    "voltage_error_pu2": 0.36,
    "devices": 10.0,
    "seen": 10.0,
    "wanted": 8.0,
    "clamped": 0.0,
    "judged_min": 30.0,
    "harm_node_min": 0.0,
}


def _week() -> Tally:
    tally = Tally()
    for half_hour in range(2 * 169):
        tally.count(NOON + timedelta(minutes=30 * half_hour), **GOOD)
    return tally


def _card(tally: Tally, at: datetime) -> Scorecard:
    card = tally.card(at, NOW_S)
    assert card is not None
    return card


def test_a_good_week_meets_every_mark() -> None:
    card = _card(_week(), NOON + timedelta(hours=169))
    assert [mark.misses(card) for mark in MARKS] == [""] * len(MARKS)
    assert card.shadow_h == 169.0
    assert card.plans == 3.0 * 338
    assert card.forecast_error_frac == pytest.approx(0.03)
    assert card.voltage_error_pu == pytest.approx(0.003)


@pytest.mark.parametrize(
    ("more", "figure", "value"),
    [
        ({"plans": 14.0}, "verified_frac", 1014.0 / 1028.0),
        ({"forecasts": 1.0, "forecast_error_w": 100e6}, "forecast_error_frac", (338 * 60e3 + 100e6) / 677.0 / 1e6),
        ({"peak_w": 0.1e6}, "forecast_error_frac", 0.03),
        ({"peak_w": 3e6}, "forecast_error_frac", 0.01),
        ({"voltages": 4e4, "voltage_error_pu2": 4e4 * 0.09}, "voltage_error_pu", math.sqrt((338 * 9e-6 + 0.09) / 339)),
        ({"devices": 1000.0, "seen": 300.0}, "seen_frac", 3680.0 / 4380.0),
        ({"wanted": 296.0, "clamped": 200.0}, "clamped_frac", 200.0 / 3000.0),
        ({"judged_min": 1.0, "harm_node_min": 2.0}, "harm_node_min", 2.0),
    ],
)
def test_one_bad_hour_shows_in_its_figure_alone(more: dict[str, float], figure: str, value: float) -> None:
    good, tally = _card(_week(), NOON + timedelta(hours=169)), _week()
    tally.count(NOON + timedelta(hours=3), **more)
    card = _card(tally, NOON + timedelta(hours=169))
    assert getattr(card, figure) == pytest.approx(value)
    others = {field.name for field in fields(Scorecard)} - {figure, "plans"}
    assert {name for name in others if not math.isclose(getattr(card, name), getattr(good, name))} == set()


def test_the_page_says_what_each_mark_needs() -> None:
    assert [cells[0] for cells in _table("Scorecard").values()] == [mark.needed for mark in MARKS]


def test_a_bad_hour_is_forgotten_after_two_weeks() -> None:
    tally = Tally()
    tally.count(NOON, **(GOOD | {"harm_node_min": 7.0}))
    tally.count(NOON + timedelta(hours=WINDOW_H - 1), **GOOD)
    assert _card(tally, NOON + timedelta(hours=WINDOW_H - 1)).harm_node_min == 7.0
    assert _card(tally, NOON + timedelta(hours=WINDOW_H)).harm_node_min == 0.0
    tally.count(NOON + timedelta(hours=WINDOW_H), **GOOD)
    assert _card(tally, NOON + timedelta(hours=WINDOW_H)).shadow_h == 1.0
    assert tally.card(NOON + timedelta(hours=3 * WINDOW_H), NOW_S) is None


def test_what_was_never_measured_meets_no_mark_and_nothing_at_all_is_no_card() -> None:
    assert Tally().card(NOON, NOW_S) is None
    tally = Tally()
    tally.count(NOON, watched_s=60.0)
    card = _card(tally, NOON)
    unknown = {field.name for field in fields(card) if math.isnan(getattr(card, field.name))}
    assert unknown == {field.name for field in fields(card)} - {"taken_s", "shadow_h", "plans"}
    assert all(mark.misses(card) for mark in MARKS)


def test_a_card_is_as_old_as_what_was_counted_last_also_after_a_restart() -> None:
    tally = Tally()
    hours = [tally.count(NOON + timedelta(minutes=minutes), **GOOD) for minutes in (0, 30, 70)]
    again = Tally(hours[1:])
    at = NOON + timedelta(minutes=100)
    assert _card(again, at) == _card(tally, at)
    assert _card(again, at).taken_s == NOW_S - 1800.0
    assert _card(again, NOON).taken_s == NOW_S  # the wall clock was put back


def test_an_hour_is_the_same_in_whatever_parts_it_came() -> None:
    tally = Tally()
    tally.count(NOON, **GOOD)
    hour = tally.count(NOON + timedelta(minutes=30), **(GOOD | {"peak_w": 2e6}))
    one = Hour(number=int(NOON.timestamp() // HOUR_S), until_s=NOON.timestamp(), **GOOD)
    assert hour == one.plus(replace(one, until_s=one.until_s + 1800.0, peak_w=2e6))
    assert (hour.peak_w, hour.plans, hour.number) == (2e6, 6.0, one.number)


def _forecast(at: datetime) -> Forecast:
    """Quarters of an hour: each 100 kW more than the one before, from 0."""
    net_w = 100e3 * np.arange(8, dtype=np.float64)
    pv = np.zeros(8)
    return Forecast(
        made_at=at, start=at, hours=np.full(8, 0.25), net_load_w=net_w, pv_w=pv, pv_frac=pv, method="made up"
    )


def test_a_forecast_is_judged_by_the_mean_of_the_step_that_begins_in_an_hour() -> None:
    ahead = Ahead()
    ahead.say(_forecast(NOON))
    came = {0: 9e9, 59: 9e9, 60: 410e3, 67: math.nan, 74: 450e3, 75: 9e9}
    errors = [ahead.came(NOON + timedelta(minutes=minute), value_w) for minute, value_w in came.items()]
    assert errors == [[], [], [], [], [], [30e3]]
    assert ahead.came(NOON + timedelta(minutes=90), 0.0) == []


def test_a_step_of_which_nothing_came_and_a_forecast_that_is_too_short_judge_nobody() -> None:
    ahead = Ahead()
    ahead.say(_forecast(NOON))
    short = _forecast(NOON)
    ahead.say(replace(short, hours=np.full(8, 0.125)))
    assert ahead.came(NOON + timedelta(hours=2), 1.0) == []
