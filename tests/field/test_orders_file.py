"""Orders outlive the process, and are never silently empty: damage, a full disk, another fleet, clocks that differ."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from derms.control.guards import unbounded
from derms.control.latch import Latch
from derms.control.modes import ControlMode
from derms.control.permissives import Asked, Facts, Selected, Substitute
from derms.control.stopping import How
from derms.domain.alarm import Event, Severity
from derms.domain.der import DeviceKind, Fleet
from derms.domain.desk import DeskOrder
from derms.domain.dispatch import Quantity
from derms.domain.mode import Mode
from derms.domain.quality import Quality
from derms.domain.refusal import Refused
from derms.domain.scope import EVERYTHING, Level, Places, Scope
from derms.domain.tags import Act, Tag, TagKind
from derms.field.disk import SYSTEM_DISK, Disk
from derms.field.orders import Orders
from tests.field.scripted import device

NOON = datetime(2026, 4, 15, 19, 0, tzinfo=UTC)
DEVICES = ("bat0", "pv0", "bat1")
FEEDER = Scope(Level.FEEDER, "f1")
BAT0 = Scope(Level.DEVICE, "bat0")


@dataclass
class Clocks:
    """Two clocks that a test sets."""

    now_s: float = 100.0
    at: datetime = NOON

    def monotonic_s(self) -> float:
        return self.now_s

    def utc(self) -> datetime:
        return self.at


class FullDisk:
    """Nothing can be made durable while it is full."""

    def __init__(self) -> None:
        self.full = False

    def write(self, fd: int, data: bytes, offset: int) -> None:
        SYSTEM_DISK.write(fd, data[: len(data) // 2] if self.full else data, offset)

    def truncate(self, fd: int, size: int) -> None:
        SYSTEM_DISK.truncate(fd, size)

    def sync(self, fd: int) -> None:
        if self.full:
            raise OSError(28, "No space left on device")


@dataclass
class Desk:
    """Orders in a folder, opened as often as a test likes."""

    folder: Path
    clock: Clocks = field(default_factory=Clocks)
    disk: Disk = SYSTEM_DISK
    events: list[Event] = field(default_factory=list)
    token: int = 1
    boot: str = "one"

    @property
    def path(self) -> Path:
        return self.folder / "orders"

    def open(self, *, fresh: bool = False, devices: tuple[str, ...] = DEVICES, site: Mode = Mode.AUTO) -> Orders:
        kinds = [DeviceKind.BATTERY if name.startswith("bat") else DeviceKind.PV for name in devices]
        fleet = Fleet(tuple(device(name, kind) for name, kind in zip(devices, kinds, strict=True)))
        places = Places(devices, ("f1",) * len(devices), {"vpp": frozenset({"bat0"})})
        return Orders.open(
            self.path,
            fleet,
            places,
            site,
            self.clock,
            self.events.append,
            fresh=fresh,
            disk=self.disk,
            token=self.token,
            boot=self.boot,
        )

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def restart(self, down_s: float) -> None:
        """Start the machine again: its monotonic clock begins anew."""
        self.clock = Clocks(now_s=5.0, at=self.clock.at + timedelta(seconds=down_s))
        self.boot += "+"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def facts(orders: Orders) -> Facts:
    count = len(orders.fleet)
    nothing = np.zeros(count, dtype=np.bool_)
    return Facts(
        now_s=orders.clock.monotonic_s(),
        places=orders.places,
        takes=orders.fleet.is_battery,
        board=orders.board,
        locks=orders.kept.locks,
        closed=nothing,
        stopped=orders.stopped(),
        local=nothing,
        handed_over=nothing,
        quality=np.full(count, Quality.GOOD, np.uint8),
        bounds=unbounded(count),
    )


def by_hand(orders: Orders, scope: Scope = BAT0, value_w: float | None = 5e3) -> Refused | None:
    selected = orders.select(Asked("smith", scope, Quantity.P_SET, value_w, 600.0), facts(orders))
    assert isinstance(selected, Selected)
    found = orders.operate(selected.selection.number, "smith", facts(orders), token=3)
    return found if isinstance(found, Refused) else None


def settled(orders: Orders) -> None:
    asyncio.run(orders.settle(60.0))


def test_everything_is_there_after_a_restart_with_the_time_that_is_left(desk: Desk) -> None:
    orders = desk.open(fresh=True)
    orders.hang(TagKind.CLEARANCE, FEEDER, "crew at pole 17", "jones")
    orders.lock(BAT0, "lee", 600.0)
    orders.set_mode(FEEDER, ControlMode.OFF, "smith", "storm")
    orders.latch(How.CEASE, FEEDER, "lee")
    orders.approve(1, "lee")
    orders.substitute(Substitute(1, "p_w", 4e3, "lee", "meter is out", desk.clock.now_s + 300.0), more_s=300.0)
    orders.ask(DeskOrder("f1", 30e3, "kim", desk.clock.now_s + 600.0), 600.0)
    desk.restart(120.0)
    again = desk.open()
    assert again.desk is not None
    assert again.desk.power_w == 30e3
    assert again.desk.until_s == pytest.approx(5.0 + 600.0 - 120.0)
    assert again.board == orders.board
    (lock,), (latch,), (substitute,) = again.kept.locks.held, again.latches, again.kept.substitutes
    assert lock.until_s == pytest.approx(5.0 + 600.0 - 120.0)
    assert latch.first is not None
    assert (latch.at_s, latch.first.at_s) == pytest.approx((5.0 - 120.0, 5.0 - 120.0))
    assert substitute.until_s == pytest.approx(5.0 + 300.0 - 120.0)
    assert again.area(FEEDER).mode is ControlMode.OFF
    assert again.kept.last_latch == 1
    assert desk.kinds() == [
        *("tag-hung", "locked", "mode-changed", "stop-latched", "stop-approved", "substituted", "desk-asks"),
    ]


def test_a_value_by_hand_that_ended_while_nobody_ran_is_over(desk: Desk) -> None:
    orders = desk.open(fresh=True)
    assert by_hand(orders) is None
    desk.restart(599.0)
    assert len(desk.open().claims.live(desk.clock.now_s)) == 1
    desk.restart(1.0)
    assert desk.open().claims.live(desk.clock.now_s) == ()


def test_what_was_asked_of_the_fleet_ends_while_nobody_runs_and_with_a_stop_over_its_feeder(desk: Desk) -> None:
    orders = desk.open(fresh=True)
    orders.ask(DeskOrder(FEEDER.name, None, "kim", desk.clock.now_s + 600.0), 600.0)
    desk.restart(601.0)
    orders = desk.open()
    assert orders.desk is None
    orders.ask(DeskOrder(FEEDER.name, None, "kim", desk.clock.now_s + 600.0), 600.0)
    orders.latch(How.FREEZE, BAT0, "lee")
    assert orders.desk is not None
    orders.latch(How.FREEZE, FEEDER, "lee")
    assert orders.desk is None


@pytest.mark.parametrize(
    ("boot", "now_s", "left_s"),
    [
        ("one", 160.0, 540.0),
        ("two", 160.0, 600.0 - 3600.0),  # nobody knows anything but the wall clock
        ("", 160.0, 600.0 - 3600.0),
        ("one", 40.0, 600.0 - 3600.0),  # a machine that was put back to what it was before
    ],
)
def test_a_wall_clock_that_is_put_while_nobody_runs_moves_no_end_inside_a_boot(
    desk: Desk, boot: str, now_s: float, left_s: float
) -> None:
    orders = desk.open(fresh=True)
    assert by_hand(orders) is None
    orders.lock(BAT0, "lee", 600.0)
    desk.clock, desk.boot = Clocks(now_s, NOON + timedelta(hours=1)), boot
    again = desk.open()
    (lock,), (claim,) = again.kept.locks.held, again.claims.by_key.values()
    assert lock.until_s - now_s == pytest.approx(left_s)
    assert claim.until_s - now_s == claim.ticket.deadline_s - now_s == pytest.approx(left_s)


@pytest.mark.parametrize("left", ["the copy before", "nothing"])
def test_no_number_of_before_a_loss_comes_again(desk: Desk, left: str) -> None:
    orders = desk.open(fresh=True)
    for text in ("one", "two", "three"):
        orders.hang(TagKind.CAUTION, BAT0, text, "jones")
    orders.latch(How.CEASE, FEEDER, "lee")
    settled(orders)
    numbers = set[int]()
    for token in (2, 3):
        desk.path.write_bytes(b"")
        if left == "nothing":
            desk.path.with_name("orders.before").unlink()
        desk.token = token
        again = desk.open()
        tag = again.hang(TagKind.CAUTION, BAT0, "four", "jones")
        assert isinstance(tag, Tag)
        stop = again.latch(How.CEASE, BAT0, "lee")
        settled(again)
        assert {tag.number, stop.number}.isdisjoint(numbers | {1, 2, 3})
        assert min(it.number for it in again.board.tags if it.kind is TagKind.CONTROL_INHIBIT) > 3
        numbers |= {tag.number, stop.number}


def test_values_and_substitutes_follow_their_devices_into_another_fleet_file(desk: Desk) -> None:
    orders = desk.open(fresh=True)
    assert by_hand(orders, FEEDER) is None
    orders.substitute(Substitute(1, "p_w", 4e3, "lee", "meter is out", desk.clock.now_s + 300.0), more_s=300.0)
    again = desk.open(devices=("pv0", "new", "bat1"))
    (claim,) = again.claims.live(desk.clock.now_s)
    assert [again.places.devices[row] for row in claim.rows] == ["bat1"]
    assert [again.places.devices[it.row] for it in again.kept.substitutes] == ["pv0"]


@pytest.mark.parametrize("damage", ["torn", "flipped", "empty", "gone"])
def test_damage_is_an_alarm_and_leaves_everything_in_shadow_under_a_control_inhibit(desk: Desk, damage: str) -> None:
    orders = desk.open(fresh=True)
    orders.latch(How.CEASE, FEEDER, "lee")
    settled(orders)
    orders.hang(TagKind.CAUTION, BAT0, "last one", "jones")
    data = desk.path.read_bytes()
    if damage == "gone":
        desk.path.unlink()
    else:
        whole = {"torn": data[:-7], "flipped": data[:60] + bytes([data[60] ^ 8]) + data[61:], "empty": b""}
        desk.path.write_bytes(whole[damage])
    desk.events.clear()
    again = desk.open()
    assert desk.kinds() == ["orders-lost"]
    assert [latch.how for latch in again.latches] == [How.CEASE], "the copy before has it"
    assert [tag.kind for tag in again.board.tags] == [TagKind.CONTROL_INHIBIT]
    assert again.laid.forbidden[Act.ENERGIZE].all()
    assert again.area(FEEDER).mode is ControlMode.SHADOW
    refused = again.set_mode(FEEDER, ControlMode.AUTO, "smith", "")
    assert isinstance(refused, Refused)
    desk.events.clear()
    assert desk.open().kept == again.kept, "told once"
    assert desk.events == []


def test_a_storage_that_has_been_used_and_has_no_orders_is_not_taken_for_a_fresh_one(desk: Desk) -> None:
    orders = desk.open(fresh=False)
    assert desk.kinds() == ["orders-lost"]
    assert orders.area(FEEDER).mode is ControlMode.SHADOW
    assert orders.laid.alone.all()


def test_a_change_that_cannot_be_saved_is_refused_but_a_stop_holds_and_is_told(desk: Desk) -> None:
    desk.disk = disk = FullDisk()
    orders = desk.open(fresh=True)
    orders.hang(TagKind.CAUTION, BAT0, "dog in the yard", "jones")
    disk.full = True
    before = orders.kept
    for refused in (
        orders.hang(TagKind.CLEARANCE, FEEDER, "crew", "jones"),
        orders.take_off(1, "jones"),
        orders.lock(BAT0, "lee", 60.0),
        orders.set_mode(FEEDER, ControlMode.OFF, "lee", ""),
        by_hand(orders),
    ):
        assert isinstance(refused, Refused)
        assert [reason.by for reason in refused.reasons] == ["disk"]
    assert orders.kept is before
    desk.events.clear()
    latch = orders.latch(How.CEASE, FEEDER, "smith")
    assert isinstance(latch, Latch)
    assert orders.stopped().all()
    assert orders.unsaved
    settled(orders)
    settled(orders)
    assert desk.kinds() == ["stop-latched", "orders-not-kept"], "told once"
    assert orders.unsaved
    assert isinstance(orders.approve(latch.number, "lee"), Refused), "a release that cannot be saved does not hold"
    disk.full = False
    assert isinstance(orders.approve(latch.number, "lee"), Latch)
    assert not orders.unsaved
    assert "orders-kept" in desk.kinds()
    assert desk.open().latches == orders.latches


def test_a_stop_is_saved_by_itself_once_the_disk_has_room_again(desk: Desk) -> None:
    desk.disk = disk = FullDisk()
    orders = desk.open(fresh=True)
    disk.full = True
    orders.latch(How.CEASE, FEEDER, "smith")
    settled(orders)
    disk.full = False
    settled(orders)
    assert not orders.unsaved
    assert desk.kinds() == ["stop-latched", "orders-not-kept", "orders-kept"]
    assert desk.open().latches == orders.latches


def test_a_gateway_that_starts_on_a_full_disk_says_so_and_saves_when_it_can(desk: Desk) -> None:
    desk.disk = disk = FullDisk()
    disk.full = True
    orders = desk.open(fresh=True)
    assert desk.kinds() == ["orders-not-kept"]
    assert orders.unsaved
    disk.full = False
    assert isinstance(orders.hang(TagKind.CAUTION, BAT0, "dog in the yard", "jones"), Tag)
    assert not orders.unsaved


def test_a_torn_write_leaves_the_file_as_it_was(desk: Desk) -> None:
    desk.disk = disk = FullDisk()
    orders = desk.open(fresh=True)
    orders.hang(TagKind.CAUTION, BAT0, "dog in the yard", "jones")
    data = desk.path.read_bytes()
    disk.full = True
    orders.hang(TagKind.CAUTION, BAT0, "and a cat", "jones")
    assert desk.path.read_bytes() == data


def test_a_stop_is_released_by_two_people_or_by_one_who_breaks_the_glass(desk: Desk) -> None:
    orders = desk.open(fresh=True)
    first, second = (orders.latch(How.CEASE, scope, "smith").number for scope in (FEEDER, EVERYTHING))
    assert isinstance(orders.approve(first, "lee", remote=True), Refused)
    assert isinstance(orders.approve(first, "lee"), Latch)
    assert isinstance(orders.approve(first, "lee"), Refused)
    released = orders.approve(first, "jones", remote=True)
    assert [latch.number for latch in orders.latches] == [second]
    assert "lee and jones" in str(released)
    assert isinstance(orders.approve(first, "jones"), Refused)
    assert isinstance(orders.break_glass(second, "smith", " "), Refused)
    assert "glass broken: alone on shift" in str(orders.break_glass(second, "smith", "alone on shift"))
    assert orders.latches == ()


def test_tags_need_a_text_and_a_place_and_name_who_took_them_off(desk: Desk) -> None:
    orders = desk.open(fresh=True)
    assert isinstance(orders.hang(TagKind.CAUTION, BAT0, "  ", "jones"), Refused)
    assert isinstance(orders.hang(TagKind.CAUTION, Scope(Level.FEEDER, "f9"), "text", "jones"), Refused)
    assert isinstance(orders.hang(TagKind.ALARM_INHIBIT, BAT0, "under test", "jones"), Tag)
    assert [orders.silenced(desk_event) for desk_event in _alarms(desk)] == [True, False, False]
    assert isinstance(orders.take_off(1, "lee"), Tag)
    assert "lee: taken off" in desk.events[-1].text
    assert isinstance(orders.take_off(1, "lee"), Refused)


def _alarms(desk: Desk) -> list[Event]:
    return [Event(desk.clock.at, Severity.ALARM, source, "device-lost", "") for source in ("bat0", "bat1", "gateway")]


def test_locks_are_taken_and_given_back_by_their_owner(desk: Desk) -> None:
    orders = desk.open(fresh=True)
    assert not isinstance(orders.lock(FEEDER, "lee", 60.0), Refused)
    assert isinstance(orders.lock(BAT0, "smith", 60.0), Refused)
    assert isinstance(orders.unlock(FEEDER, "smith"), Refused)
    assert not isinstance(orders.unlock(FEEDER, "lee"), Refused)
    assert not isinstance(orders.lock(BAT0, "smith", 60.0), Refused)


def test_modes_are_as_the_site_file_says_until_somebody_says_otherwise(desk: Desk) -> None:
    orders = desk.open(fresh=True)
    assert (orders.laid.levels == ControlMode.AUTO.level).all()
    group = Scope(Level.GROUP, "vpp")
    assert isinstance(orders.set_mode(BAT0, ControlMode.OFF, "smith", "repair"), Refused), "for a device there are tags"
    assert not isinstance(orders.set_mode(group, ControlMode.OFF, "smith", "repair"), Refused)
    assert orders.laid.levels.tolist() == [0, 3, 3]
    assert not isinstance(orders.set_mode(group, ControlMode.SHADOW, "smith", ""), Refused)
    observing = desk.open(site=Mode.OBSERVE)
    assert (observing.laid.levels == ControlMode.SHADOW.level).all()
    assert observing.area(FEEDER).mode is ControlMode.SHADOW
    assert isinstance(orders.set_mode(Scope(Level.FEEDER, "f9"), ControlMode.OFF, "smith", ""), Refused)
    desk.events.clear()
    orders.doubt("", "voltages are off by 5 %")
    assert orders.area(FEEDER).author == "model"
    assert desk.kinds() == ["mode-changed"]
    orders.doubt("", "voltages are off by 5 %")
    assert desk.kinds() == ["mode-changed"], "told once"


def test_a_mode_for_everything_is_one_for_every_feeder_or_for_none(desk: Desk) -> None:
    orders = desk.open(fresh=True)
    orders.places = replace(orders.places, feeders=("f1", "f2", ""))
    assert not isinstance(orders.set_mode(EVERYTHING, ControlMode.SHADOW, "smith", "storm"), Refused)
    assert [(str(area.scope), area.mode) for area in orders.kept.areas] == [
        ("feeder f1", ControlMode.SHADOW),
        ("feeder f2", ControlMode.SHADOW),
    ]
    refused = orders.set_mode(EVERYTHING, ControlMode.AUTO, "smith", "")
    assert isinstance(refused, Refused)
    assert [reason.by for reason in refused.reasons] == ["scorecard"]
    assert (orders.laid.levels == ControlMode.SHADOW.level).all()


def test_a_substitute_needs_a_column_a_number_a_reason_and_an_end(desk: Desk) -> None:
    orders = desk.open(fresh=True)
    refused = orders.substitute(Substitute(0, "temp_c", np.nan, "lee", " ", 0.0), more_s=0.0)
    assert isinstance(refused, Refused)
    assert len(refused.reasons) == 3


def test_a_stop_that_was_never_saved_shares_its_number_with_none_of_a_later_process(desk: Desk) -> None:
    orders = desk.open(fresh=True)
    orders.hang(TagKind.CAUTION, BAT0, "one", "jones")
    lost = orders.latch(How.CEASE, FEEDER, "lee")  # the process dies before the disk has it
    desk.restart(1.0)
    desk.token = 2
    again = desk.open()
    assert again.latches == ()
    assert again.latch(How.CEASE, FEEDER, "kim").number > lost.number
