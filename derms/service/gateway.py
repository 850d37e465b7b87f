"""The gateway: owns every device session; polls, keeps the desired state, guards, writes, reads back, trims, expires.

It needs neither database nor brain to keep the fleet safe. With more than one process it only observes: the sessions
then belong to worker processes, and this one reads the table that they write.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import numpy as np

from derms.domain.alarm import Event, Severity
from derms.domain.dispatch import CommandRecord, Dispatch, Unknown
from derms.domain.mode import Mode
from derms.domain.telemetry import Identity, TelemetrySnapshot
from derms.field.heartbeat import Heartbeat
from derms.field.journal import Journal
from derms.field.poller import Poller, spare_collector
from derms.field.reconcile import Reconciler
from derms.field.shards import Shards, refuses
from derms.field.table import TelemetryTable
from derms.forecast.pv import ClearSky
from derms.ports import Clock, DeviceDriver, DriverKit, FieldOptions
from derms.service import plugins
from derms.service.clock import SystemClock
from derms.service.config import Site
from derms.service.trimming import Measure, Trimmer

DAWN_PU = 0.03
"""Clear-sky power of PV, per unit of nameplate, from which inverters are expected to be awake."""


class Daylight:
    """Whether PV at a place has light to work with."""

    def __init__(self, latitude_deg: float, longitude_deg: float) -> None:
        self._sky = ClearSky(latitude_deg, longitude_deg)

    def __call__(self, at: datetime) -> bool:
        return bool(self._sky.pu(np.array([at.timestamp()]))[0] >= DAWN_PU)


def field_options(site: Site) -> FieldOptions:
    """What the drivers are told of the site's settings; in observe mode nothing in them can write."""
    settings = site.field
    return FieldOptions(
        timeout_s=settings.timeout_s,
        connect_timeout_s=settings.connect_timeout_s,
        read_only=site.mode is not Mode.AUTO,
        in_flight=int(settings.in_flight),
        reconnects_per_s=settings.reconnects_per_s,
        tls_ca=_path(settings.tls_ca),
        tls_certificate=_path(settings.tls_certificate),
        tls_key=_path(settings.tls_key),
        serial_parity=settings.serial_parity,
    )


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


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
        measure: Measure,
    ) -> None:
        self._mode = site.mode
        options, processes = field_options(site), int(site.field.processes)
        if refuses(site.mode, processes):
            raise ValueError(f"{processes} processes only observe, and the mode is {site.mode}")
        self._table = TelemetryTable.shared(len(site.fleet), processes) if processes > 1 else None
        self._sessions: Mapping[str, DeviceDriver] = {}
        if self._table is None:
            self._sessions = drivers.open(site.fleet.devices, clock, options, chance)
        self._journal = Journal.open(journal)
        self.poller = Poller(
            site.fleet,
            self._sessions,
            clock,
            site.field,
            chance,
            on_event,
            sun_is_up=Daylight(site.latitude, site.longitude),
            table=self._table,
        )
        self._shards = Shards(self.poller, site.field, options, plugins.drivers, SystemClock, on_event)
        self.reconciler = Reconciler(
            site.fleet, self._sessions, self.poller, self._journal, clock, site.dispatch, on_outcome, on_event
        )
        self.heartbeat = Heartbeat(self.reconciler, on_event)
        self.trimmer = Trimmer(self.reconciler, measure, on_event)
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
        spare_collector()
        async with asyncio.TaskGroup() as group:
            if self._table is not None:
                group.create_task(self._shards.run(), name="shards")
            else:
                group.create_task(self.poller.run(), name="poller")
            if self._mode is Mode.AUTO:
                group.create_task(self.reconciler.run(), name="reconciler")
                group.create_task(self.heartbeat.run(), name="heartbeat")

    def snapshot(self) -> TelemetrySnapshot:
        return self.poller.snapshot()

    def identity(self, row: int) -> Identity | None:
        return self.poller.identity(row)

    def adopt(self, dispatch: Dispatch) -> None:
        self.trimmer.adopt(dispatch)

    async def trim(self) -> None:
        """Job: trim the dispatch to the net load that is measured."""
        self.trimmer.trim()

    async def hand_back(self) -> None:
        """Release every device that holds a command of ours, then close all sessions."""
        try:
            if self._mode is Mode.AUTO:
                await self.reconciler.hand_back()
        finally:
            self.close()

    def close(self) -> None:
        """Drop all connections; devices keep what they hold until their reversion timers end it."""
        for session in self._sessions.values():
            session.disconnect()
        self._journal.close()
        if self._table is not None:
            self._table.unlink()
