"""Reconciliation on a simulated fleet: intent before the wire, one outcome each, and released in the end."""

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from derms.domain.alarm import Severity
from derms.domain.dispatch import (
    Applied,
    Clamped,
    Command,
    CommandRecord,
    Failed,
    Held,
    NotFollowing,
    Quantity,
    Rejected,
    Unknown,
)
from derms.domain.quality import Quality
from derms.domain.settings import DispatchSettings, FieldSettings
from derms.domain.telemetry import Identity
from derms.errors import DeviceRefused
from derms.field import journal
from drivers.sunspec.driver import SunSpecDriver
from hil.server import Fault
from tests.field.rig import QUICK, HeardJournal, Rig, in_the_field

FOUR = ("bat01", "bat03", "pv01", "pv04")
"""A battery and an inverter of the newer and of the older models."""
WANTED = ({"bat01": 12e3, "bat03": -9e3}, {"pv01": 10e3, "pv04": 8e3})
PAIR = ("bat01", "bat02")


def test_what_is_wanted_is_written_read_back_and_its_effect_seen(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want(*WANTED)
        await rig.turns(120.0)
        assert [rig.true_w(device) for device in FOUR] == pytest.approx([12e3, -9e3, 10e3, 8e3], rel=1e-3)
        for device in FOUR:
            assert set(rig.ended(device)) == {"Applied"}
            record = rig.last(device)
            assert isinstance(record.outcome, Applied)
            assert record.outcome.effect_w == pytest.approx(rig.true_w(device), rel=0.03)
            assert record.plan_id == 7
            assert record.value_w == record.wanted_w
        assert rig.last("bat01").quantity is Quantity.P_SET
        assert rig.last("pv01").quantity is Quantity.P_LIMIT
        assert rig.reconciler.counts.failed == 0
        assert rig.reconciler.counts.verified == len(rig.outcomes)
        assert rig.events == []
        assert rig.world.tap.violations == []

    in_the_field(scenario, tmp_path, devices=FOUR)


def test_an_intent_is_durable_before_its_write_reaches_the_wire(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        heard: list[str] = []

        def on_wire(device: str) -> None:
            intents, conclusions = rig.journalled()
            ended = {end.seq for end in conclusions}
            open_ = [intent for intent in intents if intent.device_id == device and intent.seq not in ended]
            assert len(open_) == 1
            heard.append(device)

        rig.on_wire = on_wire
        rig.want(*WANTED)
        await rig.turns(185.0)
        await rig.reconciler.hand_back()
        assert Counter(heard) >= Counter({"bat01": 4, "bat03": 7, "pv01": 4, "pv04": 4})
        assert len(heard) == len(rig.wire)
        rig.reconciler.journal.close()
        rig.assert_each_intent_has_one_outcome()

    in_the_field(scenario, tmp_path, devices=FOUR)


def test_the_writes_of_a_fleet_are_spread_over_the_interval(tmp_path: Path) -> None:
    settings = DispatchSettings()

    async def scenario(rig: Rig) -> None:
        batteries = {d.id: 1e3 for d in rig.fleet.devices if d.id.startswith("bat")}
        inverters = {d.id: 20e3 for d in rig.fleet.devices if d.id.startswith("pv")}
        rig.want(batteries, inverters)
        start_s = rig.clock.monotonic_s()
        await rig.turns(299.0)
        first_s: dict[str, float] = {}
        for at_s, device in rig.wire:
            first_s.setdefault(device, at_s - start_s)
            assert at_s - start_s - first_s[device] < 1.0  # each device once in the interval
        assert len(first_s) == 60
        groups = Counter(int(at_s // 15.0) for at_s in first_s.values())
        assert max(groups.values()) <= 9
        assert len(groups) >= 15
        await rig.turns(15.0)
        assert {device for _, device in rig.wire[-20:]} <= set(first_s)

    in_the_field(scenario, tmp_path, dispatch=settings)


def test_between_support_points_setpoints_follow_the_line(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        start_s = rig.clock.monotonic_s()
        rig.want_ramps({"bat01": (-20e3, 20e3)}, {}, length_s=600.0)
        await rig.turns(700.0)
        times_s = np.array([record.at.timestamp() for record in rig.outcomes])
        since_s = times_s - rig.clock.utc().timestamp() + rig.clock.monotonic_s() - start_s
        values_w = [record.value_w for record in rig.outcomes if record.value_w is not None]
        assert len(values_w) >= 10
        np.testing.assert_allclose(values_w, np.clip(-20e3 + 40e3 * since_s / 600.0, -20e3, 20e3), atol=1.0)

    in_the_field(scenario, tmp_path, devices=("bat01",))


def test_a_clamp_names_its_guard_and_what_was_wanted(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 40e3}, {"pv01": -5e3})
        await rig.turns(120.0)
        battery, inverter = rig.last("bat01").outcome, rig.last("pv01").outcome
        assert isinstance(battery, Clamped)
        assert (battery.by, battery.wanted_w) == ("nameplate", 40e3)
        assert battery.effect_w == pytest.approx(25e3, rel=0.03)
        assert inverter == Clamped("nameplate", -5e3, 0.0)
        assert (rig.last("bat01").value_w, rig.last("pv01").value_w) == (25e3, 0.0)
        assert rig.events == []

    in_the_field(scenario, tmp_path, devices=FOUR)


def test_a_battery_at_its_reserve_is_not_discharged(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.world.state.soc_frac[rig.world_row("bat01")] = 0.1
        await asyncio.sleep(20.0)
        rig.want({"bat01": 20e3, "bat02": 5e3})
        await rig.turns(120.0)
        assert rig.last("bat01").outcome == Clamped("state of charge", 20e3, 0.0)
        assert (rig.true_w("bat01"), rig.true_w("bat02")) == (0.0, 5e3)
        assert rig.world.tap.violations == []

    in_the_field(scenario, tmp_path, devices=PAIR)


def test_a_device_that_is_not_good_gets_no_write_and_the_guard_says_why(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.world.servers["bat01"].fault(Fault.FREEZE)
        await asyncio.sleep(140.0)
        assert rig.quality("bat01") is Quality.SUSPECT
        rig.want({"bat01": 5e3, "bat02": 5e3})
        await rig.turns(120.0)
        assert {device for _, device in rig.wire} == {"bat02"}
        assert rig.last("bat01").outcome == Rejected("quality")
        assert set(rig.ended("bat02")) == {"Applied"}

    in_the_field(scenario, tmp_path, devices=PAIR)


def test_a_device_that_answers_with_an_exception_has_rejected_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(rig: Rig) -> None:
        server_device_failure = 4
        monkeypatch.setattr(rig.world.servers["bat01"], "write", lambda address, data: server_device_failure)
        rig.want({"bat01": 5e3, "bat02": 5e3})
        await rig.turns(120.0)
        outcome = rig.last("bat01").outcome
        assert isinstance(outcome, Rejected)
        assert outcome.by.startswith("device: ")
        assert rig.true_w("bat01") == 0.0
        assert set(rig.ended("bat02")) == {"Applied"}
        assert set(rig.events_of("bat01")) == {"command-rejected"}

    in_the_field(scenario, tmp_path, devices=PAIR)


def test_a_command_that_the_device_does_not_have_is_rejected_off_the_wire(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"pv01": 5e3})
        await rig.turns(61.0)
        assert isinstance(rig.last("pv01").outcome, Rejected)
        assert rig.wire == []

    in_the_field(scenario, tmp_path, devices=FOUR)


def test_a_device_that_acknowledges_and_ignores_is_found_by_the_read_back(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.world.servers["bat01"].fault(Fault.FREEZE)
        rig.want({"bat01": 5e3, "bat02": 5e3})
        await rig.turns(100.0)
        assert rig.last("bat01").outcome == Failed("wrote 5000 W, read back disabled")
        assert set(rig.ended("bat01")) == {"Failed"}
        assert set(rig.events_of("bat01")) == {"command-failed"}
        assert set(rig.ended("bat02")) == {"Applied"}

    in_the_field(scenario, tmp_path, devices=PAIR)


def test_a_device_that_holds_the_value_and_does_not_follow_it_is_found_by_its_power(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.world.commands.permitted[rig.world_row("bat01")] = False
        rig.want({"bat01": 5e3, "bat02": 5e3})
        await rig.turns(110.0)
        assert rig.ended("bat01")[0] == "NotFollowing"
        assert rig.last("bat01").outcome == NotFollowing(0.0)
        assert rig.events_of("bat01")[0] == "command-notfollowing"
        assert set(rig.ended("bat02")) == {"Applied"}

    in_the_field(scenario, tmp_path, devices=PAIR)


def test_an_effect_is_judged_by_readings_from_after_the_write_only(tmp_path: Path) -> None:
    """A battery at rest that is told to rest looks obedient at once; it has to be looked at again."""
    polling = FieldSettings(poll_s=60.0, stale_after_s=130.0, frozen_after_s=200.0)

    async def scenario(rig: Rig) -> None:
        judged_by_s: list[float] = []

        def heard(record: CommandRecord) -> None:
            if isinstance(record.outcome, Applied):
                since_write = (rig.clock.utc() - record.at).total_seconds()
                judged_by_s.append(rig.poller.requested_s(0) - (rig.clock.monotonic_s() - since_write))

        assert isinstance(rig.reconciler.journal, HeardJournal)
        rig.reconciler.journal.heard = heard
        rig.want({"bat01": 0.0})
        await rig.turns(600.0)
        assert len(judged_by_s) >= 2
        assert min(judged_by_s) > 0.0

    in_the_field(scenario, tmp_path, devices=("bat01",), polling=polling, dispatch=replace(QUICK, interval_s=75.0))


def test_a_limit_is_followed_by_any_power_below_it(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.world.commands.permitted[rig.world_row("pv01")] = False
        rig.want({}, {"pv01": 10e3})
        await rig.turns(110.0)
        assert set(rig.ended("pv01")) == {"Applied"}

    in_the_field(scenario, tmp_path, devices=FOUR)


def test_a_connection_lost_in_the_middle_of_a_write_leaves_the_outcome_unknown(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        def cut_once(device: str) -> None:
            if device == "bat01" and not rig.ended("bat01"):
                for link in tuple(rig.world.servers[device].links):
                    link.abort()

        rig.on_wire = cut_once
        rig.want({"bat01": 5e3, "bat02": 5e3})
        await rig.turns(60.0)
        assert isinstance(rig.last("bat01").outcome, Unknown)
        await rig.turns(120.0)
        assert rig.ended("bat01")[0] == "Unknown"
        assert set(rig.ended("bat01")[1:]) == {"Applied"}
        assert set(rig.ended("bat02")) == {"Applied"}

    in_the_field(scenario, tmp_path, devices=PAIR)


def test_a_device_that_cannot_be_reached_costs_the_others_nothing(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.world.servers["bat01"].fault(Fault.STOP)
        rig.want({"bat01": 5e3, "bat02": 5e3})
        await rig.turns(75.0)
        await rig.turns(75.0)
        assert "Failed" in rig.ended("bat01")
        assert set(rig.ended("bat01")) <= {"Failed", "Rejected"}
        assert {device for _, device in rig.wire} == {"bat02"}
        assert set(rig.ended("bat02")) == {"Applied"}

    in_the_field(scenario, tmp_path, devices=PAIR)


def test_after_its_validity_a_dispatch_is_let_go_and_devices_are_released(tmp_path: Path) -> None:
    settings = replace(QUICK, reversion_s=3000.0)

    async def scenario(rig: Rig) -> None:
        rig.want(*WANTED, valid_s=100.0)
        await rig.turns(95.0)
        assert rig.holding() == set(FOUR)
        await rig.turns(120.0)
        assert rig.holding() == set()
        assert all(record.value_w is None for record in rig.outcomes[-4:])
        assert rig.events_of("gateway") == ["dispatch-expired"]
        assert rig.reconciler.counts.failed == 0
        writes = len(rig.wire)
        await rig.turns(120.0)
        assert len(rig.wire) == writes  # released once, then left alone
        assert rig.true_w("bat01") == 0.0
        rig.want(*WANTED)
        await rig.turns(61.0)
        assert rig.holding() == set(FOUR)

    in_the_field(scenario, tmp_path, devices=FOUR, dispatch=settings)


def test_a_device_that_a_newer_plan_no_longer_commands_is_released(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want(*WANTED)
        await rig.turns(61.0)
        rig.want({"bat01": 3e3}, {"pv01": 10e3})
        await rig.turns(61.0)
        assert rig.holding() == {"bat01", "pv01"}
        assert rig.last("bat03").value_w is None
        assert rig.events == []

    in_the_field(scenario, tmp_path, devices=FOUR)


def test_a_device_that_is_not_commanded_is_never_written_to(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 3e3})
        await rig.turns(125.0)
        await rig.reconciler.hand_back()
        assert {device for _, device in rig.wire} == {"bat01"}

    in_the_field(scenario, tmp_path, devices=FOUR)


def test_handing_back_releases_everything_at_once_and_supersedes_what_was_awaited(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.world.commands.permitted[:] = False  # so that the effect of setpoints stays awaited
        rig.want(*WANTED)
        await rig.turns(55.0)
        assert rig.holding() == set(FOUR)
        awaited = [device for device in ("bat01", "bat03") if not rig.ended(device)]
        assert awaited
        started_s = rig.clock.monotonic_s()
        await rig.reconciler.hand_back()
        assert rig.clock.monotonic_s() - started_s < 1.0
        assert rig.holding() == set()
        assert [rig.ended(device) for device in awaited] == [["Superseded", "Applied"]] * len(awaited)
        rig.reconciler.journal.close()
        rig.assert_each_intent_has_one_outcome()

    in_the_field(scenario, tmp_path, devices=FOUR)


def test_a_command_whose_effect_is_still_awaited_gives_way_to_the_next_one(tmp_path: Path) -> None:
    settings = replace(QUICK, settle_s=60.0)

    async def scenario(rig: Rig) -> None:
        rig.world.commands.permitted[rig.world_row("bat01")] = False
        rig.want({"bat01": 5e3})
        await rig.turns(130.0)
        assert rig.ended("bat01")[0] == "Superseded"
        assert rig.reconciler.counts.failed == 0

    in_the_field(scenario, tmp_path, devices=PAIR, dispatch=settings)


def test_without_a_journal_no_setpoint_goes_out_but_releases_do(tmp_path: Path) -> None:
    settings = replace(QUICK, reversion_s=3000.0)

    async def scenario(rig: Rig) -> None:
        rig.want(*WANTED)
        await rig.turns(61.0)
        rig.disk.full = True
        writes = len(rig.wire)
        rig.want({"bat01": -5e3, "bat03": -5e3})
        await rig.turns(61.0)
        assert {device for _, device in rig.wire[writes:]} == {"pv01", "pv04"}
        assert rig.holding() == {"bat01", "bat03"}
        assert rig.last("bat01").outcome == Rejected("journal")
        await rig.reconciler.hand_back()
        assert rig.holding() == set()
        assert rig.events_of("gateway") == ["journal-failed"]

    in_the_field(scenario, tmp_path, devices=FOUR, dispatch=settings)


def test_when_the_journal_can_be_written_again_it_is_said_and_nothing_is_missing_in_it(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.disk.full = True
        rig.want(*WANTED)
        await rig.turns(61.0)
        assert rig.wire == []
        rig.disk.full = False
        await rig.turns(91.0)
        assert rig.holding() == set(FOUR)
        await rig.reconciler.hand_back()
        rig.reconciler.journal.close()
        rig.assert_each_intent_has_one_outcome()
        assert rig.events_of("gateway") == ["journal-failed", "journal-back"]

    in_the_field(scenario, tmp_path, devices=FOUR)


def test_what_was_dropped_while_nothing_could_be_journalled_is_told_when_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PENDING_MOST", 8)

    async def scenario(rig: Rig) -> None:
        rig.disk.full = True
        rig.want(*WANTED)
        await rig.turns(200.0)
        rig.disk.full = False
        await rig.turns(91.0)
        assert rig.holding() == set(FOUR)
        (back,) = (event for event in rig.events if event.kind == "journal-back")
        assert back.severity is Severity.WARNING
        assert "records of before are not in the journal" in back.text

    in_the_field(scenario, tmp_path, devices=FOUR)


def test_every_value_arms_its_reversion_each_device_with_a_time_of_its_own(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 5e3, "bat02": 5e3, "bat04": 5e3})
        await rig.turns(100.0)
        await asyncio.sleep(190.0)
        assert rig.holding() == {"bat01", "bat02", "bat04"}  # refreshed at least once, so still held now
        back_s: dict[str, float] = {}
        for _ in range(150):
            await asyncio.sleep(1.0)
            for device in {"bat01", "bat02", "bat04"} - rig.holding():
                back_s.setdefault(device, rig.clock.monotonic_s())
        assert rig.holding() == set()
        assert all(rig.true_w(device) == 0.0 for device in back_s)
        written_s = {device: at_s for at_s, device in rig.wire}
        lives_s = [back_s[device] - written_s[device] for device in sorted(back_s)]
        assert all(240.0 - 6.0 <= life_s <= 300.0 + 6.0 for life_s in lives_s)
        assert np.ptp(lives_s) > 10.0

    in_the_field(scenario, tmp_path, devices=("bat01", "bat02", "bat04"))


def test_a_turn_that_is_cut_short_still_gives_every_intent_its_outcome(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 5e3, "bat02": 5e3})
        reached = asyncio.Event()

        def hang(device: str) -> None:
            if device == "bat01":
                rig.world.servers[device].fault(Fault.HANG)
                reached.set()

        rig.on_wire = hang
        running = asyncio.ensure_future(rig.reconciler.run())
        await reached.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert rig.ended("bat01") == ["Unknown"]
        rig.on_wire = lambda device: None
        await rig.world.servers["bat01"].heal()
        await rig.reconciler.hand_back()
        rig.reconciler.journal.close()
        rig.assert_each_intent_has_one_outcome()
        assert rig.holding() == set()

    in_the_field(scenario, tmp_path, devices=PAIR)


class Doubtful(SunSpecDriver):
    """A device of which nobody can say what it holds."""

    async def read_back(self, quantity: Quantity) -> Held:
        return replace(await super().read_back(quantity), value_w=float("nan"))


def test_a_read_back_that_is_not_a_number_verifies_nothing(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 5e3})
        await rig.turns(61.0)
        assert isinstance(rig.last("bat01").outcome, Failed)

    in_the_field(scenario, tmp_path, devices=("bat01",), driver=Doubtful)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_befalls_a_fleet_each_intent_has_one_outcome_and_no_value_leaves_the_limits(
    seed: int, tmp_path: Path
) -> None:
    """Faults one after the other and ever new plans, also beyond what devices can do."""
    chance = np.random.default_rng(seed)
    devices = ("bat01", "bat02", "bat03", "bat06", "pv01", "pv04")

    async def scenario(rig: Rig) -> None:
        running = asyncio.ensure_future(rig.reconciler.run())
        for _ in range(25):
            p_set_w = {d: float(chance.uniform(-50e3, 50e3)) for d in devices[:4] if chance.random() < 0.8}
            p_limit_w = {d: float(chance.uniform(-5e3, 50e3)) for d in devices[4:] if chance.random() < 0.8}
            rig.want(p_set_w, p_limit_w, valid_s=100.0)
            server = rig.world.servers[str(chance.choice(devices))]
            server.fault(list(Fault)[int(chance.integers(len(Fault)))])
            await asyncio.sleep(float(chance.uniform(20.0, 60.0)))
            if chance.random() < 0.7:
                await server.heal()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        for device in devices:
            await rig.world.servers[device].heal()
        await asyncio.sleep(150.0)
        await rig.reconciler.hand_back()
        rig.reconciler.journal.close()
        rig.assert_each_intent_has_one_outcome()
        assert len({type(record.outcome) for record in rig.outcomes}) >= 4
        assert rig.world.tap.writes > 40
        assert rig.world.tap.violations == []
        assert rig.holding() == set()

    in_the_field(scenario, tmp_path, devices=devices)


def test_a_setpoint_whose_validity_ends_while_it_waits_for_the_device_is_never_sent(tmp_path: Path) -> None:
    class SlowToConnect(SunSpecDriver):
        slow = False

        async def connect(self) -> Identity:
            await asyncio.sleep(30.0 if self.slow else 0.0)
            return await super().connect()

    async def scenario(rig: Rig) -> None:
        session = rig.sessions["bat01"]
        assert isinstance(session, SlowToConnect)
        session.slow = True
        session.disconnect()
        rig.want({"bat01": 5e3}, valid_s=20.0)
        await rig.turns(31.0)
        assert rig.ended("bat01") == ["Expired"]
        assert rig.wire == []
        assert rig.holding() == set()

    one_group = replace(QUICK, interval_s=15.0)
    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=one_group, driver=SlowToConnect)


class WithoutTimer(SunSpecDriver):
    """A device that takes a setpoint and forgets the time after which it should let it go."""

    async def read_back(self, quantity: Quantity) -> Held:
        return replace(await super().read_back(quantity), reversion_s=self.timer_s)

    timer_s = 0.0


@pytest.mark.parametrize("timer_s", [0.0, float("nan"), 86_400.0])
def test_a_device_that_does_not_arm_its_timer_keeps_no_setpoint(tmp_path: Path, timer_s: float) -> None:
    async def scenario(rig: Rig) -> None:
        session = rig.sessions["bat01"]
        assert isinstance(session, WithoutTimer)
        session.timer_s = timer_s
        rig.want({"bat01": 5e3})
        await rig.turns(61.0)
        assert rig.ended("bat01")[:2] == ["Failed", "Applied"]
        assert rig.outcomes[1].value_w is None
        assert rig.holding() == set()

    in_the_field(scenario, tmp_path, devices=("bat01",), driver=WithoutTimer)


def test_what_a_service_before_us_left_in_a_device_is_released(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.sessions["pv01"].write(Command(Quantity.P_LIMIT, 5e3, 3000.0))
        await rig.sessions["bat03"].write(Command(Quantity.P_SET, 5e3, 3000.0))
        await asyncio.sleep(10.0)
        assert rig.holding() == {"pv01", "bat03"}
        rig.want({"bat01": 5e3})
        await rig.turns(135.0)
        assert rig.holding() == {"bat01"}
        await rig.reconciler.hand_back()
        assert rig.holding() == set()

    in_the_field(scenario, tmp_path, devices=FOUR, dispatch=replace(QUICK, reversion_s=3000.0))


def test_a_command_that_was_written_and_could_not_be_read_back_is_unknown(tmp_path: Path) -> None:
    class Busy(SunSpecDriver):
        written = False

        async def write(self, command: Command) -> None:
            self.written = True
            await super().write(command)

        async def read_back(self, quantity: Quantity) -> Held:
            if self.written:
                raise DeviceRefused("busy", 6)
            return await super().read_back(quantity)

    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 5e3})
        await rig.turns(61.0)
        assert isinstance(rig.outcomes[0].outcome, Unknown)

    in_the_field(scenario, tmp_path, devices=("bat01",), driver=Busy)


def test_a_hand_back_right_after_a_restart_releases_what_the_service_before_left(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        for device in ("bat01", "bat03"):
            await rig.sessions[device].write(Command(Quantity.P_SET, 5e3, 3000.0))
        await asyncio.sleep(10.0)
        assert rig.holding() == {"bat01", "bat03"}
        await rig.reconciler.hand_back()
        await asyncio.sleep(10.0)
        assert rig.holding() == set()
        assert rig.reconciler.holding == []

    in_the_field(scenario, tmp_path, devices=FOUR)
