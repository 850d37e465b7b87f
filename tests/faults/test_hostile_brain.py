"""A brain gone mad at the link of the real gateway: it takes no dispatch that can be none, and lives on.

Requests go through the bytes of the link to the gateway with its journal, modes, trim and guards, and from there over
the simulated network to simulated devices. What is wrong with values is for `tests/control/test_hostile_plans.py`.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from derms.control.authority import Ticket
from derms.domain.arrays import FloatArray
from derms.domain.der import Fleet
from derms.domain.dispatch import Dispatch, Heads, Leeway, Trim
from derms.domain.refusal import Refused
from derms.link.inprocess import BOOT, InProcessLink
from derms.link.messages import Hand, Lead, Led, Taken
from derms.service.cadence import run_on_clock
from derms.service.clock import LoopClock
from derms.service.config import load_site
from derms.service.gateway_part import GatewayPart
from derms.service.simulated import SimulatedLoop, run_simulated
from derms.service.surroundings import Surroundings
from drivers.registry import drivers
from feeders.catalog import load
from hil.cli import write_files
from hil.world import World

NOON = datetime(2026, 4, 15, 19, 0, tzinfo=UTC)
BATTERIES = tuple(f"bat{number:02}" for number in range(1, 9))
DEVICES = (*BATTERIES, "pv01", "pv04", "head", "system")
NAN, INF = np.nan, np.inf


@dataclass
class Madness:
    """A brain that leads, and the gateway that has to live with it."""

    world: World
    part: GatewayPart
    link: InProcessLink
    clock: LoopClock
    fleet: Fleet
    token: int = 0
    number: int = 0

    async def lead(self) -> None:
        self.token = (await self.link.ask(Lead("mad"), Led, within_s=5.0)).token

    async def hand(self, dispatch: Dispatch) -> Taken | Refused:
        self.number += 1
        ticket = Ticket(self.token, self.number, dispatch.valid_until_s)
        reply = await self.link.ask(Hand(dispatch, ticket), object, within_s=5.0)
        assert isinstance(reply, Taken | Refused)
        return reply

    def dispatch(self, per_nameplate: float | FloatArray, *, valid_s: float = 900.0) -> Dispatch:
        """The same for ten minutes; of whoever has no nameplate, of 10 MW."""
        rated_w = np.where(self.fleet.p_rated_w > 0.0, self.fleet.p_rated_w, 10e6)[:, None] * np.ones(2)
        now_s = self.clock.monotonic_s()
        value_w = per_nameplate * rated_w
        return Dispatch(1, self.clock.utc(), now_s + valid_s, now_s + np.array([0.0, 600.0]), value_w, value_w)

    def held_w(self) -> FloatArray:
        """Setpoints that batteries hold [W]."""
        setpoint = self.world.commands.setpoint
        return np.where(setpoint.enabled, setpoint.value_w, 0.0)

    def judge(self) -> None:
        """The tap has seen nothing beyond nameplate and energy, and nobody does more than it may."""
        world = self.world
        assert world.tap.violations == []
        assert (np.abs(world.state.p_w) <= world.ratings.p_rated_w * (1.0 + 1e-6)).all()
        soc_frac = world.state.soc_frac[world.ratings.is_battery]
        assert ((soc_frac >= 0.05) & (soc_frac <= 1.0)).all()


def _with_a_gateway(
    scenario: Callable[[Madness], Awaitable[None]], folder: Path, *, ramp_frac_per_min: float = 0.5
) -> None:
    """Tell a scenario from the moment that every device has been polled, under a brain that leads."""

    async def main(loop: SimulatedLoop) -> None:
        clock, world = LoopClock(loop, NOON), World(load("ieee123"), seed=1, start=NOON)
        path = write_files(world, "127.0.0.1", await world.serve(), folder, mode="auto")
        site = load_site(path, drivers=drivers().names, feeder=load)
        fleet = Fleet(tuple(d for d in site.fleet.devices if d.id in DEVICES))
        site = replace(site, fleet=fleet, dispatch=replace(site.dispatch, ramp_frac_per_min=ramp_frac_per_min))
        around = Surroundings(clock=clock, runner=lambda jobs: run_on_clock(jobs, clock), chance=random.Random(1))
        part = GatewayPart(site, around, drivers=drivers(), boot=BOOT, on_event=lambda event: None)
        link = InProcessLink(clock, random.Random(2), author="mad", packed=True)
        link.answering = part.answering
        tasks = [asyncio.ensure_future(task) for task in (world.run(clock), part.run())]
        await asyncio.sleep(30.0)
        mad = Madness(world, part, link, clock, site.fleet)
        await mad.lead()
        await scenario(mad)
        assert not any(task.done() for task in tasks), "the gateway lives on"
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await part.hand_back()
        part.close()
        world.close()

    run_simulated(main, seed=1)


def _spoilt(mad: Madness) -> dict[str, Dispatch]:
    """Full power for everybody, in forms that are no dispatch."""
    full = mad.dispatch(1.0)
    now_s, count = mad.clock.monotonic_s(), len(mad.fleet)
    leeway = Leeway(np.zeros(2), np.full(count, 1e4))
    nowhere = Heads(np.zeros(1), np.ones(1), np.full(count, 7))
    return {
        "rows of a smaller fleet": replace(full, p_set_w=full.p_set_w[:3], p_limit_w=full.p_limit_w[:3]),
        "rows of a larger fleet": replace(full, p_set_w=np.vstack([full.p_set_w] * 2)),
        "fewer steps than times": replace(full, p_set_w=full.p_set_w[:, :1]),
        "a column": replace(full, p_limit_w=full.p_limit_w[:, 0]),
        "no time": replace(full, times_s=full.times_s[:0], p_set_w=full.p_set_w[:, :0], p_limit_w=full.p_set_w[:, :0]),
        "one time": replace(full, times_s=full.times_s[:1], p_set_w=full.p_set_w[:, :1], p_limit_w=full.p_set_w[:, :1]),
        "times backwards": replace(full, times_s=full.times_s[::-1].copy()),
        "times at once": replace(full, times_s=np.full(2, now_s)),
        "times that are none": replace(full, times_s=np.full(2, NAN)),
        "infinite setpoints": replace(full, p_set_w=np.full_like(full.p_set_w, INF)),
        "infinite limits": replace(full, p_limit_w=np.full_like(full.p_set_w, -INF)),
        "over": replace(full, valid_until_s=now_s - 1.0),
        "without an end": replace(full, valid_until_s=INF),
        "for a day": replace(full, valid_until_s=now_s + 86_400.0),
        "an end that is none": replace(full, valid_until_s=NAN),
        "leeway of another fleet": replace(full, leeway=replace(leeway, most_w=np.full(count + 1, 1e4))),
        "leeway at other times": replace(full, leeway=replace(leeway, net_load_w=np.zeros(5))),
        "an infinite expectation": replace(full, leeway=replace(leeway, net_load_w=np.full(2, INF))),
        "heads of no feeder": replace(full, leeway=replace(leeway, heads=nowhere)),
        "trim of another fleet": replace(full, leeway=leeway, trim=Trim(np.zeros(count - 1), now_s + 900.0)),
        "trim that is infinite": replace(full, leeway=leeway, trim=Trim(np.full(count, INF), INF)),
    }


def test_what_is_no_dispatch_is_refused_with_all_reasons_moves_nothing_and_the_next_good_one_is_followed(
    tmp_path: Path,
) -> None:
    async def scenario(mad: Madness) -> None:
        for name, dispatch in _spoilt(mad).items():
            reply = await mad.hand(dispatch)
            assert isinstance(reply, Refused), name
            assert reply.reasons
        await asyncio.sleep(31.0)
        assert mad.world.tap.writes == 0
        assert {event.kind for event in mad.part.events} >= {"brain-leads", "dispatch-refused"}
        assert isinstance(await mad.hand(mad.dispatch(0.1)), Taken)
        await asyncio.sleep(330.0)
        assert (mad.held_w() != 0.0).sum() == len(BATTERIES)
        mad.judge()

    _with_a_gateway(scenario, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("ramp_frac_per_min", [0.5, 0.1])
def test_a_brain_that_turns_everybody_round_every_few_seconds_moves_the_fleet_no_faster_than_its_ramp(
    tmp_path: Path, ramp_frac_per_min: float
) -> None:
    dice = np.random.default_rng(3)
    menu = np.array([1.0, -1.0, 10.0, -10.0, 1e9, -1e9, 0.0])

    async def scenario(mad: Madness) -> None:
        held = [mad.held_w()]
        for step in range(320):
            if step % 3 == 0:
                wanted = dice.choice(menu, (len(mad.fleet), 2)) if step > 160 else float(dice.choice(menu))
                assert isinstance(await mad.hand(mad.dispatch(wanted)), Taken)
            await asyncio.sleep(5.0)
            mad.judge()
            held.append(mad.held_w())
        moved_w = np.abs(np.diff(held, axis=0)).sum(axis=1)
        in_a_minute_w = np.convolve(moved_w, np.ones(12), mode="valid").max()
        ramp_w = ramp_frac_per_min * mad.fleet.p_rated_w[mad.fleet.is_battery | mad.fleet.is_pv].sum()
        assert 0.5 * ramp_w < in_a_minute_w <= 1.01 * ramp_w

    _with_a_gateway(scenario, tmp_path, ramp_frac_per_min=ramp_frac_per_min)
