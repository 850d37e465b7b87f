"""The horizon problem: how the fleet's energy makes the system's net load flat. The only importer of cvxpy.

Powers in per unit of a scale S [W], energies in pu h. Per step t of dt hours, with charge c, discharge d, held-back
PV k and energy e:

    g_t = L_t + c_t - d_t + k_t                        net load with the plan
    e_t+1 = e_t + dt (eta c_t - d_t / eta)             storage
    minimise  w_p (max g)  +  w_r max(g_t - g_t-12)  +  w_2 sum (g_t - g_t-1)^2  +  w_c dt sum (c + d)
              + w_k dt sum k  +  w_d sum (p_t - p_t^prev)^2  -  v e_T  +  slack

Peak and ramp carry the hours just past, so that a ramp "across now" counts. Energy bounds give way at a price, so
that the problem has a solution whatever the state of charge is; what gave way is reported.
"""

import warnings
from contextlib import nullcontext
from dataclasses import dataclass

import cvxpy as cp
import numpy as np

from derms.domain.arrays import FloatArray
from derms.domain.settings import PlanWeights
from derms.errors import PlanError
from derms.optimize.aggregate import VirtualBattery
from derms.optimize.interrupt import ctrl_c_passed_on

PAST_STEPS = 12
"""Quarter hours before now that the ramp looks back on: three hours."""

_LAGS = ((12, 0), (8, 4), (4, 8))
"""Rises over three, two and one hours, each starting so that its end is not before now."""

_RAMP_COST = 0.5
"""Per pu^2 of a step of net load, at weight 1; a pu of peak and of three-hour ramp cost 1 each."""

_THROUGHPUT_COST = 0.01
"""Per pu h charged or discharged: wear."""

_CURTAIL_COST = 0.2
"""Per pu h of PV held back."""

_CHANGE_COST = 0.02
"""Per pu^2 of a change of battery power against the last plan."""

_TERMINAL_VALUE = 0.02
"""Of a pu h left at the end of the horizon."""

_SLACK_PRICE = 20.0
"""Cost per pu h^2 outside the energy bounds: far above anything that leaving them could win."""

_VALUE_MAX_PU = 1e3
"""Inputs beyond this many times the scale are refused: solvers return garbage for them with status `optimal`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverLimits:
    """How long a solve may take: seconds in real time, iterations in simulated time."""

    iterations: int = 8000
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HorizonInput:
    """Everything a plan depends on; shapes (steps,) unless said otherwise, powers in W."""

    net_load_w: FloatArray
    pv_w: FloatArray
    """PV power that could be held back."""
    past_net_w: FloatArray
    """Means of the last quarter hours, oldest first, shape (PAST_STEPS,)."""
    previous_w: FloatArray
    """Battery power of the last plan over the same steps."""
    battery: VirtualBattery


@dataclass(frozen=True, slots=True)
class HorizonOutput:
    """A solution in SI units, before anybody has verified it."""

    battery_w: FloatArray
    curtail_w: FloatArray
    energy_wh: FloatArray
    """At the end of each step."""
    net_load_w: FloatArray
    slack_wh: float
    """Energy by which the state of charge leaves its bounds, summed over the steps."""
    solver: str
    iterations: int
    objective: float


class Horizon:
    """The problem, built once and solved again with new parameters."""

    def __init__(self, *, steps: int, step_s: float, scale_w: float, weights: PlanWeights) -> None:
        self.steps = steps
        self.step_s = step_s
        self._dt_h = step_s / 3600.0
        self._scale_w = scale_w
        self._build(weights)

    def _build(self, weights: PlanWeights) -> None:
        steps, dt_h = self.steps, self._dt_h
        self._load = cp.Parameter(steps)
        self._pv = cp.Parameter(steps, nonneg=True)
        self._past = cp.Parameter(PAST_STEPS)
        self._previous = cp.Parameter(steps)
        self._p_max = cp.Parameter(nonneg=True)
        self._energy_now = cp.Parameter()
        self._energy_min = cp.Parameter()
        self._energy_max = cp.Parameter()
        self._gain = cp.Parameter(nonneg=True)
        self._loss = cp.Parameter(nonneg=True)
        self._charge = cp.Variable(steps)
        self._discharge = cp.Variable(steps)
        self._curtail = cp.Variable(steps)
        self._energy = cp.Variable(steps + 1)
        self._slack = cp.Variable(steps)
        net = cp.Variable(steps)
        peak, rise = cp.Variable(), cp.Variable()
        course = cp.hstack([self._past, net])
        power = self._discharge - self._charge
        self._net = net
        # Gain and loss multiply variables, so the powers into and out of the store are affine in the parameters.
        constraints = [
            self._charge >= 0,
            self._charge <= self._p_max,
            self._discharge >= 0,
            self._discharge <= self._p_max,
            self._curtail >= 0,
            self._curtail <= self._pv,
            self._slack >= 0,
            net == self._load + self._charge - self._discharge + self._curtail,
            self._energy[0] == self._energy_now,
            self._energy[1:] == self._energy[:-1] + dt_h * (self._gain * self._charge - self._loss * self._discharge),
            self._energy[1:] >= self._energy_min - self._slack,
            self._energy[1:] <= self._energy_max + self._slack,
            peak >= net,
            rise >= 0,
            *(rise >= course[lag + offset :] - course[offset:-lag] for lag, offset in _LAGS),
        ]
        cost = (
            weights.peak * peak
            + weights.ramp_3h * rise
            + weights.ramp * _RAMP_COST * cp.sum_squares(cp.diff(course[PAST_STEPS - 1 :]))
            + weights.throughput * _THROUGHPUT_COST * dt_h * cp.sum(self._charge + self._discharge)
            + weights.curtail * _CURTAIL_COST * dt_h * cp.sum(self._curtail)
            + weights.change * _CHANGE_COST * cp.sum_squares(power - self._previous)
            + _SLACK_PRICE * dt_h * cp.sum(self._slack)
            - _TERMINAL_VALUE * self._energy[-1]
        )
        self._problem = cp.Problem(cp.Minimize(cost), constraints)

    def solve(self, given: HorizonInput, limits: SolverLimits) -> HorizonOutput:
        """Plan the horizon.

        Raises
        ------
        PlanError
            Inputs are not finite or absurd, or no solver came to a solution that it calls optimal.
        """
        self._set_parameters(given)
        failures = []
        for solver, options in self._solvers(limits):
            try:
                with warnings.catch_warnings(), ctrl_c_passed_on() if solver == cp.OSQP else nullcontext():
                    # An inaccurate solution is a failure here; the warning would only repeat it on the screen.
                    warnings.filterwarnings("ignore", message="Solution may be inaccurate")
                    self._problem.solve(solver=solver, ignore_dpp=False, **options)
            except cp.SolverError as error:
                failures.append(f"{solver}: {error}")
                continue
            if self._problem.status == cp.OPTIMAL:
                return self._output(given, solver)
            failures.append(f"{solver}: {self._problem.status}")
        raise PlanError("no plan: " + "; ".join(failures))

    @staticmethod
    def _solvers(limits: SolverLimits) -> tuple[tuple[str, dict[str, object]], ...]:
        osqp: dict[str, object] = {
            "warm_start": True,
            "max_iter": limits.iterations,
            "eps_abs": 2e-5,
            "eps_rel": 2e-5,
            "polishing": False,
            # Adapting rho by measured time would make results depend on the machine.
            "adaptive_rho_interval": 50,
        }
        clarabel: dict[str, object] = {"max_iter": 200}
        if limits.deadline_s is not None:
            osqp["time_limit"] = limits.deadline_s
            clarabel["time_limit"] = limits.deadline_s
        return ((cp.OSQP, osqp), (cp.CLARABEL, clarabel))

    def _set_parameters(self, given: HorizonInput) -> None:
        battery, scale = given.battery, self._scale_w
        values: list[tuple[cp.Parameter, FloatArray | float]] = [
            (self._load, given.net_load_w / scale),
            (self._pv, np.maximum(given.pv_w, 0.0) / scale),
            (self._past, given.past_net_w / scale),
            (self._previous, given.previous_w / scale),
            (self._p_max, battery.p_rated_w / scale),
            (self._energy_now, battery.energy_wh / scale),
            (self._energy_min, battery.energy_min_wh / scale),
            (self._energy_max, battery.energy_max_wh / scale),
            (self._gain, battery.efficiency_frac),
            (self._loss, 1.0 / battery.efficiency_frac),
        ]
        for _, value in values:
            if not np.all(np.abs(value) < _VALUE_MAX_PU):
                raise PlanError("no plan: an input is not finite, or beyond any plausible size")
        for parameter, value in values:
            parameter.value = value

    def _output(self, given: HorizonInput, solver: str) -> HorizonOutput:
        scale = self._scale_w
        p_max_w = given.battery.p_rated_w
        battery_w = np.clip(scale * (self._discharge.value - self._charge.value), -p_max_w, p_max_w)
        curtail_w = np.clip(scale * self._curtail.value, 0.0, given.pv_w)
        statistics = self._problem.solver_stats
        return HorizonOutput(
            battery_w=battery_w,
            curtail_w=curtail_w,
            energy_wh=scale * np.asarray(self._energy.value[1:]),
            net_load_w=given.net_load_w - battery_w + curtail_w,
            slack_wh=float(scale * np.sum(np.maximum(self._slack.value, 0.0)) * self._dt_h),
            solver=solver,
            iterations=int(statistics.num_iters or 0),
            objective=float(self._problem.value),
        )
