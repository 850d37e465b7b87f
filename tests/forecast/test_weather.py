"""A weather forecast is used where it is there, young, and passes the gates; else the sky is forecast without it."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from derms.domain.alarm import Event
from derms.domain.forecast import Forecast
from derms.forecast.weather import (
    TELL_MAX,
    CsvWeather,
    Outlook,
    SkyQuantity,
    WeatherForecast,
    read_weather,
)
from derms.forecast.weather import told as said
from tests.forecast.sight import NOON, PLACE, QUARTERS, Says, forecaster, nothing, seen

HOUR = timedelta(hours=1)
LATER = slice(92, 108)
"""Steps around tomorrow's noon."""


class SaysNothing:
    def outlook(self, now: datetime) -> Outlook | None:
        return None


def _made(weather: WeatherForecast | None, index: float = 0.8) -> Forecast:
    return forecaster(weather=weather).forecast(NOON, QUARTERS, seen(NOON, index=index))


def test_tomorrow_is_as_the_weather_forecast_has_it_and_now_as_it_is_seen() -> None:
    told, own = _made(Says(np.full(1, 0.2))), _made(None)
    assert "weather forecast of 11:00" in told.method
    assert told.pv_w[0] == pytest.approx(own.pv_w[0], rel=0.1)
    assert (told.pv_w[LATER] < 0.35 * own.pv_w[LATER]).all()
    assert ((told.pv_band_w[:, 0] <= told.pv_w) & (told.pv_w <= told.pv_band_w[:, 1])).all()


def test_irradiance_is_held_against_that_of_a_clear_sky() -> None:
    at_s = NOON.timestamp() + 3600.0 * np.arange(-2.0, 46.0)
    half = 0.5 * PLACE.sky.ghi_w_per_m2(at_s)
    told, same = _made(Says(half, SkyQuantity.GHI)), _made(Says(np.full(1, 0.5)))
    np.testing.assert_allclose(told.pv_w[LATER], same.pv_w[LATER], rtol=0.02)


@pytest.mark.parametrize(
    ("weather", "words"),
    [
        (Says(np.full(1, 0.2), age=timedelta(days=2)), "too old"),
        (Says(np.full(1, np.inf)), "not a finite number"),
        (Says(np.full(1, -0.3)), "below zero"),
        (Says(np.full(1, 20.0)), "are the units right"),
        (Says(np.full(1, 1e12)), "more than a clear sky"),
        (Says(np.full(1, 1e9), SkyQuantity.GHI), "weather forecast: "),
        (Says(np.full(1, 1e-4)), "are the units right"),
        (SaysNothing(), "no weather forecast"),
    ],
)
def test_a_weather_forecast_that_cannot_be_is_left_out_and_told(weather: WeatherForecast, words: str) -> None:
    told = _made(weather)
    np.testing.assert_array_equal(told.pv_w, _made(None).pv_w)
    assert words in told.method


def test_a_weather_forecast_that_cannot_be_is_an_event_until_there_is_a_better_one() -> None:
    weather = Says(np.full(1, 20.0))
    one = forecaster(weather=weather)
    kinds = []
    for hour, value in enumerate((20.0, 20.0, 0.5, 0.5)):
        now = NOON + HOUR * hour
        weather.values = np.full(1, value)
        kinds.append([event.kind for event in one.score(now, nothing(now))])
        one.forecast(now, QUARTERS, nothing(now))
    assert kinds == [[], ["forecast-input"], [], ["forecast-input-good"]]


def test_hours_that_a_weather_forecast_leaves_out_are_forecast_without_it() -> None:
    values = np.full(48, 0.2)
    values[12:] = np.nan
    told, own = _made(Says(values)), _made(None)
    assert (told.pv_w[12:20] < 0.8 * own.pv_w[12:20]).all()
    np.testing.assert_array_equal(told.pv_w[LATER], own.pv_w[LATER])


def _write(path: Path, header: str, rows: Sequence[str]) -> CsvWeather:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf8")
    return CsvWeather(path)


def test_a_file_holds_forecasts_made_at_several_times_and_the_newest_made_by_now_counts(tmp_path: Path) -> None:
    weather = _write(
        tmp_path / "sky.csv",
        "made_at_utc,time_utc,cloud_index",
        [
            "2026-04-15T12:00:00Z,2026-04-15T20:00:00Z,0.5",
            "2026-04-15T18:00:00Z,2026-04-15T21:00:00Z,0.7",
            "2026-04-15T18:00:00,2026-04-15T20:00:00+00:00,0.6",
            "2026-04-15T18:00:00Z,not a time,0.9",
            "2026-04-15T18:00:00Z",
            "2026-04-15T23:00:00Z,2026-04-15T23:00:00Z,0.1",
        ],
    )
    found = weather.outlook(NOON)
    assert found is not None
    assert (found.made_at, found.quantity) == (NOON - HOUR, SkyQuantity.CLOUD_INDEX)
    np.testing.assert_array_equal(found.values, [0.6, 0.7])
    early = weather.outlook(NOON - 6 * HOUR)
    assert early is not None
    assert list(early.values) == [0.5]
    assert weather.outlook(NOON - 8 * HOUR) is None


def test_a_file_that_changes_is_read_again_and_one_that_goes_or_makes_no_sense_is_none(tmp_path: Path) -> None:
    path = tmp_path / "sky.csv"
    weather = CsvWeather(path)
    assert weather.outlook(NOON) is None
    _write(path, "made_at_utc,time_utc,ghi_w_per_m2", ["2026-04-15T12:00:00Z,2026-04-15T20:00:00Z,950"])
    found = weather.outlook(NOON)
    assert found is not None
    assert (found.quantity, list(found.values)) == (SkyQuantity.GHI, [950.0])
    _write(path, "when,what", ["1,2"])
    assert weather.outlook(NOON) is None
    path.write_bytes(b"\xff\xfe\x00")
    assert weather.outlook(NOON) is None
    path.unlink()
    assert weather.outlook(NOON) is None


def test_from_a_file_to_the_forecast(tmp_path: Path) -> None:
    rows = [f"2026-04-15T18:00:00Z,{NOON + HOUR * n:%Y-%m-%dT%H:%M:%SZ},0.2" for n in range(48)]
    weather = _write(tmp_path / "sky.csv", "made_at_utc,time_utc,cloud_index", rows)
    told = forecaster(weather=weather).forecast(NOON, QUARTERS, nothing(NOON))
    assert told.pv_frac[LATER].max() < 0.25


GOOD = "2026-04-15T12:00:00Z,2026-04-15T20:00:00Z,0.5"
COLUMNS = "made_at_utc,time_utc,cloud_index"
WRONG_ROWS = {
    "2026-04-15T12:00:00Z,2026-04-15T21:00:00Z,nan": ("column cloud_index", "'nan' is not a number"),
    "2026-04-15T12:00:00Z,2026-04-15T21:00:00Z,cloudy": ("column cloud_index", "'cloudy' is not a number"),
    "2026-04-15T12:00:00Z,2026-04-15T21:00:00Z": ("column cloud_index", "there is no number"),
    "2026-04-15T12:00:00Z,noon,0.5": ("column time_utc", "'noon' is not a time"),
    ",2026-04-15T21:00:00Z,0.5": ("column made_at_utc", "there is no time"),
}
DOUBTFUL_ROWS = {
    "2026-04-15T12:00:00Z,2026-04-15T21:00:00Z,80": ("column cloud_index", "80 is more or less than any sky gives"),
    "2026-04-15T12:00:00Z,2026-04-15T11:00:00Z,0.5": (
        "column time_utc",
        "2026-04-15T11:00:00Z is before the forecast was made, at 2026-04-15T12:00:00Z",
    ),
}


@pytest.mark.parametrize("row", [*WRONG_ROWS, *DOUBTFUL_ROWS])
def test_a_row_that_is_wrong_is_named_with_its_column(row: str, tmp_path: Path) -> None:
    path = tmp_path / "sky.csv"
    _write(path, COLUMNS, [GOOD, row])
    found = read_weather(path)
    (problem,) = found.left_out if row in WRONG_ROWS else found.doubtful
    column, wrong = (WRONG_ROWS | DOUBTFUL_ROWS)[row]
    assert (problem.file, problem.where, problem.wrong) == (str(path), f"row 3, {column}", wrong)
    assert found.outlooks[0].values[0 if row in WRONG_ROWS else -1] in (0.5, 80.0)


def test_a_file_in_percent_is_told_what_was_meant(tmp_path: Path) -> None:
    _write(tmp_path / "sky.csv", COLUMNS, ["2026-04-15T12:00:00Z,2026-04-15T21:00:00Z,80"])
    (problem,) = read_weather(tmp_path / "sky.csv").doubtful
    assert problem.right == "give 0 to 1.5; was 0.8 meant?"


def test_of_very_many_mistakes_the_first_are_told_and_the_rest_counted(tmp_path: Path) -> None:
    _write(tmp_path / "sky.csv", COLUMNS, ["now,then,much"] * 100)
    shown = said(read_weather(tmp_path / "sky.csv").left_out)
    assert len(shown) == TELL_MAX + 1
    assert shown[-1].wrong == "250 more mistakes"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "there is no file "),
        ("", "row 1: there is no header; the columns are made_at_utc, time_utc, and cloud_index or ghi_w_per_m2"),
        (f"{COLUMNS}\n", "row 2: there is no row below the header"),
        ("when,what\n1,2\n", "row 1: the header is when, what; the columns are made_at_utc"),
        (f"{COLUMNS}\n{GOOD}\nx,y,z\n{GOOD}\n", "1 of 3 rows left out, row 3, column made_at_utc: 'x' is not a time"),
        (f"{COLUMNS}\n2026-05-15T12:00:00Z,2026-05-15T20:00:00Z,0.5\n", "which is still to come"),
    ],
)
def test_why_there_is_no_weather_forecast_is_told_once_with_the_file(
    text: str | None, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "sky.csv"
    if text is not None:
        path.write_text(text)
    one, method = forecaster(weather=CsvWeather(path)), ""
    events: list[Event] = []
    for hour in range(3):
        now = NOON + HOUR * hour
        events += one.score(now, nothing(now))
        method = one.forecast(now, QUARTERS, nothing(now)).method
    assert [event.kind for event in events] == ["forecast-input"]
    for told in (events[0].text, method):
        assert words in told
        assert str(path) in told
