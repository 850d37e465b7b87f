"""The engine as the rooms around it use it: real OpenDSS on the packaged IEEE 123 feeder."""

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.domain.grid import FeederPackage, VoltageLimits
from derms.errors import GridError, ModelError, NotConverged
from derms.grid.opendss import FeederEngine
from derms.grid.powers import PowerColumns
from feeders.catalog import load

PACKAGE = load("ieee123")
RATED_W = np.array([der.p_rated_w for der in PACKAGE.ders])
NO_VAR = np.zeros(len(PACKAGE.ders))
IS_PV = np.array([der.kind == "pv" for der in PACKAGE.ders])


@pytest.fixture(scope="module")
def shared_engine() -> FeederEngine:
    return FeederEngine(PACKAGE)


@pytest.fixture
def engine(shared_engine: FeederEngine) -> Iterator[FeederEngine]:
    """One engine for all tests (contexts are dear), handed over with taps, loads and DER as in the circuit's files."""
    taps = shared_engine.taps()
    yield shared_engine
    shared_engine.freeze_controls(False)
    shared_engine.set_loads(shared_engine.layout.nominal_load_w, shared_engine.layout.nominal_load_var)
    shared_engine.set_der(0.0 * NO_VAR, NO_VAR)
    shared_engine.set_taps(taps)


def base_package() -> FeederPackage:
    return replace(PACKAGE, circuit=PACKAGE.circuit.with_name("base.dss"), sites=(), ders=(), meters=(), switches=())


def scaled(engine: FeederEngine, factor: float) -> tuple[FloatArray, FloatArray]:
    return engine.layout.nominal_load_w * factor, engine.layout.nominal_load_var * factor


def test_bare_circuit_equals_the_published_solution_at_every_node() -> None:
    bare = FeederEngine(base_package())
    flow = bare.solve()
    tables = PACKAGE.circuit.parent / "tables"
    with (tables / "solved_voltages.csv").open(encoding="utf8") as file:
        published = {row["node"].lower(): float(row["v_pu"]) for row in csv.DictReader(file)}
    with (tables / "regulators.csv").open(encoding="utf8") as file:
        taps = {row["name"]: int(row["solved_tap"]) for row in csv.DictReader(file)}
    assert set(published) == set(bare.layout.points)
    assert flow.v_pu == pytest.approx([published[node] for node in bare.layout.points], abs=1e-4)
    assert bare.taps() == taps
    assert flow.head_w.sum() == pytest.approx(PACKAGE.peak_w, rel=1e-4)


def test_der_injection_lowers_the_head_by_its_power_and_less_losses(engine: FeederEngine) -> None:
    before = engine.solve()
    engine.set_der(np.where(IS_PV, RATED_W, 0.0), NO_VAR)
    after = engine.solve()
    drop_w = before.head_w.sum() - after.head_w.sum()
    assert drop_w == pytest.approx(RATED_W[IS_PV].sum(), rel=0.1)


def test_charging_battery_raises_the_head_of_its_own_phase_only(engine: FeederEngine) -> None:
    engine.freeze_controls(True)
    before = engine.solve()
    row = next(row for row, der in enumerate(PACKAGE.ders) if der.kind == "battery")
    phase = int(engine.layout.points[engine.layout.der_point[row]].partition(".")[2]) - 1
    p_w = np.zeros(len(PACKAGE.ders))
    p_w[row] = -RATED_W[row]
    engine.set_der(p_w, NO_VAR)
    change_w = engine.solve().head_w - before.head_w
    assert np.argmax(change_w) == phase
    assert change_w[phase] == pytest.approx(RATED_W[row], rel=0.15)
    assert np.abs(np.delete(change_w, phase)).max() < 0.1 * RATED_W[row]


def test_capacitive_der_raises_its_voltage_and_lowers_the_reactive_import(engine: FeederEngine) -> None:
    engine.freeze_controls(True)
    before = engine.solve()
    engine.set_der(0.0 * NO_VAR, np.full(len(PACKAGE.ders), 5e3))
    after = engine.solve()
    assert (after.v_pu[engine.layout.der_point] > before.v_pu[engine.layout.der_point]).all()
    assert before.head_var.sum() - after.head_var.sum() == pytest.approx(5e3 * len(PACKAGE.ders), rel=0.1)


def test_sun_after_clouds_lifts_sites_over_their_limit_until_the_regulators_follow(engine: FeederEngine) -> None:
    engine.set_loads(*scaled(engine, 0.45))
    engine.solve()
    engine.freeze_controls(True)
    engine.set_der(np.where(IS_PV, RATED_W, 0.0), NO_VAR)
    sudden = engine.solve()
    engine.freeze_controls(False)
    settled = engine.solve()
    assert 1.05 < sudden.v_pu[engine.layout.der_point].max() < 1.10
    strained, calmer = (engine.layout.violating(flow.v_pu)[engine.layout.der_point] for flow in (sudden, settled))
    assert strained.sum() > calmer.sum()
    assert (np.abs(settled.v_pu[engine.layout.der_point] - 1.0) < 0.06).all()


def test_full_charging_at_the_peak_pulls_primary_nodes_under_their_own_limit(engine: FeederEngine) -> None:
    engine.set_der(np.where(IS_PV, 0.0, -RATED_W), NO_VAR)
    flow = engine.solve()
    outside = engine.layout.violating(flow.v_pu)
    assert outside.any()
    assert (engine.layout.v_base_v[outside] > 2000.0).all()
    assert (flow.v_pu[outside] < 0.975).all()


def test_unknown_voltage_counts_as_outside_the_limits(engine: FeederEngine) -> None:
    v_pu = np.ones(len(engine.layout.points))
    assert not engine.layout.violating(v_pu).any()
    v_pu[7] = np.nan
    assert np.flatnonzero(engine.layout.violating(v_pu)).tolist() == [7]


def test_loads_know_their_phase_and_buses_their_nodes(engine: FeederEngine) -> None:
    phase = dict(zip(engine.layout.loads, engine.layout.load_phase.tolist(), strict=True))
    assert (phase["s1a"], phase["s2b"], phase["s4c"]) == (0, 1, 2)
    assert phase["s47"] == phase["s65a"] == -1
    assert [engine.layout.points[node] for node in engine.layout.bus_points("83")] == ["83.1", "83.2", "83.3"]
    assert (engine.layout.bus_points("26") >= 0).tolist() == [True, False, True]
    with pytest.raises(ModelError, match="nowhere"):
        engine.layout.bus_points("nowhere")


def test_every_base_voltage_gets_the_limits_of_its_class(engine: FeederEngine) -> None:
    v_min_pu = {round(base_v): low for base_v, low in zip(engine.layout.v_base_v, engine.layout.v_min_pu, strict=True)}
    assert v_min_pu == {2402: 0.975, 277: 0.95, 240: 0.95}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_power_that_is_not_finite_is_refused_and_leaves_no_trace(engine: FeederEngine, bad: float) -> None:
    before = engine.solve()
    load_w, load_var = scaled(engine, 1.0)
    load_w[3] = bad
    with pytest.raises(GridError, match="1 values are not finite"):
        engine.set_loads(load_w, load_var)
    with pytest.raises(GridError, match="not finite"):
        engine.set_der(RATED_W, np.full(len(PACKAGE.ders), bad))
    with pytest.raises(GridError, match="not finite"):
        engine.set_regulator_target("creg1a", bad)
    assert engine.solve().v_pu == pytest.approx(before.v_pu, abs=1e-5)


def test_column_of_the_wrong_length_is_refused(engine: FeederEngine) -> None:
    with pytest.raises(GridError, match="60 values expected"):
        engine.set_der(np.zeros(3), np.zeros(3))


@pytest.mark.parametrize("frozen", [False, True])
def test_absurd_load_is_no_solution_and_the_next_good_one_is(engine: FeederEngine, frozen: bool) -> None:
    engine.freeze_controls(frozen)
    engine.set_der(np.where(IS_PV, 0.3 * RATED_W, 0.0), NO_VAR)
    before, taps = engine.solve(), engine.taps()
    for factor in (20.0, 1e6):
        engine.set_loads(*scaled(engine, factor))
        with pytest.raises(NotConverged):
            engine.solve()
    assert engine.taps() == taps
    engine.set_loads(*scaled(engine, 1.0))
    after = engine.solve()
    assert after.v_pu == pytest.approx(before.v_pu, abs=1e-5)
    assert after.head_w == pytest.approx(before.head_w, rel=1e-4)


def test_engine_poisoned_by_nan_starts_itself_anew(engine: FeederEngine) -> None:
    engine.set_loads(*scaled(engine, 0.9))
    before = engine.solve()
    engine._dss.Load.kW = np.full(len(engine.layout.loads), np.nan)  # past the guard, as a fault of the library would
    engine._dss.Solution.Solve()
    assert np.isnan(engine._dss.BusVMagPU()).any()
    assert engine.solve().v_pu == pytest.approx(before.v_pu, abs=1e-5)


def test_fast_writes_give_the_voltages_of_the_public_setters(engine: FeederEngine) -> None:
    class PublicOnly:
        def __init__(self, batch: Any) -> None:
            self.__dict__["batch"] = batch

        def __len__(self) -> int:
            return len(self.__dict__["batch"])

        def __setattr__(self, name: str, value: Any) -> None:
            setattr(self.__dict__["batch"], name, value)

    engine.freeze_controls(True)
    p_w, q_var = scaled(engine, 1.0)
    p_w, q_var = p_w * np.linspace(0.5, 1.3, len(p_w)), q_var * np.linspace(1.4, 0.4, len(q_var))
    engine.set_loads(p_w, q_var)
    fast = engine.solve()
    engine.set_loads(*scaled(engine, 0.2))
    engine.solve()
    PowerColumns(PublicOnly(engine._dss.Load)).write(p_w, q_var)
    slow = engine.solve()
    assert fast.v_pu == pytest.approx(slow.v_pu, abs=1e-6)
    assert fast.head_w == pytest.approx(slow.head_w, rel=1e-5)
    assert fast.head_var == pytest.approx(slow.head_var, rel=1e-5)


def test_frozen_regulators_stay_and_free_ones_follow_the_load(engine: FeederEngine) -> None:
    taps = engine.taps()
    engine.set_loads(*scaled(engine, 0.4))
    engine.freeze_controls(True)
    engine.solve()
    assert engine.taps() == taps
    engine.freeze_controls(False)
    engine.solve()
    assert engine.taps()["creg1a"] < taps["creg1a"]


def test_tap_moves_the_voltage_behind_it_by_its_step(engine: FeederEngine) -> None:
    engine.freeze_controls(True)
    before = engine.solve()
    engine.set_taps({"creg4a": engine.taps()["creg4a"] - 1})
    node = engine.layout.points.index("160r.1")
    assert before.v_pu[node] - engine.solve().v_pu[node] == pytest.approx(0.00625, abs=0.0005)


def test_higher_regulator_target_raises_the_feeder_and_survives_a_restart(engine: FeederEngine) -> None:
    low = engine.solve()
    engine.set_regulator_target("creg1a", 123.0)
    high = engine.solve()
    engine.set_loads(*scaled(engine, 1e6))
    with pytest.raises(NotConverged):
        engine.solve()
    engine.set_loads(*scaled(engine, 1.0))
    again = engine.solve()
    engine.set_regulator_target("creg1a", 120.0)
    node = engine.layout.points.index("149.1")
    assert high.v_pu[node] > low.v_pu[node] + 0.01
    assert again.v_pu == pytest.approx(high.v_pu, abs=1e-5)


def test_section_behind_a_switch_open_in_the_files_is_dead_and_no_violation(tmp_path: Path) -> None:
    circuit = tmp_path / "open.dss"
    circuit.write_text(f'Redirect "{PACKAGE.circuit}"\nOpen Line.sw2 1\n', encoding="utf8")
    engine = FeederEngine(replace(PACKAGE, circuit=circuit))
    flow = engine.solve()
    assert flow.v_pu[engine.layout.bus_points("83")].max() < 1e-3
    assert not engine.layout.violating(flow.v_pu)[engine.layout.bus_points("83")].any()
    assert not engine.layout.violating(flow.v_pu)[engine.layout.bus_points("30")].any()
    assert flow.head_w.sum() < 0.6 * PACKAGE.peak_w


def test_names_that_do_not_exist_are_model_errors(engine: FeederEngine) -> None:
    with pytest.raises(ModelError, match="regulator 'creg9'"):
        engine.set_taps({"creg9": 1})
    with pytest.raises(ModelError, match="nope"):
        FeederEngine(PACKAGE, line_scale={"nope": 1.1})
    for broken in (
        replace(PACKAGE, circuit=Path("missing.dss")),
        replace(PACKAGE, head_element="Load.s1a"),
        replace(PACKAGE, ders=(replace(PACKAGE.ders[0], element="Generator.nope"),)),
        replace(PACKAGE, limits=(VoltageLimits(600.0, 0.95, 1.05),)),
    ):
        with pytest.raises(ModelError):
            FeederEngine(broken)


def test_longer_lines_make_another_plant_and_do_not_disturb_the_model(engine: FeederEngine) -> None:
    engine.freeze_controls(True)
    before = engine.solve()
    plant = FeederEngine(PACKAGE, line_scale=dict.fromkeys(engine.layout.lines, 1.2))
    plant.freeze_controls(True)
    losses_w = engine.losses_w()
    plant.set_loads(*scaled(plant, 1.1))
    plant.solve()
    assert plant.losses_w() > 1.2 * losses_w
    assert engine.solve().v_pu == pytest.approx(before.v_pu, abs=1e-6)


def test_steps_interleaved_on_two_engines_equal_those_on_one(engine: FeederEngine) -> None:
    other = FeederEngine(PACKAGE)
    for each in (engine, other):
        each.freeze_controls(True)
    alone, together = [], []
    for factor in (0.5, 0.9, 1.2):
        engine.set_loads(*scaled(engine, factor))
        alone.append(engine.solve().v_pu)
    for factor in (0.5, 0.9, 1.2):
        engine.set_loads(*scaled(engine, factor))
        other.set_loads(*scaled(other, 2.0 - factor))
        other.solve()
        together.append(engine.solve().v_pu)
    assert np.array(together) == pytest.approx(np.array(alone), abs=1e-6)
