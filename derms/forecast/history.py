"""Hourly load on the utility's wall clock: 24 hours to every local day, whatever the clocks do.

People follow the wall clock, so that yesterday's load of this hour is 24 places back even across a clock change. The
hour that March leaves out is unknown (NaN), and the one that November has twice is the mean of both.
"""

from dataclasses import dataclass
from functools import cached_property
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from derms.domain.arrays import BoolArray, FloatArray
from derms.forecast.calendar import DayArray

IntArray = npt.NDArray[np.int64]

DAY, WEEK, YEAR = 24, 168, 364 * 24
"""Hours; a year of whole weeks, so that the weekday is the same."""
SUBSTITUTES = (DAY, WEEK, YEAR)
"""How far back [h] an unknown hour's stand-in is looked for, in this order."""
HOUR_S = 3600.0


def wall_hours(starts_s: FloatArray, zone: ZoneInfo) -> IntArray:
    """Hours of the wall clock since ordinal 0, of the hours that hold the moments [s since 1970], of the same shape."""
    local = pd.to_datetime(starts_s, unit="s", utc=True).tz_convert(zone).tz_localize(None)
    hours: IntArray = local.to_numpy().astype("datetime64[h]").astype(np.int64)
    return hours + 719163 * DAY  # ordinal of 1970-01-01


@dataclass(frozen=True)
class History:
    """Means of hours, one place after the other from midnight of `first_day`."""

    zone: ZoneInfo
    first_day: int
    """Ordinal (`date.toordinal`)."""
    load_w: FloatArray
    """Mean load of each hour [W], + = consumption; NaN where unknown; shape (24 days,)."""

    @property
    def hours(self) -> int:
        """Places."""
        return int(self.load_w.size)

    def place(self, starts_s: FloatArray) -> IntArray:
        """Places of the hours that hold moments [s since 1970], of the same shape; may lie outside."""
        return wall_hours(starts_s, self.zone) - self.first_day * DAY

    def day(self, places: IntArray) -> DayArray:
        """Ordinals of the days of places."""
        return self.first_day + places // DAY

    @cached_property
    def known(self) -> BoolArray:
        """Hours whose load was measured, shape (hours,)."""
        found: BoolArray = np.isfinite(self.load_w) & (self.load_w > 0.0)
        return found

    @cached_property
    def log_load(self) -> FloatArray:
        """Logarithm of load [ln W], shape (hours,); an unknown hour has that of the nearest like it before.

        A stand-in never comes from later, so that it may be used in a study of the past.
        """
        known = self.known
        log = np.log(np.where(known, self.load_w, 1.0))
        usual = float(log[known][:WEEK].mean()) if known.any() else 0.0
        for place in np.flatnonzero(~known):
            back = next((hours for hours in SUBSTITUTES if place >= hours and known[place - hours]), WEEK)
            log[place] = log[place - back] if place >= back else usual
        return log


def history_of(ends_s: FloatArray, load_w: FloatArray, zone: ZoneInfo) -> History:
    """History of records of one hour each.

    Parameters
    ----------
    ends_s : FloatArray
        Ends of the hours [s since 1970-01-01 UTC], in any order, shape (k,), k >= 1.
    load_w : FloatArray
        Their mean load [W], shape (k,); NaN where it is not known or not to be believed.
    """
    hours = wall_hours(ends_s - HOUR_S, zone)
    first_day = int(hours.min()) // DAY
    places = hours - first_day * DAY
    size = (int(places.max()) // DAY + 1) * DAY
    good = np.isfinite(load_w)
    count = np.bincount(places[good], minlength=size)
    total_w = np.bincount(places[good], weights=load_w[good], minlength=size)
    mean_w: FloatArray = np.where(count > 0, total_w / np.maximum(count, 1), np.nan)
    return History(zone, first_day, mean_w)
