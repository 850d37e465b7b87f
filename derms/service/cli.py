"""The `derms` command."""

import argparse
import asyncio
import json
import math
import random
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import tzinfo
from functools import partial
from pathlib import Path

import uvloop

from derms.domain.alarm import Event
from derms.domain.mode import Mode
from derms.domain.quality import Quality
from derms.errors import ConfigError, DermsError
from derms.optimize.horizon import SolverLimits
from derms.service import plugins
from derms.service.app import Service, Surroundings
from derms.service.cadence import run_scheduled
from derms.service.clock import SystemClock
from derms.service.config import Site, load_site

PLAN_DEADLINE_S = 20.0
"""Wall-clock limit of one solve in real time."""

OK, FAILED, WRONG_INPUT = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 fine, 1 failed, 2 wrong input."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["demo"]:
        return plugins.demo()(arguments[1:])
    options = _parser().parse_args(arguments)
    try:
        site = load_site(options.config, drivers=plugins.drivers().names, feeder=plugins.feeder_source())
    except ConfigError as error:
        return _refuse(error, as_json=options.json)
    if options.command == "check":
        return _checked(site, options.config, as_json=options.json)
    try:
        return uvloop.run(_run(site))
    except OSError as error:
        print(f"derms: {error.filename or site.storage}: {error.strerror}", file=sys.stderr)
        return FAILED
    except DermsError as error:
        print(f"derms: stopped: {error}", file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="derms", description="Control room for distributed energy resources.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("run", "run the service against the devices that a site file names"),
        ("check", "check a site file and everything it names"),
    ):
        command = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        command.add_argument("-c", "--config", type=Path, required=True, metavar="SITE.TOML", help="the site file")
        command.add_argument("--json", action="store_true", help="print for programs: one JSON object")
    commands.add_parser("demo", help="run a simulated world and the service on it, with a report at the end")
    return parser


def _refuse(error: ConfigError, *, as_json: bool) -> int:
    if as_json:
        rows = [{"file": p.file, "where": p.where, "wrong": p.wrong, "right": p.right} for p in error.problems]
        print(json.dumps({"ok": False, "problems": rows}))
    else:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        count = len(error.problems)
        print(f"{count} {'mistake' if count == 1 else 'mistakes'}; nothing was started", file=sys.stderr)
    return WRONG_INPUT


def _checked(site: Site, path: Path, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"ok": True, "problems": [], "devices": len(site.fleet), "mode": site.mode}))
    else:
        print(f"{path}: good: {site.name}, feeder {site.package.id}, {len(site.fleet)} devices, mode {site.mode}")
    return OK


async def _run(site: Site) -> int:
    """Run the service in real time until SIGINT or SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with ThreadPoolExecutor(1, "engine") as executor:
        around = Surroundings(
            clock=SystemClock(loop),
            runner=run_scheduled,
            chance=random.Random(),
            executor=executor,
            limits=SolverLimits(deadline_s=PLAN_DEADLINE_S),
        )
        service = Service(site, around, drivers=plugins.drivers(), on_event=partial(show, zone=site.timezone))
        print(f"{site.name}: {len(site.fleet)} devices, mode {site.mode}; Ctrl-C ends", flush=True)
        status = asyncio.ensure_future(_status(service))
        await service.run(stop)
        status.cancel()
    if left := service.gateway.reconciler.holding:
        print(f"derms: stopped; not handed back, left to their own timers: {', '.join(left)}", file=sys.stderr)
        return FAILED
    print("stopped" + ("; every device that was commanded has been handed back" if site.mode is Mode.AUTO else ""))
    return OK


def show(event: Event, zone: tzinfo) -> None:
    """One line per event, in local time."""
    print(f"{event.at.astimezone(zone):%Y-%m-%d %H:%M:%S %Z} {event.severity:<7} {event.text}", flush=True)


async def _status(service: Service, every_s: float = 60.0) -> None:
    """A line a minute: net load, plan, devices."""
    while True:
        await asyncio.sleep(every_s)
        print(status_line(service), flush=True)


def status_line(service: Service) -> str:
    """Net load, plan, devices and alarms in one line."""
    brain, snapshot = service.brain, service.gateway.snapshot()
    good = int((snapshot.quality == Quality.GOOD).sum())
    load = f"{brain.net_load_w / 1e3:5.0f} kW" if math.isfinite(brain.net_load_w) else "unknown"
    plan = brain.decision.plan if brain.decision else None
    planned = f"plan {plan.net_load_w[0] / 1e3:5.0f} kW ({plan.source})" if plan else "no plan yet"
    counts = service.gateway.reconciler.counts
    return (
        f"{snapshot.at.astimezone(service.site.timezone):%H:%M} net load {load}, {planned}, "
        f"devices {good}/{len(snapshot.quality)}, writes {counts.writes} ({counts.failed} failed), "
        f"alarms {service.alarms}"
    )


if __name__ == "__main__":
    sys.exit(main())
