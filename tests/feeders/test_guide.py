"""What docs/feeders.md shows is what there is: the example loads, its commands run, and every field has its row."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from derms.service.cli import main as derms
from feeders.catalog import MANIFEST, PACKAGES, load
from feeders.importing import skeleton
from feeders.manifest import FIELDS
from feeders.recipes import RECIPES

GUIDE = (Path(__file__).parents[2] / "docs" / "feeders.md").read_text(encoding="utf8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def village(tmp_path: Path) -> Path:
    folder = tmp_path / "village"
    folder.mkdir()
    (folder / "master.dss").write_text(block("dss"), encoding="utf8")
    return folder


def test_the_example_of_the_guide_is_a_good_package(village: Path) -> None:
    (village / MANIFEST).write_text(block("toml"), encoding="utf8")
    found = load(str(village))
    assert [der.id for der in found.ders] == ["roof", "wall"]
    assert [switch.normal.name for switch in found.switches] == ["CLOSED", "OPEN"]


def test_the_example_has_what_the_import_makes_of_its_circuit(village: Path) -> None:
    made, shown = tomllib.loads(skeleton(village / "master.dss")), tomllib.loads(block("toml"))
    assert {name: made[name] for name in ("head_element", "source_bus", "peak_kw")} == {
        name: shown[name] for name in ("head_element", "source_bus", "peak_kw")
    }
    for table in ("switch", "capacitor", "site", "der"):
        assert made[table] == shown[table], table


@pytest.mark.slow
def test_the_commands_of_the_guide_work_in_their_order(
    village: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(village.parent)
    for line in block("sh").splitlines():
        program, *words = shlex.split(line)
        assert program == "derms"
        assert derms(words) == 0, capsys.readouterr().err
    assert (village / MANIFEST).is_file()


@pytest.mark.parametrize("table", list(FIELDS))
def test_every_field_of_the_manifest_has_its_row_in_the_guide(table: str) -> None:
    heading = f"`[[{table}]]`" if table else "File"
    section = GUIDE.split(f"\n### {heading}\n")[1].partition("\n##")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(FIELDS[table])


def test_the_packaged_feeders_of_the_guide_are_those_that_there_are() -> None:
    rows = re.findall(r"^\| `(ieee\w+)` \|.*\| (\d+) PV, (\d+) batteries \|$", GUIDE, re.MULTILINE)
    assert {row[0] for row in rows} == {path.parent.name for path in PACKAGES.glob(f"*/{MANIFEST}")} == set(RECIPES)
    for feeder, pv, batteries in rows:
        kinds = [der.kind for der in load(feeder).ders]
        assert (kinds.count("pv"), kinds.count("battery")) == (int(pv), int(batteries))
