"""What load is usual at each local time of day, and how far from that it may be and still be believed.

The bounds lie so that a value a power of ten off is never within, as long as its usual course is above a quarter of
the peak; where load is small or negative at noon, because of PV that nobody counts, a share of the peak stands for it.
"""

from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np

from derms.domain.arrays import FloatArray, IntArray
from derms.forecast.netload import WEEKDAY_SHAPE
from derms.forecast.record import DAY_QUARTERS, DAY_S, QUARTER_S, Record, offset_s

DOWN, UP = 0.7, 1.5
"""Bounds below and above the usual load, per unit of it: 0.3 to 2.5 times, less than a power of ten apart."""
DOWN_UNSEEN = 0.95
"""Below a course that nobody has measured, scaled from the peak that the feeder was built for."""
LEVEL_MIN = 0.25
"""What stands for the usual load where that is smaller, per unit of the day's peak."""
RECENT_DAYS = 14


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
    order, count = _by_quarter(record, zone)
    if not count.all():
        return None
    parts = np.split(record.load_w[order], np.cumsum(count)[:-1])
    return np.array([np.median(part) for part in parts])


def recent_profile(record: Record, zone: ZoneInfo) -> FloatArray | None:
    """Mean load by local quarter hour over the last days that were measured, shape (96,); None without a full day."""
    known = np.flatnonzero(np.isfinite(record.load_w))
    if not known.size:
        return None
    last = record.first + int(known[-1]) + 1
    recent = record.between(last - RECENT_DAYS * DAY_QUARTERS, last)
    order, count = _by_quarter(recent, zone)
    if not count.all():
        return None
    starts = np.concatenate([[0], np.cumsum(count)[:-1]])
    profile_w: FloatArray = np.add.reduceat(recent.load_w[order], starts) / count
    return profile_w


def local_quarter(times_s: FloatArray, zone: ZoneInfo) -> FloatArray:
    """Position in the local day of moments [s since 1970], in quarter hours [0, 96), of the same shape."""
    position: FloatArray = ((times_s + offset_s(times_s, zone)) % DAY_S) / QUARTER_S
    return position


def at_local(profile: FloatArray, times_s: FloatArray, zone: ZoneInfo) -> FloatArray:
    """A profile, shape (96,), at moments: linear between the middles of its quarters, around midnight."""
    position = local_quarter(times_s, zone)
    found: FloatArray = np.interp(position, np.arange(DAY_QUARTERS) + 0.5, profile, period=DAY_QUARTERS)
    return found


def _by_quarter(record: Record, zone: ZoneInfo) -> tuple[IntArray, IntArray]:
    """Rows of known quarters ordered by local quarter of the day, and how many each of the 96 has."""
    rows = np.flatnonzero(np.isfinite(record.load_w))
    quarter = local_quarter(record.middles_s[rows], zone).astype(np.intp) % DAY_QUARTERS
    return rows[np.argsort(quarter, kind="stable")], np.bincount(quarter, minlength=DAY_QUARTERS)
