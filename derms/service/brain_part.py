"""The brain's part of the service: estimate, forecast, plan, and the database. It may hang, die and be replaced."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from derms.domain.alarm import Event, Severity
from derms.errors import LinkError
from derms.field.ending import end
from derms.grid.open import open_engine
from derms.historian.store import Store
from derms.link.asking import Link
from derms.service import plugins
from derms.service.brain import RECORD_EVERY_S, Brain
from derms.service.cadence import Job, every
from derms.service.config import Site
from derms.service.gateway_part import FIRST_SCADA, LAST_RECORDS_S
from derms.service.scada import Modbus, Wiring, open_publisher, past_of
from derms.service.supervisor import Supervisor
from derms.service.surroundings import Surroundings
from derms.service.watching import watching

FIRST_ESTIMATE_POLLS, FIRST_PLAN_POLLS, FIRST_RECORD_POLLS = 1.5, 2.0, 2.5
"""After the start, in poll intervals: the first poll of every device is in by then."""
ASK_AGAIN_S = 0.2
TELL_EVERY_S = 5.0
"""Between two signs of life to the gateway."""
DATABASE = "historian.sqlite"


class BrainPart:
    """Everything of a site that thinks and remembers; see the module's text."""

    def __init__(
        self,
        site: Site,
        around: Surroundings,
        link: Link,
        *,
        on_event: Callable[[Event], None],
        modbus_scada: Modbus = plugins.scada,
    ) -> None:
        site.storage.mkdir(parents=True, exist_ok=True)
        self.site = site
        self.alarms = 0
        self._clock, self._runner = around.clock, around.runner
        self._on_event = on_event
        self.store = Store(f"sqlite:///{site.storage / DATABASE}", site.fleet)
        wiring = Wiring(clock=around.clock, chance=around.chance, on_event=self._event, modbus=modbus_scada)
        self.publisher = open_publisher(site, wiring)
        self.brain = Brain(
            site,
            link=link,
            history=past_of(site),
            engine=open_engine(site.package),
            store=self.store,
            clock=around.clock,
            executor=around.executor,
            plan_deadline_s=around.plan_deadline_s,
            on_event=self._event,
            on_plan=self.publisher.offer if self.publisher else None,
        )
        self.supervisor = Supervisor(around.clock, self._event)
        self._progress = 0
        self._watching = watching("brain", around, self._event)

    def jobs(self) -> tuple[Job, ...]:
        """The cadence table of this part."""
        site, brain = self.site, self.brain
        start, poll = self._clock.utc(), timedelta(seconds=site.field.poll_s)
        publish = every(site.scada.every_s, first=start + FIRST_SCADA)
        table = (
            Job("tell", every(TELL_EVERY_S, first=start), brain.tell),
            *([Job("publish", publish, self.publisher.send)] if self.publisher else []),
            Job("estimate", every(site.estimate.every_s, first=start + FIRST_ESTIMATE_POLLS * poll), brain.estimate),
            Job("plan", every(site.plan.every_s, first=start + FIRST_PLAN_POLLS * poll), brain.plan),
            Job("desk", every(TELL_EVERY_S, first=start + FIRST_PLAN_POLLS * poll), brain.follow_desk),
            Job("record", every(RECORD_EVERY_S, first=start + FIRST_RECORD_POLLS * poll), brain.record),
            *self._watching,
        )
        return tuple(self.supervisor.guarded(job) for job in table)

    async def run(self) -> None:
        """Estimate, plan and record until cancelled.

        At the end no job is waited for: a plan under way is nobody's any more, though its thread may go on with it
        for a while.
        """
        jobs = asyncio.ensure_future(self._runner(self.jobs()))
        try:
            await asyncio.shield(jobs)
        finally:
            await end([jobs])

    def progress(self) -> int:
        """Grows while jobs come to their ends, and no work in the engine's thread goes on for ever."""
        if not self.brain.stuck:
            self._progress = self.supervisor.ended
        return self._progress

    async def finish(self) -> None:
        """For when `run` has ended: tell the utility that the plan no longer holds, take the gateway's last records."""
        try:
            if self.publisher is not None:
                await self.publisher.withdraw()
            with suppress(LinkError, TimeoutError):
                async with asyncio.timeout(LAST_RECORDS_S):
                    while not await self.brain.gateway.drain(self.store):  # noqa: ASYNC110 - it is in another process
                        await asyncio.sleep(ASK_AGAIN_S)
        finally:
            self.store.close()

    def _event(self, event: Event) -> None:
        self.alarms += event.severity is Severity.ALARM
        self.store.event(event)
        self._on_event(event)
