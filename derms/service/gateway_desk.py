"""Where the brain, and others who only look, find the gateway: who leads, what the field says, dispatches, records."""

import asyncio
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np

from derms.control.authority import Fence
from derms.control.permissives import with_substitutes
from derms.domain.alarm import Event, Severity
from derms.domain.arrays import BoolArray
from derms.domain.der import DeviceKind
from derms.domain.dispatch import Quantity
from derms.domain.quality import Quality
from derms.domain.records import Records
from derms.domain.refusal import Reason, Refused
from derms.errors import JournalError
from derms.field.journal import Journal
from derms.link.answering import Handler
from derms.link.messages import Condition, Drain, Hand, Heard, Inspect, Lead, Led, Observe, Observed, Taken, Tell
from derms.ports import Clock, ScadaSource
from derms.service.config import Site
from derms.service.gateway import Gateway

LEADS_MAX = 1 << 20
"""Brains that may lead one after another under one lease: tokens go on growing with the next lease."""


class GatewayDesk:
    """Answers for a gateway; see the module's text."""

    def __init__(
        self,
        site: Site,
        gateway: Gateway,
        scada: ScadaSource,
        journal: Journal,
        clock: Clock,
        alarms: Callable[[], int],
        on_event: Callable[[Event], None],
    ) -> None:
        self._site = site
        self._gateway = gateway
        self._scada = scada
        self._journal = journal
        self._clock = clock
        self._alarms = alarms
        self._on_event = on_event
        self._fence: Fence | None = None
        """None until a brain has asked to lead."""
        self._leads = 0
        self._last = (0, 0)
        """Token and number of the latest dispatch."""
        self.asked_s = self._heard_s = -math.inf
        """When records were last asked for, and when a brain last told how it is [s]."""
        self.ended = False
        """All devices are handed back: no record will come any more."""
        self.drained = asyncio.Event()
        """After the end the last record has been taken."""

    def handlers(self) -> Mapping[type, Handler]:
        """By the request that each answers."""
        return {
            Inspect: self.inspect,
            Lead: self.lead,
            Observe: self.observe,
            Hand: self.hand,
            Tell: self.tell,
            Drain: self.drain,
        }

    async def lead(self, request: Lead, author: str) -> Led:
        """Whoever asked last leads."""
        self._leads += 1
        self._fence = Fence(self._journal.token * LEADS_MAX + self._leads)
        text = f"plans are taken from {request.owner} of {author}, under token {self._fence.token}"
        self._event(Severity.INFO, "brain-leads", text)
        return Led(self._fence.token)

    async def tell(self, request: Tell, author: str) -> Heard:
        """Note how the brain is, and say what is asked of the fleet."""
        self._heard_s = self._clock.monotonic_s()
        orders = self._gateway.orders
        orders.ladder.heard(request.told)
        orders.scorecards.update(request.scorecards)
        orders.headroom, orders.planned_s, orders.planned_for = request.headroom, request.planned_s, request.planned_for
        return Heard(orders.desk)

    async def observe(self, request: Observe, author: str) -> Observed:
        """The field now."""
        counts, orders = self._gateway.reconciler.counts, self._gateway.orders
        measured = self._gateway.snapshot()
        snapshot, _ = with_substitutes(measured, orders.kept.substitutes)
        return Observed(
            snapshot=snapshot,
            reading=self._scada.reading(measured),
            commandable=self._commandable(),
            modes={feeder.name: orders.area(feeder).mode for feeder in orders.feeders()},
            writes=counts.writes,
            failed=counts.failed,
            alarms=self._alarms(),
        )

    async def inspect(self, request: Inspect, author: str) -> Condition:
        """How the gateway is, in a few numbers."""
        quality, counts = self._gateway.snapshot().quality, self._gateway.reconciler.counts
        heard_s = self._clock.monotonic_s() - self._heard_s
        return Condition(
            devices=len(quality),
            good=int((quality == Quality.GOOD).sum()),
            writes=counts.writes,
            failed=counts.failed,
            alarms=self._alarms(),
            brain_s=heard_s if math.isfinite(heard_s) else None,
        )

    def _commandable(self) -> BoolArray:
        rows = np.zeros(len(self._site.fleet), dtype=np.bool_)
        for row, device in enumerate(self._site.fleet.devices):
            identity = self._gateway.identity(row)
            quantity = Quantity.P_SET if device.kind is DeviceKind.BATTERY else Quantity.P_LIMIT
            rows[row] = identity is not None and identity.capabilities.may_be_commanded(quantity)
        return rows

    async def hand(self, request: Hand, author: str) -> Taken | Refused:
        """Take a dispatch of the brain that leads; one that is older than the latest was superseded on its way."""
        if self._fence is None:
            return Refused((Reason("lead", "no brain leads: ask to lead first"),))
        ticket = request.ticket
        stale = self._fence.refusal(ticket, self._clock.monotonic_s())
        if stale is not None:
            self._event(Severity.ALARM, "dispatch-refused", f"a dispatch is not taken: {stale.text}")
            return Refused((stale,))
        if ticket.age_key > self._last:
            reasons = self._gateway.adopt(request.dispatch)
            if reasons:
                return Refused(reasons)
            self._last = ticket.age_key
        return Taken()

    async def drain(self, request: Drain, author: str) -> Records:
        """Records for the database; what is not on disk yet is brought there first, where that is possible."""
        self.asked_s = self._clock.monotonic_s()
        with suppress(JournalError):  # told where commands need it; what is durable is given out all the same
            await asyncio.get_running_loop().run_in_executor(None, self._journal.commit)
        after = request.after
        found = self._journal.records(after.origin, after.place, request.most)
        if self.ended and not found.left:
            self.drained.set()
        return replace(found, closed=self.ended)

    def _event(self, severity: Severity, kind: str, text: str) -> None:
        self._on_event(Event(self._clock.utc(), severity, "gateway", kind, text))
