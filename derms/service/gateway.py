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

from derms.control.modes import ControlMode
from derms.domain.alarm import Event, Severity
from derms.domain.dispatch import Dispatch, Unknown
from derms.domain.membership import NOWHERE
from derms.domain.mode import Mode
from derms.domain.refusal import Reason
from derms.domain.scope import Places
from derms.domain.tags import Act
from derms.domain.telemetry import Identity, TelemetrySnapshot
from derms.field.disk import Disk
from derms.field.heartbeat import Heartbeat
from derms.field.journal import Journal
from derms.field.orders import Orders
from derms.field.poller import Poller, spare_collector
from derms.field.reconcile import Reconciler
from derms.field.shards import Shards, refuses
from derms.field.stop_desk import StopDesk
from derms.field.table import TelemetryTable
from derms.forecast.pv import ClearSky
from derms.ports import Clock, DeviceDriver, DriverKit, FieldOptions
from derms.service import plugins
from derms.service.certificates import read_certificates
from derms.service.clock import SystemClock
from derms.service.config import Site
from derms.service.order_view import is_proven
from derms.service.trimming import Measure, Trimmer

CERTIFICATES = "certificates"
"""Folder of the certificates that commissioning gave, in the storage folder."""
WITHDRAWN = "withdrawn"
"""File of the devices from which a stop has withdrawn service, in the storage folder."""
ORDERS = "orders"
"""File of what people have laid down, in the storage folder."""
DAWN_PU = 0.03
"""Clear-sky power of PV, per unit of nameplate, from which inverters are expected to be awake."""


class Daylight:
    """Whether PV at a place has light to work with."""

    def __init__(self, latitude_deg: float, longitude_deg: float) -> None:
        self._sky = ClearSky(latitude_deg, longitude_deg)

    def __call__(self, at: datetime) -> bool:
        return bool(self._sky.pu(np.array([at.timestamp()]))[0] >= DAWN_PU)


def places_of(site: Site) -> Places:
    """Where each device is: on the feeder whose model has it, and in the group of its kind."""
    devices, on_feeder = site.fleet.devices, {der.id for der in site.package.ders}
    feeders = tuple(site.package.id if device.id in on_feeder else NOWHERE for device in devices)
    kinds = dict.fromkeys(device.kind for device in devices)
    groups = {kind.value: frozenset(device.id for device in devices if device.kind is kind) for kind in kinds}
    return Places(tuple(device.id for device in devices), feeders, groups)


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
        journal: Journal,
        disk: Disk,
        on_event: Callable[[Event], None],
        measure: Measure,
        boot: str,
    ) -> None:
        """`boot` is what monotonic times are comparable within."""
        self._mode = site.mode
        options, processes = field_options(site), int(site.field.processes)
        if refuses(site.mode, processes):
            raise ValueError(f"{processes} processes only observe, and the mode is {site.mode}")
        self._table = TelemetryTable.shared(len(site.fleet), processes) if processes > 1 else None
        self._sessions: Mapping[str, DeviceDriver] = {}
        if self._table is None:
            self._sessions = drivers.open(site.fleet.devices, clock, options, chance)
        self._journal = journal
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
        self.orders = Orders.open(
            site.storage / ORDERS,
            site.fleet,
            places_of(site),
            site.mode,
            clock,
            on_event,
            fresh=journal.fresh,
            start=ControlMode(site.dispatch.start),
            disk=disk,
            token=journal.token,
            boot=boot,
        )
        self.poller.is_polled = lambda row: not self.orders.laid.forbidden[Act.POLL][row]
        self.reconciler = Reconciler(
            site.fleet, self._sessions, self.poller, journal, clock, site.dispatch, on_event, self.orders
        )
        self.reconciler.wishes.certificates = read_certificates(site.storage / CERTIFICATES)
        self.heartbeat = Heartbeat(self.reconciler, on_event)
        self.stop_desk = StopDesk(
            self.reconciler,
            self.orders,
            on_event,
            lambda: measure(self.poller.snapshot()).net_load_w,
            lambda row: is_proven(self.reconciler, row, clock.utc()),
            writes=site.mode is Mode.AUTO,
            path=site.storage / WITHDRAWN,
            disk=disk,
        )
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
            group.create_task(self.orders.run(), name="orders")
            if self._mode is Mode.AUTO:
                group.create_task(self.reconciler.run(), name="reconciler")
                group.create_task(self.heartbeat.run(), name="heartbeat")
                group.create_task(self.stop_desk.run(), name="stops")

    def progress(self) -> int:
        """Grows while control gets on: turns where it writes, polls where it only looks."""
        polls = self.poller.counts
        return self.reconciler.turns if self._mode is Mode.AUTO else polls.polls + polls.failed + polls.missed

    def snapshot(self) -> TelemetrySnapshot:
        return self.poller.snapshot()

    def identity(self, row: int) -> Identity | None:
        return self.poller.identity(row)

    def adopt(self, dispatch: Dispatch) -> tuple[Reason, ...]:
        """Take a newer dispatch, or why it is refused."""
        return self.trimmer.adopt(dispatch)

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
        if self._table is not None:
            self._table.unlink()
