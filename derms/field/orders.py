"""Orders: what people have laid down. Tags, locks, modes, stops, manual and substituted values, in one place.

It outlives the process in a file (`derms/field/orders_file.py`). A change that cannot be saved is refused; while the
loop runs it is made by `durably`. Only a stop, and a demotion for want of topology or model, hold at once and are saved
later; that they cannot be is told. Every change is an event.
"""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from derms.control import latch as latching
from derms.control import modes, permissives
from derms.control.authority import Claims, Lock, Rank, Ticket
from derms.control.latch import Latch, Released
from derms.control.modes import CEILING, Area, ControlMode, Evidence, Scorecard
from derms.control.permissives import Facts, Operated, Selected, Selections, Substitute
from derms.control.stopping import How
from derms.domain.alarm import Event, Severity
from derms.domain.arrays import BoolArray
from derms.domain.der import Fleet
from derms.domain.desk import DeskOrder, Headroom
from derms.domain.membership import NOWHERE
from derms.domain.mode import Mode
from derms.domain.refusal import Reason, Refused
from derms.domain.scope import EVERYTHING, Level, Places, Scope
from derms.domain.tags import FORBIDS, Act, Board, Tag, TagKind
from derms.errors import RecordError
from derms.field.disk import SYSTEM_DISK, Disk
from derms.field.ladder import Ladder
from derms.field.laid import Laid
from derms.field.orders_file import Kept, OrdersFile
from derms.field.orders_saver import LATE, SAVE_S, Saver
from derms.ports import Clock

T = TypeVar("T")

EVERY_S = 1.0
"""Between two looks at the ladder."""
GATEWAY = "gateway"
"""Author of what the gateway lays down by itself."""
STOPS = 100
"""Stops of each process are numbered from its fencing token times this: one that the disk did not take in time, and
that nobody knows of any more, shares its number with no later one, which its release would else release."""
NUMBERS = 10_000
"""After a loss tags and stops are numbered from the fencing token times this: no number of before comes again."""
LOST = (
    "the file of orders could not be read: tags and stops of before may be missing here; "
    "see that nothing is worked on or stopped, then take this tag off"
)


@dataclass(frozen=True, slots=True)
class Draft:
    """A change that is to hold once it is saved, and the event of it."""

    kept: Kept
    kind: str
    text: str
    severity: Severity


def _without_hand(kept: Kept, places: Places, scope: Scope) -> Kept:
    """What is kept, without values that people have set in a scope; nor what is asked of a feeder that is all in it."""
    claims = Claims({claim.key: claim for claim in kept.claims}).yielded(Rank.OPERATOR, places.under(scope))
    desk, over = kept.desk, (Scope(Level.FEEDER, kept.desk.feeder) if kept.desk else None, EVERYTHING)
    left = tuple(claim for claim in claims.by_key.values() if len(claim.rows))
    return replace(kept, claims=left, desk=None if scope in over else desk)


@dataclass
class Orders:
    """All orders of a site; see the module's text."""

    fleet: Fleet
    places: Places
    site: Mode
    clock: Clock
    on_event: Callable[[Event], None]
    file: OrdersFile | None = None
    """None keeps nothing."""
    kept: Kept = field(default_factory=Kept)
    selections: Selections = field(default_factory=Selections)
    scorecards: dict[Scope, Scorecard] = field(default_factory=dict)
    """What was shown of feeders, as the brain last told it."""
    headroom: Headroom | None = None
    """What the fleet could do beside the latest plan, as the brain last told it."""
    planned_s: float = math.nan
    """When that plan was made."""
    planned_for: DeskOrder | None = None
    """What the dispatcher asked for when it was made."""
    topology: str = ""
    """Why it is in doubt how the feeder is switched."""
    model: str = ""
    """Why its model is not to be believed."""
    ladder: Ladder = field(init=False)
    saver: Saver = field(init=False)
    _laid: Laid | None = None
    _drafts: list[Draft] | None = None
    """Changes that are being drawn up by `durably`; None while none is."""
    _coming: Kept | None = None
    """What is to hold once the change that is being saved is durable."""
    _changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _called: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.ladder = Ladder(self.clock, self.on_event, self._all_stopped, self.doubt)
        self.saver = Saver(self.file, self.places.devices, self.clock, self.on_event)

    @classmethod
    def open(
        cls,
        path: Path,
        fleet: Fleet,
        places: Places,
        site: Mode,
        clock: Clock,
        on_event: Callable[[Event], None],
        *,
        fresh: bool,
        start: ControlMode = ControlMode.AUTO,
        disk: Disk = SYSTEM_DISK,
        token: int = 1,
        boot: str = "",
    ) -> "Orders":
        """The orders in a file, or none yet on a `fresh` storage; for a fencing token, and the boot of the clock.

        Where the file is damaged or missing, everything is in SHADOW and a control inhibit hangs over it: nobody knows
        what was tagged and stopped since the copy before, which is taken if it can be read.
        """
        file = OrdersFile(path, clock, disk, boot)
        orders = cls(fleet, places, site, clock, on_event, file)
        try:
            if fresh and not file.there:
                orders.kept = Kept(start=start)
            else:
                kept = file.load(places.devices)
                orders.kept = replace(kept, last_latch=max(kept.last_latch, STOPS * (token - 1)))
        except (OSError, RecordError) as error:
            orders.kept = orders._after_loss(token)
            orders._event("orders-lost", f"{LOST} ({error})", Severity.ALARM)
        if failed := orders.saver.in_place(orders.kept):
            orders.saver.hold(orders.kept)
            orders.saver.fails(failed, Severity.WARNING)
        return orders

    def _after_loss(self, token: int) -> Kept:
        try:
            assert self.file is not None
            kept = self.file.load(self.places.devices, before=True)
        except (OSError, RecordError):
            kept = Kept()
        last_tag, last_latch = (max(last, NUMBERS * token) for last in (kept.board.last, kept.last_latch))
        numbered, at = replace(kept.board, last=last_tag), self.clock.utc()
        board = numbered.hung(TagKind.CONTROL_INHIBIT, EVERYTHING, LOST, GATEWAY, at)
        areas = tuple(area for area in kept.areas if area.mode.level < ControlMode.SHADOW.level)
        return replace(kept, board=board, areas=areas, last_latch=last_latch, start=ControlMode.SHADOW)

    @property
    def laid(self) -> Laid:
        """What they say now."""
        laid = self._laid
        if laid is None or laid.kept is not self.kept or laid.places is not self.places:
            self._laid = laid = Laid(self.kept, self.places, self.site)
        return laid

    @property
    def board(self) -> Board:
        return self.kept.board

    @property
    def desk(self) -> DeskOrder | None:
        """What the dispatcher asks of the fleet now."""
        order = self.kept.desk
        return order if order is not None and self.clock.monotonic_s() < order.until_s else None

    @property
    def latches(self) -> tuple[Latch, ...]:
        return self.kept.latches

    @property
    def claims(self) -> Claims:
        """What people want of devices by hand."""
        return Claims({claim.key: claim for claim in self.kept.claims})

    def stopped(self) -> BoolArray:
        """Devices over which a stop is latched, shape (n,)."""
        return self.laid.stopped

    def _all_stopped(self) -> bool:
        """A stop is latched over everything that is commanded."""
        commanded = self.fleet.is_battery | self.fleet.is_pv
        return bool(commanded.any() and self.stopped()[commanded].all())

    def silenced(self, event: Event) -> bool:
        """Whether a tag inhibits the alarms of what an event is about."""
        row = self.fleet.index.get(event.source)
        return row is not None and bool(self.laid.forbidden[Act.ALARM][row])

    # Tags and locks

    def hang(self, kind: TagKind, scope: Scope, text: str, author: str) -> Tag | Refused:
        """Hang a tag; one that forbids manual control ends what was set by hand: it does not come back later."""
        if refused := self.nobody_under(scope):
            return refused
        try:
            board = self.board.hung(kind, scope, text, author, self.clock.utc())
        except ValueError as error:
            return Refused((Reason("request", str(error)),))
        tag, kept = board.tags[-1], replace(self.kept, board=board)
        if Act.MANUAL in FORBIDS[kind]:
            kept = _without_hand(kept, self.places, scope)
        return self._change(kept, "tag-hung", str(tag), author) or tag

    def take_off(self, number: int, author: str) -> Tag | Refused:
        """Take a tag off; anybody may, and the event says who did."""
        tag = next((tag for tag in self.board.tags if tag.number == number), None)
        if tag is None:
            return Refused((Reason("request", f"there is no tag {number}"),))
        kept = replace(self.kept, board=self.board.without(number))
        return self._change(kept, "tag-off", f"taken off: {tag}", author) or tag

    def lock(self, scope: Scope, author: str, hold_s: float) -> Lock | Refused:
        """Keep other people's commands out of a scope for a while."""
        now_s = self.clock.monotonic_s()
        lock = Lock(scope, author, now_s + hold_s)
        locks = self.kept.locks.taken(lock, self.places, now_s)
        if isinstance(locks, Refused):
            return locks
        text = f"{scope} is locked for {hold_s:.0f} s"
        return self._change(replace(self.kept, locks=locks), "locked", text, author) or lock

    def unlock(self, scope: Scope, author: str) -> Lock | Refused:
        """Give one's lock back."""
        held = [lock for lock in self.kept.locks.held if (lock.owner, lock.scope) == (author, scope)]
        if not held:
            return Refused((Reason("request", f"{author} holds no lock on {scope}"),))
        kept = replace(self.kept, locks=self.kept.locks.given_back(author, scope))
        return self._change(kept, "unlocked", f"{scope} is not locked any more", author) or held[0]

    # Modes

    def area(self, scope: Scope) -> Area:
        """A feeder, group or device with its mode; one of which nothing was said is held back by nothing of its own."""
        found = next((area for area in self.kept.areas if area.scope == scope), None)
        mode = self.kept.start if scope.level is Level.FEEDER else ControlMode.AUTO
        if CEILING[self.site].level < mode.level:
            mode = CEILING[self.site]
        return found or Area(scope, mode, self.clock.monotonic_s(), GATEWAY, "as the site file says")

    def set_mode(self, scope: Scope, to: ControlMode, author: str, why: str) -> tuple[Area, ...] | Refused:
        """Put a feeder or group, or every feeder, into another mode; a promotion needs its evidence."""
        if refused := self.nobody_under(scope):
            return refused
        if scope.level is Level.DEVICE:
            return Refused((Reason("scope", "modes are of feeders and groups: a tag keeps a device out"),))
        scopes = self.feeders() if scope.level is Level.ALL else [scope]
        found = [modes.changed(self.area(it), to, author, self._evidence(it), why=why) for it in scopes]
        reasons = tuple(reason for it in found if isinstance(it, Refused) for reason in it.reasons)
        if reasons:
            return Refused(tuple(dict.fromkeys(reasons)))
        areas = tuple(it for it in found if isinstance(it, Area))
        return self._change(_moved(self.kept, areas), *_told(areas)) or areas

    def feeders(self) -> list[Scope]:
        """All feeders that devices are on."""
        return [Scope(Level.FEEDER, name) for name in dict.fromkeys(self.places.feeders) if name != NOWHERE]

    def doubt(self, topology: str, model: str) -> None:
        """Hear what speaks against topology and model: feeders above SHADOW go back there, and stay."""
        self.topology, self.model = topology, model
        if not topology and not model:
            return
        for scope in self.feeders():
            before = self.area(scope)
            after = modes.settled(before, self._evidence(scope))
            if after.mode is not before.mode:
                self._hold(partial(_moved, areas=(after,)), *_told((after,)), Severity.WARNING)

    def _evidence(self, scope: Scope) -> Evidence:
        now_s, card = self.clock.monotonic_s(), self.card(scope)
        return Evidence(now_s, self.site, topology=self.topology, model=self.model, scorecard=card)

    def card(self, scope: Scope) -> Scorecard | None:
        """What was shown of a feeder; of a group, whose devices have a part in the same plans: of its one feeder."""
        if scope.level is not Level.GROUP:
            return self.scorecards.get(scope)
        under = self.places.under(scope)
        on = {feeder for feeder, is_under in zip(self.places.feeders, under, strict=True) if is_under}
        return self.scorecards.get(Scope(Level.FEEDER, on.pop())) if len(on) == 1 and NOWHERE not in on else None

    # Stops

    def latch(self, how: How, scope: Scope, author: str) -> Latch:
        """Latch a stop: it holds at once, and is saved off the loop as soon as that is possible.

        What was set by hand under it ends: nothing of before comes back when it is released.
        """
        number = self.kept.last_latch + 1
        latch = Latch(number, how, scope, author, self.clock.monotonic_s())

        def step(kept: Kept) -> Kept:
            latched = replace(kept, latches=(*kept.latches, latch), last_latch=number)
            return _without_hand(latched, self.places, scope)

        self._hold(step, "stop-latched", f"stop {number} ({how}, {scope}) is latched", author, Severity.ALARM)
        return latch

    def approve(self, number: int, person: str, remote: bool = False) -> Latch | Released | Refused:
        """One of the two steps of a release."""
        latch = self._latch(number)
        if isinstance(latch, Refused):
            return latch
        return self._stepped(latching.approve(latch, person, self.clock.monotonic_s(), remote=remote), person)

    def break_glass(self, number: int, person: str, why: str) -> Released | Refused:
        """Release a stop alone."""
        latch = self._latch(number)
        if isinstance(latch, Refused):
            return latch
        found = self._stepped(latching.break_glass(latch, person, why, self.clock.monotonic_s()), person)
        assert not isinstance(found, Latch)
        return found

    def _latch(self, number: int) -> Latch | Refused:
        found = next((latch for latch in self.latches if latch.number == number), None)
        return found or Refused((Reason("request", f"there is no stop {number}, or it is released"),))

    def _stepped(self, step: Latch | Released | Refused, person: str) -> Latch | Released | Refused:
        if isinstance(step, Refused):
            return step
        number = step.number if isinstance(step, Latch) else step.latch.number
        left = tuple(latch for latch in self.latches if latch.number != number)
        if isinstance(step, Latch):
            left, kind, text = (*left, step), "stop-approved", f"the release of stop {number} is approved once"
        else:
            kind, text = "stop-released", str(step)
        return self._change(replace(self.kept, latches=left), kind, text, person, Severity.WARNING) or step

    # Values by hand

    def select(self, asked: permissives.Asked, facts: Facts) -> Selected | Refused:
        """Select a command by hand."""
        self.selections, found = permissives.select(self.selections, asked, facts)
        return found

    def cancel(self, number: int, author: str) -> bool:
        """Drop one's selection; whether there was one."""
        mine = any(it.number == number and it.asked.author == author for it in self.selections.open)
        if mine:
            self.selections = permissives.cancel(self.selections, number)
        return mine

    def operate(self, number: int, author: str, facts: Facts, *, token: int) -> Operated | Refused:
        """Operate a selection: its value is wanted from now on."""
        self.selections, found = permissives.operate(self.selections, number, author, facts)
        if isinstance(found, Refused):
            return found
        asked, seq, now_s = found.asked, self.kept.seq + 1, facts.now_s
        ticket = Ticket(token, seq, now_s + asked.hold_s if asked.value_w is not None else now_s)
        claims = permissives.claimed(self.claims, found, facts, ticket).pruned(now_s)
        value = "is given up" if asked.value_w is None else f"{asked.value_w / 1e3:g} kW for {asked.hold_s:.0f} s"
        kept = replace(self.kept, claims=tuple(claims.by_key.values()), seq=seq)
        return self._change(kept, "manual", f"{asked.quantity} of {asked.scope} by hand: {value}", author) or found

    def substitute(self, substitute: Substitute, *, more_s: float) -> Substitute | Refused:
        """Put a value in the place of a measured one for a time."""
        reasons = permissives.against_substitute(substitute, more_s, float(self.fleet.p_rated_w[substitute.row]))
        if reasons:
            return Refused(reasons)
        now_s, place = self.clock.monotonic_s(), (substitute.row, substitute.column)
        others = (it for it in self.kept.substitutes if (it.row, it.column) != place and now_s < it.until_s)
        kept = replace(self.kept, substitutes=(*others, substitute))
        device = self.places.devices[substitute.row]
        text = f"{substitute.column} of {device} is taken to be {substitute.value:g}: {substitute.text}"
        return self._change(kept, "substituted", text, substitute.author, Severity.WARNING) or substitute

    def remove_substitute(self, row: int, column: str, author: str) -> Substitute | Refused:
        """Have a measured value again; anybody may, and the event says who did."""
        now_s, what = self.clock.monotonic_s(), f"{column} of {self.places.devices[row]}"
        live = [it for it in self.kept.substitutes if now_s < it.until_s]
        found = next((it for it in live if (it.row, it.column) == (row, column)), None)
        if found is None:
            return Refused((Reason("request", f"nothing stands in the place of {what}"),))
        kept = replace(self.kept, substitutes=tuple(it for it in live if it is not found))
        return self._change(kept, "substitute-off", f"{what} is what is measured again", author) or found

    # The dispatcher's desk

    def ask(self, order: DeskOrder, hold_s: float) -> DeskOrder | Refused:
        """Ask something of the fleet, in the place of what was asked before."""
        kept, text = replace(self.kept, desk=order), f"{order} for {hold_s:.0f} s"
        return self._change(kept, "desk-asks", text, order.author, Severity.WARNING) or order

    def return_to_schedule(self, author: str) -> DeskOrder | Refused:
        """Ask nothing any more."""
        order = self.desk
        if order is None:
            return Refused((Reason("request", "nothing is asked of the fleet: it follows the schedule"),))
        kept, text = replace(self.kept, desk=None), f"returned to schedule: {order}"
        return self._change(kept, "desk-returns", text, author, Severity.WARNING) or order

    # Keeping

    @property
    def unsaved(self) -> bool:
        """Something holds that is not durable."""
        return self.saver.waiting is not None

    async def run(self) -> None:
        """Look at the ladder once a second, and save what holds and is not durable, until cancelled."""
        try:
            while True:
                self._called.clear()
                self.ladder.look()
                self.saver.look(self.kept)
                with suppress(TimeoutError):
                    async with asyncio.timeout(EVERY_S):
                        await self._called.wait()
        except asyncio.CancelledError:
            self.saver.look(self.kept)
            raise

    async def settle(self, within_s: float) -> None:
        """Give what holds a while to become durable."""
        self.saver.look(self.kept)
        await self.saver.settled(within_s)

    async def durably(self, change: Callable[[], T | Refused]) -> T | Refused:
        """Make one change of those above without holding up the loop: one at a time, durable first, else refused."""
        try:
            async with asyncio.timeout(SAVE_S):
                await self._changing.acquire()
        except TimeoutError:
            return _not_saved(LATE)
        try:
            self._drafts = drafts = list[Draft]()
            try:
                found = change()
            finally:
                self._drafts = None
            if not drafts:
                return found
            self._coming = drafts[0].kept
            failed = await self.saver.save(self._coming, self.kept)
            return self._made(drafts[0], self._coming, failed) or found
        finally:
            self._coming = None
            self._changing.release()

    def _change(
        self, kept: Kept, kind: str, text: str, author: str, severity: Severity = Severity.INFO
    ) -> Refused | None:
        """Make a change, durable first; refused when that is not possible. Inside `durably` it is made later."""
        draft = Draft(kept, kind, f"{author}: {text}", severity)
        if self._drafts is not None:
            self._drafts.append(draft)
            return None
        return self._made(draft, kept, self.saver.in_place(kept))

    def _made(self, draft: Draft, coming: Kept, failed: str) -> Refused | None:
        """Let a change hold, with what came to hold while it was saved, unless it failed."""
        if failed:
            return _not_saved(failed)
        self.kept = coming
        self.saver.saved(draft.kept, coming)
        self._event(draft.kind, draft.text, draft.severity)
        return None

    def _hold(self, step: Callable[[Kept], Kept], kind: str, text: str, author: str, severity: Severity) -> None:
        """Make a change that holds whether it can be saved or not, also in what is just being saved."""
        self.kept = step(self.kept)
        if self._coming is not None:
            self._coming = step(self._coming)
        self.saver.hold(self.kept)
        self._called.set()
        self._event(kind, f"{author}: {text}", severity)

    def nobody_under(self, scope: Scope) -> Refused | None:
        """A refusal where no device is under a scope."""
        if self.places.under(scope).any():
            return None
        return Refused((Reason("scope", f"there is no {scope}"),))

    def _event(self, kind: str, text: str, severity: Severity) -> None:
        self.on_event(Event(self.clock.utc(), severity, GATEWAY, kind, text))


def _moved(kept: Kept, areas: tuple[Area, ...]) -> Kept:
    """With some areas in the place of what was said of them."""
    scopes = {area.scope for area in areas}
    return replace(kept, areas=(*(other for other in kept.areas if other.scope not in scopes), *areas))


def _told(areas: tuple[Area, ...]) -> tuple[str, str, str]:
    """Kind, text and author of the event of it."""
    why = f": {areas[0].why}" if areas[0].why else ""
    text = f"{', '.join(str(area.scope) for area in areas)} in {areas[0].mode}{why}"
    return "mode-changed", text, areas[0].author


def _not_saved(failed: str) -> Refused:
    return Refused((Reason("disk", f"it cannot be saved, so it does not hold: {failed}"),))
