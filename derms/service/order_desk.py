"""Where people, through commands and later screens, find the gateway's orders: tags, locks, modes, values by hand."""

from collections.abc import Callable, Mapping

import numpy as np

from derms.control import modes, permissives
from derms.control.authority import Lock, Rank, left_to
from derms.control.guards import allowed
from derms.control.modes import ControlMode
from derms.control.permissives import Asked, Facts, Selected, Substitute
from derms.domain.arrays import BoolArray
from derms.domain.der import DISPATCHED_KINDS, DeviceKind
from derms.domain.dispatch import Quantity
from derms.domain.mode import Mode
from derms.domain.refusal import Reason, Refused
from derms.domain.scope import Scope
from derms.domain.tags import FORBIDS, Act, Tag
from derms.field.orders import Orders
from derms.field.reconcile import Reconciler
from derms.link.answering import Handler
from derms.link.orders import (
    ApprovePlan,
    AskWhy,
    CancelCommand,
    CommandSelected,
    Done,
    GiveBackLock,
    HangTag,
    OperateCommand,
    PutSubstitute,
    RemoveSubstitute,
    SelectCommand,
    SetMode,
    Show,
    TakeLock,
    TakeOffTag,
    Wanted,
    WhyNot,
)
from derms.service.order_view import shown

USUAL = {DeviceKind.BATTERY: Quantity.P_SET, DeviceKind.PV: Quantity.P_LIMIT}
"""What a device of a kind takes, as long as it was not asked itself."""


class OrderDesk:
    """Answers for a gateway's orders; the author of each request is who the link says it is."""

    def __init__(
        self, orders: Orders, reconciler: Reconciler, service_of: Callable[[int], str] = lambda row: ""
    ) -> None:
        """`service_of` says how a device stands that is out of service."""
        self._orders = orders
        self._reconciler = reconciler
        self._service_of = service_of

    def handlers(self) -> Mapping[type, Handler]:
        """By the request that each answers."""
        return {
            HangTag: self.hang,
            TakeOffTag: self.take_off,
            TakeLock: self.lock,
            GiveBackLock: self.unlock,
            SetMode: self.set_mode,
            ApprovePlan: self.approve_plan,
            SelectCommand: self.select,
            OperateCommand: self.operate,
            CancelCommand: self.cancel,
            AskWhy: self.why,
            PutSubstitute: self.substitute,
            RemoveSubstitute: self.remove_substitute,
            Show: self.show,
        }

    async def hang(self, request: HangTag, author: str) -> Done | Refused:
        orders = self._orders
        found = await orders.durably(lambda: orders.hang(request.kind, request.scope, request.text, author))
        return Done(str(found) + self._still_held(found)) if isinstance(found, Tag) else found

    def _still_held(self, tag: Tag) -> str:
        """What to know of a tag under which nothing is sent any more, not even a release."""
        under, places = self._orders.places.under(tag.scope), self._orders.places
        rows = np.zeros(len(places), dtype=np.bool_)
        rows[[row for row, _ in self._reconciler.holdings if under[row]]] = True
        if Act.ENERGIZE not in FORBIDS[tag.kind] or not rows.any():
            return ""
        return f"; {places.named(rows)}: what they hold of ours stays until their timers end; a stop ends it now"

    async def take_off(self, request: TakeOffTag, author: str) -> Done | Refused:
        found = await self._orders.durably(lambda: self._orders.take_off(request.number, author))
        return Done(f"taken off: {found}") if isinstance(found, Tag) else found

    async def lock(self, request: TakeLock, author: str) -> Done | Refused:
        found = await self._orders.durably(lambda: self._orders.lock(request.scope, author, request.hold_s))
        text = f"{request.scope} is locked by {author} for {request.hold_s:.0f} s"
        return Done(text) if isinstance(found, Lock) else found

    async def unlock(self, request: GiveBackLock, author: str) -> Done | Refused:
        found = await self._orders.durably(lambda: self._orders.unlock(request.scope, author))
        return Done(f"{request.scope} is not locked by {author} any more") if isinstance(found, Lock) else found

    async def set_mode(self, request: SetMode, author: str) -> Done | Refused:
        """A promotion is refused with everything that is missing; a demotion is not."""
        orders = self._orders
        found = await orders.durably(lambda: orders.set_mode(request.scope, request.mode, author, request.why))
        if isinstance(found, Refused):
            return found
        return Done("\n".join(f"{area.scope} is in {area.mode}" for area in found))

    async def approve_plan(self, request: ApprovePlan, author: str) -> Done | Refused:
        refused = self._reconciler.wishes.approve(request.plan_id, author)
        return refused or Done(f"plan {request.plan_id} goes out where the mode is advise")

    async def select(self, request: SelectCommand, author: str) -> CommandSelected | Refused:
        asked = _asked(request, author)
        facts = self._facts(request.quantity)
        if silent := no_writes(self._orders):
            return Refused((*permissives.why_not(asked, facts, self._orders.selections), *silent))
        found = self._orders.select(asked, facts)
        if not isinstance(found, Selected):
            return found
        devices = int(facts.under(asked.scope).sum())
        return CommandSelected(found.selection.number, found.selection.until_s - facts.now_s, devices, found.notes)

    async def operate(self, request: OperateCommand, author: str) -> Done | Refused:
        orders, reconciler = self._orders, self._reconciler
        selection = next((it for it in orders.selections.open if it.number == request.number), None)
        facts = self._facts(Quantity.P_SET if selection is None else selection.asked.quantity)
        if silent := no_writes(self._orders):
            return Refused(silent)
        token = reconciler.journal.token
        found = await orders.durably(lambda: orders.operate(request.number, author, facts, token=token))
        if isinstance(found, Refused):
            return found
        reconciler.hasten(facts.under(found.asked.scope))
        return Done(f"goes out to {facts.places.named(facts.under(found.asked.scope))}")

    async def cancel(self, request: CancelCommand, author: str) -> Done | Refused:
        if self._orders.cancel(request.number, author):
            return Done(f"selection {request.number} is dropped")
        return Refused((Reason("selection", f"{author} has no selection {request.number}"),))

    async def why(self, request: AskWhy, author: str) -> WhyNot | Refused:
        if refused := self._orders.nobody_under(request.scope):
            return refused
        asked = _asked(request, author)
        facts, silent = self._facts(request.quantity), no_writes(self._orders)
        person = (*permissives.why_not(asked, facts, self._orders.selections), *silent)
        plans = (*against_plans(self._orders, self._reconciler, asked.scope), *silent)
        return WhyNot(person, plans, permissives.notes(asked, facts))

    async def substitute(self, request: PutSubstitute, author: str) -> Done | Refused:
        row = self._orders.fleet.index.get(request.device)
        if row is None:
            return _no_device(request.device)
        until_s = self._orders.clock.monotonic_s() + request.hold_s
        put = Substitute(row, request.column, request.value, author, request.text, until_s)
        found = await self._orders.durably(lambda: self._orders.substitute(put, more_s=request.hold_s))
        text = f"{request.column} of {request.device} is taken to be {request.value:g} for {request.hold_s:.0f} s"
        return Done(text) if isinstance(found, Substitute) else found

    async def remove_substitute(self, request: RemoveSubstitute, author: str) -> Done | Refused:
        row = self._orders.fleet.index.get(request.device)
        if row is None:
            return _no_device(request.device)
        found = await self._orders.durably(lambda: self._orders.remove_substitute(row, request.column, author))
        text = f"{request.column} of {request.device} is what is measured again"
        return Done(text) if isinstance(found, Substitute) else found

    async def show(self, request: Show, author: str) -> object:
        refused = self._orders.nobody_under(request.scope)
        return refused or shown(self._orders, self._reconciler, request.scope, self._service_of)

    def _facts(self, quantity: Quantity) -> Facts:
        """How things stand now, for a command of a quantity."""
        orders, reconciler = self._orders, self._reconciler
        fleet, laid = reconciler.fleet, orders.laid
        snapshot = reconciler.poller.snapshot()
        left = left_to(Rank.OPERATOR, reconciler.wishes.claims(snapshot.now_s), len(fleet), snapshot.now_s)
        bounds = allowed(reconciler.wishes.guard_input(quantity, snapshot)).narrowed(left.low_w, left.high_w)
        handed_over = np.zeros(len(fleet), dtype=np.bool_)
        handed_over[sorted(reconciler.custody.handed_over)] = True
        return Facts(
            now_s=snapshot.now_s,
            places=orders.places,
            takes=self._takes(quantity),
            board=orders.board,
            locks=orders.kept.locks,
            closed=~modes.passing(Rank.OPERATOR, laid.levels, orders.site),
            stopped=laid.stopped,
            local=snapshot.local,
            handed_over=handed_over,
            quality=snapshot.quality,
            bounds=bounds,
        )

    def _takes(self, quantity: Quantity) -> BoolArray:
        """Devices that take a quantity, as they said themselves, or as their kind does."""
        reconciler = self._reconciler
        takes = np.zeros(len(reconciler.fleet), dtype=np.bool_)
        for row, device in enumerate(reconciler.fleet.devices):
            if device.kind in DISPATCHED_KINDS:
                identity = reconciler.poller.identity(row)
                known = identity is not None and quantity in identity.capabilities.takes
                takes[row] = known if identity is not None else USUAL[device.kind] is quantity
        return takes


def no_writes(orders: Orders) -> tuple[Reason, ...]:
    """Why no new value goes out at all."""
    site, ladder = orders.site, orders.ladder
    reasons = [] if site is Mode.AUTO else [Reason("site", f"the site file says {site}: nothing is written")]
    if ladder.position is not None and not ladder.setpoints:
        reasons.append(Reason("ladder", ladder.position.text))
    return tuple(reasons)


def against_plans(
    orders: Orders, reconciler: Reconciler, scope: Scope, among: BoolArray | None = None
) -> tuple[Reason, ...]:
    """What keeps plans from devices of a scope; `among` are those of which it is told, shape (n,), else of all."""
    places, laid = orders.places, orders.laid
    rows = places.under(scope) if among is None else places.under(scope) & among
    found = [Reason("tag", str(tag)) for tag in orders.board.over(scope, places) if Act.AUTOMATIC in FORBIDS[tag.kind]]
    for mode in ControlMode:
        held = rows & (laid.levels == mode.level)
        if held.any() and Rank.OPTIMIZER not in modes.PASSES[mode]:
            found.append(Reason("mode", f"{places.named(held)}: the mode is {mode}"))
    handed_over = np.zeros(len(places), dtype=np.bool_)
    handed_over[sorted(reconciler.custody.handed_over)] = True
    for column, by, text in (
        (laid.stopped, "stop", "stopped, and the stop is not released"),
        (reconciler.poller.snapshot().local, "local", "under local control"),
        (handed_over, "another master", "left to another master"),
    ):
        if (rows & column).any():
            found.append(Reason(by, f"{places.named(rows & column)}: {text}"))
    if reconciler.wishes.plans.latest is None:
        found.append(Reason("plan", "no plan is offered"))
    return tuple(found)


def _asked(request: Wanted, author: str) -> Asked:
    return Asked(author, request.scope, request.quantity, request.value_w, request.hold_s)


def _no_device(name: str) -> Refused:
    return Refused((Reason("request", f"there is no device {name}"),))
