"""The dispatcher's desk at the gateway: what is asked of the fleet's batteries as a whole, and what they could do.

What is asked is an order like others, and reaches devices with the next plan: within guards, tags, stops and modes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

from derms.control import modes
from derms.control.authority import HOLD_MAX_S, Rank
from derms.domain.arrays import BoolArray
from derms.domain.desk import DeskOrder, Headroom
from derms.domain.refusal import Reason, Refused
from derms.domain.scope import Level, Scope
from derms.domain.tags import Act
from derms.field.orders import Orders
from derms.field.reconcile import Reconciler
from derms.link.answering import Handler
from derms.link.desk import AskFleet, ReturnToSchedule, ShowDesk, ShownDesk
from derms.link.orders import Done
from derms.service.order_desk import against_plans, no_writes


class DispatchDesk:
    """Answers for a gateway's orders and the headroom that the brain tells."""

    def __init__(self, orders: Orders, reconciler: Reconciler) -> None:
        self._orders, self._reconciler = orders, reconciler

    def handlers(self) -> Mapping[type, Handler]:
        """By the request that each answers."""
        return {AskFleet: self.ask, ReturnToSchedule: self.return_to_schedule, ShowDesk: self.show}

    async def ask(self, request: AskFleet, author: str) -> Done | Refused:
        """Refused with every reason where it could reach nobody; else what keeps it from some is said with it."""
        scope = Scope(Level.FEEDER, request.feeder)
        wrong = tuple(self._wrong(request, scope))
        if wrong:
            return Refused(wrong)
        self._orders.ladder.look()
        against = self._against([scope])
        if no_writes(self._orders) or not self._reached(scope).any():
            return Refused(against)
        until_s = self._orders.clock.monotonic_s() + request.hold_s
        order = DeskOrder(request.feeder, request.power_w, author, until_s)
        found = await self._orders.durably(lambda: self._orders.ask(order, request.hold_s))
        if isinstance(found, Refused):
            return found
        notes = (*against, *self._possible(request))
        lines = [f"{found} for {request.hold_s:.0f} s, from the next plan on, which is made at once"]
        return Done("\n".join([*lines, *(f"  {note.by}: {note.text}" for note in notes)]))

    async def return_to_schedule(self, request: ReturnToSchedule, author: str) -> Done | Refused:
        found = await self._orders.durably(lambda: self._orders.return_to_schedule(author))
        return Done(f"returned to schedule: {found}") if isinstance(found, DeskOrder) else found

    async def show(self, request: ShowDesk, author: str) -> ShownDesk:
        orders, now_s = self._orders, self._orders.clock.monotonic_s()
        order = orders.desk
        scopes = orders.feeders() if order is None else [Scope(Level.FEEDER, order.feeder)]
        return ShownDesk(
            order=order,
            planned=orders.planned_for == order,
            left_s=math.nan if order is None else order.until_s - now_s,
            headroom=orders.headroom,
            age_s=now_s - orders.planned_s,
            against=self._against(scopes),
        )

    def _against(self, scopes: Sequence[Scope]) -> tuple[Reason, ...]:
        """What keeps plans from batteries, or keeps plans away altogether."""
        orders, batteries = self._orders, self._reconciler.fleet.is_battery
        found = [it for scope in scopes for it in against_plans(orders, self._reconciler, scope, batteries)]
        position, silent = orders.ladder.position, no_writes(orders)
        if position is not None and position.rung.word != "normal" and not silent:
            found.append(Reason("ladder", position.text))
        return (*found, *silent)

    def _wrong(self, request: AskFleet, scope: Scope) -> Iterator[Reason]:
        rows, power_w = self._batteries(scope), request.power_w
        if not rows.any():
            names = ", ".join(feeder.name for feeder in self._orders.feeders())
            yield Reason("request", f"there is no {scope} with batteries: it is one of {names}")
            return
        if not 0.0 < request.hold_s <= HOLD_MAX_S:
            yield Reason("request", f"it stands for more than 0 and at most {HOLD_MAX_S / 3600:.0f} h")
        most_w = float(self._reconciler.fleet.p_rated_w[rows].sum())
        if power_w is not None and math.isnan(power_w):
            yield Reason("request", "nan is no number")
        elif power_w is not None and not abs(power_w) <= most_w:
            yield Reason("request", f"{power_w / 1e3:g} kW: batteries of {scope} have {most_w / 1e3:g} kW together")

    def _batteries(self, scope: Scope) -> BoolArray:
        rows: BoolArray = self._orders.places.under(scope) & self._reconciler.fleet.is_battery
        return rows

    def _reached(self, scope: Scope) -> BoolArray:
        """Batteries that a plan would reach."""
        orders, laid = self._orders, self._orders.laid
        rows = self._batteries(scope) & modes.passing(Rank.OPTIMIZER, laid.levels, orders.site)
        rows &= ~laid.forbidden[Act.AUTOMATIC] & ~laid.stopped & ~self._reconciler.poller.snapshot().local
        rows[sorted(self._reconciler.custody.handed_over)] = False
        return rows

    def _possible(self, request: AskFleet) -> Iterator[Reason]:
        """What batteries can do for as long as is asked."""
        headroom = self._orders.headroom
        if headroom is None:
            yield Reason("headroom", "what the fleet can do is not known: there is no plan of the optimizer yet")
            return
        could_w = _could_w(headroom, request)
        if could_w is None:
            return
        yield Reason("headroom", f"batteries can do {could_w / 1e3:.0f} kW for that long, as of the latest plan")


def _could_w(headroom: Headroom, request: AskFleet) -> float | None:
    """Power [W, >= 0] that can be had for as long as is asked, with the plan given up; None where nobody knows."""
    offers = [offer for offer in headroom.offers if offer.lasting_h >= request.hold_s / 3600.0 - 1e-9]
    if not offers:
        return None
    instead = min(offers, key=lambda offer: offer.lasting_h).instead
    return instead.down_w if request.power_w is not None and request.power_w < 0.0 else instead.up_w
