"""What is expected of the coming hours, on a grid of steps that starts now."""

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from derms.domain.arrays import FloatArray

BAND = (0.1, 0.9)
"""Quantiles at the ends of a band, the columns of `net_load_band_w` and `pv_band_w`."""


def _not_given() -> FloatArray:
    return np.empty(0)


@dataclass(frozen=True)
class Forecast:
    """Means over steps from `start`; net load + = import. Nothing in it is ever NaN.

    What is left out of bands and feeder is the forecast itself: no doubt, and a feeder that is the whole system.
    """

    made_at: datetime
    start: datetime
    hours: FloatArray
    """Length of each step [h], shape (steps,)."""
    net_load_w: FloatArray
    """System net load if no battery of ours moved and no PV were limited [W], shape (steps,)."""
    pv_w: FloatArray
    """Power that the managed PV could inject [W], shape (steps,)."""
    pv_frac: FloatArray
    """The same per unit of its nameplate, shape (steps,)."""
    method: str
    """How it was made, in words that an operator may read."""
    net_load_band_w: FloatArray = field(default_factory=_not_given)
    """Quantiles 10 % and 90 % of net load [W], shape (steps, 2)."""
    pv_band_w: FloatArray = field(default_factory=_not_given)
    """Quantiles 10 % and 90 % of PV [W], shape (steps, 2)."""
    feeder_w: FloatArray = field(default_factory=_not_given)
    """Net load of our feeder, under the same conditions as that of the system [W, + = import], shape (steps,)."""

    def __post_init__(self) -> None:
        steps = len(self.net_load_w)
        instead = {
            "net_load_band_w": np.column_stack([self.net_load_w] * 2),
            "pv_band_w": np.column_stack([self.pv_w] * 2),
            "feeder_w": self.net_load_w,
        }
        for name, values in instead.items():
            if len(getattr(self, name)) != steps:
                object.__setattr__(self, name, values)

    @property
    def ends_h(self) -> FloatArray:
        """End of each step [h after the start], shape (steps,)."""
        ends: FloatArray = np.cumsum(self.hours)
        return ends
