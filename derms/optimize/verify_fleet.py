"""The verifier of fleet plans: what every store's first setpoints must satisfy. Shares no code with the optimizer.

Within power and energy of each store, and of its site; what is due still possible, where it is at all; the sums as
planned, or the shortfall reported; feeders and network rows within their limits or no worse than without the plan,
unless the plan named the limit as one that gives way.
"""

from collections.abc import Collection

import numpy as np
from scipy.sparse import csr_array

from derms.domain.arrays import FloatArray
from derms.optimize.portfolio import Portfolio
from derms.optimize.verify_stores import due_faults, reactive_faults, site_faults, store_faults

LIMIT_TOLERANCE_FRAC = 2e-3
"""Of the range between limits."""


def check_shares(
    given: Portfolio,
    power_w: FloatArray,
    held_w: FloatArray,
    promised_w: FloatArray,
    named: Collection[str],
    reactive_var: FloatArray | None = None,
) -> list[str]:
    """Everything that is wrong, as sentences; empty when nothing is.

    Parameters
    ----------
    power_w : FloatArray
        Of each store in the first steps [W, + = injection], shape (n, shared).
    held_w : FloatArray
        PV held back by feeder [W], shape (feeders, steps).
    promised_w : FloatArray
        Fleet power of the plan less the shortfall it reports [W], shape (shared,).
    named : Collection[str]
        Limits that the plan says give way.
    reactive_var : FloatArray | None
        Of each store in the first steps [var, + = injection], shape (n, shared); None where none is planned.
    """
    beside_var = np.zeros_like(power_w) if reactive_var is None else reactive_var
    if not (np.isfinite(power_w).all() and np.isfinite(held_w).all() and np.isfinite(beside_var).all()):
        return ["setpoints that are not finite"]
    wrong = store_faults(given, power_w) + site_faults(given, power_w) + due_faults(given, power_w, named)
    wrong += reactive_faults(given, power_w, beside_var)
    off_w = np.abs(power_w.sum(axis=0) - promised_w).max(initial=0.0)
    if off_w > 1e-4 * max(float(given.devices.discharge_max_w.max(axis=1).sum()), 1.0):
        wrong.append(f"setpoints differ from the plan by {off_w / 1e3:.1f} kW, and the plan does not say so")
    if (held_w < -1.0).any() or (held_w > given.feeders.pv_w * 1.001 + 1.0).any():
        wrong.append("more PV held back than there is")
    return wrong + _network_faults(given, power_w, beside_var, held_w[:, : power_w.shape[1]], named)


def check_feeder_power(given: Portfolio, battery_w: FloatArray, curtail_w: FloatArray) -> list[str]:
    """Whether a plan of the first feeder alone, told in sums, takes it beyond its limits, further than without.

    Parameters
    ----------
    battery_w, curtail_w : FloatArray
        Power of its batteries together [W, + = injection], and PV held back, shape (k,), of the first k steps.
    """
    feeders, part = given.feeders, np.s_[:1, : len(battery_w)]
    base_w = feeders.net_load_w[part]
    worse_w = _worse(base_w - battery_w + curtail_w, base_w, feeders.low_w[:1], feeders.high_w[:1])
    if not worse_w.any():
        return []
    return [f"feeder beyond its limits by {worse_w.max() / 1e3:.1f} kW more than without the plan"]


def _network_faults(
    given: Portfolio, power_w: FloatArray, beside_var: FloatArray, held_w: FloatArray, named: Collection[str]
) -> list[str]:
    feeders, rows, shared = given.feeders, given.rows, power_w.shape[1]
    count = len(given.devices)
    on = csr_array((np.ones(count), (given.devices.feeder, np.arange(count))), shape=(len(feeders.low_w), count))
    base_w = feeders.net_load_w[:, :shared]
    worse = _worse(base_w - on @ power_w + held_w, base_w, feeders.low_w, feeders.high_w)
    wrong = [
        f"feeder {feeder} beyond its limits by {worse[feeder].max() / 1e3:.1f} kW more than without the plan"
        for feeder in np.flatnonzero(worse.any(axis=1))
        if f"feeder {feeder} power" not in named
    ]
    base = rows.base[:, :shared]
    value = base + rows.per_w @ power_w - rows.per_pv_w[:, None] * held_w[rows.feeder]
    if rows.per_var is not None:
        value = value + rows.per_var @ beside_var
    worse = _worse(value, base, rows.low, rows.high)
    wrong += [
        f"{rows.names[row]} beyond its limits by {worse[row].max():.4g} more than without the plan"
        for row in np.flatnonzero(worse.any(axis=1))
        if rows.names[row] not in named
    ]
    return wrong


def _worse(value: FloatArray, base: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """How much further outside its limits a value is than without the plan, 0 within the tolerance."""
    low, high = low[:, None], high[:, None]
    outside, before = (np.maximum(np.maximum(column - high, low - column), 0.0) for column in (value, base))
    added = outside - before
    size = np.where(np.isfinite(high - low), high - low, np.minimum(np.abs(high), np.abs(low)))
    return np.where(added > LIMIT_TOLERANCE_FRAC * size, added, 0.0)
