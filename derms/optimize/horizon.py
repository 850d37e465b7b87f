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
from scipy.sparse import csc_array, csr_array, diags_array, eye_array, kron

from derms.domain.arrays import FloatArray, IntArray
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
            - weights.terminal * _TERMINAL_VALUE * self._energy[-1]
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


RISE_H = 3.0
"""Over which the worst rise is counted."""

_SPREAD_COST = 5e-3
"""Per pu h at full power, with the square of the share of it that a zone uses: of plans that are equally good, the one
that has all zones do alike. What it asks of each zone, its stores are then able to do although they differ."""


@dataclass(frozen=True, slots=True, eq=False)
class StandardForm:
    """Minimise x'Px/2 + c'x where Ax = b, Gx <= h, low <= x <= high; what of it belongs to which name."""

    p: csc_array
    c: FloatArray
    a: csc_array
    b: FloatArray
    g: csc_array
    h: FloatArray
    low: FloatArray
    high: FloatArray
    columns: dict[str, tuple[slice, tuple[int, ...]]]
    """Place and shape of each variable; the first index runs fastest."""
    equations: dict[str, slice]
    inequalities: dict[str, slice]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FleetShape:
    """What the fleet problem's matrices are made of; powers in per unit."""

    hours: FloatArray
    efficiency_frac: FloatArray
    """Of each zone."""
    power: FloatArray
    """Of each zone, > 0."""
    block: IntArray
    """Of each zone; the last block is the pool, which has no limits of its own."""
    blocks: int
    zone_effect: csr_array
    """Change of each network row per pu of each zone, shape (rows, zones)."""
    pv_effect: csr_array
    """The same of PV in each block, shape (rows, blocks + 1)."""
    period_h: float = 0.25
    days: int = 1

    @property
    def lag(self) -> int:
        """Periods that a rise takes."""
        return round(RISE_H / self.period_h)


def period_of(hours: FloatArray, period_h: float) -> IntArray:
    """The period that each step is in, shape (steps,)."""
    return ((np.cumsum(hours) - 0.5 * hours) / period_h).astype(np.intp)


def period_means(hours: FloatArray, period_h: float) -> csr_array:
    """Means over periods of values that hold over steps, shape (periods, steps)."""
    place = period_of(hours, period_h)
    count = np.bincount(place, weights=hours)
    return csr_array((hours / count[place], (place, np.arange(len(hours)))))


def ramp_weights(hours: FloatArray, period_h: float) -> FloatArray:
    """Weight of each step of net load against one of a period, from the period before now on."""
    return period_h / (0.5 * (np.concatenate([[period_h], hours[:-1]]) + hours))


def _by_day(days: int, count: int) -> tuple[csr_array, csr_array]:
    """From values, and from one of each day, to the values of every day: the day runs fastest, (days * count, ...)."""
    return csr_array(kron(eye_array(count), np.ones((days, 1)))), csr_array(kron(np.ones((count, 1)), eye_array(days)))


def fleet_form(shape: FleetShape, weights: PlanWeights) -> StandardForm:
    """The problem over all zones, in standard form. Everything that a re-plan changes is a bound, in c, b or h, or an
    entry of A at a network row; there is no cvxpy parameter, for its dense tensor would not fit (28 GB at 1,000).

    Each limit is the bounds of a variable that may leave them through slack, so the problem always has a solution.
    """
    zones, steps = len(shape.block), len(shape.hours)
    rows = shape.zone_effect.shape[0]
    member = csr_array((np.ones(zones), (shape.block, np.arange(zones))), shape=(shape.blocks + 1, zones))
    dt = diags_array(shape.hours, format="csr")
    before = diags_array(np.ones(steps - 1), offsets=1, shape=(steps, steps), format="csr")
    found: dict[str, cp.Variable] = {}

    def variable(name: str, *size: int, low: float = -np.inf) -> cp.Variable:
        found[name] = cp.Variable(size, bounds=[np.full(size, low), np.full(size, np.inf)])
        return found[name]

    def limited(name: str, *size: int) -> cp.Expression:
        """A variable within bounds, and slack on both sides."""
        inside, over = variable(name, *size), variable(f"{name}_over", *size, low=0.0)
        return inside + over - variable(f"{name}_under", *size, low=0.0)

    charge, discharge = variable("charge", zones, steps, low=0.0), variable("discharge", zones, steps, low=0.0)
    stored, injected = variable("stored", zones, steps), variable("injected", zones, steps)
    held = variable("held", shape.blocks + 1, steps, low=0.0)
    net, fleet = variable("net", steps), variable("fleet", steps)
    peak, rise = variable("peak", shape.days), variable("rise", shape.days, low=0.0)
    gain, loss = diags_array(shape.efficiency_frac), diags_array(1.0 / shape.efficiency_frac)
    equations = {
        "injected": injected - discharge + charge == 0,
        "stored": stored - stored @ before - gain @ charge @ dt + loss @ discharge @ dt == 0,
        "fleet": fleet - cp.sum(injected, axis=0) == 0,
        "net": net + fleet - cp.sum(held, axis=0) == 0,
        "reserve": limited("reserve", steps) - fleet == 0,
        "move": limited("move", steps) - fleet + fleet @ before == 0,
    }
    if shape.blocks:
        equations["flow"] = limited("flow", shape.blocks, steps) + (member @ injected - held)[:-1] == 0
    if rows:
        equations["row"] = limited("row", rows, steps) - shape.zone_effect @ injected + shape.pv_effect @ held == 0
    course = period_means(shape.hours, shape.period_h) @ net
    across = min(shape.lag, course.size)
    inequalities = {
        "peak": _below(net, peak),
        "across": _below(course[:across], rise),
    }
    if course.size > across:
        inequalities["rise"] = _below(course[across:] - course[:-across], rise)
    steps_cost = cp.multiply(np.sqrt(ramp_weights(shape.hours, shape.period_h)), net - net @ before)
    cost = (
        weights.peak * cp.sum(peak)
        + weights.ramp_3h * cp.sum(rise)
        + weights.ramp * _RAMP_COST * cp.sum_squares(steps_cost)
        + weights.throughput * _THROUGHPUT_COST * cp.sum((charge + discharge) @ shape.hours)
        + weights.curtail * _CURTAIL_COST * cp.sum(held @ shape.hours)
        + weights.change * _CHANGE_COST * cp.sum(cp.multiply(shape.hours / shape.period_h, fleet**2))
        + weights.spread
        * _SPREAD_COST
        * cp.sum_squares(cp.multiply(np.sqrt(np.outer(1.0 / shape.power, shape.hours)), injected))
        - weights.terminal * _TERMINAL_VALUE * cp.sum(stored[:, -1])
    )
    problem = cp.Problem(cp.Minimize(cost), [*equations.values(), *inequalities.values()])
    return _standard(problem, found, equations, inequalities)


def _below(values: cp.Expression, most: cp.Variable) -> cp.Constraint:
    """Every value below the variable of every day; a right side far away takes out the days that a value is not in."""
    of_value, of_day = _by_day(most.size, values.size)
    return of_value @ values - of_day @ most <= 0


def _standard(
    problem: cp.Problem,
    variables: dict[str, cp.Variable],
    equations: dict[str, cp.Constraint],
    inequalities: dict[str, cp.Constraint],
) -> StandardForm:
    data, _, _ = problem.get_problem_data(cp.PIQP, ignore_dpp=True)
    made = data["param_prob"]
    places: dict[int, slice] = {}
    at = {cp.Zero: 0, cp.NonNeg: 0}
    for constraint in made.constraints:
        kind = cp.Zero if isinstance(constraint, cp.Zero) else cp.NonNeg
        places[constraint.id] = slice(at[kind], at[kind] + constraint.size)
        at[kind] += constraint.size
    first = made.var_id_to_col
    low, high = np.full(len(data["q"]), -np.inf), np.full(len(data["q"]), np.inf)
    for name, bounds in (("lower_bounds", low), ("upper_bounds", high)):
        if data[name] is not None:  # as where no variable has one
            bounds[:] = data[name]
    return StandardForm(
        p=csc_array(data["P"]),
        c=np.asarray(data["q"], dtype=np.float64),
        a=csc_array(data["A"]),
        b=np.asarray(data["b"], dtype=np.float64),
        g=csc_array(data["F"]),
        h=np.asarray(data["G"], dtype=np.float64),
        low=low,
        high=high,
        columns={name: (slice(first[v.id], first[v.id] + v.size), v.shape) for name, v in variables.items()},
        equations={name: places[constraint.id] for name, constraint in equations.items()},
        inequalities={name: places[constraint.id] for name, constraint in inequalities.items()},
    )
