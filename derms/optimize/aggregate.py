"""The fleet's batteries seen as one: the bounds that a system plan may use.

Powers in W, + = injection; energy in Wh above empty.
"""

from dataclasses import dataclass

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.der import Fleet

POWER_MIN_W = 1e-3
"""A battery of less power has none: its hours to empty would swamp the others'."""


@dataclass(frozen=True, slots=True)
class VirtualBattery:
    """Sum of the batteries that may be dispatched now."""

    p_rated_w: float
    """Greatest power, both ways."""
    energy_wh: float
    energy_min_wh: float
    energy_max_wh: float
    efficiency_frac: float
    """One way, weighted by power."""

    def flow_wh(self, power_w: FloatArray, hours: FloatArray) -> FloatArray:
        """Energy that powers [W, + = injection] bring into the store over steps [h]; all of one shape."""
        inward: FloatArray = np.where(power_w > 0.0, -power_w / self.efficiency_frac, -power_w * self.efficiency_frac)
        return inward * hours


def aggregate(fleet: Fleet, soc_frac: FloatArray, available: BoolArray) -> VirtualBattery:
    """Add up the batteries that are available; an empty selection gives a battery of zero power.

    Parameters
    ----------
    soc_frac : FloatArray
        State of charge per device [0..1], shape (n,); finite where available.
    available : BoolArray
        Devices that may be dispatched, shape (n,).
    """
    rows = fleet.is_battery & available
    power_w = fleet.p_rated_w[rows]
    energy_wh = fleet.energy_wh[rows]
    total_w = float(power_w.sum())
    efficiency = float(power_w @ fleet.efficiency_frac[rows] / total_w) if total_w > 0.0 else 1.0
    return VirtualBattery(
        p_rated_w=total_w,
        energy_wh=float(energy_wh @ soc_frac[rows]),
        energy_min_wh=float(energy_wh @ fleet.reserve_frac[rows]),
        energy_max_wh=float(energy_wh @ fleet.soc_max_frac[rows]),
        efficiency_frac=efficiency,
    )
