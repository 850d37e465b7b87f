"""Reactive power where it lifts or lowers voltages: how much of it stores can give beside their active power.

A modelled feeder has one reactive power, within what its stores can whatever active power they are asked for; it is
shared out by what each can beside the active power that it has. Reactive power in var, + = injection.
"""

import numpy as np
from scipy.sparse import csr_array, diags_array

from derms.domain.arrays import FloatArray
from derms.optimize.portfolio import Devices, Portfolio
from derms.optimize.zones import Zoning

REACTIVE_FRAC = 0.44
"""Of an inverter's rating: what IEEE 1547-2018 asks of category B both ways, clause 5.2."""


def room_var(devices: Devices, power_w: FloatArray) -> FloatArray:
    """Reactive power that each store can have beside an active power, none where its rating is not known.

    Parameters
    ----------
    power_w : FloatArray
        Active power, any sign, shape (n, steps).

    Returns
    -------
    FloatArray
        min(0.44 S, sqrt(S^2 - P^2)), shape of the powers.
    """
    if devices.apparent_max_va is None:
        return np.zeros_like(power_w)
    rating_va = np.where(devices.available, np.nan_to_num(devices.apparent_max_va), 0.0)[:, None]
    left: FloatArray = np.sqrt(np.maximum(rating_va**2 - power_w**2, 0.0))
    return np.minimum(REACTIVE_FRAC * rating_va, left)


def _least_room_var(devices: Devices) -> FloatArray:
    return room_var(devices, np.maximum(devices.charge_max_w, devices.discharge_max_w))


def _member(devices: Devices, zones: Zoning) -> csr_array:
    """Which modelled feeder each store is on, shape (blocks, n)."""
    block = zones.block[zones.zone]
    on = np.flatnonzero(block < len(zones.feeders))
    return csr_array((np.ones(len(on)), (block[on], on)), shape=(len(zones.feeders), len(devices)))


def reactive_room(portfolio: Portfolio, zones: Zoning) -> FloatArray:
    """Reactive power that the stores of each modelled feeder always have room for, shape (blocks, steps)."""
    least_var = _least_room_var(portfolio.devices)
    room: FloatArray = _member(portfolio.devices, zones) @ least_var * np.ones(len(portfolio.hours))
    return room


def reactive_effects(devices: Devices, zones: Zoning, per_var: csr_array) -> csr_array:
    """Change of rows per var of each modelled feeder, its stores sharing it by their room, shape (rows, blocks)."""
    member, room = _member(devices, zones), _least_room_var(devices).max(axis=1)
    total = member @ room
    part = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0.0)
    return csr_array(per_var @ (diags_array(room) @ member.T @ diags_array(part)))


def share_reactive(reactive_var: FloatArray, devices: Devices, zones: Zoning, power_w: FloatArray) -> FloatArray:
    """Reactive power of each store [var], by its room beside its active power, shape (n, shared).

    Parameters
    ----------
    reactive_var : FloatArray
        Of each modelled feeder, shape (blocks, shared).
    power_w : FloatArray
        Active power of each store, shape (n, shared).
    """
    member, room = _member(devices, zones), room_var(devices, power_w)
    total = member @ room
    part = np.clip(np.divide(reactive_var, total, out=np.zeros_like(total), where=total > 0.0), -1.0, 1.0)
    shares: FloatArray = room * (member.T @ part)
    return shares
