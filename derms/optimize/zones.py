"""Zones: groups of stores that the system problem sees as one virtual battery each.

Stores of one zone have to last equally long: then what they can do together is what one battery of their sum can. A
feeder whose limits matter is modelled: it has its own zones, told apart also by what its stores do to its critical
rows. All other feeders are pooled. Stores with an envelope have zones apart from the others, by when they can begin,
when most is due, and whether they can give as well as take. Units and signs as of the portfolio.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.optimize.envelopes import bound_courses, course, held_at_least_wh
from derms.optimize.portfolio import Devices, Envelopes, Portfolio

POOLS = 6
"""Zones of the feeders that are not modelled."""
BOUND_POOLS = 24
"""The same of stores with envelopes: there are more ways for them to be unlike."""
BOUND_TIMES = 2
"""As many zones of a modelled feeder as for its other stores."""
CLUSTER_ROUNDS = 12
RECOVERY_FRAC = 0.5
"""Share of its power with which a store outside its energy bounds is brought back."""
COURSE_FRAC = 0.98
"""Share of its power that a zone may need for what is due: its stores are not all as efficient as their mean."""
COURSE_WIDER_FRAC = 1e-3
"""Of what a zone can hold, that its energy may leave its course: a solver needs some width even where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Zoning:
    """Who is in which zone; zones of one modelled feeder follow each other, the pool's come last."""

    zone: IntArray
    """Of each store, shape (n,)."""
    block: IntArray
    """Of each zone: place in `feeders`, or their number for the pool; shape (zones,)."""
    feeders: IntArray
    """The modelled feeders, shape (blocks,)."""
    rows: IntArray
    """The network rows that the problem carries; each is on a modelled feeder."""

    @property
    def zones(self) -> int:
        return len(self.block)

    def total(self, values: FloatArray) -> FloatArray:
        """Sum over each zone's stores of (n,) or (n, steps) values."""
        member = csr_array(
            (np.ones(len(self.zone)), (self.zone, np.arange(len(self.zone)))), shape=(self.zones, len(self.zone))
        )
        summed: FloatArray = member @ values
        return summed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stores:
    """Virtual batteries, a row per zone; power and energy (zones, steps) unless said otherwise."""

    charge_max_w: FloatArray
    discharge_max_w: FloatArray
    stored_wh: FloatArray
    """Now, shape (zones,)."""
    low_wh: FloatArray
    high_wh: FloatArray
    """Bounds at the end of each step; they reach from where the store is to where it should be."""
    gave_way_wh: FloatArray
    """How far `low_wh` and `high_wh` are outside the wanted bounds at the end of the first step, shape (zones,)."""
    efficiency_frac: FloatArray
    """Shape (zones,)."""

    @property
    def power_w(self) -> FloatArray:
        """Greatest power of each zone in any step, shape (zones,)."""
        most: FloatArray = np.maximum(self.charge_max_w, self.discharge_max_w).max(axis=1)
        return most


def zoning(portfolio: Portfolio, feeders: IntArray, rows: IntArray, *, per_feeder: int) -> Zoning:
    """Zones with these feeders and rows modelled, at most `per_feeder` to each, and as many for envelopes."""
    devices = portfolio.devices
    place = np.full(len(portfolio.feeders.low_w), len(feeders), dtype=np.intp)
    place[feeders] = np.arange(len(feeders))
    block = place[devices.feeder]
    effect = portfolio.rows.per_w[rows]
    row_block = place[portfolio.rows.feeder[rows]]
    part = np.zeros(len(devices), dtype=np.intp)
    nature, bound = _nature(devices, portfolio.hours)
    free_most, bound_most = max(per_feeder, POOLS), max(BOUND_TIMES * per_feeder, BOUND_POOLS)
    for kind, first, feeder_zones, pools in (
        (~bound, 0, per_feeder, POOLS),
        (bound, free_most, BOUND_TIMES * per_feeder, BOUND_POOLS),
    ):
        for number in range(len(feeders)):
            members = np.flatnonzero((block == number) & kind)
            mine = np.flatnonzero(row_block == number)
            features = np.hstack([nature[members], _unit(effect[mine][:, members].toarray().T)])
            part[members] = first + _clusters(features, feeder_zones)
        pool = (block == len(feeders)) & kind
        part[pool] = first + _clusters(nature[pool], pools)
    _, zone = np.unique(block * (free_most + bound_most) + part, return_inverse=True)
    block_of = np.zeros(int(zone.max(initial=-1)) + 1, dtype=np.intp)
    block_of[zone] = block
    return Zoning(zone=zone, block=block_of, feeders=feeders, rows=rows)


def singletons(portfolio: Portfolio) -> Zoning:
    """Every store a zone of its own, every feeder and row modelled: the exact problem."""
    feeders = np.arange(len(portfolio.feeders.low_w))
    count = len(portfolio.devices)
    return Zoning(
        zone=np.arange(count), block=portfolio.devices.feeder, feeders=feeders, rows=np.arange(len(portfolio.rows))
    )


def _nature(devices: Devices, hours: FloatArray) -> tuple[FloatArray, BoolArray]:
    """What tells stores apart wherever they are, a row each; and which of them have an envelope."""
    lasting = _lasting(devices)[:, None]
    bound = np.zeros(len(devices), dtype=np.bool_)
    if devices.envelopes is None:
        return lasting, bound
    at = devices.envelopes.device
    bound[at] = True
    out_w, in_w = devices.discharge_max_w[at].max(axis=1), devices.charge_max_w[at].max(axis=1)
    more = np.zeros((len(devices), 3))
    more[at, 0], more[at, 1] = begin_h(devices, hours) / hours.sum(), due_h(devices, hours) / hours.sum()
    more[at, 2] = np.divide(out_w, np.maximum(out_w, in_w), out=np.zeros_like(out_w), where=out_w > 0.0)
    return np.hstack([lasting, more]), bound


def begin_h(devices: Devices, hours: FloatArray) -> FloatArray:
    """When each store with an envelope first has power [h from now], shape (k,)."""
    bound = devices.envelopes
    if bound is None:
        return np.zeros(0)
    able = (devices.charge_max_w[bound.device] > 0.0) | (devices.discharge_max_w[bound.device] > 0.0)
    begins_h = np.cumsum(hours) - hours
    first: FloatArray = begins_h[able.argmax(axis=1)]
    return first


def due_h(devices: Devices, hours: FloatArray) -> FloatArray:
    """When most is due of each store with an envelope, at the end where nothing is [h from now], shape (k,)."""
    bound = devices.envelopes
    if bound is None:
        return np.zeros(0)
    asked = bound.low_wh > devices.stored_min_wh[bound.device, None]
    last = np.where(asked.any(axis=1), np.where(asked, bound.low_wh, -np.inf).argmax(axis=1), len(hours) - 1)
    due: FloatArray = np.cumsum(hours)[last]
    return due


def due_scatter_h(portfolio: Portfolio, zones: Zoning) -> float:
    """How far what is due stands from the mean of its zone, as a standard deviation [h]; 0 where nothing is due."""
    bound = portfolio.devices.envelopes
    if bound is None or not len(bound):
        return 0.0
    at_h, zone = due_h(portfolio.devices, portfolio.hours), zones.zone[bound.device]
    count = np.bincount(zone, minlength=zones.zones)
    mean_h = np.bincount(zone, weights=at_h, minlength=zones.zones) / np.maximum(count, 1)
    return float(np.sqrt(np.mean((at_h - mean_h[zone]) ** 2)))


def _lasting(devices: Devices) -> FloatArray:
    """How long each store lasts, against the longest, shape (n,)."""
    power_w = np.maximum(devices.discharge_max_w.max(axis=1), devices.charge_max_w.max(axis=1))
    room_wh = devices.stored_max_wh - devices.stored_min_wh
    return _unit(np.divide(room_wh, power_w, out=np.zeros_like(room_wh), where=power_w > 0.0))


def _unit(values: FloatArray) -> FloatArray:
    """Against the greatest of all; together, rows that say the same count once."""
    most = np.abs(values).max(initial=0.0)
    columns = np.sqrt(values.shape[1]) if values.ndim > 1 else 1.0
    return values / (most * columns) if most > 0.0 else values


def _clusters(points: FloatArray, count: int) -> IntArray:
    """Lloyd's algorithm from a spread of starting points: the part of each point, shape (n,)."""
    if not len(points):
        return np.zeros(0, dtype=np.intp)
    order = np.argsort(points.sum(axis=1), kind="stable")
    centres = points[order[np.linspace(0, len(points) - 1, min(count, len(points))).astype(np.intp)]]
    nearest: IntArray = np.zeros(len(points), dtype=np.intp)
    for _ in range(CLUSTER_ROUNDS):
        nearest = ((points[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2).argmin(axis=1)
        for number in range(len(centres)):
            if (nearest == number).any():
                centres[number] = points[nearest == number].mean(axis=0)
    return nearest


def stores(portfolio: Portfolio, zones: Zoning, *, efficiency_frac: FloatArray | None = None) -> Stores:
    """The virtual batteries as they are now, with their stores' mean efficiency, or with that of an earlier time."""
    devices, steps = portfolio.devices, len(portfolio.hours)
    charge_w = zones.total(devices.charge_max_w) * np.ones(steps)
    discharge_w = zones.total(devices.discharge_max_w) * np.ones(steps)
    efficiency = _efficiency(devices, zones) if efficiency_frac is None else efficiency_frac
    now = _led(devices, zones, charge_w, discharge_w, efficiency, portfolio.hours)
    bound = devices.envelopes
    return now if bound is None else _on_course(now, devices, bound, zones, portfolio.hours)


def _efficiency(devices: Devices, zones: Zoning) -> FloatArray:
    # The watt gives a zone without power, which may have some later, the plain mean.
    weight_w = devices.charge_max_w.max(axis=1) + devices.discharge_max_w.max(axis=1) + 1.0
    mean: FloatArray = zones.total(weight_w * devices.efficiency_frac) / zones.total(weight_w)
    return mean


def _led(
    devices: Devices,
    zones: Zoning,
    charge_w: FloatArray,
    discharge_w: FloatArray,
    efficiency: FloatArray,
    hours: FloatArray,
) -> Stores:
    """Zones without regard to envelopes; one outside its bounds is led back at half of its power, so that there always
    is a way."""
    stored, low, high = (
        zones.total(values) for values in (devices.stored_wh, devices.stored_min_wh, devices.stored_max_wh)
    )
    rise_wh = RECOVERY_FRAC * efficiency[:, None] * np.cumsum(charge_w * hours, axis=1)
    fall_wh = RECOVERY_FRAC / efficiency[:, None] * np.cumsum(discharge_w * hours, axis=1)
    low_wh = np.minimum(low[:, None], stored[:, None] + rise_wh)
    high_wh = np.maximum(high[:, None], stored[:, None] - fall_wh)
    return Stores(
        charge_max_w=charge_w,
        discharge_max_w=discharge_w,
        stored_wh=stored,
        low_wh=low_wh,
        high_wh=high_wh,
        gave_way_wh=np.maximum(low - low_wh[:, 0], 0.0) + np.maximum(high_wh[:, 0] - high, 0.0),
        efficiency_frac=efficiency,
    )


def _on_course(now: Stores, devices: Devices, bound: Envelopes, zones: Zoning, hours: FloatArray) -> Stores:
    """Zones that have stores with envelopes: together these are within the sums of their bounds."""
    at = bound.device
    kept = bound_courses(devices, bound, hours, never_below=True)
    low_wh, high_wh = (
        np.broadcast_to(values[:, None], (len(devices), len(hours))).copy()
        for values in (held_at_least_wh(devices), np.maximum(devices.stored_max_wh, devices.stored_wh))
    )
    low_wh[at] = kept.emptiest_wh
    high_wh[at] = kept.fullest_wh
    whose = np.zeros(zones.zones, dtype=np.bool_)
    whose[zones.zone[at]] = True
    gain_wh = COURSE_FRAC * now.efficiency_frac[:, None] * now.charge_max_w * hours
    loss_wh = COURSE_FRAC / now.efficiency_frac[:, None] * now.discharge_max_w * hours
    led = course(zones.total(low_wh), zones.total(high_wh), now.stored_wh, gain_wh, loss_wh)
    mixed, wider_wh = whose[:, None], COURSE_WIDER_FRAC * zones.total(devices.stored_max_wh)[:, None]
    return replace(
        now,
        low_wh=np.where(mixed, led.low_wh - wider_wh, now.low_wh),
        high_wh=np.where(mixed, led.high_wh + wider_wh, now.high_wh),
        gave_way_wh=np.where(whose, 0.0, now.gave_way_wh),
    )


def row_effects(portfolio: Portfolio, zones: Zoning, rows: IntArray) -> csr_array:
    """Change of rows per W of each zone, its stores moving in proportion to their power, shape (rows, zones)."""
    effects: csr_array = portfolio.rows.per_w[rows] @ _spread(portfolio.devices, zones)
    return effects


def feeder_shares(devices: Devices, zones: Zoning, feeders: int) -> csr_array:
    """Part of each zone's power that is on each feeder, likewise, shape (feeders, zones)."""
    count = len(devices)
    member = csr_array((np.ones(count), (devices.feeder, np.arange(count))), shape=(feeders, count))
    shares: csr_array = member @ _spread(devices, zones)
    return shares


def _spread(devices: Devices, zones: Zoning) -> csr_array:
    weight_w = devices.charge_max_w.max(axis=1) + devices.discharge_max_w.max(axis=1)
    total_w = zones.total(weight_w)[zones.zone]
    share = np.divide(weight_w, total_w, out=np.zeros_like(weight_w), where=total_w > 0.0)
    return csr_array((share, (np.arange(len(devices)), zones.zone)), shape=(len(devices), zones.zones))
