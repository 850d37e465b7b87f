"""Zones: groups of stores that the system problem sees as one virtual battery each.

Stores of one zone have to last equally long: then what they can do together is what one battery of their sum can. A
feeder whose limits matter is modelled: it has its own zones, told apart also by what its stores do to its critical
rows. All other feeders are pooled. Units and signs as of the portfolio.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from derms.domain.arrays import FloatArray, IntArray
from derms.optimize.portfolio import Devices, Portfolio

POOLS = 6
"""Zones of the feeders that are not modelled."""
CLUSTER_ROUNDS = 12
RECOVERY_FRAC = 0.5
"""Share of its power with which a store outside its energy bounds is brought back."""


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
    """Zones with these feeders and rows modelled, at most `per_feeder` to each."""
    devices = portfolio.devices
    place = np.full(len(portfolio.feeders.low_w), len(feeders), dtype=np.intp)
    place[feeders] = np.arange(len(feeders))
    block = place[devices.feeder]
    effect = portfolio.rows.per_w[rows]
    row_block = place[portfolio.rows.feeder[rows]]
    part = np.zeros(len(devices), dtype=np.intp)
    lasting = _lasting(devices)[:, None]
    for number in range(len(feeders)):
        members = np.flatnonzero(block == number)
        mine = np.flatnonzero(row_block == number)
        features = np.hstack([lasting[members], _unit(effect[mine][:, members].toarray().T)])
        part[members] = _clusters(features, per_feeder)
    pool = block == len(feeders)
    part[pool] = _clusters(lasting[pool], POOLS)
    _, zone = np.unique(block * (per_feeder + POOLS) + part, return_inverse=True)
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


def stores(portfolio: Portfolio, zones: Zoning) -> Stores:
    """The virtual batteries as they are now."""
    devices, hours = portfolio.devices, portfolio.hours
    steps = len(hours)
    charge_w = zones.total(devices.charge_max_w) * np.ones(steps)
    discharge_w = zones.total(devices.discharge_max_w) * np.ones(steps)
    # The watt gives a zone without power, which may have some later, the plain mean.
    weight_w = devices.charge_max_w.max(axis=1) + devices.discharge_max_w.max(axis=1) + 1.0
    efficiency = zones.total(weight_w * devices.efficiency_frac) / zones.total(weight_w)
    stored, low, high = (
        zones.total(values) for values in (devices.stored_wh, devices.stored_min_wh, devices.stored_max_wh)
    )
    # A store outside its bounds is led back at half of its power, so that there is always a way.
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
