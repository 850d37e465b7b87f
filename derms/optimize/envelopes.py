"""Energy that is due: how a store whose energy has a course to keep to is bound long before.

A car is to be charged when it leaves, a load that waits is to be served by some time, an aggregator has an envelope. In
all of them the energy at the end of a step is bounded, and with it, by what the store can take and give, the energy at
the end of every step before. Energy in Wh above empty, shapes (stores, steps).
"""

from dataclasses import dataclass, replace

import numpy as np

from derms.domain.arrays import FloatArray
from derms.optimize.portfolio import Devices, Envelopes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Course:
    """Bounds at the end of each step that can be kept to: within them at one step, a store can be so at the next."""

    low_wh: FloatArray
    high_wh: FloatArray
    fullest_wh: FloatArray
    """The course of a store that takes all it can."""
    emptiest_wh: FloatArray
    """The course of one that gives all it can."""


def course(
    low_wh: FloatArray, high_wh: FloatArray, stored_wh: FloatArray, gain_wh: FloatArray, loss_wh: FloatArray
) -> Course:
    """Narrow bounds to those from which later ones can be met, and widen them to what can be reached from now.

    Where both cannot be, the lower bound is kept.

    Parameters
    ----------
    stored_wh : FloatArray
        Now, shape (stores,).
    gain_wh, loss_wh : FloatArray
        Most that the stored energy can rise and fall in each step.
    """
    # Steps come first in here, so that each is one run of memory.
    low, high, gain, loss = (np.array(values.T) for values in (low_wh, high_wh, gain_wh, loss_wh))
    for step in range(len(low) - 2, -1, -1):
        np.maximum(low[step], low[step + 1] - gain[step + 1], out=low[step])
        np.minimum(high[step], high[step + 1] + loss[step + 1], out=high[step])
    np.minimum(low, stored_wh + np.cumsum(gain, axis=0), out=low)
    fullest, emptiest = np.empty_like(low), np.empty_like(low)
    most, least = stored_wh, stored_wh
    for step in range(len(low)):
        high[step] = np.maximum(np.maximum(high[step], low[step]), most - loss[step])
        most = fullest[step] = np.minimum(most + gain[step], high[step])
        least = emptiest[step] = np.maximum(least - loss[step], low[step])
    return Course(low_wh=low.T, high_wh=high.T, fullest_wh=fullest.T, emptiest_wh=emptiest.T)


def bound_courses(devices: Devices, bound: Envelopes, hours: FloatArray, *, never_below: bool = False) -> Course:
    """The courses of stores with envelopes. No upper bound asks a store to give what it holds at least.

    Lower bounds are what is due alone, or, with `never_below`, also what a store holds at least.
    """
    at = bound.device
    efficiency, most_wh = devices.efficiency_frac[at, None], devices.stored_max_wh[at, None]
    due_wh, least_wh = np.minimum(bound.low_wh, most_wh), held_at_least_wh(devices)[at, None]
    # Below its least energy a store gives nothing, whatever it could.
    gives = (devices.stored_wh >= devices.stored_min_wh)[at, None]
    return course(
        np.maximum(due_wh, least_wh) if never_below else due_wh,
        np.clip(bound.high_wh, least_wh, np.maximum(most_wh, least_wh)),
        devices.stored_wh[at],
        efficiency * devices.charge_max_w[at] * hours,
        devices.discharge_max_w[at] * gives * hours / efficiency,
    )


def held_at_least_wh(devices: Devices) -> FloatArray:
    """Energy that a store does not give, and does not have to gain, shape (n,)."""
    return np.minimum(devices.stored_min_wh, devices.stored_wh)


def within_envelopes(devices: Devices, hours: FloatArray) -> tuple[Devices, FloatArray]:
    """The devices with envelopes that can be kept to, and by how much each fails what was asked [Wh], shape (k,)."""
    bound = devices.envelopes
    if bound is None:
        return devices, np.zeros(0)
    kept = bound_courses(devices, bound, hours)
    emptiest_wh = np.maximum(kept.emptiest_wh, held_at_least_wh(devices)[bound.device, None])
    short_wh = (bound.low_wh - kept.fullest_wh).max(axis=1, initial=0.0)
    over_wh = (emptiest_wh - bound.high_wh).max(axis=1, initial=0.0)
    narrowed = replace(bound, low_wh=kept.low_wh, high_wh=kept.high_wh)
    return replace(devices, envelopes=narrowed), np.maximum(short_wh, over_wh)
