"""What OpenDSS accepts in silence and must not pass: one test per trap that is not already a scenario of the engine."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from derms.domain.grid import DerBinding, FeederPackage, VoltageLimits
from derms.errors import ModelError, NotConverged
from derms.grid.opendss import TOLERANCE_PU, FeederEngine
from feeders.catalog import load

PACKAGE = load("ieee123")

SMALL = """
Clear
New Circuit.small bus1=src basekv=4.16 pu={pu} R1=0.01 X1=0.05 R0=0.01 X0=0.05
New Transformer.reg phases=3 windings=2 xhl=1
~ wdg=1 bus=src kv=4.16 kva=5000
~ wdg=2 bus=a kv=4.16 kva=5000
New Line.ab bus1=a bus2=b r1=0.05 x1=0.1 r0=0.1 x0=0.3 c1=0 c0=0 length=1
New Load.one bus1=b phases=3 kv=4.16 kw=600 kvar=100
{extra}
Set VoltageBases=(4.16)
CalcVoltageBases
"""


def small(folder: Path, *, pu: float = 1.0, extra: str = "", confined_text: bool = False) -> FeederPackage:
    circuit = folder / "small.dss"
    circuit.write_text(SMALL.format(pu=pu, extra=extra), encoding="utf8")
    return replace(
        PACKAGE,
        id="small",
        circuit=circuit,
        head_element="Transformer.reg",
        limits=(VoltageLimits(35e3, 0.95, 1.05),),
        sites=(),
        ders=(),
        meters=(),
        switches=(),
        invisible_pv=(),
        own=not confined_text,
    )


def test_load_of_a_foreign_circuit_takes_its_power_at_any_voltage_that_can_occur(tmp_path: Path) -> None:
    """Outside 0.95 to 1.05 pu OpenDSS turns loads into impedances, and the measured power is not what is solved."""
    engine = FeederEngine(small(tmp_path, pu=1.12, confined_text=True), confined=True)
    flow = engine.solve()
    assert flow.v_pu[engine.layout.bus_points("b")].min() > 1.08
    assert flow.head_w.sum() - engine.losses_w() == pytest.approx(600e3, rel=1e-4)


def test_regulators_that_hunt_for_ever_are_no_solution_and_no_crash(tmp_path: Path) -> None:
    """OpenDSS raises error 485 there, out of the middle of a solution."""
    control = "New RegControl.{0} transformer=reg winding=2 vreg={1} band=1 ptratio=20 delay=1 maxtapchange=1"
    hunting = "\n".join((control.format("high", 122), control.format("low", 118)))
    with pytest.raises(NotConverged, match="small"):
        FeederEngine(small(tmp_path, extra=hunting))


def test_circuit_without_a_solution_says_so_instead_of_giving_the_last_iteration(tmp_path: Path) -> None:
    with pytest.raises(NotConverged, match="50 iterations"):
        FeederEngine(small(tmp_path, extra="Edit Load.one kw=90000 vminpu=0.1"))


def test_compiling_leaves_the_working_directory_alone(tmp_path: Path) -> None:
    before = Path.cwd()
    FeederEngine(small(tmp_path))
    assert Path.cwd() == before


def test_tolerance_holds_after_a_restart_though_compiling_resets_it(tmp_path: Path) -> None:
    engine = FeederEngine(small(tmp_path))
    engine._restart()
    assert engine._dss.Solution.Tolerance == TOLERANCE_PU
    engine.set_tolerance(1e-9)
    engine._restart()
    assert engine._dss.Solution.Tolerance == 1e-9


def test_elements_held_before_a_restart_are_not_used_after_it(tmp_path: Path) -> None:
    """Handles of elements go stale with a compilation; the network is read through new ones."""
    engine = FeederEngine(small(tmp_path))
    before = engine.network()
    engine._restart()
    after = engine.network()
    assert abs(before.y - after.y).max() < 1e-9
    assert np.isfinite(engine.solve().head_w).all()


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ("New Line.bad bus1=a bus2=b linecode=nowhere", "nowhere"),
        ("New Load.bad bus1=b kv=abc", "abc"),
        ("Nonsense Load.one", "Nonsense"),
        ("Redirect missing.dss", "missing.dss"),
    ],
)
def test_what_opendss_refuses_is_told_in_one_line_with_the_feeder(tmp_path: Path, extra: str, named: str) -> None:
    with pytest.raises(ModelError, match="small: ") as refused:
        FeederEngine(small(tmp_path, extra=extra))
    assert named.lower() in str(refused.value).lower()
    assert "\n" not in str(refused.value)


def test_der_that_would_inject_another_power_than_it_is_set_to_is_a_model_error(tmp_path: Path) -> None:
    """`kv=` before `phases=1`: the base stays kv over the root of 3, and beyond vmaxpu power goes with voltage."""
    kept = "New Generator.pv bus1=b.1 kv=2.402 phases=1 kva=100 model=1 kw=0 vmaxpu=1.4"
    binding = DerBinding("pv", "b", "Generator.pv", "pv", 100e3, 100e3, 0.0)
    package = replace(small(tmp_path, extra=kept), ders=(binding,))
    with pytest.raises(ModelError, match=r"what is set is not what flows at.*pv.*give phases= before kv="):
        FeederEngine(package)
    good = "New Generator.pv bus1=b.1 phases=1 kv=2.402 kva=100 model=1 kw=0 vmaxpu=1.4"
    engine = FeederEngine(replace(small(tmp_path, extra=good), ders=(binding,)))
    assert engine.solve().head_w.sum() > 550e3, "and nothing of the probe is left"
