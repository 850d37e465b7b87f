"""A feeder from somebody else in a confined process: the same engine from outside, and what happens when it breaks."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from derms.grid.opendss import FeederEngine
from derms.grid.remote import ConfinedEngine
from tests.grid.village import village

DEATH_MAX_S = 30.0
LOAD_W, LOAD_VAR = np.array([250e3, 40e3]), np.array([80e3, 9e3])
DER_W, DER_VAR = np.array([150e3]), np.array([-20e3])


@pytest.fixture(scope="module")
def shared_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConfinedEngine]:
    engine = ConfinedEngine(village(tmp_path_factory.mktemp("village")))
    yield engine
    engine.close()


@pytest.fixture
def engine(shared_engine: ConfinedEngine) -> ConfinedEngine:
    """One process for all tests, as it is after the circuit was read."""
    shared_engine._worker.ask(30.0, ("losses_w",)) if shared_engine._worker.end.alive else None
    return shared_engine


def worker_pid(engine: ConfinedEngine) -> int:
    return engine._worker._process.pid


def set_all(engine: ConfinedEngine | FeederEngine) -> None:
    engine.freeze_controls(True)
    engine.set_loads(LOAD_W, LOAD_VAR)
    engine.set_der(DER_W, DER_VAR)
    engine.set_source_pu(1.03)
    engine.set_tolerance(1e-8)
    engine.set_regulator_target("reg", 121.0)
    engine.set_taps({"reg": -3})
    engine.set_capacitors({"bank": 1})


def as_solved(engine: ConfinedEngine | FeederEngine) -> list[object]:
    flow, network = engine.solve(), engine.network()
    arrays = (flow.v_v, flow.v_pu, flow.head_w, flow.head_var, network.y.toarray(), network.current.toarray())
    return [
        *(array.tolist() for array in arrays),
        flow.iterations,
        engine.losses_w(),
        engine.taps(),
        engine.capacitors(),
        engine.switches(),
        engine.regulator_targets_v(),
        engine.energised().tolist(),
        network.current_names,
    ]


def test_confined_engine_gives_exactly_what_one_in_this_process_gives(tmp_path: Path) -> None:
    package = village(tmp_path)
    here = FeederEngine(replace(package, own=True), line_scale={"tie": 1.5})
    there = ConfinedEngine(package, line_scale={"tie": 1.5})
    assert (there.layout.nodes, there.layout.points) == (here.layout.nodes, here.layout.points)
    assert as_solved(there) == as_solved(here)
    for engine in (here, there):
        set_all(engine)
    assert as_solved(there) == as_solved(here)
    for engine in (here, there):
        engine.set_switches({"line.tie": False})
    assert as_solved(there) == as_solved(here)
    there.close()
