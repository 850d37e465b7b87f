"""The `derms` command before anything runs: names that cannot be, rights, newer records, an early Ctrl-C."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest

from derms.errors import Problem
from derms.field.journal import VERSION, Journal
from derms.service import plugins
from derms.service.cli import main
from derms.service.config import FEEDERS
from drivers.registry import REGISTRY, Kit
from feeders.catalog import MANIFEST, PACKAGES, load
from hil.cli import write_files
from hil.world import World


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site file of a simulated fleet."""
    world = World(load("ieee123"), seed=1, start=datetime(2026, 4, 15, 19, 0, tzinfo=UTC), publish=False)
    return write_files(world, "127.0.0.1", range(15020, 15085), tmp_path_factory.mktemp("sound"))


@pytest.fixture
def site(sound: Path, tmp_path: Path) -> Path:
    for name in ("site.toml", "fleet.csv", "history.csv"):
        (tmp_path / name).write_text((sound.parent / name).read_text())
    return tmp_path / "site.toml"


def told(site: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines that `derms check` says of a site with mistakes, without the last one that counts them."""
    assert main(["check", "-c", str(site)]) == 2
    return capsys.readouterr().err.splitlines()[:-1]


NAMES: dict[str, Callable[[str], str]] = {
    "a NUL in a file's name": lambda text: text.replace('"fleet.csv"', '"fleet\\u0000.csv"'),
    "a NUL in a folder's name": lambda text: text.replace('"data"', '"da\\u0000ta"'),
    "a file's name that is too long": lambda text: text.replace('"fleet.csv"', f'"{"x" * 300}.csv"'),
    "a folder's name that is too long": lambda text: text.replace('"data"', f'"{"x" * 5000}"'),
    "a feeder's name that is too long": lambda text: text.replace('"ieee123"', f'"{"x" * 300}"'),
    "brackets nested five thousand deep": lambda text: f"a = {'[' * 5000}\n{text}",
}


@pytest.mark.parametrize("what", NAMES)
def test_a_name_that_no_system_takes_is_a_mistake_and_not_a_traceback(
    what: str, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = NAMES[what](site.read_text())
    assert changed != site.read_text()
    site.write_text(changed)
    lines = told(site, capsys)
    assert lines
    assert all(line.startswith(f"{site}: ") and len(line) < 500 for line in lines)


def test_a_folder_that_this_user_may_not_enter_is_a_mistake(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = site.parent / "closed"
    looked = Path.stat

    def stat(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if closed in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        return looked(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", stat)
    site.write_text(site.read_text().replace('"fleet.csv"', '"closed/fleet.csv"'))
    (line,) = told(site, capsys)
    assert f"'{closed}/fleet.csv' cannot be looked at (Permission denied)" in line


def test_records_of_a_newer_version_are_refused_before_anything_starts(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = site.parent / "data" / "commands.journal"
    Journal.open(path).close()
    crc, _, payload = path.read_bytes().partition(b" ")
    newer = json.dumps({**json.loads(payload), "version": VERSION + 1, "more": 1})
    path.write_bytes(crc + b" " + newer.encode() + b"\n")
    (line,) = told(site, capsys)
    assert line.startswith(f"{path}: line 1: written by version {VERSION + 1}")
    assert main(["run", "-c", str(site)]) == 2


def test_a_check_tells_what_polling_costs_each_link(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "-c", str(site)]) == 0
    _, *costs = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in costs] == ["  polling usual: 65 devices every 10 s"]
    assert "MB a month each" in costs[0]
    assert main(["check", "--json", "-c", str(site)]) == 0
    (usual,) = json.loads(capsys.readouterr().out)["polling"]
    assert (usual["class"], usual["devices"]) == ("usual", 65)
    assert usual["bytes_per_month"] == pytest.approx(190e6, rel=0.1)
    assert isinstance(usual["bytes_per_month"], int)


BAD = Problem("acme.yaml", "line 4", "unknown key 'kind'", "did you mean 'kinds'?")


@pytest.fixture
def one_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation one of whose profiles has a mistake."""
    monkeypatch.setattr(plugins, "drivers", lambda: Kit(REGISTRY, {"acme": [BAD]}))


@pytest.mark.usefixtures("one_broken")
def test_a_broken_profile_that_a_site_does_not_use_is_told_and_costs_it_nothing(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "-c", str(site)]) == 0
    assert capsys.readouterr().err == f"not used by this site: {BAD}\n"
    assert main(["check", "--json", "-c", str(site)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], [problem["file"] for problem in said["problems"]]) == (True, ["acme.yaml"])


@pytest.mark.usefixtures("one_broken")
def test_a_device_that_names_a_broken_profile_gets_its_mistakes(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = site.parent / "fleet.csv"
    fleet.write_text(fleet.read_text().replace(",sunspec,", ",acme,", 1))
    row, profile = told(site, capsys)
    assert row.startswith(f"{fleet}: row 2, column driver: the profile of driver 'acme' has mistakes")
    assert profile == str(BAD)
    assert main(["run", "-c", str(site)]) == 2


@pytest.mark.usefixtures("one_broken")
def test_a_site_with_other_mistakes_is_told_of_broken_profiles_too(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write_text(site.read_text().replace('"observe"', '"perhaps"'))
    assert told(site, capsys)[-1] == str(BAD)


def test_a_feeder_that_is_not_there_is_told_with_its_line(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.write_text(site.read_text().replace('"ieee123"', '"iee123"'))
    line = next(n for n, text in enumerate(site.read_text().splitlines(), start=1) if text.startswith("feeder"))
    wrong = "[site] feeder = 'iee123': there is no such feeder"
    assert told(site, capsys) == [f"{site}: line {line}: {wrong}; did you mean 'ieee123'?"]


def test_the_feeders_that_are_proposed_are_those_that_there_are() -> None:
    assert set(FEEDERS) == {path.parent.name for path in PACKAGES.glob(f"*/{MANIFEST}")}


def test_the_command_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"derms {version('derms')}\n"


@pytest.mark.parametrize("command", [["run", "-c", "site.toml"], ["check", "-c", "site.toml"], ["device", "scan", "x"]])
def test_ctrl_c_while_libraries_load_ends_without_a_traceback(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text('import time\nprint("loading", flush=True)\ntime.sleep(60)\n')
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    start = [sys.executable, "-u", "-c", "import sys; from derms.service.cli import main; sys.exit(main())", *command]
    with subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stdout.readline() == "loading\n"
        run.send_signal(signal.SIGINT)
        said = run.stderr.read()
    assert run.returncode == -signal.SIGINT
    assert said == ""


def test_a_device_that_is_not_there_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert main(["device", "scan", "127.0.0.1", "--port", str(port)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"127.0.0.1:{port}/1: no connection: ")


def test_the_command_answers_before_any_library_is_loaded() -> None:
    names = "'numpy', 'cvxpy', 'pymodbus', 'altdss', 'uvloop', 'sqlalchemy'"
    code = f"import sys, derms.service.cli; print([name for name in ({names}) if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "[]\n"
