"""What people lay down reaches devices: tags, modes, values by hand, stops; real drivers, simulated devices."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from derms.control.modes import MARKS, ControlMode, Scorecard
from derms.control.permissives import Asked
from derms.control.stopping import How
from derms.domain.certificate import Certificate, ReversionClass
from derms.domain.dispatch import Clamped, Quantity, Rejected
from derms.domain.presence import BrainTold
from derms.domain.refusal import Refused
from derms.domain.scope import EVERYTHING, Level, Scope
from derms.domain.tags import Tag, TagKind
from derms.link.orders import AskWhy, CommandSelected, OperateCommand, SelectCommand, Show, Shown, WhyNot
from derms.service.order_desk import OrderDesk
from tests.field.rig import FEEDER, NOON, QUICK, Rig, in_the_field

DEVICES = ("bat01", "bat02", "pv01")
WANTED = ({"bat01": 12e3, "bat02": -9e3}, {"pv01": 10e3})
SITE = Scope(Level.FEEDER, FEEDER)
BAT01, BAT02, PV01 = (Scope(Level.DEVICE, device) for device in DEVICES)
ONE_GROUP = replace(QUICK, interval_s=15.0)


def given_w(rig: Rig) -> list[float]:
    return [round(rig.true_w(device), -2) for device in DEVICES if device in rig.fleet.index]


async def by_hand(rig: Rig, scope: Scope, kw: float, *, hold_s: float = 600.0, author: str = "smith") -> None:
    """Select and operate, as a person does."""
    desk = OrderDesk(rig.orders, rig.reconciler)
    quantity = Quantity.P_LIMIT if scope == PV01 else Quantity.P_SET
    selected = await desk.select(SelectCommand(scope, quantity, 1e3 * kw, hold_s), author)
    assert isinstance(selected, CommandSelected), selected
    done = await desk.operate(OperateCommand(selected.number), author)
    assert not isinstance(done, Refused), done


def test_a_fresh_site_in_auto_is_dispatched_without_anybody_saying_so(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want(*WANTED)
        await rig.turns(70.0)
        assert given_w(rig) == [12e3, -9e3, 10e3]
        assert rig.orders.area(SITE).mode is ControlMode.AUTO

    in_the_field(scenario, tmp_path, devices=DEVICES, remembers=True)


def test_one_that_starts_in_shadow_plans_and_writes_nothing(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want(*WANTED)
        await rig.turns(70.0)
        assert rig.wire == []

    in_the_field(scenario, tmp_path, devices=DEVICES, dispatch=replace(QUICK, start="shadow"), remembers=True)


def test_an_automatic_control_inhibit_hands_its_device_back_and_a_person_may_still_command_it(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want(*WANTED)
        await rig.turns(70.0)
        assert isinstance(rig.orders.hang(TagKind.AUTOMATIC_INHIBIT, BAT01, "under test", "jones"), Tag)
        await rig.turns(70.0)
        assert rig.holding() == {"bat02", "pv01"}
        await by_hand(rig, BAT01, 5.0)
        await rig.turns(20.0)
        assert given_w(rig) == [5e3, -9e3, 10e3]
        rig.orders.take_off(1, "lee")
        assert [event.kind for event in rig.events] == ["tag-hung", "manual", "tag-off"]

    in_the_field(scenario, tmp_path, devices=DEVICES)


def test_under_a_clearance_nothing_is_written_not_even_a_release_that_might_energize(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want(*WANTED)
        await rig.turns(70.0)
        rig.orders.hang(TagKind.CLEARANCE, PV01, "crew at pole 17", "jones")
        before = len(rig.wire)
        rig.want({"bat01": 1e3}, {})
        await rig.turns(200.0)
        assert {device for _, device in rig.wire[before:]} == {"bat01", "bat02"}
        assert rig.holding() == {"bat01", "pv01"}

    in_the_field(scenario, tmp_path, devices=DEVICES)


def test_a_value_by_hand_outranks_the_plan_goes_out_at_once_and_the_plan_has_the_device_again(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want(*WANTED)
        turning = asyncio.ensure_future(rig.reconciler.run())
        await asyncio.sleep(67.0)  # in the midst of a group
        await by_hand(rig, BAT01, 5.0, hold_s=100.0)
        await asyncio.sleep(2.0)
        assert given_w(rig) == [5e3, -9e3, 10e3]
        shown = await OrderDesk(rig.orders, rig.reconciler).show(Show(BAT01), "lee")
        assert isinstance(shown, Shown)
        (device,) = shown.devices
        assert (device.owner, device.next_owner) == ("operator smith", "optimizer")
        assert device.until_s == pytest.approx(98.0, abs=1.0)
        await asyncio.sleep(160.0)
        assert given_w(rig) == [12e3, -9e3, 10e3]
        turning.cancel()
        await asyncio.gather(turning, return_exceptions=True)
        assert {record.plan_id for record in rig.outcomes if record.value_w == 5e3} == {0}

    in_the_field(scenario, tmp_path, devices=DEVICES)


def test_a_limit_by_hand_holds_the_plan_back_and_the_clamp_says_who(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 12e3}, {"pv01": 10e3})
        asked = Asked("smith", BAT01, Quantity.P_LIMIT, 4e3, 600.0)
        facts = replace(OrderDesk(rig.orders, rig.reconciler)._facts(Quantity.P_SET))
        rig.orders.select(asked, facts)
        rig.orders.operate(1, "smith", facts, token=1)
        await rig.turns(70.0)
        last = [it for it in rig.outcomes if it.device_id == "bat01" and it.quantity is Quantity.P_SET][-1]
        assert isinstance(last.outcome, Clamped)
        assert (last.outcome.by, last.outcome.wanted_w, last.value_w) == ("operator smith", 12e3, 4e3)

    in_the_field(scenario, tmp_path, devices=DEVICES)


def test_leaving_auto_restores_one_device_after_another_and_never_faster_than_the_ramp(tmp_path: Path) -> None:
    share = 0.2

    async def scenario(rig: Rig) -> None:
        ramp_w_per_min = share * rig.fleet.p_rated_w.sum()
        rig.want({"bat01": 20e3, "bat02": -20e3}, {})
        await rig.turns(300.0)
        at_s = rig.clock.monotonic_s()
        assert not isinstance(rig.orders.set_mode(SITE, ControlMode.SHADOW, "smith", "storm"), Refused)
        running = asyncio.ensure_future(asyncio.gather(rig.reconciler.run(), rig.heartbeat.run()))
        powers = []
        for _ in range(24):
            await asyncio.sleep(10.0)
            powers.append((rig.true_w("bat01"), rig.true_w("bat02")))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        steps_w = np.abs(np.diff(np.array([(20e3, -20e3), *powers]), axis=0)).sum(axis=1)
        windows = [steps_w[n : n + 6].sum() for n in range(len(steps_w) - 5)]
        assert max(windows) <= ramp_w_per_min * (1 + 15.0 / 60.0) + 1.0  # a turn looks one turn ahead
        both_moved = (np.diff(np.array(powers), axis=0) != 0.0).all(axis=1)
        assert both_moved.sum() <= 1
        assert rig.holding() == set()
        assert rig.clock.monotonic_s() - at_s < 241.0

    settings = replace(ONE_GROUP, ramp_frac_per_min=share, reversion_s=600.0)
    in_the_field(scenario, tmp_path, devices=("bat01", "bat02"), dispatch=settings, standing=False)


def test_a_promotion_is_refused_with_all_that_is_missing_and_granted_with_its_evidence(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        orders = rig.orders
        orders.doubt("switch 7 is not known", "")
        assert orders.area(SITE).mode is ControlMode.SHADOW
        orders.doubt("switch 7 is not known", "voltages are off by 5 %")
        refused = orders.set_mode(SITE, ControlMode.AUTO, "smith", "")
        assert isinstance(refused, Refused)
        assert [reason.by for reason in refused.reasons] == ["topology", "model", "scorecard"]
        orders.doubt("", "")
        assert orders.area(SITE).mode is ControlMode.SHADOW, "it does not come back by itself"
        figures = {mark.figure: mark.least if np.isfinite(mark.least) else mark.most for mark in MARKS}
        orders.scorecards[SITE] = Scorecard(taken_s=rig.clock.monotonic_s(), **figures)
        assert not isinstance(orders.set_mode(SITE, ControlMode.AUTO, "smith", ""), Refused)
        rig.want(*WANTED)
        await rig.turns(70.0)
        assert given_w(rig) == [12e3, -9e3, 10e3]

    in_the_field(scenario, tmp_path, devices=DEVICES)


def test_in_advise_a_plan_goes_out_once_approved_and_a_newer_one_does_not_take_its_place(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.orders.set_mode(SITE, ControlMode.ADVISE, "smith", "")
        rig.want(*WANTED)
        await rig.turns(70.0)
        assert rig.wire == []
        wishes = rig.reconciler.wishes
        assert isinstance(wishes.approve(8, "smith"), Refused)
        assert wishes.approve(7, "smith") is None
        await rig.turns(70.0)
        assert given_w(rig) == [12e3, -9e3, 10e3]
        latest = wishes.plans.latest
        assert latest is not None
        rig.reconciler.adopt(replace(latest, plan_id=8, p_set_w=np.zeros_like(latest.p_set_w)))
        await rig.turns(70.0)
        assert given_w(rig) == [12e3, -9e3, 10e3]
        assert wishes.approve(8, "smith") is None
        await rig.turns(70.0)
        assert given_w(rig)[:2] == [0.0, 0.0]

    in_the_field(scenario, tmp_path, devices=DEVICES)


def test_a_device_under_a_stop_gets_nothing_of_plans_and_people_and_keeps_what_it_holds(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want(*WANTED, valid_s=100.0)
        await rig.turns(70.0)
        rig.orders.latch(How.FREEZE, BAT01, "smith")
        before = len(rig.wire)
        await rig.turns_and_beats(500.0)
        assert {device for _, device in rig.wire[before:]} >= {"bat01", "bat02"}
        assert rig.holding() == {"bat01"}, "refreshed, though its dispatch is over"
        assert given_w(rig)[0] == 12e3
        assert len([it for it in rig.outcomes if it.device_id == "bat01" and it.value_w is None]) == 0
        refused = await OrderDesk(rig.orders, rig.reconciler).select(
            SelectCommand(BAT01, Quantity.P_SET, 0.0, 60.0), "lee"
        )
        assert isinstance(refused, Refused)
        assert [reason.by for reason in refused.reasons] == ["stop"]

    in_the_field(scenario, tmp_path, devices=DEVICES)


def test_what_a_stop_seizes_ends_as_what_is_known_of_it(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want(*WANTED)
        turning = asyncio.ensure_future(rig.reconciler.run())
        await asyncio.sleep(16.0)
        watched = {record.device_id for record in rig.outcomes}
        rig.orders.latch(How.CEASE, EVERYTHING, "smith")
        rig.reconciler.seize(np.arange(len(rig.fleet)))
        await asyncio.sleep(1.0)
        open_ = {device for device in DEVICES if device not in watched and rig.ended(device)}
        assert {name for device in open_ for name in rig.ended(device)} <= {"Superseded", "Unknown", "Failed"}
        before = len(rig.wire)
        await asyncio.sleep(120.0)
        assert len(rig.wire) == before
        turning.cancel()
        await asyncio.gather(turning, return_exceptions=True)
        rig.reconciler.journal.close()
        rig.assert_each_intent_has_one_outcome()

    in_the_field(scenario, tmp_path, devices=DEVICES)


def test_the_end_of_the_service_releases_nothing_that_a_stop_holds_or_a_tag_keeps_out(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want(*WANTED)
        await rig.turns(70.0)
        rig.orders.latch(How.FREEZE, BAT01, "smith")
        rig.orders.hang(TagKind.CLEARANCE, PV01, "crew at pole 17", "jones")
        before = len(rig.wire)
        await rig.reconciler.hand_back()
        assert {device for _, device in rig.wire[before:]} == {"bat02"}
        assert rig.holding() == {"bat01", "pv01"}
        assert set(rig.reconciler.holding) == {"bat01", "pv01"}
        await asyncio.sleep(300.0)
        assert rig.holding() == set(), "their own timers end it"

    in_the_field(scenario, tmp_path, devices=DEVICES)


def test_why_tells_everything_that_stands_in_the_way(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        orders, desk = rig.orders, OrderDesk(rig.orders, rig.reconciler)
        orders.hang(TagKind.CONTROL_INHIBIT, BAT01, "meter test", "jones")
        orders.lock(SITE, "lee", 600.0)
        orders.set_mode(SITE, ControlMode.OFF, "lee", "storm")
        orders.latch(How.FREEZE, EVERYTHING, "lee")
        why = await desk.why(AskWhy(BAT01, Quantity.P_SET, 5e3, 60.0), "smith")
        assert isinstance(why, WhyNot)
        assert [reason.by for reason in why.person] == ["tag", "lock", "mode", "stop"]
        assert [reason.by for reason in why.plan] == ["tag", "mode", "stop", "plan"]
        assert "lee" in why.person[1].text

    in_the_field(scenario, tmp_path, devices=DEVICES)


def test_a_gateway_that_is_alone_sends_nothing_new_and_devices_end_what_they_hold(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        ladder = rig.orders.ladder
        ladder.heard(BrainTold(0.0, 0.0, 0.0, 0.0))
        rig.want(*WANTED, valid_s=3600.0)
        await rig.turns(70.0)
        await asyncio.sleep(1850.0)
        assert ladder.look().rung.word == "isolated"
        assert not ladder.setpoints
        before = len(rig.outcomes)
        rig.want({"bat01": 1e3, "bat02": 1e3})
        await rig.turns(70.0)
        assert [it.value_w for it in rig.outcomes[before:] if it.value_w == 1e3] == []
        desk = OrderDesk(rig.orders, rig.reconciler)
        refused = await desk.select(SelectCommand(BAT01, Quantity.P_SET, 0.0, 60.0), "lee")
        assert isinstance(refused, Refused)
        assert refused.reasons[-1].by == "ladder"
        ladder.heard(BrainTold(0.0, 0.0, 0.0, 0.0))
        for _ in range(32):
            await asyncio.sleep(1.0)
            ladder.heard()
            ladder.look()
        await rig.turns(70.0)
        assert given_w(rig)[:2] == [1e3, 1e3]

    in_the_field(scenario, tmp_path, devices=DEVICES)


def test_the_fleet_moves_no_faster_than_its_ramp_and_goes_on_until_it_is_there(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        ramp_w_per_min = 0.2 * rig.fleet.p_rated_w.sum()
        rig.want({"bat01": 20e3, "bat02": 20e3})
        start_s = rig.clock.monotonic_s()
        turning = asyncio.ensure_future(rig.reconciler.run())
        while sum(given_w(rig)[:2]) < 40e3:
            await asyncio.sleep(5.0)
            minutes = (rig.clock.monotonic_s() - start_s) // 60.0 + 1.0
            assert sum(given_w(rig)[:2]) <= ramp_w_per_min * minutes + 200.0
            assert minutes < 6
        turning.cancel()
        await asyncio.gather(turning, return_exceptions=True)
        clamps = {it.outcome.by for it in rig.outcomes if isinstance(it.outcome, Clamped)}
        assert clamps == {"fleet ramp"}

    settings = replace(ONE_GROUP, ramp_frac_per_min=0.2)
    in_the_field(scenario, tmp_path, devices=("bat01", "bat02"), dispatch=settings)


def test_what_a_plan_lets_go_counts_for_the_ramp_of_the_fleet(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        turning = asyncio.ensure_future(rig.reconciler.run())
        rig.want({"bat01": 20e3, "bat02": 20e3})
        await asyncio.sleep(300.0)
        assert given_w(rig)[:2] == [20e3, 20e3]
        rig.want({})
        await asyncio.sleep(50.0)
        assert sorted(given_w(rig)[:2]) == [0.0, 20e3], "each is more than a minute's ramp: one after the other"
        await asyncio.sleep(60.0)
        assert given_w(rig)[:2] == [0.0, 0.0]
        turning.cancel()
        await asyncio.gather(turning, return_exceptions=True)

    settings = replace(ONE_GROUP, ramp_frac_per_min=0.2)
    in_the_field(scenario, tmp_path, devices=("bat01", "bat02"), dispatch=settings)


def test_what_one_person_sets_is_ramped_for_all_of_it_together(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await by_hand(rig, Scope(Level.FEEDER, FEEDER), 10.0)
        turning = asyncio.ensure_future(rig.reconciler.run())
        await asyncio.sleep(10.0)
        assert sum(given_w(rig)[:2]) == pytest.approx(0.1 * rig.fleet.p_rated_w.sum(), abs=200.0)
        turning.cancel()
        await asyncio.gather(turning, return_exceptions=True)
        assert {it.outcome.by for it in rig.outcomes if isinstance(it.outcome, Clamped)} <= {"author ramp"}

    settings = replace(ONE_GROUP, author_ramp_frac_per_min=0.1)
    in_the_field(scenario, tmp_path, devices=("bat01", "bat02"), dispatch=settings)


def test_a_device_that_was_proven_to_keep_a_value_for_ever_gets_none(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        identity = rig.poller.identity(rig.fleet.index["bat01"])
        assert identity is not None
        proven = Certificate(
            manufacturer=identity.manufacturer,
            model=identity.model,
            version=identity.version,
            serial=identity.serial,
            fingerprint="",
            issued_at=NOON,
            reversion=ReversionClass.C,
            reversion_s=np.nan,
            tool="",
            cases=(),
        )
        rig.reconciler.wishes.certificates = {identity.serial: proven}
        rig.want(*WANTED)
        await rig.turns(70.0)
        assert {device for _, device in rig.wire} == {"bat02", "pv01"}
        assert rig.last("bat01").outcome == Rejected("certificate")
        shown = await OrderDesk(rig.orders, rig.reconciler).show(Show(EVERYTHING), "lee")
        assert isinstance(shown, Shown)
        assert shown.loss.unproven_count == 3
        rig.reconciler.wishes.certificates = {identity.serial: replace(proven, reversion=ReversionClass.A)}
        shown = await OrderDesk(rig.orders, rig.reconciler).show(Show(EVERYTHING), "lee")
        assert isinstance(shown, Shown)
        assert set(shown.loss.unproven) == {"bat02", "pv01"}

    in_the_field(scenario, tmp_path, devices=DEVICES)


def test_loss_of_control_is_what_truly_happens_when_everything_stops(tmp_path: Path) -> None:
    """The figure is compared with the simulated devices after their timers."""

    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 12e3, "bat02": -9e3})
        await rig.turns(70.0)
        await asyncio.sleep(11.0)  # polled again
        shown = await OrderDesk(rig.orders, rig.reconciler).show(Show(EVERYTHING), "lee")
        assert isinstance(shown, Shown)
        assert shown.loss.soon_w == pytest.approx(3e3, abs=100.0)
        assert shown.loss.end_w == pytest.approx(0.0, abs=100.0)
        assert abs(shown.loss.largest_w) == pytest.approx(12e3 if shown.loss.largest_w < 0 else 9e3, abs=100.0)
        await asyncio.sleep(shown.loss.soon_s)
        assert sum(given_w(rig)[:2]) == 3e3
        await asyncio.sleep(shown.loss.end_s - shown.loss.soon_s - 2.0)
        assert rig.holding() != set()
        await asyncio.sleep(4.0)
        assert rig.holding() == set()

    in_the_field(scenario, tmp_path, devices=("bat01", "bat02"))


def test_manual_values_tags_and_stops_are_there_again_after_a_restart(tmp_path: Path) -> None:
    async def first(rig: Rig) -> None:
        rig.orders.hang(TagKind.CAUTION, PV01, "new inverter", "jones")
        rig.orders.latch(How.NO_EXPORT, PV01, "lee")
        rig.orders.lock(BAT02, "lee", 600.0)
        await by_hand(rig, BAT01, 5.0, hold_s=600.0)
        rig.reconciler.journal.close()

    async def second(rig: Rig) -> None:
        orders = rig.orders
        assert [tag.text for tag in orders.board.tags] == ["new inverter"]
        assert [latch.how for latch in orders.latches] == [How.NO_EXPORT]
        (claim,) = orders.claims.live(rig.clock.monotonic_s())
        assert claim.until_s - rig.clock.monotonic_s() == pytest.approx(600.0, abs=20.0)
        await rig.turns(20.0)
        assert rig.true_w("bat01") == pytest.approx(5e3, rel=0.01)

    for scenario in (first, second):
        in_the_field(scenario, tmp_path, devices=DEVICES, dispatch=ONE_GROUP, remembers=True)
