"""The forecast of the service: the local day whatever the clocks do, clouds that pass, what the operator is told."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from derms.domain.alarm import Event, Severity
from derms.domain.arrays import FloatArray
from derms.domain.forecast import Forecast
from derms.forecast.climate import climate_of, local_quarter, standard_profile
from derms.forecast.demand import Fit
from derms.forecast.forecaster import Forecaster
from derms.forecast.netload import WEEKDAY_SHAPE, Seen
from derms.forecast.sun import CLOUD_TYPICAL, INDEX_MAX
from tests.forecast.sight import (
    NOON,
    PEAK_W,
    PLACE,
    PV_W,
    QUARTER,
    QUARTERS,
    ZONE,
    Says,
    clear_pu,
    forecaster,
    minutes_before,
    nothing,
    records,
    seen,
    usual_w,
)

STEP_PROFILE_W = 1e6 + 1e4 * np.arange(96, dtype=np.float64)
"""Every quarter hour of the local day has a load of its own."""
CLOCK_CHANGES = [
    pytest.param((2026, 3, 8), [*range(8), *range(12, 96)], id="23 hours"),
    pytest.param((2026, 11, 1), [*range(8), *range(4, 96)], id="25 hours"),
    pytest.param((2026, 4, 15), [*range(96)], id="24 hours"),
]
HOUR = timedelta(hours=1)


def _steps_w(times: list[datetime]) -> FloatArray:
    quarter = local_quarter(np.array([time.timestamp() for time in times]), ZONE)
    load_w: FloatArray = STEP_PROFILE_W[quarter.astype(int)]
    return load_w


def _middles(now: datetime, hours: FloatArray) -> list[datetime]:
    return [now + timedelta(hours=float(h)) for h in np.cumsum(hours) - hours / 2.0]


def _index(made: Forecast) -> FloatArray:
    """PV against clear sky; NaN in the dark."""
    clear = clear_pu(*_middles(made.start, made.hours))
    return np.where(clear > 0.1, made.pv_frac / np.maximum(clear, 0.1), np.nan)


def _kinds(events: tuple[Event, ...]) -> list[str]:
    return [event.kind for event in events]


@pytest.mark.parametrize(("day", "quarters"), CLOCK_CHANGES)
def test_on_days_of_23_and_25_hours_every_step_has_the_load_of_its_local_time(
    day: tuple[int, int, int], quarters: list[int]
) -> None:
    """In March the local hour from two is left out, in November the one from one comes twice."""
    midnight = datetime(*day, tzinfo=ZONE).astimezone(UTC)
    one = forecaster(pv_rated_w=0.0)
    one.remember(midnight, *records(midnight, 7, _steps_w))
    made = one.forecast(midnight, np.full(len(quarters), 0.25), nothing(midnight))
    assert (made.net_load_w.shape, made.start) == ((len(quarters),), midnight)
    np.testing.assert_allclose(made.net_load_w, STEP_PROFILE_W[quarters])


@pytest.mark.parametrize("day", [(2026, 3, 8), (2026, 11, 1)])
def test_days_with_a_clock_change_among_the_records_keep_each_local_quarter_in_its_place(
    day: tuple[int, int, int],
) -> None:
    now = (datetime(*day, tzinfo=ZONE) + timedelta(days=3)).astimezone(UTC)
    one = forecaster(pv_rated_w=0.0)
    one.remember(now, *records(now, 7, _steps_w))
    made = one.forecast(now, np.full(96, 0.25), nothing(now))
    np.testing.assert_allclose(made.net_load_w, STEP_PROFILE_W)


def _hourly_w(times: list[datetime]) -> FloatArray:
    """Load that falls and rises steeply with the local hour."""
    hour = np.array([time.astimezone(ZONE).hour for time in times])
    return np.asarray(2e6 * np.exp(0.4 * np.sin(2.0 * np.pi * hour / 24.0)), dtype=np.float64)


def _fitted(now: datetime, origin_hours: tuple[int, ...], days: int = 400) -> Forecaster:
    one = Forecaster(PLACE, pv_rated_w=0.0, peak_w=PEAK_W, fit=Fit(origin_hours=origin_hours, rows_max=3000))
    assert one.learn(now, *records(now, days, _hourly_w, step=HOUR)) == ()
    return one


@pytest.mark.slow
@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 8), 23), ((2026, 11, 1), 25)])
def test_the_fitted_model_too_follows_the_wall_clock_through_days_of_23_and_25_hours(
    day: tuple[int, int, int], hours: int
) -> None:
    midnight = datetime(*day, tzinfo=ZONE).astimezone(UTC)
    one = _fitted(midnight, (0,))
    made = one.forecast(midnight, np.full(hours + 12, 1.0), nothing(midnight))
    assert made.method.startswith("load as fitted x ")
    true_w = _hourly_w([midnight + HOUR * (n + 0.5) for n in range(hours + 12)])
    np.testing.assert_allclose(made.net_load_w, true_w, rtol=0.06)
    as_if_w = np.roll(true_w, 1 if hours == 23 else -1)  # what a count of elapsed hours would say after the change
    assert np.abs(made.net_load_w / true_w - 1.0).mean() < 0.3 * np.abs(as_if_w / true_w - 1.0)[4:].mean()


@pytest.mark.slow
def test_a_year_of_hours_is_fitted_once_and_told_and_a_later_call_waits_a_week() -> None:
    one = _fitted(NOON, (NOON.astimezone(ZONE).hour,), days=366)
    told = one.score(NOON, nothing(NOON))
    assert [(event.kind, event.severity) for event in told] == [("forecast-fitted", Severity.INFO)]
    assert told[0].text == "a model of load is fitted on 366 days of records"
    assert one.score(NOON, nothing(NOON)) == ()
    assert not one.fit_due(NOON + timedelta(days=6))
    assert one.fit_due(NOON + timedelta(days=7))
    made = one.forecast(NOON, QUARTERS, seen(NOON, _hourly_w([NOON])[0]))
    assert made.method.startswith("load as fitted x ")
    band = made.net_load_band_w
    assert ((band[:, 0] <= made.net_load_w) & (made.net_load_w <= band[:, 1])).all()


def test_less_than_a_year_of_records_makes_a_profile_and_no_model() -> None:
    one = forecaster()
    one.learn(NOON, *records(NOON, 100, step=HOUR))
    assert not one.fit_due(NOON)
    assert one.forecast(NOON, QUARTERS, nothing(NOON)).method.startswith("recent days' load")


def test_without_records_the_published_weekday_scaled_to_the_peak_is_expected() -> None:
    midnight = NOON - 12 * HOUR
    made = forecaster(pv_rated_w=0.0).forecast(midnight, np.full(24, 1.0), nothing(midnight))
    np.testing.assert_allclose(made.net_load_w / PEAK_W, WEEKDAY_SHAPE, atol=0.01)
    assert made.method.startswith("standard load")


def test_steps_of_any_length_over_36_hours_are_means_of_what_quarters_say() -> None:
    hours = np.concatenate([np.full(12, 1 / 12), np.full(20, 0.25), np.full(30, 1.0)])
    fine = forecaster().forecast(NOON, np.full(36 * 12, 1 / 12), seen(NOON, 2.5e6, 0.6))
    made = forecaster().forecast(NOON, hours, seen(NOON, 2.5e6, 0.6))
    assert (made.hours is hours, made.ends_h[-1]) == (True, 36.0)
    assert made.net_load_w.shape == made.feeder_w.shape == (62,)
    assert made.net_load_band_w.shape == made.pv_band_w.shape == (62, 2)
    np.testing.assert_allclose(made.net_load_w[:12], fine.net_load_w[:12], rtol=1e-3)
    np.testing.assert_allclose(made.net_load_w[32:], fine.net_load_w[72:].reshape(-1, 12).mean(axis=1), rtol=0.01)


def test_with_nothing_seen_a_fair_day_and_the_usual_load_are_expected() -> None:
    made = forecaster().forecast(NOON, QUARTERS, nothing(NOON))
    np.testing.assert_allclose(made.pv_frac, CLOUD_TYPICAL * clear_pu(*_middles(NOON, QUARTERS)), atol=2e-3)
    np.testing.assert_allclose(made.net_load_w, usual_w(_middles(NOON, QUARTERS)) - made.pv_w)
    np.testing.assert_allclose(made.pv_w, PV_W * made.pv_frac)
    np.testing.assert_array_equal(made.feeder_w, made.net_load_w)


def test_a_profile_adds_the_sun_that_the_records_had_behind_them() -> None:
    ends, gross_w = records(NOON, 7)
    sun_w = PV_W * CLOUD_TYPICAL * clear_pu(*[end - QUARTER / 2 for end in ends])
    one = forecaster()
    one.remember(NOON, ends, gross_w - sun_w)
    made = one.forecast(NOON, QUARTERS, nothing(NOON))
    assert made.pv_w.max() > 0.5 * PV_W
    np.testing.assert_allclose(made.net_load_w + made.pv_w, usual_w(_middles(NOON, QUARTERS)), rtol=1e-6)


def test_gaps_in_the_records_are_left_out_not_taken_for_zero() -> None:
    ends, net_w = records(NOON, 7)
    net_w[100:110] = np.nan
    one = forecaster(pv_rated_w=0.0)
    assert one.remember(NOON, [*ends[:300], *ends[330:]], np.concatenate([net_w[:300], net_w[330:]])) == ()
    made = one.forecast(NOON, QUARTERS, nothing(NOON))
    np.testing.assert_allclose(made.net_load_w, usual_w(_middles(NOON, QUARTERS)))


def test_clouds_seen_all_hour_dim_the_next_hours_and_tomorrow_is_fairer() -> None:
    index = _index(forecaster().forecast(NOON, QUARTERS, seen(NOON, index=0.3)))
    assert index[0] == pytest.approx(0.3, abs=0.03)
    assert (np.diff(index[:20]) > 0.0).all()
    assert index[96] > 0.75


def test_a_cloud_of_this_minute_is_gone_in_an_hour() -> None:
    last = np.where(np.arange(30) >= 27, 0.2, 0.8)
    passing, lasting, bright = (
        forecaster().forecast(NOON, QUARTERS, seen(NOON, index=index)).pv_frac for index in (last, 0.2, 0.8)
    )
    assert passing[0] < 0.75 * bright[0]
    assert passing[4] > 0.9 * bright[4]
    assert lasting[4] < 0.6 * bright[4]


def test_at_night_what_inverters_show_says_nothing_about_tomorrows_sky() -> None:
    night = NOON - 10 * HOUR
    asleep = Seen(at=minutes_before(night), gross_w=np.full(30, np.nan), pv_frac=np.zeros(30))
    dark, unseen = (forecaster().forecast(night, QUARTERS, each) for each in (asleep, nothing(night)))
    np.testing.assert_array_equal(dark.pv_frac, unseen.pv_frac)


def test_cloudy_days_that_were_measured_lower_what_is_expected_of_the_next() -> None:
    one = forecaster()
    morning = NOON - 8 * HOUR
    for hour in range(6 * 24):
        now = morning - HOUR * (6 * 24 - hour)
        one.score(now, seen(now, 2.5e6, 0.4))
    noon = np.nanmean(_index(one.forecast(morning, QUARTERS, nothing(morning)))[24:40])
    assert 0.4 <= noon < 0.65


def test_an_unusual_load_is_followed_now_and_fades_towards_the_usual_one() -> None:
    one = forecaster(pv_rated_w=0.0)
    one.remember(NOON, *records(NOON, 7, lambda times: np.full(len(times), 2e6) + 1e4 * (_steps_w(times) > 1.5e6)))
    made = one.forecast(NOON, QUARTERS, seen(NOON, 2.4e6))
    assert made.net_load_w[0] == pytest.approx(2.4e6, rel=0.01)
    assert (np.diff(made.net_load_w[:40]) < 0.0).all()
    assert made.net_load_w[95] == pytest.approx(2e6, rel=0.02)


def test_missing_measurements_are_left_out_not_taken_for_zero() -> None:
    whole = forecaster().forecast(NOON, QUARTERS, seen(NOON, 2.4e6, 0.5))
    gross_w, index = np.full(30, 2.4e6), np.full(30, 0.5)
    gross_w[::3], index[1::3] = np.nan, np.nan
    holey = forecaster().forecast(NOON, QUARTERS, seen(NOON, gross_w, index))
    np.testing.assert_allclose(holey.net_load_w, whole.net_load_w, rtol=0.01)
    np.testing.assert_allclose(holey.pv_w, whole.pv_w, rtol=1e-4, atol=1e-6)


def test_a_feeder_that_is_a_part_of_the_system_has_its_share_of_the_load_and_all_of_its_sun() -> None:
    made = forecaster().forecast(NOON, QUARTERS, seen(NOON, 2.4e6, 0.8), feeder_load_w=0.6e6)
    np.testing.assert_allclose(made.feeder_w, 0.25 * (made.net_load_w + made.pv_w) - made.pv_w)


def test_bands_lie_about_the_forecast_and_widen_with_the_hours() -> None:
    made = forecaster().forecast(NOON, QUARTERS, seen(NOON, 2.4e6, 0.6))
    for values, band in ((made.net_load_w, made.net_load_band_w), (made.pv_w, made.pv_band_w)):
        assert ((band[:, 0] <= values) & (values <= band[:, 1])).all()
    width_w = np.ptp(made.net_load_band_w, axis=1)
    assert width_w[0] < width_w[8] < width_w[20]
    lit = made.pv_w > 0.1 * PV_W
    assert (np.ptp(made.pv_band_w, axis=1)[lit][1:] > 0.0).all()


def test_four_in_five_of_the_days_that_follow_lie_within_the_band_of_the_recent_days() -> None:
    draw = np.random.default_rng(5)
    inside = []
    for _ in range(12):
        size: dict[object, float] = {}

        def load(times: list[datetime], size: dict[object, float] = size) -> FloatArray:
            days = [time.astimezone(ZONE).date() for time in times]
            return usual_w(times) * [size.setdefault(day, draw.normal(1.0, 0.08)) for day in days]

        one = forecaster(pv_rated_w=0.0)
        one.remember(NOON, *records(NOON, 14, load))
        made = one.forecast(NOON, np.full(36, 1.0), nothing(NOON))
        came_w = load(_middles(NOON, made.hours))
        inside.append(((made.net_load_band_w[:, 0] <= came_w) & (came_w <= made.net_load_band_w[:, 1]))[12:].mean())
    assert 0.6 < np.mean(inside) < 0.95


GARBAGE = [np.nan, np.inf, -np.inf, 1e12, -1e12, 2.5e3, 2.5, 2.5e9, 0.0]


@pytest.mark.parametrize("value", GARBAGE)
def test_garbage_changes_nothing_and_the_operator_is_told_what_is_wrong(value: float) -> None:
    one, other = forecaster(), forecaster()
    for each in (one, other):
        each.remember(NOON, *records(NOON, 7))
    good = np.where(np.arange(30) % 2 == 0, usual_w(minutes_before(NOON)), np.nan)
    assert other.score(NOON, seen(NOON, good)) == ()
    events = one.score(NOON, seen(NOON, np.where(np.isnan(good), value, good)))
    assert _kinds(events) == ([] if np.isnan(value) else ["forecast-input"])
    made = one.forecast(NOON, QUARTERS, seen(NOON, np.where(np.isnan(good), value, good)))
    np.testing.assert_allclose(made.net_load_w, other.forecast(NOON, QUARTERS, seen(NOON, good)).net_load_w)
    assert ("left out: load now: 15 of 30 values" in made.method) is not np.isnan(value)


def test_kilowatts_for_watts_are_told_once_and_their_end_too() -> None:
    one = forecaster()
    now, said = NOON, []
    for gross in (2.5e6, 2.5e3, 2.5e3, 2.5e6, 2.5e6):
        now += QUARTER
        said.append([(event.kind, event.severity) for event in one.score(now, seen(now, gross))])
    assert said == [
        [],
        [("forecast-input", Severity.WARNING)],
        [],
        [("forecast-input-good", Severity.INFO)],
        [],
    ]
    assert "are the units right?" in one.forecast(now, QUARTERS, seen(now, 2.5e3)).method


def test_records_in_other_units_are_named_and_left_out() -> None:
    ends, net_w = records(NOON, 20)
    net_w[500:600] /= 1e3
    net_w[700:710] = 1e12
    one = forecaster(pv_rated_w=0.0)
    (refusal,) = one.remember(NOON, ends, net_w)
    assert (refusal.reason, refusal.count) == ("units", 100)
    made = one.forecast(NOON, QUARTERS, nothing(NOON))
    np.testing.assert_allclose(made.net_load_w, usual_w(_middles(NOON, QUARTERS)))


def test_a_meter_whose_clock_went_hours_wrong_is_found_out_and_not_followed() -> None:
    one = forecaster(pv_rated_w=0.0)
    now = NOON - 5 * 24 * HOUR
    one.remember(now, *records(now, 14, _hourly_w))
    told: list[Event] = []
    for _ in range(5 * 24):
        now += HOUR
        told += one.score(now, Seen(at=minutes_before(now), gross_w=_late_w(now), pv_frac=np.full(30, np.nan)))
        made = one.forecast(now, QUARTERS, Seen(at=minutes_before(now), gross_w=_late_w(now), pv_frac=np.zeros(30)))
    assert [event.kind for event in told] == ["forecast-input"]
    assert "not at their time of day" in told[0].text
    # The days before the clock went wrong are still believed, and nothing of what is seen now is.
    np.testing.assert_allclose(made.net_load_w, usual_hourly_w(now), rtol=0.15)


def _late_w(now: datetime) -> FloatArray:
    return _hourly_w([time - 5 * HOUR for time in minutes_before(now)])


def usual_hourly_w(now: datetime) -> FloatArray:
    return _hourly_w(_middles(now, QUARTERS))


def test_a_meter_that_stands_still_for_hours_is_not_followed() -> None:
    one = forecaster(pv_rated_w=0.0)
    one.remember(NOON, *records(NOON, 14))
    now = NOON
    for _ in range(24):
        now += QUARTER * 2
        one.score(now, seen(now, 3.0e6))
    made = one.forecast(now, QUARTERS, seen(now, 3.0e6))
    assert "the same for hours" in made.method
    np.testing.assert_allclose(made.net_load_w[:4], usual_w(_middles(now, QUARTERS))[:4], rtol=1e-3)


def test_pv_beyond_the_clear_sky_or_below_zero_is_no_sky() -> None:
    expected = forecaster().forecast(NOON, QUARTERS, nothing(NOON))
    for index, words in ((1.6, "more than a clear sky"), (-1.0, "below zero"), (900.0, "are the units right")):
        made = forecaster().forecast(NOON, QUARTERS, seen(NOON, index=index))
        np.testing.assert_array_equal(made.pv_w, expected.pv_w)
        assert words in made.method


@pytest.mark.slow
def test_a_profile_that_is_worse_than_yesterday_is_demoted_to_it_with_an_event_and_yesterday_is_forecast() -> None:
    one = forecaster(pv_rated_w=0.0)
    now = NOON
    one.remember(now, *records(now, 14, _hourly_w))
    told: list[Event] = []
    for _ in range(4 * 24):
        now += HOUR
        live = Seen(at=minutes_before(now), gross_w=1.5 * _hourly_w(minutes_before(now)), pv_frac=np.full(30, np.nan))
        told += one.score(now, live)
        made = one.forecast(now, np.full(36, 1.0), live)
    assert [(event.kind, event.severity) for event in told] == [("forecast-demoted", Severity.WARNING)]
    assert told[0].text.startswith("the load forecast is demoted to the last day: ")
    assert "load demoted to the last day" in made.method
    true_w = 1.5 * _hourly_w(_middles(now, made.hours))
    np.testing.assert_allclose(made.net_load_w[8:], true_w[8:], rtol=0.07)
    assert ((made.net_load_band_w[:, 0] <= made.net_load_w) & (made.net_load_w <= made.net_load_band_w[:, 1])).all()


SCALES = st.sampled_from([1.0, 1e-3, 1e-6, 1e3, 1e6, 10.0, 0.1, -1.0])
VALUE = st.one_of(
    st.sampled_from([np.nan, np.inf, -np.inf, 1e12, -1e12, 0.0]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.tuples(st.floats(0.5, 1.2), SCALES).map(lambda pair: 2.5e6 * pair[0] * pair[1]),
)
FRAC = st.one_of(st.sampled_from([np.nan, np.inf, 1e12, -5.0]), st.floats(), st.floats(0.0, 1.2))


@settings(max_examples=60, deadline=None)
@given(
    quarter=st.integers(0, 96 * 4),
    live=st.integers(0, 8).flatmap(
        lambda n: st.tuples(
            st.lists(VALUE, min_size=n, max_size=n),
            st.lists(FRAC, min_size=n, max_size=n),
            st.lists(st.integers(-100, 2000), min_size=n, max_size=n),
        )
    ),
    past=st.lists(VALUE, max_size=12),
    told=st.lists(FRAC, min_size=1, max_size=6),
    feeder_load_w=VALUE,
)
@example(quarter=0, live=([], [], []), past=[], told=[np.nan], feeder_load_w=np.nan)
@example(
    quarter=48,
    live=([np.inf, 1e308], [np.nan, 1e308], [1, 2]),
    past=[1e308, -1e308] * 6,
    told=[1e308],
    feeder_load_w=np.inf,
)
def test_whatever_was_recorded_and_measured_the_forecast_is_finite_and_within_climatology(
    quarter: int,
    live: tuple[list[float], list[float], list[int]],
    past: list[float],
    told: list[float],
    feeder_load_w: float,
) -> None:
    now = NOON + QUARTER * quarter
    gross_w, pv_frac, ages = live
    measured = Seen(
        at=sorted(now - timedelta(minutes=age) for age in ages), gross_w=np.array(gross_w), pv_frac=np.array(pv_frac)
    )
    one = forecaster(weather=Says(np.array(told), start=now))
    ends, net_w = records(now, 3)
    net_w[40 : 40 + len(past)] = past
    one.remember(now, ends, net_w)
    one.score(now, measured)
    made = one.forecast(now, QUARTERS, measured, feeder_load_w=feeder_load_w)
    for values in (made.net_load_w, made.net_load_band_w, made.pv_w, made.pv_band_w, made.feeder_w):
        assert np.isfinite(values).all()
    assert ((made.pv_frac >= 0.0) & (made.pv_frac <= np.minimum(INDEX_MAX, 1.0))).all()
    climate = climate_of(standard_profile(PEAK_W), ZONE, measured=False)
    low_w, high_w = climate.bounds(np.array([time.timestamp() for time in _middles(now, QUARTERS)]))
    gross = made.net_load_w + made.pv_w
    # Three days with up to an eighth of them garbage move the median by some per cent.
    assert ((gross >= low_w - 0.2 * PEAK_W) & (gross <= 1.2 * high_w)).all()
