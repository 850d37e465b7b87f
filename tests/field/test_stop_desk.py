"""Stops at the field: devices are told all at once, each by its own ladder, read back, kept so, and let in again."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from derms.control.latch import Latch, Released
from derms.control.stop_report import NOT_ISOLATION, Progress
from derms.control.stopping import How
from derms.domain.alarm import Severity
from derms.domain.dispatch import Ceasing, Command, Failed, Quantity
from derms.domain.refusal import Refused
from derms.domain.scope import EVERYTHING, Level, Scope
from derms.domain.tags import TagKind
from derms.errors import DeviceUnreachable
from derms.field.ending import CANCELS_MAX
from derms.field.stop_desk import StopDesk, StopSettings
from derms.field.stop_walk import LOOK_S
from derms.link.orders import Show, Shown
from derms.service.order_desk import OrderDesk
from derms.service.order_texts import shown_text
from drivers.sunspec.driver import SunSpecDriver
from hil.server import Fault
from tests.field.rig import QUICK, Rig, in_the_field
from tests.field.scripted import deaf

BATTERIES, PV = ("bat01", "bat02", "bat03"), ("pv01", "pv02", "pv03")
DEVICES = (*PV, *BATTERIES)
"""In the order of the fleet."""
HALF = dict.fromkeys(BATTERIES, 4e3)
SLOW = replace(QUICK, interval_s=15.0, reversion_s=3000.0)
AT_ONCE = StopSettings(stage_w=math.inf)
Story = Callable[[Rig, StopDesk], Awaitable[None]]


def only(device: str) -> Scope:
    return Scope(Level.DEVICE, device)


def desk_of(rig: Rig, settings: StopSettings = AT_ONCE) -> StopDesk:
    path = rig.path.with_name("withdrawn")
    return StopDesk(rig.reconciler, rig.orders, rig.events.append, lambda: 5e6, lambda row: True, settings, path=path)


def told(
    story: Story, folder: Path, *, settings: StopSettings = AT_ONCE, devices: Sequence[str] = DEVICES, **named: Any
) -> None:
    """Tell a story with a desk that runs beside turns and heartbeat, as in a gateway."""

    async def scenario(rig: Rig) -> None:
        desk = desk_of(rig, settings)
        parts = [asyncio.ensure_future(part.run()) for part in (rig.reconciler, rig.heartbeat, desk)]
        rig.want(HALF)
        await asyncio.sleep(16.0)
        await story(rig, desk)
        for part in parts:
            assert not part.done()
            part.cancel()
        await asyncio.gather(*parts, return_exceptions=True)

    in_the_field(scenario, folder, devices=devices, dispatch=named.pop("dispatch", SLOW), **named)


def progress(desk: StopDesk, number: int, *, detail: bool = False) -> Progress:
    found = desk.status(number, detail=detail)
    assert isinstance(found, Progress)
    return found


def given(desk: StopDesk, how: How, scope: Scope = EVERYTHING, **named: Any) -> int:
    number = desk.stop(how, scope, "ann", **named)
    assert isinstance(number, int)
    return number


async def released(desk: StopDesk, number: int) -> None:
    assert isinstance(await desk.release(number, "ann"), Latch)
    assert isinstance(await desk.release(number, "ben", remote=True), Released)


def permitted(rig: Rig, device: str) -> bool:
    return bool(rig.world.commands.permitted[rig.world_row(device)])


def test_all_cease_are_confirmed_at_once_and_nothing_moves_them_while_it_is_latched(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        number = given(desk, How.CEASE)
        await asyncio.sleep(1.0)
        found = progress(desk, number, detail=True)
        assert (found.tally.total, found.tally.confirmed, found.tally.unknown) == (6, 6, ())
        assert found.devices == DEVICES
        assert found.confirmed_s is not None
        assert (found.confirmed_s - found.given_s < 1.0).all()
        assert not any(permitted(rig, device) for device in DEVICES)
        await asyncio.sleep(60.0)
        assert [rig.true_w(device) for device in DEVICES] == pytest.approx([0.0] * 6)
        rig.wire.clear()
        rig.want(dict.fromkeys(BATTERIES, 8e3))
        await asyncio.sleep(120.0)
        assert rig.wire == []
        assert progress(desk, number).tally.confirmed == 6
        assert "stop-settled" in rig.events_of("gateway")

    told(story, tmp_path)


def test_it_is_latched_before_the_first_write(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        latched: list[bool] = []
        rig.on_wire = lambda device: latched.append(bool(rig.orders.stopped().all()))
        given(desk, How.CEASE)
        await asyncio.sleep(1.0)
        assert len(latched) == 6
        assert all(latched)

    told(story, tmp_path)


def test_stages_go_out_one_after_the_other_until_somebody_says_immediate(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        number = given(desk, How.CEASE)
        await asyncio.sleep(1.0)
        before = progress(desk, number).tally
        assert 1 <= before.confirmed < 3
        assert before.waiting == 6 - before.confirmed
        await asyncio.sleep(10.0)
        assert before.confirmed < progress(desk, number).tally.confirmed < 6
        assert isinstance(desk.hurry(number), Progress)
        await asyncio.sleep(1.0)
        assert progress(desk, number).tally.confirmed == 6

    told(story, tmp_path, settings=StopSettings(stage_w=1.0, every_s=10.0))


def test_the_preview_says_what_will_be_and_that_it_is_no_isolation(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        shown = desk.preview(How.CEASE, EVERYTHING)
        assert not isinstance(shown, Refused)
        true_w = sum(rig.true_w(device) for device in DEVICES)
        assert shown.devices == 6
        assert shown.after_w - shown.net_load_w == pytest.approx(true_w, rel=0.1)
        assert str(shown).endswith(NOT_ISOLATION)
        assert rig.orders.latches == ()

    told(story, tmp_path)


def test_a_silent_device_delays_nobody_and_is_told_when_it_is_back(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        rig.world.servers["pv01"].fault(Fault.HANG)
        number = given(desk, How.CEASE)
        await asyncio.sleep(1.0)
        assert progress(desk, number).tally.confirmed == 5
        await asyncio.sleep(10.0)
        found = progress(desk, number)
        assert found.tally.unknown == ("pv01",)
        assert found.why[0].startswith("pv01: ")
        assert permitted(rig, "pv01")
        await rig.world.servers["pv01"].heal()
        await asyncio.sleep(60.0)
        assert progress(desk, number).tally.confirmed == 6
        assert not permitted(rig, "pv01")

    told(story, tmp_path)


def test_a_silent_battery_is_reverting_for_as_long_as_its_timer_has_left(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        rig.world.servers["bat01"].fault(Fault.HANG)
        number = given(desk, How.CEASE)
        await asyncio.sleep(10.0)
        found = progress(desk, number).tally
        assert (found.confirmed, found.reverting, found.unknown) == (5, 1, ())
        assert 2900.0 < found.within_s < 3100.0
        assert "1 reverting within" in str(found)

    told(story, tmp_path)


def test_one_that_was_away_after_it_had_been_told_is_told_again(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        number = given(desk, How.CEASE)
        await asyncio.sleep(5.0)
        server = rig.world.servers["pv02"]
        server.fault(Fault.REBOOT)
        await asyncio.sleep(20.0)
        assert progress(desk, number).tally.confirmed == 5
        await server.heal()
        assert permitted(rig, "pv02")
        await asyncio.sleep(60.0)
        assert not permitted(rig, "pv02")
        assert progress(desk, number).tally.confirmed == 6

    told(story, tmp_path)


class Hanging(SunSpecDriver):
    """A driver that does not come back from telling bat01 to cease, and minds no cancel."""

    hangs = False

    async def cease(self, by: Ceasing) -> bool:
        if self.hangs:
            await deaf(CANCELS_MAX)
        return await super().cease(by)


def test_a_driver_that_hangs_costs_the_others_nothing(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        driver = rig.sessions["bat01"]
        assert isinstance(driver, Hanging)
        driver.hangs = True
        number = given(desk, How.CEASE)
        await asyncio.sleep(1.0)
        assert progress(desk, number).tally.confirmed == 5
        driver.hangs = False
        await asyncio.sleep(60.0)
        assert progress(desk, number).tally.confirmed == 6

    told(story, tmp_path, driver=Hanging)


class Dividing(SunSpecDriver):
    """A driver with a mistake in it."""

    async def cease(self, by: Ceasing) -> bool:
        raise ZeroDivisionError


def test_a_driver_that_fails_unexpectedly_leaves_its_device_unknown_and_says_why(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        number = given(desk, How.CEASE, only("pv01"))
        await asyncio.sleep(5.0)
        found = progress(desk, number)
        assert found.tally.unknown == ("pv01",)
        assert "ZeroDivisionError" in found.why[0]

    told(story, tmp_path, driver=Dividing)


class Doubtful(SunSpecDriver):
    """A device that takes its first withdrawal of service and does not say so."""

    silent = True

    async def cease(self, by: Ceasing) -> bool:
        was_in = await super().cease(by)
        if self.silent:
            self.silent = False
            raise DeviceUnreachable("no answer in 2 s")
        return was_in


def test_one_that_may_have_ceased_unseen_is_let_in_again_too(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        number = given(desk, How.CEASE)
        await asyncio.sleep(10.0)
        assert progress(desk, number).tally.confirmed == 6
        await released(desk, number)
        await asyncio.sleep(10.0)
        assert all(permitted(rig, device) for device in DEVICES)

    told(story, tmp_path, driver=Doubtful)


class Deaf(SunSpecDriver):
    """A device that takes a withdrawal of service and ignores it."""

    async def cease(self, by: Ceasing) -> bool:
        return True


def test_a_device_that_ignores_one_means_is_told_by_the_next(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        number = given(desk, How.CEASE)
        await asyncio.sleep(5.0)
        assert progress(desk, number).tally.confirmed == 6
        assert rig.holding() == set(DEVICES)
        await asyncio.sleep(30.0)
        assert [rig.true_w(device) for device in DEVICES] == pytest.approx([0.0] * 6, abs=1.0)

    told(story, tmp_path, driver=Deaf)


def test_a_limit_of_a_stop_is_refreshed_for_as_long_as_it_is_latched(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        number = given(desk, How.NO_EXPORT)
        await asyncio.sleep(1000.0)
        assert progress(desk, number).tally.confirmed == 6
        assert max(rig.true_w(device) for device in DEVICES) <= 1.0
        assert all(type(record.outcome).__name__ in ("Applied", "Superseded") for record in rig.outcomes)
        rig.reconciler.journal.commit()
        rig.assert_each_intent_has_one_outcome()

    told(story, tmp_path, dispatch=replace(SLOW, reversion_s=240.0))


def test_what_others_write_to_a_stopped_device_is_put_right(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        given(desk, How.CEASE)
        await asyncio.sleep(1.0)
        await rig.sessions["pv03"].let_in(Ceasing.PERMIT_SERVICE)
        assert permitted(rig, "pv03")
        await asyncio.sleep(LOOK_S + 5.0)
        assert not permitted(rig, "pv03")

    told(story, tmp_path)


def test_freezing_keeps_what_devices_hold_beyond_the_end_of_the_plan(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        number = given(desk, How.FREEZE)
        rig.want(dict.fromkeys(BATTERIES, -4e3))
        await asyncio.sleep(700.0)
        found = progress(desk, number).tally
        assert (found.total, found.confirmed) == (3, 3)
        assert [rig.true_w(device) for device in BATTERIES] == pytest.approx([4e3] * 3, rel=0.05)

    told(story, tmp_path, dispatch=replace(SLOW, reversion_s=240.0))


def test_releasing_to_autonomous_hands_back_what_is_held_but_what_another_stop_holds(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        given(desk, How.NO_FLOW, only("bat02"))
        await asyncio.sleep(1.0)
        number = given(desk, How.RELEASE)
        await asyncio.sleep(2.0)
        assert progress(desk, number).tally.confirmed == progress(desk, number).tally.total == 2
        assert rig.holding() == {"bat02"}

    told(story, tmp_path)


def test_two_people_release_and_devices_are_let_in_stage_by_stage(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        number = given(desk, How.CEASE, immediate=True)
        await asyncio.sleep(2.0)
        assert isinstance(await desk.release(number, "ann", remote=True), Refused)
        assert isinstance(await desk.release(number, "ann"), Latch)
        assert progress(desk, number).approved_by == "ann"
        assert isinstance(await desk.release(number, "Ann"), Refused)
        assert not any(permitted(rig, device) for device in DEVICES)
        assert isinstance(await desk.release(number, "ben", remote=True), Released)
        await asyncio.sleep(1.0)
        assert [permitted(rig, device) for device in DEVICES].count(True) == 1
        assert progress(desk, number).kept_out == 5
        await asyncio.sleep(60.0)
        assert all(permitted(rig, device) for device in DEVICES)
        assert desk.standing() == ()
        await asyncio.sleep(60.0)
        assert rig.true_w("bat01") == pytest.approx(4e3, rel=0.05)

    told(story, tmp_path, settings=StopSettings(stage_w=1.0, every_s=10.0))


def test_nobody_is_let_in_that_a_tag_keeps_out_or_another_stop_holds(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        number = given(desk, How.CEASE)
        given(desk, How.CEASE, only("pv01"))
        rig.orders.hang(TagKind.CLEARANCE, only("pv02"), "crew at work", "cat")
        await asyncio.sleep(2.0)
        assert isinstance(await desk.release(number, "ann", why="night shift"), Released)
        await asyncio.sleep(60.0)
        assert [device for device in DEVICES if not permitted(rig, device)] == ["pv01", "pv02"]
        await released(desk, number + 1)
        await asyncio.sleep(30.0)
        assert permitted(rig, "pv01")

    told(story, tmp_path)


def test_a_device_that_a_release_had_left_to_another_stop_is_released_when_that_one_is_over(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        other = given(desk, How.NO_EXPORT, only("pv01"))
        await asyncio.sleep(2.0)
        # Something tried it with a setpoint, which PV does not take: that keeps nobody from releasing its limit.
        rig.reconciler.custody.held.add((rig.reconciler.fleet.index["pv01"], Quantity.P_SET))
        given(desk, How.RELEASE)
        await asyncio.sleep(5.0)
        assert rig.holding() == {"pv01"}
        await released(desk, other)
        await asyncio.sleep(5.0)
        assert rig.holding() == set()

    told(story, tmp_path)


def test_one_that_is_stopped_again_while_it_is_being_let_in_stays_out(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        given(desk, How.CEASE, only("pv01"))
        await asyncio.sleep(2.0)
        row = rig.reconciler.fleet.index["pv01"]
        # The last question is asked directly before the device is told.
        assert await desk.sender.let_in(row, lambda row: False) == "it is stopped again"
        assert not permitted(rig, "pv01")
        assert await desk.sender.let_in(row, lambda row: True) == ""
        assert permitted(rig, "pv01")

    told(story, tmp_path)


def test_service_that_others_have_withdrawn_is_not_given_back(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        await rig.sessions["pv01"].cease(Ceasing.PERMIT_SERVICE)
        number = given(desk, How.CEASE)
        await asyncio.sleep(2.0)
        await released(desk, number)
        await asyncio.sleep(60.0)
        assert [device for device in DEVICES if not permitted(rig, device)] == ["pv01"]

    told(story, tmp_path)


@pytest.mark.parametrize("remembers", [True, False])
def test_a_stop_that_was_latched_before_a_restart_is_gone_on_with(remembers: bool, tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        number = given(desk, How.CEASE)
        await asyncio.sleep(2.0)
        if not remembers:
            rig.path.with_name("withdrawn").unlink()
        again = desk_of(rig)
        running = asyncio.ensure_future(again.run())
        await asyncio.sleep(2.0)
        assert progress(again, number).tally.confirmed == 6
        await released(again, number)
        await asyncio.sleep(30.0)
        assert all(permitted(rig, device) for device in DEVICES)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    told(story, tmp_path)


def test_one_that_a_forgotten_stop_has_ceased_is_an_alarm_and_shown_until_it_is_back(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        await rig.sessions["bat01"].cease(Ceasing.PERMIT_SERVICE)  # of a stop that the disk has not kept
        await asyncio.sleep(60.0)
        again = desk_of(rig)
        running = asyncio.ensure_future(again.run())

        async def words() -> str:
            found = await OrderDesk(rig.orders, rig.reconciler, again.service_of).show(Show(only("bat01")), "ann")
            assert isinstance(found, Shown)
            return shown_text(found)

        await asyncio.sleep(12.0)
        assert [(event.source, event.severity) for event in rig.events if event.kind == "out-of-service"] == [
            ("bat01", Severity.ALARM)
        ]
        assert ", out of service, and no order says so" in await words()
        await rig.sessions["bat01"].let_in(Ceasing.PERMIT_SERVICE)
        await asyncio.sleep(80.0)
        assert rig.events_of("bat01").count("out-of-service") == 1
        assert rig.events_of("bat01")[-1] == "in-service"
        assert "out of service" not in await words()
        given(again, How.CEASE, only("bat01"))
        await asyncio.sleep(70.0)
        assert ", stopped, service withdrawn by a stop" in await words()
        assert rig.events_of("bat01").count("out-of-service") == 1
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    told(story, tmp_path)


def test_a_full_disk_holds_no_stop_up_and_is_told_once(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        rig.disk.full = True
        number = given(desk, How.NO_EXPORT)
        await asyncio.sleep(1.0)
        assert progress(desk, number).tally.confirmed == 6
        assert rig.events_of("gateway").count("stop-not-journalled") == 1
        rig.disk.full = False

    told(story, tmp_path)


def test_a_disk_that_hangs_costs_a_stop_a_fifth_of_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        loop = asyncio.get_running_loop()
        with monkeypatch.context() as patch:
            patch.setattr(type(loop), "run_in_executor", lambda *given: loop.create_future())
            number = given(desk, How.CEASE)
            await asyncio.sleep(1.0)
            found = progress(desk, number, detail=True)
            assert found.tally.confirmed == 6
            assert found.confirmed_s is not None
            assert (found.confirmed_s - found.given_s < 0.6).all()
            assert "stop-not-journalled" in rig.events_of("gateway")

    told(story, tmp_path)


class Sulking(SunSpecDriver):
    """A device whose setpoints are being written for ever."""

    async def write(self, command: Command) -> None:
        await deaf(0)


def test_a_device_that_others_do_not_let_go_of_is_told_all_the_same(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        for row in range(len(DEVICES)):
            await rig.reconciler.writer.alone_with[row].acquire()
        number = given(desk, How.CEASE)
        await asyncio.sleep(2.0)
        assert progress(desk, number).tally.confirmed == 6

    told(story, tmp_path)


def test_an_errand_that_hangs_is_broken_off_for_a_stop(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        number = given(desk, How.CEASE)
        await asyncio.sleep(2.0)
        assert progress(desk, number).tally.confirmed == 6

    told(story, tmp_path, driver=Sulking)


def test_a_request_that_comes_twice_stops_once(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        assert given(desk, How.CEASE, request="x") == given(desk, How.CEASE, request="x")
        assert len(rig.orders.latches) == 1
        await asyncio.sleep(1.0)

    told(story, tmp_path)


def test_a_scope_that_nobody_bears_and_a_site_that_only_observes_are_refused(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        desk.writes = False
        refused = desk.stop(How.CEASE, only("pv99"), "ann")
        assert isinstance(refused, Refused)
        assert [reason.by for reason in refused.reasons] == ["observe", "scope"]
        assert isinstance(desk.preview(How.CEASE, only("pv99")), Refused)
        for ask in (desk.status, desk.hurry):
            assert isinstance(ask(7), Refused)
        assert rig.orders.latches == ()

    told(story, tmp_path)


def test_who_was_shut_out_is_let_in_also_by_a_process_that_began_after_the_release(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        number = given(desk, How.CEASE)
        await asyncio.sleep(2.0)
        for device in DEVICES[1:]:
            rig.world.servers[device].fault(Fault.HANG)
        await released(desk, number)
        await asyncio.sleep(20.0)
        assert [device for device in DEVICES if permitted(rig, device)] == ["pv01"]
        again = desk_of(rig)
        assert again.withdrawn.rows.tolist() == [False, *[True] * 5]
        for device in DEVICES[1:]:
            await rig.world.servers[device].heal()
        running = asyncio.ensure_future(again.run())
        await asyncio.sleep(120.0)
        assert all(permitted(rig, device) for device in DEVICES)
        assert not again.withdrawn.rows.any()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    told(story, tmp_path)


@pytest.mark.parametrize("text", ["", "[1]", '{"pv01": ["dance"]}', '{"pv01": 3}'])
def test_a_damaged_memory_of_who_was_shut_out_is_told(text: str, tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        rig.path.with_name("withdrawn").write_text(text)
        assert not desk_of(rig).withdrawn.rows.any()
        assert rig.events_of("gateway")[-1] == "withdrawn-lost"

    told(story, tmp_path)


def test_batteries_that_charge_are_ended_and_those_that_discharge_go_on(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        rig.want({"bat01": -4e3, "bat02": -4e3, "bat03": 4e3})
        await asyncio.sleep(60.0)
        assert rig.true_w("bat01") == pytest.approx(-4e3, rel=0.05)
        number = given(desk, How.NO_CHARGE)
        await asyncio.sleep(60.0)
        assert progress(desk, number).tally.confirmed == progress(desk, number).tally.total == 3
        assert [rig.true_w(device) for device in BATTERIES] == pytest.approx([0.0, 0.0, 4e3], abs=200.0)

    told(story, tmp_path)


class Slow(SunSpecDriver):
    """A driver that takes its time to write."""

    async def write(self, command: Command) -> None:
        await asyncio.sleep(0.05)
        await super().write(command)


def test_the_commands_of_a_stop_in_the_midst_of_errands_have_outcomes_of_their_own(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        rig.want(dict.fromkeys(BATTERIES, 8e3))
        while "bat01" not in [device for _, device in rig.wire[-1:]]:
            rig.wire.clear()
            await asyncio.sleep(0.01)
        number = given(desk, How.NO_FLOW)
        await asyncio.sleep(60.0)
        assert progress(desk, number).tally.confirmed == 6
        rig.reconciler.journal.commit()
        rig.assert_each_intent_has_one_outcome()
        assert [record.outcome for record in rig.outcomes if isinstance(record.outcome, Failed)] == []

    told(story, tmp_path, driver=Slow)
