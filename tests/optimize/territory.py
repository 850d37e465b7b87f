"""A made-up territory for the optimizer: radial feeders with houses, PV and batteries, some of them congested.

Voltage rows are LinDistFlow: the resistance that the paths of two places share, per W. Everything is drawn from a seed.
"""

import numpy as np
from scipy.sparse import csr_array

from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.optimize.portfolio import Desk, Devices, Feeders, Portfolio, Rank, Rows

HOURS = np.concatenate([np.full(12, 1 / 12), np.full(92, 0.25)])
"""Five minutes for the first hour, a quarter hour after."""
START_H = 14.0
SPOTS = 24
"""Places along a feeder where stores and loads stand."""
ROWS = 4
"""Voltages watched on each feeder, spread over its far half."""
DEVICE_W = 5e3


def _day(hours: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Load and PV per unit of peak at these hours of the day: a duck."""
    hour = hours % 24.0
    evening = np.exp(-(((hour - 19.0) / 2.2) ** 2))
    load = 0.5 + 0.12 * np.sin((hour - 9.0) / 24.0 * 2.0 * np.pi) + 0.4 * evening
    pv = 0.55 * np.clip(np.sin(np.pi * (hour - 6.0) / 13.0), 0.0, None) * ((hour > 6.0) & (hour < 19.0))
    return load, pv


def territory(
    *, ders: int, feeders: int, congested: int, seed: int, shift_h: float = 0.0, noise: float = 0.0
) -> Portfolio:
    """A portfolio of `ders` batteries on `feeders`, of which `congested` meet limits: every other one of
    them a thermal limit, the rest voltages.

    `shift_h` is how much later than START_H the plan is made, `noise` the relative change of the forecast by then.
    """
    rng = np.random.default_rng(seed)
    later = np.random.default_rng([seed, int(shift_h * 12)])
    place = np.sort(rng.integers(0, feeders, ders)) if ders > feeders else np.arange(ders)
    power_w = DEVICE_W * rng.uniform(0.5, 2.0, ders)
    energy_wh = power_w * rng.uniform(2.0, 4.0, ders)
    peak_w = np.bincount(place, weights=power_w, minlength=feeders) / 0.15 * rng.uniform(0.9, 1.1, feeders)
    hours: FloatArray = START_H + shift_h + np.cumsum(HOURS) - 0.5 * HOURS
    # Feeders peak at different times, so what is good for the system is not for each of them.
    load, pv = _day(hours + rng.uniform(-2.5, 2.5, (feeders, 1)))
    wave = 1.0 + 0.03 * rng.standard_normal((feeders, 1)) + noise * later.standard_normal((feeders, 1))
    load_w = peak_w[:, None] * wave * load
    pv_w = peak_w[:, None] * pv * (1.0 + 0.05 * rng.standard_normal((feeders, 1)))
    net_w = load_w - pv_w
    tight = np.arange(feeders) < congested
    # Stores have 15 % of the peak: half of that is needed to keep every other tight feeder within its thermal limit,
    # and 40 % of it to keep the rest of them within their voltage limits.
    most_w = net_w.max(axis=1)
    thermal = tight & (np.arange(feeders) % 2 == 0)
    high_w = np.where(thermal, most_w - 0.075 * peak_w, 1.6 * peak_w)
    past_h = START_H + shift_h - 3.0 + 0.125 + 0.25 * np.arange(12, dtype=np.float64)
    past_load, past_pv = _day(past_h)
    return Portfolio(
        hours=HOURS,
        devices=Devices(
            feeder=place,
            charge_max_w=power_w[:, None],
            discharge_max_w=power_w[:, None],
            stored_wh=energy_wh * rng.uniform(0.3, 0.7, ders),
            stored_min_wh=0.1 * energy_wh,
            stored_max_wh=0.95 * energy_wh,
            efficiency_frac=rng.uniform(0.92, 0.97, ders),
            available=np.ones(ders, dtype=np.bool_),
        ),
        feeders=Feeders(
            net_load_w=net_w,
            pv_w=pv_w,
            low_w=-0.5 * peak_w,
            high_w=high_w,
            rank=np.full(feeders, Rank.HARD.value),
        ),
        rows=_rows(rng, place, power_w, peak_w, net_w, tight & ~thermal),
        past_net_w=peak_w.sum() * (past_load - past_pv),
        previous_w=np.zeros((feeders, len(HOURS))),
        price=np.zeros(len(HOURS)),
        desk=Desk(),
    )


def _rows(
    rng: np.random.Generator,
    place: IntArray,
    power_w: FloatArray,
    peak_w: FloatArray,
    net_w: FloatArray,
    tight: BoolArray,
) -> Rows:
    """Voltages at far places: 1.02 pu less what load takes, 8 % at the peak. On tight feeders stores have to lift them
    by 40 % of what they can."""
    feeders, ders = len(peak_w), len(place)
    spot = rng.integers(0, SPOTS, ders)
    watched = np.linspace(SPOTS // 2, SPOTS - 1, ROWS).astype(np.intp)
    feeder = np.repeat(np.arange(feeders), ROWS)
    far = np.tile(watched, feeders)
    per_w = 0.08 / np.maximum(peak_w[feeder], 1e3) * 2.0 / SPOTS  # a feeder may be dealt nobody
    mine = np.flatnonzero(place[None, :] == feeder[:, None])
    row, device = np.unravel_index(mine, (len(feeder), ders))
    effect = per_w[row] * (np.minimum(spot[device], far[row]) + 1.0)
    drop = per_w * (far + 1.0 - (far + 1.0) ** 2 / (2.0 * SPOTS))
    base = 1.02 - drop[:, None] * net_w[feeder]
    able = np.bincount(row, weights=effect * power_w[device], minlength=len(feeder))
    low = np.where(tight[feeder], base.min(axis=1) + 0.4 * able - 0.001, 0.85)
    return Rows(
        names=tuple(f"voltage at spot {spot} of feeder {number}" for number, spot in zip(feeder, far, strict=True)),
        feeder=feeder,
        base=base,
        low=low,
        high=np.full(len(feeder), 1.05),
        margin=np.full(len(feeder), 0.001),
        rank=np.full(len(feeder), Rank.HARD.value),
        per_w=csr_array((effect, (row, device)), shape=(len(feeder), ders)),
        per_pv_w=drop,
    )
