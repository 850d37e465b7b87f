"""Commands of other masters where we hold nothing: seen in polls, asked about, told once, and left or released."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from derms.domain.alarm import Severity
from derms.domain.dispatch import Command, Held, Quantity
from derms.domain.scope import Level, Scope
from derms.errors import DeviceUnreachable
from derms.link.orders import Show, Shown
from derms.service.order_desk import OrderDesk
from derms.service.order_texts import shown_text
from drivers.sunspec.driver import SunSpecDriver
from tests.field.rig import QUICK, Rig, in_the_field

PATIENT = replace(QUICK, reversion_s=3000.0, validity_s=1e5)
TURN_S = 61.0
"""An interval of every device, in which each is looked at once."""


class Asked(SunSpecDriver):
    """A driver that counts the questions what its device holds, and can fail to answer them."""

    asked = 0
    fails: Exception | None = None

    async def read_back(self, quantity: Quantity) -> Held:
        self.asked += 1
        if self.fails is not None:
            raise self.fails
        return await super().read_back(quantity)


def driver_of(rig: Rig, device: str) -> Asked:
    driver = rig.sessions[device]
    assert isinstance(driver, Asked)
    return driver


async def another_writes(rig: Rig, device: str, quantity: Quantity, value_w: float | None, timer_s: float) -> None:
    """What another master does; the reading that shows it comes within a poll."""
    await rig.sessions[device].write(Command(quantity, value_w, timer_s))
    await asyncio.sleep(12.0)


async def started(rig: Rig) -> None:
    """The first look at every device is over, and nothing was found."""
    await rig.turns(TURN_S)
    assert rig.events_of("pv01") == rig.events_of("bat01") == []


def test_a_foreign_limit_that_comes_after_the_start_is_told_once_with_its_value_and_stays(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await started(rig)
        await another_writes(rig, "pv01", Quantity.P_LIMIT, 7e3, 0.0)
        await rig.turns(5 * TURN_S)
        (event,) = rig.events
        assert (event.source, event.kind) == ("pv01", "foreign-command")
        assert "limit of 7.00 kW without a reversion timer" in event.text
        await rig.reconciler.hand_back()
        assert rig.holding() == {"pv01"}
        assert rig.outcomes == []

    in_the_field(scenario, tmp_path, devices=("pv01", "bat01"), dispatch=PATIENT)


def test_a_limit_of_zero_that_no_order_and_no_timer_ends_is_an_alarm_and_shown(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await another_writes(rig, "pv01", Quantity.P_LIMIT, 0.0, 0.0)
        await rig.turns(2 * TURN_S)
        (event,) = rig.events
        assert (event.source, event.kind, event.severity) == ("pv01", "foreign-command", Severity.ALARM)
        found = await OrderDesk(rig.orders, rig.reconciler).show(Show(Scope(Level.DEVICE, "pv01")), "ann")
        assert isinstance(found, Shown)
        assert shown_text(found).endswith(", holds a command that is not ours")

    in_the_field(scenario, tmp_path, devices=("pv01",), dispatch=PATIENT)


def test_a_foreign_limit_is_told_a_second_time_only_after_it_was_gone(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await started(rig)
        await another_writes(rig, "pv01", Quantity.P_LIMIT, 7e3, 0.0)
        await rig.turns(TURN_S)
        await another_writes(rig, "pv01", Quantity.P_LIMIT, 6e3, 0.0)
        await rig.turns(TURN_S)
        assert rig.events_of("pv01") == ["foreign-command"]
        await another_writes(rig, "pv01", Quantity.P_LIMIT, None, 0.0)
        await rig.turns(TURN_S)
        await another_writes(rig, "pv01", Quantity.P_LIMIT, 5e3, 0.0)
        await rig.turns(2 * TURN_S)
        assert rig.events_of("pv01") == ["foreign-command"] * 2
        assert "5.00 kW" in rig.events[-1].text

    in_the_field(scenario, tmp_path, devices=("pv01", "bat01"), dispatch=PATIENT)


def test_a_foreign_setpoint_with_a_timer_is_told_and_released_while_limits_of_ours_stay(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await started(rig)
        rig.want(p_limit_w={"pv01": 5e3}, valid_s=1e5)
        await rig.turns(TURN_S)
        for round_ in (1, 2):
            await another_writes(rig, "bat01", Quantity.P_SET, -3e3, 3000.0)
            assert rig.holding() == {"pv01", "bat01"}
            await rig.turns(2 * TURN_S)
            assert rig.holding() == {"pv01"}
            assert rig.events_of("bat01") == ["foreign-command"] * round_
        assert "setpoint of -3.00 kW that is not ours: it is released" in rig.events[-1].text
        assert rig.events_of("pv01") == []

    in_the_field(scenario, tmp_path, devices=("pv01", "bat01"), dispatch=PATIENT)


def test_a_master_that_insists_on_a_device_without_a_plan_has_it_after_some_releases(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await started(rig)

        async def insisting() -> None:
            while True:
                await another_writes(rig, "bat01", Quantity.P_SET, -2e3, 3000.0)

        meddling = asyncio.ensure_future(insisting())
        await rig.turns(10 * TURN_S)
        assert rig.events_of("bat01") == ["foreign-command"] * 3 + ["conflict"]
        assert rig.ended("bat01") == ["Applied"] * 2
        assert rig.holding() == {"bat01"}
        meddling.cancel()

    in_the_field(scenario, tmp_path, devices=("pv01", "bat01"), dispatch=replace(PATIENT, corrections_per_h=2))


def test_a_plan_that_wants_the_device_replaces_a_foreign_value_without_another_word(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await started(rig)
        await another_writes(rig, "pv01", Quantity.P_LIMIT, 7e3, 0.0)
        await rig.turns(TURN_S)
        rig.want(p_limit_w={"pv01": 5e3}, valid_s=1e5)
        await rig.turns(2 * TURN_S)
        assert (await rig.sessions["pv01"].read_back(Quantity.P_LIMIT)).value_w == pytest.approx(5e3, abs=10.0)
        assert rig.events_of("pv01") == ["foreign-command"]

    in_the_field(scenario, tmp_path, devices=("pv01", "bat01"), dispatch=PATIENT)


def test_looking_for_foreign_commands_asks_no_device_that_holds_nothing_or_ours(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await started(rig)
        rig.want(p_limit_w={"pv01": 5e3}, valid_s=1e5)
        await rig.turns(TURN_S)
        idle, commanded = driver_of(rig, "bat01"), driver_of(rig, "pv01")
        idle.asked = commanded.asked = written = 0
        written -= rig.reconciler.counts.writes
        await rig.turns(4 * TURN_S)
        written += rig.reconciler.counts.writes
        assert written >= 4
        assert (idle.asked, commanded.asked) == (0, 2 * written)  # before each write, and after it

    in_the_field(scenario, tmp_path, devices=("pv01", "bat01"), dispatch=PATIENT, driver=Asked)


def test_a_device_that_does_not_tell_what_it_holds_is_asked_again_until_it_does(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await started(rig)
        await another_writes(rig, "pv01", Quantity.P_LIMIT, 7e3, 0.0)
        driver_of(rig, "pv01").fails = DeviceUnreachable("no answer in time")
        await rig.turns(2 * TURN_S)
        assert rig.events_of("pv01") == []
        driver_of(rig, "pv01").fails = None
        await rig.turns(2 * TURN_S)
        assert rig.events_of("pv01") == ["foreign-command"]

    in_the_field(scenario, tmp_path, devices=("pv01", "bat01"), dispatch=PATIENT, driver=Asked)


def test_a_driver_that_fails_over_a_foreign_command_is_asked_about_it_once(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await started(rig)
        await another_writes(rig, "pv01", Quantity.P_LIMIT, 7e3, 0.0)
        driver_of(rig, "pv01").fails = ValueError("cannot convert float NaN to integer")
        await rig.turns(4 * TURN_S)
        assert rig.events_of("pv01") == ["driver-failed"]

    in_the_field(scenario, tmp_path, devices=("pv01", "bat01"), dispatch=PATIENT, driver=Asked)


def test_after_a_conflict_is_over_the_first_overwrite_is_told_again(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        async def insisting() -> None:
            while True:
                await another_writes(rig, "bat01", Quantity.P_SET, -2e3, 3000.0)

        rig.want({"bat01": 6e3}, valid_s=1e5)
        meddling = asyncio.ensure_future(insisting())
        await rig.turns(3 * TURN_S)
        assert rig.events_of("bat01").count("command-overwritten") == 1
        assert rig.events_of("bat01")[-2:] == ["conflict", "command-rejected"]
        rig.events.clear()
        await rig.turns(3680.0)
        told = [kind for kind in rig.events_of("bat01") if kind != "command-notfollowing"]
        assert told == ["conflict-over", "command-overwritten"]
        meddling.cancel()

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=replace(PATIENT, corrections_per_h=1))
