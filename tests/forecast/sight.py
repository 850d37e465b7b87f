"""What forecaster tests share: a place, the last half hour as somebody measured it, records of days."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from derms.domain.arrays import FloatArray
from derms.forecast.climate import at_local, standard_profile
from derms.forecast.forecaster import Forecaster
from derms.forecast.netload import Place, Seen
from derms.forecast.pv import ClearSky
from derms.forecast.weather import Outlook, SkyQuantity, WeatherForecast

ZONE = ZoneInfo("America/Los_Angeles")
PLACE = Place(ClearSky(34.05, -118.24), ZONE)
NOON = datetime(2026, 4, 15, 12, 0, tzinfo=ZONE).astimezone(UTC)
PEAK_W, PV_W = 3.6e6, 1.2e6
QUARTER, MINUTE = timedelta(minutes=15), timedelta(minutes=1)
QUARTERS = np.full(144, 0.25)
"""A day and a half."""


def forecaster(pv_rated_w: float = PV_W, weather: WeatherForecast | None = None) -> Forecaster:
    return Forecaster(PLACE, pv_rated_w=pv_rated_w, peak_w=PEAK_W, weather=weather)


def clear_pu(*times: datetime) -> FloatArray:
    return PLACE.sky.exact_pu(np.array([time.timestamp() for time in times]))


def minutes_before(now: datetime, count: int = 30) -> list[datetime]:
    return [now - MINUTE * age for age in range(count, 0, -1)]


def seen(now: datetime, gross_w: FloatArray | float = np.nan, index: FloatArray | float = np.nan) -> Seen:
    """The last half hour, one measurement a minute: load [W], and PV against clear sky."""
    at = minutes_before(now)
    return Seen(at=at, gross_w=np.zeros(len(at)) + gross_w, pv_frac=clear_pu(*at) * index)


def nothing(now: datetime) -> Seen:
    return Seen(at=[], gross_w=np.empty(0), pv_frac=np.empty(0))


def usual_w(times: list[datetime], peak_w: float = PEAK_W) -> FloatArray:
    """The standard weekday at some moments."""
    return at_local(standard_profile(peak_w), np.array([time.timestamp() for time in times]), ZONE)


def records(
    now: datetime, days: int, load: Callable[[list[datetime]], FloatArray] = usual_w, step: timedelta = QUARTER
) -> tuple[list[datetime], FloatArray]:
    """Net load of the days before now, without any PV behind it: ends of intervals, and means."""
    ends = [now - step * back for back in range(int(timedelta(days=days) / step) - 1, -1, -1)]
    return ends, load([end - step / 2 for end in ends])


@dataclass
class Says:
    """A weather forecast for two days."""

    values: FloatArray
    quantity: SkyQuantity = SkyQuantity.CLOUD_INDEX
    age: timedelta = timedelta(hours=1)
    start: datetime = NOON

    def outlook(self, now: datetime) -> Outlook | None:
        at_s = self.start.timestamp() + 3600.0 * np.arange(-2.0, 46.0)
        values = np.resize(self.values, at_s.size)
        return Outlook(made_at=now - self.age, quantity=self.quantity, at_s=at_s, values=values)
