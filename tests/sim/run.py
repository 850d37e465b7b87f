"""One run: a world, the product on it, what goes wrong, and the oracle; then a time in which everything may heal."""

import asyncio
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from derms.domain.alarm import Event, Severity
from derms.domain.settings import DispatchSettings
from derms.ports import DriverKit
from derms.service.clock import LoopClock
from derms.service.config import Site, load_site
from drivers.registry import drivers
from feeders.catalog import load
from hil.cli import write_files
from hil.tap import Plate
from hil.world import World
from tests.sim.disk import DiskFault, SimDisk
from tests.sim.field import ALL, FEW, HOST, METER, PACKAGE, Field, SteppedClock, legacy, part_of, small_world
from tests.sim.frames import Wire
from tests.sim.invariants import checks
from tests.sim.lean import LeanField, LeanKit
from tests.sim.loop import SimLoop, run_sim
from tests.sim.oracle import Facts, Oracle, Violation
from tests.sim.people import People
from tests.sim.schedule import LINK, PESTER_S, Kind, Mishap, Schedule, draw
from tests.sim.stand import Stand, Ways
from tests.sim.watch import Ear, JournalView, Story

MEMORY = Path("/dev/shm")
HOURS = 2.0


@dataclass(frozen=True, slots=True)
class Tier:
    """How much of the field is simulated."""

    lean: bool
    """Drivers in the process on the physics, in place of registers, frames and the real drivers."""
    ders: tuple[str, ...]
    """DER of the product."""

    @property
    def devices(self) -> tuple[str, ...]:
        return (*self.ders, METER)


WIRE, LEAN = Tier(lean=False, ders=FEW), Tier(lean=True, ders=ALL)
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
    stops: int
    """Stops that people were told to hold."""
    by_hand: int
    """Values by hand that they were told to go out."""
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
    ears: list[Ear]
    """At the devices, where there are bytes."""
    people: People
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
            case Kind.EMERGENCY:
                await self.people.stop(mishap)
            case Kind.BY_HAND:
                await self.people.set_by_hand(mishap)
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
            case Kind.EMERGENCY:
                await self.people.release(mishap)
            case Kind.BY_HAND:
                pass
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
        while self.loop.time() < mishap.end_s:
            if mishap.target != METER and self.field.server(mishap.target).failing is None:
                self.field.meddle(mishap.target, mishap.value)
            await asyncio.sleep(PESTER_S)

    async def seconds(self, until_s: float) -> None:
        """Have the oracle look in every second."""
        while self.loop.time() < until_s:
            await asyncio.sleep(1.0)
            self.oracle.second()
            if round(self.loop.time()) % OPERATOR_EVERY_S == 0 and self.stand.gateway.promote():
                self.oracle.facts.story.tell("operator: puts the feeder back into auto")


_SET = (Kind.SLOW_DISK, Kind.CLOCK, Kind.HANG, Kind.PLAN)
_POINTS: Mapping[object, str] = {
    Kind.CRASH: "await",
    Kind.CRASH_AT_SYNC: "sync",
    Kind.CRASH_AT_WRITE: "write",
    Kind.CRASH_AT_SEND: "send",
}


def run_seed(
    seed: int,
    *,
    hours: float = HOURS,
    tier: Tier = WIRE,
    schedule: Schedule | None = None,
    echo: bool = False,
) -> Result:
    """Run a seed to its end, with its own schedule or another."""
    began_s = time.process_time()
    run_s = 3600.0 * hours
    calm_s = run_s - min(HEAL_S, CALM_PART * run_s)
    drawn = draw(seed, tier.devices, calm_s=calm_s) if schedule is None else schedule
    folder = scratch()
    wire = Wire(random.Random(f"{seed}:wire"))

    async def main(loop: SimLoop) -> Result:
        run = await set_up(loop, drawn, folder, tier, echo=echo)
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
            device_s=run_s * len(tier.devices),
            faults=run.done + wire.injected.total() + run.stand.ways.disk.failed.total(),
            violations=tuple(run.oracle.violations),
            more=run.oracle.more,
            trace=trace,
            cpu_s=time.process_time() - began_s,
            intents=len(facts.journal.intents),
            outcomes=dict(Counter(facts.journal.outcomes.values())),
            stops=sum(stop.given_s < calm_s for stop in facts.stops),
            by_hand=sum(hand.given_s < calm_s for hand in facts.by_hand),
            schedule=drawn,
        )

    try:
        return run_sim(main, seed=seed, wire=wire)
    finally:
        shutil.rmtree(folder)


def scratch() -> Path:
    """A fresh folder, in memory where there is such a place: nothing here is about a real disk."""
    return Path(tempfile.mkdtemp(prefix="derms-sim-", dir=MEMORY if MEMORY.is_dir() else None))


async def set_up(loop: SimLoop, schedule: Schedule, folder: Path, tier: Tier, *, echo: bool = False) -> Run:
    """A world with a stand in it, and the oracle over both."""
    seed, story = schedule.seed, Story(loop.time)
    world = small_world(seed, publish=not tier.lean)
    every = list(range(20000, 20000 + len(world.servers))) if tier.lean else await world.serve(HOST)
    ports = dict(zip(world.servers, every, strict=True))
    loop.wire.now_s = loop.time
    own_ports = {device: ports[device] for device in tier.devices}
    site = _site(world, every, folder, tier, quick=seed % 2 == 1)
    clock, disk = SteppedClock(loop, world.start), SimDisk(random.Random(f"{seed}:disk"))
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

    kit: DriverKit = drivers()
    field = LeanField(loop, world, tier.ders, own_ports) if tier.lean else Field(loop, world, tier.ders, own_ports)
    if isinstance(field, LeanField):
        field.on_write, kit = oracle.wrote, LeanKit(field)
    ears = [] if tier.lean else _ears(world, tier, loop)
    oracle.listen(ears)
    field.on_master = oracle.meddled
    chance, light = random.Random(f"{seed}:stand"), seed % REAL_EVERY != 0
    stand = Stand(Ways(loop, clock, site, disk, kit, chance, light, oracle.up, oracle.down, on_event, asked_s))
    people = People(stand.exchange, clock, random.Random(f"{seed}:people"), facts, PACKAGE.id)
    return Run(schedule, loop, world, field, clock, stand, oracle, ears, people)


def _ears(world: World, tier: Tier, loop: SimLoop) -> list[Ear]:
    """One at each DER of the product."""
    old = legacy(world)
    return [
        Ear(world.servers[der.id], der.id, Plate(der.p_rated_w, der.energy_wh, der.id in old), loop.time)
        for der in PACKAGE.ders
        if der.id in tier.ders
    ]


def _site(world: World, ports: list[int], folder: Path, tier: Tier, *, quick: bool) -> Site:
    path = write_files(world, HOST, ports, folder, mode="auto")
    site = load_site(path, drivers=drivers().names, feeder=load)
    package = replace(PACKAGE, ders=tuple(der for der in PACKAGE.ders if der.id in tier.ders))
    site = replace(site, fleet=part_of(site.fleet, tier.ders), package=package)
    return replace(site, dispatch=QUICK, plan=replace(site.plan, every_s=QUICK_PLAN_S)) if quick else site
