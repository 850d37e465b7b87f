"""The gateway's part of the service: devices, the utility's readings, trim, and whoever asks over the link.

It keeps the fleet safe with brain and database dead; nothing here needs either.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta

from derms.domain.alarm import Event, Severity
from derms.domain.der import DeviceKind
from derms.domain.mode import Mode
from derms.errors import JournalError
from derms.field.ending import end
from derms.field.journal import Journal
from derms.link.answering import Answering, Handler
from derms.ports import DriverKit
from derms.service import plugins, stop_handlers
from derms.service.cadence import Job, every
from derms.service.config import Site
from derms.service.dispatch_desk import DispatchDesk
from derms.service.gateway import Gateway
from derms.service.gateway_desk import GatewayDesk
from derms.service.order_desk import OrderDesk
from derms.service.scada import Modbus, Wiring, open_source
from derms.service.supervisor import Supervisor
from derms.service.surroundings import Surroundings
from derms.service.trimming import head_meter_w, measured
from derms.service.watching import watching

FIRST_SCADA = timedelta(seconds=0.5)
FIRST_TRIM_POLLS = 2.0
"""After the start, in poll intervals."""
EVENTS_KEPT = 1000
"""Latest events in memory; the journal has them all."""
JOURNAL = "commands.journal"
FIRST_KEEP = timedelta(seconds=1.7)
"""Not with the turns of the reconciler, which have commits of their own."""
KEEP_EVERY_S = 5.0
"""Longest time that an outcome or event is in memory only, where no command follows and nobody asks for records."""
LAST_RECORDS_S = 10.0
"""At the end, for a brain to take the last records."""


class GatewayPart:
    """Everything of a site that talks to devices; see the module's text."""

    def __init__(
        self,
        site: Site,
        around: Surroundings,
        *,
        drivers: DriverKit,
        boot: str,
        on_event: Callable[[Event], None],
        modbus_scada: Modbus = plugins.scada,
    ) -> None:
        """`boot` is what the clocks of those who ask have to be of."""
        site.storage.mkdir(parents=True, exist_ok=True)
        self.site = site
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self.alarms = 0
        self._silenced: Callable[[Event], bool] = lambda event: False
        self._clock, self._runner = around.clock, around.runner
        self._on_event = on_event
        origin = f"{around.clock.utc():%Y%m%dT%H%M%S.%f}"
        self.journal = Journal.open(site.storage / JOURNAL, disk=around.disk, origin=origin)
        wiring = Wiring(clock=around.clock, chance=around.chance, on_event=self._event, modbus=modbus_scada)
        self.scada = open_source(site, wiring)
        head_rows = site.fleet.rows(DeviceKind.HEAD_METER)
        self.gateway = Gateway(
            site,
            drivers=drivers,
            clock=around.clock,
            chance=around.chance,
            journal=self.journal,
            disk=around.disk,
            on_event=self._event,
            measure=lambda snapshot: measured(self.scada.reading(snapshot), head_meter_w(snapshot, head_rows)),
            boot=boot,
        )
        self._silenced = self.gateway.orders.silenced
        self.desk = GatewayDesk(
            site, self.gateway, self.scada, self.journal, around.clock, lambda: self.alarms, self._event
        )
        self.answering = Answering(around.clock, boot, self._handlers())
        self.supervisor = Supervisor(around.clock, self._event)
        self._watching = watching("gateway", around, self._event, site.storage)

    def _handlers(self) -> Mapping[type, Handler]:
        gateway = self.gateway
        return {
            **self.desk.handlers(),
            **OrderDesk(gateway.orders, gateway.reconciler, gateway.stop_desk.service_of).handlers(),
            **DispatchDesk(gateway.orders, gateway.reconciler).handlers(),
            **stop_handlers.handlers(gateway.stop_desk),
        }

    def jobs(self) -> tuple[Job, ...]:
        """The cadence table of this part."""
        site, start = self.site, self._clock.utc()
        trims = site.mode is Mode.AUTO and site.dispatch.trim_frac > 0.0
        first_trim = start + FIRST_TRIM_POLLS * timedelta(seconds=site.field.poll_s)
        table = (
            Job("keep", every(KEEP_EVERY_S, first=start + FIRST_KEEP), self.keep),
            Job("scada", every(site.scada.every_s, first=start + FIRST_SCADA), self.scada.poll),
            *([Job("trim", every(site.dispatch.trim_every_s, first=first_trim), self.gateway.trim)] if trims else []),
            *self._watching,
        )
        return tuple(self.supervisor.guarded(job) for job in table)

    async def keep(self) -> None:
        """Job: bring to disk what the journal has gathered; that it fails is told where commands need it."""
        if self.journal.pending:
            with suppress(JournalError):
                await asyncio.get_running_loop().run_in_executor(None, self.journal.commit)

    async def run(self) -> None:
        """Poll and write until cancelled, or until a part ends by itself."""
        parts = [asyncio.ensure_future(self.gateway.run()), asyncio.ensure_future(self._runner(self.jobs()))]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            parts[0].cancel()
            await end(parts[1:])
            await asyncio.gather(parts[0], return_exceptions=True)
        for part in parts:
            if part.done() and not part.cancelled():
                part.result()

    async def hand_back(self) -> None:
        """For when `run` has ended: hand every device back; those who ask still find the records of it."""
        try:
            await self.gateway.hand_back()
        finally:
            self.desk.ended = True

    def progress(self) -> int:
        """Grows while control gets on."""
        return self.gateway.progress()

    def close(self) -> None:
        """The last records to disk, and the lease given back."""
        self.journal.close()

    def _event(self, event: Event) -> None:
        self.journal.tell(event)
        if event.severity is Severity.ALARM and self._silenced(event):
            return
        self.events.append(event)
        self.alarms += event.severity is Severity.ALARM
        self._on_event(event)
