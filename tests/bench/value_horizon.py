"""The horizon problem of `value`: days in hours, on one forecast or several, each hour's shape of it built once.

Powers in GW, energies in GWh, steps of an hour from now to the end of a day; + = import, charging positive. For each
forecast s with weight w_s, of net load L with charge c, discharge d, energy e and net load with the plan g:

    g_t = L_t + c_t - d_t,   e_t = e_t-1 + eta c_t - d_t / eta,   0 <= c, d <= 1,   e within its bounds
    minimise  sum_s w_s ( sum_days (P_j + R_j) + 0.5 sum (g_t - g_t-1)^2 + 0.02 sum (c_t + d_t) )
    P_j >= g_t of its day and, for today, the peak that has been;  R_j >= g_t - g_t-3 that end in its day, likewise
    c_0 and d_0 the same for all s: what is done now is done before one knows which came true

The first hour is known. Which steps belong to today depends on the hour of the day, so there are 24 shapes.
"""

from dataclasses import dataclass

import numpy as np
import piqp
from scipy.sparse import csc_matrix, csr_matrix, diags_array, eye_array, hstack, identity, kron, vstack

from derms.domain.arrays import FloatArray
from tests.bench.value_world import (
    BATTERY_GW,
    BATTERY_GWH,
    CHANGE_COST,
    DAY_H,
    EFFICIENCY,
    RAMP_H,
    SOC_MAX,
    SOC_MIN,
    SOC_START,
    THROUGHPUT_COST,
)

ENERGY_MIN_GWH, ENERGY_MAX_GWH = SOC_MIN * BATTERY_GWH, SOC_MAX * BATTERY_GWH
ENERGY_START_GWH = SOC_START * BATTERY_GWH
FREE = 1e30
FAR_GW = 1e3
"""Above any net load: a past that bounds nothing."""
TIE_COST = 1e-5
"""Per GW^2 of power: makes the solution one."""
EPS = 1e-6
ITERATIONS = 200


@dataclass(frozen=True, slots=True)
class Today:
    """What has been before the first hour of a plan."""

    energy_gwh: float
    past_gw: FloatArray
    """Net load of the last three hours, oldest first."""
    peak_gw: float
    """Greatest net load of today so far; -inf where the day begins."""
    ramp_gw: float


class DayPlanner:
    """The problem from one hour of the day to the end of a later day."""

    def __init__(self, hour: int, *, days_after: int, weights: FloatArray) -> None:
        self.hours = hours = DAY_H - hour + DAY_H * days_after
        self._weights, count, days = weights, weights.size, days_after + 1
        self._net, self._peak, self._ramp = 3 * hours, 4 * hours, 4 * hours + days
        self._size = 4 * hours + 2 * days
        self._change, equal, less = _matrices(hour, hours, days)
        cost = np.zeros(self._size)
        cost[: 2 * hours], cost[self._peak :] = THROUGHPUT_COST, 1.0
        low, high = np.full(self._size, -FREE), np.full(self._size, FREE)
        low[: 2 * hours], high[: 2 * hours] = 0.0, BATTERY_GW
        low[2 * hours : 3 * hours], high[2 * hours : 3 * hours] = ENERGY_MIN_GWH, ENERGY_MAX_GWH
        low[self._ramp :] = 0.0
        self._c = (weights[:, None] * cost).ravel()
        self._low, self._high = np.tile(low, count), np.tile(high, count)
        self._a = vstack([kron(identity(count), equal), _shared_first(count, self._size, hours)])
        self._g = kron(identity(count), less)
        self._b, self._h = np.zeros(self._a.shape[0]), np.zeros(self._g.shape[0])
        self._solver: piqp.SparseSolver | None = None

    def plan(self, net_gw: FloatArray, today: Today | None) -> tuple[FloatArray, FloatArray]:
        """Charging and discharging by forecast [GW], shape (forecasts, hours) each.

        Parameters
        ----------
        net_gw : FloatArray
            Net load without the battery [GW], the first hour as measured, shape (forecasts, hours).
        today : Today | None
            None at the beginning of records: nothing is known of before, and the battery is as at the start.

        Raises
        ------
        RuntimeError
            The solver has no solution that it calls solved.
        """
        self._fill(net_gw, today)
        status = self._solve(first=today is None)
        if status != piqp.PIQP_SOLVED or self._solver is None:
            raise RuntimeError(f"no plan: {status} for {net_gw.shape} of {np.isfinite(net_gw).sum()} finite values")
        x = self._solver.result.x.reshape(self._weights.size, self._size)
        return x[:, : self.hours], x[:, self.hours : 2 * self.hours]

    def _fill(self, net_gw: FloatArray, today: Today | None) -> None:
        hours, count = self.hours, self._weights.size
        right = self._b[: 2 * hours * count].reshape(count, -1)
        right[:, :hours] = net_gw
        right[:, hours] = ENERGY_START_GWH if today is None else today.energy_gwh
        past = np.full(RAMP_H, FAR_GW) if today is None else today.past_gw
        self._h.reshape(count, -1)[:, hours : hours + RAMP_H] = past
        if today is not None:
            self._c.reshape(count, -1)[:, self._net] = -2.0 * CHANGE_COST * self._weights * today.past_gw[-1]
            low = self._low.reshape(count, -1)
            low[:, self._peak] = max(today.peak_gw, -FREE)
            low[:, self._ramp] = max(today.ramp_gw, 0.0)

    def _solve(self, *, first: bool) -> piqp.Status:
        if self._solver is not None:
            self._solver.update(c=self._c, b=self._b, h_u=self._h, x_l=self._low)
            return self._solver.solve()
        self._solver = solver = piqp.SparseSolver()
        solver.settings.eps_abs = solver.settings.eps_rel = EPS
        solver.settings.max_iter = ITERATIONS
        solver.settings.verbose = False
        tie = np.zeros(self._size)
        tie[: 2 * self.hours] = TIE_COST
        change = self._change[1:] if first else self._change
        square = 2.0 * CHANGE_COST * (change.T @ change) + diags_array(tie)
        solver.setup(
            P=csc_matrix(kron(diags_array(self._weights), square)),
            c=self._c,
            A=csc_matrix(self._a),
            b=self._b,
            G=csc_matrix(self._g),
            h_u=self._h,
            x_l=self._low,
            x_u=self._high,
        )
        return solver.solve()


def _matrices(hour: int, hours: int, days: int) -> tuple[csr_matrix, csr_matrix, csr_matrix]:
    """Changes from hour to hour, balance and storage, peaks and ramps, over (c, d, e, g, P, R) of one forecast."""
    one, none = identity(hours, format="csr"), csr_matrix((hours, hours))
    step, rise = one - eye_array(hours, k=-1), one - eye_array(hours, k=-RAMP_H)
    of_day = csr_matrix((np.ones(hours), (np.arange(hours), (hour + np.arange(hours)) // DAY_H)), shape=(hours, days))
    no_day = csr_matrix((hours, days))
    change = hstack([none, none, none, step, no_day, no_day])
    balance = hstack([-one, one, none, one, no_day, no_day])
    storage = hstack([-EFFICIENCY * one, one / EFFICIENCY, step, none, no_day, no_day])
    peaks = hstack([none, none, none, one, -of_day, no_day])
    ramps = hstack([none, none, none, rise, no_day, -of_day])
    return csr_matrix(change), csr_matrix(vstack([balance, storage])), csr_matrix(vstack([peaks, ramps]))


def _shared_first(count: int, size: int, hours: int) -> csr_matrix:
    """Rows that make the first charge and discharge of all forecasts those of the first one."""
    others = np.repeat(np.arange(1, count), 2)
    rows, places = np.arange(others.size), np.tile([0, hours], count - 1)
    ones = np.ones(others.size)
    mine = csr_matrix((ones, (rows, places)), shape=(others.size, count * size))
    return mine - csr_matrix((ones, (rows, others * size + places)), shape=(others.size, count * size))


def perfect(net_gw: FloatArray) -> tuple[FloatArray, float]:
    """Net load and throughput [GW, GWh] of one problem over all hours with perfect foresight."""
    whole = DayPlanner(0, days_after=net_gw.size // DAY_H - 1, weights=np.ones(1))
    charge, discharge = whole.plan(net_gw[None], None)
    return net_gw + charge[0] - discharge[0], float(np.sum(charge + discharge))
