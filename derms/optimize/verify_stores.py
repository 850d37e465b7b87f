"""The verifier of single stores: power, energy, what their site leaves them, what is due. Shares no code with the
optimizer. Units and signs as of the portfolio; faults are sentences.
"""

from collections.abc import Collection

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.optimize.portfolio import Portfolio, Sites

POWER_TOLERANCE_FRAC = 1e-6
ENERGY_TOLERANCE_FRAC = 1e-6
POWER_TOLERANCE_W = 1e-3
DUE_TOLERANCE_WH = 1e-2
REACTIVE_FRAC = 0.44
"""Of its rating, that every inverter of IEEE 1547-2018 category B can have as reactive power."""
UNNAMED_WH = 10.0
"""Of what is due, that may be missing without a name."""


def store_faults(given: Portfolio, power_w: FloatArray) -> list[str]:
    """Stores beyond their own power or energy, or commanded though not available; powers of shape (n, shared)."""
    devices, shared = given.devices, power_w.shape[1]
    wrong = []
    room_w = POWER_TOLERANCE_FRAC * np.maximum(devices.discharge_max_w, devices.charge_max_w) + POWER_TOLERANCE_W
    out_w, in_w = (
        np.broadcast_to(most_w[:, :shared], power_w.shape) for most_w in (devices.discharge_max_w, devices.charge_max_w)
    )
    beyond = ((power_w > out_w + room_w[:, :shared]) | (-power_w > in_w + room_w[:, :shared])).any(axis=1)
    if beyond.any():
        wrong.append(f"{np.count_nonzero(beyond)} stores beyond their power")
    if power_w[~devices.available].any():
        wrong.append("stores are commanded that are not available")
    stored_wh = _followed(given, power_w)
    room_wh = ENERGY_TOLERANCE_FRAC * devices.stored_max_wh + 1e-3
    low_wh = np.minimum(devices.stored_min_wh, devices.stored_wh) - room_wh
    high_wh = np.maximum(devices.stored_max_wh, devices.stored_wh) + room_wh
    outside = (stored_wh.min(axis=1) < low_wh) | (stored_wh.max(axis=1) > high_wh)
    if outside.any():
        wrong.append(f"{np.count_nonzero(outside)} stores beyond their energy")
    return wrong


def reactive_faults(given: Portfolio, power_w: FloatArray, reactive_var: FloatArray) -> list[str]:
    """Stores with more reactive power than their inverter has room for beside the active one."""
    if not reactive_var.any():
        return []
    rating_va, wanted = given.devices.apparent_max_va, np.abs(reactive_var)
    most_va = np.zeros(len(wanted)) if rating_va is None else np.where(rating_va > 0.0, rating_va, 0.0)
    room_va = (most_va * (1.0 + POWER_TOLERANCE_FRAC) + POWER_TOLERANCE_W)[:, None]
    beyond = (np.hypot(power_w, reactive_var) > room_va) & (wanted > POWER_TOLERANCE_W)
    return _counted((_ever(beyond | (wanted > REACTIVE_FRAC * room_va)), "inverters beyond their rating"))


def _followed(given: Portfolio, power_w: FloatArray) -> FloatArray:
    """Energy in each store at the end of each step [Wh], shape of the powers."""
    devices, hours = given.devices, given.hours[: power_w.shape[1]]
    loss = np.where(power_w > 0.0, 1.0 / devices.efficiency_frac[:, None], devices.efficiency_frac[:, None])
    stored_wh: FloatArray = devices.stored_wh[:, None] - np.cumsum(power_w * loss * hours, axis=1)
    return stored_wh


def _ever(faulty: BoolArray) -> BoolArray:
    """Whose row has a fault in any step."""
    found: BoolArray = np.logical_or.reduce(faulty, axis=1)
    return found


def _counted(*faults: tuple[BoolArray, str]) -> list[str]:
    """Each fault that there is, with the number of those that have it."""
    return [f"{np.count_nonzero(whose)} {what}" for whose, what in faults if whose.any()]


def site_faults(given: Portfolio, power_w: FloatArray) -> list[str]:
    """What devices behind one point take together, and what they give, each alone within what is left there."""
    sites, shared = given.sites, power_w.shape[1]
    if sites is None:
        return []
    taken_w, given_w = np.maximum(-power_w, 0.0), np.maximum(power_w, 0.0)
    taking, giving = (
        [(point, room_w[:, :shared]) for point, room_w in points] for points in (_taking(sites), _giving(sites))
    )
    without_pv = _ever(taken_w[sites.solar_only & (sites.site < 0)] > POWER_TOLERANCE_W)
    return _counted(
        (_crowded(taken_w, *taking[0]), "shared inverters take more than they may"),
        (_crowded(given_w, *giving[0]), "shared inverters give more than they may"),
        (_crowded(taken_w, *taking[1]), "sites charge what may charge from PV only with more than that"),
        (_crowded(taken_w, *taking[2]), "sites draw more than their connection may"),
        (_crowded(given_w, *giving[1]), "sites give more than their connection may"),
        (without_pv, "stores charge that may do so from PV only, and have none"),
        (_drained(given, power_w, sites), "stores give what is kept for an outage"),
    )


def _taking(sites: Sites) -> tuple[tuple[IntArray, FloatArray], ...]:
    """Of each kind of point its devices and the power that they may take together: inverters, PV, sites."""
    net_w = sites.load_w - sites.pv_w
    return (
        (sites.inverter, sites.inverter_max_w[:, None] + sites.inverter_pv_w),
        (np.where(sites.solar_only, sites.site, -1), sites.pv_w),
        (sites.site, sites.import_max_w[:, None] - net_w),
    )


def _giving(sites: Sites) -> tuple[tuple[IntArray, FloatArray], ...]:
    net_w = sites.load_w - sites.pv_w
    return (
        (sites.inverter, sites.inverter_max_w[:, None] - sites.inverter_pv_w),
        (sites.site, sites.export_max_w[:, None] + net_w),
    )


def _crowded(power_w: FloatArray, point: IntArray, room_w: FloatArray) -> BoolArray:
    """Points whose devices use more than the room there; where that is not known, any power is more."""
    used_w, behind = np.zeros_like(room_w), point >= 0
    np.add.at(used_w, point[behind], power_w[behind])
    number = np.bincount(point[behind], minlength=len(room_w))[:, None]
    known_w = np.where(room_w > 0.0, room_w, 0.0)
    return _ever(used_w > known_w * (1.0 + POWER_TOLERANCE_FRAC) + POWER_TOLERANCE_W * number)


def _drained(given: Portfolio, power_w: FloatArray, sites: Sites) -> BoolArray:
    """Stores that give below their backup, or although nobody knows it."""
    tolerance_wh = ENERGY_TOLERANCE_FRAC * given.devices.stored_max_wh + DUE_TOLERANCE_WH
    kept_wh = np.where(np.isnan(sites.backup_wh), np.inf, _kept_wh(given))
    below = _followed(given, power_w) < (kept_wh - tolerance_wh)[:, None]
    return _ever(below & (power_w > POWER_TOLERANCE_W))


def _kept_wh(given: Portfolio) -> FloatArray:
    """Least energy of each store, with what is kept for an outage where somebody knows it."""
    devices, sites = given.devices, given.sites
    if sites is None:
        return devices.stored_min_wh
    backup_wh = np.where(np.isnan(sites.backup_wh), 0.0, np.minimum(sites.backup_wh, devices.stored_max_wh))
    return np.maximum(devices.stored_min_wh, backup_wh)


def _alone_w(most_w: FloatArray, points: tuple[tuple[IntArray, FloatArray], ...]) -> FloatArray:
    """What each store may use when all use what they may: the room of one point after the other is dealt out."""
    left_w = np.array(most_w)
    for point, room_w in points:
        behind, able_w = point >= 0, np.zeros_like(room_w)
        np.add.at(able_w, point[behind], left_w[behind])
        known_w = np.where(room_w > 0.0, room_w, 0.0)
        part = np.minimum(np.divide(known_w, able_w, out=np.ones_like(able_w), where=able_w > 0.0), 1.0)
        left_w[behind] *= part[point[behind]]
    return left_w


def due_faults(given: Portfolio, power_w: FloatArray, named: Collection[str]) -> list[str]:
    """What is due, after the first steps as planned and with full power from then on, against full power at once."""
    devices, bound, sites, desk = given.devices, given.devices.envelopes, given.sites, given.desk
    if bound is None:
        return []
    shape = (len(devices), len(given.hours))
    in_w, out_w = np.broadcast_to(devices.charge_max_w, shape), np.broadcast_to(devices.discharge_max_w, shape)
    if sites is not None:
        in_w = _alone_w(np.where((sites.solar_only & (sites.site < 0))[:, None], 0.0, in_w), _taking(sites))
        out_w = _alone_w(np.where(np.isnan(sites.backup_wh)[:, None], 0.0, out_w), _giving(sites))
    ends_h = np.cumsum(given.hours)
    taking = ends_h > (desk.hold_h + 1e-9 if desk.emergency else 0.0)
    at, shared = bound.device, power_w.shape[1]
    efficiency, planned_wh = devices.efficiency_frac[at], _followed(given, power_w)[at]
    full_wh = np.maximum(devices.stored_max_wh, devices.stored_wh)[at]
    empty_wh = np.minimum(_kept_wh(given), devices.stored_wh)[at]
    best_wh, least_wh, top_wh, bottom_wh = (devices.stored_wh[at] for _ in range(4))
    short_wh, late_wh, much_wh = np.zeros((3, len(at)))
    for step, hours in enumerate(given.hours):
        rise_wh, fall_wh = in_w[at, step] * taking[step] * efficiency * hours, out_w[at, step] / efficiency * hours
        best_wh, top_wh = np.minimum(best_wh + rise_wh, full_wh), np.minimum(top_wh + rise_wh, full_wh)
        least_wh, bottom_wh = np.maximum(least_wh - fall_wh, empty_wh), np.maximum(bottom_wh - fall_wh, empty_wh)
        if step < shared:
            top_wh = bottom_wh = planned_wh[:, step]
        low_wh, high_wh = bound.low_wh[:, step], bound.high_wh[:, step]
        short_wh = np.maximum(short_wh, np.maximum(low_wh - best_wh, least_wh - high_wh))
        late_wh = np.maximum(late_wh, np.minimum(low_wh, best_wh) - top_wh)
        much_wh = np.maximum(much_wh, bottom_wh - np.maximum(high_wh, least_wh))
    tolerance_wh = ENERGY_TOLERANCE_FRAC * full_wh + DUE_TOLERANCE_WH
    told = np.array([f"energy due of store {store}" in named for store in at], dtype=np.bool_)
    return _counted(
        (late_wh > tolerance_wh, "stores miss energy that is due and need not"),
        ((much_wh > tolerance_wh) & ~told, "stores exceed their envelope and need not"),
        ((short_wh > UNNAMED_WH) & ~told, "stores cannot keep to their envelope, and nobody says so"),
    )
