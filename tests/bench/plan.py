"""Solve time of the horizon problem: OSQP, which the product uses first, against Clarabel, its second choice.

First solves carry building and compiling the problem; re-solves get a new forecast each time, as every five minutes in
operation. Rounds alternate between the solvers; the ratio is the median over rounds. The last line is one JSON object.
"""

import json
import statistics
import time
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from derms.domain.settings import PlanWeights
from derms.forecast.netload import standard_profile
from derms.forecast.pv import clear_sky_pu
from derms.optimize.aggregate import VirtualBattery
from derms.optimize.horizon import PAST_STEPS, Horizon, HorizonInput, HorizonOutput, SolverLimits

ROUNDS = 20
STEPS, STEP_S = 96, 900.0
PEAK_W = 3.6e6
MIDNIGHT = datetime(2026, 4, 15, 7, 0, tzinfo=UTC)
"""In Los Angeles."""


class ClarabelHorizon(Horizon):
    """The same problem with the second solver only."""

    @staticmethod
    def _solvers(limits: SolverLimits) -> tuple[tuple[str, dict[str, object]], ...]:
        return Horizon._solvers(limits)[1:]


def duck_day() -> HorizonInput:
    """A clear spring weekday: PV of 60 % of the peak, batteries of 20 % and four hours."""
    times_s = MIDNIGHT.timestamp() + (np.arange(STEPS, dtype=np.float64) + 0.5) * STEP_S
    pv_w = 0.6 * PEAK_W * clear_sky_pu(times_s, 34.05, -118.24)
    net_w = standard_profile(PEAK_W) - pv_w
    energy_wh = 0.2 * PEAK_W * 4.0
    battery = VirtualBattery(
        p_rated_w=0.2 * PEAK_W,
        energy_wh=0.5 * energy_wh,
        energy_min_wh=0.1 * energy_wh,
        energy_max_wh=0.95 * energy_wh,
        efficiency_frac=0.95,
    )
    return HorizonInput(
        net_load_w=net_w,
        pv_w=pv_w,
        past_net_w=np.full(PAST_STEPS, net_w[0]),
        previous_w=np.zeros(STEPS),
        battery=battery,
    )


def timed(horizon: Horizon, given: HorizonInput) -> tuple[float, HorizonOutput]:
    """Wall time of one solve [s] and its result."""
    began_s = time.perf_counter()
    found = horizon.solve(given, SolverLimits())
    return time.perf_counter() - began_s, found


def main() -> None:
    """Measure and print."""
    given = duck_day()
    kinds = (Horizon, ClarabelHorizon)
    horizons = [kind(steps=STEPS, step_s=STEP_S, scale_w=PEAK_W, weights=PlanWeights()) for kind in kinds]
    firsts = [timed(horizon, given) for horizon in horizons]
    print(f"first solves done; now {ROUNDS} re-solves with each solver", flush=True)
    rng = np.random.default_rng(1)
    rounds, apart = [], []
    for _ in range(ROUNDS):
        error_w = 0.01 * PEAK_W * rng.standard_normal(STEPS)
        given = replace(given, net_load_w=given.net_load_w + error_w, previous_w=firsts[0][1].battery_w)
        solved = [timed(horizon, given) for horizon in horizons]
        rounds.append([seconds for seconds, _ in solved])
        apart.append(abs(solved[0][1].objective / solved[1][1].objective - 1.0))
    result = {
        "bench": "plan",
        "steps": STEPS,
        "solvers": [found.solver for _, found in firsts],
        "first_s": [round(seconds, 3) for seconds, _ in firsts],
        "again_s": [round(statistics.median(column), 4) for column in zip(*rounds, strict=True)],
        "ratio_again": round(statistics.median(osqp / clarabel for osqp, clarabel in rounds), 3),
        "objective_apart_max_frac": float(f"{max(apart):.1e}"),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
