"""`derms fleet import` as a user runs it: a diff, every mistake at once, whole or not at all, and the devices asked."""

import csv
import json
import random
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import pytest

from derms.errors import ConfigError
from derms.service.cli import main
from derms.service.clock import LoopClock
from derms.service.fleet_import import import_fleet
from derms.service.simulated import SimulatedLoop, run_simulated
from drivers.registry import drivers
from feeders.catalog import load
from hil.specimen import Specimen
from tests.drivers.commissioning import LEGACY, START, served

Row = dict[str, str]
HEADER = ("id", "kind", "driver", "host", "port", "bus", "p_rated_kw", "energy_kwh", "serial")


def row(name: str, port: int, **cells: str) -> Row:
    kind = "battery" if name.startswith("bat") else "pv"
    rating = {"p_rated_kw": "10", "energy_kwh": "20" if kind == "battery" else "", "serial": ""}
    found = {"id": name, "kind": kind, "driver": "sunspec", "host": "10.0.0.7", "port": str(port), "bus": "b1"}
    return {**found, **rating, **cells}


def write(path: Path, rows: Sequence[Row]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, HEADER)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """A fleet file in use."""
    return write(tmp_path / "fleet.csv", [row("pv1", 1), row("pv2", 2)])


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """The file that comes: pv1 has moved, pv2 is gone, bat3 is new."""
    return write(tmp_path / "new.csv", [row("pv1", 11), row("bat3", 3)])


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_dry_run_shows_the_difference_and_changes_nothing(
    used: Path, fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(used.parent)
    assert main(["fleet", "import", str(fresh), "--into", str(used), "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "changed  pv1: port 1 -> 11",
        "added    bat3",
        "removed  pv2",
        "1 added, 1 removed, 1 changed: nothing is written",
    ]
    assert files(used.parent) == before


def test_an_import_replaces_the_file_and_keeps_the_former_one(
    used: Path, fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    former = used.read_text()
    assert main(["fleet", "import", str(fresh), "--into", str(used), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["written"] is True
    assert [(change["id"], change["what"]) for change in said["changes"]] == [
        ("pv1", "changed"),
        ("bat3", "added"),
        ("pv2", "removed"),
    ]
    assert used.read_text() == fresh.read_text()
    assert Path(said["backup"]).read_text() == former
    assert len(files(used.parent)) == 3


def test_the_same_file_again_changes_nothing_and_leaves_no_backup(
    used: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = used.with_name("again.csv")
    again.write_text(used.read_text())
    assert main(["fleet", "import", str(again), "--into", str(used)]) == 0
    assert capsys.readouterr().out == "0 added, 0 removed, 0 changed: nothing is written\n"
    assert set(files(used.parent)) == {"fleet.csv", "again.csv"}


def test_imports_within_one_second_keep_every_former_file(used: Path, fresh: Path) -> None:
    async def thrice(loop: SimulatedLoop) -> None:
        options = Namespace(new=fresh, into=used, feeder=None, dry_run=False, probe=False, json=False)
        for number in range(3):
            write(fresh, [row("pv1", 20 + number)])
            await import_fleet(options, drivers(), load, LoopClock(loop, START), random.Random(1))

    run_simulated(thrice, seed=1)
    kept = set(files(used.parent)) - {"fleet.csv", "new.csv"}
    at = f"fleet-{START:%Y%m%dT%H%M%SZ}"
    assert kept == {f"{at}.csv", f"{at}-2.csv", f"{at}-3.csv"}


def test_a_dry_run_says_that_the_file_would_be_made(
    used: Path, fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothere = used.with_name("nothere.csv")
    assert main(["fleet", "import", str(fresh), "--into", str(nothere), "--dry-run"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"there is no file {nothere} yet; without --dry-run it would be made"
    assert not nothere.exists()


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("id,kind\n\x00\x00pv1,\x1b[31mpv\n", "row 2: byte 0x00 is in no text file; save it as comma-separated CSV"),
        ('id,kind\npv1,pv\npv2,"pv\npv3,pv\n', "row 3: a quotation mark is not closed; close it"),
    ],
)
def test_a_file_that_is_no_sound_text_is_one_sentence(
    text: str, mistake: str, used: Path, fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh.write_text(text)
    assert main(["fleet", "import", str(fresh), "--into", str(used)]) == 2
    line, count = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{fresh}: {mistake}")
    assert line.isprintable()
    assert count == "1 mistake; nothing was written"


def test_every_mistake_of_the_new_file_is_told_and_the_old_one_stays(
    used: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = write(used.with_name("new.csv"), [row("pv1", 70000), row("pv1", 2), row("bat3", 3, p_rated_kw="-1")])
    before = files(used.parent)
    assert main(["fleet", "import", str(wrong), "--into", str(used)]) == 2
    places = [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()[:-1]]
    assert places == ["row 2, column port", "row 3, column id", "row 4, column p_rated_kw"]
    assert files(used.parent) == before


def test_buses_are_checked_where_a_feeder_is_named(used: Path, fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fleet", "import", str(fresh), "--into", str(used), "--feeder", "ieee123"]) == 2
    assert "unknown bus 'b1'" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to_is_a_sentence(
    used: Path, fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = used.parent / "none" / "fleet.csv"
    assert main(["fleet", "import", str(fresh), "--into", str(nowhere)]) == 2
    assert f"{nowhere}: file: cannot be written (No such file or directory)" in capsys.readouterr().err


def probed(new: Path, into: Path, specimen: Specimen) -> int:
    """Exit status of an import that asks the devices, on a simulated network."""
    options = Namespace(new=new, into=into, feeder=None, dry_run=False, probe=True, json=False)

    async def talk(loop: SimulatedLoop) -> int:
        async with served(specimen):
            return await import_fleet(options, drivers(), load, LoopClock(loop, START), random.Random(1))

    return run_simulated(talk, seed=1)


def test_new_devices_that_are_what_their_rows_say_are_imported(used: Path, tmp_path: Path) -> None:
    new = write(tmp_path / "new.csv", [row("pv1", 1), row("pv2", 2), row("bat3", 502, serial="SN-3")])
    assert probed(new, used, Specimen(LEGACY, serial="SN-3")) == 0
    assert used.read_text() == new.read_text()


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ({"serial": "SN-9"}, "serial number 'SN-3', expected 'SN-9'"),
        ({"p_rated_kw": "100", "energy_kwh": "20"}, "100 kW, and the device says 10 kW; was 10 meant?"),
    ],
)
def test_a_device_that_is_not_what_its_row_says_stops_the_import(
    cells: Row, sentence: str, used: Path, tmp_path: Path
) -> None:
    before = used.read_text()
    new = write(tmp_path / "new.csv", [row("pv1", 1), row("pv2", 2), row("bat3", 502, **cells)])
    with pytest.raises(ConfigError, match="device bat3") as refused:
        probed(new, used, Specimen(LEGACY, serial="SN-3"))
    assert sentence in str(refused.value)
    assert used.read_text() == before
