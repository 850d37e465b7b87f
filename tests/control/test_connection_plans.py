"""Plans of batteries and PV behind connections: within the limits on every rung, and as the guard will let them out."""

from dataclasses import replace

import numpy as np
import pytest

from derms.control.compose import pv_ceiling_w, sites_of
from derms.control.connections import unheld
from derms.control.cycle import ControlState, CycleInput, CycleSettings, Decision, Optimizer, decide
from derms.control.guards import GuardInput, guard
from derms.domain.arrays import FloatArray
from derms.domain.connection import Connection
from derms.domain.der import ChargeFrom, Fleet
from derms.domain.dispatch import Dispatch, Quantity
from derms.domain.plan import PlanSource
from derms.domain.settings import PlanSettings, PlanWeights
from derms.domain.strain import Strain
from derms.errors import PlanError
from derms.historian.replay import pack, unpack
from derms.optimize.fleet import FleetPlan, FleetPlanner
from derms.optimize.portfolio import Portfolio
from derms.optimize.verify_stores import site_faults
from tests.control.values import PAST_PERIODS, TERMS, ZONE, fleet_of, forecast_of, snapshot_of, strain_of

HOURS = PlanSettings().hours
SHARED = 12
SETTINGS = CycleSettings(shared_h=1.0, validity_s=1800.0, last_good_age_max_s=4 * 3600.0, timezone=ZONE, terms=TERMS)
SLACK_W = 0.01


def farm(export_max_w: float = 36e3, import_max_w: float = 20e3) -> Fleet:
    """Two batteries of 25 kW and PV of 30 kW behind one connection, and a battery and PV by themselves."""
    fleet = fleet_of(3, inverters=2)
    point = Connection(id="farm", export_max_w=export_max_w, import_max_w=import_max_w, load_min_w=1e3, load_max_w=4e3)
    shared = {"bat0", "bat1", "pv0"}
    devices = (replace(each, connection="farm") if each.id in shared else each for each in fleet.devices)
    return Fleet(tuple(devices), (point,))


def given(fleet: Fleet, *, now_w: float = 1.5e5, later_w: float = 0.5e5, pv_frac: float = 0.3) -> CycleInput:
    """Half-full batteries, and a load that falls or rises after the first three hours."""
    net_w = np.where(np.cumsum(HOURS) <= 3.0, now_w, later_w)
    forecast = replace(forecast_of(net_w, pv_rated_w=60e3, pv_frac=pv_frac), hours=HOURS)
    return CycleInput(
        fleet=fleet,
        available=np.ones(len(fleet), dtype=np.bool_),
        snapshot=snapshot_of([0.0, 0.0, 0.0, 9e3, 9e3], soc_frac=[0.5, 0.5, 0.5, np.nan, np.nan]),
        forecast=forecast,
        past_net_w=np.full(PAST_PERIODS, now_w),
        der_rows=tuple(range(len(fleet))),
    )


def decided(asked: CycleInput, optimizer: Optimizer | None = None, state: ControlState | None = None) -> Decision:
    calm = strain_of(len(asked.fleet))

    def look_ahead(der_w: FloatArray, factor: float) -> Strain:
        return calm

    planner = FleetPlanner(PlanWeights(), scale_w=2e5, shared_steps=SHARED)
    return decide(
        state or ControlState(),
        asked,
        now=asked.forecast.start,
        now_s=0.0,
        optimizer=optimizer or planner.plan,
        look_ahead=look_ahead,
        settings=SETTINGS,
    )


def failing(portfolio: Portfolio) -> FleetPlan:
    raise PlanError("no solution in time")


def exported_w(dispatch: Dispatch) -> FloatArray:
    """Most that the farm gives under a dispatch in its steps, whatever the sun does."""
    most_w: FloatArray = np.maximum(dispatch.p_set_w[:2, 1:], 0.0).sum(axis=0)
    limit_w = dispatch.p_limit_w[3, 1:]
    return most_w + np.where(np.isnan(limit_w), 30e3, limit_w)


def test_a_plan_leaves_pv_and_batteries_behind_a_connection_within_its_export_limit() -> None:
    decision = decided(given(farm()))
    assert decision.plan.source is PlanSource.OPTIMIZER
    dispatch = decision.dispatch
    assert exported_w(dispatch).max() <= 37e3 + SLACK_W
    assert np.maximum(dispatch.p_set_w[:2, 1:], 0.0).sum(axis=0).max() > 10e3
    assert dispatch.p_limit_w[3, 1:].min() >= 9e3 - SLACK_W, "PV is never held below what is forecast"
    assert np.isnan(dispatch.p_limit_w[4]).all()


@pytest.mark.parametrize(("now_w", "later_w"), [(1.5e5, 0.5e5), (0.5e5, 1.5e5)])
def test_rungs_below_the_optimizer_keep_the_limits_too(now_w: float, later_w: float) -> None:
    asked = given(farm(), now_w=now_w, later_w=later_w)
    free = decided(replace(asked, fleet=fleet_of(3, inverters=2)))
    for state in (ControlState(), ControlState(last_good=free.plan)):
        decision = decided(asked, failing, state)
        assert decision.plan.source is (PlanSource.RULES if state.last_good is None else PlanSource.LAST_GOOD)
        assert exported_w(decision.dispatch).max() <= 37e3 + SLACK_W
        drawn_w = np.maximum(-decision.dispatch.p_set_w[:2, 1:], 0.0).sum(axis=0)
        assert drawn_w.max() <= 16e3 + SLACK_W
        assert site_faults(decision.portfolio, np.nan_to_num(decision.dispatch.p_set_w[:3, 1:])) == []


def test_once_pv_holds_its_limit_the_guard_lets_out_what_is_planned() -> None:
    asked = given(farm())
    dispatch = decided(asked).dispatch
    now_s = float(dispatch.times_s[SHARED // 2])
    for quantity in Quantity:
        reach = unheld(asked.fleet, asked.snapshot).limited(dispatch.wanted_w(Quantity.P_LIMIT, now_s))
        wanted_w = dispatch.wanted_w(quantity, now_s)
        found = guard(wanted_w, GuardInput(asked.fleet, asked.snapshot, 1020.0, quantity=quantity, reach=reach))
        np.testing.assert_allclose(found.value_w, wanted_w, atol=SLACK_W)


def test_backup_is_kept_and_solar_charging_takes_no_more_than_pv_gives() -> None:
    fleet = farm()
    kept = replace(fleet.devices[0], backup_frac=0.5, inverter="hybrid")
    solar = replace(fleet.devices[1], charge_from=ChargeFrom.SOLAR)
    pv = replace(fleet.devices[3], inverter="hybrid")
    fleet = Fleet((kept, solar, fleet.devices[2], pv, fleet.devices[4]), fleet.connections)
    down = decided(given(fleet))
    assert np.nanmax(down.dispatch.p_set_w[0]) <= SLACK_W, "at its backup already"
    up = decided(given(fleet, now_w=0.5e5, later_w=1.5e5, pv_frac=0.1))
    assert -up.dispatch.p_set_w[1, 1:].min() <= 3e3 + SLACK_W
    found = sites_of(fleet, given(fleet).snapshot, np.ones(5, dtype=np.bool_), np.array([0.1]))
    assert found is not None
    assert found.inverter.tolist() == [0, -1, -1]
    assert (found.inverter_max_w[0], found.inverter_pv_w[0, 0]) == (30e3, 3e3)


def test_pv_that_a_plan_cannot_limit_counts_with_its_rating() -> None:
    asked = given(farm())
    asked = replace(asked, available=np.array([True, True, True, False, True]))
    decision = decided(asked)
    assert np.isnan(decision.dispatch.p_limit_w[3]).all()
    assert np.maximum(decision.dispatch.p_set_w[:2, 1:], 0.0).sum(axis=0).max() <= 7e3 + SLACK_W


def test_no_pv_is_limited_where_the_connection_has_room_for_everything() -> None:
    asked = given(farm(export_max_w=80e3))
    full_w = np.array([[25e3], [25e3], [25e3], [np.nan], [np.nan]])
    assert np.isnan(pv_ceiling_w(asked.fleet, asked.snapshot, asked.available, full_w)).all()
    assert sites_of(fleet_of(2), snapshot_of([0.0, 0.0]), np.ones(2, dtype=np.bool_), np.zeros(1)) is None


def test_a_fleet_with_connections_is_recorded_as_it_is() -> None:
    fleet = farm()
    again = unpack(pack(fleet))
    assert (again.devices, again.connections) == (fleet.devices, fleet.connections)


def test_pv_well_below_its_limit_is_not_taken_to_be_held_back() -> None:
    dispatch = decided(given(farm())).dispatch
    rated_w, nothing_w = farm().p_rated_w, np.zeros(5)
    assert dispatch.holds_back(nothing_w, rated_w).tolist() == [False] * 5
    full_w = np.array([0.0, 0.0, 0.0, 11e3, 30e3])
    assert dispatch.holds_back(full_w, rated_w).tolist() == [False, False, False, True, False]
    assert dispatch.holds_back(nothing_w * np.nan, rated_w)[3]
