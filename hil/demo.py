"""`derms demo`: a simulated world and the service on it, in one process, and what came of it.

By default over real TCP on loopback at 60 times real time; with `--fast` in virtual time on an in-memory network.
The day without control is the same world with the same seed, stepped in a process of its own.
"""

import argparse
import asyncio
import json
import math
import multiprocessing
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

from derms.domain.alarm import Event
from derms.domain.quality import Quality
from derms.errors import DermsError
from derms.service import plugins
from derms.service.app import Service
from derms.service.cadence import run_on_clock
from derms.service.clock import LoopClock
from derms.service.config import load_site
from derms.service.exit_status import FAILED, INTERRUPTED, OK, WRONG_INPUT
from derms.service.paced import PacedLoop
from derms.service.simulated import SimulatedLoop, run_simulated
from derms.service.surroundings import Surroundings
from derms.service.words import event_line, status_line
from hil.arguments import number, whole
from hil.cli import write_files
from hil.faults import FaultPlan, apply_faults, find_mistake, parse_fault
from hil.report import write_report
from hil.summary import Run, summarize, words
from hil.truth import Truth
from hil.world import World

FEEDER = "ieee123"
DAY = (2026, 4, 15)
"""A spring weekday."""
ZONE = ZoneInfo("America/Los_Angeles")
MINUTE_S = 60.0
"""Exit status after Ctrl-C, as shells have it."""


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


def main(argv: Sequence[str]) -> int:
    """Run the demo; returns the exit status: 0 fine, 1 failed, 2 wrong input, 130 no report after Ctrl-C."""
    options = parse(argv)
    try:
        options.report.mkdir(parents=True, exist_ok=True)
        if options.json is not None:
            options.json.open("a").close()
        return _run(options)
    except OSError as error:
        print(f"derms demo: {error.filename or 'system'}: {error.strerror}", file=sys.stderr)
        return WRONG_INPUT
    except DermsError as error:
        print(f"derms demo: stopped: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(options: Options) -> int:
    """Both days, the report and the summary."""
    began_s = time.monotonic()
    print(f"derms demo: {options.hours:g} h from {options.start:%A %H:%M}, seed {options.seed}", flush=True)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with _on_ctrl_c(signal.SIG_IGN):  # which the process inherits: Ctrl-C is for this one alone
            bare = pool.submit(unmanaged_day, options.seed, options.start, options.hours)
        managed = managed_day(options)
        print("comparing with the same day without control ...", flush=True)
        without = bare.result().first(managed.truth.steps)
    summary = summarize(managed, without, seed=options.seed, wall_s=time.monotonic() - began_s)
    path = write_report(options.report, managed, without, summary, start=options.start)
    print(f"\n{words(summary)}\n\nreport: {path}")
    text = json.dumps(summary)
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf8")
    print(text)
    return OK


def parse(argv: Sequence[str]) -> Options:
    """Read the command line; ends the program with a sentence when it cannot be followed."""
    parser = _parser()
    given = parser.parse_args(list(argv))
    clock = given.start or ("00:00" if given.hours >= 24.0 else "16:00")
    try:
        at = datetime.strptime(clock, "%H:%M").time()  # noqa: DTZ007 - a time of day
    except ValueError:
        parser.error(f"argument --start: '{clock}': give a local time such as 16:00")
    if given.fault:
        package = plugins.feeder_source()(FEEDER)
        devices = [der.id for der in package.ders] + [meter.id for meter in package.meters]
        if mistake := find_mistake(given.fault, devices, given.hours * 3600.0):
            parser.error(f"argument --fault: {mistake}")
    return Options(
        hours=given.hours,
        speed=given.speed,
        fast=given.fast,
        headless=given.headless or not sys.stdout.isatty(),
        seed=given.seed,
        start=datetime(*DAY, at.hour, at.minute, tzinfo=ZONE),
        json=given.json,
        report=given.report,
        faults=tuple(given.fault),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="derms demo",
        description="A simulated feeder and the control room on it. Ctrl-C ends it early, with the report of what was.",
    )
    parser.add_argument(
        "--hours", type=number(0.05, 168.0), default=24.0, metavar="H", help="simulated hours (default 24)"
    )
    parser.add_argument(
        "--speed",
        type=number(0.1, 10_000.0),
        default=60.0,
        metavar="X",
        help="simulated seconds per real second, at most (default 60)",
    )
    parser.add_argument("--fast", action="store_true", help="virtual time and an in-memory network")
    parser.add_argument("--headless", action="store_true", help="lines of progress instead of a live line")
    parser.add_argument(
        "--seed", type=whole(0, 2**32), default=1, metavar="N", help="fixes weather, customers and noise (default 1)"
    )
    parser.add_argument(
        "--start", metavar="HH:MM", help="local time (default 00:00; 16:00 when --hours is less than a day)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there")
    parser.add_argument(
        "--report", type=Path, default=Path("runs/demo"), metavar="DIR", help="report and records (default runs/demo)"
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        type=parse_fault,
        metavar="DEVICE=KIND@START+LENGTH",
        help="let a device fail after START s for LENGTH s, as stop, hang, freeze, garbage, delay:2.5 and so on; "
        "may be repeated, a wrong kind gets the list of all",
    )
    return parser


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
            run = await day(options, executor=None)
            run.trace_hash = loop.network.trace_hash
            return run

        return run_simulated(simulated, seed=options.seed)
    with (
        ThreadPoolExecutor(1, "engine") as executor,
        asyncio.Runner(loop_factory=partial(PacedLoop, options.speed)) as runner,
    ):
        return runner.run(day(options, executor=executor))


async def day(options: Options, *, executor: Executor | None) -> Run:
    """Serve the world, run the service on it for the hours asked for, stop both."""
    loop = asyncio.get_running_loop()
    clock = LoopClock(loop, options.start)
    world = World(plugins.feeder_source()(FEEDER), seed=options.seed, start=options.start)
    ports = await world.serve()
    shutil.rmtree(options.report / "demo-site", ignore_errors=True)
    path = write_files(world, "127.0.0.1", ports, options.report / "demo-site", mode="auto")
    site = load_site(path, drivers=plugins.drivers().names, feeder=plugins.feeder_source())
    around = Surroundings(
        clock=clock,
        runner=lambda jobs: run_on_clock(jobs, clock),
        chance=random.Random(options.seed),
        executor=executor,
    )
    service = Service(site, around, drivers=plugins.drivers(), on_event=_shown(options))
    run = Run(service, world.truth, world.tap.violations, None)
    stop = asyncio.Event()
    serving, moving, watching, failing = (
        asyncio.ensure_future(work)
        for work in (
            service.run(stop),
            world.run(clock),
            _watch(run, options, clock),
            apply_faults(world, options.faults),
        )
    )
    # Ctrl-C ends the run early instead of tearing it down. A plain handler and not the loop's: simulated time has no
    # signals, and both loops turn too often to miss it.
    with _on_ctrl_c(lambda *_: stop.set()):
        first = asyncio.FIRST_COMPLETED
        await asyncio.wait([serving, moving, watching], timeout=options.hours * 3600.0, return_when=first)
        stop.set()
        await serving
    for task in (moving, watching, failing):
        task.cancel()
    for result in await asyncio.gather(moving, watching, failing, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    world.close()
    return run


@contextmanager
def _on_ctrl_c(handler: signal.Handlers | Callable[..., None]) -> Iterator[None]:
    """Have Ctrl-C handled in this way for a while."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _shown(options: Options) -> Callable[[Event], None]:
    def on_event(event: Event) -> None:
        if not options.headless:
            sys.stdout.write(CLEAR)
        print(event_line(event, ZONE), flush=True)

    return on_event


CLEAR = "\r\x1b[K"
"""Takes the live line away."""


async def _watch(run: Run, options: Options, clock: LoopClock) -> None:
    """Follow the plan for the report, and show progress: a live line, or one line per half hour or tenth of the run."""
    start_s, minute, seen = clock.monotonic_s(), 0, 0
    line_min = min(30, max(1, round(options.hours * 6.0)))
    try:
        while True:
            minute += 1
            await asyncio.sleep(max(0.0, start_s + minute * MINUTE_S - clock.monotonic_s()))
            decision = run.service.brain.decision
            if decision is not None and decision.plan.id != seen:
                plan = decision.plan
                seen = plan.id
                middle = plan.start + timedelta(hours=float(plan.hours[0]) / 2.0)
                run.planned_w.append(((middle - options.start) / timedelta(hours=1), float(plan.net_load_w[0])))
            part = minute * MINUTE_S / (options.hours * 3600.0)
            if not options.headless:
                line = live_line(run, part, clock.utc().astimezone(ZONE))
                sys.stdout.write(CLEAR + line[: shutil.get_terminal_size().columns - 1])
                sys.stdout.flush()
            elif minute % line_min == 0:
                print(f"{part:4.0%}  {status_line(run.service.brain, run.service.mind.alarms, ZONE)}", flush=True)
    finally:
        if not options.headless:
            sys.stdout.write(CLEAR)


def live_line(run: Run, part: float, now: datetime) -> str:
    """Progress, local time, net load, plan, ramp, devices and alarms, in less than 80 columns."""
    service, snapshot = run.service, run.service.gateway.snapshot()
    decision = service.brain.decision
    plan = f"{decision.plan.net_load_w[0] / 1e3:4.0f}" if decision is not None else "   -"
    load = f"{service.brain.net_load_w / 1e3:4.0f}" if math.isfinite(service.brain.net_load_w) else "   -"
    good = int((snapshot.quality == Quality.GOOD).sum())
    return (
        f"{part:4.0%} {now:%H:%M}  load {load}  plan {plan} kW  "
        f"ramp {_ramp_kw_per_h(run.truth)} kW/h  devices {good}/{len(snapshot.quality)}  alarms {service.alarms}"
    )


def _ramp_kw_per_h(truth: Truth) -> str:
    """Change of quarter-hour means over the last hour, or what there is of it."""
    means_w = truth.head_mean_w()[-5:]
    hours = 0.25 * (len(means_w) - 1)
    return f"{(means_w[-1] - means_w[0]) / hours / 1e3:+5.0f}" if hours > 0.0 else "    -"
