"""What a trajectory of every store is worth, and what it violates: one evaluation for every planner."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from derms.domain.arrays import FloatArray
from derms.optimize.portfolio import Portfolio

TOLERANCE_FRAC = 2e-3
"""Of the range between its limits that a feeder or row may be outside before a step counts as violated."""
LAG = 12


@dataclass(frozen=True, slots=True)
class Score:
    """Cost in units of the objective at weights of one, without slack; violated feeder-steps and row-steps."""

    cost: float
    violations: int


def scored(given: Portfolio, power_w: FloatArray, held_w: FloatArray, *, scale_w: float) -> Score:
    """Follow each store within its power and energy, then price what comes of it.

    Parameters
    ----------
    power_w : FloatArray
        Of each store [W, + = injection], shape (n, steps).
    held_w : FloatArray
        PV held back by feeder [W], shape (feeders, steps).
    """
    power_w, left_wh = _followed(given, power_w)
    count = len(given.devices)
    member = csr_array(
        (np.ones(count), (given.devices.feeder, np.arange(count))), shape=(len(given.feeders.low_w), count)
    )
    flow_w = given.feeders.net_load_w - member @ power_w + held_w
    net = flow_w.sum(axis=0) / scale_w
    hours = given.hours
    course = np.concatenate([given.past_net_w / scale_w, net[:12].reshape(4, 3).mean(axis=1), net[12:]])
    steps = np.diff(np.concatenate([course[LAG - 1 : LAG], net]))
    gaps = 0.5 * (np.concatenate([[0.25], hours[:-1]]) + hours) / 0.25
    cost = (
        net.max()
        + max(float((course[LAG:] - course[:-LAG]).max()), 0.0)
        + 0.5 * float((steps**2 / gaps).sum())
        + 0.01 * float(np.abs(power_w).sum(axis=0) @ hours) / scale_w
        + 0.2 * float(held_w.sum(axis=0) @ hours) / scale_w
        + float(given.price * net @ hours)
        - 0.02 * float(left_wh.sum()) / scale_w
    )
    return Score(float(cost), _violations(given, flow_w, power_w, held_w))


def _followed(given: Portfolio, power_w: FloatArray) -> tuple[FloatArray, FloatArray]:
    devices, hours = given.devices, given.hours
    stored_wh, efficiency = devices.stored_wh.copy(), devices.efficiency_frac
    real_w = np.clip(power_w, -devices.charge_max_w, devices.discharge_max_w)
    for step, dt_h in enumerate(hours):
        out_w = np.maximum(stored_wh - devices.stored_min_wh, 0.0) * efficiency / dt_h
        in_w = np.maximum(devices.stored_max_wh - stored_wh, 0.0) / efficiency / dt_h
        real_w[:, step] = np.clip(real_w[:, step], -in_w, out_w)
        stored_wh -= np.where(real_w[:, step] > 0.0, real_w[:, step] / efficiency, real_w[:, step] * efficiency) * dt_h
    return real_w, stored_wh


def _violations(given: Portfolio, flow_w: FloatArray, power_w: FloatArray, held_w: FloatArray) -> int:
    feeders, rows = given.feeders, given.rows
    room_w = TOLERANCE_FRAC * (feeders.high_w - feeders.low_w)[:, None]
    outside = (flow_w > feeders.high_w[:, None] + room_w) | (flow_w < feeders.low_w[:, None] - room_w)
    value = rows.base + rows.per_w @ power_w - rows.per_pv_w[:, None] * held_w[rows.feeder]
    room = TOLERANCE_FRAC * (rows.high - rows.low)[:, None]
    missed = (value > rows.high[:, None] + room) | (value < rows.low[:, None] - room)
    return int(outside.sum() + missed.sum())
