"""The stand: how the product is put together in a simulation, started, stopped, frozen and killed. Nobody else knows.

Gateway and brain are lives of their own with the link between them, as they are processes of their own in production
(`derms.service.serving`). Every start after a crash is on what the crash has left of the disk, in a folder of its own.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from derms.control.modes import ControlMode, Scorecard
from derms.domain.alarm import Event
from derms.domain.scope import Level, Scope
from derms.errors import DermsError
from derms.ports import DriverKit
from derms.service.brain_part import BrainPart
from derms.service.cadence import run_on_clock
from derms.service.config import Site
from derms.service.gateway_part import GatewayPart
from derms.service.surroundings import Surroundings
from tests.sim.disk import DiskFault, SimDisk
from tests.sim.field import SteppedClock
from tests.sim.link import BOOT, Exchange, SimLink
from tests.sim.loop import Life, SimLoop
from tests.sim.planner import LightPlanner
from tests.sim.schedule import BRAIN, GATEWAY, SERVICE

SOUND = Scorecard(
    taken_s=0.0,
    shadow_h=200.0,
    plans=1000.0,
    verified_frac=1.0,
    forecast_error_frac=0.0,
    voltage_error_pu=0.0,
    seen_frac=1.0,
    clamped_frac=0.0,
    harm_node_min=0.0,
)
"""What an operator shows when a feeder that was in doubt is put back into AUTO."""
DRAIN_S = 10.0
"""At the end of a gateway, for a brain to take its last records."""
RESTART_S = 5.0
"""A part that could not start, or has ended by itself, is started again by whoever watches over it."""


class Runs(Protocol):
    """What both parts of the product have in common."""

    async def run(self) -> None: ...


@dataclass
class Ways:
    """What parts have of their surroundings, the same in every life."""

    loop: SimLoop
    clock: SteppedClock
    site: Site
    disk: SimDisk
    drivers: DriverKit
    chance: random.Random
    light: bool
    on_up: Callable[[str], None]
    on_down: Callable[[str, str], None]
    on_event: Callable[[Event], None]
    asked_s: list[float] = field(default_factory=list)

    def around(self, life: Life) -> Surroundings:
        return Surroundings(
            clock=self.clock,
            runner=lambda jobs: run_on_clock(jobs, self.clock),
            chance=random.Random(self.chance.random()),
            executor=None,
            disk=self.disk.of(life),
        )


class Part:
    """One part of the product, over all its lives."""

    def __init__(self, name: str, ways: Ways) -> None:
        self.name = name
        self.ways = ways
        self.life: Life | None = None
        self._context = Context()
        self._running: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._folders = 0
        self._starting = False

    @property
    def up(self) -> bool:
        return self.life is not None and self.life.alive and not self.life.halted

    @property
    def alive(self) -> bool:
        return self.life is not None and self.life.alive

    @property
    def folder(self) -> Path:
        """Of the present life."""
        return self.ways.site.storage / f"{self.name}-{self._folders}"

    def build(self, life: Life, site: Site) -> Runs:
        """Put it together."""
        raise NotImplementedError

    async def finish(self, part: Any) -> None:
        """What it does when it has been told to stop."""
        raise NotImplementedError

    def settle(self) -> None:
        """Hand on to the present life what is to be so in every life."""

    async def start(self) -> None:
        """Start it, unless it runs; when it cannot, again and again."""
        if self._starting:
            return
        self._starting = True
        while not (self.alive or self._begun()):  # noqa: ASYNC110 - who watches over it looks now and then
            await asyncio.sleep(RESTART_S)
        self._starting = False

    def _begun(self) -> bool:
        self.life, self._context = self.ways.loop.begin(self.name)
        life = self.life
        self.settle()
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            part = self._context.run(self.build, life, replace(self.ways.site, storage=self.folder))
        except DermsError as error:
            self.kill(f"cannot start: {error}")
            return False
        if not life.alive:
            return False
        self.settle()
        self._stop = asyncio.Event()
        self._running = self.ways.loop.create_task(self._serve(part), name=self.name, context=self._context)
        self._running.add_done_callback(self._over)
        self.ways.on_up(self.name)
        return True

    async def _serve(self, part: Runs) -> None:
        """Run until it is told to stop, or ends by itself."""
        parts = [asyncio.ensure_future(part.run()), asyncio.ensure_future(self._stop.wait())]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in parts:
                each.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            await self.finish(part)
        for each in parts:
            if not each.cancelled():
                each.result()

    def kill(self, why: str = "killed") -> None:
        """Kill it where it is."""
        if self.life is None or not self.life.alive:
            return
        self.ways.loop.kill(self.life)
        old = self.folder
        self._folders += 1
        self.ways.disk.after_crash(old, self.folder)
        self._running = None
        self.ways.on_down(self.name, why)

    def tell_to_stop(self) -> None:
        """Tell it to stop, as SIGTERM does."""
        if self._running is not None and not self._stop.is_set():
            self.ways.on_down(self.name, "is told to stop")
            self._stop.set()

    async def stop(self) -> None:
        """Tell it to stop, and wait until it has."""
        running = self._running
        if running is not None:
            self.tell_to_stop()
            await asyncio.wait([running])

    def freeze(self) -> None:
        """Do not run it for a while."""
        if self.life is not None and self.up:
            self.ways.loop.halt(self.life)
            self.ways.on_down(self.name, "is frozen")

    def thaw(self) -> None:
        if self.life is not None and self.life.alive and self.life.halted:
            self.ways.loop.resume(self.life)
            self.ways.on_up(self.name)

    def _over(self, task: asyncio.Task[None]) -> None:
        life = self.life
        if life is None or not life.alive or self._running is not task:
            return
        self._running = None
        error = None if task.cancelled() else task.exception()
        life.dead = True
        told = self._stop.is_set()
        if told and (error is None or isinstance(error, DermsError)):  # say what it could not do any more, and end
            return
        self.ways.loop.unexpected.append(f"{self.name} ended {'badly' if told else 'by itself'}: {error!r}")
        self.ways.on_down(self.name, "has ended")


class GatewayLives(Part):
    """The gateway."""

    def __init__(self, ways: Ways, exchange: Exchange) -> None:
        super().__init__(GATEWAY, ways)
        self._exchange = exchange
        self.slow_disk_s = 0.0
        self._part: GatewayPart | None = None

    def build(self, life: Life, site: Site) -> Runs:
        ways = self.ways
        self._part = part = GatewayPart(
            site, ways.around(life), drivers=ways.drivers, boot=BOOT, on_event=ways.on_event
        )
        self._exchange.answering, self._exchange.context = part.answering, self._context
        return part

    def promote(self) -> bool:
        """An operator puts the feeder back into AUTO where a doubt has taken it to SHADOW; whether there was one."""
        if self._part is None or not self.up:
            return False
        orders, feeder = self._part.gateway.orders, Scope(Level.FEEDER, self.ways.site.package.id)
        if orders.area(feeder).mode is ControlMode.AUTO:
            return False
        orders.scorecards[feeder] = SOUND
        self._context.copy().run(orders.set_mode, feeder, ControlMode.AUTO, "operator", "it is sound again")
        return orders.area(feeder).mode is ControlMode.AUTO

    async def finish(self, part: Any) -> None:
        assert isinstance(part, GatewayPart)
        await part.hand_back()
        with suppress(TimeoutError):
            await asyncio.wait_for(part.desk.drained.wait(), DRAIN_S)
        part.close()

    def settle(self) -> None:
        if self.life is not None:
            self.life.slow_disk_s = self.slow_disk_s


class BrainLives(Part):
    """The brain."""

    def __init__(self, ways: Ways, exchange: Exchange) -> None:
        super().__init__(BRAIN, ways)
        self._exchange = exchange
        self.hostile: int | None = None
        self.steady = False
        self.hangs_until_s = 0.0
        self._planner: LightPlanner | None = None

    def build(self, life: Life, site: Site) -> Runs:
        ways = self.ways
        link = SimLink(self._exchange, ways.clock, random.Random(ways.chance.random()), "brain")
        part = BrainPart(site, ways.around(life), link, on_event=ways.on_event)
        behind, chance = part.brain._planner, random.Random(ways.chance.random())
        self._planner = LightPlanner(behind, chance, ways.clock.monotonic_s, light=ways.light)
        self._planner.asked_s = ways.asked_s
        part.brain._planner = self._planner  # type: ignore[assignment]
        return part

    async def finish(self, part: Any) -> None:
        assert isinstance(part, BrainPart)
        await part.finish()

    def settle(self) -> None:
        if self.life is not None:
            self.life.hangs_until_s = self.hangs_until_s
        if self._planner is not None:
            self._planner.hostile, self._planner.steady = self.hostile, self.steady


class Stand:
    """The product of one site in a simulation; see the module's text."""

    def __init__(self, ways: Ways) -> None:
        self.ways = ways
        self.exchange = Exchange(ways.loop, random.Random(ways.chance.random()))
        self.gateway = GatewayLives(ways, self.exchange)
        self.brain = BrainLives(ways, self.exchange)

    def parts(self, target: str) -> list[Part]:
        """Those that a mishap of this target befalls."""
        every: list[Part] = [self.gateway, self.brain]
        return every if target == SERVICE else [part for part in every if part.name == target]

    async def start(self, target: str = SERVICE) -> None:
        await asyncio.gather(*(part.start() for part in self.parts(target)))

    async def stop(self, target: str = SERVICE) -> None:
        await asyncio.gather(*(part.stop() for part in self.parts(target)))

    def kill(self, target: str, why: str = "killed") -> None:
        for part in self.parts(target):
            part.kill(why)

    def settle(self) -> None:
        for part in self.parts(SERVICE):
            part.settle()

    def fail_disk(self, fault: DiskFault | None) -> None:
        self.ways.disk.fault = fault
