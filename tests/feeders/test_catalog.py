"""Manifests with mistakes: all of them are told at once, each with its place and what would be right."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from derms.domain.grid import MeterBinding
from derms.errors import ConfigError, Problem
from feeders.catalog import PACKAGES, load

Break = Callable[[str, str], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copy = tmp_path / "feeder"
    shutil.copytree(PACKAGES / "ieee123", copy, ignore=shutil.ignore_patterns("tables"))
    return copy


@pytest.fixture
def spoil(folder: Path) -> Break:
    """Replace the first occurrence of a text in the manifest."""

    def replace(good: str, bad: str) -> None:
        path = folder / "manifest.toml"
        text = path.read_text(encoding="utf8")
        assert good in text
        path.write_text(text.replace(good, bad, 1), encoding="utf8")

    return replace


def problems(folder: Path) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        load(str(folder))
    return caught.value.problems


def test_packaged_feeder_and_its_folder_are_the_same(folder: Path) -> None:
    by_id, by_path = load("ieee123"), load(str(folder))
    assert by_id.ders == by_path.ders
    assert by_id.buses == by_path.buses
    assert (len(by_id.sites), len(by_id.ders), len(by_id.buses)) == (60, 60, 252)


def test_units_of_the_manifest_become_si() -> None:
    package = load("ieee123")
    battery = next(der for der in package.ders if der.id == "bat02")
    assert (battery.p_rated_w, battery.s_rated_va, battery.energy_wh) == (45400.0, 49940.0, 181600.0)
    assert package.peak_w == pytest.approx(3615242.0)


def test_meters_stand_where_the_brain_expects_them() -> None:
    package = load("ieee123")
    assert [(meter.id, meter.kind) for meter in package.meters] == [
        ("head", "head-meter"),
        ("vs1", "voltage-sensor"),
        ("vs2", "voltage-sensor"),
        ("vs3", "voltage-sensor"),
        ("system", "system-meter"),
    ]
    assert package.meters[0] == MeterBinding("head", "head-meter", "150", "Transformer.reg1a", 1, 0.005, 60.0)
    assert all(meter.bus in package.buses for meter in package.meters)


def test_all_mistakes_are_told_at_once(folder: Path, spoil: Break) -> None:
    spoil('source_bus = "150"', 'source_bus = "151x"')
    spoil('id = "vs1"', 'id = "head"')
    spoil('bus = "66"', 'bus = "sixty-six"')
    spoil('bus = "site_pv01"', 'bus = "site_pv99"')
    spoil('element = "Generator.pv02"', 'element = "Generator.pv2"')
    spoil('element = "Generator.pv03"', 'element = "Load.s1a"')
    spoil('element = "Generator.pv04"', 'element = "Generator.pv05"')
    spoil("p_rated_kw = 60.5", "p_rated_kw = 60500")
    spoil('kind = "battery"', 'kind = "toaster"')
    spoil("energy_kwh = 181.6", "energy = 181.6")
    spoil("v_max_pu = 1.05", "v_max_pu = 0.9")
    found = {problem.where: problem for problem in problems(folder)}
    assert found.keys() == {
        "file, source_bus",
        "[[meter]] 2 (head), id",
        "[[meter]] 3 (vs2), bus",
        "[[site]] 1 (site_pv01), bus",
        "[[der]] 1 (pv01), element",
        "[[der]] 2 (pv02), element",
        "[[der]] 3 (pv03), element",
        "[[der]] 4 (pv04), element",
        "[[der]] 5 (pv05), element",
        "[[der]] 5 (pv05)",
        "[[der]] 41 (bat01), kind",
        "[[der]] 42 (bat02), energy",
        "[[der]] 42 (bat02)",
        "[[limit]] 1",
    }
    assert all(problem.file == "manifest.toml" and problem.right for problem in found.values())
    assert "toaster" in found["[[der]] 41 (bat01), kind"].wrong
    assert "battery, ev-charger, load, pv" in found["[[der]] 41 (bat01), kind"].right


def test_missing_fields_and_wrong_types_are_told(folder: Path, spoil: Break) -> None:
    spoil("peak_kw = 3615.242\n", "")
    spoil("s_rated_kva = 37.5", 's_rated_kva = "37.5"')
    spoil("terminal = 1", "terminal = true")
    spoil("sigma_frac = 0.005", "sigma_frac = nan")
    assert {(problem.where, problem.wrong) for problem in problems(folder)} == {
        ("file, peak_kw", "missing"),
        ("[[site]] 1 (site_pv01), s_rated_kva", "'37.5'"),
        ("[[meter]] 1 (head), terminal", "True"),
        ("[[meter]] 1 (head), sigma_frac", "nan"),
    }


def test_head_meter_on_the_wrong_terminal_is_told(folder: Path, spoil: Break) -> None:
    spoil("terminal = 1", "terminal = 2")
    (problem,) = problems(folder)
    assert problem.where == "[[meter]] 1 (head), bus"
    assert "150, 150r" in problem.right


def test_der_and_site_that_disagree_about_the_place_are_told(folder: Path, spoil: Break) -> None:
    spoil('site = "site_pv01"', 'site = "site_pv02"')
    (problem,) = problems(folder)
    assert problem.where == "[[der]] 1 (pv01), element"
    assert "site_pv02" in problem.wrong


def test_circuit_that_is_not_there_is_told_with_the_other_mistakes(folder: Path, spoil: Break) -> None:
    spoil('circuit = "master.dss"', 'circuit = "mister.dss"')
    spoil("schema = 1", "schema = 7")
    assert {(problem.file, problem.where) for problem in problems(folder)} == {
        ("mister.dss", "file"),
        ("manifest.toml", "file, schema"),
    }


def test_unknown_feeder_and_broken_toml_are_config_errors(folder: Path) -> None:
    assert "manifest.toml" in problems(folder / "nowhere")[0].file
    (folder / "manifest.toml").write_text("[[der]\n", encoding="utf8")
    assert problems(folder)[0].right == "write valid TOML"


def test_table_written_as_a_single_one_is_told(folder: Path, spoil: Break) -> None:
    manifest = folder / "manifest.toml"
    manifest.write_text(manifest.read_text(encoding="utf8").replace("[[limit]]", "[limit]", 1), encoding="utf8")
    assert len(problems(folder)) == 1
