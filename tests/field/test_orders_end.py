"""What people set by hand ends with a stop or a tag over it, and goes on at once after a restart."""

from pathlib import Path

import pytest

from derms.control.stopping import How
from derms.domain.scope import Level, Scope
from derms.domain.tags import TagKind
from derms.field.journal import Journal
from derms.field.reconcile import Reconciler
from derms.link.orders import Done, HangTag
from derms.service.order_desk import OrderDesk
from tests.field.rig import Rig, in_the_field
from tests.field.test_orders_dispatch import by_hand

BATTERY, OTHER = Scope(Level.DEVICE, "bat01"), Scope(Level.DEVICE, "bat02")
DEVICES = ("bat01", "bat02")


@pytest.mark.parametrize("how", [How.CEASE, How.NO_EXPORT, How.FREEZE])
def test_nothing_of_before_comes_back_when_a_stop_is_released(how: How, tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await by_hand(rig, BATTERY, 5.0)
        await by_hand(rig, OTHER, 5.0)
        rig.orders.latch(how, BATTERY, "anna")
        rig.orders.break_glass(1, "anna", "it was a drill")
        assert [claim.rows.tolist() for claim in rig.orders.claims.by_key.values()] == [[rig.fleet.index["bat02"]]]

    in_the_field(scenario, tmp_path, devices=DEVICES)


@pytest.mark.parametrize(("kind", "left"), [(TagKind.CLEARANCE, 0), (TagKind.CONTROL_INHIBIT, 0), (TagKind.CAUTION, 1)])
def test_nor_when_a_tag_is_taken_off(kind: TagKind, left: int, tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await by_hand(rig, BATTERY, 5.0)
        rig.orders.hang(kind, BATTERY, "work on the line", "anna")
        rig.orders.take_off(1, "anna")
        assert len(rig.orders.claims.by_key) == left

    in_the_field(scenario, tmp_path, devices=DEVICES)


def test_a_value_by_hand_of_before_the_start_does_not_wait_for_its_group(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        old = rig.reconciler
        await by_hand(rig, BATTERY, 5.0)
        rig.reconciler = Reconciler(
            old.fleet,
            old.drivers,
            old.poller,
            Journal.open(tmp_path / "next.journal"),
            old.clock,
            old.settings,
            old.on_event,
            rig.orders,
        )
        await rig.turns(2.0)
        assert [rig.fleet.devices[row].id for row, _ in rig.reconciler.holdings] == ["bat01"]

    in_the_field(scenario, tmp_path, devices=DEVICES)


def test_a_tag_says_what_its_devices_still_hold(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 5e3})
        await rig.turns(70.0)
        desk = OrderDesk(rig.orders, rig.reconciler)
        said = await desk.hang(HangTag(TagKind.CLEARANCE, BATTERY, "work"), "anna")
        assert isinstance(said, Done)
        assert said.text.endswith("bat01: what they hold of ours stays until their timers end; a stop ends it now")
        said = await desk.hang(HangTag(TagKind.CAUTION, BATTERY, "work"), "anna")
        assert isinstance(said, Done)
        assert said.text.endswith(": work")

    in_the_field(scenario, tmp_path, devices=DEVICES)
