"""What load is usual at each local time of day, and how far from that it may be and still be believed.

The bounds lie so that a value a power of ten off is never within, as long as its usual course is above a quarter of
the peak; where load is small or negative at noon, because of PV that nobody counts, a share of the peak stands for it.
"""

from dataclasses import dataclass
from datetime import date
from zoneinfo import ZoneInfo

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.forecast.calendar import day_kinds
from derms.forecast.netload import WEEKDAY_SHAPE
from derms.forecast.record import DAY_QUARTERS, DAY_S, QUARTER_S, Record, offset_s

DOWN, UP = 0.7, 1.5
"""Bounds below and above the usual load, per unit of it: 0.3 to 2.5 times, less than a power of ten apart."""
DOWN_UNSEEN = 0.95
"""Below a course that nobody has measured, scaled from the peak that the feeder was built for."""
LEVEL_MIN = 0.25
"""What stands for the usual load where that is smaller, per unit of the day's peak."""
RECENT_DAYS = 14
KIND_DAYS_MIN = 2
SATURDAY = 5


@dataclass(frozen=True, slots=True)
class Climate:
    """Usual load by local quarter hour and its bounds [W], each of shape (96,)."""

    usual_w: FloatArray
    low_w: FloatArray
    high_w: FloatArray
    zone: ZoneInfo

    def usual(self, times_s: FloatArray) -> FloatArray:
        """Usual load at moments [s since 1970], of the same shape."""
        return at_local(self.usual_w, times_s, self.zone)

    def bounds(self, times_s: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Least and greatest load that is believed at moments, each of the same shape."""
        return at_local(self.low_w, times_s, self.zone), at_local(self.high_w, times_s, self.zone)


def climate_of(usual_w: FloatArray, zone: ZoneInfo, *, measured: bool) -> Climate:
    """Climate about a usual course, shape (96,), that was measured or is a standard one."""
    level_w = np.maximum(usual_w, LEVEL_MIN * np.abs(usual_w).max())
    down = DOWN if measured else DOWN_UNSEEN
    return Climate(usual_w, usual_w - down * level_w, usual_w + UP * level_w, zone)


def standard_profile(peak_w: float) -> FloatArray:
    """The standard weekday, scaled to a peak, shape (96,): what is used before there are records."""
    hours = (np.arange(DAY_QUARTERS) + 0.5) / 4.0
    shape: FloatArray = np.interp(hours, np.arange(24) + 0.5, WEEKDAY_SHAPE, period=24.0)
    return peak_w * shape


def median_profile(record: Record, zone: ZoneInfo) -> FloatArray | None:
    """Median load by local quarter hour, shape (96,), which some garbage does not move; None without a full day."""
    known = np.flatnonzero(np.isfinite(record.load_w))
    quarter = _quarters(record, zone)[known]
    count = np.bincount(quarter, minlength=DAY_QUARTERS)
    if not count.all():
        return None
    parts = np.split(record.load_w[known[np.argsort(quarter, kind="stable")]], np.cumsum(count)[:-1])
    return np.array([np.median(part) for part in parts])


@dataclass(frozen=True, slots=True)
class Recent:
    """What the last days were like: mean load by local quarter hour, of workdays and of free days [W], shapes (96,)."""

    work_w: FloatArray
    free_w: FloatArray
    zone: ZoneInfo

    def at(self, times_s: FloatArray) -> FloatArray:
        """Usual load at moments [s since 1970], of the same shape."""
        work_w, free_w = (at_local(each, times_s, self.zone) for each in (self.work_w, self.free_w))
        return np.where(is_free(times_s, self.zone), free_w, work_w)


def recent_days(record: Record, zone: ZoneInfo) -> Recent | None:
    """The last days that were measured; None without a full day.

    A kind of day of which fewer than `KIND_DAYS_MIN` were measured is taken to be as all of them were.
    """
    known = np.flatnonzero(np.isfinite(record.load_w))
    if not known.size:
        return None
    last = record.first + int(known[-1]) + 1
    recent = record.between(last - RECENT_DAYS * DAY_QUARTERS, last)
    every_w = _means(recent, np.isfinite(recent.load_w), zone, days=1)
    if every_w is None:
        return None
    free = is_free(recent.middles_s, zone)
    work_w, free_w = (
        _means(recent, np.isfinite(recent.load_w) & kind, zone, days=KIND_DAYS_MIN) for kind in (~free, free)
    )
    return Recent(every_w if work_w is None else work_w, every_w if free_w is None else free_w, zone)


def is_free(times_s: FloatArray, zone: ZoneInfo) -> BoolArray:
    """Whether moments lie on a weekend or a holiday there, of the same shape."""
    day = np.floor((times_s + offset_s(times_s, zone)) / DAY_S).astype(np.int64) + date(1970, 1, 1).toordinal()
    return np.asarray(day_kinds(day) >= SATURDAY)


def local_quarter(times_s: FloatArray, zone: ZoneInfo) -> FloatArray:
    """Position in the local day of moments [s since 1970], in quarter hours [0, 96), of the same shape."""
    position: FloatArray = ((times_s + offset_s(times_s, zone)) % DAY_S) / QUARTER_S
    return position


def at_local(profile: FloatArray, times_s: FloatArray, zone: ZoneInfo) -> FloatArray:
    """A profile, shape (96,), at moments: linear between the middles of its quarters, around midnight."""
    position = local_quarter(times_s, zone)
    found: FloatArray = np.interp(position, np.arange(DAY_QUARTERS) + 0.5, profile, period=DAY_QUARTERS)
    return found


def _means(record: Record, use: BoolArray, zone: ZoneInfo, *, days: int) -> FloatArray | None:
    """Means of some quarters of a record by local quarter of the day, shape (96,); None for fewer than so many days."""
    quarter = _quarters(record, zone)[use]
    count = np.bincount(quarter, minlength=DAY_QUARTERS)
    if count.min() < days:
        return None
    mean_w: FloatArray = np.bincount(quarter, weights=record.load_w[use], minlength=DAY_QUARTERS) / count
    return mean_w


def _quarters(record: Record, zone: ZoneInfo) -> IntArray:
    """Local quarter of the day of each of a record."""
    return local_quarter(record.middles_s, zone).astype(np.intp) % DAY_QUARTERS
