"""The guide to drivers shows what runs: its commands, its links, and what it says of the levels."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from drivers.profiles.__main__ import main
from drivers.profiles.loader import packaged
from drivers.profiles.profile import Level
from tests.conformance.checks import CHECKS

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "drivers" / "README.md"
TEXT = GUIDE.read_text(encoding="utf8")
COMMANDS = [
    shlex.split(line.strip())
    for block in re.findall(r"^ *```sh\n(.*?)```$", TEXT, re.MULTILINE | re.DOTALL)
    for line in block.strip().splitlines()
]


def test_the_guides_commands_are_those_that_are_tried_here() -> None:
    assert [words[0] for words in COMMANDS] == ["cp", ".venv/bin/python", "make", ".venv/bin/python"]


def test_a_copy_of_the_template_is_a_profile_once_it_has_its_own_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, template, copy = COMMANDS[0]
    mine = tmp_path / Path(copy).name
    shutil.copy(ROOT / template, mine)
    assert COMMANDS[1][1:] == ["-m", "drivers.profiles", copy]
    assert main([str(mine)]) == 2
    assert "line 11: profile: 'template' in the file acme.yaml" in capsys.readouterr().err
    mine.write_text(mine.read_text(encoding="utf8").replace("profile: template", "profile: acme"), encoding="utf8")
    assert main([str(mine)]) == 0
    assert capsys.readouterr().out == (
        "acme: battery; poll: 2 requests, 17 registers; takes: p_set, class B; unit 1; gold\n"
    )


def test_without_a_file_all_profiles_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == list(packaged())


def test_make_knows_the_conformance_suite() -> None:
    assert COMMANDS[2][:2] == ["make", "conformance"]
    assert re.search(r"^conformance:", (ROOT / "Makefile").read_text(encoding="utf8"), re.MULTILINE)


def test_the_guides_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert targets
    assert [target for target in targets if not (GUIDE.parent / target).exists()] == []


def test_every_level_of_the_suite_is_explained() -> None:
    explained = re.findall(r"^\| (\w+) \| (?:it says|and:)", TEXT, re.MULTILINE)
    assert explained == [level.value for level in Level]
    assert {check.level for check in CHECKS} == set(Level)
