"""Observe mode through a whole day in which everything tries to write: not one write request on the wire.

The reconciler and the heartbeat run although the mode is observe, every plan is handed to them, and every driver is
told to write, release, refresh and beat now and then. Writes are counted twice: by the tap at the servers, and by the
function codes in every frame that the network carries. The same in auto mode shows that both would see them.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from derms.domain.dispatch import Command, Quantity
from derms.domain.mode import Mode
from derms.errors import FieldError, WriteForbidden
from derms.ports import DeviceDriver
from derms.service.app import Service
from derms.service.cadence import run_on_clock
from derms.service.clock import LoopClock
from derms.service.config import load_site
from derms.service.simulated import SimulatedLoop, run_simulated
from derms.service.surroundings import Surroundings
from drivers.registry import drivers
from feeders.catalog import load
from hil.cli import write_files
from hil.world import World

MIDNIGHT = datetime(2026, 4, 15, 7, 0, tzinfo=UTC)
"""In Los Angeles."""
HOUR_S, DAY_S = 3600.0, 86400.0
SLOWLY = """
[field]
poll_s = 60
stale_after_s = 210
frozen_after_s = 600
[dispatch]
group_s = 60
[plan]
every_s = 1800
[estimate]
every_s = 900
"""
EXCEPTION_BIT = 0x80


@dataclass
class Seen:
    """What a run left behind."""

    tapped: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    """Function codes of all frames, questions and answers alike."""
    plans: int = 0
    commands: int = 0
    """Commands that the reconciler tried to write."""
    forbidden: int = 0
    """Calls of drivers that were refused before they reached the wire."""
    good: int = 0
    """Devices with good values at the end."""


def run(folder: Path, *, mode: str, length_s: float) -> Seen:
    seen = Seen()

    async def main(loop: SimulatedLoop) -> None:
        record = loop.network.record

        def counting(now_s: float, port: int, data: bytes) -> None:
            seen.codes[data[7]] += 1
            record(now_s, port, data)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop.network, "record", counting)
            await day(folder, seen, loop, mode=mode, length_s=length_s)

    run_simulated(main, seed=1)
    return seen


async def day(folder: Path, seen: Seen, loop: SimulatedLoop, *, mode: str, length_s: float) -> None:
    clock = LoopClock(loop, MIDNIGHT)
    world = World(load("ieee123"), seed=1, start=MIDNIGHT, dt_s=30.0)
    path = write_files(world, "127.0.0.1", await world.serve(), folder, mode=mode)
    path.write_text(path.read_text() + SLOWLY)
    site = load_site(path, drivers=drivers().names, feeder=load)
    around = Surroundings(
        clock=clock,
        runner=lambda jobs: run_on_clock(jobs, clock),
        chance=random.Random(1),
        executor=None,
    )
    service = Service(site, around, drivers=drivers(), on_event=lambda event: None)
    gateway, stop = service.gateway, asyncio.Event()
    parts = [service.run(stop), world.run(clock), handing_over(service), meddling(gateway.poller.drivers, seen)]
    if mode == "observe":
        gateway.orders.site = Mode.AUTO  # or the mode would let nothing come as far as the transport
        parts += [gateway.reconciler.run(), gateway.heartbeat.run()]
    serving, *others = (asyncio.ensure_future(part) for part in parts)
    await asyncio.wait([serving, *others], timeout=length_s, return_when=asyncio.FIRST_COMPLETED)
    seen.good = int(gateway.snapshot().good("p_w").sum())
    stop.set()
    await serving
    for task in others:
        task.cancel()
    for result in await asyncio.gather(*others, return_exceptions=True):
        assert not isinstance(result, Exception), result
    world.close()
    seen.tapped, seen.plans, seen.commands = world.tap.writes, service.brain.plans, gateway.reconciler.counts.writes


async def handing_over(service: Service) -> None:
    """Give every plan to the reconciler, whatever the mode."""
    while True:
        await asyncio.sleep(60.0)
        if service.brain.decision is not None:
            service.gateway.adopt(service.brain.decision.dispatch)


async def meddling(opened: Mapping[str, DeviceDriver], seen: Seen) -> None:
    """Tell every device every hour to do everything that there is to write."""
    while True:
        await asyncio.sleep(HOUR_S)
        for driver in opened.values():
            for quantity in Quantity:
                for what in (
                    driver.write(Command(quantity, 1e3, 900.0)),
                    driver.write(Command(quantity, None, 900.0)),
                    driver.refresh(quantity, 900.0),
                    driver.beat(),
                ):
                    try:
                        await what
                    except WriteForbidden:
                        seen.forbidden += 1
                    except FieldError:
                        continue


@pytest.mark.slow
def test_in_observe_mode_a_day_of_trying_to_write_leaves_no_write_frame_on_the_wire(tmp_path: Path) -> None:
    seen = run(tmp_path, mode="observe", length_s=DAY_S + 60.0)
    assert seen.tapped == 0
    assert {code & ~EXCEPTION_BIT for code in seen.codes} == {3}
    assert seen.codes[3] > 2 * 65 * DAY_S / 60.0  # question and answer of every poll
    assert seen.plans >= 47
    assert seen.commands > 1000
    assert seen.forbidden > 24 * 65
    assert seen.good > 50


@pytest.mark.slow
def test_in_auto_mode_the_same_taps_count_the_same_writes(tmp_path: Path) -> None:
    seen = run(tmp_path, mode="auto", length_s=HOUR_S + 300.0)
    assert seen.tapped > 100
    questions_and_answers = sum(count for code, count in seen.codes.items() if code & ~EXCEPTION_BIT in (6, 16))
    assert questions_and_answers == 2 * seen.tapped
