"""`derms-hil`: the simulated world alone, or one reference device, in real time for any Modbus client."""

import argparse
import asyncio
import errno
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from derms.domain.grid import FeederPackage
from derms.ports import Clock
from derms.service.clock import SystemClock
from feeders.catalog import load
from hil.arguments import number, whole
from hil.faults import parse_kind
from hil.files import write_fleet, write_history, write_site
from hil.framing import Rtu
from hil.load import TIMEZONE
from hil.server import Endpoint, listening
from hil.specimen import MODELS, Manner, ReadOnly, Reverts, Specimen
from hil.world import PLACE_DEG, World

FEEDER = "ieee123"
PORT = 15020
PORTS = 65536
TICK_S = 0.2
"""Of a device alone."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 fine, 1 failed, 2 wrong input."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        asyncio.run(_device(options) if options.command == "device" else _fleet(_package(parser, options), options))
    except KeyboardInterrupt:
        print("stopped")
    except OSError as error:
        what = f"write {error.filename}" if error.filename else f"listen on {options.host}, ports from {options.port}"
        hint = "; give another --port, or --port 0 for any" if error.errno == errno.EADDRINUSE else ""
        print(f"derms-hil: cannot {what}: {error.strerror}{hint}", file=sys.stderr)
        return 1
    return 0


def _package(parser: argparse.ArgumentParser, options: argparse.Namespace) -> FeederPackage:
    package = load(FEEDER)
    count = len(package.ders) + len(package.meters)
    if options.port + count > PORTS:
        parser.error(f"argument --port: {count} devices need as many: give at most {PORTS - count}, or 0 for any")
    return package


async def _device(options: argparse.Namespace) -> None:
    """Serve one specimen in real time."""
    clock = SystemClock(asyncio.get_running_loop())
    manner = Manner(reverts=Reverts(options.reverts), read_only=ReadOnly(options.read_only))
    specimen = Specimen(options.models, manner=manner, serial=options.serial)
    framing = Rtu() if options.rtu else None
    endpoint = Endpoint({options.unit: specimen}, rng=np.random.default_rng(options.seed), framing=framing)
    async with listening(endpoint, options.host, options.port) as port:
        if options.fault is not None:
            endpoint.fault(*options.fault)
        models = ", ".join(str(model) for model in specimen.models)
        carried = "RTU frames over TCP" if options.rtu else "Modbus TCP"
        print(f"a device of class {options.reverts} on {options.host}:{port}, unit {options.unit}, {carried}")
        print(f"base address {specimen.base}, models {models}\nCtrl-C stops", flush=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(options.hours * 3600.0 if options.hours else None):
                await live([specimen], clock, TICK_S)


async def live(specimens: Sequence[Specimen], clock: Clock, dt_s: float) -> None:
    """Let the clock's time pass for specimens, until cancelled."""
    before_s = clock.monotonic_s()
    while True:
        await asyncio.sleep(dt_s)
        now_s = clock.monotonic_s()
        for specimen in specimens:
            specimen.tick(now_s - before_s)
        before_s = now_s


async def _fleet(package: FeederPackage, options: argparse.Namespace) -> None:
    clock = SystemClock(asyncio.get_running_loop())
    world = World(package, seed=options.seed, start=clock.utc(), dt_s=options.dt)
    ports = await world.serve(options.host, options.port)
    try:
        site = write_files(world, options.host, ports, options.out)
        print(_guide(world, options.host, ports, site), flush=True)
        async with asyncio.timeout(options.hours * 3600.0 if options.hours else None):
            await world.run(clock)
    except TimeoutError:
        print(f"{options.hours:g} hours are over")
    finally:
        world.close()


def write_files(world: World, host: str, ports: Sequence[int], folder: Path, *, mode: str = "observe") -> Path:
    """Write everything the control room needs for this world; returns the site file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_fleet(folder / "fleet.csv", world.fleet(host, ports))
    write_history(folder / "history.csv", *world.history())
    site = folder / "site.toml"
    system = next(meter.id for meter in world.package.meters if meter.kind == "system-meter")
    write_site(site, feeder=world.package.id, mode=mode, place_deg=PLACE_DEG, timezone=TIMEZONE.key, net_load=system)
    return site


def _guide(world: World, host: str, ports: Sequence[int], site: Path) -> str:
    return "\n".join(
        (
            f"{len(ports)} devices of {world.package.id} on {host}, ports {ports[0]} to {ports[-1]}",
            f"any SunSpec client: {next(iter(world.servers))} is at {host}:{ports[0]}, unit 1, base address 40000",
            f"the control room:   derms run -c {site}",
            "Ctrl-C stops",
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="derms-hil", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    fleet = commands.add_parser("fleet", help="run the simulated fleet until Ctrl-C")
    fleet.add_argument("--host", default="127.0.0.1")
    help_port = "of the first device, %(default)s when not given; the others follow"
    fleet.add_argument("--port", type=whole(0, PORTS - 1), default=PORT, help=help_port)
    fleet.add_argument("--seed", type=whole(0, 2**32), default=1)
    fleet.add_argument("--hours", type=number(0.0, 1e6), default=0.0, help="stop after this time; 0 runs until Ctrl-C")
    fleet.add_argument("--dt", type=number(0.1, 60.0), default=1.0, metavar="S", help="length of a physics step")
    fleet.add_argument("--out", type=Path, default=Path("hil-site"), metavar="DIR", help="for the files")
    _add_device(commands.add_parser("device", help="run one reference device until Ctrl-C"))
    return parser


def _add_device(device: argparse.ArgumentParser) -> None:
    device.add_argument("--host", default="127.0.0.1")
    device.add_argument("--port", type=whole(0, PORTS - 1), default=PORT, help="%(default)s when not given; 0 for any")
    device.add_argument("--unit", type=whole(1, 247), default=1)
    device.add_argument("--rtu", action="store_true", help="RTU frames over TCP instead of Modbus TCP")
    device.add_argument("--models", type=_models, default=MODELS, metavar="1,701,...", help="default: all there are")
    device.add_argument("--serial", default="SIM-SPECIMEN", help="serial number of the common model")
    device.add_argument(
        "--class",
        dest="reverts",
        choices=[kind.value for kind in Reverts],
        default=Reverts.BY_TIMER.value,
        help="lets go of setpoints by its timers (A), without a heartbeat (B), or never (C)",
    )
    device.add_argument(
        "--read-only",
        choices=[kind.value for kind in ReadOnly],
        default=ReadOnly.REFUSED.value,
        help="what becomes of a write that covers read-only points too",
    )
    device.add_argument("--fault", type=parse_kind, metavar="KIND[:NUMBER]", help="fail in this way from the start")
    device.add_argument("--seed", type=whole(0, 2**32), default=1, help="fixes what garbage it answers")
    device.add_argument("--hours", type=number(0.0, 1e6), default=0.0, help="stop after this time; 0 runs until Ctrl-C")


def _models(text: str) -> tuple[int, ...]:
    """A type for argparse: numbers of models in the order of the chain."""
    numbers = [int(part) if part.strip().isdigit() else -1 for part in text.split(",")]
    models = tuple(dict.fromkeys((1, *numbers)))
    if not set(models) <= set(MODELS):
        raise argparse.ArgumentTypeError(f"'{text}': give some of {', '.join(map(str, MODELS))}")
    return models
