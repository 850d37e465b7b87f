"""The solver of a standard form: PIQP, and Clarabel behind it. The only importer of both.

A plan that does not depend on the one before can be replayed, and PIQP, which solves cold, gives one. Clarabel
stands behind it where it fails. OSQP was measured and left out: decision 010.
"""

from dataclasses import dataclass, replace

import clarabel
import numpy as np
import piqp
from scipy.sparse import csc_matrix, eye_array, triu, vstack

from derms.domain.arrays import BoolArray, FloatArray
from derms.errors import PlanError
from derms.optimize.horizon import StandardForm

EPS = 1e-6
NEVER_INFEASIBLE_EPS = 1e-12


class Vectors:
    """The vectors of a standard form, to be filled by name for one solve."""

    def __init__(self, form: StandardForm) -> None:
        self._form = form
        self.c, self.b, self.h = form.c.copy(), form.b.copy(), form.h.copy()
        self.low, self.high = form.low.copy(), form.high.copy()
        self.squares_frac = 1.0
        """Of the form's squares that count."""
        self._above = np.zeros_like(form.c)
        """What of the cost stands above all aims."""

    def form(self) -> StandardForm:
        """The standard form with these vectors."""
        p = self._form.p * self.squares_frac
        return replace(self._form, p=p, c=self.c, b=self.b, h=self.h, low=self.low, high=self.high)

    def copy(self) -> "Vectors":
        """The same, to be changed apart."""
        made = Vectors(replace(self._form, c=self.c, b=self.b, h=self.h, low=self.low, high=self.high))
        made._above, made.squares_frac = self._above.copy(), self.squares_frac
        return made

    def alone(self, name: str, rest_frac: float) -> "Vectors":
        """The same with weight 1 on a variable, and a part of their own on all others that are not above it."""
        made = self.copy()
        made.squares_frac = rest_frac
        made.c = self._above + rest_frac * (self.c - self._above)
        made.c[self._form.columns[name][0]] = 1.0
        return made

    def put(self, name: str, *, low: FloatArray | None = None, high: FloatArray | None = None) -> None:
        place, shape = self._form.columns[name]
        if low is not None:
            self.low[place] = np.broadcast_to(low, shape).ravel(order="F")
        if high is not None:
            self.high[place] = np.broadcast_to(high, shape).ravel(order="F")

    def shut(self, name: str, where: BoolArray) -> None:
        """Set upper bounds to zero, shape of the variable."""
        self.high[self._form.columns[name][0]][where.ravel(order="F")] = 0.0

    def less(self, name: str, value: FloatArray) -> None:
        self.h[self._form.inequalities[name]] = value.ravel(order="F")

    def cost(self, name: str, value: FloatArray) -> None:
        place, shape = self._form.columns[name]
        self.c[place] += np.broadcast_to(value, shape).ravel(order="F")

    def above(self, name: str, value: FloatArray) -> None:
        """A cost that counts before all aims, whatever comes first of them."""
        place, shape = self._form.columns[name]
        self._above[place] = np.broadcast_to(value, shape).ravel(order="F")
        self.cost(name, value)

    def slack(self, name: str, cost: float) -> None:
        for side in ("over", "under"):
            place = self._form.columns[f"{name}_{side}"][0]
            self.c[place] = self._above[place] = cost

    def equal(self, name: str, value: FloatArray) -> None:
        self.b[self._form.equations[name]] = value.ravel(order="F")


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a solver found."""

    x: FloatArray
    price: FloatArray
    """What a little more room for x is worth: the difference of the duals of its bounds, without sign."""
    iterations: int
    objective: float
    solver: str


def _second(form: StandardForm, iterations: int, before: str) -> Found:
    """Clarabel, the reference, for what PIQP gives up on: slower, and by another method.

    Raises
    ------
    PlanError
        Its solution is not solved either.
    """
    upper, lower = np.flatnonzero(np.isfinite(form.high)), np.flatnonzero(np.isfinite(form.low))
    every = eye_array(len(form.c), format="csr")
    rows = vstack([form.a, form.g, every[upper], -every[lower]], format="csc")
    limits = np.concatenate([form.b, form.h, form.high[upper], -form.low[lower]])
    cones = [clarabel.ZeroConeT(len(form.b)), clarabel.NonnegativeConeT(len(limits) - len(form.b))]
    settings = clarabel.DefaultSettings()
    settings.verbose, settings.max_iter = False, iterations
    solver = clarabel.DefaultSolver(csc_matrix(triu(form.p)), form.c, csc_matrix(rows), limits, cones, settings)
    solution = solver.solve()
    if str(solution.status) != "Solved":
        raise PlanError(f"no plan: {before}; Clarabel: {solution.status} after {solution.iterations} iterations")
    price = np.zeros(len(form.c))
    duals = np.array(solution.z)[len(form.b) + len(form.h) :]
    price[upper] += duals[: len(upper)]
    price[lower] -= duals[len(upper) :]
    return Found(np.array(solution.x), np.abs(price), int(solution.iterations), float(solution.obj_val), "Clarabel")


def _matrices(form: StandardForm) -> dict[str, csc_matrix]:
    return {"P": csc_matrix(form.p), "A": csc_matrix(form.a), "G": csc_matrix(form.g)}


def set_up(form: StandardForm) -> piqp.SparseSolver:
    """PIQP for problems of this form."""
    solver = piqp.SparseSolver()
    settings = solver.settings
    settings.eps_abs = settings.eps_rel = EPS
    settings.eps_duality_gap_abs = settings.eps_duality_gap_rel = EPS
    settings.preconditioner_reuse_on_update = True
    # There always is a solution, so no claim that there is none is to be believed early.
    settings.eps_primal_inf = settings.eps_dual_inf = NEVER_INFEASIBLE_EPS
    settings.verbose = False
    solver.setup(**_matrices(form), c=form.c, b=form.b, h_u=form.h, x_l=form.low, x_u=form.high)
    return solver


class Solver:
    """Solves one form again and again, each time from nothing, with so many iterations at most."""

    def __init__(self, form: StandardForm) -> None:
        self.iterations = 100
        self._matrices, self._piqp = _matrices(form), set_up(form)

    def run(self, changed: Vectors) -> Found:
        """Solve with these vectors.

        Raises
        ------
        PlanError
            Neither solver calls its solution solved.
        """
        # With its matrices, or each update scales them to and fro, and what comes out depends on the plans before.
        self._piqp.update(
            **{**self._matrices, "P": self._matrices["P"] * changed.squares_frac},
            c=changed.c,
            b=changed.b,
            h_u=changed.h,
            x_l=changed.low,
            x_u=changed.high,
        )
        self._piqp.settings.max_iter = self.iterations
        status, result = self._piqp.solve(), self._piqp.result
        # The result of an earlier solve stays in the solver when a later one fails.
        if status == piqp.PIQP_SOLVED:
            # Of a variable that both bounds pin, each dual is any number: their difference is the price.
            price = np.abs(np.nan_to_num(np.array(result.z_bu)) - np.nan_to_num(np.array(result.z_bl)))
            return Found(np.array(result.x), price, int(result.info.iter), float(result.info.primal_obj), "PIQP")
        return _second(changed.form(), self.iterations, f"PIQP: {status.name}")
