"""Customers' load: the hours of a spring weekday, every load with its own size and its own slow wandering.

Source of the shape: LADWP hourly load, mean weekday of March to May 2023 (EIA-930), per unit of its maximum.
"""

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np

from derms.domain.arrays import FloatArray
from derms.forecast.netload import WEEKDAY_SHAPE

TIMEZONE = ZoneInfo("America/Los_Angeles")
SIZE_SIGMA = 0.2
"""Lognormal error of each load's size against the model's."""
WANDER_SIGMA = 0.08
WANDER_S = 900.0


def local_offset_s(at: datetime) -> float:
    """Seconds by which local time is ahead of UTC on the day of `at`."""
    offset = at.astimezone(TIMEZONE).utcoffset()
    assert offset is not None  # a zone always has one
    return offset.total_seconds()


def shape_pu(times_s: FloatArray | float, offset_s: float) -> FloatArray:
    """Load per unit of the day's maximum at moments [s since 1970 UTC], interpolated between the middles of hours."""
    hour = ((np.asarray(times_s, dtype=np.float64) + offset_s) / 3600.0) % 24.0
    values: FloatArray = np.interp(hour, np.arange(24) + 0.5, WEEKDAY_SHAPE, period=24.0)
    return values


class Loads:
    """Load of each customer, a step at a time."""

    def __init__(self, nominal_w: FloatArray, *, dt_s: float, rng: np.random.Generator) -> None:
        size = rng.lognormal(0.0, SIZE_SIGMA, nominal_w.size)
        self.size = size * nominal_w.sum() / (size * nominal_w).sum()
        """Factor on each nominal load, shape (n,); the total stays the model's."""
        self._keep = np.exp(-dt_s / WANDER_S)
        self._push = np.sqrt(1.0 - self._keep**2)
        self._wander = rng.standard_normal(nominal_w.size)
        self._rng = rng

    def step(self, shape: float) -> FloatArray:
        """Move on by one step; factors on the nominal loads, shape (n,), for a shape value per unit."""
        self._wander = self._keep * self._wander + self._push * self._rng.standard_normal(self._wander.size)
        factors: FloatArray = shape * self.size * (1.0 + WANDER_SIGMA * self._wander)
        return factors
