"""The service: the one visible list of what is wired to what."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from derms.domain.alarm import Event, Severity
from derms.domain.dispatch import CommandRecord
from derms.domain.mode import Mode
from derms.field.ending import END_S, end
from derms.field.reconcile import FINISH_S, HAND_BACK_S
from derms.grid.open import open_engine
from derms.historian.store import Store
from derms.ports import Clock, DriverKit
from derms.scada.publish import WITHDRAW_S
from derms.service import plugins
from derms.service.brain import Brain
from derms.service.cadence import Job, every
from derms.service.config import Site
from derms.service.gateway import Gateway
from derms.service.scada import Modbus, Wiring, open_publisher, open_source
from derms.service.supervisor import Supervisor
from derms.service.trimming import measured

FIRST_ESTIMATE_POLLS, FIRST_PLAN_POLLS, FIRST_RECORD_POLLS = 1.5, 2.0, 2.5
"""After the start, in poll intervals: the first poll of every device is in by then."""
FIRST_SCADA = timedelta(seconds=0.5)
RECORD_EVERY_S = 60.0
RECORDS_S = 6.0
"""For closing the records: SQLite waits 5 s for whoever else has the database."""
STOP_S = FINISH_S + END_S + HAND_BACK_S + END_S + WITHDRAW_S + RECORDS_S
"""The end of a service takes no longer, whatever devices, drivers and the utility's system do; where all of them
answer it takes about a second. Service managers have to wait for as long before they kill."""
EVENTS_KEPT = 1000
"""Latest events in memory; the historian has them all."""

Runner = Callable[[tuple[Job, ...]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What differs between real, paced and simulated runs of the same service."""

    clock: Clock
    runner: Runner
    """Runs the cadence table."""
    chance: random.Random
    executor: Executor | None
    """One worker thread for the engine and the optimizer; None where the loop runs such work in place."""
    plan_deadline_s: float | None = None
    """Time by the clock after which a plan that is not there is given up [s]; None where the clock runs otherwise."""
    ending: Callable[[], AbstractContextManager[None]] = nullcontext
    """Around the end of the service: what sees to it that there is one."""


class Service:
    """Gateway, brain and records of one site."""

    def __init__(
        self,
        site: Site,
        around: Surroundings,
        *,
        drivers: DriverKit,
        on_event: Callable[[Event], None],
        modbus_scada: Modbus = plugins.scada,
    ) -> None:
        site.storage.mkdir(parents=True, exist_ok=True)
        self.site = site
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self.alarms = 0
        self._clock = around.clock
        self._runner = around.runner
        self._ending = around.ending
        self._on_event = on_event
        self.store = Store(f"sqlite:///{site.storage / 'historian.sqlite'}", site.fleet)
        wiring = Wiring(clock=around.clock, chance=around.chance, on_event=self._event, modbus=modbus_scada)
        self.scada = open_source(site, wiring)
        self.publisher = open_publisher(site, wiring)
        self.gateway = Gateway(
            site,
            drivers=drivers,
            clock=around.clock,
            chance=around.chance,
            journal=site.storage / "commands.journal",
            on_event=self._event,
            on_outcome=self._outcome,
            measure=lambda snapshot: measured(self.scada.reading(snapshot)),
        )
        self.brain = Brain(
            site,
            gateway=self.gateway,
            scada=self.scada,
            engine=open_engine(site.package),
            store=self.store,
            clock=around.clock,
            executor=around.executor,
            plan_deadline_s=around.plan_deadline_s,
            on_event=self._event,
            on_plan=self.publisher.offer if self.publisher else None,
        )
        self.supervisor = Supervisor(around.clock, self._event)

    def jobs(self) -> tuple[Job, ...]:
        """The cadence table of this site."""
        site, brain = self.site, self.brain
        start, poll = self._clock.utc(), timedelta(seconds=site.field.poll_s)
        scada = every(site.scada.every_s, first=start + FIRST_SCADA)
        first_plan = start + FIRST_PLAN_POLLS * poll
        trims = site.mode is Mode.AUTO and site.dispatch.trim_frac > 0.0
        table = (
            Job("scada", scada, self.scada.poll),
            *([Job("publish", scada, self.publisher.send)] if self.publisher else []),
            Job("estimate", every(site.estimate.every_s, first=start + FIRST_ESTIMATE_POLLS * poll), brain.estimate),
            Job("plan", every(site.plan.every_s, first=first_plan), brain.plan),
            *([Job("trim", every(site.dispatch.trim_every_s, first=first_plan), self.gateway.trim)] if trims else []),
            Job("record", every(RECORD_EVERY_S, first=start + FIRST_RECORD_POLLS * poll), brain.record),
        )
        return tuple(self.supervisor.guarded(job) for job in table)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set or a part ends by itself; then hand every device back and close the records."""
        gateway = asyncio.ensure_future(self.gateway.run())
        others = [asyncio.ensure_future(self._runner(self.jobs())), asyncio.ensure_future(stop.wait())]
        try:
            await asyncio.wait([gateway, *others], return_when=asyncio.FIRST_COMPLETED)
        finally:
            with self._ending():
                try:
                    await self._end(gateway, others)
                finally:
                    self.store.close()
        for part in (gateway, *others):
            if part.done() and not part.cancelled():
                part.result()

    async def _end(self, gateway: asyncio.Future[None], others: Sequence[asyncio.Future[Any]]) -> None:
        """End every part, hand every device back, then tell the utility that the plan no longer holds.

        No job is waited for: a plan under way is nobody's any more, though its thread may go on with it for a while.
        """
        gateway.cancel()
        await end(others)
        await asyncio.gather(gateway, return_exceptions=True)
        try:
            await self.gateway.hand_back()
        finally:
            if self.publisher is not None:
                await self.publisher.withdraw()

    def _event(self, event: Event) -> None:
        self.events.append(event)
        self.alarms += event.severity is Severity.ALARM
        self.store.event(event)
        self._on_event(event)

    def _outcome(self, record: CommandRecord) -> None:
        self.store.outcome(record)
