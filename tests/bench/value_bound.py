"""The bound of `value`: one problem over a whole year with perfect foresight, apart from the product's. No benchmark.

With net load L, charge c, discharge d, energy e, and net load with the battery g, by the hour, in GW and GWh:

    g_t = L_t + c_t - d_t,   e_t = e_t-1 + eta c_t - d_t / eta,   0 <= c, d <= 1,   e within its bounds
    minimise  sum over days (P_j + R_j) + 0.5 sum (g_t - g_t-1)^2 + 0.02 sum (c_t + d_t)
    P_j >= g_t of its day,   R_j >= g_t - g_t-3 that end in its day,   R_j >= 0
"""

import cvxpy as cp
import numpy as np

from derms.domain.arrays import FloatArray
from tests.bench.value_world import (
    BATTERY_GW,
    CHANGE_COST,
    DAY_H,
    EFFICIENCY,
    ENERGY_MAX_GWH,
    ENERGY_MIN_GWH,
    ENERGY_START_GWH,
    RAMP_H,
    THROUGHPUT_COST,
)


def perfect(net_gw: FloatArray) -> tuple[FloatArray, float]:
    """Net load [GW] and throughput [GWh] of the best that could have been done.

    Raises
    ------
    RuntimeError
        The solver does not call its solution optimal.
    """
    hours = net_gw.size
    charge, discharge = cp.Variable(hours, nonneg=True), cp.Variable(hours, nonneg=True)
    stored, course = cp.Variable(hours + 1), cp.Variable(hours)
    peaks, ramps = cp.Variable(hours // DAY_H), cp.Variable(hours // DAY_H, nonneg=True)
    day = np.arange(hours) // DAY_H
    cost = cp.sum(peaks) + cp.sum(ramps) + CHANGE_COST * cp.sum_squares(cp.diff(course))
    problem = cp.Problem(
        cp.Minimize(cost + THROUGHPUT_COST * cp.sum(charge + discharge)),
        [
            charge <= BATTERY_GW,
            discharge <= BATTERY_GW,
            course == net_gw + charge - discharge,
            stored[0] == ENERGY_START_GWH,
            stored[1:] == stored[:-1] + EFFICIENCY * charge - discharge / EFFICIENCY,
            stored >= ENERGY_MIN_GWH,
            stored <= ENERGY_MAX_GWH,
            course <= peaks[day],
            course[RAMP_H:] - course[:-RAMP_H] <= ramps[day[RAMP_H:]],
        ],
    )
    problem.solve(solver=cp.CLARABEL)
    if problem.status != cp.OPTIMAL:
        raise RuntimeError(f"no bound: {problem.status}")
    return np.asarray(course.value), float(np.sum(charge.value + discharge.value))
