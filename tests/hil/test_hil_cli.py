"""`derms-hil fleet`: the world alone."""

import socket
from pathlib import Path

import pytest

from hil.cli import main


def test_the_fleet_starts_writes_its_files_and_stops_after_its_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fleet", "--port", "0", "--hours", "1e-9", "--out", str(tmp_path / "site")]) == 0
    said = capsys.readouterr().out
    assert "65 devices" in said
    assert f"derms run -c {tmp_path / 'site' / 'site.toml'}" in said
    assert {path.name for path in (tmp_path / "site").iterdir()} == {"fleet.csv", "site.toml", "history.csv"}


def test_a_port_that_is_taken_is_a_sentence_and_not_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["fleet", "--port", str(port), "--out", str(tmp_path)]) == 1
    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
