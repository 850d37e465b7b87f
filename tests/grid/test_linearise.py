"""The tangent against OpenDSS itself: every sensitivity is compared with finite differences of full solutions."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csc_array, csr_array, vstack

from derms.domain.arrays import FloatArray
from derms.domain.grid import Between
from derms.errors import GridError, ModelError
from derms.grid.engine import PowerFlow
from derms.grid.linearise import Tangent
from derms.grid.opendss import FeederEngine
from derms.grid.sensitivities import curve_slope
from feeders.catalog import load
from tests.grid.operating_point import STEP_W, TIGHT_PU, OperatingPoint, assert_same, small


@pytest.fixture(scope="module")
def ieee123() -> Iterator[OperatingPoint]:
    feeder = OperatingPoint(load("ieee123"), 15e3, 3e3)
    yield feeder
    feeder.engine.close()


def voltages(flow: PowerFlow) -> FloatArray:
    return flow.v_pu


def test_columns_of_loads_of_every_model_and_of_der_equal_full_solutions(ieee123: OperatingPoint) -> None:
    exponents = ieee123.layout.load_exponent[0]
    chosen = [int(np.flatnonzero(exponents == exponent)[3]) for exponent in (0.0, 1.0, 2.0)]
    chosen += [ieee123.loads, ieee123.loads + 17, ieee123.elements - 1]
    expected = ieee123.differences(chosen, voltages)
    assert_same(ieee123.tangent.columns(np.array(chosen)), expected)


def test_adjoint_rows_equal_the_full_factor(ieee123: OperatingPoint) -> None:
    tangent = ieee123.tangent
    currents = np.flatnonzero(np.isfinite(tangent.network.rating_a))
    gradients = csr_array(
        vstack([tangent.voltage_gradient(), tangent.current_gradient(currents), tangent.head_gradient()])
    )
    rows = tangent.rows(gradients)
    full = (gradients @ tangent.node_columns(np.arange(ieee123.elements))).real
    greatest = np.abs(full).max(axis=1, keepdims=True)
    idle = 1e-18  # what rounding leaves of a transformer without load [A per W]
    assert (np.abs(rows - full) <= 1e-9 * greatest + idle).all()


def test_rows_of_currents_and_of_head_power_equal_full_solutions(ieee123: OperatingPoint) -> None:
    tangent, network = ieee123.tangent, ieee123.tangent.network
    loaded = np.flatnonzero(np.abs(network.current @ ieee123.flow.v_v) > 1.0)
    chosen = [5, ieee123.loads + 3]
    columns = np.concatenate([chosen, ieee123.elements + np.array(chosen)])
    found = tangent.rows(tangent.current_gradient(loaded))[:, columns]
    # A kW is much in a service drop: the differences themselves are 4e-4 off.
    assert_same(found, ieee123.differences(chosen, lambda flow: np.abs(network.current @ flow.v_v)[loaded]), 1e-3)
    found = tangent.rows(tangent.head_gradient())[:, columns]
    assert_same(found, ieee123.differences(chosen, lambda flow: np.concatenate([flow.head_w, flow.head_var])))


def test_volt_var_and_volt_watt_of_autonomous_inverters_are_inside(tmp_path: Path) -> None:
    """Inverters that follow their curves soften what the battery does to the voltage."""
    feeder = OperatingPoint(small(tmp_path), 0.0, 0.0)
    layout, engine = feeder.layout, feeder.engine
    v_curve = np.array([0.90, 0.98, 1.02, 1.10])
    watt_curve, var_curve = np.array([600e3, 600e3, 560e3, 100e3]), np.array([400e3, 0.0, 0.0, -400e3])
    pv, point = feeder.loads, layout.der_point[0]

    def settled(battery_w: float, battery_var: float) -> PowerFlow:
        flow, before_pu = engine.solve(), np.inf
        while abs(flow.v_pu[point] - before_pu) > 1e-11:
            before_pu = flow.v_pu[point]
            feeder.p_w[pv] = np.interp(before_pu, v_curve, watt_curve)
            feeder.q_var[pv] = np.interp(before_pu, v_curve, var_curve)
            feeder.p_w[pv + 1], feeder.q_var[pv + 1] = battery_w, battery_var
            flow = feeder.at(feeder.p_w, feeder.q_var)
        return flow

    battery_w = 150e3
    for source_pu in (0.95, 1.06):
        engine.set_source_pu(source_pu)
        flow = settled(battery_w, 0.0)
        only_pv = np.array([1.0, 0.0])
        slopes = [curve_slope(v_curve, curve, flow.v_pu[point]) * only_pv for curve in (watt_curve, var_curve)]
        assert min(slopes[0][0], slopes[1][0]) < -5e6
        battery = np.array([pv + 1])
        following = feeder.touching(flow, dp_dv=slopes[0], dq_dv=slopes[1]).columns(battery)
        deaf = feeder.touching(flow).columns(battery)
        by_p = settled(battery_w + STEP_W, 0.0).v_pu - settled(battery_w - STEP_W, 0.0).v_pu
        by_q = settled(battery_w, STEP_W).v_pu - settled(battery_w, -STEP_W).v_pu
        expected = np.array([by_p, by_q]).T / (2.0 * STEP_W)
        assert_same(following, expected)
        assert np.abs(deaf - expected).max() > 0.005 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("model", "rel"),
    [
        ("1", 1e-5),
        ("2", 1e-5),
        ("3", 1e-5),
        ("4 cvrwatts=0.8 cvrvars=3", 1e-5),
        ("5", 1e-5),
        ("8 zipv=(0.4 0.3 0.3 0.5 0.3 0.2 0.6)", 0.01),
    ],
)
def test_load_models_on_phases_and_between_them(tmp_path: Path, model: str, rel: float) -> None:
    """A mixture of constant impedance, current and power is a power of the voltage near nominal only."""
    feeder = OperatingPoint(small(tmp_path, model=model), 100e3, 30e3)
    every = list(range(feeder.elements))
    assert_same(feeder.tangent.columns(np.array(every)), feeder.differences(every, voltages), rel)


def test_three_wire_feeder_is_linear_between_its_phases() -> None:
    feeder = OperatingPoint(load("ieee37"), 10e3, 2e3)
    assert any("-" in point for point in feeder.layout.points)
    chosen = [0, 7, feeder.loads, feeder.elements - 1]
    assert_same(feeder.tangent.columns(np.array(chosen)), feeder.differences(chosen, voltages))
    rows = feeder.tangent.rows(feeder.tangent.voltage_gradient())
    full = feeder.tangent.columns(np.arange(feeder.elements))
    assert_same(rows, full, 1e-9)
    feeder.engine.close()


def test_points_between_phases_of_a_circuit_with_neutral(tmp_path: Path) -> None:
    feeder = OperatingPoint(small(tmp_path, between=Between.PHASES), 100e3, 30e3)
    assert "b.1-2" in feeder.layout.points
    every = list(range(feeder.elements))
    assert_same(feeder.tangent.columns(np.array(every)), feeder.differences(every, voltages))


def test_dead_island_with_its_loads_and_der_leaves_the_rest_linear(tmp_path: Path) -> None:
    feeder = OperatingPoint(small(tmp_path), 100e3, 30e3)
    feeder.engine.set_switches({"line.tie": False})
    flow = feeder.at(feeder.p_w, feeder.q_var)
    tangent = feeder.touching(flow)
    assert np.array_equal(tangent.alive, feeder.engine.energised())
    assert not tangent.alive.all()
    delta = feeder.layout.loads.index("delta")
    every = list(range(feeder.elements))
    found = tangent.columns(np.array(every))
    assert_same(found, feeder.differences(every, voltages))
    assert set(np.flatnonzero(np.abs(found).sum(axis=0))) == {delta, delta + feeder.elements}
    rows = tangent.rows(csr_array(vstack([tangent.voltage_gradient(), tangent.head_gradient()])))
    assert_same(rows[: len(found)], found, 1e-9)


def test_longer_line_is_a_current_drawn_at_its_ends(tmp_path: Path) -> None:
    """Series impedance 0.1 % up is admittance down: the difference is drawn from the nodes."""
    feeder = OperatingPoint(small(tmp_path), 100e3, 30e3)
    longer = FeederEngine(feeder.engine.package, line_scale={"tie": 1.001})
    longer.set_tolerance(TIGHT_PU)
    longer.set_der(feeder.p_w[feeder.loads :], feeder.q_var[feeder.loads :])
    change_pu = longer.solve().v_pu - feeder.flow.v_pu
    network = feeder.tangent.network
    draws = network.line_draw(feeder.flow.v_v)[:, [feeder.layout.lines.index("tie")]]
    found = feeder.tangent.at_points(feeder.tangent.by_current(csc_array(-0.001 * draws)))[:, 0]
    assert_same(found, change_pu, 0.01)


def test_network_after_taps_have_moved_equals_one_that_is_read_from_the_start(ieee123: OperatingPoint) -> None:
    engine = ieee123.engine
    before = engine.taps()
    moved = {name: tap + 2 for name, tap in before.items()}
    old = engine.network()
    engine.set_taps(moved)
    engine.solve()
    again = engine.network()
    other = FeederEngine(load("ieee123"))
    other.freeze_controls(True)
    other.set_taps(moved)
    other.solve()
    fresh = other.network()
    assert np.array_equal(again.y.toarray(), fresh.y.toarray())
    assert np.array_equal(again.current.toarray(), fresh.current.toarray())
    assert not np.array_equal(again.y.toarray(), old.y.toarray())
    engine.set_taps(before)
    engine.solve()
    assert np.allclose(engine.network().y.toarray(), old.y.toarray(), rtol=1e-9, atol=0.0)


def test_part_without_any_admittance_is_a_model_error(tmp_path: Path) -> None:
    feeder = OperatingPoint(small(tmp_path), 0.0, 0.0)
    network = feeder.engine.network()
    empty = replace(network, y=csc_array(network.y.shape, dtype=np.complex128))
    nothing = np.zeros(feeder.loads)
    with pytest.raises(ModelError, match="no tangent at this solution"):
        Tangent(feeder.layout, empty, feeder.flow.v_v, nothing, nothing, np.zeros(2), np.zeros(2))


def test_values_that_are_not_finite_are_refused(ieee123: OperatingPoint) -> None:
    v_v = ieee123.flow.v_v.copy()
    v_v[3] = np.nan
    with pytest.raises(GridError, match="voltage: 1 values are not finite"):
        ieee123.touching(replace(ieee123.flow, v_v=v_v))
