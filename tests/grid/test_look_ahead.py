"""What a plan would do to the feeder, and what would happen if all control were lost, on real OpenDSS."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.domain.grid import GridState
from derms.domain.quality import Quality
from derms.errors import GridError, NotConverged
from derms.grid.look_ahead import Moment, ViolationKind, examine, look_ahead, violations
from derms.grid.opendss import FeederEngine
from feeders.catalog import load

PACKAGE = load("ieee123")
RATED_W = np.array([der.p_rated_w for der in PACKAGE.ders])
IS_PV = np.array([der.kind == "pv" for der in PACKAGE.ders])
NOTHING = np.zeros(len(RATED_W))


@pytest.fixture(scope="module")
def engine() -> FeederEngine:
    return FeederEngine(PACKAGE)


@pytest.fixture(scope="module")
def state(engine: FeederEngine) -> GridState:
    """A mild noon: 45 % of nominal load."""
    layout = engine.layout
    engine.set_loads(0.45 * layout.nominal_load_w, 0.45 * layout.nominal_load_var)
    engine.set_der(NOTHING, NOTHING)
    flow = engine.solve()
    return GridState(
        feeder=PACKAGE.id,
        at=datetime(2026, 4, 15, 19, 0, tzinfo=UTC),
        v_pu=flow.v_pu,
        points=layout.points,
        head_w=flow.head_w,
        head_var=flow.head_var,
        load_w=0.45 * layout.nominal_load_w,
        load_var=0.45 * layout.nominal_load_var,
        load_scale=np.full(3, 0.45),
        residual_w=0.0,
        quality=Quality.GOOD,
        v_sigma_pu=np.full_like(flow.v_pu, 1e-4),
        v_bias_pu=np.zeros_like(flow.v_pu),
        violations=0,
    )


def moment(der_w: FloatArray, reverted_w: FloatArray, load_factor: float = 1.0) -> Moment:
    return Moment(load_factor=load_factor, der_w=der_w, der_var=NOTHING, reverted_w=reverted_w, reverted_var=NOTHING)


SUN_W = np.where(IS_PV, RATED_W, 0.0)
HELD_W = 0.3 * SUN_W - np.where(IS_PV, 0.0, 0.5 * RATED_W)
"""PV held back and batteries charging."""


def test_quiet_plan_violates_nothing_and_loss_of_control_of_nothing_changes_nothing(
    engine: FeederEngine, state: GridState
) -> None:
    (seen,) = examine(engine, state, [moment(NOTHING, NOTHING)])
    assert seen.settled == seen.control_lost_settled == ()
    assert seen.head_w == pytest.approx(seen.head_lost_w, rel=1e-6)


def test_plan_that_keeps_voltages_down_is_dangerous_when_its_control_is_lost(
    engine: FeederEngine, state: GridState
) -> None:
    (seen,) = examine(engine, state, [moment(HELD_W, SUN_W)])
    kinds = {violation.kind for violation in seen.control_lost}
    assert not [violation for violation in seen.settled if violation.kind is ViolationKind.VOLTAGE_HIGH]
    assert ViolationKind.VOLTAGE_HIGH in kinds
    high = [violation for violation in seen.control_lost if violation.kind is ViolationKind.VOLTAGE_HIGH]
    assert all(violation.value > violation.limit == 1.05 for violation in high)
    assert len(seen.control_lost_settled) < len(seen.control_lost), "the regulators follow after a while"
    assert seen.head_w - seen.head_lost_w == pytest.approx((SUN_W - HELD_W).sum(), rel=0.1)


def test_overloaded_service_transformer_and_reverse_power_are_named(engine: FeederEngine, state: GridState) -> None:
    flow = look_ahead(engine, state, 1.4 * SUN_W, NOTHING, 0.1, regulators_act=False)
    found = violations(engine, flow, reverse_max_w=500e3)
    reverse = [violation for violation in found if violation.kind is ViolationKind.REVERSE_POWER]
    thermal = [violation for violation in found if violation.kind is ViolationKind.THERMAL]
    assert [violation.where for violation in reverse] == ["head"]
    assert reverse[0].value == pytest.approx(-flow.head_w.sum())
    assert reverse[0].limit == 500e3
    assert thermal
    assert all(violation.where.startswith("transformer.svc_pv") for violation in thermal)
    assert all(violation.value > 1.0 and violation.excess == violation.value - 1.0 for violation in thermal)


def test_low_voltage_is_told_apart_from_high(engine: FeederEngine, state: GridState) -> None:
    flow = look_ahead(engine, state, np.where(IS_PV, 0.0, -RATED_W), NOTHING, 2.4, regulators_act=False)
    found = violations(engine, flow)
    low = [violation for violation in found if violation.kind is ViolationKind.VOLTAGE_LOW]
    assert low
    assert all(violation.value < violation.limit for violation in low)


def test_looking_ahead_leaves_taps_and_capacitors_where_they_were(engine: FeederEngine, state: GridState) -> None:
    taps, steps = engine.taps(), engine.capacitors()
    examine(engine, state, [moment(1.2 * SUN_W, -RATED_W, 0.3), moment(HELD_W, SUN_W, 1.5)])
    assert (engine.taps(), engine.capacitors()) == (taps, steps)
    with pytest.raises(GridError, match="not finite"):
        examine(engine, state, [moment(np.full_like(SUN_W, np.nan), SUN_W)])
    with pytest.raises(NotConverged):
        examine(engine, state, [moment(HELD_W, SUN_W, 60.0)])
    assert (engine.taps(), engine.capacitors()) == (taps, steps)


def test_dead_section_is_no_violation(state: GridState) -> None:
    switch = [binding for binding in PACKAGE.switches if binding.element.lower() == "line.sw2"]
    dark = FeederEngine(replace(PACKAGE, switches=tuple(switch)))
    dark.set_switches({"line.sw2": False})
    dark.freeze_controls(True)
    found = violations(dark, dark.solve())
    assert not [violation for violation in found if violation.where.startswith(("152.", "160."))]
