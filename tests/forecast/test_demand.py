"""The fitted load model: what is known at its origin and nothing else, its band, clock changes."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.forecast.calendar import HOLIDAY_KIND, day_kinds, holidays
from derms.forecast.demand import DemandModel, Fit
from derms.forecast.features import BEFORE, Columns
from derms.forecast.history import DAY, WEEK, History, history_of

ZONE = ZoneInfo("America/Los_Angeles")
FIRST_S = datetime(2021, 1, 1, 8, tzinfo=UTC).timestamp()
FIT = Fit(origin_hours=(10,), leads=tuple(range(14, 38)), rows_max=4000)


def _history(days: int, first_s: float = FIRST_S) -> History:
    """Load with the course of the day, weekends, and chance."""
    hours = np.arange(days * DAY)
    weekend = (hours // DAY) % 7 > 4
    noise = np.random.default_rng(1).normal(0.0, 0.03, hours.size)
    load_w = 3e9 * np.exp(0.2 * np.sin(2.0 * np.pi * hours / DAY) - 0.1 * weekend + noise)
    ends_s: FloatArray = np.asarray(first_s + 3600.0 * (hours + 1.0), dtype=np.float64)
    return history_of(ends_s, np.asarray(load_w, dtype=np.float64), ZONE)


def test_holidays_follow_their_rules_and_move_off_the_weekend() -> None:
    assert {date(2019, 11, 28), date(2019, 5, 27), date(2019, 9, 2), date(2019, 1, 21)} <= holidays(2019)
    assert {date(2021, 7, 5), date(2020, 7, 3)} <= holidays(2021) | holidays(2020)
    days = np.array([date(2019, 7, 4).toordinal(), date(2019, 7, 6).toordinal()])
    np.testing.assert_array_equal(day_kinds(days), [HOLIDAY_KIND, 5])


@pytest.mark.parametrize(("day", "elapsed_h"), [((2026, 3, 8), 23), ((2026, 11, 1), 25)])
def test_every_day_has_24_places_whatever_the_clocks_do(day: tuple[int, int, int], elapsed_h: int) -> None:
    start_s = datetime(*day, tzinfo=ZONE).timestamp()
    number = np.arange(1.0, elapsed_h + 1.0, dtype=np.float64)
    ends_s: FloatArray = np.asarray(start_s + 3600.0 * number, dtype=np.float64)
    history = history_of(ends_s, number, ZONE)
    assert history.hours == DAY
    assert history.load_w[-1] == elapsed_h
    if elapsed_h == 23:
        assert np.isnan(history.load_w[2])
    else:
        assert history.load_w[1] == pytest.approx(2.5)


def test_a_stand_in_for_a_missing_hour_never_comes_from_later() -> None:
    whole = _history(40)
    load_w = whole.load_w.copy()
    load_w[500:520] = np.nan
    later_w = load_w.copy()
    later_w[520:] *= 2.0
    one, other = (History(ZONE, whole.first_day, each).log_load for each in (load_w, later_w))
    np.testing.assert_allclose(one[500:520], np.log(load_w[476:496]))
    np.testing.assert_array_equal(one[:520], other[:520])


def test_features_do_not_look_at_or_beyond_their_origin() -> None:
    history = _history(60)
    origins, leads = np.arange(BEFORE, BEFORE + 48), np.arange(48)
    for shift in (0, 30):
        one = origins[:1] + shift
        changed_w = history.load_w.copy()
        changed_w[one[0] :] *= 10.0
        changed = History(ZONE, history.first_day, changed_w)
        every = np.repeat(one, 48)
        np.testing.assert_allclose(Columns(history).single(every, leads), Columns(changed).single(every, leads))
        np.testing.assert_allclose(Columns(history).whole(one), Columns(changed).whole(one))


@pytest.mark.slow
def test_the_model_beats_last_week_and_its_band_holds_what_it_says() -> None:
    history = _history(730)
    before = 600 * DAY
    origins = np.arange(before + 10, history.hours - 2 * DAY, DAY)
    made = DemandModel(history, FIT, before=before).predict(history, origins)
    places = origins[:, None] + np.array(FIT.leads)
    actual = history.load_w[places]
    assert (np.diff(made, axis=-1) >= 0.0).all()
    error = np.nanmean(np.abs(made[..., 1] / actual - 1.0))
    assert error < 0.8 * np.nanmean(np.abs(history.load_w[places - WEEK] / actual - 1.0))
    assert 0.7 < np.nanmean((made[..., 0] <= actual) & (actual <= made[..., 2])) < 0.9


def test_a_short_history_is_refused_with_what_is_needed() -> None:
    with pytest.raises(ValueError, match="300 are needed"):
        DemandModel(_history(90), FIT)
