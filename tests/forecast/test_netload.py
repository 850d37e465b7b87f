"""Forecasts: the local day whatever the clocks do, the cloud of now that passes, and sense out of missing values."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from derms.domain.arrays import FloatArray
from derms.domain.forecast import Forecast
from derms.forecast.netload import (
    CLOUD_TYPICAL,
    QUARTERS,
    WEEKDAY_SHAPE,
    Place,
    Seen,
    forecast,
    load_profile,
    quarter_of_day,
    standard_profile,
)
from derms.forecast.pv import ClearSky

ZONE = ZoneInfo("America/Los_Angeles")
PLACE = Place(ClearSky(34.05, -118.24), ZONE)
NOON = datetime(2026, 4, 15, 12, 0, tzinfo=ZONE)
PEAK_W, PV_W = 3.6e6, 1.2e6
STEP_PROFILE_W = 1e6 + 1e4 * np.arange(QUARTERS, dtype=np.float64)
"""Every quarter hour of the local day has a load of its own."""
QUARTER = timedelta(minutes=15)
MINUTES = np.arange(30, 0, -1, dtype=np.float64)
"""Ages of the last half hour's measurements, oldest first."""


def _seen(now: datetime, gross_w: FloatArray | float = np.nan, pv_frac: FloatArray | float = np.nan) -> Seen:
    """The last half hour, one measurement a minute."""
    at = [now - timedelta(minutes=age) for age in MINUTES]
    nothing = np.zeros(len(at))
    return Seen(at=at, gross_w=nothing + gross_w, pv_frac=nothing + pv_frac)


def _sky(now: datetime) -> FloatArray:
    """Clear sky at the times of `_seen`."""
    return PLACE.sky.pu(np.array([now.timestamp() - 60.0 * age for age in MINUTES]))


def _forecast(now: datetime, seen: Seen, *, profile_w: FloatArray | None = None, pv_rated_w: float = PV_W) -> Forecast:
    return forecast(
        now,
        steps=96,
        step_s=900.0,
        profile_w=standard_profile(PEAK_W) if profile_w is None else profile_w,
        pv_rated_w=pv_rated_w,
        seen=seen,
        place=PLACE,
    )


def _clear(now: datetime) -> FloatArray:
    return PLACE.sky.pu(np.array([now.timestamp() + (step + 0.5) * 900.0 for step in range(96)]))


@pytest.mark.parametrize(
    ("day", "quarters"),
    [
        ((2026, 3, 8), [*range(8), *range(12, 96), *range(4)]),
        ((2026, 11, 1), [*range(8), *range(4, 92)]),
        ((2026, 4, 15), [*range(96)]),
    ],
)
def test_on_days_of_23_and_25_hours_every_step_has_the_load_of_its_local_time(
    day: tuple[int, int, int], quarters: list[int]
) -> None:
    """In March the local hour from two is left out, in November the one from one comes twice."""
    midnight = datetime(*day, tzinfo=ZONE).astimezone(UTC)
    made = _forecast(midnight, _seen(midnight), profile_w=STEP_PROFILE_W, pv_rated_w=0.0)
    assert (made.net_load_w.shape, made.start, made.step_s) == ((96,), midnight, 900.0)
    np.testing.assert_allclose(made.net_load_w, STEP_PROFILE_W[quarters])


def test_the_profile_of_days_with_a_clock_change_still_has_each_local_quarter_in_its_place() -> None:
    start = datetime(2026, 3, 7, tzinfo=ZONE).astimezone(UTC)
    ends = [start + QUARTER * (n + 1) for n in range(3 * 96 - 4)]
    quarter = quarter_of_day([end - QUARTER / 2 for end in ends], ZONE).astype(int)
    profile_w = load_profile(ends, STEP_PROFILE_W[quarter], 0.0, PLACE)
    assert profile_w is not None
    np.testing.assert_allclose(profile_w, STEP_PROFILE_W)


def test_a_profile_adds_the_sun_that_the_records_had_behind_them() -> None:
    start = NOON.replace(hour=0).astimezone(UTC)
    ends = [start + QUARTER * (n + 1) for n in range(96)]
    middles_s = np.array([(end - QUARTER / 2).timestamp() for end in ends])
    sun_w = PV_W * CLOUD_TYPICAL * PLACE.sky.pu(middles_s)
    profile_w = load_profile(ends, standard_profile(PEAK_W) - sun_w, PV_W, PLACE)
    assert profile_w is not None
    assert sun_w.max() > 0.5 * PV_W
    np.testing.assert_allclose(profile_w, standard_profile(PEAK_W))


def test_a_gap_in_the_records_is_left_out_and_a_gap_in_every_day_gives_no_profile() -> None:
    start = NOON.replace(hour=0).astimezone(UTC)
    ends = [start + QUARTER * (n + 1) for n in range(2 * 96)]
    net_w = np.concatenate([STEP_PROFILE_W, STEP_PROFILE_W])
    net_w[10:20] = np.nan
    profile_w = load_profile(ends, net_w, 0.0, PLACE)
    assert profile_w is not None
    np.testing.assert_allclose(profile_w, STEP_PROFILE_W)
    net_w[96 + 15] = np.nan
    assert load_profile(ends, net_w, 0.0, PLACE) is None


@pytest.mark.parametrize("count", [0, 95])
def test_without_a_full_day_of_records_there_is_no_profile(count: int) -> None:
    ends = [NOON + QUARTER * n for n in range(count)]
    assert load_profile(ends, np.full(count, 1e6), 0.0, PLACE) is None


def test_the_standard_profile_is_the_published_weekday_scaled_to_the_peak() -> None:
    profile_w = standard_profile(PEAK_W)
    hourly = profile_w.reshape(24, 4).mean(axis=1) / PEAK_W
    np.testing.assert_allclose(hourly, WEEKDAY_SHAPE, atol=0.01)
    assert 0.97 * PEAK_W < profile_w.max() <= PEAK_W


def test_with_nothing_seen_a_fair_day_and_the_usual_load_are_expected() -> None:
    made = _forecast(NOON, _seen(NOON))
    np.testing.assert_allclose(made.pv_frac, CLOUD_TYPICAL * _clear(NOON))
    gross_w = _forecast(NOON, _seen(NOON), pv_rated_w=0.0).net_load_w
    np.testing.assert_allclose(made.net_load_w, gross_w - made.pv_w)
    np.testing.assert_allclose(made.pv_w, PV_W * made.pv_frac)


def test_clouds_seen_all_hour_dim_the_next_hours_and_fade_to_a_fair_day() -> None:
    made = _forecast(NOON, _seen(NOON, pv_frac=0.3 * _sky(NOON)))
    clear = _clear(NOON)
    index = made.pv_frac[:24] / clear[:24]
    assert index[0] == pytest.approx(CLOUD_TYPICAL + (0.3 - CLOUD_TYPICAL) * np.exp(-0.125 / 2.0))
    assert (np.diff(index) > 0.0).all()
    tomorrow = made.pv_frac[-1] / clear[-1]
    assert tomorrow == pytest.approx(CLOUD_TYPICAL, abs=1e-3)


def test_a_cloud_of_this_minute_is_gone_in_an_hour() -> None:
    pv_frac = 0.8 * _sky(NOON)
    pv_frac[MINUTES <= 3.0] *= 0.25
    passing = _forecast(NOON, _seen(NOON, pv_frac=pv_frac)).pv_frac
    lasting = _forecast(NOON, _seen(NOON, pv_frac=0.2 * _sky(NOON))).pv_frac
    bright = _forecast(NOON, _seen(NOON, pv_frac=0.8 * _sky(NOON))).pv_frac
    assert passing[0] < 0.75 * bright[0]
    assert passing[4] > 0.9 * bright[4]
    assert lasting[4] < 0.6 * bright[4]


@pytest.mark.parametrize(("seen_pu", "index"), [(5.0, 1.1), (-1.0, 0.05)])
def test_what_no_sky_can_do_is_not_carried_into_the_next_hours(seen_pu: float, index: float) -> None:
    morning = NOON.replace(hour=8)
    made = _forecast(morning, _seen(morning, pv_frac=seen_pu))
    fading = CLOUD_TYPICAL + (index - CLOUD_TYPICAL) * np.exp(-0.125 / 2.0)
    assert made.pv_frac[0] == pytest.approx(fading * _clear(morning)[0])


def test_at_night_what_inverters_show_says_nothing_about_tomorrows_sky() -> None:
    night = NOON.replace(hour=2)
    np.testing.assert_array_equal(
        _forecast(night, _seen(night, pv_frac=0.0)).pv_frac, _forecast(night, _seen(night)).pv_frac
    )


def test_an_unusual_load_is_followed_now_and_fades_towards_the_usual_one() -> None:
    profile_w = np.full(QUARTERS, 2e6)
    made = _forecast(NOON, _seen(NOON, gross_w=2.4e6), profile_w=profile_w, pv_rated_w=0.0)
    assert made.net_load_w[0] == pytest.approx(2e6 * (1.0 + 0.2 * np.exp(-0.125 / 6.0)))
    assert (np.diff(made.net_load_w) < 0.0).all()
    assert made.net_load_w[-1] == pytest.approx(2e6, rel=0.01)


def test_missing_measurements_are_left_out_not_taken_for_zero() -> None:
    gross_w, pv_frac = np.full(30, 2.4e6), 0.5 * _sky(NOON)
    whole = _forecast(NOON, _seen(NOON, gross_w, pv_frac))
    gross_w[::3], pv_frac[1::3] = np.nan, np.nan
    holey = _forecast(NOON, _seen(NOON, gross_w, pv_frac))
    np.testing.assert_allclose(holey.net_load_w, whole.net_load_w, rtol=0.01)
    np.testing.assert_allclose(holey.pv_w, whole.pv_w, rtol=1e-9)


MIXED = st.one_of(st.just(np.nan), st.floats(-1e9, 1e9), st.floats(0.0, 1.2))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 96 * 4),
    st.integers(0, 8).flatmap(
        lambda n: st.tuples(*(st.lists(MIXED, min_size=n, max_size=n).map(np.array) for _ in range(2)))
    ),
)
@example(0, (np.zeros(0), np.zeros(0)))
@example(48, (np.array([np.nan, np.inf]), np.array([-np.inf, np.nan])))
def test_whatever_was_seen_the_forecast_is_finite_and_the_sun_within_nameplate(
    quarter: int, columns: tuple[FloatArray, FloatArray]
) -> None:
    now = NOON + QUARTER * quarter
    gross_w, pv_frac = columns
    seen = Seen(
        at=[now - timedelta(minutes=n) for n in reversed(range(len(gross_w)))], gross_w=gross_w, pv_frac=pv_frac
    )
    made = _forecast(now, seen)
    assert np.isfinite(made.net_load_w).all()
    assert ((made.pv_frac >= 0.0) & (made.pv_frac <= 1.0)).all()
    gross_w = made.net_load_w + made.pv_w
    assert ((gross_w > 0.3 * PEAK_W) & (gross_w < 1.5 * PEAK_W)).all()
