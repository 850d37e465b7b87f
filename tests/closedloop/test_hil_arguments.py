"""`derms-hil fleet` with arguments that cannot be followed: one sentence, a status, and nothing left listening."""

from pathlib import Path

import pytest

from hil.cli import main


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--port", "70000"), "argument --port: '70000': give a whole number from 0 to 65535"),
        (("--port", "-1"), "argument --port: '-1': give a whole number from 0 to 65535"),
        (("--port", "65500"), "argument --port: 65 devices need as many: give at most 65471, or 0 for any"),
        (("--dt", "0"), "argument --dt: '0': give a number from 0.1 to 60"),
        (("--hours", "nan"), "argument --hours: 'nan': give a number from 0 to 1e+06"),
        (("--seed", "-3"), "argument --seed: '-3': give a whole number from 0 to 4294967296"),
    ],
)
def test_a_number_out_of_bounds_is_refused_with_its_bounds(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fleet", *arguments, "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f": error: {sentence}")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["fleet", "--port", "0", "--out", str(tmp_path / "file" / "site")]) == 1
    said = capsys.readouterr()
    assert said.err == f"derms-hil: cannot write {tmp_path}/file/site: Not a directory\n"
    assert said.out == ""


def test_a_host_that_is_unknown_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fleet", "--host", "no.such.host.invalid", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("derms-hil: cannot listen on no.such.host.invalid, ports from 15020: ")
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
