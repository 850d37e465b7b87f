"""What README.md and the guides show is what runs: every command in a shell block is run, or read by its own parser."""

import re
import runpy
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from derms.service.cli import main as derms
from hil.cli import main as derms_hil
from hil.demo import parse as parse_demo

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")])


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf8"), re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in _blocks(ROOT / "README.md", "sh") for line in block.splitlines()]


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf8"), re.MULTILINE))


def _make(words: list[str]) -> None:
    """The target is there, and what is handed on is understood."""
    target, *settings = words
    given = dict(setting.split("=", 1) for setting in settings)
    assert target in _targets()
    assert set(given) <= {"ARGS", "NAME"}
    if target == "demo":
        parse_demo(shlex.split(given.get("ARGS", "")))
    if target == "bench":
        assert (ROOT / "tests" / "bench" / f"{given['NAME']}.py").is_file()


def _fleet(words: list[str]) -> None:
    """The world starts, writes its files, and stops at once."""
    assert derms_hil([*words, "--port", "0", "--hours", "1e-9"]) == 0


def _control_room(words: list[str]) -> None:
    if words[0] in ("check", "feeder"):
        assert derms(words) == 0
    else:
        assert words[0] == "run"
        assert Path(words[words.index("-c") + 1]).is_file(), "README runs a site that nothing before has written"


def _activate(words: list[str]) -> None:
    assert words == [".venv/bin/activate"]


READERS: dict[str, Callable[[list[str]], None]] = {
    "make": _make,
    "derms-hil": _fleet,
    "derms": _control_room,
    ".": _activate,
}


def test_every_command_of_the_readme_works_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for line in COMMANDS:
        program, *words = shlex.split(line)
        READERS[program](words)
    assert {shlex.split(line)[0] for line in COMMANDS} == set(READERS)


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["check", "--help"], ["demo", "--help"]])
def test_the_command_explains_itself(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        derms(words)
    assert ended.value.code == 0
    assert "usage: derms" in capsys.readouterr().out


@pytest.mark.slow
def test_derms_run_observes_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    assert derms_hil(["fleet", "--port", "0", "--hours", "1e-9", "--out", str(tmp_path)]) == 0
    site = tmp_path / "site.toml"
    site.write_text(site.read_text() + "\n[web]\nport = 0\n")
    command = [sys.executable, "-u", "-m", "derms.service.cli", "run", "-c", str(tmp_path / "site.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        watchdog = threading.Timer(60.0, run.kill)
        watchdog.start()
        assert run.stdout is not None
        assert "65 devices, mode observe" in run.stdout.readline()
        run.send_signal(signal.SIGINT)
        said = run.stdout.read()
        watchdog.cancel()
    assert run.returncode == 0
    assert "stopped" in said
    assert "Traceback" not in said


def test_every_target_of_the_makefile_is_in_its_help() -> None:
    said = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert set(re.findall(r"^make (\w+)", said, re.MULTILINE)) == _targets()


def _links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf8")):
            yield page, target


def test_links_between_pages_lead_somewhere() -> None:
    assert [f"{page.name}: {target}" for page, target in _links() if not (page.parent / target).exists()] == []


def test_modules_and_functions_that_the_pages_name_exist() -> None:
    """A path in backquotes is a file here; what stands for a user's own file has no folder of ours in front."""
    named = re.compile(r"`((?:derms|drivers|feeders|hil|tests|docs)/[\w./-]*)`")
    missing = {
        (page.name, name)
        for page in PAGES
        for name in named.findall(page.read_text(encoding="utf8"))
        if not (ROOT / name).exists()
    }
    assert missing == set()


def test_the_site_file_page_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "docs" / "site_file.py"), run_name="__main__")
    assert capsys.readouterr().out == (ROOT / "docs" / "site-file.md").read_text(encoding="utf8"), "run make docs"


@pytest.mark.parametrize(("with_scada", "with_connections"), [(False, False), (True, False), (True, True)])
def test_the_example_site_of_the_guide_is_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, with_scada: bool, with_connections: bool
) -> None:
    guide = ROOT / "docs" / "site-file.md"
    (site, shared, scada), (fleet, limits, sharing, points) = _blocks(guide, "toml"), _blocks(guide, "csv")
    if with_connections:
        site, fleet = site.replace(site[site.index("[fleet]") :], shared), sharing
        (tmp_path / "connections.csv").write_text(limits, encoding="utf8")
    if with_scada:
        site += scada.replace("/srv/ems", str(tmp_path))
        (tmp_path / "points.csv").write_text(points, encoding="utf8")
    (tmp_path / "site.toml").write_text(site, encoding="utf8")
    (tmp_path / "fleet.csv").write_text(fleet, encoding="utf8")
    status = derms(["check", "-c", str(tmp_path / "site.toml")])
    said = capsys.readouterr()
    assert (status, said.err) == (0, "")
    assert "3 devices, mode observe" in said.out


def test_decisions_are_numbered_without_a_gap_and_have_their_four_parts() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [path.name[:3] for path in decisions] == [f"{number:03}" for number in range(1, len(decisions) + 1)]
    for path in decisions:
        text = path.read_text(encoding="utf8")
        for part in ("Context", "Decision", "Consequences", "Numbers"):
            assert f"**{part}.**" in text, f"{path.name} lacks {part}"
