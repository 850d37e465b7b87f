"""Solvers on the fleet problem: PIQP and Clarabel cold, OSQP warm from the last solution shifted by a step.

Re-plans of 10,000 DER on 50 feeders, five minutes apart; every solver gets the same vectors, in turns. Told are the
median time of a re-solve, how far the objective is from Clarabel's, and how far limits are missed, in per unit of the
scale. A solution that its solver does not call solved has no figures. The last line is one JSON object.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import clarabel
import numpy as np
import osqp
from scipy.sparse import csc_matrix, eye_array, triu, vstack

from derms.domain.arrays import FloatArray
from derms.domain.settings import PlanWeights
from derms.optimize.fleet import FleetPlanner
from derms.optimize.horizon import StandardForm
from derms.optimize.master import Master
from derms.optimize.solver import Found, Solver, Vectors, set_up
from tests.optimize.territory import territory

REPLANS = 5
SEED = 20260415
OSQP_EPS = 1e-4

Solve = Callable[[StandardForm], FloatArray | None]


def forms(ders: int, feeders: int) -> list[StandardForm]:
    """The problem of each re-plan, as the planner has it once it has learned what binds."""
    seen: list[StandardForm] = []

    class Watched(Solver):
        def run(self, changed: Vectors) -> Found:
            seen.append(changed.form())
            return super().run(changed)

    first = territory(ders=ders, feeders=feeders, congested=feeders // 2, seed=SEED)
    scale_w = float(first.feeders.net_load_w.sum(axis=0).max())
    planner = FleetPlanner(PlanWeights(), scale_w=scale_w, shared_steps=12)
    zones = planner.plan(first).zones
    master = Master(first.checked(), zones, PlanWeights(), scale_w=scale_w)
    master._solver = Watched(master._form)
    for number in range(REPLANS + 1):
        later = territory(
            ders=ders, feeders=feeders, congested=feeders // 2, seed=SEED, shift_h=number / 12, noise=0.005
        )
        before = len(seen)
        master.solve(later.checked(), np.zeros((len(zones.rows), len(later.hours))))
        del seen[before + 1 :]
    return seen


def piqp_solver(first: StandardForm) -> Solve:
    """PIQP as the product sets it up."""
    solver = set_up(first)

    def solve(form: StandardForm) -> FloatArray | None:
        solver.update(c=form.c, b=form.b, h_u=form.h, x_l=form.low, x_u=form.high)
        return np.array(solver.result.x) if solver.solve().name == "PIQP_SOLVED" else None

    return solve


def osqp_solver(first: StandardForm) -> Solve:
    """OSQP, set up once; it starts from its last solution, shifted by a step."""
    every = eye_array(len(first.c), format="csc")
    rows = csc_matrix(vstack([first.a, first.g, every]))
    solver = osqp.OSQP()
    solver.setup(
        P=csc_matrix(triu(first.p)),
        q=first.c,
        A=rows,
        l=_lower(first),
        u=_upper(first),
        eps_abs=OSQP_EPS,
        eps_rel=OSQP_EPS,
        max_iter=20_000,
        verbose=False,
    )
    last: list[FloatArray] = []

    def solve(form: StandardForm) -> FloatArray | None:
        solver.update(q=form.c, l=_lower(form), u=_upper(form))
        if last:
            solver.warm_start(x=_shifted(form, last[0]))
        found = solver.solve()
        if found.info.status != "solved":
            return None
        last[:] = [found.x]
        return np.array(found.x)

    return solve


def clarabel_solver(first: StandardForm) -> Solve:
    """Clarabel, set up anew each time: bounds that come and go change its rows."""

    def solve(form: StandardForm) -> FloatArray | None:
        upper, lower = np.flatnonzero(np.isfinite(form.high)), np.flatnonzero(np.isfinite(form.low))
        every = eye_array(len(form.c), format="csr")
        rows = csc_matrix(vstack([form.a, form.g, every[upper], -every[lower]]))
        limits = np.concatenate([form.b, form.h, form.high[upper], -form.low[lower]])
        cones = [clarabel.ZeroConeT(len(form.b)), clarabel.NonnegativeConeT(len(limits) - len(form.b))]
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        found = clarabel.DefaultSolver(csc_matrix(triu(form.p)), form.c, rows, limits, cones, settings).solve()
        return np.array(found.x) if str(found.status) == "Solved" else None

    return solve


def _lower(form: StandardForm) -> FloatArray:
    return np.concatenate([form.b, np.full(len(form.h), -np.inf), form.low])


def _upper(form: StandardForm) -> FloatArray:
    return np.concatenate([form.b, form.h, form.high])


def _shifted(form: StandardForm, x: FloatArray) -> FloatArray:
    """Each course over time one step earlier, its last step kept."""
    steps = form.columns["net"][1][0]
    moved = x.copy()
    for place, shape in form.columns.values():
        if shape and shape[-1] == steps:
            course = x[place].reshape(shape, order="F")
            moved[place] = np.concatenate([course[..., 1:], course[..., -1:]], axis=-1).ravel(order="F")
    return moved


def _cost(form: StandardForm, x: FloatArray) -> float:
    return float(0.5 * x @ (form.p @ x) + form.c @ x)


def _missed(form: StandardForm, x: FloatArray) -> float:
    """Greatest distance beyond a limit."""
    apart = (np.abs(form.a @ x - form.b), form.g @ x - form.h, x - form.high, form.low - x)
    return max(float(column.max(initial=0.0)) for column in apart)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ders", type=int, default=10_000)
    parser.add_argument("--feeders", type=int, default=50)
    options = parser.parse_args()
    problems = forms(options.ders, options.feeders)
    first = replace(problems[0])
    print(f"{len(first.c)} variables, {first.a.shape[0]} equations, {first.g.shape[0]} inequalities", flush=True)
    solvers = {"clarabel": clarabel_solver(first), "piqp": piqp_solver(first), "osqp": osqp_solver(first)}
    times_s: dict[str, list[float]] = {name: [] for name in solvers}
    gaps: dict[str, list[float]] = {name: [] for name in solvers}
    missed: dict[str, list[float]] = {name: [] for name in solvers}
    failed = dict.fromkeys(solvers, 0)
    for number, form in enumerate(problems):
        reference = None
        for name, solve in solvers.items():
            began_s = time.perf_counter()
            x = solve(form)
            spent_s = time.perf_counter() - began_s
            print(f"plan {number}: {name} {spent_s * 1e3:.0f} ms" + " failed" * (x is None), flush=True)
            if number == 0:  # set-up, and for OSQP a cold start
                reference = x if name == "clarabel" else reference
                continue
            times_s[name].append(spent_s)
            if x is None:
                failed[name] += 1
                continue
            reference = x if name == "clarabel" else reference
            missed[name].append(_missed(form, x))
            if reference is not None:
                gaps[name].append(_cost(form, x) / _cost(form, reference) - 1.0)
    found: dict[str, float | None] = {
        f"{name}_ms": round(1e3 * statistics.median(spent), 1) for name, spent in times_s.items()
    }
    found |= {f"{name}_failed": count for name, count in failed.items()}
    found |= {f"{name}_gap": max(map(abs, gap)) if gap else None for name, gap in gaps.items()}
    found |= {f"{name}_missed_pu": max(far) if far else None for name, far in missed.items()}
    print(json.dumps({"bench": "solvers", **found}))


if __name__ == "__main__":
    main()
