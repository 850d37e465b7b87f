"""Restores defaults where control ends: what devices hold goes back ramped, and one device after another.

Powers in W, + = injection; times in s on the monotonic clock; columns of shape (n,).
"""

from dataclasses import dataclass, field

import numpy as np

from derms.control.restoring import Restoring, restoring
from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.der import Fleet
from derms.field.poller import phase


@dataclass(slots=True)
class Restorer:
    """Knows when each device that nobody commands any more is let go; see the module's text."""

    fleet: Fleet
    ramp_w_per_min: float
    _way: Restoring = field(init=False)
    _place: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.fleet)
        nothing, never_s = np.full(count, np.nan), np.full(count, np.inf)
        self._way = Restoring(nothing, nothing, never_s, never_s)
        self._place = np.array([phase(device.id) for device in self.fleet.devices])

    def take(self, held_w: FloatArray, now_s: float) -> None:
        """Take the devices that hold these values and are to be let go; NaN for all others, which are not any more."""
        on_way = np.isfinite(self._way.held_w)
        new = np.isfinite(held_w) & ~on_way
        stay = on_way & np.isfinite(held_w)
        until_s = float(np.max(self._way.end_s[stay], initial=now_s))
        more = restoring(
            np.where(new, held_w, np.nan),
            np.where(self.fleet.is_battery, 0.0, np.nan),  # what PV will give by itself nobody knows
            self.fleet.p_rated_w,
            self._place,
            start_s=max(now_s, until_s),
            ramp_w_per_min=self.ramp_w_per_min,
        )
        old = self._way
        self._way = Restoring(
            np.where(stay, old.held_w, more.held_w),
            more.default_w,
            np.where(stay, old.start_s, more.start_s),
            np.where(stay, old.end_s, more.end_s),
        )

    @property
    def on_way(self) -> BoolArray:
        """Devices that are being restored, or wait for it."""
        on_way: BoolArray = np.isfinite(self._way.held_w)
        return on_way

    def due(self, now_s: float) -> BoolArray:
        """Devices that are to be let go now."""
        return self._way.due(now_s)

    def moving_w(self, now_s: float) -> FloatArray:
        """What devices should hold that are on their way right now; NaN for all others."""
        way = self._way
        moving = (way.start_s <= now_s) & (now_s < way.end_s) & np.isfinite(way.default_w)
        return np.where(moving, way.wanted_w(now_s), np.nan)

    def end_s(self, row: int) -> float:
        """When a device is let go."""
        return float(self._way.end_s[row])
