"""Random fleets of everything there is, measured badly and asked for too much: one planner has a plan for each of them
that the verifier passes.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array, hstack

from derms.domain.settings import PlanWeights
from derms.optimize.fleet import FleetPlanner
from derms.optimize.portfolio import Desk, Devices, Portfolio, Rank, Sites
from derms.optimize.resources import joined, waiting_loads, with_sessions
from derms.optimize.verify_fleet import check_shares
from tests.optimize.territory import HOURS, territory

STORES, LOADS, SITES, INVERTERS, FEEDERS = 30, 9, 20, 5, 2
STEPS = len(HOURS)
STATES = 12


def _fleet(rng: np.random.Generator, batteries: Devices) -> Devices:
    """Batteries, of which some are cars, and loads that can wait."""
    cars = np.flatnonzero(rng.random(STORES) < 0.4)
    count = len(cars)
    arrive_h = np.where(rng.random(count) < 0.4, 0.0, rng.uniform(0.0, 7.0, count))
    stores = with_sessions(
        batteries,
        HOURS,
        device=cars,
        due_wh=rng.uniform(0.2, 1.4, count) * batteries.stored_max_wh[cars],
        arrive_h=arrive_h,
        leave_h=arrive_h + rng.uniform(0.1, 20.0, count),
    )
    loads = waiting_loads(
        HOURS,
        feeder=rng.integers(0, FEEDERS, LOADS),
        load_w=rng.uniform(0.5e3, 3e3, (LOADS, STEPS)),
        rated_w=np.full(LOADS, 4e3),
        wait_max_wh=rng.uniform(1e3, 6e3, LOADS),
        waiting_wh=rng.uniform(0.0, 1e3, LOADS),
        rebound_frac=np.full(LOADS, 1.15),
        due_h=rng.uniform(0.0, 40.0, LOADS),
        available=np.ones(LOADS, dtype=np.bool_),
    )
    return _measured(rng, joined([stores, loads], STEPS))


def _measured(rng: np.random.Generator, devices: Devices) -> Devices:
    """Energy outside of limits, values that are none, many devices silent, envelopes that nobody could keep to."""
    count, bound = len(devices), devices.envelopes
    assert bound is not None
    odd = rng.random(count) < rng.choice([0.0, 0.3])
    stored_wh = np.where(odd, devices.stored_max_wh * rng.uniform(-0.05, 1.2, count), devices.stored_wh)
    stored_wh[rng.random(count) < 0.05] = np.nan
    low_wh = bound.low_wh.copy()
    low_wh[rng.random(len(bound)) < 0.05] = np.nan
    most_wh = devices.stored_max_wh[bound.device, None] * rng.uniform(0.3, 1.0, low_wh.shape)
    high_wh = np.where(rng.random(low_wh.shape) < rng.choice([0.0, 0.02]), most_wh, np.inf)
    return replace(
        devices,
        stored_wh=stored_wh,
        envelopes=replace(bound, low_wh=low_wh, high_wh=np.maximum(high_wh, low_wh)),
        available=rng.random(count) < rng.choice([1.0, 0.5, 0.05]),
    )


def _sites(rng: np.random.Generator, count: int) -> Sites:
    pv_w = rng.uniform(0.0, 8e3, (SITES, STEPS))
    pv_w[rng.random(SITES) < 0.1] = np.nan
    return Sites(
        site=rng.integers(-1, SITES, count),
        load_w=rng.uniform(0.0, 5e3, (SITES, STEPS)),
        pv_w=pv_w,
        import_max_w=rng.uniform(2e3, 15e3, SITES),
        export_max_w=rng.uniform(0.0, 10e3, SITES),
        inverter=rng.integers(-1, INVERTERS, count),
        inverter_pv_w=rng.uniform(0.0, 6e3, (INVERTERS, STEPS)),
        inverter_max_w=rng.uniform(2e3, 10e3, INVERTERS),
        backup_wh=np.where(rng.random(count) < 0.1, np.nan, rng.uniform(0.0, 10e3, count)),
        solar_only=rng.random(count) < 0.2,
    )


def _state(rng: np.random.Generator) -> Portfolio:
    given = territory(ders=STORES, feeders=FEEDERS, congested=int(rng.integers(0, 3)), seed=int(rng.integers(0, 1000)))
    devices = _fleet(rng, given.devices)
    rows, feeders, more = given.rows, given.feeders, csr_array((len(given.rows), LOADS))
    per_w = csr_array(hstack([rows.per_w, more]))
    desk = Desk(
        emergency=bool(rng.random() < 0.2),
        hold_h=float(rng.choice([0.25, 0.5, 1.0])),
        hold_w={0: float(rng.uniform(-5e4, 5e4))} if rng.random() < 0.2 else {},
        reserve_up_w=float(rng.choice([0.0, 2e4])),
        reserve_down_w=float(rng.choice([0.0, 2e4])),
        ramp_w_per_h=float(rng.choice([np.inf, 1e5])),
    )
    return replace(
        given,
        devices=replace(devices, apparent_max_va=rng.uniform(0.9, 1.2) * devices.discharge_max_w.max(axis=1)),
        sites=_sites(rng, len(devices)) if rng.random() < 0.6 else None,
        desk=desk,
        feeders=replace(
            feeders,
            net_load_w=feeders.net_load_w * rng.uniform(0.3, 2.0, (FEEDERS, 1)),
            rank=rng.integers(0, 3, FEEDERS),
        ),
        rows=replace(
            rows,
            base=rows.base + rng.uniform(-0.08, 0.08, (len(rows), 1)),
            rank=rng.choice([Rank.HARD, Rank.NOT_WORSE, Rank.IGNORED], len(rows)),
            per_w=per_w,
            per_var=1.5 * per_w if rng.random() < 0.5 else None,
        ),
        price=rng.uniform(-2.0, 2.0) * rng.uniform(0.0, 1.0, STEPS),
        previous_w=rng.uniform(-1e5, 1e5, (FEEDERS, STEPS)),
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_one_planner_has_a_plan_for_every_state_that_the_verifier_passes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    planner = FleetPlanner(PlanWeights(), scale_w=1e6, shared_steps=12)
    for number in range(STATES):
        given = _state(rng)
        plan = planner.plan(given)
        named = {slack.limit for slack in plan.gave_way}
        wrong = check_shares(
            given.checked(), plan.shares.power_w, plan.held_w, plan.promised_w, named, reactive_var=plan.reactive_var
        )
        assert (number, wrong) == (number, [])
