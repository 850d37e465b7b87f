"""The `derms` command.

What a command needs is imported when it is run: the command answers at once, and Ctrl-C ends it quietly even while
libraries load.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from derms.domain.mode import Mode
from derms.errors import ConfigError, DermsError, Problem
from derms.service import order_commands, plugins
from derms.service.clock import utc_now
from derms.service.exit_status import FAILED, INTERRUPTED, OK, WRONG_INPUT

if TYPE_CHECKING:
    from derms.service.config import Site

ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
NAME_SHOWN = 120
"""Characters of a file name that a message shows."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 fine, 1 failed, 2 wrong input, 130 ended by Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for name in ONE_THREAD:  # read when the libraries load: small matrices are faster in one thread
        os.environ.setdefault(name, "1")
    try:
        status = _command(arguments)
        sys.stdout.flush()
        return status
    except DermsError as error:
        print(f"derms: stopped: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:  # whoever read our output has left; what is still buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        print("derms: interrupted", file=sys.stderr)
        return INTERRUPTED


def _command(arguments: Sequence[str]) -> int:
    """Run what has a parser of its own, or parse and run the others."""
    match arguments[:1]:
        case ["demo"]:
            with _loading():
                demo = plugins.demo()
            return demo(arguments[1:])
        case ["device"]:
            return _device(arguments[1:])
        case ["feeder"]:
            return _feeder(arguments[1:])
        case ["stop"]:
            return _stop(arguments)
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


@contextmanager
def _loading() -> Iterator[None]:
    """While libraries load, Ctrl-C ends the process at once: nothing has been started, and nobody needs a traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="derms", description="Control room for distributed energy resources.")
    parser.add_argument("--version", action="version", version=f"derms {version('derms')}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run, text in (
        ("run", _run, "run the service against the devices that a site file names"),
        ("check", _check, "check a site file and everything it names"),
    ):
        command = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        command.add_argument("-c", "--config", type=Path, required=True, metavar="SITE.TOML", help="the site file")
        command.add_argument("--json", action="store_true", help="print for programs: one JSON object")
        command.set_defaults(run=run)
    for name, text in (
        ("gateway", "run the gateway alone: devices, guards, journal; what `derms run` starts first"),
        ("brain", "run the brain alone: estimate, forecast, plans, records; beside a gateway"),
        ("web", "run the web process alone: a health endpoint; beside a gateway"),
    ):
        command = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        command.add_argument("-c", "--config", type=Path, required=True, metavar="SITE.TOML", help="the site file")
        command.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
        command.set_defaults(run=_part)
    for name, run, text in (
        ("explain", _explain, "say why a decision is as it is: inputs, limits and prices, what if they were wider"),
        ("replay", _replay, "make a decision again from its record, and compare every number to the last bit"),
    ):
        command = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        what = "a plan's number, last, or a time such as 2026-04-15T14:05"
        command.add_argument("decision", metavar="DECISION", help=what)
        command.add_argument("-c", "--config", type=Path, required=True, metavar="SITE.TOML", help="the site file")
        command.add_argument("--json", action="store_true", help="print for programs: one JSON object")
        if name == "explain":
            command.add_argument("--der", metavar="ID", help="also say why this device does what it does")
        command.set_defaults(run=run)
    order_commands.add_commands(commands)
    commands.add_parser("stop", help="stop devices and release stops: release, freeze, stop export or charging, cease")
    _add_fleet(commands.add_parser("fleet", help="the fleet file: import another one into it"))
    commands.add_parser("device", help="look at one device, and test whether it keeps to SunSpec")
    commands.add_parser("feeder", help="check a feeder package, import a circuit, draw the one-line")
    commands.add_parser("demo", help="run a simulated world and the service on it, with a report at the end")
    return parser


def _add_fleet(fleet: argparse.ArgumentParser) -> None:
    actions = fleet.add_subparsers(dest="action", required=True)
    text = "Put a new fleet file in the place of the one in use, after showing what changes; the old one is kept."
    action = actions.add_parser("import", help="put a new fleet file in the place of the old one", description=text)
    action.add_argument("new", type=Path, metavar="NEW.CSV", help="the new fleet file, whole")
    action.add_argument("--into", type=Path, required=True, metavar="FLEET.CSV", help="the fleet file in use")
    action.add_argument("--feeder", metavar="ID", help="also check buses and bindings against this feeder")
    action.add_argument("--dry-run", action="store_true", help="only show what would change")
    action.add_argument("--probe", action="store_true", help="ask each new device for its serial number and nameplate")
    action.add_argument("--json", action="store_true", help="print for programs: one JSON object")
    action.set_defaults(run=_import)


def _rows(problems: Sequence[Problem]) -> list[dict[str, str]]:
    """Problems for programs."""
    return [{"file": p.file, "where": p.where, "wrong": p.wrong, "right": p.right} for p in problems]


def _refuse(error: ConfigError, *, as_json: bool, so: str = "nothing was started") -> int:
    """Tell every mistake, and what comes of them."""
    if as_json:
        print(json.dumps({"ok": False, "problems": _rows(error.problems)}))
    else:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        count = len(error.problems)
        print(f"{count} {'mistake' if count == 1 else 'mistakes'}; {so}", file=sys.stderr)
    return WRONG_INPUT


def _load(path: Path) -> "Site":
    """The site that a file describes; raises ConfigError with every mistake."""
    with _loading():
        from derms.service.config import broken_drivers, load_site
        from derms.service.inspection import find_newer_records

        kit, feeder = plugins.drivers(), plugins.feeder_source()
    try:
        site = load_site(path, drivers=kit.names, feeder=feeder, broken=broken_drivers(kit))
    except OSError as error:
        raise _unreadable(path, error) from error
    find_newer_records(site.storage)
    return site


def _unreadable(file: Path, error: OSError) -> ConfigError:
    """A name that the system cannot even look at: too long, or in a folder that this user may not enter."""
    name = str(error.filename or "a name in it")
    shown = name if len(name) <= NAME_SHOWN else f"{name[:NAME_SHOWN]}..."
    wrong = f"'{shown}' cannot be looked at ({error.strerror})"
    return ConfigError([Problem(str(file), "file", wrong, "name a file or folder that this user may read")])


def _unusable() -> list[Problem]:
    """The mistakes of all drivers that cannot be had, whether the site uses them or not."""
    from derms.service.config import broken_drivers

    return [problem for problems in broken_drivers(plugins.drivers()).values() for problem in problems]


def _check(options: argparse.Namespace) -> int:
    try:
        site = _load(options.config)
    except ConfigError as error:
        told = set(error.problems)
        every = error.problems + [problem for problem in _unusable() if problem not in told]
        return _refuse(ConfigError(every), as_json=options.json, so="the site cannot be used as it is")
    from derms.service.inspection import link_costs

    unusable = _unusable()
    costs = link_costs(site.fleet, site.field)
    if options.json:
        classes = [
            {"class": cost.name, "devices": cost.devices, "bytes_per_month": round(cost.bytes)} for cost in costs
        ]
        found = {
            "ok": True,
            "problems": _rows(unusable),
            "devices": len(site.fleet),
            "mode": site.mode,
            "polling": classes,
            "notes": site.notes,
        }
        print(json.dumps(found))
    else:
        name = f"{site.name}, feeder {site.package.id}"
        print(f"{options.config}: good: {name}, {len(site.fleet)} devices, mode {site.mode}")
        for cost in costs:
            print(f"  {cost}")
        for note in site.notes:
            print(f"  {note}")
        for problem in unusable:
            print(f"not used by this site: {problem}", file=sys.stderr)
    return OK


def _explain(options: argparse.Namespace) -> int:
    try:
        site = _load(options.config)
        with _loading():
            from derms.service import explain
        decided, outcomes = explain.find(site.storage, options.decision, site.timezone, der=options.der, now=utc_now())
    except ConfigError as error:
        return _refuse(error, as_json=options.json, so="nothing was explained")
    price = site.plan.peak_price
    found = explain.explained(decided, outcomes, site.timezone, peak_price=price, der=options.der)
    print(explain.as_json(found) if options.json else explain.as_text(found, decided, site.timezone))
    return OK


def _replay(options: argparse.Namespace) -> int:
    try:
        site = _load(options.config)
        with _loading():
            from derms.service import explain, replay
        decided, _ = explain.find(site.storage, options.decision, site.timezone, now=utc_now())
    except ConfigError as error:
        return _refuse(error, as_json=options.json, so="nothing was replayed")
    result = replay.replayed(decided)
    print(replay.as_json(result) if options.json else replay.as_text(result))
    return OK if result.same else FAILED


def _import(options: argparse.Namespace) -> int:
    with _loading():
        from derms.service.clock import SystemClock
        from derms.service.fleet_import import import_fleet

        kit, feeder = plugins.drivers(), plugins.feeder_source()

    async def work() -> int:
        clock = SystemClock(asyncio.get_running_loop())
        return await import_fleet(options, kit, feeder, clock, random.Random())

    try:
        return asyncio.run(work())
    except ConfigError as error:
        return _refuse(error, as_json=options.json, so="nothing was written")
    except BrokenPipeError:
        raise
    except OSError as error:
        return _refuse(_unreadable(options.into, error), as_json=options.json, so="nothing was written")


def _feeder(arguments: Sequence[str]) -> int:
    with _loading():
        from derms.service import feeder_command
    try:
        return feeder_command.run(arguments)
    except ConfigError as error:
        so = f"nothing was {'written' if arguments[:1] == ['import'] else 'loaded'}"
        return _refuse(error, as_json="--json" in arguments, so=so)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _refuse(_unreadable(Path(arguments[-1]), error), as_json="--json" in arguments, so="nothing was written")


def _stop(arguments: Sequence[str]) -> int:
    with _loading():
        from derms.service import stop_command
    parser = argparse.ArgumentParser(prog="derms")
    stop_command.add_command(parser.add_subparsers(dest="command", required=True))
    options = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


def _device(arguments: Sequence[str]) -> int:
    with _loading():
        from derms.service.clock import SystemClock

        command = plugins.device()
    work = command(arguments)

    async def timed() -> int:
        return await work(SystemClock(asyncio.get_running_loop()), random.Random())

    return asyncio.run(timed())


def _run(options: argparse.Namespace) -> int:
    """Run the service until SIGINT or SIGTERM: each part in a process of its own."""
    try:
        site = _load(options.config)
    except ConfigError as error:
        return _refuse(error, as_json=options.json)
    with _loading():
        from derms.service.processes import Processes
        from derms.service.serving import STOP_S
        from derms.service.words import say

    async def work() -> int:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        greeting = f"{site.name}: {len(site.fleet)} devices, mode {site.mode}; Ctrl-C ends"
        processes = Processes(lambda name: _words(name, options.config), stop_s=STOP_S)
        return await processes.run(stop, greeting)

    status = asyncio.run(work())
    if status == OK:
        say("stopped" + ("; every device that was commanded has been handed back" if site.mode is Mode.AUTO else ""))
    return status


def _words(name: str, config: Path) -> Sequence[str]:
    """What starts one process of the service."""
    return (sys.executable, "-X", "faulthandler", "-m", "derms", name, "-c", str(config), "--supervised")


def _part(options: argparse.Namespace) -> int:
    """Run one process of the service until SIGINT or SIGTERM."""
    try:
        site = _load(options.config)
    except ConfigError as error:
        return _refuse(error, as_json=False)
    with _loading():
        from derms.service import serving
    try:
        return serving.run(options.command, site, random.Random(), supervised=options.supervised)
    except OSError as error:
        print(f"derms: {error.filename or site.storage}: {error.strerror}", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
