"""What has been measured: load, PV and the clear sky of every quarter hour, one after the other.

A record is a value: entering something gives a new one, so that a slow reader on another thread has its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np

from derms.domain.arrays import FloatArray, IntArray

QUARTER_S, HOUR_S, DAY_S = 900.0, 3600.0, 86400.0
DAY_QUARTERS, HOUR_QUARTERS = 96, 4
DAYS_MAX = 6 * 366
"""What is older is forgotten."""


@dataclass(frozen=True)
class Record:
    """Means of quarter hours from number `first` on, counted since 1970-01-01 UTC."""

    first: int
    load_w: FloatArray
    """What customers take: net load and all that DER injected [W]; NaN where unknown, shape (quarters,)."""
    pv_pu: FloatArray
    """PV that could be injected, per unit of nameplate; NaN where unknown, shape (quarters,)."""
    clear_pu: FloatArray
    """The same under a clear sky, shape (quarters,)."""

    @classmethod
    def empty(cls) -> "Record":
        """Nothing measured yet."""
        return cls(0, *(np.empty(0) for _ in range(3)))

    @property
    def after(self) -> int:
        """Number of the quarter behind the last."""
        return self.first + self.load_w.size

    @property
    def middles_s(self) -> FloatArray:
        """Middles of the quarters [s since 1970], shape (quarters,)."""
        return middles_s(np.arange(self.first, self.after), QUARTER_S)

    def entered(self, quarters: IntArray, load_w: FloatArray, pv_pu: FloatArray, clear_pu: FloatArray) -> "Record":
        """With more quarters, all of shape (k,); what is NaN leaves what was known, what is too old is left out."""
        if not quarters.size:
            return self
        start, stop = int(quarters.min()), int(quarters.max()) + 1
        if self.load_w.size:
            start, stop = min(start, self.first), max(stop, self.after)
        start = max(start, stop - DAYS_MAX * DAY_QUARTERS)
        old, new = self.between(start, stop), quarters >= start
        columns = []
        for held, given in zip((old.load_w, old.pv_pu, old.clear_pu), (load_w, pv_pu, clear_pu), strict=True):
            column, rows = held.copy(), quarters[new] - start
            column[rows] = np.where(np.isfinite(given[new]), given[new], held[rows])
            columns.append(column)
        return Record(start, *columns)

    def between(self, start: int, stop: int) -> "Record":
        """The quarters from number `start` to before `stop`, NaN where there is no record."""
        low, high = np.clip([start, stop], self.first, self.after) - self.first
        before = (max(min(self.first, stop) - start, 0), max(stop - max(self.after, start), 0))
        columns = (
            np.pad(each[low:high], before, constant_values=np.nan) for each in (self.load_w, self.pv_pu, self.clear_pu)
        )
        return Record(start, *columns)

    def whole_hours(self) -> "Record":
        """The same from the first whole hour to the last."""
        return self.between(
            -(-self.first // HOUR_QUARTERS) * HOUR_QUARTERS, self.after // HOUR_QUARTERS * HOUR_QUARTERS
        )

    def believed(self, load: FloatArray, pv: FloatArray) -> "Record":
        """With other load and PV, of the same shapes."""
        return replace(self, load_w=load, pv_pu=pv)


def middles_s(numbers: IntArray, length_s: float) -> FloatArray:
    """Middles of intervals of one length, told by their numbers since 1970 [s since 1970], of the same shape."""
    return np.asarray((numbers + 0.5) * length_s, dtype=np.float64)


def hourly(values: FloatArray) -> FloatArray:
    """Means of hours from whole hours of quarters, shape (hours,); NaN where fewer than half of one is known."""
    by_hour = values.reshape(-1, HOUR_QUARTERS)
    known = np.isfinite(by_hour)
    count = known.sum(axis=1)
    mean: FloatArray = np.where(known, by_hour, 0.0).sum(axis=1) / np.maximum(count, 1)
    return np.where(count >= HOUR_QUARTERS // 2, mean, np.nan)


def quarters_of(ends_s: FloatArray, values: FloatArray) -> tuple[IntArray, FloatArray]:
    """Quarters and their means from intervals of any length up to an hour that are told by their ends.

    Parameters
    ----------
    ends_s : FloatArray
        Ends [s since 1970], in order of time, all of intervals of one length, shape (k,).
    values : FloatArray
        Means over the intervals, shape (k,); NaN is left out.
    """
    gaps_s = np.diff(ends_s)
    good = np.isfinite(values)
    ends_s, values = ends_s[good], values[good]
    if not ends_s.size:
        return np.empty(0, dtype=np.intp), values
    length_s = float(np.clip(np.median(gaps_s) if gaps_s.size else QUARTER_S, 1.0, HOUR_S))
    parts = max(round(length_s / QUARTER_S), 1)
    middles_s = ends_s[:, None] - length_s * (1.0 - (np.arange(parts) + 0.5) / parts)
    number = np.floor(middles_s.ravel() / QUARTER_S).astype(np.intp)
    quarters, place = np.unique(number, return_inverse=True)
    total = np.bincount(place, weights=np.repeat(values, parts))
    return quarters, total / np.bincount(place)


def offset_s(times_s: FloatArray, zone: ZoneInfo) -> FloatArray:
    """What the wall clock is ahead of UTC at moments [s since 1970], of the same shape [s]."""
    if not times_s.size:
        return np.zeros(times_s.shape)
    day = np.floor(times_s / DAY_S).astype(np.intp)
    first = int(day.min())
    edges_s = np.array([_offset_s(number * DAY_S, zone) for number in range(first, int(day.max()) + 2)])
    found: FloatArray = edges_s[day - first]
    for place in np.flatnonzero(found != edges_s[day - first + 1]):  # a day in which the clocks change
        found.flat[place] = _offset_s(float(times_s.flat[place]), zone)
    return found


@lru_cache(maxsize=1 << 14)
def _offset_s(time_s: float, zone: ZoneInfo) -> float:
    offset = datetime.fromtimestamp(time_s, zone).utcoffset()
    assert offset is not None, "a time with a zone has an offset"
    return offset.total_seconds()


def standard_offset_s(time_s: float, zone: ZoneInfo) -> float:
    """What standard time, without daylight saving, is ahead of UTC in the year of a moment [s since 1970]."""
    year_s = time_s + DAY_S * np.arange(-182, 183, 7, dtype=np.float64)
    return float(offset_s(year_s, zone).min())


def days_before_s(times_s: FloatArray, days: FloatArray | float, zone: ZoneInfo) -> FloatArray:
    """The moments at which the wall clock stood the same some days before, of the same shape."""
    back_s: FloatArray = times_s - DAY_S * np.asarray(days)
    return back_s + offset_s(times_s, zone) - offset_s(back_s, zone)


def at_quarters(record: Record, values: FloatArray, times_s: FloatArray) -> FloatArray:
    """Values of the quarters that hold moments [s since 1970], of the same shape; NaN outside the record."""
    row = np.floor(times_s / QUARTER_S).astype(np.intp) - record.first
    inside = (row >= 0) & (row < values.size)
    found: FloatArray = np.full(times_s.shape, np.nan)
    found[inside] = values[row[inside]]
    return found


def epoch_s(times: Sequence[datetime]) -> FloatArray:
    """Moments of aware times [s since 1970], shape (k,)."""
    return np.array([time.timestamp() for time in times], dtype=np.float64)
