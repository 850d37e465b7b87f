"""The whole service on a part of a simulated world, in simulated time: what it does, says and leaves behind."""

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from derms.domain.alarm import Event
from derms.domain.der import Fleet
from derms.domain.dispatch import Outcome, Unknown
from derms.domain.plan import PlanSource
from derms.errors import PlanError
from derms.field.ending import CANCEL_EVERY_S
from derms.field.journal import Conclusion, Intent, read_records
from derms.link.desk import AskFleet, ReturnToSchedule, ShowDesk
from derms.link.orders import Done
from derms.optimize.fleet import FleetPlan
from derms.optimize.portfolio import Portfolio
from derms.service.app import Service
from derms.service.cadence import run_on_clock
from derms.service.clock import LoopClock
from derms.service.config import load_site
from derms.service.dispatch_desk import DispatchDesk
from derms.service.serving import STOP_S
from derms.service.simulated import SimulatedLoop, run_simulated
from derms.service.surroundings import Surroundings
from drivers.registry import drivers
from feeders.catalog import load
from hil.cli import write_files
from hil.server import Fault
from hil.world import World
from tests.field.scripted import deaf

PACKAGE = load("ieee123")
EVENING = datetime(2026, 4, 16, 1, 0, tzinfo=UTC)
"""18:00 in Los Angeles: the load rises while the sun goes."""
DEVICES = ("pv01", "pv02", "pv04", "bat01", "bat02", "bat03", "head", "system")


PART_OF_THE_FLEET = ("feeder-state",)
"""Said once: the feeder model has DER that this small fleet does not measure."""


@dataclass
class Day:
    """A service at work, and its world."""

    world: World
    service: Service
    clock: LoopClock
    took_s: float = np.nan
    """To end."""

    def kinds(self, source: str) -> list[str]:
        return [event.kind for event in self.service.events if event.source == source]

    def holding(self) -> set[str]:
        """Devices that hold a setpoint or a limit now."""
        commands = self.world.commands
        held = commands.setpoint.enabled | commands.limit.enabled
        return {der.id for der, holds in zip(self.world.package.ders, held, strict=True) if holds}


def _day(scenario: Callable[[Day], Awaitable[None]], folder: Path, *, mode: str = "auto") -> Day:
    """Run the service from the evening on until the scenario ends; then it is stopped as by Ctrl-C."""

    async def main(loop: SimulatedLoop) -> Day:
        clock = LoopClock(loop, EVENING)
        world = World(PACKAGE, seed=1, start=EVENING)
        path = write_files(world, "127.0.0.1", await world.serve(), folder, mode=mode)
        site = load_site(path, drivers=drivers().names, feeder=load)
        site = replace(site, fleet=Fleet(tuple(d for d in site.fleet.devices if d.id in DEVICES)))
        around = Surroundings(
            clock=clock,
            runner=lambda jobs: run_on_clock(jobs, clock),
            chance=random.Random(1),
            executor=None,
        )
        events: list[Event] = []
        day = Day(world, Service(site, around, drivers=drivers(), on_event=events.append), clock)
        stop = asyncio.Event()
        living = asyncio.ensure_future(world.run(clock))
        serving = asyncio.ensure_future(day.service.run(stop))
        telling = asyncio.ensure_future(scenario(day))
        await asyncio.wait([serving, telling], return_when=asyncio.FIRST_COMPLETED)
        stopped_s = loop.time()
        stop.set()
        await serving
        day.took_s = loop.time() - stopped_s
        await telling
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        world.close()
        assert events == list(day.service.events)
        return day

    return run_simulated(main, seed=1)


def _journalled(data: bytes) -> tuple[list[Intent], dict[int, Outcome]]:
    """Intents of a journal, and the outcomes by sequence number."""
    records = [record for record, _, _ in read_records(data)]
    ended = {record.seq: record.outcome for record in records if isinstance(record, Conclusion)}
    return [record for record in records if isinstance(record, Intent)], ended


def _open(data: bytes) -> list[int]:
    """Intents of a journal that have no outcome."""
    intents, ended = _journalled(data)
    return [intent.seq for intent in intents if intent.seq not in ended]


def test_batteries_follow_the_plan_and_are_handed_back_at_the_end(tmp_path: Path) -> None:
    async def scenario(day: Day) -> None:
        await asyncio.sleep(700.0)
        decision = day.service.brain.decision
        assert decision is not None
        assert decision.plan.source is PlanSource.OPTIMIZER
        assert {"bat01", "bat02", "bat03"} <= day.holding()
        batteries_w = float(day.world.state.p_w[day.world.ratings.is_battery].sum())
        assert abs(batteries_w) > 10e3
        assert 0.5 < batteries_w / float(decision.plan.battery_w[0]) < 1.5  # written at another minute than planned

    day = _day(scenario, tmp_path)
    assert day.holding() == set()
    assert day.took_s < 1.0
    assert day.world.tap.violations == []
    assert day.service.gateway.reconciler.counts.failed == 0
    assert day.service.brain.plans_fallback == 0
    intents, ended = _journalled((tmp_path / "data" / "commands.journal").read_bytes())
    assert intents
    assert sorted(ended) == [intent.seq for intent in intents]


def test_what_the_dispatcher_asks_is_planned_at_once_held_until_its_end_and_given_up(tmp_path: Path) -> None:
    async def scenario(day: Day) -> None:
        await asyncio.sleep(400.0)
        gateway, brain = day.service.gateway, day.service.brain
        desk = DispatchDesk(gateway.orders, gateway.reconciler)
        reply = await desk.ask(AskFleet("ieee123", -30e3, 1800.0), "kim")
        assert isinstance(reply, Done)
        assert "from the next plan on" in reply.text
        plans = brain.plans
        await asyncio.sleep(15.0)
        assert brain.plans > plans
        assert brain.decision is not None
        assert brain.decision.plan.battery_w[:5] == pytest.approx([-30e3] * 5, abs=500.0)
        shown = await desk.show(ShowDesk(), "kim")
        assert shown.headroom is not None
        assert shown.headroom.offers[0].instead.up_w > 30e3
        assert shown.against == ()
        # Every battery has its turn; from then on all hold what they have, whatever net load does.
        await asyncio.sleep(300.0)
        for _ in range(20):
            await asyncio.sleep(30.0)
            assert float(day.world.state.p_w[day.world.ratings.is_battery].sum()) == pytest.approx(-30e3, abs=500.0)
        assert isinstance(await desk.return_to_schedule(ReturnToSchedule(), "kim"), Done)
        await asyncio.sleep(15.0)
        assert brain.decision.portfolio.desk.hold_w == {}

    day = _day(scenario, tmp_path)
    assert day.kinds("gateway").count("desk-asks") == day.kinds("gateway").count("desk-returns") == 1


@pytest.mark.parametrize(("cancels", "more_s"), [(0, 0.0), (1, CANCEL_EVERY_S)])
def test_a_plan_that_nobody_wants_any_more_holds_up_neither_the_devices_nor_the_records(
    cancels: int, more_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on for ever in its thread, and the job that waits for it may even not mind being ended."""

    async def scenario(day: Day) -> None:
        await asyncio.sleep(400.0)
        assert {"bat01", "bat02", "bat03"} <= day.holding()
        plans = day.service.brain.plans
        monkeypatch.setattr(day.service.brain, "_run", lambda work: deaf(cancels))
        await asyncio.sleep(310.0)
        assert day.service.brain.plans == plans

    day = _day(scenario, tmp_path)
    assert day.holding() == set()
    assert day.took_s == pytest.approx(more_s, abs=1.0)
    intents, ended = _journalled((tmp_path / "data" / "commands.journal").read_bytes())
    assert sorted(ended) == [intent.seq for intent in intents]
    with closing(sqlite3.connect(tmp_path / "data" / "historian.sqlite")) as records:
        assert records.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert records.execute("select count(*) from outcomes").fetchall() == [(len(ended),)]


def test_the_end_is_bounded_by_the_sum_of_its_parts() -> None:
    assert STOP_S == 50.0, "as the documentation has it"


def test_in_observe_mode_it_plans_and_nothing_is_written(tmp_path: Path) -> None:
    async def scenario(day: Day) -> None:
        await asyncio.sleep(400.0)
        assert day.service.brain.decision is not None
        day.service.gateway.adopt(day.service.brain.decision.dispatch)
        await asyncio.sleep(310.0)

    day = _day(scenario, tmp_path, mode="observe")
    assert day.service.brain.plans >= 2
    assert day.world.tap.writes == 0
    assert day.service.gateway.reconciler.counts.writes == 0


@pytest.mark.slow
def test_without_a_solver_it_goes_on_with_its_last_good_plan_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(day: Day) -> None:
        await asyncio.sleep(60.0)

        def failing(given: Portfolio) -> FleetPlan:
            raise PlanError("the solver is gone")

        with monkeypatch.context() as patch:
            patch.setattr(day.service.brain, "_optimize", failing)
            await asyncio.sleep(900.0)
            decision = day.service.brain.decision
            assert decision is not None
            assert decision.plan.source is PlanSource.LAST_GOOD
            assert day.kinds("brain") == [*PART_OF_THE_FLEET, "plan-source"]
            assert day.service.brain.plans_fallback == 3
            assert {"bat01", "bat02", "bat03"} <= day.holding()
        await asyncio.sleep(300.0)
        assert day.kinds("brain") == [*PART_OF_THE_FLEET, "plan-source", "plan-source"]

    _day(scenario, tmp_path)


@pytest.mark.slow
def test_a_frozen_device_leaves_the_plan_and_comes_back_when_it_moves(tmp_path: Path) -> None:
    async def scenario(day: Day) -> None:
        row = day.service.site.fleet.index["bat01"]
        await asyncio.sleep(30.0)
        day.world.servers["bat01"].fault(Fault.FREEZE)
        await asyncio.sleep(640.0)
        decision = day.service.brain.decision
        assert decision is not None
        commanded = np.isfinite(decision.dispatch.p_set_w[:, 0])
        assert not commanded[row]
        assert commanded.sum() == 2
        await day.world.servers["bat01"].heal()
        await asyncio.sleep(640.0)
        decision = day.service.brain.decision
        assert decision is not None
        assert np.isfinite(decision.dispatch.p_set_w[row]).all()
        assert [kind for kind in day.kinds("bat01") if kind.startswith("values-")] == ["values-suspect", "values-good"]

    _day(scenario, tmp_path)


@pytest.mark.slow
def test_without_its_brain_the_gateway_lets_the_fleet_go_when_the_dispatch_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(day: Day) -> None:
        await asyncio.sleep(400.0)
        assert day.holding()

        def dead(self: object) -> object:
            raise RuntimeError("brain dead")

        monkeypatch.setattr(type(day.service.brain), "_forecast", dead)
        await asyncio.sleep(1800.0 + 330.0)
        assert day.kinds("plan") == ["job-failed"]
        assert day.kinds("gateway") == ["brain-leads", "ladder-no-optimizer", "dispatch-expired"]
        assert day.holding() == set()

    _day(scenario, tmp_path)


@pytest.mark.slow
def test_without_net_load_it_plans_on_for_half_an_hour_then_waits_and_says_so_once(tmp_path: Path) -> None:
    async def scenario(day: Day) -> None:
        await asyncio.sleep(60.0)
        day.world.servers["system"].fault(Fault.STOP)
        await asyncio.sleep(1500.0)
        assert day.service.brain.plans == 6
        assert day.kinds("brain") == [*PART_OF_THE_FLEET]
        await asyncio.sleep(1800.0)
        plans = day.service.brain.plans
        assert plans < 9
        assert day.kinds("brain") == [*PART_OF_THE_FLEET, "plan-waits"]
        await day.world.servers["system"].heal()
        await asyncio.sleep(600.0)
        assert day.service.brain.plans > plans

    _day(scenario, tmp_path)


def test_commands_that_a_crash_left_without_outcome_are_closed_as_unknown_by_the_next_service(tmp_path: Path) -> None:
    path = tmp_path / "data" / "commands.journal"
    left_behind = b""

    async def crash(day: Day) -> None:
        nonlocal left_behind
        await asyncio.sleep(400.0)
        while not _open(left_behind):
            await asyncio.sleep(1.0)
            left_behind = path.read_bytes()

    async def look(day: Day) -> None:
        await asyncio.sleep(1.0)
        assert day.kinds("gateway") == ["unfinished-commands"]

    _day(crash, tmp_path)
    open_ = _open(left_behind)
    path.write_bytes(left_behind)
    _day(look, tmp_path)
    intents, ended = _journalled(path.read_bytes())
    assert sorted(ended) == [intent.seq for intent in intents]
    assert all(isinstance(ended[seq], Unknown) for seq in open_)
