"""Zone powers shared among their stores, all zones at once. Powers in W, + = discharge; energy in Wh."""

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from derms.domain.arrays import FloatArray, IntArray
from derms.errors import PlanError
from derms.optimize.aggregate import POWER_MIN_W
from derms.optimize.portfolio import Desk, Devices

BISECTIONS = 22


class Fairness(StrEnum):
    """Who goes first."""

    TIME_TO_GO = "time to go"
    """Those that could go on longest: all run out together, which keeps the fleet able for longest."""
    PRO_RATA = "pro rata"
    """All with the same share of what they can."""
    IN_ORDER = "in order"
    """By the turn of each store: the newest first (last in, first out), the cheapest, or as a file has them."""


def fairness_of(desk: Desk, usual: Fairness) -> Fairness:
    """Who goes first: time to go changes shares from step to step, so while a power is held it is pro rata instead."""
    return Fairness.PRO_RATA if desk.hold_w and usual is Fairness.TIME_TO_GO else usual


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
) -> Shares:
    """Share zone powers (zones, steps) out to stores, step after step, each within its power and energy.

    Time to go follows Evans, Tindemans, Angeli, arXiv 1805.09315: p = clip((E - z P) / dt, 0, P) with one level z [h]
    in each zone. What a store must take or give for its envelope comes first, whatever its zone plans; with it those
    that have the least time left to take what is due are the first to charge. Envelopes are as `within_envelopes`
    leaves them.

    Raises
    ------
    PlanError
        Stores are to share in order, and nobody says in which.
    """
    if fairness is Fairness.IN_ORDER and devices.turn is None:
        raise PlanError("no plan: stores are to share in order, and have no turns")
    zones, steps = injected_w.shape
    power_w, shortfall_w = np.zeros((len(devices), steps)), np.zeros((zones, steps))
    stored_wh = devices.stored_wh.copy()
    for step in range(steps):
        power_w[:, step] = _step(injected_w[:, step], devices, _able(devices, stored_wh, step, hours), zone, fairness)
        loss = np.where(power_w[:, step] > 0.0, 1.0 / devices.efficiency_frac, devices.efficiency_frac)
        stored_wh -= power_w[:, step] * loss * hours[step]
        shortfall_w[:, step] = injected_w[:, step] - _sums(power_w[:, step], zone, zones)
    return Shares(power_w=power_w, shortfall_w=shortfall_w, stored_wh=stored_wh)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Able:
    """What stores can in one step, shape (n,)."""

    dt_h: float
    out_w: FloatArray
    in_w: FloatArray
    give_wh: FloatArray
    """At the terminals."""
    take_wh: FloatArray
    must_w: FloatArray | None = None
    """Power that envelopes ask for [W, + = discharge]; None where there are none."""
    fill_h: FloatArray | None = None
    """Whose turn it is to charge, the greatest first."""


def _able(devices: Devices, stored_wh: FloatArray, step: int, hours: FloatArray) -> _Able:
    out_w = devices.discharge_max_w[:, min(step, devices.discharge_max_w.shape[1] - 1)]
    in_w = devices.charge_max_w[:, min(step, devices.charge_max_w.shape[1] - 1)]
    out_w, in_w = (np.where(most_w < POWER_MIN_W, 0.0, most_w) for most_w in (out_w, in_w))
    dt_h, efficiency, bound = float(hours[step]), devices.efficiency_frac, devices.envelopes
    least_wh, most_wh = devices.stored_min_wh, devices.stored_max_wh
    if bound is not None:
        at = bound.device
        least_wh, most_wh = least_wh.copy(), most_wh.copy()
        least_wh[at] = np.maximum(least_wh[at], bound.low_wh[:, step])
        most_wh[at] = np.minimum(most_wh[at], bound.high_wh[:, step])
    able = _Able(
        dt_h=dt_h,
        out_w=out_w,
        in_w=in_w,
        give_wh=np.maximum(stored_wh - least_wh, 0.0) * efficiency,
        take_wh=np.maximum(most_wh - stored_wh, 0.0) / efficiency,
    )
    if bound is None:
        return able
    at = bound.device
    must_w, fill_h = np.zeros(len(devices)), _ratio(able.take_wh, in_w)
    short_wh, over_wh = bound.low_wh[:, step] - stored_wh[at], stored_wh[at] - bound.high_wh[:, step]
    must_w[at] = np.minimum(np.maximum(over_wh, 0.0) * efficiency[at] / dt_h, out_w[at]) - np.minimum(
        np.maximum(short_wh, 0.0) / efficiency[at] / dt_h, in_w[at]
    )
    due = np.isfinite(short_wh)
    late_h = _ratio(short_wh[due] / efficiency[at[due]], in_w[at[due]])
    fill_h[at[due]] = np.maximum(hours.sum() + late_h, 0.0)
    return replace(able, must_w=must_w, fill_h=fill_h)


def _step(total_w: FloatArray, devices: Devices, able: _Able, zone: IntArray, fairness: Fairness) -> FloatArray:
    """Power of each store in one step [W, + = discharge], shape (n,)."""
    zones, dt_h, must_w = len(total_w), able.dt_h, able.must_w
    if must_w is not None:
        total_w = total_w - _sums(must_w, zone, zones)
    gives = total_w[zone] >= 0.0
    most_w, energy_wh = np.where(gives, able.out_w, able.in_w), np.where(gives, able.give_wh, able.take_wh)
    if must_w is not None:
        already_w = np.where(gives, np.maximum(must_w, 0.0), np.maximum(-must_w, 0.0))
        most_w, energy_wh = most_w - already_w, np.maximum(energy_wh - already_w * dt_h, 0.0)
    able_w = np.minimum(most_w, energy_wh / dt_h)
    wanted_w = np.minimum(np.abs(total_w), _sums(able_w, zone, zones))
    if fairness is Fairness.TIME_TO_GO:
        level_h = _ratio(energy_wh, most_w)
        if able.fill_h is not None:
            level_h = np.where(gives, level_h, able.fill_h)
        given_w = _together(wanted_w, most_w, energy_wh, level_h, zone, dt_h)
    elif devices.turn is None or fairness is Fairness.PRO_RATA:
        given_w = able_w * _ratio(wanted_w, _sums(able_w, zone, zones))[zone]
    else:
        given_w = _in_order(wanted_w, able_w, zone, devices.turn)
    power_w = np.where(gives, given_w, -given_w)
    return power_w if must_w is None else power_w + must_w


def _sums(values: FloatArray, zone: IntArray, zones: int) -> FloatArray:
    return np.bincount(zone, weights=values, minlength=zones).astype(np.float64, copy=False)


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0.0)


def _together(
    wanted_w: FloatArray, most_w: FloatArray, energy_wh: FloatArray, hours: FloatArray, zone: IntArray, dt_h: float
) -> FloatArray:
    """Bisect the level of each zone; between the last two levels the shares are straight, which meets the total.

    `hours` is how long each could go on, or what else says whose turn it is.
    """
    zones = len(wanted_w)
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
