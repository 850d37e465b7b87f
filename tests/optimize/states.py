"""Random measured states of a fleet: how many are left without a plan, or with one that the verifier refuses.

States of charge are outside their limits, voltages violated already, half the fleet silent, values NaN, prices
negative. Run it with `python -m tests.optimize.states --states N`; the last line is one JSON object.
"""

import argparse
import json
from dataclasses import replace

import numpy as np

from derms.domain.settings import ORDERS, PlanSettings, PlanWeights
from derms.errors import PlanError
from derms.optimize.fleet import FleetPlanner
from derms.optimize.portfolio import Portfolio, Rank
from derms.optimize.verify_fleet import check_shares
from tests.optimize.territory import territory

DERS, FEEDERS = 24, 2
SHARED = 12
SCALE_W = 1e6


def measured(rng: np.random.Generator) -> Portfolio:
    """One state that nobody would wish for."""
    given = territory(ders=DERS, feeders=FEEDERS, congested=int(rng.integers(0, FEEDERS + 1)), seed=7)
    devices, feeders, rows = given.devices, given.feeders, given.rows
    stored_wh = devices.stored_max_wh * rng.uniform(-0.05, 1.15, DERS)
    stored_wh[rng.random(DERS) < 0.1] = np.nan
    charge_w = np.where(rng.random((DERS, 1)) < 0.05, np.nan, devices.charge_max_w)
    return replace(
        given,
        devices=replace(
            devices,
            stored_wh=stored_wh,
            charge_max_w=charge_w,
            available=rng.random(DERS) < rng.choice([1.0, 0.5, 0.05]),
        ),
        feeders=replace(
            feeders,
            net_load_w=feeders.net_load_w * rng.uniform(0.3, 2.0, (FEEDERS, 1)),
            rank=rng.integers(0, 3, FEEDERS),
        ),
        rows=replace(
            rows,
            base=rows.base + rng.uniform(-0.08, 0.08, (len(rows), 1)),
            rank=rng.choice([Rank.HARD, Rank.NOT_WORSE, Rank.IGNORED], len(rows)),
        ),
        price=rng.uniform(-2.0, 2.0) * rng.uniform(0.0, 1.0, len(given.hours)),
        previous_w=rng.uniform(-1e5, 1e5, given.previous_w.shape),
    )


def main() -> None:
    """Plan each state, count, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, default=10_000)
    parser.add_argument("--first", choices=ORDERS, help="what comes before all weights")
    asked, rng = parser.parse_args(), np.random.default_rng(20260415)
    states, order = asked.states, PlanSettings(first=asked.first).order
    planner = FleetPlanner(PlanWeights(), scale_w=SCALE_W, shared_steps=SHARED, first=order)
    without, unexplained = 0, 0
    for number in range(states):
        given = measured(rng)
        try:
            plan = planner.plan(given)
        except PlanError as error:
            without += 1
            print(f"state {number}: {error}")
            continue
        wrong = check_shares(
            given.checked(), plan.shares.power_w, plan.held_w, plan.promised_w, {slack.limit for slack in plan.gave_way}
        )
        unexplained += bool(wrong)
        for sentence in wrong:
            print(f"state {number}: {sentence}")
    print(json.dumps({"states": states, "without_plan": without, "verifier_rejected_unexplained": unexplained}))


if __name__ == "__main__":
    main()
