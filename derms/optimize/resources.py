"""Cars, loads that wait and aggregators as stores: what each looks like to a planner of batteries.

Powers in W, + = injection; energy in Wh; times in hours from now.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.optimize.portfolio import Devices, Envelopes

TIME_TOLERANCE_H = 1e-9


def with_sessions(
    devices: Devices,
    hours: FloatArray,
    *,
    device: IntArray,
    due_wh: FloatArray,
    arrive_h: FloatArray,
    leave_h: FloatArray,
) -> Devices:
    """Stores that are cars: there from one time to another, with the energy due in them when they leave.

    Only steps that a car is there for from begin to end have power. A car that leaves beyond the horizon has to be so
    far at its end that the rest can follow.

    Parameters
    ----------
    device : IntArray
        Which of the stores, which have no envelopes yet, shape (k,).
    due_wh, arrive_h, leave_h : FloatArray
        Of each session; `stored_wh` of the store is what it has at arrival. Shape (k,).
    """
    ends_h = np.cumsum(hours)
    there = (ends_h - hours >= arrive_h[:, None] - TIME_TOLERANCE_H) & (ends_h <= leave_h[:, None] + TIME_TOLERANCE_H)
    powers = []
    for most_w in (devices.charge_max_w, devices.discharge_max_w):
        wide_w = np.array(np.broadcast_to(most_w, (len(devices), len(hours))))
        wide_w[device] *= there
        powers.append(wide_w)
    later_h = np.maximum(leave_h - ends_h[-1], 0.0)
    later_wh = devices.efficiency_frac[device] * devices.charge_max_w[device, -1] * later_h
    # Whoever has left takes along what was due: no other store can use it.
    low_wh = np.where(_over(ends_h, leave_h), (due_wh - later_wh)[:, None], -np.inf)
    bound = Envelopes(device=device, low_wh=low_wh, high_wh=np.full_like(low_wh, np.inf))
    return replace(devices, charge_max_w=powers[0], discharge_max_w=powers[1], envelopes=bound)


def _over(ends_h: FloatArray, at_h: FloatArray) -> BoolArray:
    """From the end of which step on each time is over: the last one that ends by then, or the last of all."""
    last = np.searchsorted(ends_h, at_h + TIME_TOLERANCE_H, side="right") - 1
    return np.arange(len(ends_h)) >= np.maximum(last, 0)[:, None]


def waiting_loads(
    hours: FloatArray,
    *,
    feeder: IntArray,
    load_w: FloatArray,
    rated_w: FloatArray,
    wait_max_wh: FloatArray,
    waiting_wh: FloatArray,
    rebound_frac: FloatArray,
    due_h: FloatArray,
    available: BoolArray,
) -> Devices:
    """Loads that can wait, as stores: full when nothing waits, given from while they wait, full again when due.

    Parameters
    ----------
    load_w : FloatArray
        What each would draw by itself, part of its feeder's net load, shape (k, steps).
    rated_w : FloatArray
        Most that it can draw, shape (k,).
    wait_max_wh, waiting_wh : FloatArray
        Energy that may wait at most, and that waits now, before rebound, shape (k,).
    rebound_frac : FloatArray
        Energy drawn later for each Wh that waited, >= 1, shape (k,).
    due_h : FloatArray
        When nothing may wait; nor may anything at the end of the horizon. Shape (k,).
    """
    efficiency = np.sqrt(1.0 / rebound_frac)
    full_wh = wait_max_wh / efficiency
    ends_h = np.cumsum(hours)
    due = _over(ends_h, due_h)
    due[:, 1:] &= ~due[:, :-1]
    due[:, -1] = True
    low_wh = np.where(due, full_wh[:, None], -np.inf)
    count = len(feeder)
    return Devices(
        feeder=feeder,
        charge_max_w=np.maximum(rated_w[:, None] - load_w, 0.0),
        discharge_max_w=load_w,
        stored_wh=full_wh - waiting_wh / efficiency,
        stored_min_wh=np.zeros(count),
        stored_max_wh=full_wh,
        efficiency_frac=efficiency,
        available=available,
        envelopes=Envelopes(device=np.arange(count), low_wh=low_wh, high_wh=np.full_like(low_wh, np.inf)),
    )


def aggregators(
    hours: FloatArray,
    *,
    feeder: IntArray,
    least_w: FloatArray,
    most_w: FloatArray,
    stored_wh: FloatArray,
    least_wh: FloatArray,
    most_wh: FloatArray,
    efficiency_frac: FloatArray,
    available: BoolArray,
) -> tuple[Devices, FloatArray]:
    """Aggregators, each an envelope of power and energy behind one setpoint, as stores beside what they must do.

    What an aggregator must give or take at least is its base: it is no choice, belongs to the feeder's net load
    (minus, for it injects), and its setpoint is the base and the store's share together.

    Parameters
    ----------
    least_w, most_w : FloatArray
        Power that it can have [W, + = injection], both of one sign where it must run, shape (k, steps).
    stored_wh : FloatArray
        Now, shape (k,).
    least_wh, most_wh : FloatArray
        Bounds of its energy at the end of each step, shape (k, steps).

    Returns
    -------
    Devices
        The stores beside the base.
    FloatArray
        The base [W, + = injection], shape (k, steps).
    """
    base_w = np.clip(0.0, least_w, most_w)
    efficiency = efficiency_frac[:, None]
    drawn_wh = np.cumsum(np.where(base_w > 0.0, base_w / efficiency, base_w * efficiency) * hours, axis=1)
    low_wh, high_wh = least_wh + drawn_wh, most_wh + drawn_wh
    # Energies of stores begin at zero; only differences count.
    lift_wh = np.maximum(-low_wh.min(axis=1), 0.0)
    low_wh, high_wh = low_wh + lift_wh[:, None], high_wh + lift_wh[:, None]
    count = len(feeder)
    return Devices(
        feeder=feeder,
        charge_max_w=base_w - least_w,
        discharge_max_w=most_w - base_w,
        stored_wh=stored_wh + lift_wh,
        stored_min_wh=low_wh.min(axis=1),
        stored_max_wh=high_wh.max(axis=1),
        efficiency_frac=efficiency_frac,
        available=available,
        envelopes=Envelopes(device=np.arange(count), low_wh=low_wh, high_wh=high_wh),
    ), base_w


def joined(parts: Sequence[Devices], steps: int) -> Devices:
    """All stores in one table, one part after the other; turns only where every part has them."""
    starts = np.cumsum([0, *(len(part) for part in parts)])
    bound = [
        (start + part.envelopes.device, part.envelopes.low_wh, part.envelopes.high_wh)
        for start, part in zip(starts, parts, strict=False)
        if part.envelopes is not None
    ]
    turns = [part.turn for part in parts if part.turn is not None]

    def wide(columns: Sequence[FloatArray]) -> FloatArray:
        return np.concatenate([np.broadcast_to(column, (len(column), steps)) for column in columns])

    return Devices(
        feeder=np.concatenate([part.feeder for part in parts]),
        charge_max_w=wide([part.charge_max_w for part in parts]),
        discharge_max_w=wide([part.discharge_max_w for part in parts]),
        stored_wh=np.concatenate([part.stored_wh for part in parts]),
        stored_min_wh=np.concatenate([part.stored_min_wh for part in parts]),
        stored_max_wh=np.concatenate([part.stored_max_wh for part in parts]),
        efficiency_frac=np.concatenate([part.efficiency_frac for part in parts]),
        available=np.concatenate([part.available for part in parts]),
        envelopes=_rows_of(bound) if bound else None,
        turn=np.concatenate(turns) if len(turns) == len(parts) else None,
    )


def _rows_of(bound: Sequence[tuple[IntArray, FloatArray, FloatArray]]) -> Envelopes:
    device, low_wh, high_wh = (np.concatenate(columns) for columns in zip(*bound, strict=True))
    return Envelopes(device=device, low_wh=low_wh, high_wh=high_wh)
