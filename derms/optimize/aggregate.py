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
        energy_min_wh=float(energy_wh @ fleet.soc_min_frac[rows]),
        energy_max_wh=float(energy_wh @ fleet.soc_max_frac[rows]),
        efficiency_frac=efficiency,
    )


def disaggregate(
    total_w: float, p_max_w: FloatArray, stored_wh: FloatArray, room_wh: FloatArray, *, dt_h: float
) -> FloatArray:
    """Share a fleet power among batteries so that they run out of energy, or of room, together.

    Discharging, the batteries with the longest time to go give first, charging those with the longest time to full
    take first: power p_i = clip((E_i - z P_i) / dt, 0, P_i) with the common level z [h] found by bisection. For
    one direction this keeps the fleet able to follow for as long as any sharing could (Evans, Tindemans, Angeli,
    arXiv 1805.09315).

    Parameters
    ----------
    total_w : float
        Wanted fleet power [W], + = discharge.
    p_max_w : FloatArray
        Greatest power of each battery [W], >= 0, shape (n,).
    stored_wh, room_wh : FloatArray
        Energy at the terminals that each can still give and take [Wh], >= 0, shape (n,).
    dt_h : float
        Length of the step [h].

    Returns
    -------
    FloatArray
        Power per battery [W], + = discharge, shape (n,); its sum falls short of the total where the fleet cannot
        give or take more.
    """
    p_max_w = np.where(p_max_w < POWER_MIN_W, 0.0, p_max_w)
    energy_wh = stored_wh if total_w >= 0.0 else room_wh
    wanted_w = abs(total_w)
    most_w = np.minimum(p_max_w, energy_wh / dt_h)
    if most_w.sum() <= wanted_w:
        share_w = most_w
    else:
        hours = np.divide(energy_wh, p_max_w, out=np.zeros_like(energy_wh), where=p_max_w > 0.0)
        low_h, high_h = -dt_h, float(hours.max(initial=0.0))
        for _ in range(60):
            level_h = 0.5 * (low_h + high_h)
            if _power_at(level_h, p_max_w, energy_wh, dt_h).sum() > wanted_w:
                low_h = level_h
            else:
                high_h = level_h
        share_w = np.minimum(_power_at(high_h, p_max_w, energy_wh, dt_h), most_w)
    return share_w if total_w >= 0.0 else -share_w


def _power_at(level_h: float, p_max_w: FloatArray, energy_wh: FloatArray, dt_h: float) -> FloatArray:
    return np.clip((energy_wh - level_h * p_max_w) / dt_h, 0.0, p_max_w)
