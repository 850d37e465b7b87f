"""Fail the n-th: one control cycle, run again and again, and in each run something else goes wrong at one more point.

The cycle is that of a gateway alone with a dispatch: intents, commit, look, write, read back. Its points are every
await, write, sync, connect, send and receive between the hand-over of the dispatch and the end of the last errand. At
each of them the gateway is killed, or told to stop; at those that are input or output there is an error as well. Then
it is started again, given the dispatch again, and the oracle looks on until everything has healed.
"""

import asyncio
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from derms.control.authority import Ticket
from derms.domain.dispatch import Dispatch, Quantity
from derms.errors import LinkError
from derms.link.messages import Hand, Lead, Led
from derms.service.clock import LoopClock
from tests.sim.frames import Wire
from tests.sim.link import SimLink
from tests.sim.loop import Life, SimLoop, run_sim
from tests.sim.oracle import Violation
from tests.sim.run import WIRE, Run, scratch, set_up
from tests.sim.schedule import GATEWAY, Mishap, Schedule

SEED = 1
START_S = 12.0
"""Every device has been polled once."""
CYCLE_S = 62.0
"""One interval: every group has its turn."""
AFTER_S = 150.0
"""Until everything has healed."""
RESET = "bat01"
"""A device that has to be connected anew in the cycle."""
KILL, STOP, ERROR = "kill", "stop", "error"
ANY = ("await",)
IO = ("write", "sync", "connect", "send", "receive")


@dataclass(frozen=True, slots=True)
class Trial:
    """What goes wrong at which point."""

    kind: str
    number: int
    action: str


def points() -> dict[str, int]:
    """How many points of each kind one cycle has."""
    counted: dict[str, int] = {}
    tried(None, counted)
    return counted


def trials(counted: dict[str, int], *, every: int = 1) -> Iterator[Trial]:
    """All of them, or every so-manieth."""
    found = [
        Trial(kind, number, action)
        for kind, count in sorted(counted.items())
        for number in range(count)
        for action in ((KILL, STOP) if kind in ANY else (KILL, STOP, ERROR))
    ]
    yield from found[::every]


def swept(some: Sequence[Trial]) -> list[tuple[Trial, tuple[Violation, ...]]]:
    """Trials, with what was found in each of those in which something was."""
    return [(trial, found) for trial in some if (found := tried(trial))]


def tried(trial: Trial | None, counted: dict[str, int] | None = None, *, frac: float = 0.2) -> tuple[Violation, ...]:
    """Run the cycle with one thing going wrong, or none; what the oracle found.

    Batteries are told `frac` of their rating.
    """
    folder = scratch()
    schedule = Schedule(SEED, (), START_S)

    async def main(loop: SimLoop) -> tuple[Violation, ...]:
        run = await set_up(loop, schedule, folder, WIRE)
        run.oracle.facts.parts = (GATEWAY,)
        world = asyncio.ensure_future(run.world.run(LoopClock(loop, run.world.start)))
        await run.stand.start(GATEWAY)
        await run.seconds(START_S)
        for link in tuple(run.field.server(RESET).links):
            link.abort()
        await _hand(run, frac)
        life = run.stand.gateway.life
        assert life is not None
        before = dict(life.passed)
        if trial is not None:
            _plant(run, life, trial, before)
        await run.seconds(START_S + CYCLE_S)
        if counted is not None:
            counted.update({kind: life.passed[kind] - before.get(kind, 0) for kind in (*ANY, *IO)})
        life.on_point = _nothing
        if trial is not None and trial.action == STOP:
            await run.stand.stop(GATEWAY)
        await run.stand.start(GATEWAY)
        await _hand(run, frac)
        await run.seconds(START_S + CYCLE_S + AFTER_S)
        run.oracle.end()
        await run.stand.stop(GATEWAY)
        await loop.bury()
        world.cancel()
        await asyncio.gather(world, return_exceptions=True)
        run.world.close()
        return tuple(run.oracle.violations)

    try:
        return run_sim(main, seed=SEED, wire=Wire(random.Random(SEED)))
    finally:
        shutil.rmtree(folder)


def commands_of(mishap: Mishap | None) -> dict[str, list[tuple[Quantity, float | None]]]:
    """What each device is told in two cycles of a gateway alone, in order, with one mishap or none."""
    folder = scratch()
    told: dict[str, list[tuple[Quantity, float | None]]] = {device: [] for device in WIRE.ders}
    schedule = Schedule(SEED, () if mishap is None else (mishap,), START_S)

    async def main(loop: SimLoop) -> None:
        run = await set_up(loop, schedule, folder, WIRE)
        for ear in run.ears:
            ear.on_write = lambda write: told[write.device].append((write.quantity, write.value_w))
        moving = [asyncio.ensure_future(run.world.run(LoopClock(loop, run.world.start)))]
        await run.stand.start(GATEWAY)
        moving.append(asyncio.ensure_future(run.follow()))
        await asyncio.sleep(START_S)
        await _hand(run)
        await asyncio.sleep(2.0 * CYCLE_S)
        run.stand.kill(GATEWAY)
        await loop.bury()
        for task in moving:
            task.cancel()
        await asyncio.gather(*moving, return_exceptions=True)
        run.world.close()

    try:
        run_sim(main, seed=SEED, wire=Wire(random.Random(SEED)))
    finally:
        shutil.rmtree(folder)
    return told


def _plant(run: Run, life: Life, trial: Trial, before: dict[str, int]) -> None:
    at = before.get(trial.kind, 0) + trial.number

    def on_point(kind: str, number: int) -> None:
        if kind != trial.kind or number != at:
            return
        if trial.action == KILL:
            run.stand.gateway.kill(f"killed at {kind} {trial.number}")
        elif trial.action == STOP:
            run.stand.gateway.tell_to_stop()
        else:
            raise ConnectionResetError(104, f"planted at {kind} {trial.number}")

    life.on_point = on_point


def _nothing(kind: str, number: int) -> None:
    """Nothing goes wrong here."""


async def _hand(run: Run, frac: float = 0.2) -> None:
    """Give the gateway a dispatch, as a brain does."""
    ways, now_s = run.stand.ways, run.loop.time()
    link = SimLink(run.stand.exchange, ways.clock, random.Random(round(now_s)), "brain")
    fleet = ways.site.fleet
    set_w = np.where(fleet.is_battery, frac * fleet.p_rated_w, np.nan)
    limit_w = np.where(fleet.is_pv, 0.8 * fleet.p_rated_w, np.nan)
    dispatch = Dispatch(
        plan_id=round(now_s),
        issued_at=ways.clock.utc(),
        valid_until_s=now_s + ways.site.dispatch.validity_s,
        times_s=np.array([now_s, now_s + 3600.0]),
        p_set_w=np.column_stack([set_w, set_w]),
        p_limit_w=np.column_stack([limit_w, limit_w]),
    )
    try:
        led = await link.ask(Lead("sweep"), Led, within_s=5.0)
        await link.ask(Hand(dispatch, Ticket(led.token, 1, dispatch.valid_until_s)), object, within_s=5.0)
    except LinkError:
        return
    ways.asked_s.append(now_s)
