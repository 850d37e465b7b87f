"""Clouds over the feeder, which reach every plant some time after its neighbour."""

import numpy as np

from derms.domain.arrays import FloatArray

FACTOR_MIN = 0.25
"""Share of clear-sky power that passes the thickest cloud."""
SLOW_S = 2400.0
FAST_S = 150.0
"""Correlation times: how cloudy the hour is, and the single cloud."""
SLOW_SHARE = 0.2
"""Of the variance: clouds that pass, on a day that stays what it is; 1 would be fronts that cover the whole feeder."""
THRESHOLD = 1.3
"""Cloudiness (a standard normal number) at which half of the light is lost."""
SHARPNESS = 4.0
"""Steepness of a cloud's edge."""
LAG_MAX_S = 240.0
"""Time that a cloud takes to cross the feeder."""


_SHARES = np.sqrt(np.array([SLOW_SHARE, 1.0 - SLOW_SHARE]))


class Clouds:
    """Cloud factor of each plant, 0.25..1, a step at a time; the mean over days is about 0.9."""

    def __init__(self, count: int, *, dt_s: float, rng: np.random.Generator) -> None:
        lag_steps = np.rint(rng.uniform(0.0, LAG_MAX_S, count) / dt_s).astype(np.intp)
        self._keep = np.exp(-dt_s / np.array([SLOW_S, FAST_S]))
        self._push = np.sqrt(1.0 - self._keep**2)
        self._sky = rng.standard_normal(2)
        self._seen = np.zeros(int(lag_steps.max(initial=0)) + 1)
        self._lag_steps = lag_steps
        self._rng = rng
        self._at = 0
        for _ in self._seen:
            self._pass()

    def step(self) -> FloatArray:
        """Move the sky on by one step and return the factor of each plant, shape (n,)."""
        self._pass()
        cloudiness = self._seen[(self._at - self._lag_steps) % self._seen.size]
        hidden = 1.0 / (1.0 + np.exp(SHARPNESS * (THRESHOLD - cloudiness)))
        return 1.0 - (1.0 - FACTOR_MIN) * hidden

    def _pass(self) -> None:
        self._sky = self._keep * self._sky + self._push * self._rng.standard_normal(2)
        self._at = (self._at + 1) % self._seen.size
        self._seen[self._at] = self._sky @ _SHARES
