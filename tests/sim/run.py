"""One run: a world, the product on it, what goes wrong, and the oracle; then a time in which everything may heal."""

import asyncio
import random
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from derms.domain.alarm import Event, Severity
from derms.domain.settings import DispatchSettings
from derms.service.clock import LoopClock
from derms.service.config import Site, load_site
from drivers.registry import drivers
from feeders.catalog import load
from hil.cli import write_files
from hil.fault_kinds import Fault
from hil.tap import Plate
from hil.world import World
from tests.sim.disk import DiskFault, SimDisk
from tests.sim.field import DERS, DEVICES, HOST, LEGACY, PACKAGE, Field, SteppedClock, small_fleet, small_world
from tests.sim.frames import Wire
from tests.sim.invariants import checks
from tests.sim.loop import SimLoop, run_sim
from tests.sim.oracle import Facts, Oracle, Violation
from tests.sim.schedule import LINK, Kind, Mishap, Schedule, draw
from tests.sim.stand import Stand, Ways
from tests.sim.watch import Ear, JournalView, Story

HOURS = 2.0
QUICK = DispatchSettings(
    interval_s=60.0,
    group_s=15.0,
    settle_s=30.0,
    reversion_s=240.0,
    reversion_jitter_s=60.0,
    refresh_s=75.0,
    validity_s=600.0,
    deadband_frac=0.0,
)
"""Every second seed is in a hurry: all that a site does in five minutes happens in one."""
QUICK_PLAN_S = 120.0
HEAL_S = 1800.0
"""From the last mishap to the end: the longest back-off, a turn of every group, two plans, effects seen."""
CALM_PART = 1.0 / 3.0
"""Of a run that heals, at most."""
REAL_EVERY = 10
"""Every so many seeds have the real optimizer."""
OPERATOR_EVERY_S = 60
"""An operator looks at modes so often."""
TRIES_MOST = 40
"""Times that a point of a life is waited for before it is killed all the same [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a run."""

    seed: int
    device_s: float
    faults: int
    violations: tuple[Violation, ...]
    more: int
    trace: str
    cpu_s: float
    intents: int
    outcomes: dict[str, int]
    schedule: Schedule


@dataclass
class Run:
    """A run under way."""

    schedule: Schedule
    loop: SimLoop
    world: World
    field: Field
    clock: SteppedClock
    stand: Stand
    oracle: Oracle
    done: int = 0
    """Mishaps that have begun."""

    async def follow(self) -> None:
        """Let everything on the schedule happen in its time."""
        async with asyncio.TaskGroup() as group:
            for mishap in self.schedule.mishaps:
                group.create_task(self._befall(mishap))

    async def _befall(self, mishap: Mishap) -> None:
        await asyncio.sleep(mishap.start_s - self.loop.time())
        self.oracle.began(mishap)
        self.done += 1
        await self._begin(mishap)
        if mishap.kind is Kind.MASTER:
            await self._pester(mishap)
        await asyncio.sleep(max(0.0, mishap.end_s - self.loop.time()))
        await self._end(mishap)
        self.oracle.ended(mishap)

    async def _begin(self, mishap: Mishap) -> None:
        stand = self.stand
        match mishap.kind:
            case Kind.CRASH | Kind.CRASH_AT_SYNC | Kind.CRASH_AT_WRITE | Kind.CRASH_AT_SEND:
                await self._kill(mishap)
            case Kind.STOP:
                await stand.stop(mishap.target)
            case Kind.FREEZE:
                for part in stand.parts(mishap.target):
                    part.freeze()
            case DiskFault():
                stand.fail_disk(mishap.kind)
            case _ if mishap.target == LINK or mishap.kind in _SET:
                self._set(mishap, on=True)
            case _ if mishap.kind is not Kind.MASTER:
                await self.field.begin(mishap)

    async def _end(self, mishap: Mishap) -> None:
        stand = self.stand
        match mishap.kind:
            case Kind.CRASH | Kind.CRASH_AT_SYNC | Kind.CRASH_AT_WRITE | Kind.CRASH_AT_SEND | Kind.STOP:
                await stand.start(mishap.target)
            case Kind.FREEZE:
                for part in stand.parts(mishap.target):
                    part.thaw()
            case DiskFault():
                stand.fail_disk(None)
            case _ if mishap.target == LINK or mishap.kind in _SET:
                self._set(mishap, on=False)
            case _ if mishap.kind is not Kind.MASTER:
                await self.field.end(mishap)

    def _set(self, mishap: Mishap, *, on: bool) -> None:
        """What is so as long as the mishap lasts."""
        stand, value = self.stand, mishap.value if on else 0.0
        match mishap.kind:
            case Kind.SLOW_DISK:
                stand.gateway.slow_disk_s = value
            case Kind.CLOCK:
                self.clock.off_s = value
            case Kind.HANG:
                stand.brain.hangs_until_s = mishap.end_s if on else 0.0
            case Kind.PLAN:
                stand.brain.hostile = int(mishap.value) if on else None
            case Kind.CUT:
                stand.exchange.cut = on
            case Kind.LATE:
                stand.exchange.late_s = value
            case _:
                stand.exchange.double_frac = 0.5 if on else 0.0
        stand.settle()

    async def _kill(self, mishap: Mishap) -> None:
        """Kill a part at once, or where it comes by a point of some kind for the n-th time from now on."""
        stand, target = self.stand, mishap.target
        life, point = stand.parts(target)[0].life, _POINTS[mishap.kind]
        if life is not None and mishap.value:
            at = life.passed[point] + int(mishap.value)

            def on_point(kind: str, number: int) -> None:
                if kind == point and number >= at:
                    stand.kill(target, f"killed at {kind} {number}")

            life.on_point = on_point
            for _ in range(TRIES_MOST):
                if not life.alive:
                    return
                await asyncio.sleep(1.0)
        stand.kill(target)

    async def _pester(self, mishap: Mishap) -> None:
        times = 0
        while self.loop.time() < mishap.end_s:
            if mishap.target in DERS and not isinstance(self.field.server(mishap.target).failing, Fault):
                self.field.meddle(mishap.target, mishap.value)
            times += 1
            await asyncio.sleep(90.0)

    async def seconds(self, until_s: float) -> None:
        """Have the oracle look in every second."""
        while self.loop.time() < until_s:
            await asyncio.sleep(1.0)
            self.oracle.second()
            if round(self.loop.time()) % OPERATOR_EVERY_S == 0 and self.stand.gateway.promote():
                self.oracle.facts.story.tell("operator: puts the feeder back into auto")


_SET = (Kind.SLOW_DISK, Kind.CLOCK, Kind.HANG, Kind.PLAN)
_POINTS = {
    Kind.CRASH: "await",
    Kind.CRASH_AT_SYNC: "sync",
    Kind.CRASH_AT_WRITE: "write",
    Kind.CRASH_AT_SEND: "send",
}


def run_seed(
    seed: int, *, hours: float = HOURS, schedule: Schedule | None = None, echo: bool = False, light: bool | None = None
) -> Result:
    """Run a seed to its end, with its own schedule or another."""
    began_s = time.process_time()
    run_s = 3600.0 * hours
    calm_s = run_s - min(HEAL_S, CALM_PART * run_s)
    drawn = draw(seed, DEVICES, calm_s=calm_s) if schedule is None else schedule
    folder = Path(tempfile.mkdtemp(prefix="derms-sim-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    wire = Wire(random.Random(f"{seed}:wire"))

    async def main(loop: SimLoop) -> Result:
        run = await _set_up(loop, drawn, folder, echo=echo, light=seed % REAL_EVERY != 0 if light is None else light)
        moving = [asyncio.ensure_future(run.world.run(LoopClock(loop, run.world.start)))]
        await run.stand.start()
        moving += [asyncio.ensure_future(run.follow())]
        await run.seconds(calm_s)
        run.oracle.facts.story.tell("calm: nothing goes wrong any more")
        run.stand.brain.steady = True
        run.stand.settle()
        await run.seconds(run_s)
        run.oracle.end()
        trace = loop.network.trace_hash
        await run.stand.stop()
        await loop.bury()
        for task in moving:
            task.cancel()
        for ended in await asyncio.gather(*moving, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
        run.world.close()
        facts = run.oracle.facts
        return Result(
            seed=seed,
            device_s=run_s * len(DEVICES),
            faults=run.done + wire.injected.total() + run.stand.ways.disk.failed.total(),
            violations=tuple(run.oracle.violations),
            more=run.oracle.more,
            trace=trace,
            cpu_s=time.process_time() - began_s,
            intents=len(facts.journal.intents),
            outcomes=dict(Counter(facts.journal.outcomes.values())),
            schedule=drawn,
        )

    try:
        return run_sim(main, seed=seed, wire=wire)
    finally:
        shutil.rmtree(folder)


async def _set_up(loop: SimLoop, schedule: Schedule, folder: Path, *, echo: bool, light: bool) -> Run:
    seed = schedule.seed
    world = small_world(seed)
    ports = dict(zip(world.servers, await world.serve(HOST), strict=True))
    loop.wire.now_s = loop.time
    site = _site(world, ports, folder, quick=seed % 2 == 1)
    clock = SteppedClock(loop, world.start)
    story = Story(loop.time)
    own_ports = {device: ports[device] for device in DEVICES}
    disk = SimDisk(random.Random(f"{seed}:disk"))
    asked_s: list[float] = []
    facts = Facts(
        world=world,
        fleet=site.fleet,
        ports=own_ports,
        wire=loop.wire,
        journal=JournalView(),
        story=story,
        now_s=loop.time,
        dispatch=site.dispatch,
        polling=site.field,
        plan_every_s=site.plan.every_s,
        asked_s=asked_s,
        unexpected=loop.unexpected,
        tasks=lambda: sum(len(life.tasks) for life in loop.lives if life.alive),
        rows={der.id: row for row, der in enumerate(PACKAGE.ders)},
    )
    oracle = Oracle(seed, facts, checks())
    disk.on_durable = oracle.durable

    def on_event(event: Event) -> None:
        if echo or event.severity is not Severity.INFO:
            story.tell(f"{event.source} says {event.kind}: {event.text}")
        if echo:
            print(f"{loop.time():9.2f} {event.source} {event.kind}: {event.text}", flush=True)

    oracle.listen(
        [
            Ear(world.servers[der.id], der.id, Plate(der.p_rated_w, der.energy_wh, der.id in LEGACY), loop.time)
            for der in PACKAGE.ders
            if der.id in DERS
        ]
    )
    chance = random.Random(f"{seed}:stand")
    stand = Stand(
        Ways(loop, clock, site, disk, drivers(), chance, light, oracle.up, oracle.down, on_event, asked_s)
    )
    field = Field(loop, world, own_ports, clock, random.Random(f"{seed}:field"))
    field.on_master = oracle.meddled
    return Run(schedule, loop, world, field, clock, stand, oracle)


def _site(world: World, ports: dict[str, int], folder: Path, *, quick: bool) -> Site:
    path = write_files(world, HOST, list(ports.values()), folder, mode="auto")
    site = load_site(path, drivers=drivers().names, feeder=load)
    package = replace(PACKAGE, ders=tuple(der for der in PACKAGE.ders if der.id in DERS))
    site = replace(site, fleet=small_fleet(site.fleet), package=package)
    return replace(site, dispatch=QUICK, plan=replace(site.plan, every_s=QUICK_PLAN_S)) if quick else site
