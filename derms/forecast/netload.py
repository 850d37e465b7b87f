"""Net load and PV of the coming hours: recent days' load, and the clear sky scaled by what is seen now.

Gross load (net load plus the PV behind it) repeats from day to day; PV does not. So both are forecast apart:

    pv(t)    = nameplate * clear_sky(t) * k(t)
    k(t)     = k_typ + (k_hour - k_typ) exp(-h / 2) + (k_now - k_hour) exp(-h / 0.2)
    gross(t) = profile(t) * (1 + (r - 1) exp(-h / 6))
    net(t)   = gross(t) - pv(t)

with h hours ahead, the profile the mean of the recent days at the same local time, k_now and k_hour the measured PV
against clear sky over the last minutes and the last half hour, and r the measured against the profile's load over
the last half hour: how cloudy the hour is lasts longer than the cloud that passes now.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from derms.domain.arrays import FloatArray
from derms.domain.forecast import Forecast
from derms.forecast.pv import ClearSky

QUARTER_S = 900.0
QUARTERS = 96

CLOUD_TYPICAL = 0.88
"""Cloud index assumed where none has been seen: PV against clear sky, a fair day."""

CLOUD_MEMORY_H = 2.0
PASSING_CLOUD_MEMORY_H = 0.2
LOAD_MEMORY_H = 6.0
"""After these times a deviation seen now has faded to 1/e [h]."""

NOW_S = 200.0
HOUR_S = 1800.0
"""How far back `now` and `the hour` reach [s]."""

SKY_MIN_PU = 0.08
"""Under this clear-sky power the ratio of measured to clear is noise."""

WEEKDAY_SHAPE = (
    *(0.807, 0.772, 0.748, 0.728, 0.737, 0.764, 0.809, 0.871, 0.951, 0.993, 1.0, 0.995),
    *(0.988, 0.98, 0.98, 0.975, 0.962, 0.95, 0.937, 0.959, 0.964, 0.932, 0.888, 0.84),
)
"""Mean load of each local hour, per unit of its maximum: LADWP, March to May 2023, mean weekday (EIA-930)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the feeder lies."""

    sky: ClearSky
    timezone: ZoneInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Measurements of the last half hour, one entry each, shape (k,); NaN where unknown."""

    at: Sequence[datetime]
    gross_w: FloatArray
    """Net load plus all DER injection [W]."""
    pv_frac: FloatArray
    """PV that could be injected, per unit of nameplate."""


def quarter_of_day(times: Sequence[datetime], zone: ZoneInfo) -> FloatArray:
    """Position in the local day, in quarter hours [0, 96), shape (k,)."""
    local = [time.astimezone(zone) for time in times]
    return np.array([(t.hour * 3600 + t.minute * 60 + t.second) / QUARTER_S for t in local])


def load_profile(times: Sequence[datetime], net_w: FloatArray, pv_rated_w: float, place: Place) -> FloatArray | None:
    """Gross load by local quarter hour, shape (96,), from the utility's records; None without a full day of them.

    Parameters
    ----------
    times : Sequence[datetime]
        Ends of the intervals, UTC.
    net_w : FloatArray
        Means of net load [W], shape (k,); NaN is left out.
    pv_rated_w : float
        Nameplate of the PV behind the net load, assumed to have run under a typical sky.
    """
    if len(times) < QUARTERS:
        return None
    middles = [time - timedelta(seconds=QUARTER_S / 2) for time in times]
    gross_w = net_w + pv_rated_w * CLOUD_TYPICAL * place.sky.pu(_epoch_s(middles))
    quarter = quarter_of_day(middles, place.timezone).astype(np.intp) % QUARTERS
    good = np.isfinite(gross_w)
    count = np.bincount(quarter[good], minlength=QUARTERS)
    if not count.all():
        return None
    total_w = np.bincount(quarter[good], weights=gross_w[good], minlength=QUARTERS)
    profile_w: FloatArray = np.asarray(total_w / count, dtype=np.float64)
    return profile_w


def standard_profile(peak_w: float) -> FloatArray:
    """The standard weekday, scaled to a peak, shape (96,): what is used before there are records."""
    hours = (np.arange(QUARTERS) + 0.5) / 4.0
    shape: FloatArray = np.interp(hours, np.arange(24) + 0.5, WEEKDAY_SHAPE, period=24.0)
    return peak_w * shape


def forecast(
    now: datetime,
    *,
    steps: int,
    step_s: float,
    profile_w: FloatArray,
    pv_rated_w: float,
    seen: Seen,
    place: Place,
) -> Forecast:
    """Forecast net load and PV over steps from now; see the module's text for the equations."""
    middles = [now + timedelta(seconds=(step + 0.5) * step_s) for step in range(steps)]
    ahead_h = (np.arange(steps) + 0.5) * step_s / 3600.0
    cloud_hour = _cloud_index(seen, place, now, HOUR_S, otherwise=CLOUD_TYPICAL)
    cloud_now = _cloud_index(seen, place, now, NOW_S, otherwise=cloud_hour)
    cloud = (
        CLOUD_TYPICAL
        + (cloud_hour - CLOUD_TYPICAL) * np.exp(-ahead_h / CLOUD_MEMORY_H)
        + (cloud_now - cloud_hour) * np.exp(-ahead_h / PASSING_CLOUD_MEMORY_H)
    )
    pv_frac = np.clip(place.sky.pu(_epoch_s(middles)) * cloud, 0.0, 1.0)
    ratio = _load_ratio(seen, profile_w, place)
    gross_w = _at(profile_w, middles, place.timezone) * (1.0 + (ratio - 1.0) * np.exp(-ahead_h / LOAD_MEMORY_H))
    return Forecast(
        made_at=now,
        start=now,
        step_s=step_s,
        net_load_w=gross_w - pv_rated_w * pv_frac,
        pv_w=pv_rated_w * pv_frac,
        pv_frac=pv_frac,
        method=f"recent days, load x {ratio:.3f} now; clear sky x {cloud_now:.2f} now, x {cloud_hour:.2f} this hour",
    )


def _cloud_index(seen: Seen, place: Place, now: datetime, window_s: float, *, otherwise: float) -> float:
    """Measured PV against clear sky over a window before now; `otherwise` where there is too little of either."""
    known = np.isfinite(seen.pv_frac) & (_epoch_s(seen.at) >= now.timestamp() - window_s)
    if not known.any():
        return otherwise
    sky_pu = place.sky.pu(_epoch_s(seen.at)[known])
    if sky_pu.mean() < SKY_MIN_PU:
        return otherwise
    return float(np.clip(seen.pv_frac[known].sum() / sky_pu.sum(), 0.05, 1.1))


def _load_ratio(seen: Seen, profile_w: FloatArray, place: Place) -> float:
    """Measured gross load against the profile; 1 where nothing was measured."""
    known = np.isfinite(seen.gross_w)
    if not known.any():
        return 1.0
    expected_w = _at(profile_w, seen.at, place.timezone)[known]
    return float(np.clip(seen.gross_w[known].sum() / expected_w.sum(), 0.5, 1.5))


def _at(profile_w: FloatArray, times: Sequence[datetime], zone: ZoneInfo) -> FloatArray:
    """The profile at given times, linear between the middles of its quarters, around midnight."""
    values_w: FloatArray = np.interp(quarter_of_day(times, zone), np.arange(QUARTERS) + 0.5, profile_w, period=QUARTERS)
    return values_w


def _epoch_s(times: Sequence[datetime]) -> FloatArray:
    return np.array([time.timestamp() for time in times])
