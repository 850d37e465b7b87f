"""Powers as columns: whatever the model of a load or DER, what is written is what flows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from derms.grid.opendss import FeederEngine
from tests.grid.village import village

FIXED_LOAD = "New Load.pump bus1=market kv=4.16 kw=100 kvar=10 vminpu=0.6 vmaxpu=1.4 model="


def engine_of(folder: Path, more: str) -> FeederEngine:
    """The village with one more line of circuit, regulator held, solved sharply."""
    engine = FeederEngine(replace(village(folder / "village", more), own=True))
    engine.freeze_controls(True)
    engine.set_tolerance(1e-9)
    return engine


@pytest.mark.parametrize("model", range(1, 8))
def test_load_of_any_model_takes_the_reactive_power_that_is_set(model: int, tmp_path: Path) -> None:
    engine = engine_of(tmp_path, f"{FIXED_LOAD}{model}\n")
    p_w, q_var = engine.layout.nominal_load_w, engine.layout.nominal_load_var.copy()
    engine.set_loads(p_w, q_var)
    before_var = engine.solve().head_var.sum()
    q_var[engine.layout.loads.index("pump")] += 20e3
    engine.set_loads(p_w, q_var)
    assert engine.solve().head_var.sum() - before_var == pytest.approx(20e3, rel=0.06)


@pytest.mark.parametrize("model", [1, 4, 5])
def test_der_of_any_model_gives_the_reactive_power_that_is_set(model: int, tmp_path: Path) -> None:
    engine = engine_of(tmp_path, f"Edit Generator.sun model={model} vminpu=0.6 vmaxpu=1.4\n")
    engine.set_der(np.array([1e5]), np.array([0.0]))
    before_var = engine.solve().head_var.sum()
    engine.set_der(np.array([1e5]), np.array([30e3]))
    assert engine.solve().head_var.sum() - before_var == pytest.approx(-30e3, rel=0.06)


def test_last_of_several_writes_counts_and_order_of_loads_and_der_does_not(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, "")
    loads = engine.layout.nominal_load_w, engine.layout.nominal_load_var
    engine.set_loads(*loads)
    engine.set_der(np.array([2e5]), np.array([5e4]))
    once = engine.solve()
    engine.set_der(np.array([0.0]), np.array([0.0]))
    engine.set_loads(3.0 * loads[0], 0.2 * loads[1])
    engine.set_der(np.array([2e5]), np.array([5e4]))
    engine.set_loads(*loads)
    assert engine.solve().v_pu == pytest.approx(once.v_pu, abs=1e-8)


def test_solving_again_and_again_gathers_nothing(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, "")
    engine.freeze_controls(False)
    engine.solve()
    held = len(engine._dss._api_util._obj_refs)  # AltDSS remembers every object that was ever asked for
    for part in np.linspace(0.2, 1.2, 20):
        engine.set_loads(part * engine.layout.nominal_load_w, part * engine.layout.nominal_load_var)
        engine.set_source_pu(1.0 + 0.02 * part)
        engine.solve()
    assert len(engine._dss._api_util._obj_refs) == held
