"""Files of a circuit: what they may say and name, in the dialects that they come in."""

from hashlib import sha256
from pathlib import Path

import pytest

from feeders.script import Script, Word, read_script


def script(folder: Path, text: str) -> Script:
    master = folder / "master.dss"
    master.write_text(text, encoding="utf8")
    return read_script(master, folder)


def words(folder: Path, text: str) -> list[tuple[str, ...]]:
    """Command and words of each statement, as `name=value`."""
    return [
        (one.command, *(f"{word.name}={word.value}" if word.name else word.value for word in one.words))
        for one in script(folder, text).statements
    ]


def complaints(folder: Path, text: str) -> list[str]:
    return [str(problem) for problem in script(folder, text).problems]


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("New Line.L1 Bus1=A.1 bus2 = b.1 ! bus3=ghost", ("new", "Line.L1", "bus1=A.1", "bus2=b.1")),
        ("new object=circuit.x // basekv=4", ("new", "object=circuit.x")),
        ('New "Line.a b" kvs="1 2 " conns=(wye, delta)', ("new", "Line.a b", "kvs=1 2", "conns=wye, delta")),
        ("~ rmatrix=[1 | 0 1]x=2", ("~", "rmatrix=1 | 0 1", "x=2")),
        ('Set "VoltageBases" = "69,24.9"', ("set", "voltagebases=69,24.9")),
        ("calcv", ("calcvoltagebases",)),
        ("Line.l1.enabled=no", ("", "line.l1.enabled=no")),
        ("New Line.o'neil bus1=a ! it's here", ("new", "Line.o'neil", "bus1=a")),
        ("New Load.l kV= 24.900, kW = 60", ("new", "Load.l", "kv=24.900", "kw=60")),
    ],
)
def test_words_are_read_as_opendss_reads_them(tmp_path: Path, line: str, read: tuple[str, ...]) -> None:
    assert words(tmp_path, line) == [read]


def test_comments_over_lines_are_left_out_and_places_stay_right(tmp_path: Path) -> None:
    found = script(tmp_path, "/*** New Line.a\nShow Voltages\n****/ New Line.b\n\nNew Line.c\r\n~ bus1=a\n").statements
    assert [(one.place.line, one.words) for one in found] == [
        (5, (Word("", "Line.c"),)),
        (6, (Word("bus1", "a"),)),
    ]


@pytest.mark.parametrize(
    "line", ["New Line.a bus1=(x) , bus2=y", "New Line.a bus1=x,,bus2=y", 'New Line.a bus1="" bus2=y']
)
def test_values_behind_an_empty_one_which_opendss_drops_in_silence_are_told(tmp_path: Path, line: str) -> None:
    (found,) = complaints(tmp_path, line)
    assert found.startswith("master.dss: line 1: an empty value, at which OpenDSS stops reading; unread: bus2=y")


@pytest.mark.parametrize(
    "line",
    [
        *(
            "DOScmd rm x",
            "fileedit x.txt",
            "Show Voltages",
            "Plot circuit",
            "Export voltages v.csv",
            "save circuit dir=x",
        ),
        *("cd ..", "sh v", "vis what=powers", "dump", "Variable", "var @x=3", "reduce", "Foo line.l1"),
    ],
)
def test_commands_that_make_no_circuit_are_told_with_file_and_line(tmp_path: Path, line: str) -> None:
    word = line.partition(" ")[0]
    (found,) = complaints(tmp_path, f"Clear\n{line}\n")
    assert found.startswith(f"master.dss: line 2: {word!r} ")
    assert found.endswith("; take the line out")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("Set Editor=/bin/sh", "option 'editor' has no place in a circuit"),
        ("set edi=/bin/sh", "option 'edi' has no place in a circuit"),
        ('set "datapath"=/', "option 'datapath' has no place in a circuit"),
        ("Set Recorder=yes", "option 'recorder' has no place in a circuit"),
        ("New Generator.g usermodel=./evil.so", "usermodel= loads a library into the engine"),
        ("New PVSystem.p userm=evil.so", "userm= loads a library into the engine"),
        ("New Storage.s\n~ DynaDLL=evil.so", "dynadll= loads a library into the engine"),
        ("Generator.g.UserModel=evil.so", "generator.g.usermodel= loads a library into the engine"),
        ("New Line.l length=@far", "variable '@far' is not followed here"),
    ],
)
def test_options_and_libraries_that_reach_beyond_the_circuit_are_told(tmp_path: Path, line: str, what: str) -> None:
    (found,) = complaints(tmp_path, line)
    assert f": {what}; " in found


@pytest.mark.parametrize(
    "command", ["Redirect", "Compile", "BusCoords", "New LoadShape.s csvfile=", "New LoadShape.s csv="]
)
@pytest.mark.parametrize("path", ["/etc/hostname", "../outside.dss", "..\\outside.dss", "link.dss"])
def test_files_outside_the_folder_are_not_read(tmp_path: Path, command: str, path: str) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    (tmp_path / "outside.dss").write_text("New Line.secret\n", encoding="utf8")
    (folder / "link.dss").symlink_to(tmp_path / "outside.dss")
    found = script(folder, f'Clear\n{command} "{path}"\n')
    name = Path(path.replace("\\", "/")).name
    assert [str(problem) for problem in found.problems] == [
        f"master.dss: line 2: {name} lies outside the package's folder; put it into the folder"
    ]
    assert list(found.files) == [(folder / "master.dss").resolve()]


def test_a_master_file_outside_the_folder_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    (tmp_path / "master.dss").write_text("Clear\n", encoding="utf8")
    found = read_script(folder / "../master.dss", folder)
    assert [str(problem) for problem in found.problems] == [
        "master.dss: file: lies outside the package's folder; put it into the folder"
    ]


def test_files_in_arrays_are_looked_for_beside_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "day.txt").write_text("1\n2\n", encoding="utf8")
    text = "New LoadShape.a npts=2 mult=(file=day.txt)\nNew LoadShape.b mult=[dblfile=night.dbl]\n"
    (tmp_path / "shapes" / "shapes.dss").write_text(text, encoding="utf8")
    found = script(tmp_path, "Redirect shapes\\shapes.dss\n")
    assert [path.name for path in found.files] == ["master.dss", "shapes.dss", "day.txt"]
    assert [str(problem) for problem in found.problems] == [
        "shapes/shapes.dss: line 2: night.dbl no such file or directory; give a readable file"
    ]


def test_missing_circular_and_impossible_redirects_are_told_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.dss").write_text("New Line.a\nRedirect b.dss\n", encoding="utf8")
    (tmp_path / "b.dss").write_text("Redirect a.dss\nRedirect .\nRedirect nowhere.dss\nRedirect\n", encoding="utf8")
    (tmp_path / "loop.dss").symlink_to(tmp_path / "loop.dss")
    found = script(tmp_path, "Redirect a.dss\nRedirect loop.dss\nRedirect x\0y\nNew Line.b\n")
    assert not found.complete
    assert [one.words[0].value for one in found.statements] == ["Line.a", "Line.b"]
    assert [(problem.file, problem.where) for problem in found.problems] == [
        ("b.dss", "line 1"),
        ("b.dss", "line 2"),
        ("b.dss", "line 3"),
        ("b.dss", "line 4"),
        ("master.dss", "line 2"),
        ("master.dss", "line 3"),
    ]
    assert "redirects to itself" in found.problems[0].wrong


def test_files_that_multiply_by_redirects_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feeders.script.LINES_MAX", 1000)
    for level in range(18):
        next_one = f"Redirect f{level + 1}.dss\n"
        (tmp_path / f"f{level}.dss").write_text(next_one + next_one, encoding="utf8")
    (tmp_path / "f18.dss").write_text("Solve\n", encoding="utf8")
    found = script(tmp_path, "Redirect f0.dss\n")
    assert not found.complete
    assert {problem.wrong.partition(" ")[2] for problem in found.problems} == {"redirects too deep, or too often"}


def test_digest_covers_names_and_contents_of_all_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.dss").write_bytes(b"Solve\n")
    found = script(tmp_path, "Redirect b.dss\n")
    parts = b"master.dss\x0015\x00Redirect b.dss\n" + b"b.dss\x006\x00Solve\n"
    assert found.digest == sha256(parts).hexdigest()
    (tmp_path / "b.dss").write_bytes(b"Solve \n")
    assert script(tmp_path, "Redirect b.dss\n").digest != found.digest
