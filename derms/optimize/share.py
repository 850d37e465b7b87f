"""Zone powers shared among their stores, all zones at once. Powers in W, + = discharge; energy in Wh."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from derms.domain.arrays import FloatArray, IntArray
from derms.optimize.aggregate import POWER_MIN_W
from derms.optimize.portfolio import Devices

BISECTIONS = 22


class Fairness(StrEnum):
    """Who goes first."""

    TIME_TO_GO = "time to go"
    """Those that could go on longest: all run out together, which keeps the fleet able for longest."""
    PRO_RATA = "pro rata"
    """All with the same share of what they can."""
    IN_ORDER = "in order"
    """By a column of the caller: the newest first (last in, first out), or the cheapest."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shares:
    """What each store gives in each step, and what its zone lacks."""

    power_w: FloatArray
    """Shape (n, steps)."""
    shortfall_w: FloatArray
    """Of each zone's plan, with its sign, shape (zones, steps)."""
    stored_wh: FloatArray
    """At the end of the last step, shape (n,)."""


def share(
    injected_w: FloatArray,
    devices: Devices,
    zone: IntArray,
    hours: FloatArray,
    *,
    fairness: Fairness = Fairness.TIME_TO_GO,
    order: FloatArray | None = None,
) -> Shares:
    """Share zone powers (zones, steps) out to stores, step after step, each within its power and energy.

    Time to go follows Evans, Tindemans, Angeli, arXiv 1805.09315: p = clip((E - z P) / dt, 0, P) with one level z [h]
    in each zone. `order` is the column of `Fairness.IN_ORDER`, smallest first, shape (n,).
    """
    zones, steps = injected_w.shape
    power_w, shortfall_w = np.zeros((len(devices), steps)), np.zeros((zones, steps))
    stored_wh, efficiency = devices.stored_wh.copy(), devices.efficiency_frac
    for step in range(steps):
        total_w, dt_h = injected_w[:, step], hours[step]
        gives = total_w[zone] >= 0.0
        out_w = devices.discharge_max_w[:, min(step, devices.discharge_max_w.shape[1] - 1)]
        in_w = devices.charge_max_w[:, min(step, devices.charge_max_w.shape[1] - 1)]
        most_w = np.where(gives, out_w, in_w)
        energy_wh = np.where(
            gives,
            np.maximum(stored_wh - devices.stored_min_wh, 0.0) * efficiency,
            np.maximum(devices.stored_max_wh - stored_wh, 0.0) / efficiency,
        )
        most_w = np.where(most_w < POWER_MIN_W, 0.0, most_w)
        able_w = np.minimum(most_w, energy_wh / dt_h)
        wanted_w = np.minimum(np.abs(total_w), _sums(able_w, zone, zones))
        if fairness is Fairness.TIME_TO_GO:
            given_w = _together(wanted_w, most_w, energy_wh, zone, dt_h)
        elif fairness is Fairness.PRO_RATA or order is None:
            given_w = able_w * _ratio(wanted_w, _sums(able_w, zone, zones))[zone]
        else:
            given_w = _in_order(wanted_w, able_w, zone, order)
        power_w[:, step] = np.where(gives, given_w, -given_w)
        stored_wh -= np.where(gives, given_w / efficiency, -given_w * efficiency) * dt_h
        shortfall_w[:, step] = total_w - _sums(power_w[:, step], zone, zones)
    return Shares(power_w=power_w, shortfall_w=shortfall_w, stored_wh=stored_wh)


def _sums(values: FloatArray, zone: IntArray, zones: int) -> FloatArray:
    return np.bincount(zone, weights=values, minlength=zones).astype(np.float64, copy=False)


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0.0)


def _together(
    wanted_w: FloatArray, most_w: FloatArray, energy_wh: FloatArray, zone: IntArray, dt_h: float
) -> FloatArray:
    """Bisect the level of each zone; between the last two levels the shares are straight, which meets the total."""
    zones = len(wanted_w)
    hours = np.divide(energy_wh, most_w, out=np.zeros_like(energy_wh), where=most_w > 0.0)
    low_h, high_h = np.full(zones, -dt_h), np.zeros(zones)
    np.maximum.at(high_h, zone, hours)

    def at(level_h: FloatArray) -> FloatArray:
        shares: FloatArray = np.clip((hours - level_h[zone]) / dt_h, 0.0, 1.0) * most_w
        return np.minimum(shares, energy_wh / dt_h)

    for _ in range(BISECTIONS):
        level_h = 0.5 * (low_h + high_h)
        more = _sums(at(level_h), zone, zones) > wanted_w
        low_h, high_h = np.where(more, level_h, low_h), np.where(more, high_h, level_h)
    most, least = at(low_h), at(high_h)
    above, below = (_sums(shares, zone, zones) for shares in (most, least))
    part = np.clip(_ratio(wanted_w - below, above - below), 0.0, 1.0)[zone]
    return part * most + (1.0 - part) * least


def _in_order(wanted_w: FloatArray, able_w: FloatArray, zone: IntArray, order: FloatArray) -> FloatArray:
    """Each store in turn gives all it can until its zone has enough."""
    turn = np.lexsort((order, zone))
    before = np.cumsum(able_w[turn]) - able_w[turn]
    starts = np.searchsorted(zone[turn], np.arange(len(wanted_w)))
    first = np.concatenate([before, [0.0]])[np.minimum(starts, len(before))]
    given_w = np.empty_like(able_w)
    given_w[turn] = np.clip(wanted_w[zone[turn]] - (before - first[zone[turn]]), 0.0, able_w[turn])
    return given_w
