"""Switches, capacitors, the source and dead sections of the engine, on real OpenDSS."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from derms.domain.grid import Between, DerBinding, FeederPackage, SwitchBinding, SwitchState, VoltageLimits
from derms.errors import GridError, ModelError
from derms.grid.engine import PowerFlow
from derms.grid.opendss import FeederEngine
from feeders.catalog import load

SWITCHES = tuple(
    SwitchBinding(f"sw{number}", f"Line.sw{number}", SwitchState.CLOSED, age_max_s=3600.0) for number in (2, 4)
)
PACKAGE = replace(load("ieee123"), switches=SWITCHES)

DELTA = """
Clear
New Circuit.delta bus1=src basekv=34.5 pu=1.0 MVAsc3=2000 MVAsc1=2100
New Transformer.sub phases=3 windings=2 xhl=8
~ wdg=1 bus=src conn=delta kv=34.5 kva=2500 %r=1
~ wdg=2 bus=a conn=delta kv=4.8 kva=2500 %r=1
New LineCode.c nphases=3 units=kft r1=0.06 x1=0.12 r0=0.2 x0=0.4 c1=3 c0=2
New Line.ab bus1=a bus2=b linecode=c length=2 units=kft
New Transformer.svc phases=1 windings=2 xhl=2
~ wdg=1 bus=b.1.2 conn=delta kv=4.8 kva=50 %r=0.5
~ wdg=2 bus=home.1 kv=0.24 kva=50 %r=0.5
New Load.ab bus1=b.1.2 phases=1 conn=delta kv=4.8 kw=120 kvar=40 vminpu=0.6 vmaxpu=1.4
New Load.three bus1=b phases=3 conn=delta kv=4.8 kw=300 kvar=90 vminpu=0.6 vmaxpu=1.4
New PVSystem.roof bus1=home.1 phases=1 kv=0.24 kva=30 pmpp=30 irradiance=1
Set VoltageBases=(34.5 4.8)
CalcVoltageBases
SetkVBase bus=home kvln=0.24
"""


@pytest.fixture
def engine() -> FeederEngine:
    return FeederEngine(PACKAGE)


def delta_package(folder: Path, *extra: str) -> FeederPackage:
    circuit = folder / "delta.dss"
    circuit.write_text("\n".join((DELTA, *extra)), encoding="utf8")
    limits = (VoltageLimits(450.0, 0.95, 1.05), VoltageLimits(35e3, 0.95, 1.05, Between.PHASES))
    roof = DerBinding("roof", "home", "PVSystem.roof", "pv", 30e3, 30e3, 0.0)
    return replace(
        PACKAGE,
        id="delta",
        circuit=circuit,
        head_element="Transformer.sub",
        limits=limits,
        ders=(roof,),
        sites=(),
        meters=(),
        switches=(),
    )


def at(engine: FeederEngine, flow: PowerFlow, bus: str) -> list[float]:
    points = engine.layout.bus_points(bus)
    return [float(v) for v in flow.v_pu[points[points >= 0]]]


def test_opened_switch_darkens_what_is_behind_it_and_closing_brings_it_back(engine: FeederEngine) -> None:
    engine.freeze_controls(True)
    before = engine.solve()
    assert engine.energised().all()
    engine.set_switches({"Line.SW2": False})
    dark = engine.solve()
    assert engine.switches() == {"line.sw2": False, "line.sw4": True}
    assert max(at(engine, dark, "83")) < 1e-3
    behind = np.array([node.partition(".")[0] in ("152", "83") for node in engine.layout.nodes])
    assert not engine.energised()[behind].any()
    assert engine.energised()[[node.startswith("30.") for node in engine.layout.nodes]].all()
    assert not engine.layout.violating(dark.v_pu)[engine.layout.bus_points("83")].any(), "an outage is no violation"
    engine.set_switches({"line.sw2": True})
    again = engine.solve()
    assert engine.energised().all()
    assert again.v_pu == pytest.approx(before.v_pu, abs=1e-5)


def test_node_order_and_layout_survive_switching(engine: FeederEngine) -> None:
    nodes = engine.layout.nodes
    engine.set_switches({"line.sw4": False})
    engine.solve()
    assert tuple(name.lower() for name in engine._dss.YNodeOrder()) == nodes


def test_switch_that_is_normally_open_starts_open() -> None:
    opened = replace(SWITCHES[0], normal=SwitchState.OPEN)
    engine = FeederEngine(replace(PACKAGE, switches=(opened,)))
    assert engine.switches() == {"line.sw2": False}
    assert max(at(engine, engine.solve(), "83")) < 1e-3


def test_positions_survive_a_circuit_that_had_to_be_compiled_anew(engine: FeederEngine) -> None:
    engine.freeze_controls(True)
    engine.set_switches({"line.sw4": False})
    engine.set_capacitors({"c83": 0})
    engine.set_source_pu(1.02)
    before, taps = engine.solve(), engine.taps()
    engine._dss.Load.kW = np.full(len(engine.layout.loads), np.nan)  # past the guard, as a fault of the library would
    engine._restart()
    after = engine.solve()
    assert after.v_pu == pytest.approx(before.v_pu, abs=1e-5)
    assert (engine.taps(), engine.capacitors()["c83"], engine.switches()["line.sw4"]) == (taps, 0, False)


def test_capacitor_that_is_switched_off_takes_its_reactive_power_with_it(engine: FeederEngine) -> None:
    engine.freeze_controls(True)
    with_it = engine.solve()
    assert engine.capacitors() == {"c83": 1, "c88a": 1, "c90b": 1, "c92c": 1}
    engine.set_capacitors({"C83": 0})
    without = engine.solve()
    assert without.head_var.sum() - with_it.head_var.sum() == pytest.approx(600e3, rel=0.15)
    with pytest.raises(GridError, match="2 steps; it has 1"):
        engine.set_capacitors({"c83": 2})
    with pytest.raises(ModelError, match="no capacitor 'c9'; there are c83"):
        engine.set_capacitors({"c9": 1})


def test_source_voltage_moves_the_feeder(engine: FeederEngine) -> None:
    engine.freeze_controls(True)
    before = engine.solve()
    engine.set_source_pu(1.03)
    assert np.mean(engine.solve().v_pu - before.v_pu) == pytest.approx(0.03, abs=0.01)
    with pytest.raises(GridError, match=r"0\.5 to 1\.5"):
        engine.set_source_pu(float("nan"))


def test_network_carries_the_currents_of_the_solution_and_follows_taps_and_switches(engine: FeederEngine) -> None:
    engine.freeze_controls(True)
    moves: tuple[Callable[[], None], ...] = (
        lambda: None,
        lambda: engine.set_taps({"creg4a": 2}),
        lambda: engine.set_capacitors({"c83": 0}),
        lambda: engine.set_switches({"line.sw4": False}),
    )
    for move in moves:
        move()
        flow, network = engine.solve(), engine.network()
        head_va = flow.v_v[network.head_nodes] * np.conj(network.current[network.head_rows] @ flow.v_v)
        assert head_va.real == pytest.approx(flow.head_w, rel=1e-6)
        layout = engine.layout
        first, second = layout.branch_node.T
        u_v = flow.v_v[first] - np.where(second >= 0, flow.v_v[second], 0.0)
        served = np.abs(u_v) > 1.0
        powers = np.concatenate([layout.nominal_load_w + 1j * layout.nominal_load_var, np.zeros(len(layout.ders))])
        exponents = np.concatenate([layout.load_exponent, np.zeros((2, len(layout.ders)))], axis=1)
        ratio = np.abs(u_v) / layout.branch_nominal_v
        e_p, e_q = exponents[:, layout.branch_element]
        power = powers[layout.branch_element] * layout.branch_share
        s_va = power.real * ratio**e_p + 1j * power.imag * ratio**e_q
        draw = np.where(served, np.conj(s_va / np.where(served, u_v, 1.0)), 0.0)
        residual = network.y @ flow.v_v
        np.add.at(residual, first, draw)
        np.add.at(residual, second[second >= 0], -draw[second >= 0])
        source = np.array([node.startswith("150.") for node in layout.nodes])
        assert np.abs(residual[~source]).max() < 1e-3, "Kirchhoff's law at every node [A]"


def test_two_threads_at_once_are_refused(engine: FeederEngine) -> None:
    engine._busy.acquire()
    with pytest.raises(GridError, match="two threads"):
        engine.solve()
    engine._busy.release()
    found: list[PowerFlow] = []
    thread = threading.Thread(target=lambda: found.append(engine.solve()))
    thread.start()
    thread.join()
    assert len(found) == 1


def test_contexts_of_forgotten_engines_are_used_again() -> None:
    first = FeederEngine(PACKAGE)
    context = first._dss
    first.close()
    assert FeederEngine(PACKAGE)._dss is context


def test_foreign_circuit_is_not_loaded_in_this_process() -> None:
    with pytest.raises(ModelError, match="confined"):
        FeederEngine(replace(PACKAGE, own=False))


def test_delta_feeder_is_measured_between_phases_and_a_photovoltaic_element_gets_a_stand_in(tmp_path: Path) -> None:
    engine = FeederEngine(delta_package(tmp_path))
    flow = engine.solve()
    assert {point for point in engine.layout.points if point.startswith("b.")} == {"b.1-2", "b.2-3", "b.3-1"}
    assert at(engine, flow, "b") == pytest.approx([0.97, 0.97, 0.97], abs=0.03)
    assert engine.layout.points[engine.layout.der_point[0]] == "home.1"
    engine.set_der(np.array([25e3]), np.array([0.0]))
    lit = engine.solve()
    assert flow.head_w.sum() - lit.head_w.sum() == pytest.approx(25e3, rel=0.05)
    assert at(engine, lit, "home")[0] > at(engine, flow, "home")[0]


def test_element_of_a_class_that_the_model_does_not_know_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="class indmach012 are not supported"):
        FeederEngine(delta_package(tmp_path, "New IndMach012.m bus1=b kv=4.8 kw=50 conn=delta"))
