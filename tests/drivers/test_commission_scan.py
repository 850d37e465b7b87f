"""`derms device scan`: what a device is, in words and as JSON, without a single write; and what a failure says."""

import asyncio
import io
import json
import random
import socket
import sys
from collections.abc import Sequence

import pytest

from derms.errors import DeviceRefused, DeviceUnreachable, ProtocolViolation
from drivers.commission.command import command
from drivers.commission.hints import hint
from drivers.commission.subject import BUSY, BUSY_TRIES, patiently
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
    (Fault.STOP, "is it switched on? Check host, port and --transport"),
    (Fault.REFUSE, "another master may hold its only connection"),
    (Fault.ZERO_TRANSACTION, "zero_transaction = true"),
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
        ["scan", HOST, "--port", "70000"],
        ["scan", HOST, "--port", "0"],
        ["scan", HOST, "--port", "x"],
        ["scan", HOST, "--timeout", "0"],
        ["scan", HOST, "--timeout=-1"],
        ["scan", HOST, "--timeout", "nan"],
        ["scan", " "],
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
    assert "--ca, --certificate and --key" in error


def test_a_port_that_is_none_is_told_with_what_would_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command(["scan", HOST, "--port", "70000"])
    assert "'70000' is no port; give a whole number from 1 to 65535" in capsys.readouterr().err


def test_hints_say_what_to_look_at() -> None:
    unknown = DeviceUnreachable("no connection")
    unknown.__cause__ = socket.gaierror(-2, "Name or service not known")
    assert hint(unknown) == "; check the host name"
    assert "answers_as = 5" in hint(ProtocolViolation("FC3 40000+2: unit 5, expected 1"))
    assert hint(DeviceUnreachable("no answer in 2 s")) == ""


def test_a_device_that_is_busy_for_a_moment_is_asked_again() -> None:
    refusals = [DeviceRefused("busy", BUSY)] * (BUSY_TRIES - 1)
    pauses: list[float] = []

    async def work() -> str:
        if refusals:
            raise refusals.pop()
        return "found"

    async def wait(seconds: float) -> None:
        pauses.append(seconds)

    assert asyncio.run(patiently(wait, work)) == "found"
    assert len(pauses) == BUSY_TRIES - 1


def test_a_terminal_without_a_character_gets_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    poor = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", poor)
    command(["scan", HOST])
    print("25 °C", file=poor, flush=True)
    assert poor.buffer.getvalue() == b"25 ?C\n"
