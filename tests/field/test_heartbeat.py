"""The heartbeat on a simulated fleet: what is held stays held without a single turn, and reversion is watched."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from derms.domain.dispatch import Capabilities, Held, Quantity
from derms.domain.settings import DispatchSettings, FieldSettings
from derms.domain.telemetry import Identity
from drivers.sunspec.driver import SunSpecDriver
from hil.server import Fault
from tests.field.rig import QUICK, Rig, in_the_field

PAIR = ("bat01", "bat03")
"""A battery that tells the time left to its reversion, and one that does not."""
ONE_TURN = replace(QUICK, interval_s=15.0)
"""Every device has its turn at once."""


def test_refreshing_is_at_most_a_third_of_the_reversion_time_apart() -> None:
    assert DispatchSettings().refresh_every_s == 300.0
    assert DispatchSettings(reversion_s=300.0).refresh_every_s == 100.0
    assert DispatchSettings(refresh_s=60.0).refresh_every_s == 60.0


def test_what_devices_hold_outlives_its_reversion_time_without_a_turn(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 4e3, "bat03": -4e3}, valid_s=3000.0)
        await rig.turns(1.0)
        assert rig.holding() == set(PAIR)
        await rig.beats(1200.0)  # four times the reversion time
        assert rig.holding() == set(PAIR)
        assert rig.true_w("bat01") == pytest.approx(4e3)
        assert rig.heartbeat.refreshed >= 2 * 14
        assert rig.events == []
        assert rig.world.tap.violations == []
        assert len(rig.outcomes) <= 2  # a refresh is no command

    in_the_field(scenario, tmp_path, devices=PAIR, dispatch=ONE_TURN)


def test_a_dispatch_that_is_not_valid_any_more_is_not_refreshed(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 4e3}, valid_s=200.0)
        await rig.turns(1.0)
        await rig.beats(390.0)
        assert rig.holding() == {"bat01"}  # refreshed up to its validity, reverts after it
        await rig.beats(200.0)
        assert rig.holding() == set()

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=ONE_TURN)


def test_a_value_that_a_guard_would_change_now_is_left_to_its_timer(tmp_path: Path) -> None:
    """A refresh is a command in effect: what may not go out may not be prolonged either."""

    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 4e3})
        await rig.turns(1.0)
        rig.world.state.soc_frac[rig.world_row("bat01")] = 0.1
        await rig.beats(400.0)
        assert rig.holding() == set()
        assert rig.heartbeat.refreshed == 0
        assert rig.world.tap.violations == []

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=ONE_TURN)


def test_a_timer_that_was_due_while_its_device_was_away_is_armed_when_it_is_back(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 4e3}, valid_s=3000.0)
        await rig.turns(1.0)
        await rig.beats(60.0)
        rig.world.servers["bat01"].fault(Fault.STOP)
        await rig.beats(60.0)
        assert rig.heartbeat.refreshed == 0
        await rig.world.servers["bat01"].heal()
        await rig.beats(600.0)
        assert rig.holding() == {"bat01"}

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=ONE_TURN)


def test_what_was_released_is_not_refreshed(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 4e3})
        await rig.turns(1.0)
        await rig.reconciler.hand_back()
        writes = len(rig.wire)
        await rig.beats(400.0)
        assert len(rig.wire) == writes

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=ONE_TURN)


def test_devices_are_refreshed_each_at_its_own_time(tmp_path: Path) -> None:
    devices = ("bat01", "bat02", "bat04", "bat05", "bat06")

    async def scenario(rig: Rig) -> None:
        rig.want(dict.fromkeys(devices, 2e3))
        await rig.turns(1.0)
        rig.wire.clear()
        await rig.beats(85.0)
        first_s: dict[str, float] = {}
        for at_s, device in rig.wire:
            first_s.setdefault(device, at_s)
        assert set(first_s) == set(devices)
        assert max(first_s.values()) - min(first_s.values()) > 10.0

    in_the_field(scenario, tmp_path, devices=devices, dispatch=ONE_TURN)


def test_fault_19_a_timer_that_runs_out_though_it_is_refreshed_is_an_alarm_and_the_value_is_written_again(
    tmp_path: Path,
) -> None:
    settings = replace(QUICK, interval_s=300.0, reversion_s=240.0)

    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 4e3})
        await rig.turns(301.0)
        rig.world.servers["bat01"].fault(Fault.EARLY_REVERSION)
        await rig.beats(150.0)
        assert rig.events_of("bat01") == ["reversion-lost"]  # the time left is shorter than it must be
        await rig.beats(200.0)
        assert rig.holding() == set()  # it has reverted, as it said it would
        await rig.turns_and_beats(301.0)
        assert rig.holding() == {"bat01"}
        assert set(rig.events_of("bat01")) == {"reversion-lost"}

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=settings)


def test_a_timer_that_does_not_count_down_is_an_alarm_once(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.world.servers["bat01"].fault(Fault.IGNORE_REVERSION)
        rig.want({"bat01": 4e3})
        await rig.turns(1.0)
        await rig.beats(300.0)
        assert rig.events_of("bat01") == ["reversion-lost"]
        assert rig.holding() == {"bat01"}
        await rig.world.servers["bat01"].heal()
        await rig.beats(300.0)
        rig.world.servers["bat01"].fault(Fault.IGNORE_REVERSION)
        await rig.beats(300.0)
        assert rig.events_of("bat01") == ["reversion-lost"] * 2

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=ONE_TURN)


def test_a_value_of_another_master_is_not_kept_alive(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 4e3})
        await rig.turns(1.0)
        holding = rig.reconciler.holdings[0, Quantity.P_SET]
        rig.reconciler.holdings[0, Quantity.P_SET] = replace(
            holding, held=replace(holding.held, value_w=4.5e3)
        )  # as if it had been given another value than it holds
        await rig.beats(400.0)
        assert rig.heartbeat.refreshed == 0
        assert rig.events_of("bat01") == ["command-overwritten"]
        assert rig.holding() == set()

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=ONE_TURN)


def test_a_refresh_that_does_not_come_through_is_tried_again_before_the_time_is_over(tmp_path: Path) -> None:
    class Flaky(SunSpecDriver):
        async def refresh(self, quantity: Quantity, reversion_s: float) -> Held:
            if len(tried) < 3:
                tried.append(reversion_s)
                self._unit.disconnect()
            return await super().refresh(quantity, reversion_s)

    tried: list[float] = []

    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 4e3})
        await rig.turns(1.0)
        await rig.beats(600.0)
        assert len(tried) == 3
        assert rig.holding() == {"bat01"}

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=ONE_TURN, driver=Flaky)


class Beating(SunSpecDriver):
    """A battery with a heartbeat register."""

    beats: int = 0
    own: int = 0
    still: bool = False

    @property
    def identity(self) -> Identity:
        return replace(super().identity, capabilities=Capabilities(heartbeat=True))

    async def beat(self) -> int | None:
        self.beats += 1
        self.own += not self.still
        return self.own


def test_a_device_with_a_heartbeat_gets_one_each_second_while_it_is_under_command(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        session = rig.sessions["bat01"]
        assert isinstance(session, Beating)
        await rig.beats(10.0)
        assert session.beats == 0
        rig.want({"bat01": 4e3})
        await rig.turns(1.0)
        await rig.beats(60.5)
        assert 60 <= session.beats <= 62
        await rig.reconciler.hand_back()
        beats = session.beats
        await rig.beats(10.0)
        assert session.beats == beats

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=ONE_TURN, driver=Beating)


def test_a_devices_own_heartbeat_that_stands_still_is_an_alarm_once_until_it_moves_again(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        session = rig.sessions["bat01"]
        assert isinstance(session, Beating)
        rig.want({"bat01": 4e3})
        await rig.turns(1.0)
        await rig.beats(20.0)
        assert rig.events_of("bat01") == []
        session.still = True
        beating = asyncio.ensure_future(rig.beats(40.0))
        await asyncio.sleep(20.0)
        assert rig.events_of("bat01") == ["heartbeat-lost"]
        await asyncio.sleep(10.0)
        session.still = False
        await beating
        assert rig.events_of("bat01") == ["heartbeat-lost", "heartbeat-back"]

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=ONE_TURN, driver=Beating)


class Watchful(SunSpecDriver):
    """Counts how often anybody asks what the device is able to do."""

    looks: int = 0

    @property
    def identity(self) -> Identity:
        self.looks += 1
        return super().identity


def test_while_nothing_is_due_no_device_that_holds_a_value_is_looked_at(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        session = rig.sessions["bat01"]
        assert isinstance(session, Watchful)
        rig.want({"bat01": 4e3})
        await rig.turns(1.0)
        beating = asyncio.ensure_future(rig.beats(100.0))
        await asyncio.sleep(2.0)
        session.looks, looks = 0, []
        for _ in range(50):
            await asyncio.sleep(1.0)
            looks.append(session.looks)
        assert looks[-1] == 0
        await beating
        assert session.looks > 0
        assert rig.heartbeat.refreshed == 1

    quiet = replace(ONE_TURN, reversion_s=270.0)
    standing = FieldSettings(poll_s=120.0, stale_after_s=420.0, frozen_after_s=600.0)
    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=quiet, polling=standing, driver=Watchful)


class Stuck(SunSpecDriver):
    """A driver that comes back from no refresh of bat01."""

    async def refresh(self, quantity: Quantity, reversion_s: float) -> Held:
        if self._device.id == "bat01":
            await asyncio.Event().wait()
        return await super().refresh(quantity, reversion_s)


def test_a_refresh_that_never_ends_keeps_neither_the_others_from_theirs_nor_its_device_from_commands(
    tmp_path: Path,
) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 4e3, "bat03": -4e3}, valid_s=3000.0)
        await rig.turns(29.0)
        await rig.beats(600.0)
        assert rig.holding() == {"bat03"}
        rig.outcomes.clear()
        await rig.turns(61.0)
        assert rig.ended("bat01")[1:] == ["Applied"] * 4
        assert rig.holding() == set(PAIR)

    in_the_field(scenario, tmp_path, devices=PAIR, dispatch=ONE_TURN, driver=Stuck)
