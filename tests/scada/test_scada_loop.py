"""The whole service in simulated time with the utility's system beside it: net load in, plan out, switches in doubt."""

import asyncio
import json
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from derms.domain.der import Fleet
from derms.domain.membership import NOWHERE
from derms.domain.plan import PlanSource
from derms.ports import ScadaKit
from derms.service.app import Service
from derms.service.cadence import run_on_clock
from derms.service.clock import LoopClock
from derms.service.config import load_site
from derms.service.simulated import SimulatedLoop, run_simulated
from derms.service.surroundings import Surroundings
from drivers.registry import drivers
from drivers.scada import ModbusEms
from feeders.catalog import load
from hil.cli import write_files
from hil.world import World

EVENING = datetime(2026, 4, 16, 1, 0, tzinfo=UTC)
DEVICES = ("pv01", "pv02", "bat01", "bat02", "bat03", "head")
"""No meter of system net load among them: that comes from the utility."""

POINTS = """\
id,kind,element,where,unit,normal
load,net_load,system,load,kW,
sw2,switch,line.sw2,sw2,,closed
"""
SCADA = """
[scada]
source = "file"
points = "points.csv"
path = "ems.csv"
every_s = 10
stale_after_s = 60
publish = "{publish}"
"""


@dataclass
class Ems:
    """The utility's system: writes its file every few seconds, and may have its troubles."""

    world: World
    clock: LoopClock
    path: Path
    switch: str = "closed"
    per_kw: float = 1e-3
    silent: bool = False

    async def run(self) -> None:
        while True:
            if not self.silent:
                self.write()
            await asyncio.sleep(5.0)

    def write(self) -> None:
        now = self.clock.utc()
        load = float(self.world.solved.head_w.sum()) * self.per_kw
        rows = (f"load,{load:.3f},good,{now.isoformat()}", f"sw2,{self.switch},good,{now.isoformat()}")
        self.path.write_text("\n".join(("point,value,quality,time", *rows, "")))
        os.utime(self.path, (now.timestamp(), now.timestamp()))


@dataclass
class Evening:
    """A service at work, its world, and the utility's system."""

    folder: Path
    service: Service
    ems: Ems
    kinds: list[str] = field(default_factory=list)

    def plan(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "plan.json").read_text())
        return found

    def dark_ders(self) -> tuple[str, ...]:
        """DER that the records have on no feeder now."""
        store = self.service.store
        store.flush()
        return store.membership().on(NOWHERE, self.ems.clock.utc())

    def scada_events(self) -> list[str]:
        return [kind for kind in self.kinds if kind.split("-")[0] in ("scada", "points", "switch", "publish", "plan")]


def _evening(
    scenario: Callable[[Evening], Awaitable[None]],
    folder: Path,
    *,
    mode: str = "auto",
    publish: str = "plan.json",
    modbus: Callable[..., ScadaKit] = ModbusEms,
) -> Evening:
    """Run the service from the evening on until the scenario ends; then it is stopped as by Ctrl-C."""

    async def main(loop: SimulatedLoop) -> Evening:
        clock = LoopClock(loop, EVENING)
        world = World(load("ieee123"), seed=1, start=EVENING)
        path = write_files(world, "127.0.0.1", await world.serve(), folder, mode=mode)
        path.write_text(_with_scada(path.read_text(), SCADA.format(publish=publish)))
        (folder / "points.csv").write_text(POINTS)
        site = load_site(path, drivers=drivers().names, feeder=load)
        site = replace(site, fleet=Fleet(tuple(d for d in site.fleet.devices if d.id in DEVICES)))
        around = Surroundings(
            clock=clock,
            runner=lambda jobs: run_on_clock(jobs, clock),
            chance=random.Random(1),
            executor=None,
        )
        kinds: list[str] = []
        service = Service(
            site, around, drivers=drivers(), on_event=lambda event: kinds.append(event.kind), modbus_scada=modbus
        )
        evening = Evening(folder, service, Ems(world, clock, folder / "ems.csv"), kinds)
        stop = asyncio.Event()
        living = [asyncio.ensure_future(world.run(clock)), asyncio.ensure_future(evening.ems.run())]
        serving = asyncio.ensure_future(service.run(stop))
        telling = asyncio.ensure_future(scenario(evening))
        await asyncio.wait([serving, telling], return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await serving
        await telling
        for task in living:
            task.cancel()
        await asyncio.gather(*living, return_exceptions=True)
        world.close()
        return evening

    return run_simulated(main, seed=1)


def _with_scada(site: str, table: str) -> str:
    """The site file with another [scada] table; its history stays."""
    before, _, rest = site.partition("[scada]")
    _, _, after = rest.partition("\n[")
    return f'{before}{table.strip()}\nhistory = "history.csv"\n\n[{after}'


def test_net_load_comes_from_the_file_and_the_plan_is_read_back_until_it_is_withdrawn(tmp_path: Path) -> None:
    async def scenario(evening: Evening) -> None:
        await asyncio.sleep(700.0)
        brain = evening.service.brain
        assert evening.service.site.net_load_id is None
        truth_w = float(evening.ems.world.solved.head_w.sum())
        assert brain.net_load_w == pytest.approx(truth_w, rel=0.05)
        assert brain.decision is not None
        plan, published = brain.decision.plan, evening.plan()
        assert plan.source is PlanSource.OPTIMIZER
        assert (published["plan"], published["status"], published["mode"]) == (plan.id, "valid", "auto")
        assert [step["net_load_kw"] for step in published["steps"]] == pytest.approx(plan.net_load_w / 1e3, abs=1e-3)
        assert [step["battery_kw"] for step in published["steps"]] == pytest.approx(plan.battery_w / 1e3, abs=1e-3)
        valid_until = datetime.fromisoformat(published["valid_until"])
        assert valid_until - plan.made_at == timedelta(seconds=evening.service.site.dispatch.validity_s)

    evening = _evening(scenario, tmp_path)
    assert evening.plan()["status"] == "withdrawn"
    assert evening.scada_events() == []


@pytest.mark.slow
def test_a_file_in_the_wrong_unit_then_no_file_ends_in_no_plan_and_the_last_one_is_told_as_expired(
    tmp_path: Path,
) -> None:
    async def scenario(evening: Evening) -> None:
        await asyncio.sleep(400.0)
        evening.ems.per_kw = 1.0  # W where kW belong
        await asyncio.sleep(300.0)
        assert evening.scada_events() == ["points-refused", "points-stale"]
        evening.ems.silent = True
        await asyncio.sleep(3600.0)
        assert evening.plan()["status"] == "expired"
        assert evening.scada_events()[2:] == ["points-stale", "switch-unknown", "plan-waits"]
        evening.ems.per_kw, evening.ems.silent = 1e-3, False
        await asyncio.sleep(400.0)
        assert evening.plan()["status"] == "valid"

    evening = _evening(scenario, tmp_path)
    assert set(evening.scada_events()[5:]) == {"points-refused-over", "points-stale-over", "switch-normal"}


@pytest.mark.slow
def test_a_switch_in_doubt_is_told_in_state_decision_plan_and_log_and_planning_goes_on(tmp_path: Path) -> None:
    async def scenario(evening: Evening) -> None:
        brain = evening.service.brain
        await asyncio.sleep(100.0)
        evening.ems.switch = "intermediate"
        await asyncio.sleep(650.0)
        assert brain.decision is not None
        assert brain.decision.plan.source is PlanSource.OPTIMIZER
        assert brain.decision.plan.reason == "switches not known: line.sw2"
        assert evening.plan()["reason"] == "switches not known: line.sw2"
        evening.ems.switch = "open"
        await asyncio.sleep(400.0)
        assert brain.decision.plan.reason == "switches not as in the model: line.sw2"
        assert evening.dark_ders(), "the model follows the switch, and what is behind it has no source"
        evening.ems.switch = "closed"
        await asyncio.sleep(400.0)
        assert brain.decision.plan.reason == ""
        assert evening.dark_ders() == ()

    evening = _evening(scenario, tmp_path)
    assert evening.scada_events() == ["switch-unknown", "switch-abnormal", "switch-normal"]
    assert [kind for kind in evening.kinds if kind.startswith("der-")] == ["der-dark", "der-lit"]


@pytest.mark.slow
def test_an_outlet_that_fails_holds_up_neither_plans_nor_commands(tmp_path: Path) -> None:
    async def scenario(evening: Evening) -> None:
        await asyncio.sleep(60.0)
        (tmp_path / "plan.json").unlink()
        (tmp_path / "plan.json").mkdir()
        await asyncio.sleep(1000.0)
        assert evening.service.brain.plans >= 4
        assert evening.scada_events() == ["publish-failed"]
        (tmp_path / "plan.json").rmdir()
        await asyncio.sleep(20.0)
        assert evening.plan()["status"] == "valid"

    evening = _evening(scenario, tmp_path)
    assert evening.scada_events() == ["publish-failed", "publish-back"]


def test_in_observe_mode_nothing_is_published_over_modbus_and_a_file_says_observe(tmp_path: Path) -> None:
    async def scenario(evening: Evening) -> None:
        await asyncio.sleep(60.0)

    over_modbus = _evening(scenario, tmp_path / "a", mode="observe", publish="modbus://10.0.0.5/1/1000")
    assert over_modbus.service.publisher is None
    assert over_modbus.scada_events() == ["publish-off"]
    assert _evening(scenario, tmp_path / "b", mode="observe").plan()["mode"] == "observe"
