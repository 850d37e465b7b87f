"""`derms device test` on reference devices: the SunSpec cases by name, what they prove, and what they leave behind."""

import asyncio
import json
import math
import random
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

import pytest

from derms.domain.certificate import CaseState, Certificate, ReversionClass
from derms.service.clock import LoopClock
from derms.service.simulated import SimulatedLoop, run_simulated
from drivers.commission.cases import CASES
from drivers.commission.command import command
from drivers.sunspec.writable import Permission, permission
from hil.fault_kinds import Fault
from hil.server import Endpoint
from hil.specimen import Manner, Reverts, Specimen
from tests.drivers.commissioning import (
    HOST,
    LEGACY,
    PROFILE,
    START,
    Befall,
    device,
    differences,
    nothing,
    points_written,
    served,
    shows,
)

RESTLESS = {"705.AdptCrvReq", "706.AdptCrvReq", "711.AdptCtlReq", "712.AdptCrvReq", "715.ControllerHb"}
"""What writing leaves other than it was, with nothing behind it: the last request, and the count of heartbeats."""
BY_THEMSELVES = {"701.TotWhInj", "715.DERHb", "701.InvSt", "701.W", "701.WL1", "701.WL2", "701.WL3"}
"""What moves without being written: counters, and power that the first second brings."""


def commissioned(
    specimen: Specimen, out: Path, *flags: str, befall: Befall = nothing, frames: list[bytes] | None = None
) -> tuple[int, Certificate]:
    """Exit status and certificate of a run that writes."""
    status = device(["test", HOST, "--unit", "1", "--write", "--out", str(out), *flags], specimen, befall, frames)
    (path,) = (out / "certificates").iterdir()
    return status, Certificate.from_json(path.read_text())


def states(certificate: Certificate) -> Mapping[str, CaseState]:
    return {case.name: case.state for case in certificate.cases}


def failures(certificate: Certificate) -> Mapping[str, str]:
    return {case.name: case.text for case in certificate.cases if case.state is CaseState.FAILED}


def test_a_device_of_the_profile_passes_every_case_and_is_of_class_a(tmp_path: Path) -> None:
    status, certificate = commissioned(Specimen(PROFILE, serial="SN-1"), tmp_path)
    assert failures(certificate) == {}
    assert status == 0
    assert list(states(certificate)) == [case.name for case in CASES]
    assert [name for name, state in states(certificate).items() if state is not CaseState.PASSED] == ["HB"]
    assert certificate.reversion is ReversionClass.A
    assert certificate.reversion_s == pytest.approx(10.0, abs=1.5)
    assert (certificate.serial, certificate.model, certificate.issued_at > START) == ("SN-1", "Specimen", True)
    assert (tmp_path / "certificates" / "SN-1.json").is_file()


def test_everything_that_was_written_is_put_back(tmp_path: Path) -> None:
    specimen = Specimen(PROFILE)
    specimen.tick(1.0)
    before = bytes(specimen.bank.row(0))
    commissioned(specimen, tmp_path)
    assert differences(specimen, before) - BY_THEMSELVES <= RESTLESS


def test_only_points_that_may_be_written_are_and_the_rest_is_tried_with_what_it_holds(tmp_path: Path) -> None:
    specimen, frames = Specimen(PROFILE), list[bytes]()
    commissioned(specimen, tmp_path, frames=frames)
    inside = [frame for frame in frames if int.from_bytes(frame[8:10], "big") - specimen.base < specimen.bank.registers]
    assert len(frames) - len(inside) == 1, "one write goes beyond the last model, to be refused"
    named = {name.split(".", 1)[0]: name for name in points_written(specimen, inside)}
    assert "704" in named
    refused = {
        name
        for name in points_written(specimen, inside)
        if permission(int(name.split(".", 1)[0]), name.split(".", 1)[1]) is Permission.REFUSED
    }
    assert refused == {"1.Mn"}


def test_without_write_nothing_is_written_and_the_class_stays_open(tmp_path: Path) -> None:
    frames: list[bytes] = []
    assert device(["test", HOST, "--unit", "1", "--out", str(tmp_path)], Specimen(PROFILE), frames=frames) == 0
    assert frames == []
    assert [path.name for path in tmp_path.iterdir()] == ["conformance-SIM-SPECIMEN.xml"], "no certificate"
    suite = ET.parse(tmp_path / "conformance-SIM-SPECIMEN.xml").getroot()[0]
    not_run = [case.get("name", "").split()[0] for case in suite if case.find("skipped") is not None]
    assert not_run == [case.name for case in CASES if case.does]


def test_a_device_that_lets_go_without_its_heartbeat_is_of_class_b(tmp_path: Path) -> None:
    status, certificate = commissioned(Specimen(PROFILE, manner=Manner(reverts=Reverts.BY_HEARTBEAT)), tmp_path)
    assert set(failures(certificate)) == {"REV-1", "REV-2"}
    assert status == 1
    assert certificate.reversion is ReversionClass.B
    assert certificate.reversion_s == pytest.approx(10.0, abs=1.5)


def test_a_device_that_never_lets_go_is_of_class_c(tmp_path: Path) -> None:
    specimen = Specimen(PROFILE, manner=Manner(reverts=Reverts.NEVER))
    _, certificate = commissioned(specimen, tmp_path)
    assert certificate.reversion is ReversionClass.C
    assert math.isnan(certificate.reversion_s)
    assert specimen.value("704.WMaxLimPctEna") == 0.0, "the test itself has let go of it"


def test_an_older_battery_is_tested_through_its_immediate_controls(tmp_path: Path) -> None:
    status, certificate = commissioned(Specimen(LEGACY), tmp_path)
    assert failures(certificate) == {}
    assert status == 0
    assert certificate.reversion is ReversionClass.A
    without = {name for name, state in states(certificate).items() if state is CaseState.NOT_APPLICABLE}
    assert without == {"CRV-1", "CRV-2", "CRV-3", "HB"}


def test_a_device_that_is_in_use_is_not_tried_and_gets_no_certificate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specimen = Specimen(LEGACY)
    specimen.put("123.WMaxLim_Ena", 1)
    specimen.put("123.WMaxLimPct", 40)
    assert device(["test", HOST, "--unit", "1", "--write", "--json", "--out", str(tmp_path)], specimen) == 1
    found = json.loads(capsys.readouterr().out)
    assert {case["name"]: case["state"] for case in found["cases"]}["REV-1"] == "not run"
    assert found["reversion"] == "unproven"
    assert "not by this test: WMaxLim_Ena of model 123" in found["error"]
    assert list((tmp_path / "certificates").iterdir()) == []
    assert specimen.value("123.WMaxLimPct") == 40.0


FAULTY: Mapping[str, tuple[Fault, set[str]]] = {
    "writes are acknowledged and ignored": (Fault.IGNORE_WRITE, {"MOD-3", "CRV-2", "REV-3"}),
    "timers run out unheard": (Fault.IGNORE_REVERSION, {"REV-1", "REV-2"}),
    "a refresh does not restart the timer": (Fault.EARLY_REVERSION, {"REV-2"}),
}


@pytest.mark.parametrize("how", FAULTY)
def test_a_faulty_device_fails_the_cases_that_are_about_its_fault(how: str, tmp_path: Path) -> None:
    fault, due = FAULTY[how]
    status, certificate = commissioned(Specimen(PROFILE), tmp_path, befall=lambda server: server.fault(fault))
    assert status == 1
    assert due <= set(failures(certificate))


def test_points_of_the_profile_that_are_lacking_are_named(tmp_path: Path) -> None:
    specimen = Specimen(PROFILE)
    specimen.put("702.VAMaxRtg", math.nan)
    specimen.put("703.ESDlyTms", math.nan)
    _, certificate = commissioned(specimen, tmp_path)
    text = failures(certificate)["MOD-1"]
    assert "VAMaxRtg of model 702" in text
    assert "ESDlyTms of model 703" in text


def test_a_scale_factor_beyond_ten_is_found(tmp_path: Path) -> None:
    specimen = Specimen(PROFILE)
    specimen.bank.set_raw(0, "701.V_SF", 11)
    _, certificate = commissioned(specimen, tmp_path)
    assert failures(certificate)["SF"] == "V_SF of model 701 is 11"


def test_ctrl_c_in_the_middle_of_a_reversion_leaves_the_device_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specimen = Specimen(PROFILE)

    async def talk(loop: SimulatedLoop) -> None:
        async with served(specimen):
            work = command(["test", HOST, "--unit", "1", "--write", "--out", str(tmp_path)])
            running = asyncio.ensure_future(work(LoopClock(loop, START), random.Random(1)))
            await shows(specimen, "704.WMaxLimPctEna", 1.0)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    run_simulated(talk, seed=1)
    assert specimen.value("704.WMaxLimPctEna") == 0.0
    assert specimen.value("704.WMaxLimPct") == 100.0
    assert specimen.value("704.WMaxLimPctRvrtTms") == 0.0
    said = capsys.readouterr()
    assert "interrupted in REV-1; everything was put back" in said.err
    assert "MOD-3  Point write            passed" in said.out
    assert (tmp_path / "conformance-SIM-SPECIMEN.xml").is_file()
    assert list((tmp_path / "certificates").iterdir()) == []


def test_another_device_at_the_address_is_not_written_to_even_to_put_things_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specimen, stranger = Specimen(PROFILE), Specimen(PROFILE, serial="STRANGER")

    async def talk(loop: SimulatedLoop) -> int:
        async with served(specimen) as server:
            work = command(["test", HOST, "--unit", "1", "--write", "--out", str(tmp_path)])
            running = asyncio.ensure_future(work(LoopClock(loop, START), random.Random(1)))
            await shows(specimen, "704.WMaxLimPctEna", 1.0)
            swap(server)
            return await running

    def swap(server: Endpoint) -> None:
        server.units = {1: stranger}
        for link in tuple(server.links):
            link.abort()

    assert run_simulated(talk, seed=1) == 1
    assert (
        "not put back: serial number 'STRANGER' answers now, 'SIM-SPECIMEN' was under test" in capsys.readouterr().err
    )
    assert sum(stranger.writes.values()) == 0


def test_the_junit_file_counts_what_the_table_says(tmp_path: Path) -> None:
    _, certificate = commissioned(Specimen(PROFILE, manner=Manner(reverts=Reverts.BY_HEARTBEAT)), tmp_path)
    suite = ET.parse(tmp_path / "conformance-SIM-SPECIMEN.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == (str(len(CASES)), "2", "0")
    assert [case.get("name", "").split()[0] for case in suite] == [case.name for case in certificate.cases]


def test_programs_get_the_result_as_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commissioned(Specimen(LEGACY), tmp_path, "--json")
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["ok"], found["reversion"], found["serial"]) == (True, "A", "SIM-SPECIMEN")
    assert [case["name"] for case in found["cases"]] == [case.name for case in CASES]
    assert "these cases write to the device" in said.err


def test_a_device_that_is_unplugged_keeps_the_cases_so_far_and_says_what_it_may_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specimen = Specimen(PROFILE)

    async def talk(loop: SimulatedLoop) -> int:
        async with served(specimen) as server:
            work = command(["test", HOST, "--unit", "1", "--write", "--out", str(tmp_path)])
            running = asyncio.ensure_future(work(LoopClock(loop, START), random.Random(1)))
            await shows(specimen, "704.WMaxLimPctEna", 1.0)
            server.fault(Fault.STOP)
            return await running

    assert run_simulated(talk, seed=1) == 1
    said = capsys.readouterr()
    assert "the device was lost in REV-1; not put back: " in said.err
    assert "model 704 may still hold WMaxLimPctEna = 1 (before: 0), WMaxLimPct = 90 (before: 100)" in said.err
    assert "its own reversion timer is due to let go of it within 10 s" in said.err
    suite = ET.parse(tmp_path / "conformance-SIM-SPECIMEN.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == (str(len(CASES)), "0", "1")
    assert [case.get("name", "").split()[0] for case in suite if case.find("error") is not None] == ["REV-1"]
    assert list((tmp_path / "certificates").iterdir()) == []


def test_a_change_by_another_master_fails_the_case_and_there_is_no_certificate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specimen = Specimen(PROFILE)

    async def talk(loop: SimulatedLoop) -> int:
        async with served(specimen):
            work = command(["test", HOST, "--unit", "1", "--write", "--json", "--out", str(tmp_path)])
            running = asyncio.ensure_future(work(LoopClock(loop, START), random.Random(1)))
            await shows(specimen, "704.WMaxLimPctEna", 1.0)
            await asyncio.sleep(3.0)
            specimen.put("704.WMaxLimPct", 50)
            return await running

    assert run_simulated(talk, seed=1) == 1
    found = json.loads(capsys.readouterr().out)
    assert "WMaxLimPct of model 704 went from" in {case["name"]: case["text"] for case in found["cases"]}["REV-1"]
    assert "not alone with the device" in found["error"]
    assert list((tmp_path / "certificates").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused_before_the_device_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    asked: list[bytes] = []
    arguments = ["test", HOST, "--unit", "1", "--write", "--json", "--out", str(tmp_path / "file" / "below")]
    assert device(arguments, Specimen(PROFILE), frames=asked) == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], asked) == (False, [])
    assert "give a folder in which this user may write files" in found["error"]


def test_pads_are_not_missing_and_all_that_is_missing_is_named(tmp_path: Path) -> None:
    specimen = Specimen((*PROFILE[:-1], 803))
    lacking = ["WMaxRtg", "VAMaxRtg", "VNomRtg", "VMaxRtg", "VMinRtg", "AMaxRtg", "VarMaxInjRtg", "VarMaxAbsRtg"]
    for name in lacking:
        specimen.put(f"702.{name}", math.nan)
    _, certificate = commissioned(specimen, tmp_path)
    text = failures(certificate)["MOD-1"]
    assert "Pad" not in text
    assert all(f"{name} of model 702" in text for name in lacking)


def test_ctrl_c_on_the_way_back_does_not_keep_the_way_back_from_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specimen = Specimen(PROFILE)

    async def talk(loop: SimulatedLoop) -> None:
        async with served(specimen):
            work = command(["test", HOST, "--unit", "1", "--write", "--out", str(tmp_path)])
            running = asyncio.ensure_future(work(LoopClock(loop, START), random.Random(1)))
            active_s = specimen.value("705.Crv[0].RspTms")
            while specimen.value("705.Crv[0].RspTms") == active_s:  # noqa: ASYNC110 - simulated time passes at once
                await asyncio.sleep(0.1)
            await shows(specimen, "705.Crv[1].RspTms", active_s)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert specimen.value("705.Crv[0].RspTms") == active_s

    run_simulated(talk, seed=1)
    assert "interrupted in CRV-2; everything was put back" in capsys.readouterr().err


def test_of_two_runs_at_once_neither_gives_a_certificate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    specimen = Specimen(PROFILE)

    async def talk(loop: SimulatedLoop) -> list[int]:
        async with served(specimen):

            async def run(name: str, after_s: float) -> int:
                await asyncio.sleep(after_s)
                work = command(["test", HOST, "--unit", "1", "--write", "--out", str(tmp_path / name)])
                return await work(LoopClock(loop, START), random.Random(1))

            return list(await asyncio.gather(run("one", 0.0), run("two", 4.0)))

    assert run_simulated(talk, seed=1) == [1, 1]
    assert capsys.readouterr().err.count("no certificate, the test was not alone with the device") == 2
    assert list(tmp_path.glob("*/certificates/*")) == []
