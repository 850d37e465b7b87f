"""`derms demo`: a simulated world and the service on it, in one process, and what came of it.

By default over real TCP on loopback at 60 times real time; with `--fast` in virtual time on an in-memory network.
The day without control is the same world with the same seed, stepped in a process of its own.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

from derms.domain.alarm import Event
from derms.domain.arrays import FloatArray
from derms.optimize.horizon import SolverLimits
from derms.service import plugins
from derms.service.app import Service, Surroundings
from derms.service.cadence import run_on_clock
from derms.service.cli import show, status_line
from derms.service.clock import LoopClock
from derms.service.config import load_site
from derms.service.paced import PacedLoop
from derms.service.simulated import SimulatedLoop, run_simulated
from hil.cli import write_files
from hil.faults import FaultPlan, apply_faults, parse_fault
from hil.report import write_report
from hil.tap import Violation
from hil.truth import Truth
from hil.world import World

FEEDER = "ieee123"
DAY = (2026, 4, 15)
"""A spring weekday."""
ZONE = ZoneInfo("America/Los_Angeles")
QUARTER_S = 900.0
RAMP_STEPS = 12
"""Quarter hours over which the three-hour ramp is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the demo was asked for."""

    hours: float
    speed: float
    fast: bool
    headless: bool
    seed: int
    start: datetime
    json: Path | None
    report: Path
    faults: tuple[FaultPlan, ...]


@dataclass(slots=True)
class Run:
    """What a managed day leaves behind."""

    service: Service
    truth: Truth
    tap_violations: list[Violation]
    trace_hash: str | None
    planned_w: list[tuple[float, float]] = field(default_factory=list)
    """Hours since the start, and the net load that the plan expected next [W]."""


def main(argv: Sequence[str]) -> int:
    """Run the demo; returns the exit status."""
    options = parse(argv)
    began_s = time.monotonic()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        bare = pool.submit(unmanaged_day, options.seed, options.start, options.hours)
        print(f"derms demo: {options.hours:g} h from {options.start:%A %H:%M}, seed {options.seed}", flush=True)
        managed = managed_day(options)
        print("comparing with the same day without control ...", flush=True)
        without = bare.result()
    summary = summarize(managed, without, options, wall_s=time.monotonic() - began_s)
    path = write_report(options.report, managed, without, summary, start=options.start)
    _print_summary(summary)
    print(f"report: {path}")
    text = json.dumps(summary)
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf8")
    print(text)
    return 0


def parse(argv: Sequence[str]) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="derms demo", description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--hours", type=float, default=24.0, help="simulated hours (default 24)")
    parser.add_argument("--speed", type=float, default=60.0, help="simulated seconds per real second (default 60)")
    parser.add_argument("--fast", action="store_true", help="virtual time and an in-memory network")
    parser.add_argument("--headless", action="store_true", help="a line per simulated half hour, no live line")
    parser.add_argument("--seed", type=int, default=1, help="fixes weather, customers and noise (default 1)")
    parser.add_argument(
        "--start", metavar="HH:MM", help="local time (default 00:00; 16:00 when --hours is less than a day)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there")
    parser.add_argument("--report", type=Path, default=Path("runs/demo"), metavar="DIR", help="report and records")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        type=parse_fault,
        metavar="DEVICE=KIND@S+S",
        help="let a device fail: kind stop, refuse, garbage, hang or freeze, after so many s, for so many s",
    )
    given = parser.parse_args(list(argv))
    if not 0.05 <= given.hours <= 168.0 or not 0.1 <= given.speed <= 10_000.0:
        parser.error("--hours must be from 0.05 to 168, --speed from 0.1 to 10000")
    clock = given.start or ("00:00" if given.hours >= 24.0 else "16:00")
    try:
        at = datetime.strptime(clock, "%H:%M").time()  # noqa: DTZ007 - a time of day
    except ValueError:
        parser.error(f"--start {clock}: give a local time such as 16:00")
    return Options(
        hours=given.hours,
        speed=given.speed,
        fast=given.fast,
        headless=given.headless,
        seed=given.seed,
        start=datetime(*DAY, at.hour, at.minute, tzinfo=ZONE),
        json=given.json,
        report=given.report,
        faults=tuple(given.fault),
    )


def unmanaged_day(seed: int, start: datetime, hours: float) -> Truth:
    """The same world with nobody in control."""
    world = World(plugins.feeder_source()(FEEDER), seed=seed, start=start, publish=False)
    for _ in range(round(hours * 3600.0 / world.dt_s)):
        world.step()
    return world.truth


def managed_day(options: Options) -> Run:
    """World and service in one process, in virtual time or over TCP."""
    if options.fast:

        async def simulated(loop: SimulatedLoop) -> Run:
            run = await day(options, executor=None, limits=SolverLimits())
            run.trace_hash = loop.network.trace_hash
            return run

        return run_simulated(simulated, seed=options.seed)
    with (
        ThreadPoolExecutor(1, "engine") as executor,
        asyncio.Runner(loop_factory=partial(PacedLoop, options.speed)) as runner,
    ):
        return runner.run(day(options, executor=executor, limits=SolverLimits()))


async def day(options: Options, *, executor: Executor | None, limits: SolverLimits) -> Run:
    """Serve the world, run the service on it for the hours asked for, stop both."""
    loop = asyncio.get_running_loop()
    clock = LoopClock(loop, options.start)
    world = World(plugins.feeder_source()(FEEDER), seed=options.seed, start=options.start)
    ports = await world.serve()
    shutil.rmtree(options.report / "site", ignore_errors=True)
    path = write_files(world, "127.0.0.1", ports, options.report / "site", mode="auto")
    site = load_site(path, drivers=plugins.drivers().keys(), feeder=plugins.feeder_source())
    around = Surroundings(
        clock=clock,
        runner=lambda jobs: run_on_clock(jobs, clock),
        chance=random.Random(options.seed),
        executor=executor,
        limits=limits,
    )
    service = Service(site, around, drivers=plugins.drivers(), on_event=_shown(options))
    run = Run(service, world.truth, world.tap.violations, None)
    stop = asyncio.Event()
    world_task = asyncio.ensure_future(world.run(clock))
    helpers = [
        asyncio.ensure_future(_watch(run, options, clock)),
        asyncio.ensure_future(apply_faults(world, options.faults)),
    ]
    serving = asyncio.ensure_future(service.run(stop))
    await asyncio.wait([serving, world_task], timeout=options.hours * 3600.0, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    await serving
    for task in (world_task, *helpers):
        task.cancel()
    await asyncio.gather(world_task, *helpers, return_exceptions=True)
    world.close()
    return run


def _shown(options: Options) -> Callable[[Event], None]:
    def on_event(event: Event) -> None:
        if not options.headless:
            sys.stdout.write("\r\x1b[K")
        show(event)

    return on_event


async def _watch(run: Run, options: Options, clock: LoopClock) -> None:
    """Follow the plan for the report, and show progress: a live line, or one line per simulated half hour."""
    start_s = clock.monotonic_s()
    seen = 0
    every_s = 60.0
    while True:
        await asyncio.sleep(every_s)
        hours = (clock.monotonic_s() - start_s) / 3600.0
        decision = run.service.brain.decision
        if decision is not None and decision.plan.id != seen:
            seen = decision.plan.id
            run.planned_w.append((hours, float(decision.plan.net_load_w[0])))
        if not options.headless:
            ramp = f", ramp {_ramp_now_w(run.truth) / 1e3:+5.0f} kW in 3 h"
            sys.stdout.write("\r\x1b[K" + status_line(run.service) + ramp)
            sys.stdout.flush()
        elif round(hours * 60.0) % 30 == 0:
            print(f"{100.0 * hours / options.hours:3.0f} %  {status_line(run.service)}", flush=True)


def _ramp_now_w(truth: Truth) -> float:
    means = truth.head_mean_w()
    return float(means[-1] - means[max(0, len(means) - 1 - RAMP_STEPS)]) if len(means) else 0.0


def ramp_3h_w(means_w: FloatArray) -> float | None:
    """Steepest rise of quarter-hour means over three hours [W]; None for a run of less."""
    if len(means_w) <= RAMP_STEPS:
        return None
    return float((means_w[RAMP_STEPS:] - means_w[:-RAMP_STEPS]).max())


def summarize(run: Run, without: Truth, options: Options, *, wall_s: float) -> dict[str, object]:
    """The figures of a run, by the names that the JSON file uses."""
    with_w, without_w = run.truth.head_mean_w(QUARTER_S), without.head_mean_w(QUARTER_S)
    gateway, brain = run.service.gateway, run.service.brain
    polls, writes = gateway.poller.counts, gateway.reconciler.counts
    return {
        "simulated_hours": run.truth.steps * run.truth.dt_s / 3600.0,
        "wall_s": round(wall_s, 2),
        "devices": len(run.service.site.fleet),
        "polls": polls.polls,
        "polls_failed": polls.failed,
        "writes": writes.writes,
        "writes_verified": writes.verified,
        "writes_failed": writes.failed,
        "plans": brain.plans,
        "plans_fallback": brain.plans_fallback,
        "limit_violations": len(run.tap_violations),
        "peak_kw_without": _kw(without_w.max() if len(without_w) else None),
        "peak_kw_with": _kw(with_w.max() if len(with_w) else None),
        "ramp_3h_kw_without": _kw(ramp_3h_w(without_w)),
        "ramp_3h_kw_with": _kw(ramp_3h_w(with_w)),
        "voltage_violation_node_min_without": without.voltage_violation_node_min,
        "voltage_violation_node_min_with": run.truth.voltage_violation_node_min,
        "trace_hash": run.trace_hash,
        "seed": options.seed,
        "outcomes": dict(sorted(writes.outcomes.items())),
        "alarms": sum(event.severity == "alarm" for event in run.service.events),
    }


def _kw(power_w: float | None) -> float | None:
    """Rounded kW; None where a run was too short to tell."""
    return None if power_w is None else round(float(power_w) / 1e3, 2)


def _print_summary(summary: dict[str, object]) -> None:
    rows = (
        ("simulated", "{simulated_hours:.2f} h in {wall_s:.0f} s"),
        ("polls", "{polls} ({polls_failed} failed) of {devices} devices"),
        ("commands", "{writes} written, {writes_verified} seen to take effect, {writes_failed} failed"),
        ("plans", "{plans} ({plans_fallback} from below the optimizer)"),
        ("setpoints beyond limits", "{limit_violations}"),
        ("peak [kW]", "{peak_kw_without} without control, {peak_kw_with} with"),
        ("three-hour ramp [kW]", "{ramp_3h_kw_without} without control, {ramp_3h_kw_with} with"),
        (
            "voltage violations",
            "{voltage_violation_node_min_without} node-minutes without, {voltage_violation_node_min_with} with",
        ),
    )
    print()
    for name, text in rows:
        print(f"{name:>24}  {text.format(**summary)}")
