"""A re-plan of 10,000 DER on 50 feeders, what zones cost against the exact per-device problem, and PyPSA's time against
ours for the linear variant.

A re-plan is update, solve, disaggregation over an hour and verification without OpenDSS, with a new forecast each time;
the first plan, which learns what binds and builds the problem, is told apart. The value is that of 1,000 DER on 10
congested feeders: the gain over no control, both trajectories priced by one evaluation that leaves slack out and counts
violations apart. It is measured on several made-up territories, and the least counts. The comparison with PyPSA is
told in `plan_pypsa`. The last line is one JSON object.
"""

import argparse
import json
import statistics
import time

import numpy as np

from derms.domain.settings import PlanWeights
from derms.optimize.fleet import FleetPlan, FleetPlanner
from derms.optimize.master import Master
from derms.optimize.portfolio import Portfolio
from derms.optimize.verify_fleet import check_shares
from derms.optimize.zones import singletons
from tests.bench.plan_pypsa import ratio_vs_pypsa
from tests.optimize.scored import scored
from tests.optimize.territory import territory

SHARED_STEPS = 12
REPLANS = 9
SEED = 20260415
CONGESTED_SEEDS = (SEED, 1, 2, 3, 4)
WEIGHTS = PlanWeights(change=0.0)
"""There is no last plan to keep to in a comparison of single plans."""


def scale_of(given: Portfolio) -> float:
    """Peak of the system [W]."""
    return float(given.feeders.net_load_w.sum(axis=0).max())


def replan(planner: FleetPlanner, given: Portfolio) -> tuple[float, FleetPlan]:
    """Seconds for plan and verification, and the plan."""
    began_s = time.perf_counter()
    plan = planner.plan(given)
    named = {slack.limit for slack in plan.gave_way}
    wrong = check_shares(given, plan.shares.power_w, plan.held_w, plan.promised_w, named)
    spent_s = time.perf_counter() - began_s
    assert wrong == [], wrong
    return spent_s, plan


def everyday(ders: int, feeders: int, congested: int) -> tuple[float, list[float], FleetPlan]:
    """The first plan's time and those of re-plans [s], each five minutes later with a forecast that moved by 0.5 %."""
    first = territory(ders=ders, feeders=feeders, congested=congested, seed=SEED)
    planner = FleetPlanner(PlanWeights(), scale_w=scale_of(first), shared_steps=SHARED_STEPS)
    cold_s, plan = replan(planner, first)
    times_s = []
    for number in range(1, REPLANS + 1):
        later = territory(ders=ders, feeders=feeders, congested=congested, seed=SEED, shift_h=number / 12, noise=0.005)
        spent_s, plan = replan(planner, later)
        times_s.append(spent_s)
    return cold_s, times_s, plan


def congested(ders: int, feeders: int, seed: int) -> tuple[float, float]:
    """Share of the exact optimum's gain, and the exact problem's re-plan [s]; no more violations than it."""
    given = territory(ders=ders, feeders=feeders, congested=feeders, seed=seed).checked()
    scale_w, steps = scale_of(given), len(given.hours)
    resting = scored(given, np.zeros((ders, steps)), np.zeros((feeders, steps)), scale_w=scale_w)
    plan = FleetPlanner(WEIGHTS, scale_w=scale_w, shared_steps=steps).plan(given)
    ours = scored(given, plan.shares.power_w, plan.held_w, scale_w=scale_w)
    master = Master(given, singletons(given), WEIGHTS, scale_w=scale_w)
    began_s = time.perf_counter()
    solution = master.solve(given, np.zeros((len(given.rows), steps)))
    exact_s = time.perf_counter() - began_s
    exact = scored(given, solution.injected_w, solution.held_w[:-1], scale_w=scale_w)
    share = (resting.cost - ours.cost) / (resting.cost - exact.cost)
    print(
        f"seed {seed}: {share:.4f} of the gain; without control, ours, exact: cost {resting.cost:.5f}, {ours.cost:.5f},"
        f" {exact.cost:.5f}, violated steps {resting.violations}, {ours.violations}, {exact.violations}"
    )
    assert ours.violations <= exact.violations
    return share, exact_s


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    cold_s, times_s, plan = everyday(10_000, 50, 36)
    thermal = sum(binding.limit.startswith("feeder") for binding in plan.solution.binding)
    print(f"first plan {cold_s * 1e3:.0f} ms; slowest re-plan {max(times_s) * 1e3:.0f} ms; {len(plan.zones.rows)} rows")
    print(f"last re-plan: {thermal} feeders at their thermal limit, {len(plan.solution.binding)} limits binding")
    shares, exact_s = zip(*(congested(1_000, 10, seed) for seed in CONGESTED_SEEDS), strict=True)
    ratio = ratio_vs_pypsa()
    found = {
        "replan_ms": round(statistics.median(times_s) * 1e3, 1),
        "value_share_congested": round(min(shares), 4),
        "replan_ms_exact_1000": round(statistics.median(exact_s) * 1e3, 1),
        "ratio_vs_pypsa": None if ratio is None else round(ratio, 1),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
