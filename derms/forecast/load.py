"""Load of the coming hours, from a model or from the recent days, with a band, as a course through knots.

    load(t) = course(t) (1 + (r - 1) exp(-h / memory))

with h hours ahead and r the load measured over the last half hour against the course at that time: what is unusual
now fades towards what is usual.
"""

from collections.abc import Callable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np

from derms.domain.arrays import FloatArray
from derms.forecast.demand import DemandModel
from derms.forecast.features import BEFORE, LEADS_MAX
from derms.forecast.history import DAY, WEEK, History, history_of
from derms.forecast.record import (
    DAY_QUARTERS,
    DAY_S,
    HOUR_QUARTERS,
    HOUR_S,
    QUARTER_S,
    Record,
    at_quarters,
    days_before_s,
    hourly,
    middles_s,
)

MEMORY_H, FITTED_MEMORY_H = 6.0, 2.0
"""After these times what is unusual now has faded to 1/e; a fitted model has seen most of it already [h]."""
RATIO_MIN, RATIO_MAX = 0.5, 1.5
BAND_AT_ONCE = 0.1
"""Share of a profile's band that is there at once; the rest comes as what is measured now fades."""
SPREAD_UNSEEN, SPREAD_MIN = 0.15, 0.02
"""Half of an 80 % band per unit of load: without measured days, and at least."""
SPREAD_DAYS_MIN = 3
FITTED_DAYS = BEFORE // DAY + 8
"""Days before its origin that a fitted model is shown."""


@dataclass(frozen=True)
class Course:
    """Load through knots, linear between them."""

    name: str
    """What it is made from, for the operator."""
    memory_h: float
    knots_s: FloatArray
    """Moments [s since 1970], rising, shape (k,)."""
    load_w: FloatArray
    """Quantiles 10 %, 50 % and 90 % at the knots [W], shape (k, 3)."""

    def at(self, times_s: FloatArray) -> FloatArray:
        """Quantiles at moments, shape (..., 3)."""
        return np.stack([np.interp(times_s, self.knots_s, column) for column in self.load_w.T], axis=-1)

    def ratio(self, at_s: FloatArray, measured_w: FloatArray) -> float:
        """Measured load against the course, of shape (k,) both; 1 where nothing was measured (NaN)."""
        known = np.isfinite(measured_w)
        usual_w = float(self.at(at_s[known])[..., 1].sum())
        if not known.any() or usual_w <= 0.0:
            return 1.0
        return float(np.clip(measured_w[known].sum() / usual_w, RATIO_MIN, RATIO_MAX))

    def ahead(self, now_s: float, times_s: FloatArray, ratio: float) -> FloatArray:
        """Quantiles at moments from now on, with what is unusual now, shape (..., 3)."""
        fading = np.exp(-np.maximum(times_s - now_s, 0.0) / HOUR_S / self.memory_h)
        found: FloatArray = self.at(times_s) * (1.0 + (ratio - 1.0) * fading)[..., None]
        return found


def profile_course(
    usual: Callable[[FloatArray], FloatArray], spread: tuple[float, float], now_s: float, hours: float, *, name: str
) -> Course:
    """What is usual at moments, from an hour ago over some hours; `spread` are the ends of its band per unit."""
    first = np.floor(now_s / QUARTER_S) - HOUR_QUARTERS
    knots_s = (first + np.arange(HOUR_QUARTERS * (hours + 2.0)) + 0.5) * QUARTER_S
    usual_w = usual(knots_s)
    ahead_h = np.maximum(knots_s - now_s, 0.0) / HOUR_S
    doubt = BAND_AT_ONCE + (1.0 - BAND_AT_ONCE) * np.sqrt(1.0 - np.exp(-2.0 * ahead_h / MEMORY_H))
    band = [usual_w + np.abs(usual_w) * doubt * end for end in spread]
    return Course(name, MEMORY_H, knots_s, np.stack([band[0], usual_w, band[1]], axis=1))


def spread_of(record: Record, usual: Callable[[FloatArray], FloatArray]) -> tuple[float, float]:
    """Ends of the 80 % band of single days about what is usual, per unit: what the days of the record show."""
    usual_w = usual(record.middles_s)
    known = np.isfinite(record.load_w) & (np.abs(usual_w) > 0.0)
    days = known.sum() / DAY_QUARTERS
    if days < SPREAD_DAYS_MIN:
        return -SPREAD_UNSEEN, SPREAD_UNSEEN
    off = record.load_w[known] / usual_w[known] - 1.0
    # A profile lies nearer to the days that it was made from than to the next.
    low, high = np.quantile(off, (0.1, 0.9)) * np.sqrt((days + 1.0) / (days - 1.0))
    return min(float(low), -SPREAD_MIN), max(float(high), SPREAD_MIN)


class FittedLoad:
    """A fitted model of demand at work on a record."""

    def __init__(self, model: DemandModel, zone: ZoneInfo) -> None:
        self._model, self._zone = model, zone

    def course(self, record: Record, now_s: float, hours: float) -> Course | None:
        """Load from the hour before now over some hours; None where too little of the last weeks is known."""
        hour = int(now_s // HOUR_S)
        start = (hour - FITTED_DAYS * DAY) * HOUR_QUARTERS
        recent = record.between(start, hour * HOUR_QUARTERS)
        load_w = hourly(recent.load_w)
        if np.isfinite(load_w[-WEEK:]).mean() <= 0.5:
            return None
        starts_s = HOUR_S * (np.arange(hour - FITTED_DAYS * DAY, hour, dtype=np.float64))
        history = _padded(history_of(starts_s + HOUR_S, load_w, self._zone))
        ahead_s = HOUR_S * (hour + np.arange(int(hours) + 2, dtype=np.float64))
        places = history.place(ahead_s)
        leads = places - places[0]
        leads -= np.maximum(leads - LEADS_MAX + DAY, 0) // DAY * DAY  # beyond the last, the last day again
        load = self._model.predict(history, places[:1])[0, leads]
        before = np.full((1, 3), load_w[-1]) if np.isfinite(load_w[-1]) else load[:1]
        knots_s = np.concatenate([ahead_s[:1] - HOUR_S, ahead_s]) + HOUR_S / 2.0
        return Course("load as fitted", FITTED_MEMORY_H, knots_s, np.concatenate([before, load]))


def history_from(record: Record, zone: ZoneInfo) -> History:
    """Hours of a record on the wall clock."""
    whole = record.whole_hours()
    hours = whole.first // HOUR_QUARTERS + np.arange(whole.load_w.size // HOUR_QUARTERS)
    return history_of(middles_s(hours, HOUR_S) + HOUR_S / 2.0, hourly(whole.load_w), zone)


def _padded(history: History) -> History:
    """With a day more, in which nothing is known: the origin may be its first hour."""
    return History(history.zone, history.first_day, np.concatenate([history.load_w, np.full(DAY, np.nan)]))


def values_before(record: Record, values: FloatArray, now_s: float, times_s: FloatArray, zone: ZoneInfo) -> FloatArray:
    """Persistence: a column of the record at the same wall clock on the last day known by now, and weeks before.

    The record is of whole hours. Shape (..., 2) for moments [s since 1970]; NaN where unknown.
    """
    filled = np.where(np.isfinite(values), values, np.repeat(hourly(values), HOUR_QUARTERS))
    days = np.floor((times_s - now_s) / DAY_S) + 1.0
    weeks = np.ceil(days / 7.0) * 7.0
    return np.stack(
        [at_quarters(record, filled, days_before_s(times_s, back, zone)) for back in (days, weeks)], axis=-1
    )
