"""`derms feeder` as an engineer uses it: import a bare circuit, check it, draw it, and meet every mistake by name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from derms.service.cli import main

VILLAGE = """\
Clear
New Circuit.village bus1=src basekv=12.47 pu=1.0 R1=0.1 X1=0.4 R0=0.1 X0=0.4
New LineCode.oh nphases=3 units=km r1=0.3 x1=0.4 r0=0.6 x0=1.2 c1=10 c0=5
New Line.head bus1=src bus2=a linecode=oh length=1 units=km
New Line.ab bus1=a bus2=b linecode=oh length=2 units=km
New Line.bc bus1=b bus2=c linecode=oh length=1 units=km
New Load.one bus1=b phases=3 kv=12.47 kw=900 kvar=200
New Load.two bus1=c.2 phases=1 kv=7.2 kw=100 kvar=20
New Transformer.svc phases=1 windings=2 xhl=2
~ wdg=1 bus=c.1 kv=7.2 kva=50 %r=0.6
~ wdg=2 bus=home.1 kv=0.24 kva=50 %r=0.6
New PVSystem.roof bus1=home.1 phases=1 kv=0.24 kva=20 pmpp=18 irradiance=1
Set VoltageBases=(12.47 0.416)
CalcVoltageBases
"""


@pytest.fixture
def village(tmp_path: Path) -> Path:
    """A folder with a bare circuit and the manifest that `import` makes for it."""
    folder = tmp_path / "village"
    folder.mkdir()
    (folder / "master.dss").write_text(VILLAGE, encoding="utf8")
    assert main(["feeder", "import", str(folder / "master.dss")]) == 0
    return folder


def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert main(["feeder", "check", str(folder)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    *told, last = err.splitlines()
    assert last.endswith("nothing was loaded")
    return told


@pytest.mark.slow
def test_imported_circuit_is_good_at_once_and_loaded_in_a_confined_process(
    village: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["feeder", "check", str(village)]) == 0
    said = capsys.readouterr().out
    assert "village: good" in said
    assert "confined process" in said
    assert main(["feeder", "check", str(village), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"]
    assert (found["loads"], found["der"]) == (2, 1)
    assert found["violations"] == []


@pytest.mark.slow
def test_picture_is_drawn_and_says_what_is_outside(
    village: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "one-line.png"
    assert main(["feeder", "show", str(village), "-o", str(picture), "--load", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["points_outside"] > 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_import_overwrites_nothing(village: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (village / "manifest.toml").read_text(encoding="utf8")
    assert main(["feeder", "import", str(village / "master.dss")]) == 2
    assert "there is one already" in capsys.readouterr().err
    assert (village / "manifest.toml").read_text(encoding="utf8") == before


@pytest.mark.parametrize(
    ("file", "good", "bad", "named"),
    [
        ("manifest.toml", 'bus = "home"', 'bus = "hume"', ("manifest.toml", "no bus 'hume'")),
        ("manifest.toml", '"PVSystem.roof"', '"PVSystem.shed"', ("manifest.toml", "shed")),
        ("master.dss", "roof bus1=home.1", "roof bus1=home.2", ("master.dss: line 12", "pvsystem.roof", "phase 2")),
        ("master.dss", "phases=1 kv=7.2 kw", "phases=1 kv=2.4 kw", ("master.dss: line 8", "load.two", "2.4 kV")),
        ("master.dss", "New Load.two", "New Load.one bus1=b kw=1\nNew Load.two", ("line 8", "load.one is defined")),
        ("master.dss", "Set Vol", "New Line.ca bus1=c bus2=a linecode=oh\nSet Vol", ("loop", "line.ca", "line.bc")),
        ("master.dss", "kw=900", "kw=nan", ("master.dss: line 7", "load.one", "no finite number")),
        ("master.dss", "phases=1 kv=7.2 kw", "phases=1 kv=-7.2 kw", ("line 8", "load.two", "kv=-7.2 is not above 0")),
        ("master.dss", "Set Vol", "fileedit x.txt\nSet Vol", ("master.dss: line 13", "'fileedit'")),
        ("master.dss", "irradiance=1", "usermodel=evil.so", ("master.dss: line 12", "loads a library")),
        ("master.dss", "Set Vol", "Redirect ../other.dss\nSet Vol", ("master.dss: line 13", "other.dss lies outside")),
    ],
)
def test_mistake_is_told_with_its_file_and_element(
    village: Path, capsys: pytest.CaptureFixture[str], file: str, good: str, bad: str, named: tuple[str, ...]
) -> None:
    path = village / file
    text = path.read_text(encoding="utf8")
    assert good in text
    path.write_text(text.replace(good, bad, 1), encoding="utf8")
    told = refused(village, capsys)
    assert any(all(part in line for part in named) for line in told), told


@pytest.mark.slow
def test_circuit_that_does_not_converge_is_told_with_the_load_to_look_at_first(
    village: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = village / "master.dss"
    path.write_text(VILLAGE.replace("kw=900", "kw=900000"), encoding="utf8")
    (told,) = refused(village, capsys)
    assert "no finite power flow" in told
    assert "load.one with 900000 kW" in told


def test_all_mistakes_are_told_at_once(village: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = village / "master.dss"
    path.write_text(VILLAGE.replace("kw=900", "kw=nan").replace("kv=7.2 kw", "kv=2.4 kw"), encoding="utf8")
    assert len(refused(village, capsys)) == 2


@pytest.mark.parametrize("text", ["{not json", "[]", '{"master.dss": {"head_kw": ["much"]}}', '{"master.dss": 3}'])
def test_golden_file_that_cannot_be_read_is_told_and_what_to_do(
    village: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (village / "golden.json").write_text(text, encoding="utf8")
    (told,) = refused(village, capsys)
    assert "golden.json" in told
    assert "delete it" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("check", "ieee13", "--load", "nan"), "nan: give a number from 0 on"),
        (("check", "ieee13", "--load", "-1"), "-1: give a number from 0 on"),
        (("show", "ieee13", "-o", "x.foo"), "x.foo: give a file that ends in .png, .svg, .pdf"),
    ],
)
def test_argument_that_cannot_be_is_told_as_such(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["feeder", *arguments])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_mistake_in_a_file() -> None:
    derms = Path(sys.executable).with_name("derms")
    reading, writing = os.pipe()
    os.close(reading)
    command = [str(derms), "feeder", "check", "ieee37"]
    told = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=120.0)
    os.close(writing)
    assert told.returncode == 1
    assert "cannot be looked at" not in told.stderr
