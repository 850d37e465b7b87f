"""DER that are measured and never commanded: chargers and loads stay with whoever has them."""

import numpy as np
import pytest

from derms.control.cycle import ControlState, CycleInput, CycleSettings, decide
from derms.control.guards import GuardInput, guard
from derms.domain.arrays import FloatArray
from derms.domain.der import DeviceKind, Fleet
from derms.domain.quality import Quality
from derms.domain.strain import Strain
from derms.optimize.aggregate import aggregate
from derms.optimize.fleet import FleetPlan
from derms.optimize.portfolio import Portfolio
from derms.service.observation import Observation
from tests.control.values import (
    NOON,
    PAST_PERIODS,
    STEP_S,
    TERMS,
    ZONE,
    device,
    fleet_plan_of,
    forecast_of,
    snapshot_of,
    strain_of,
)

STEPS = 96
FLEET = Fleet(
    (
        device("bat", DeviceKind.BATTERY, p_rated_w=25e3, energy_wh=100e3),
        device("car", DeviceKind.EV_CHARGER, p_rated_w=22e3),
        device("pump", DeviceKind.LOAD, p_rated_w=5e3),
    )
)
SOC = [0.5, np.nan, np.nan]
SETTINGS = CycleSettings(shared_h=1.0, validity_s=1800.0, last_good_age_max_s=14400.0, timezone=ZONE, terms=TERMS)


def resting(given: Portfolio) -> FleetPlan:
    """A plan that leaves the battery at rest."""
    return fleet_plan_of(given, np.zeros(STEPS), np.zeros(STEPS))


def asked_of_the_feeder(quality: list[Quality]) -> tuple[list[FloatArray], FloatArray]:
    """DER powers with which the feeder is looked at, and the setpoints that are sent."""
    asked: list[FloatArray] = []

    def look_ahead(der_w: FloatArray, factor: float) -> Strain:
        asked.append(der_w.copy())
        return strain_of(len(FLEET))

    given = CycleInput(
        fleet=FLEET,
        available=np.ones(len(FLEET), dtype=np.bool_),
        snapshot=snapshot_of([0.0, -11e3, -5e3], soc_frac=SOC, quality=quality),
        forecast=forecast_of(np.full(STEPS, 1e6)),
        past_net_w=np.full(PAST_PERIODS, 1e6),
        der_rows=(0, 1, 2),
    )
    decision = decide(
        ControlState(), given, now=NOON, now_s=0.0, optimizer=resting, look_ahead=look_ahead, settings=SETTINGS
    )
    return asked, decision.dispatch.p_set_w


def test_a_charger_is_never_sent_anything_and_the_battery_is() -> None:
    _, p_set_w = asked_of_the_feeder([Quality.GOOD] * 3)
    assert np.isnan(p_set_w[1:]).all()
    assert np.isfinite(p_set_w[0]).all()


def test_the_feeder_is_looked_at_with_chargers_and_loads_drawing_on_as_they_do() -> None:
    asked, _ = asked_of_the_feeder([Quality.GOOD] * 3)
    assert asked
    for der_w in asked:
        np.testing.assert_array_equal(der_w, [0.0, -11e3, -5e3])


def test_a_charger_that_is_not_seen_counts_as_nothing_in_the_look_ahead() -> None:
    asked, _ = asked_of_the_feeder([Quality.GOOD, Quality.STALE, Quality.GOOD])
    for der_w in asked:
        np.testing.assert_array_equal(der_w, [0.0, 0.0, -5e3])


@pytest.mark.parametrize("wanted_w", [-5e3, 0.0, 5e3])
def test_guards_let_no_command_through_to_them(wanted_w: float) -> None:
    given = GuardInput(FLEET, snapshot_of([0.0, -11e3, -5e3], soc_frac=SOC), 900.0)
    guarded = guard(np.full(3, wanted_w), given)
    assert np.isnan(guarded.value_w[1:]).all()
    assert guarded.by[1:] == ("nameplate", "nameplate")


def test_they_are_no_part_of_the_virtual_battery() -> None:
    virtual = aggregate(FLEET, np.array(SOC), np.ones(3, dtype=np.bool_))
    assert virtual.p_rated_w == 25e3


def test_what_they_draw_stays_in_the_gross_load() -> None:
    """Nobody plans them, so the forecast has to."""
    memory = Observation(FLEET, step_s=STEP_S, steps=4)
    memory.add(snapshot_of([2e3, -11e3, -5e3], soc_frac=SOC), 1e6, np.zeros(3, dtype=np.bool_), sky_frac=0.0)
    assert memory.seen(NOON).gross_w.tolist() == [1e6 + 2e3]
