"""`derms-hil`: the world alone, and one device alone."""

import asyncio
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from derms.service.clock import LoopClock
from derms.service.simulated import SimulatedLoop, run_simulated
from hil.cli import live, main
from hil.specimen import Specimen


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


def test_a_second_device_on_a_port_is_told_how_to_get_another(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["device", "--port", str(taken.getsockname()[1])]) == 1
    assert capsys.readouterr().err.endswith("; give another --port, or --port 0 for any\n")


def test_help_tells_the_port_that_is_taken_when_none_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["device", "--help"])
    assert "15020 when not given; 0 for any" in " ".join(capsys.readouterr().out.split())


def test_one_device_is_served_with_the_models_and_the_fault_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["device", "--port", "0", "--hours", "1e-9", "--models", "701,704", "--fault", "delay:0.5"]) == 0
    said = capsys.readouterr().out
    assert "a device of class A on 127.0.0.1:" in said
    assert "base address 40000, models 1, 701, 704" in said


def test_a_model_that_is_not_known_is_named_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["device", "--models", "1,999"])
    assert "argument --models: '1,999': give some of 1, 101" in capsys.readouterr().err


def test_time_passes_for_a_device_that_is_served_alone() -> None:
    async def scenario(loop: SimulatedLoop) -> float:
        specimen = Specimen((1, 715))
        living = asyncio.ensure_future(live([specimen], LoopClock(loop, datetime(2026, 4, 15, tzinfo=UTC)), 0.2))
        await asyncio.sleep(10.1)
        living.cancel()
        return specimen.value("715.DERHb")

    assert run_simulated(scenario, seed=1) in (9.0, 10.0)
