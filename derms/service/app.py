"""The service in one process: gateway and brain with the link between them. Simulated and paced runs use it whole.

In production each part has a process of its own (`derms.service.serving`), and the link is a socket.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from derms.domain.alarm import Event
from derms.field.ending import end
from derms.link.inprocess import BOOT, InProcessLink
from derms.ports import DriverKit
from derms.service import plugins
from derms.service.brain_part import BrainPart
from derms.service.config import Site
from derms.service.gateway_part import EVENTS_KEPT, GatewayPart
from derms.service.scada import Modbus
from derms.service.surroundings import Surroundings


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
        self.site = site
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._on_event = on_event
        link = InProcessLink(around.clock, around.chance, author="brain")
        self.field = GatewayPart(
            site, around, drivers=drivers, boot=BOOT, on_event=self._event, modbus_scada=modbus_scada
        )
        link.answering = self.field.answering
        self.mind = BrainPart(site, around, link, on_event=self._event, modbus_scada=modbus_scada)
        self.gateway, self.brain = self.field.gateway, self.mind.brain
        self.store, self.publisher = self.mind.store, self.mind.publisher

    @property
    def alarms(self) -> int:
        return self.field.alarms + self.mind.alarms

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set or a part ends by itself; then hand every device back and close the records."""
        field, mind = asyncio.ensure_future(self.field.run()), asyncio.ensure_future(self.mind.run())
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait([field, mind, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._end(field, [mind, stopping])
        for part in (field, mind, stopping):
            if part.done() and not part.cancelled():
                part.result()

    async def _end(self, field: asyncio.Future[None], others: list[asyncio.Future[Any]]) -> None:
        """End every part, hand every device back, then tell the utility that the plan no longer holds."""
        field.cancel()
        await end(others)
        await asyncio.gather(field, return_exceptions=True)
        try:
            await self.field.hand_back()
        finally:
            try:
                await self.mind.finish()
            finally:
                self.field.close()

    def _event(self, event: Event) -> None:
        self.events.append(event)
        self._on_event(event)
