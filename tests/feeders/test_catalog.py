"""Manifests with mistakes: all of them are told at once, each with its place and what would be right."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from derms.domain.grid import Between, ControlBinding, InvisiblePv, MeterBinding, SwitchBinding, SwitchState
from feeders.catalog import PACKAGES, load
from feeders.circuit import read
from feeders.recipes import RECIPES
from tests.feeders.packages import CIRCUIT, MANIFEST, changed, package, problem, problems

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


def test_packaged_feeder_and_its_folder_are_the_same(folder: Path) -> None:
    by_id, by_path = load("ieee123"), load(str(folder))
    assert by_id.ders == by_path.ders
    assert by_id.buses == by_path.buses
    assert (len(by_id.sites), len(by_id.ders), len(by_id.buses)) == (60, 60, 252)
    assert by_id.digest == by_path.digest == read(by_id.circuit).digest


@pytest.mark.parametrize("feeder", sorted(RECIPES))
def test_only_what_is_loaded_by_its_id_is_our_own(feeder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(feeder).own
    assert not load(str(PACKAGES / feeder)).own
    monkeypatch.chdir(package(tmp_path))
    assert not load(".").own


def test_a_folder_of_the_name_of_a_packaged_feeder_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ieee13").mkdir()
    package(tmp_path / "ieee13")
    monkeypatch.chdir(tmp_path)
    assert load("ieee13").id == "ieee13"
    assert load("./ieee13").id == "street"
    assert not load("./ieee13").own


def test_every_table_of_the_manifest_becomes_a_value(tmp_path: Path) -> None:
    text = changed(MANIFEST, "v_max_pu = 1.05", 'v_max_pu = 1.05\nbetween = "phases"')
    sensor = """
    [[meter]]
    id = "vs1"
    kind = "voltage-sensor"
    bus = "corner"
    phases = [1, 2]
    sigma_frac = 0.01
    age_max_s = 60
    """
    found = load(str(package(tmp_path, manifest=text + sensor)))
    assert found.switches == (SwitchBinding("tie", "Line.tie", SwitchState.OPEN, 900),)
    assert found.capacitors == (ControlBinding("bank", "Capacitor.bank", 300),)
    assert found.invisible_pv == (InvisiblePv("Load.corner", 40e3),)
    assert found.limits[0].between is Between.PHASES
    assert found.meters == (MeterBinding("vs1", "voltage-sensor", "corner", "", 1, 0.01, 60, (1, 2)),)
    assert (found.source, found.own) == ("made up for the tests", False)


def test_what_the_tables_of_ieee123_have_is_bound() -> None:
    found = load("ieee123")
    assert {switch.id: switch.normal.name for switch in found.switches} == {
        **{f"sw{n}": "CLOSED" for n in range(1, 7)},
        "sw7": "OPEN",
        "sw8": "OPEN",
    }
    assert [control.id for control in found.regulators] == [
        "creg1a",
        "creg2a",
        *("creg3a", "creg3c"),
        *("creg4a", "creg4b", "creg4c"),
    ]
    assert [control.element for control in found.capacitors] == [
        "Capacitor.c83",
        "Capacitor.c88a",
        "Capacitor.c90b",
        "Capacitor.c92c",
    ]


def test_storage_and_pvsystem_stand_for_der_too(tmp_path: Path) -> None:
    extra = """
    New PVSystem.pv bus1=home.1 phases=1 kv=0.24 pmpp=5 kva=5
    New Storage.bat bus1=home.1 phases=1 kv=0.24 kwrated=5 kwhrated=10
    Set VoltageBases"""
    der = """
    [[der]]
    id = "{id}"
    site = "home"
    element = "{element}"
    kind = "{kind}"
    p_rated_kw = 5
    s_rated_kva = 5
    energy_kwh = {energy}
    """
    pv = der.format(id="pv", element="PVSystem.pv", kind="pv", energy=0)
    battery = der.format(id="bat", element="Storage.bat", kind="battery", energy=10)
    found = load(str(package(tmp_path, changed(CIRCUIT, "Set VoltageBases", extra), MANIFEST + pv + battery)))
    assert [one.element for one in found.ders] == ["Generator.roof", "PVSystem.pv", "Storage.bat"]


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
    spoil("schema = 2", "schema = 1")
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


@pytest.mark.parametrize(
    ("good", "bad", "where", "told"),
    [
        ('"Line.tie"', '"Line.tye"', "[[switch]] 1 (tie), element", "no element 'Line.tye'"),
        ('"Line.tie"', '"Transformer.t1"', "[[switch]] 1 (tie), element", "'Transformer.t1' is of the wrong class"),
        ('normal = "open"', 'normal = "ajar"', "[[switch]] 1 (tie), normal", "'ajar'"),
        ("Capacitor.bank", "Load.home", "[[capacitor]] 1 (bank), element", "'Load.home' is of the wrong class"),
        ("Load.corner", "Load.korner", "[[invisible_pv]] 1, load", "no element 'Load.korner'"),
        ("v_base_max_v = inf", "v_base_max_v = 600", "[[limit]]", "none for bus "),
        ('id = "street"', 'id = "street"\nsha256 = "abc"', "file, sha256", "'abc'"),
        ("Line.trunk", "Line.east", "file, head_element", "1 load not fed through it: load.corner"),
        ("Transformer.t1", "Line.trunk", "[[site]] 1 (home), transformer", "'Line.trunk' is of the wrong class"),
        ("v_max_pu = 1.05", 'v_max_pu = 1.05\nbetween = "friends"', "[[limit]] 1, between", "'friends'"),
    ],
)
def test_what_the_manifest_says_wrongly_is_told_at_its_place(
    tmp_path: Path, good: str, bad: str, where: str, told: str
) -> None:
    assert problem(package(tmp_path, manifest=changed(MANIFEST, good, bad))).startswith(
        f"manifest.toml: {where}: {told}"
    )


def test_an_element_bound_twice_is_told(tmp_path: Path) -> None:
    second = '\n[[switch]]\nid = "again"\nelement = "line.TIE"\nnormal = "open"\nage_max_s = 900\n'
    told = problem(package(tmp_path, manifest=MANIFEST + second))
    assert told.startswith("manifest.toml: [[switch]] 2 (again), element: taken by [[switch]] 1 (tie); ")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("Close Line.tie 1", 'normal: line.tie is closed in the circuit, not open; give normal = "closed", or Open it'),
        ("Line.tie.enabled=no", "element: line.tie is disabled in the circuit; enable it, or leave it out"),
    ],
)
def test_a_switch_that_stands_otherwise_in_the_circuit_is_told(tmp_path: Path, line: str, told: str) -> None:
    circuit = changed(CIRCUIT, "New Line.back", f"{line}\nNew Line.back")
    assert problem(package(tmp_path, circuit)).startswith(f"manifest.toml: [[switch]] 1 (tie), {told}")


def test_a_disabled_der_is_told(tmp_path: Path) -> None:
    told = problem(package(tmp_path, changed(CIRCUIT, "kw=0 kva=8", "kw=0 kva=8 enabled=no")))
    assert told.startswith("manifest.toml: [[der]] 1 (roof), element: generator.roof is disabled")


def test_a_head_that_is_turned_round_is_told(tmp_path: Path) -> None:
    told = problem(package(tmp_path, changed(CIRCUIT, "bus1=sub bus2=corner", "bus1=corner bus2=sub")))
    assert told.startswith("manifest.toml: file, head_element: line.trunk is fed through terminal 2; ")


def test_a_transformer_that_does_not_serve_the_site_is_told(tmp_path: Path) -> None:
    other = "New Transformer.t2 phases=1 buses=[corner.2 shop.2] kvs=[2.4 0.24]\nSet VoltageBases"
    circuit = changed(CIRCUIT, "Set VoltageBases", other)
    told = problem(package(tmp_path, circuit, changed(MANIFEST, "Transformer.t1", "Transformer.t2")))
    assert told.startswith("manifest.toml: [[site]] 1 (home), transformer: transformer.t2 does not feed bus home; ")


def test_a_meter_on_a_phase_that_is_not_there_is_told(tmp_path: Path) -> None:
    meter = (
        '\n[[meter]]\nid = "v"\nkind = "voltage-sensor"\nbus = "east"\nphases = [2]\nsigma_frac = 0.01\nage_max_s = 9\n'
    )
    assert "[[meter]] 1 (v), phases: bus east has no phase 2; " in problem(package(tmp_path, manifest=MANIFEST + meter))


def test_a_circuit_other_than_the_manifest_was_made_for_is_told(tmp_path: Path) -> None:
    digest = load(str(package(tmp_path))).digest
    manifest = changed(MANIFEST, 'id = "street"', f'id = "street"\nsha256 = "{digest.upper()}"')
    assert load(str(package(tmp_path, manifest=manifest))).digest == digest
    told = problem(package(tmp_path, changed(CIRCUIT, "kw=300", "kw=301"), manifest))
    assert told.startswith("manifest.toml: file, sha256: the circuit's files are not those that it was made for; give ")


def test_a_circuit_that_cannot_be_read_whole_is_not_held_against_the_manifest(tmp_path: Path) -> None:
    folder = package(tmp_path, CIRCUIT + "Redirect more.dss\n", changed(MANIFEST, "Line.tie", "Line.in_more"))
    assert problem(folder).startswith("master.dss: line 20: more.dss no such file or directory; ")


def test_a_circuit_outside_its_package_is_told(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    package(tmp_path)
    folder = package(tmp_path / "package", manifest=changed(MANIFEST, "master.dss", "../master.dss"))
    assert problem(folder).startswith("master.dss: file: lies outside the package's folder; ")
