"""`derms device scan`: what a device is, in words and as JSON, without a single write; and what a failure says."""

import asyncio
import json
import random
from collections.abc import Sequence

import pytest

from drivers.commission.command import command
from hil.fault_kinds import Fault
from hil.specimen import Specimen
from tests.drivers.commissioning import HOST, LEGACY, PROFILE, Befall, device, nothing
from tests.drivers.oracles import METER, FrozenClock, map_bytes, pymodbus_device


def scanned(
    capsys: pytest.CaptureFixture[str], specimen: Specimen, *flags: str, befall: Befall = nothing
) -> tuple[int, str, str]:
    """Exit status and what was said, after making sure that nothing was written."""
    frames: list[bytes] = []
    status = device(["scan", HOST, *flags], specimen, befall, frames)
    assert frames == []
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_scan_tells_who_a_device_is_what_it_measures_and_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    status, said, _ = scanned(capsys, Specimen(PROFILE, serial="SN-1"))
    assert status == 0
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert lines[0] == "10.0.0.7:502/1: Simulated Specimen, firmware 1.0, serial SN-1"
    assert "10000 W, 10000 VA, 20000 Wh, 240 V" in lines
    assert "701 DER AC Measurement at 40070 153 registers" in lines
    assert "f_hz 60 Hz" in lines
    assert "limit on injection, with a reversion timer" in lines
    assert "volt-var curve (705)" in lines
    assert "heartbeat of its controller" in lines
    assert lines[-2:] == ["odd", "nothing"]


def test_what_a_device_got_wrong_is_listed_as_odd(capsys: pytest.CaptureFixture[str]) -> None:
    specimen = Specimen(PROFILE)
    specimen.bank.set_raw(0, "702.W_SF", 42)
    status, said, _ = scanned(capsys, specimen)
    assert status == 0
    odd = said[said.index("  odd") :]
    assert "702" in odd
    assert "W_SF" in odd


def test_programs_get_a_scan_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    status, said, _ = scanned(capsys, Specimen(LEGACY), "--json")
    found = json.loads(said)
    assert (status, found["ok"], found["manufacturer"]) == (0, True, "Simulated")
    assert [model["id"] for model in found["models"]] == list(LEGACY)
    assert found["measures"]["p_w"] == [pytest.approx(8000.0)]
    assert found["takes"]


def test_of_a_range_of_units_the_one_that_answers_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    status, said, _ = scanned(capsys, Specimen(PROFILE), "--units", "1-3", "--json")
    found = json.loads(said)
    assert status == 0
    assert [(one["endpoint"], one["ok"]) for one in found["devices"]] == [
        ("10.0.0.7:502/1", True),
        ("10.0.0.7:502/2", False),
        ("10.0.0.7:502/3", False),
    ]
    assert "no such unit there" in found["devices"][1]["error"]


def test_a_meter_is_scanned_as_a_meter(capsys: pytest.CaptureFixture[str]) -> None:
    assert on_loopback(map_bytes(METER), []) == 0
    said = capsys.readouterr().out
    assert "p_phase_w" in said
    assert "no command" in said


def on_loopback(image: bytes, flags: Sequence[str]) -> int:
    """Exit status of a scan of pymodbus's server, over a real socket."""

    async def talk() -> int:
        async with pymodbus_device(image) as served:
            arguments = ["scan", "127.0.0.1", "--port", str(served.port), *flags]
            return await command(arguments)(FrozenClock(), random.Random(1))

    return asyncio.run(talk())


SILENT = (
    (Fault.HANG, "no answer in 2 s"),
    (Fault.STOP, "no connection"),
    (Fault.GARBAGE, "expected"),
)


@pytest.mark.parametrize(("fault", "sentence"), SILENT)
def test_a_device_that_cannot_be_scanned_is_a_sentence(
    fault: Fault, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said, error = scanned(capsys, Specimen(PROFILE), befall=lambda server: server.fault(fault))
    assert (status, said) == (1, "")
    assert error.startswith("10.0.0.7:502/1: ")
    assert sentence in error
    assert len(error.splitlines()) == 1


def test_a_device_without_sunspec_is_told_apart_from_a_silent_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert on_loopback(b"No SunSpec here.", ["--json"]) == 1
    assert "no SunSpec map" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize(
    "flags",
    [
        ["scan", HOST, "--units", "9-3"],
        ["scan", HOST, "--unit", "256"],
        ["scan", HOST, "--transport", "pigeon"],
        ["test", HOST],
    ],
)
def test_arguments_that_make_no_sense_are_refused_with_status_two(flags: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command(flags)
    assert ended.value.code == 2


def test_an_unknown_profile_and_a_missing_certificate_are_wrong_input(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, error = scanned(capsys, Specimen(PROFILE), "--profile", "sunspek")
    assert status == 2
    assert "there are" in error
    status, _, error = scanned(capsys, Specimen(PROFILE), "--transport", "tls")
    assert status == 2
    assert "tls_ca" in error
