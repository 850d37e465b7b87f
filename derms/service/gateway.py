"""The gateway: owns every device session; polls, keeps the desired state, guards, writes, reads back, expires.

It needs neither database nor brain to keep the fleet safe.
"""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

from derms.domain.alarm import Event, Severity
from derms.domain.dispatch import CommandRecord, Dispatch, Unknown
from derms.domain.mode import Mode
from derms.domain.telemetry import Identity, TelemetrySnapshot
from derms.field.journal import Journal
from derms.field.poller import Poller
from derms.field.reconcile import Reconciler
from derms.ports import Clock, DriverKit, FieldOptions
from derms.service.config import Site


class Gateway:
    """All devices of a site; in observe mode nothing in it can write."""

    def __init__(
        self,
        site: Site,
        *,
        drivers: DriverKit,
        clock: Clock,
        chance: random.Random,
        journal: Path,
        on_event: Callable[[Event], None],
        on_outcome: Callable[[CommandRecord], None],
    ) -> None:
        self._mode = site.mode
        options = FieldOptions(
            timeout_s=site.field.timeout_s,
            connect_timeout_s=site.field.connect_timeout_s,
            read_only=site.mode is not Mode.AUTO,
        )
        self._sessions = sessions = drivers.open(site.fleet.devices, clock, options, chance)
        self._journal = Journal.open(journal)
        self.poller = Poller(site.fleet, sessions, clock, site.field, chance, on_event)
        self.reconciler = Reconciler(
            site.fleet, sessions, self.poller, self._journal, clock, site.dispatch, on_outcome, on_event
        )
        self._close_unfinished(clock, on_event)

    def _close_unfinished(self, clock: Clock, on_event: Callable[[Event], None]) -> None:
        """Commands that a stopped service left without an outcome: devices get fresh absolute ones, so just say so."""
        if self._journal.truncated_bytes:
            text = f"the command journal ended in {self._journal.truncated_bytes} bytes that were not whole: cut off"
            on_event(Event(clock.utc(), Severity.WARNING, "gateway", "journal-truncated", text))
        unfinished = tuple(self._journal.unfinished)
        for seq in unfinished:
            why = "the service stopped before the outcome was known"
            self._journal.outcome(clock.utc(), clock.monotonic_s(), seq, Unknown(why))
        if unfinished:
            self._journal.commit()
            text = f"{len(unfinished)} commands had no outcome when the service stopped"
            on_event(Event(clock.utc(), Severity.WARNING, "gateway", "unfinished-commands", text))

    async def run(self) -> None:
        """Poll, and in auto mode reconcile, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.poller.run(), name="poller")
            if self._mode is Mode.AUTO:
                group.create_task(self.reconciler.run(), name="reconciler")

    def snapshot(self) -> TelemetrySnapshot:
        return self.poller.snapshot()

    def identity(self, row: int) -> Identity | None:
        return self.poller.identity(row)

    def adopt(self, dispatch: Dispatch) -> None:
        self.reconciler.adopt(dispatch)

    async def hand_back(self) -> None:
        """Release every device that holds a command of ours, then close all sessions."""
        if self._mode is Mode.AUTO:
            await self.reconciler.hand_back()
        self.close()

    def close(self) -> None:
        """Drop all connections; devices keep what they hold until their reversion timers end it."""
        for session in self._sessions.values():
            session.disconnect()
        self._journal.close()
