"""The sky of the coming hours as a cloud index with a band, from what has been seen and from a weather forecast.

    k(t) = k_course(t) + (k_now - k_hour) exp(-h / 0.2),      pv(t) = clear_sky(t) k(t)

with h hours ahead. The course begins with k_hour, PV against clear sky over the last half hour, and goes on with what
the hours of this day and the days before say of the next (`sun.py`). How cloudy the hour is lasts longer than the
cloud that passes now. Where somebody forecasts the weather, the course fades to that: what is seen now is known better
than any forecast of it, and tomorrow's weather worse.
"""

from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np

from derms.domain.arrays import FloatArray
from derms.forecast.gates import SKY, Gated, Samples, gated, pv_bounds_pu
from derms.forecast.history import DAY
from derms.forecast.pv import ClearSky
from derms.forecast.record import DAY_QUARTERS, HOUR_S, QUARTER_S, Record, hourly, middles_s, standard_offset_s
from derms.forecast.sun import CLOUD_TYPICAL, INDEX_MAX, INDEX_MIN, MEMORY_DAYS, SKY_MIN_PU, cloud_memory, index_ahead
from derms.forecast.weather import Outlook, SkyQuantity

PASSING_CLOUD_MEMORY_H = 0.2
"""After this time a cloud that passes now is gone to 1/e [h]."""
SEEN_MEMORY_H = 2.0
"""After this time what is seen now weighs 1/e against a weather forecast [h]."""
NOW_BAND = 0.05
"""Half of the 80 % band of the cloud index at once: the sky over the next minutes is never quite that of the last."""
NOW_S = 200.0
"""How far back `now` reaches [s]."""
WEATHER_AGE_MAX_S = 24 * HOUR_S
"""A weather forecast that was made earlier is not used."""
WEATHER_GAP_MAX_S = 3.5 * HOUR_S
"""Between moments further apart a weather forecast says nothing."""
GHI_MIN_W_PER_M2 = 50.0
"""Under this clear-sky irradiance its ratio is noise."""


@dataclass(frozen=True)
class CloudCourse:
    """Cloud index through knots, linear between them."""

    now: float
    """PV against clear sky over the last minutes."""
    hour: float
    """The same over the last half hour."""
    knots_s: FloatArray
    """Moments [s since 1970], rising, shape (k,)."""
    index: FloatArray
    """Quantiles 10 %, 50 % and 90 %, shape (k, 3)."""

    def ahead(self, now_s: float, times_s: FloatArray, told: FloatArray) -> FloatArray:
        """Quantiles at moments from now on, shape (..., 3); `told` is what the weather forecast says, NaN for none."""
        course: FloatArray = np.stack([np.interp(times_s, self.knots_s, each) for each in self.index.T], axis=-1)
        ahead_h = np.maximum(times_s - now_s, 0.0) / HOUR_S
        weight = np.where(np.isfinite(told), 1.0 - np.exp(-ahead_h / SEEN_MEMORY_H), 0.0)
        course += (weight * (np.nan_to_num(told) - course[..., 1]))[..., None]
        course += ((self.now - self.hour) * np.exp(-ahead_h / PASSING_CLOUD_MEMORY_H))[..., None]
        clipped: FloatArray = np.clip(course, INDEX_MIN, INDEX_MAX)
        return clipped


def cloud_course(
    record: Record, now_s: float, hours: float, zone: ZoneInfo, *, cloud_now: float, cloud_hour: float
) -> CloudCourse:
    """The cloud index from now over some hours; `cloud_now` and `cloud_hour` are NaN where nothing was seen."""
    offset_s = standard_offset_s(now_s, zone)
    place = int((now_s + offset_s) // HOUR_S)
    first_day = place // DAY - MEMORY_DAYS
    start = first_day * DAY_QUARTERS - round(offset_s / QUARTER_S)
    days = record.between(start, start + (MEMORY_DAYS + 1) * DAY_QUARTERS)
    pv_pu = hourly(days.pv_pu)
    clear_pu = np.nan_to_num(hourly(np.where(np.isfinite(days.pv_pu), days.clear_pu, np.nan)))
    place -= first_day * DAY
    seen = np.isfinite(cloud_hour)
    if seen:
        pv_pu[place], clear_pu[place] = cloud_hour, 1.0
    origin = place + 1 if seen else place
    leads = np.arange(int(hours) + 3)
    index = index_ahead(cloud_memory(pv_pu, clear_pu), np.array([origin]), leads)[0]
    knots_s = middles_s(first_day * DAY + origin + leads, HOUR_S) - offset_s
    if seen:
        index = np.concatenate([[cloud_hour + np.array([-NOW_BAND, 0.0, NOW_BAND])], index])
        knots_s = np.concatenate([[now_s], knots_s])
    typical = cloud_hour if seen else CLOUD_TYPICAL
    return CloudCourse(cloud_now if np.isfinite(cloud_now) else typical, typical, knots_s, index)


def cloud_index(at_s: FloatArray, pv_pu: FloatArray, clear_pu: FloatArray, since_s: float) -> float:
    """Measured PV against clear sky since a moment; NaN where there is too little of either."""
    known = np.isfinite(pv_pu) & (at_s >= since_s)
    if not known.any() or clear_pu[known].mean() < SKY_MIN_PU:
        return np.nan
    return float(np.clip(pv_pu[known].sum() / clear_pu[known].sum(), INDEX_MIN, INDEX_MAX))


def told_index(outlook: Outlook, times_s: FloatArray, now_s: float, sky: ClearSky) -> tuple[FloatArray, Gated]:
    """The cloud index that a weather forecast tells of moments, of their shape, NaN where it tells none; its gates."""
    clear_pu = sky.exact_pu(outlook.at_s)
    ghi = outlook.quantity is SkyQuantity.GHI
    whole = sky.ghi_w_per_m2(outlook.at_s) / 1000.0 if ghi else np.ones_like(clear_pu)
    usual = whole if ghi else np.where(clear_pu > SKY_MIN_PU, 1.0, 0.0)
    low, high = pv_bounds_pu(whole)
    passed = gated(
        Samples(
            name="weather forecast",
            at_s=outlook.at_s,
            said_s=np.full(outlook.at_s.size, outlook.made_at.timestamp()),
            values=outlook.values / 1000.0 if ghi else outlook.values,
            usual=usual,
            low=low,
            high=high,
            now_s=now_s,
            age_max_s=WEATHER_AGE_MAX_S,
        ),
        SKY,
    )
    index = passed.values / np.where(whole > GHI_MIN_W_PER_M2 / 1000.0, whole, np.nan)
    return _between(times_s, outlook.at_s, np.clip(index, INDEX_MIN, INDEX_MAX)), passed


def _between(times_s: FloatArray, at_s: FloatArray, index: FloatArray) -> FloatArray:
    """Linear between moments that are near enough to each other, NaN elsewhere; the dark says nothing."""
    known = np.isfinite(index) & np.isfinite(at_s)
    at_s, index = at_s[known], index[known]
    if at_s.size < 2:
        return np.full(times_s.shape, np.nan)
    after = np.clip(np.searchsorted(at_s, times_s), 1, at_s.size - 1)
    near = (at_s[after] - at_s[after - 1] <= WEATHER_GAP_MAX_S) & (times_s >= at_s[0]) & (times_s <= at_s[-1])
    return np.where(near, np.interp(times_s, at_s, index), np.nan)
