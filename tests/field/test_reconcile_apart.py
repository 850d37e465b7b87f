"""Devices that are slow or never answer: each costs itself its commands, and the others neither time nor outcome."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from derms.domain.dispatch import Command, Failed, Held, Quantity, Unknown
from derms.domain.telemetry import Identity
from derms.field.reconcile import ERRAND_S, FINISH_S, HAND_BACK_S
from derms.service.simulated import SimulatedLoop
from drivers.sunspec.driver import SunSpecDriver
from tests.field.rig import QUICK, Rig, in_the_field

ONE_GROUP = replace(QUICK, interval_s=15.0, reversion_s=3000.0)
"""Every device has its turn every 15 s."""
OTHERS = ("bat02", "bat03", "bat06")
DEVICES = ("bat01", *OTHERS)
WANTED = dict.fromkeys(DEVICES, 4e3)


class Mute(SunSpecDriver):
    """A driver whose calls to bat01 take a while; for ever, as a rule, from the moment that `silent` is set."""

    silent = False
    takes_s = 1e9
    connects = True
    writing = 0
    written: list[float | None]

    async def _wait(self) -> None:
        if self.silent and self._device.id == "bat01":
            await asyncio.sleep(self.takes_s)

    async def connect(self) -> Identity:
        if not self.connects:
            await self._wait()
        return await super().connect()

    async def write(self, command: Command) -> None:
        assert not self.writing, "one command at a time"
        self.writing += 1
        try:
            await self._wait()
            await super().write(command)
        finally:
            self.writing -= 1


class Unheard(Mute):
    """One that does not even tell what it holds."""

    async def read_back(self, quantity: Quantity) -> Held:
        await self._wait()
        return await super().read_back(quantity)


def mute(rig: Rig, *, takes_s: float = 1e9) -> Mute:
    driver = rig.sessions["bat01"]
    assert isinstance(driver, Mute)
    driver.silent, driver.takes_s = True, takes_s
    return driver


@pytest.mark.parametrize("driver", [Mute, Unheard])
def test_a_device_that_never_answers_holds_up_neither_writes_nor_expiry_of_the_others(
    driver: type[Mute], tmp_path: Path
) -> None:
    async def scenario(rig: Rig) -> None:
        mute(rig)
        rig.want(WANTED, valid_s=100.0)
        start_s = rig.clock.monotonic_s()
        turning = asyncio.ensure_future(rig.reconciler.run())
        await asyncio.sleep(95.0)
        for device in OTHERS:
            at_s = [at_s - start_s for at_s, heard in rig.wire if heard == device]
            assert sorted({int(since_s // 15.0) for since_s in at_s}) == list(range(7))
            assert all(since_s % 15.0 < 1.0 for since_s in at_s)
            assert rig.ended(device) == ["Applied"] * 6
        assert rig.holding() == set(OTHERS)
        await asyncio.sleep(12.0)  # the first turn after the end of its validity is over
        assert rig.holding() == set()
        assert rig.events_of("gateway") == ["dispatch-expired"]
        turning.cancel()
        await asyncio.gather(turning, return_exceptions=True)
        assert {device for _, device in rig.wire} == set(OTHERS)
        rig.reconciler.journal.close()
        rig.assert_each_intent_has_one_outcome()

    in_the_field(scenario, tmp_path, devices=DEVICES, dispatch=ONE_GROUP, driver=driver)


def test_a_command_to_a_device_that_never_answers_ends_in_time_and_the_next_one_is_tried(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        driver = mute(rig)
        rig.want(WANTED)
        await rig.turns(ERRAND_S + 1.0)
        assert rig.last("bat01").outcome == Unknown(f"broken off: the device took more than {ERRAND_S:.0f} s")
        driver.silent = False
        await rig.turns(31.0)
        assert rig.ended("bat01")[1:] == ["Applied"] * 2
        assert rig.holding() == set(DEVICES)

    in_the_field(scenario, tmp_path, devices=DEVICES, dispatch=ONE_GROUP, driver=Mute)


def test_a_command_that_never_got_as_far_as_the_wire_has_failed(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        driver = mute(rig)
        driver.connects = False
        driver.disconnect()
        rig.want(WANTED)
        await rig.turns(ERRAND_S + 1.0)
        assert rig.last("bat01").outcome == Failed(f"broken off: the device took more than {ERRAND_S:.0f} s")
        assert rig.reconciler.holding == list(OTHERS)

    in_the_field(scenario, tmp_path, devices=DEVICES, dispatch=ONE_GROUP, driver=Mute)


def test_a_slow_device_gets_one_command_at_a_time_and_always_the_newest(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        mute(rig, takes_s=20.0)
        turning = asyncio.ensure_future(rig.reconciler.run())
        for number in range(1, 9):  # a new plan with every turn
            rig.want(dict.fromkeys(DEVICES, 1e3 * number))
            await asyncio.sleep(15.0)
        turning.cancel()
        await asyncio.gather(turning, return_exceptions=True)
        told_w = {device: [r.value_w for r in rig.outcomes if r.device_id == device] for device in DEVICES}
        assert told_w["bat01"] == [1e3, 3e3, 5e3]  # while it is busy with one, the next is passed over
        assert told_w["bat02"] == [1e3 * number for number in range(1, 8)]
        assert rig.reconciler.counts.failed == 0

    in_the_field(scenario, tmp_path, devices=DEVICES, dispatch=replace(ONE_GROUP, settle_s=10.0), driver=Mute)


def test_a_device_that_was_busy_in_its_group_has_its_turn_with_the_next_one(tmp_path: Path) -> None:
    """Two groups of 15 s: a device that takes 35 s need not wait until its own place comes round again at 60 s."""

    async def scenario(rig: Rig) -> None:
        mute(rig, takes_s=35.0)
        rig.want(WANTED)
        await rig.turns(150.0)
        at_s = [at_s for at_s, device in rig.wire if device == "bat01"]
        assert len(at_s) >= 3
        assert [late_s - early_s for early_s, late_s in pairwise(at_s)] == pytest.approx(
            [45.0] * (len(at_s) - 1), abs=1.0
        )

    in_the_field(scenario, tmp_path, devices=DEVICES, dispatch=replace(ONE_GROUP, interval_s=30.0), driver=Mute)


def test_stopped_twice_it_breaks_off_what_is_under_way_and_every_command_has_its_outcome(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        mute(rig)
        rig.want(WANTED)
        turning = asyncio.ensure_future(rig.reconciler.run())
        await asyncio.sleep(5.0)
        turning.cancel()
        await asyncio.sleep(FINISH_S - 1.0)
        assert not turning.done()
        turning.cancel()
        await asyncio.gather(turning, return_exceptions=True)
        assert rig.last("bat01").outcome == Unknown("broken off: the service stops")
        rig.sessions["bat01"].disconnect()
        await rig.reconciler.hand_back()
        rig.reconciler.journal.close()
        rig.assert_each_intent_has_one_outcome()

    in_the_field(scenario, tmp_path, devices=DEVICES, dispatch=ONE_GROUP, driver=Mute)


def test_handing_back_waits_for_no_device_but_each_for_itself(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want(WANTED)
        await rig.turns(31.0)
        assert rig.holding() == set(DEVICES)
        mute(rig)
        start_s = rig.clock.monotonic_s()
        handing = asyncio.ensure_future(rig.reconciler.hand_back())
        await asyncio.sleep(1.0)
        assert rig.holding() == {"bat01"}
        await handing
        assert rig.clock.monotonic_s() - start_s == pytest.approx(HAND_BACK_S, abs=1.0)
        assert rig.reconciler.holding == ["bat01"]
        rig.reconciler.journal.close()
        rig.assert_each_intent_has_one_outcome()

    in_the_field(scenario, tmp_path, devices=DEVICES, dispatch=ONE_GROUP, driver=Unheard)


def trace(scenario: Callable[[Rig], Awaitable[None]], folder: Path) -> tuple[str, list[str], str]:
    """What a scenario leaves: bytes on the network with their times, outcomes, and the journal."""
    traces: list[str] = []
    outcomes: list[str] = []

    async def traced(rig: Rig) -> None:
        await scenario(rig)
        rig.reconciler.journal.close()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        traces.append(loop.network.trace_hash)
        outcomes.extend(map(str, rig.outcomes))

    folder.mkdir()
    in_the_field(traced, folder, devices=DEVICES, dispatch=ONE_GROUP, driver=Mute)
    return traces[0], outcomes, (folder / "commands.journal").read_text()


def test_the_same_seed_gives_the_same_trace_with_a_device_that_never_answers(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        mute(rig)
        rig.want(WANTED, valid_s=100.0)
        await rig.turns_and_beats(130.0)

    first, second = trace(scenario, tmp_path / "1"), trace(scenario, tmp_path / "2")
    assert first == second
    assert len(re.findall("INTENT", first[2])) > 25
