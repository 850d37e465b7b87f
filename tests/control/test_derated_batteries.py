"""Batteries that are set to less than the fleet file says: planned, shared out and guarded as small as they are."""

import numpy as np
import pytest

from derms.control.cycle import ControlState, CycleInput, CycleSettings, decide
from derms.control.guards import GuardInput, guard
from derms.domain.plan import PlanSource
from derms.optimize.fleet import FleetPlan
from derms.optimize.portfolio import Portfolio
from tests.control.values import (
    NOON,
    PAST_PERIODS,
    TERMS,
    ZONE,
    fleet_of,
    fleet_plan_of,
    forecast_of,
    snapshot_of,
    strain_of,
)

STEPS = 96
TOLD_W = [10e3, np.nan, 60e3, 5e3]
"""Three batteries of 25 kW and an inverter of 30 kW: one is set to less, one says nothing, one says more."""
SNAPSHOT = snapshot_of([0.0] * 4, soc_frac=[0.5, 0.5, 0.5, np.nan], p_rated_w=TOLD_W)


def test_a_fleet_is_derated_where_batteries_say_less_and_nowhere_else() -> None:
    fleet = fleet_of(3, 1)
    derated = fleet.derated(SNAPSHOT.p_rated_w, np.array([np.nan, 40e3, 400e3, np.nan]))
    np.testing.assert_array_equal(derated.p_rated_w, [10e3, 25e3, 25e3, 30e3])
    np.testing.assert_array_equal(derated.energy_wh, [100e3, 40e3, 100e3, 0.0])
    assert fleet.derated(np.full(4, np.nan), np.full(4, np.nan)) is fleet


def test_a_plan_counts_on_no_more_than_batteries_say_they_give() -> None:
    seen_w: list[float] = []

    def optimizer(given: Portfolio) -> FleetPlan:
        most_w = float(given.devices.discharge_max_w.sum())
        seen_w.append(most_w)
        power_w = np.zeros(STEPS)
        power_w[:2] = most_w
        return fleet_plan_of(given, power_w, np.zeros(STEPS))

    given = CycleInput(
        fleet=fleet_of(3, 1),
        available=np.ones(4, dtype=np.bool_),
        snapshot=SNAPSHOT,
        forecast=forecast_of(np.full(STEPS, 1e6), pv_rated_w=30e3, pv_frac=0.0),
        past_net_w=np.full(PAST_PERIODS, 1e6),
        der_rows=(0, 1, 2, 3),
    )
    decision = decide(
        ControlState(),
        given,
        now=NOON,
        now_s=0.0,
        optimizer=optimizer,
        look_ahead=lambda der_w, factor: strain_of(4),
        settings=CycleSettings(shared_h=0.5, validity_s=1800.0, last_good_age_max_s=1e4, timezone=ZONE, terms=TERMS),
    )
    assert seen_w == [60e3]
    assert decision.plan.source is PlanSource.OPTIMIZER
    np.testing.assert_allclose(decision.dispatch.p_set_w[:3, 1], [10e3, 25e3, 25e3])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_setpoint_beyond_what_a_battery_says_it_gives_is_clamped_to_it(sign: float) -> None:
    given = GuardInput(fleet_of(3, 1), SNAPSHOT, 60.0)
    guarded = guard(sign * np.array([25e3, 25e3, 60e3, np.nan]), given)
    np.testing.assert_array_equal(guarded.value_w[:3], sign * np.array([10e3, 25e3, 25e3]))
    assert guarded.by == ("device maximum", "", "nameplate", "")
