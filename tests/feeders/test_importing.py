"""Manifests made from bare circuits: they load, or say by a blank what is missing."""

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from derms.domain.grid import Between
from derms.errors import ConfigError
from feeders.catalog import MANIFEST, PACKAGES, load
from feeders.importing import skeleton
from feeders.recipes import RECIPES
from tests.feeders.packages import CIRCUIT, changed, problems


def imported(folder: Path, circuit: str) -> Path:
    """Write a circuit and the manifest that is made from it."""
    master = folder / "master.dss"
    master.write_text(circuit, encoding="utf8")
    (folder / MANIFEST).write_text(skeleton(master), encoding="utf8")
    return folder


@pytest.mark.parametrize("feeder", sorted(RECIPES))
@pytest.mark.parametrize("circuit", ["base.dss", "master.dss"])
def test_manifest_of_a_packaged_circuit_loads_as_it_is_made(feeder: str, circuit: str, tmp_path: Path) -> None:
    folder = tmp_path / feeder
    shutil.copytree(PACKAGES / feeder, folder, ignore=shutil.ignore_patterns("tables", MANIFEST))
    (folder / MANIFEST).write_text(skeleton(folder / circuit), encoding="utf8")
    found, ours = load(str(folder)), load(feeder)
    assert (found.id, found.source_bus, found.circuit.name) == (feeder, ours.source_bus, circuit)
    assert [control.element for control in found.regulators] == [control.element for control in ours.regulators]
    assert [control.element for control in found.capacitors] == [control.element for control in ours.capacitors]
    assert [meter.kind for meter in found.meters] == ["head-meter", "system-meter"]
    assert {der.element for der in found.ders} == (
        {der.element for der in ours.ders} if circuit == "master.dss" else set()
    )
    assert {(site.bus, site.transformer, site.s_rated_va) for site in found.sites} <= {
        (site.bus, site.transformer, site.s_rated_va) for site in ours.sites
    }


def test_three_wire_parts_are_measured_between_phases(tmp_path: Path) -> None:
    shutil.copy(PACKAGES / "ieee37" / "base.dss", tmp_path / "base.dss")
    shutil.copy(PACKAGES / "ieee37" / "master.dss", tmp_path / "master.dss")
    (tmp_path / MANIFEST).write_text(skeleton(tmp_path / "master.dss"), encoding="utf8")
    limits = load(str(tmp_path)).limits
    between = [next(limit for limit in limits if base_v <= limit.v_base_max_v).between for base_v in (416, 480, 4800)]
    assert between == [Between.NEUTRAL, Between.PHASES, Between.PHASES]


def test_everything_that_the_text_tells_is_in_the_manifest(tmp_path: Path) -> None:
    extra = """
    New Line.sectioniser bus1=corner bus2=shop switch=yes
    New Line.spare bus1=shop bus2=corner switch=yes enabled=no
    New Line.loop bus1=shop bus2=beyond switch=yes
    Open Line.loop 1
    New Load.kva bus1=shop kv=4.16 kva=100 pf=0.9
    New Load.off bus1=shop kv=4.16 kw=999 enabled=no
    New PVSystem.roof bus1=home.1 phases=1 kv=0.24 pmpp=9 kva=6
    New Storage.wall bus1=home.1 phases=1 kv=0.24 kwrated=5 kva=6 kwhrated=13.5
    Set VoltageBases"""
    folder = imported(tmp_path, changed(CIRCUIT, "Set VoltageBases", extra))
    found = load(str(folder))
    assert found.head_element == "Line.trunk"
    assert found.peak_w == 394e3
    assert [(switch.id, switch.normal.name) for switch in found.switches] == [
        ("sectioniser", "CLOSED"),
        ("loop", "OPEN"),
    ]
    assert [(site.id, site.bus, site.transformer, site.s_rated_va) for site in found.sites] == [
        ("home", "home", "Transformer.t1", 50e3)
    ]
    assert [(der.id, der.kind, der.p_rated_w, der.s_rated_va, der.energy_wh) for der in found.ders] == [
        ("generator_roof", "pv", 8e3, 8e3, 0.0),
        ("pvsystem_roof", "pv", 6e3, 6e3, 0.0),
        ("wall", "battery", 5e3, 6e3, 13.5e3),
    ]
    assert "# Line.spare is a switch, but disabled in the circuit" in (folder / MANIFEST).read_text(encoding="utf8")


def test_what_cannot_be_guessed_is_blank_and_told_when_it_is_left_so(tmp_path: Path) -> None:
    circuit = """
    New Circuit.bare basekv=0.416
    New Generator.g bus1=sourcebus kv=0.416 kw=5
    SetkVBase bus=sourcebus kvln=0.24
    """
    folder = imported(tmp_path, circuit)
    text = (folder / MANIFEST).read_text(encoding="utf8")
    blanks = re.findall(r'^(\w+) = ""  # fill in$', text, re.MULTILINE)
    assert blanks == ["head_element", "peak_kw", "transformer", "s_rated_kva"]
    assert [problem.where.rpartition(", ")[2] for problem in problems(folder)] == [
        *("head_element", "peak_kw"),
        *("transformer", "s_rated_kva"),
    ]


def test_names_with_quotes_and_backslashes_stay_what_they_are(tmp_path: Path) -> None:
    folder = tmp_path / 'the "old" mill'
    folder.mkdir()
    text = skeleton(imported(folder, CIRCUIT) / "master.dss")
    assert tomllib.loads(text)["id"] == 'the "old" mill'


@pytest.mark.parametrize(
    ("circuit", "told"),
    [("New Line.l1 a b\n", "no circuit is made"), (CIRCUIT + "Redirect gone.dss\n", "gone.dss no such file")],
)
def test_a_circuit_that_cannot_be_read_gives_no_manifest(tmp_path: Path, circuit: str, told: str) -> None:
    (tmp_path / "master.dss").write_text(circuit, encoding="utf8")
    with pytest.raises(ConfigError, match=told):
        skeleton(tmp_path / "master.dss")


def test_what_else_is_wrong_with_a_circuit_is_left_for_the_check(tmp_path: Path) -> None:
    folder = imported(tmp_path, CIRCUIT + "Show Voltages\n")
    assert [str(problem) for problem in problems(folder)] == [
        "master.dss: line 20: 'Show' has no place in a circuit; take the line out"
    ]
