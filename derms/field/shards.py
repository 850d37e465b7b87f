"""Polling on several cores: endpoints are dealt out by hash to worker processes, all of which write one table.

A worker is an event loop with the poller of its share; it sends events, identities and counts up a pipe. The parent
starts workers, watches them and starts them again; it reads the table, and speaks to no device. Workers only observe:
commands need the process that owns the session, which with one process is this one.
"""

import asyncio
import multiprocessing
import random
import signal
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import uvloop

from derms.domain.alarm import Event, Severity
from derms.domain.der import Endpoint, Fleet
from derms.domain.mode import Mode
from derms.domain.settings import FieldSettings
from derms.domain.telemetry import Identity
from derms.field.poller import PollCounts, Poller, spare_collector
from derms.field.readings import SunIsUp
from derms.field.table import TelemetryTable
from derms.ports import Clock, DriverKit, FieldOptions

REPORT_S = 1.0
"""Between two reports of a worker."""
SILENT_S = 30.0
"""A worker that reports nothing for so long is stuck, and is started again; starting takes a few seconds."""
RESTART_MIN_S, RESTART_MAX_S = 1.0, 60.0
JOIN_S = 5.0


def shard_of(endpoint: Endpoint, shards: int) -> int:
    """Which worker owns an endpoint: the same in every run, and one for all units behind a connection."""
    return zlib.crc32(f"{endpoint.host}:{endpoint.port}".encode()) % shards


def refuses(mode: Mode, processes: float) -> bool:
    """Whether a site cannot run like this: worker processes only observe."""
    return mode is Mode.AUTO and processes > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a worker is told; everything in it travels to another process."""

    fleet: Fleet
    shard: int
    shards: int
    table: str
    settings: FieldSettings
    options: FieldOptions
    kit: Callable[[], DriverKit]
    clock: Callable[[asyncio.AbstractEventLoop], Clock]
    sun_is_up: SunIsUp
    seed: int


@dataclass(frozen=True, slots=True)
class Met:
    """A device said who it is."""

    row: int
    identity: Identity


Report = Event | Met | PollCounts
"""What a worker sends up."""


def work(share: Share, pipe: Connection) -> None:
    """Process: poll one share until the parent ends it, or is gone."""
    spare_collector()
    try:
        uvloop.run(_poll(share, pipe))
    except* BrokenPipeError:
        pass  # nobody listens any more


async def _poll(share: Share, pipe: Connection) -> None:
    chance = random.Random(share.seed)
    clock = share.clock(asyncio.get_running_loop())
    mine = [d for d in share.fleet.devices if shard_of(d.endpoint, share.shards) == share.shard]
    poller = Poller(
        share.fleet,
        share.kit().open(mine, clock, share.options, chance),
        clock,
        share.settings,
        chance,
        pipe.send,
        sun_is_up=share.sun_is_up,
        table=TelemetryTable.attach(share.table),
        writer=share.shard,
        on_identity=lambda row, identity: pipe.send(Met(row, identity)),
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(poller.run())
        while True:
            pipe.send(poller.counts)
            await asyncio.sleep(REPORT_S)


@dataclass(slots=True)
class Shards:
    """The workers of a fleet; what they tell goes to `reader`, a poller without drivers on the table they write."""

    reader: Poller
    settings: FieldSettings
    options: FieldOptions
    kit: Callable[[], DriverKit]
    clock: Callable[[asyncio.AbstractEventLoop], Clock]
    on_event: Callable[[Event], None]
    workers: dict[int, BaseProcess] = field(default_factory=dict)
    _counts: dict[int, PollCounts] = field(default_factory=dict)
    _past: PollCounts = field(default_factory=PollCounts)
    """Of workers that are no more."""

    async def run(self) -> None:
        """Keep every worker running until cancelled, then end them."""
        async with asyncio.TaskGroup() as group:
            for shard in range(int(self.settings.processes)):
                group.create_task(self._keep(shard), name=f"shard {shard}")

    async def _keep(self, shard: int) -> None:
        wait_s = RESTART_MIN_S
        while True:
            process, pipe = self._start(shard)
            try:
                why, well = await self._listen(shard, pipe)
            finally:
                process.kill()
                process.join(JOIN_S)
                pipe.close()
            self._past = _sum(self._past, self._counts.pop(shard, PollCounts()))
            wait_s = RESTART_MIN_S if well else min(RESTART_MAX_S, 2.0 * wait_s)
            text = f"polling process {shard} {why}: started again in {wait_s:.0f} s"
            now = self.reader.clock.utc()
            self.on_event(Event(now, Severity.ALARM, "gateway", "worker-lost", text))
            await asyncio.sleep(wait_s)

    def _start(self, shard: int) -> tuple[BaseProcess, Connection]:
        reader = self.reader
        share = Share(
            fleet=reader.fleet,
            shard=shard,
            shards=int(self.settings.processes),
            table=reader.readings.table.name,
            settings=self.settings,
            options=self.options,
            kit=self.kit,
            clock=self.clock,
            sun_is_up=reader.sun_is_up,
            seed=reader.chance.getrandbits(32),
        )
        here, there = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(target=work, args=(share, there), daemon=True)
        with _ctrl_c_blocked():  # a process inherits that: Ctrl-C is for this one alone
            process.start()
        there.close()
        self.workers[shard] = process
        return process, here

    async def _listen(self, shard: int, pipe: Connection) -> tuple[str, bool]:
        """Take reports until the worker is gone or silent; says which, and whether it had reported anything."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(pipe.fileno(), readable.set)
        heard = False
        try:
            while True:
                async with asyncio.timeout(SILENT_S):
                    await readable.wait()
                readable.clear()
                while pipe.poll():
                    self._take(shard, pipe.recv())
                    heard = True
        except TimeoutError:
            return f"has not reported for {SILENT_S:.0f} s", heard
        except (EOFError, OSError):
            return "has ended", heard
        finally:
            loop.remove_reader(pipe.fileno())

    def _take(self, shard: int, report: Report) -> None:
        match report:
            case Event():
                self.on_event(report)
            case Met(row, identity):
                self.reader.readings.meet(row, identity)
            case PollCounts():
                self._counts[shard] = report
                self.reader.counts = _sum(self._past, *self._counts.values())


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _sum(*counts: PollCounts) -> PollCounts:
    return PollCounts(
        polls=sum(count.polls for count in counts),
        failed=sum(count.failed for count in counts),
        missed=sum(count.missed for count in counts),
    )
