"""`derms-hil`: the simulated world alone, in real time, for any Modbus client to talk to."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from derms.domain.grid import FeederPackage
from derms.service.clock import SystemClock
from feeders.catalog import load
from hil.arguments import number, whole
from hil.files import write_fleet, write_history, write_site
from hil.load import TIMEZONE
from hil.world import PLACE_DEG, World

FEEDER = "ieee123"
PORTS = 65536


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 fine, 1 failed, 2 wrong input."""
    parser = _parser()
    options = parser.parse_args(arguments)
    package = load(FEEDER)
    count = len(package.ders) + len(package.meters)
    if options.port + count > PORTS:
        parser.error(f"argument --port: {count} devices need as many: give at most {PORTS - count}, or 0 for any")
    try:
        asyncio.run(_fleet(package, options))
    except KeyboardInterrupt:
        print("stopped")
    except OSError as error:
        what = f"write {error.filename}" if error.filename else f"listen on {options.host}, ports from {options.port}"
        print(f"derms-hil: cannot {what}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


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
    commands = parser.add_subparsers(required=True)
    fleet = commands.add_parser("fleet", help="run the simulated fleet until Ctrl-C")
    fleet.add_argument("--host", default="127.0.0.1")
    fleet.add_argument("--port", type=whole(0, PORTS - 1), default=15020, help="of the first device; the others follow")
    fleet.add_argument("--seed", type=whole(0, 2**32), default=1)
    fleet.add_argument("--hours", type=number(0.0, 1e6), default=0.0, help="stop after this time; 0 runs until Ctrl-C")
    fleet.add_argument("--dt", type=number(0.1, 60.0), default=1.0, metavar="S", help="length of a physics step")
    fleet.add_argument("--out", type=Path, default=Path("hil-site"), metavar="DIR", help="for the files")
    return parser
