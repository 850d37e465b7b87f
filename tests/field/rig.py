"""A gateway's poller and reconciler on a simulated world, in simulated time: what field scenarios are told with."""

import asyncio
import math
import os
import random
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from derms.control.modes import ControlMode
from derms.domain.alarm import Event
from derms.domain.arrays import FloatArray
from derms.domain.connection import Connection
from derms.domain.der import Fleet
from derms.domain.dispatch import CommandRecord, Dispatch, Outcome
from derms.domain.mode import Mode
from derms.domain.quality import Quality
from derms.domain.scope import Places
from derms.domain.settings import DispatchSettings, FieldSettings
from derms.field.disk import SystemDisk
from derms.field.heartbeat import Heartbeat
from derms.field.journal import Conclusion, Intent, Journal, read_records
from derms.field.orders import Orders
from derms.field.poller import Poller
from derms.field.reconcile import Reconciler
from derms.ports import DeviceDriver, FieldOptions
from derms.service.clock import LoopClock
from derms.service.simulated import SimulatedLoop, run_simulated
from drivers.registry import REGISTRY, Kit, Opener
from drivers.sunspec.driver import SunSpecDriver
from feeders.catalog import load
from hil.world import World

PACKAGE = load("ieee123")
NOON = datetime(2026, 4, 15, 19, 0, tzinfo=UTC)
OPTIONS = FieldOptions(timeout_s=2.0, connect_timeout_s=3.0, read_only=False)
QUICK = DispatchSettings(
    interval_s=60.0,
    group_s=15.0,
    settle_s=30.0,
    reversion_s=240.0,
    reversion_jitter_s=60.0,
    validity_s=600.0,
    deadband_frac=0.0,
    ramp_frac_per_min=100.0,
    author_ramp_frac_per_min=100.0,
    device_ramp_frac_per_min=100.0,
)
"""Everything in a minute, so that scenarios are short, and written in each; nothing is too fast."""
FEEDER = "ieee123"


@dataclass
class Disk(SystemDisk):
    """Makes a journal durable, remembers how much of it is, and can be full."""

    full: bool = False
    durable_bytes: int = 0

    def sync(self, fd: int) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.durable_bytes = os.fstat(fd).st_size


class HeardJournal(Journal):
    """A journal that tells who listens of each command with its end."""

    heard: Callable[[CommandRecord], None]

    def outcome(self, at: datetime, now_s: float, seq: int, outcome: Outcome) -> None:
        intent = self.unfinished[seq]
        super().outcome(at, now_s, seq, outcome)
        wanted_w = math.nan if intent.wanted_w is None else intent.wanted_w
        self.heard(
            CommandRecord(
                seq,
                intent.at,
                intent.device_id,
                intent.command.quantity,
                intent.plan_id,
                wanted_w,
                intent.command.value_w,
                outcome,
                at,
            )
        )


@dataclass
class Rig:
    """A part of a world's fleet, and the gateway's parts that look after it."""

    world: World
    fleet: Fleet
    sessions: Mapping[str, DeviceDriver]
    poller: Poller
    reconciler: Reconciler
    heartbeat: Heartbeat
    clock: LoopClock
    path: Path
    disk: Disk
    events: list[Event]
    outcomes: list[CommandRecord]
    wire: list[tuple[float, str]] = field(default_factory=list)
    """Time [s] and device of every write request that reached a server."""
    on_wire: Callable[[str], None] = lambda device: None

    @property
    def orders(self) -> Orders:
        return self.reconciler.orders

    def listen(self) -> None:
        """Put an ear at every server, beside the world's own."""
        for device in self.fleet.index:
            server = self.world.servers[device]
            server.tap = self._ear(device, server.tap)

    def _ear(self, device: str, tap: Callable[[bytes], None]) -> Callable[[bytes], None]:
        def heard(adu: bytes) -> None:
            self.wire.append((self.clock.monotonic_s(), device))
            self.on_wire(device)
            tap(adu)

        return heard

    def quality(self, device: str) -> Quality:
        return Quality(int(self.poller.snapshot().quality[self.fleet.index[device]]))

    def events_of(self, source: str) -> list[str]:
        """Kinds of events of a device or room, in order."""
        return [event.kind for event in self.events if event.source == source]

    def ended(self, device: str) -> list[str]:
        """Names of the outcomes of a device's commands, in order."""
        return [type(record.outcome).__name__ for record in self.outcomes if record.device_id == device]

    def last(self, device: str) -> CommandRecord:
        return [record for record in self.outcomes if record.device_id == device][-1]

    def true_w(self, device: str) -> float:
        """What a device truly injects [W]."""
        return float(self.world.state.p_w[self.world_row(device)])

    def world_row(self, device: str) -> int:
        return [der.id for der in self.world.package.ders].index(device)

    def holding(self) -> set[str]:
        """Devices that hold a setpoint or a limit now."""
        commands = self.world.commands
        held = commands.setpoint.enabled | commands.limit.enabled
        return {der.id for der, holds in zip(self.world.package.ders, held, strict=True) if holds}

    def want(
        self,
        p_set_w: Mapping[str, float] | None = None,
        p_limit_w: Mapping[str, float] | None = None,
        *,
        valid_s: float = 3600.0,
    ) -> None:
        """Adopt a dispatch that holds these values."""
        ramps = [{device: (w, w) for device, w in (wanted or {}).items()} for wanted in (p_set_w, p_limit_w)]
        self.want_ramps(*ramps, valid_s=valid_s)

    def want_ramps(
        self,
        p_set_w: Mapping[str, tuple[float, float]],
        p_limit_w: Mapping[str, tuple[float, float]],
        *,
        length_s: float = 600.0,
        valid_s: float = 3600.0,
    ) -> None:
        """Adopt a dispatch that goes from one value to another."""
        now_s = self.clock.monotonic_s()
        self.reconciler.adopt(
            Dispatch(
                plan_id=7,
                issued_at=self.clock.utc(),
                valid_until_s=now_s + valid_s,
                times_s=np.array([now_s, now_s + length_s]),
                p_set_w=self._columns(p_set_w),
                p_limit_w=self._columns(p_limit_w),
            )
        )

    def _columns(self, wanted: Mapping[str, tuple[float, float]]) -> FloatArray:
        columns = np.full((len(self.fleet), 2), np.nan)
        for device, values in wanted.items():
            columns[self.fleet.index[device]] = values
        return columns

    async def turns(self, seconds: float) -> None:
        """Let the reconciler run for a while."""
        await self._running(seconds, self.reconciler.run())

    async def beats(self, seconds: float) -> None:
        """Let the heartbeat run for a while, and no turns."""
        await self._running(seconds, self.heartbeat.run())

    async def turns_and_beats(self, seconds: float) -> None:
        """Let both run for a while, as a gateway does."""
        await self._running(seconds, self.reconciler.run(), self.heartbeat.run())

    async def _running(self, seconds: float, *parts: Coroutine[Any, Any, None]) -> None:
        running = [asyncio.ensure_future(part) for part in parts]
        await asyncio.sleep(seconds)
        for part in running:
            assert not part.done()
            part.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def journalled(self) -> tuple[list[Intent], list[Conclusion]]:
        """What is durable in the journal's file now."""
        records = [record for record, _, _ in read_records(self.path.read_bytes()[: self.disk.durable_bytes])]
        intents = [record for record in records if isinstance(record, Intent)]
        return intents, [record for record in records if isinstance(record, Conclusion)]

    def assert_each_intent_has_one_outcome(self) -> None:
        intents, conclusions = self.journalled()
        assert intents
        assert sorted(end.seq for end in conclusions) == [intent.seq for intent in intents]
        assert sorted(record.seq for record in self.outcomes) == [intent.seq for intent in intents]


def in_the_field(
    scenario: Callable[[Rig], Awaitable[None]],
    folder: Path,
    *,
    devices: Collection[str] | None = None,
    polling: FieldSettings | None = None,
    dispatch: DispatchSettings = QUICK,
    driver: Opener = SunSpecDriver,
    standing: bool = False,
    remembers: bool = False,
    behind: Connection | None = None,
) -> None:
    """Tell a scenario on some devices of a fresh world, from the moment that each has been polled once.

    `standing` keeps the world from moving; `driver` opens its drivers; `remembers` keeps orders in a file. All
    devices are `behind` one connection, if that is given.
    """

    async def main(loop: SimulatedLoop) -> None:
        clock = LoopClock(loop, NOON)
        world = World(PACKAGE, seed=1, start=NOON)
        everything = world.fleet("127.0.0.1", await world.serve())
        fleet = Fleet(tuple(d for d in everything.devices if devices is None or d.id in devices))
        if behind is not None:
            fleet = Fleet(tuple(replace(device, connection=behind.id) for device in fleet.devices), (behind,))
        rig = _rig(world, fleet, clock, folder, polling or FieldSettings(), dispatch, driver, remembers)
        rig.listen()
        tasks = [asyncio.ensure_future(rig.poller.run())]
        if not standing:
            tasks.append(asyncio.ensure_future(world.run(clock)))
        await asyncio.sleep(rig.poller.settings.poll_s + 1.0)
        await scenario(rig)
        for task in tasks:
            assert not task.done()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        world.close()

    run_simulated(main, seed=1)


def _rig(
    world: World,
    fleet: Fleet,
    clock: LoopClock,
    folder: Path,
    polling: FieldSettings,
    dispatch: DispatchSettings,
    driver: Opener,
    remembers: bool,
) -> Rig:
    sessions = Kit({"sunspec": replace(REGISTRY["sunspec"], open=driver)}).open(
        fleet.devices, clock, OPTIONS, random.Random(1)
    )
    events: list[Event] = []
    disk, path = Disk(), folder / "commands.journal"
    poller = Poller(fleet, sessions, clock, polling, random.Random(1), events.append)
    journal, outcomes = HeardJournal.open(path, disk=disk), list[CommandRecord]()
    assert isinstance(journal, HeardJournal)
    journal.heard = outcomes.append
    feeders = tuple(FEEDER if device.is_dispatched else "" for device in fleet.devices)
    places = Places(tuple(fleet.index), feeders, {})
    if remembers:
        start = ControlMode(dispatch.start)
        orders = Orders.open(
            folder / "orders", fleet, places, Mode.AUTO, clock, events.append, fresh=journal.token == 1, start=start
        )
    else:
        orders = Orders(fleet, places, Mode.AUTO, clock, events.append)
    reconciler = Reconciler(
        fleet,
        sessions,
        poller,
        journal,
        clock,
        dispatch,
        on_event=events.append,
        orders=orders,
    )
    heartbeat = Heartbeat(reconciler, events.append)
    return Rig(world, fleet, sessions, poller, reconciler, heartbeat, clock, path, disk, events, outcomes)
