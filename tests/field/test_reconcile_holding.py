"""Devices that do not hold what they were given: rebooted, written to by another master, or half obedient."""

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest

from derms.domain.dispatch import Command, Failed, Held, Quantity, Rejected, Unknown
from derms.errors import DeviceUnreachable, ProtocolViolation
from derms.ports import DeviceDriver
from drivers.registry import drivers
from drivers.sunspec.driver import SunSpecDriver
from hil.server import Fault
from tests.field.rig import OPTIONS, QUICK, Rig, in_the_field

PATIENT = replace(QUICK, reversion_s=3000.0)


async def another_master(rig: Rig, device: str) -> DeviceDriver:
    """A second controller with a session of its own."""
    found = [each for each in rig.fleet.devices if each.id == device]
    driver = drivers().open(found, rig.clock, OPTIONS, random.Random(2))[device]
    await driver.connect()
    return driver


def test_fault_16_a_setpoint_lost_in_a_reboot_is_written_again_within_one_interval(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 6e3})
        await rig.turns(61.0)
        rig.world.servers["bat01"].fault(Fault.REBOOT)
        await asyncio.sleep(5.0)
        await rig.world.servers["bat01"].heal()
        assert rig.holding() == set()
        await asyncio.sleep(30.0)
        rig.events.clear()
        await rig.turns(61.0)
        assert rig.holding() == {"bat01"}
        assert rig.true_w("bat01") == pytest.approx(6e3)
        assert rig.events_of("bat01") == ["command-lost"]
        assert rig.last("bat01").plan_id == 7

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=PATIENT)


def test_a_value_that_another_master_wrote_is_noticed_and_corrected_within_one_interval(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 6e3})
        await rig.turns(61.0)
        other = await another_master(rig, "bat01")
        await other.write(Command(Quantity.P_SET, -2e3, 3000.0))
        await rig.turns(61.0)
        assert (await other.read_back(Quantity.P_SET)).value_w == pytest.approx(6e3)
        assert rig.events_of("bat01") == ["command-overwritten"]
        await rig.turns(61.0)
        assert rig.events_of("bat01") == ["command-overwritten"]
        await other.write(Command(Quantity.P_SET, -3e3, 3000.0))
        await rig.turns(61.0)
        assert rig.events_of("bat01") == ["command-overwritten"] * 2
        other.disconnect()

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=PATIENT)


def test_fault_22_a_device_that_another_master_keeps_writing_to_is_handed_over_for_an_hour(tmp_path: Path) -> None:
    settings = replace(PATIENT, corrections_per_h=3, validity_s=1e5)

    async def scenario(rig: Rig) -> None:
        other = await another_master(rig, "bat01")
        rig.want({"bat01": 6e3, "bat02": 5e3}, valid_s=1e5)

        async def insisting() -> None:
            while True:
                await asyncio.sleep(20.0)
                await other.write(Command(Quantity.P_SET, -2e3, 3000.0))

        meddling = asyncio.ensure_future(insisting())
        await rig.turns(400.0)
        assert rig.events_of("bat01").count("conflict") == 1
        assert rig.last("bat01").outcome == Rejected("conflict")
        assert rig.reconciler.handed_over == ["bat01"]
        ours = len(rig.outcomes)
        await rig.turns(1800.0)
        assert {record.device_id for record in rig.outcomes[ours:]} == {"bat02"}
        meddling.cancel()
        await rig.reconciler.hand_back()
        assert (await other.read_back(Quantity.P_SET)).value_w == pytest.approx(-2e3)  # not ours to release
        rig.want({"bat01": 6e3}, valid_s=1e5)
        await rig.turns(2000.0)
        assert rig.events_of("bat01")[-1] == "conflict-over"
        assert rig.reconciler.handed_over == []
        assert (await other.read_back(Quantity.P_SET)).value_w == pytest.approx(6e3)
        other.disconnect()

    in_the_field(scenario, tmp_path, devices=("bat01", "bat02"), dispatch=settings)


def test_after_an_answer_that_cannot_be_believed_what_the_device_holds_decides(tmp_path: Path) -> None:
    class Mumbling(SunSpecDriver):
        async def write(self, command: Command) -> None:
            await super().write(command)
            raise ProtocolViolation("took only WSet: illegal data value")

    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 5e3})
        await rig.turns(100.0)
        assert rig.ended("bat01")[0] == "Applied"

    in_the_field(scenario, tmp_path, devices=("bat01",), driver=Mumbling)


def test_a_command_of_which_a_part_was_taken_has_failed_and_says_which(tmp_path: Path) -> None:
    class Half(SunSpecDriver):
        async def write(self, command: Command) -> None:
            raise ProtocolViolation("took only WSet: illegal data value")

    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 5e3})
        await rig.turns(61.0)
        why = "took only WSet: illegal data value; wrote 5000 W, read back disabled"
        assert rig.outcomes[0].outcome == Failed(why)

    in_the_field(scenario, tmp_path, devices=("bat01",), driver=Half)


def test_a_look_at_what_is_held_that_does_not_come_through_holds_no_command_up(tmp_path: Path) -> None:
    class Shy(SunSpecDriver):
        looks = 0

        async def read_back(self, quantity: Quantity) -> Held:
            Shy.looks += 1
            if Shy.looks == 4:  # after two questions at the start, and the read-back of the first command
                raise DeviceUnreachable("no answer")
            return await super().read_back(quantity)

    async def scenario(rig: Rig) -> None:
        Shy.looks = 0
        rig.want({"bat01": 5e3})
        await rig.turns(125.0)
        assert Shy.looks > 3
        assert set(rig.ended("bat01")) == {"Applied"}

    in_the_field(scenario, tmp_path, devices=("bat01",), driver=Shy)


class Dividing(SunSpecDriver):
    """A driver that stumbles over what one of its devices says."""

    async def write(self, command: Command) -> None:
        if self._device.id == "bat01":
            raise ZeroDivisionError("float division by zero")
        await super().write(command)


def test_a_driver_that_fails_in_a_way_nobody_expected_costs_its_own_command_only(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 6e3, "bat03": 6e3})
        await rig.turns(61.0)
        assert rig.holding() == {"bat03"}
        (outcome,) = {type(record.outcome) for record in rig.outcomes if record.device_id == "bat01"}
        assert outcome is Unknown
        assert "ZeroDivisionError" in str(rig.last("bat01").outcome)

    in_the_field(scenario, tmp_path, devices=("bat01", "bat03"), driver=Dividing)


class Deaf(SunSpecDriver):
    """A driver that stumbles when a timer is to be armed anew."""

    async def refresh(self, quantity: Quantity, reversion_s: float) -> Held:
        if self._device.id == "bat01":
            raise ValueError("cannot convert float NaN to integer")
        return await super().refresh(quantity, reversion_s)


def test_a_refresh_that_fails_in_a_way_nobody_expected_is_said_once_and_the_others_are_refreshed(
    tmp_path: Path,
) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 6e3, "bat03": 6e3}, valid_s=500.0)
        await rig.turns(61.0)
        rig.events.clear()
        await rig.beats(200.0)
        assert rig.events_of("bat01") == ["driver-failed"]
        assert rig.holding() == {"bat01", "bat03"}

    in_the_field(scenario, tmp_path, devices=("bat01", "bat03"), driver=Deaf)


def test_a_limit_without_a_timer_is_not_ours_and_stays_when_we_start(tmp_path: Path) -> None:
    """An installer's export limit: nobody may lift it because a plan has no use for the device."""

    async def scenario(rig: Rig) -> None:
        installer = await another_master(rig, "pv01")
        await installer.write(Command(Quantity.P_LIMIT, 7e3, 0.0))
        installer.disconnect()
        rig.want({})
        await rig.turns(130.0)
        await rig.reconciler.hand_back()
        held = await rig.sessions["pv01"].read_back(Quantity.P_LIMIT)
        assert held.value_w == pytest.approx(7e3, abs=held.resolution_w)
        assert rig.events_of("pv01") == ["foreign-command"]

    in_the_field(scenario, tmp_path, devices=("pv01",))


class Capping(SunSpecDriver):
    """A device that arms at most a minute, whatever it is told."""

    async def write(self, command: Command) -> None:
        await super().write(replace(command, reversion_s=min(60.0, command.reversion_s)))

    async def refresh(self, quantity: Quantity, reversion_s: float) -> Held:
        return await super().refresh(quantity, min(60.0, reversion_s))


def test_a_device_that_shortens_our_reversion_time_is_refreshed_within_its_own(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 6e3}, valid_s=2000.0)
        await rig.turns(121.0)
        for _ in range(20):
            await rig.beats(10.0)
            assert rig.holding() == {"bat01"}

    slow = replace(QUICK, interval_s=120.0, group_s=120.0, reversion_s=400.0)
    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=slow, driver=Capping)
