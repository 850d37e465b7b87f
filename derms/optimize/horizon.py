"""The horizon problem: how the fleet's energy makes the system's net load flat. The only importer of cvxpy.

Powers in per unit of a scale S [W], energies in pu h. Per zone z and step t of dt hours, with charge c, discharge d,
energy e, and PV k held back by block:

    g_t = L_t + sum_z (c - d) + sum k                   net load with the plan
    e_t+1 = e_t + dt (eta c_t - d_t / eta)              storage
    minimise  w_p sum_j P_j  +  w_r sum_j R_j  +  w_2 sum (g_t - g_t-1)^2  +  w_c dt sum (c + d)  +  w_k dt sum k
              + w_d sum (f_t - f_t^prev)^2  +  w_s spread  -  w_e e_T  +  price  +  slack
    P_j >= g_t of day j, and what it has reached;  R_j >= means over periods less those three hours before, likewise

with f the power of the fleet. Peaks and rises are those of local days. Rises look back beyond now, so that a ramp
"across now" counts. Limits are bounds that give way at a price, so that the problem has a solution whatever the state
is; what gave way is reported.
"""

from dataclasses import dataclass

import cvxpy as cp
import numpy as np
from scipy.sparse import csc_array, csr_array, diags_array, eye_array, kron

from derms.domain.arrays import FloatArray, IntArray
from derms.domain.settings import PlanWeights

_RAMP_COST = 0.5
"""Per pu^2 of a step of net load, at weight 1; a pu of peak and of three-hour ramp cost 1 each."""

_THROUGHPUT_COST = 0.01
"""Per pu h charged or discharged: wear."""

_REACTIVE_COST = 1e-3
"""Per pu h of reactive power at its full room, with the square of the share of it: losses, a tenth of a watt's wear."""

_CURTAIL_COST = 0.2
"""Per pu h of PV held back."""

_CHANGE_COST = 0.02
"""Per pu^2 of a change of battery power against the last plan."""

_TERMINAL_VALUE = 0.02
"""Of a pu h left at the end of the horizon."""

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
    reactive_effect: csr_array | None = None
    """Change of each network row per pu of reactive power of each block, shape (rows, blocks); None for no such."""
    reactive_power: FloatArray | None = None
    """Of each block, > 0, shape (blocks,)."""

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
    stored, injected = variable("stored", zones, steps), discharge - charge
    held = variable("held", shape.blocks + 1, steps, low=0.0)
    net, fleet = variable("net", steps), variable("fleet", steps)
    peak, rise = variable("peak", shape.days), variable("rise", shape.days, low=0.0)
    gain, loss = diags_array(shape.efficiency_frac), diags_array(1.0 / shape.efficiency_frac)
    equations = {
        "stored": stored - stored @ before - gain @ charge @ dt + loss @ discharge @ dt == 0,
        "fleet": fleet - cp.sum(injected, axis=0) == 0,
        "net": net + fleet - cp.sum(held, axis=0) == 0,
        "reserve": limited("reserve", steps) - fleet == 0,
        "move": limited("move", steps) - fleet + fleet @ before == 0,
    }
    if shape.blocks:
        equations["flow"] = limited("flow", shape.blocks, steps) + (member @ injected - held)[:-1] == 0
    support = cp.Constant(0.0)
    if rows:
        row = limited("row", rows, steps) - shape.zone_effect @ injected + shape.pv_effect @ held
        if shape.reactive_effect is not None and shape.reactive_power is not None:
            reactive = variable("reactive", shape.blocks, steps)
            row = row - shape.reactive_effect @ reactive
            support = cp.sum_squares(cp.multiply(np.sqrt(np.outer(1.0 / shape.reactive_power, shape.hours)), reactive))
        equations["row"] = row == 0
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
        # Of a zone's two powers one is zero. On variables alone, squares need no rows and columns of their own.
        * cp.sum(cp.multiply(np.outer(1.0 / shape.power, shape.hours), charge**2 + discharge**2))
        + weights.throughput * _REACTIVE_COST * support
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
