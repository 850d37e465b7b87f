"""Four devices fail at the same time, over real TCP: the others go on, and the four come back when they are healed."""

import asyncio
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from derms.domain.alarm import Event
from derms.domain.arrays import FloatArray
from derms.domain.dispatch import Applied, Dispatch, Quantity
from derms.domain.plan import PlanSource
from derms.domain.quality import Quality
from derms.historian.store import Store
from derms.service.app import Service
from derms.service.cadence import run_on_clock
from derms.service.clock import LoopClock
from derms.service.config import load_site
from derms.service.paced import PacedLoop
from derms.service.surroundings import Surroundings
from drivers.registry import drivers
from feeders.catalog import load
from hil.cli import write_files
from hil.server import Fault
from hil.world import World

AFTERNOON = datetime(2026, 4, 15, 23, 0, tzinfo=UTC)
"""16:00 in Los Angeles."""
FAILING = {"bat02": Fault.STOP, "bat05": Fault.REFUSE, "bat09": Fault.GARBAGE, "bat14": Fault.FREEZE}
FAIL_S, HEAL_S, END_S = 900.0, 1600.0, 2500.0
NOTICED_S = 150.0
"""From the fault until even a frozen device is known as such."""
BACK_S = 250.0
"""From healing until a device has been tried again, whatever its back-off, and its values have moved."""
TICK_S = 5.0
SPEED = 250.0
MEMORY_TICKS = 6


@dataclass
class Watch:
    """What was seen while it ran; times in s since the start."""

    qualities: list[tuple[float, dict[str, Quality]]] = field(default_factory=list)
    """Of every device at every tick."""
    believed: list[tuple[str, float, float]] = field(default_factory=list)
    """Device, and how far good values of power [per unit of nameplate] and of state of charge were from the truth."""
    dispatches: dict[int, tuple[float, Dispatch, PlanSource]] = field(default_factory=dict)

    def during(self, first_s: float, last_s: float) -> list[dict[str, Quality]]:
        return [quality for at_s, quality in self.qualities if first_s <= at_s <= last_s]

    def planned(self, first_s: float, last_s: float) -> list[tuple[Dispatch, PlanSource]]:
        return [(dispatch, source) for at_s, dispatch, source in self.dispatches.values() if first_s <= at_s <= last_s]


@dataclass
class Story:
    """The world, the service and what was seen of them."""

    world: World
    service: Service
    watch: Watch


async def _observe(world: World, service: Service, clock: LoopClock, watch: Watch, start_s: float) -> None:
    """Look at every tick: qualities, new dispatches, and good values against what was true lately."""
    fleet = service.site.fleet
    truth: list[tuple[FloatArray, FloatArray]] = []
    ders = [fleet.index[der.id] for der in world.package.ders]
    rated_w, is_battery = world.ratings.p_rated_w, world.ratings.is_battery
    while True:
        await asyncio.sleep(TICK_S)
        now_s, snapshot = clock.monotonic_s() - start_s, service.gateway.snapshot()
        truth = [*truth[1 - MEMORY_TICKS :], (world.state.p_w, world.state.soc_frac)]
        watch.qualities.append(
            (now_s, {device.id: Quality(q) for device, q in zip(fleet.devices, snapshot.quality, strict=True)})
        )
        errors = [
            (np.abs(snapshot.p_w[ders] - p_w) / rated_w, np.abs(snapshot.soc_frac[ders] - soc)) for p_w, soc in truth
        ]
        power, soc = (np.min([error[k] for error in errors], axis=0) for k in range(2))
        fresh = snapshot.good("p_w")[ders] & (snapshot.age_s[ders] < (MEMORY_TICKS - 1) * TICK_S) & is_battery
        watch.believed += [
            (world.package.ders[row].id, float(power[row]), float(soc[row])) for row in np.flatnonzero(fresh)
        ]
        decision = service.brain.decision
        if decision is not None:
            entry = (now_s, decision.dispatch, decision.plan.source)
            watch.dispatches.setdefault(decision.plan.id, entry)


async def _fail_and_heal(world: World) -> None:
    await asyncio.sleep(FAIL_S)
    for device, kind in FAILING.items():
        world.servers[device].fault(kind)
    await asyncio.sleep(HEAL_S - FAIL_S)
    for device in FAILING:
        await world.servers[device].heal()


async def _story(folder: Path) -> Story:
    loop = asyncio.get_running_loop()
    clock = LoopClock(loop, AFTERNOON)
    world = World(load("ieee123"), seed=1, start=AFTERNOON)
    path = write_files(world, "127.0.0.1", await world.serve(), folder, mode="auto")
    around = Surroundings(
        clock=clock,
        runner=lambda jobs: run_on_clock(jobs, clock),
        chance=random.Random(1),
        executor=ThreadPoolExecutor(1),
    )
    site = load_site(path, drivers=drivers().names, feeder=load)
    service = Service(site, around, drivers=drivers(), on_event=lambda event: None)
    watch, start_s = Watch(), clock.monotonic_s()
    stop = asyncio.Event()
    serving = asyncio.ensure_future(service.run(stop))
    others = [
        asyncio.ensure_future(work)
        for work in (world.run(clock), _observe(world, service, clock, watch, start_s), _fail_and_heal(world))
    ]
    await asyncio.wait([serving, *others[:2]], timeout=END_S, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    await serving
    for task in others:
        task.cancel()
    for result in await asyncio.gather(*others, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    world.close()
    return Story(world, service, watch)


@pytest.mark.slow
def test_four_devices_fail_at_once_and_come_back(tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=partial(PacedLoop, SPEED)) as runner:
        story = runner.run(_story(tmp_path))
    _the_others_are_polled_without_loss(story)
    _each_of_the_four_is_reported_once(story)
    _plans_go_on_without_the_four(story)
    _nothing_wrong_is_believed(story)
    _healed_devices_are_good_and_commanded_again(story)
    assert story.world.tap.violations == []


def _the_others_are_polled_without_loss(story: Story) -> None:
    seen = story.watch.during(60.0, END_S)
    assert len(seen) > 300
    bad = Counter(
        device for quality in seen for device in quality.keys() - FAILING.keys() if quality[device] is not Quality.GOOD
    )
    assert bad == {}
    counts = story.service.gateway.poller.counts
    devices = len(story.service.site.fleet)
    assert counts.polls >= 0.99 * (devices - len(FAILING)) * END_S / story.service.site.field.poll_s


def _events(story: Story, *kinds: str) -> list[Event]:
    return [event for event in story.service.events if event.kind in kinds]


def _each_of_the_four_is_reported_once(story: Story) -> None:
    lost = _events(story, "device-lost", "other-master", "values-suspect")
    back = _events(story, "device-back", "values-good")
    assert Counter(event.source for event in lost) == dict.fromkeys(FAILING, 1)
    assert Counter(event.source for event in back) == dict.fromkeys(FAILING, 1)
    assert {event.kind for event in lost if event.source == "bat14"} == {"values-suspect"}
    alarmed = {event.source for event in story.service.events if event.severity != "info"}
    assert alarmed == {*FAILING, "brain"}
    feeder = [str(event.severity) for event in _events(story, "feeder-state")]
    assert (feeder[0], feeder[-1]) == ("warning", "info")  # not known whole while they fail, known whole in the end


def _plans_go_on_without_the_four(story: Story) -> None:
    fleet = story.service.site.fleet
    rows = [fleet.index[device] for device in FAILING]
    working = [row for row in np.flatnonzero(fleet.is_battery) if row not in rows]
    planned = story.watch.planned(FAIL_S + NOTICED_S, HEAL_S)
    assert len(planned) >= 2
    for dispatch, source in planned:
        assert source is PlanSource.OPTIMIZER
        assert np.isnan(dispatch.p_set_w[rows]).all()
        assert np.isfinite(dispatch.p_set_w[working]).all()
    for quality in story.watch.during(FAIL_S + NOTICED_S, HEAL_S):
        assert all(quality[device] in (Quality.STALE, Quality.SUSPECT) for device in FAILING)


def _nothing_wrong_is_believed(story: Story) -> None:
    for device, power_error, soc_error in story.watch.believed:
        if FAILING.get(device) is not Fault.FREEZE:
            assert power_error < 0.03, device
            assert soc_error < 0.005, device
    assert {device for device, _, _ in story.watch.believed} >= FAILING.keys()


def _healed_devices_are_good_and_commanded_again(story: Story) -> None:
    watch, fleet = story.watch, story.service.site.fleet
    for quality in watch.during(HEAL_S + BACK_S, END_S):
        assert all(value is Quality.GOOD for value in quality.values())
    rows = [fleet.index[device] for device in FAILING]
    dispatch, _ = watch.planned(HEAL_S + BACK_S, END_S)[-1]
    assert np.isfinite(dispatch.wanted_w(Quantity.P_SET, dispatch.times_s[0])[rows]).all()
    store = Store(f"sqlite:///{story.service.site.storage / 'historian.sqlite'}", fleet)
    healed = store.outcomes(AFTERNOON + timedelta(seconds=HEAL_S), AFTERNOON + timedelta(seconds=END_S))
    store.close()
    followed = {
        record.device_id for record in healed if record.value_w is not None and isinstance(record.outcome, Applied)
    }
    assert followed >= FAILING.keys()
