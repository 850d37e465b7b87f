"""`derms check` and `derms run` on files that people wrote: all mistakes at once, and nothing is started."""

import csv
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from derms.field.journal import Journal
from derms.service.cli import main
from feeders.catalog import load
from hil.cli import write_files
from hil.world import World

Row = dict[str, str]


@pytest.fixture(scope="module")
def good_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the simulated fleet, as `derms-hil fleet` writes them."""
    world = World(load("ieee123"), seed=1, start=datetime(2026, 4, 15, 19, 0, tzinfo=UTC), publish=False)
    return write_files(world, "127.0.0.1", range(15020, 15085), tmp_path_factory.mktemp("good"))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port at which a device could be."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture
def damaged_site(good_site: Path, tmp_path: Path, listener: socket.socket) -> Path:
    """The same files with ten mistakes in the fleet; every device is at the listener."""
    (tmp_path / "site.toml").write_text(good_site.read_text().replace('"observe"', '"auto"'))
    (tmp_path / "history.csv").write_text((good_site.parent / "history.csv").read_text())
    with (good_site.parent / "fleet.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    by_id = {row["id"]: row for row in rows}
    for unit, row in enumerate(rows, start=1):
        row["port"], row["unit"] = str(listener.getsockname()[1]), str(unit)
    by_id["pv02"]["id"] = "pv01"
    by_id["pv03"]["bus"] = "nowhere"
    by_id["pv04"]["p_rated_kw"] = str(float(by_id["pv04"]["p_rated_kw"]) * 1e3)
    by_id["pv04"]["s_rated_kva"] = ""
    by_id["pv05"]["s_rated_kva"] = "-50"
    by_id["pv06"]["driver"] = "sunspek"
    by_id["pv07"]["host"] = "10.0.0.300"
    by_id["pv08"]["port"] = "70000"
    by_id["bat01"]["kind"] = "batery"
    by_id["bat02"]["soc_min_pct"] = "97"
    for row in rows:
        del row["energy_kwh"]
    with (tmp_path / "fleet.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path / "site.toml"


MISTAKES = (
    ("row 1, column energy_kwh", "column 'energy_kwh' is missing", "add it: usable energy of a battery"),
    ("row 3, column id", "'pv01' is already the id of row 2", "give every device an id of its own"),
    ("row 4, column bus", "unknown bus 'nowhere'", "the manifest binds 'pv03' to "),
    ("row 5, column p_rated_kw", " kW at bus ", "was W meant? "),
    ("row 6, column s_rated_kva", "-50 is not a rating", "give a number greater than 0"),
    ("row 7, column driver", "unknown driver 'sunspek'", "did you mean 'sunspec'?"),
    ("row 8, column host", "'10.0.0.300' is neither an IP address nor a host name", "write it like 10.0.0.17"),
    ("row 9, column port", "70000 is out of range", "give a whole number from 1 to 65535"),
    ("row 42, column kind", "unknown kind 'batery'", "did you mean 'battery'?"),
    ("row 43, column soc_min_pct", "97 % is not below soc_max_pct", "give a reserve below the ceiling"),
)
"""Place, what is wrong, and what would be right, in the order of the file."""


def test_ten_mistakes_get_ten_lines_with_row_column_and_remedy(
    damaged_site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "-c", str(damaged_site)]) == 2
    *lines, count = capsys.readouterr().err.splitlines()
    assert count == "10 mistakes; the site cannot be used as it is"
    fleet = damaged_site.parent / "fleet.csv"
    for line, (where, wrong, right) in zip(lines, MISTAKES, strict=True):
        assert line.startswith(f"{fleet}: {where}: ")
        assert wrong in line
        assert f"; {right}" in line


def test_programs_get_the_same_ten_as_json(damaged_site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--json", "-c", str(damaged_site)]) == 2
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert answer["ok"] is False
    assert said.err == ""
    assert [problem["where"] for problem in answer["problems"]] == [where for where, _, _ in MISTAKES]
    for problem, (_, wrong, right) in zip(answer["problems"], MISTAKES, strict=True):
        assert wrong in problem["wrong"]
        assert right in problem["right"]


def test_the_service_does_not_start_on_a_damaged_fleet(
    damaged_site: Path, listener: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(damaged_site.parent.iterdir())
    assert main(["run", "-c", str(damaged_site)]) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == len(MISTAKES) + 1
    assert said.out == ""
    assert sorted(damaged_site.parent.iterdir()) == before
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_a_good_site_is_called_good(good_site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(good_site.parent.iterdir())
    assert main(["check", "-c", str(good_site)]) == 0
    first, *_ = capsys.readouterr().out.splitlines()
    assert first == f"{good_site}: good: Simulated ieee123, feeder ieee123, 65 devices, mode observe"
    assert main(["check", "--json", "-c", str(good_site)]) == 0
    said = json.loads(capsys.readouterr().out)
    del said["polling"]
    assert said == {"ok": True, "problems": [], "devices": 65, "mode": "observe", "notes": []}
    assert sorted(good_site.parent.iterdir()) == before


@pytest.fixture
def copied_site(good_site: Path, tmp_path: Path) -> Path:
    for name in ("site.toml", "fleet.csv", "history.csv"):
        (tmp_path / name).write_text((good_site.parent / name).read_text())
    return tmp_path / "site.toml"


def test_records_that_cannot_be_kept_are_a_sentence_and_not_a_traceback(
    copied_site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = copied_site.parent / "file" / "data"
    data.parent.write_text("")
    copied_site.write_text(copied_site.read_text().replace('"data"', '"file/data"'))
    assert main(["run", "-c", str(copied_site)]) == 1
    assert capsys.readouterr().err == f"derms: {data}: Not a directory\n"


def test_a_second_service_on_the_same_records_does_not_start(
    copied_site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied_site.parent / "data" / "commands.journal"
    held = Journal.open(path)
    assert main(["run", "-c", str(copied_site)]) == 1
    held.close()
    assert capsys.readouterr().err == f"derms: stopped: {path}: in use by another process\n"
