"""Kills gateway and brain of a running control room at random moments, again and again. The last line is JSON.

The fleet is a world in this process, the control room `derms run` with timers scaled down. In each round the brain or
the gateway is killed by SIGKILL at a random moment under load; then the fleet has to be at the plan again, each battery
told by those who live now, within a stated time, or at its default.

kills   rounds
lost    intents in the journal that have no outcome, or more than one, after all of it
twice   writes to devices after a kill before anything was read back of the registers that they changed
late    rounds after which the fleet was not at the plan in time, and devices that held a value longer than their timers
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from derms.field.journal import Conclusion, Intent, read_records
from derms.service.clock import SystemClock
from feeders.catalog import load
from hil.cli import write_files
from hil.world import World
from tests.hurried import HURRIED, REVERSION_S
from tests.kill.fleet import AccountedFleet

START_S = 120.0
"""For the control room to be at work at first."""
STATED_S = 60.0
"""Within which after a kill the fleet is at the plan again: a restart, a plan, two intervals; a busy machine counts."""
PART_MAX_S = 5.0
"""Longest random wait before a kill."""
GRACE_S = 4.0
"""Beyond its reversion time, for a device's value to be gone: the world moves in steps, on a busy machine."""
PARTS = ("gateway", "brain")


@dataclass(slots=True)
class Found:
    """What was seen so far."""

    kills: int = 0
    late: int = 0

    def say(self, text: str) -> None:
        print(f"  {text}", flush=True)


def _children(pid: int) -> Iterator[tuple[int, str]]:
    """Processes that a process has started, with what they are."""
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            yield from ((int(child), name) for name in PARTS if name.encode() in words)


def _pid(run: asyncio.subprocess.Process, name: str) -> int | None:
    return next((pid for pid, what in _children(run.pid) if what == name), None)


@asynccontextmanager
async def control_room(site: Path, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`derms run` on a site; killed with all its processes if it is still there at the end."""
    with log.open("wb") as out:
        run = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "derms", "run", "-c", str(site)), stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield run
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        await run.wait()


async def _until(happened: Callable[[], bool], within_s: float) -> bool:
    """Whether it happens in time."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + within_s
    while not happened():
        if loop.time() > end_s:
            return False
        await asyncio.sleep(0.1)
    return True


class Killing:
    """A fleet, the control room on it, and who kills its parts."""

    def __init__(self, fleet: AccountedFleet, run: asyncio.subprocess.Process, chance: random.Random) -> None:
        self._fleet = fleet
        self._run = run
        self._chance = chance
        self._batteries = {der.id for der in fleet.world.package.ders if der.kind == "battery"}
        self.found = Found()

    def at_plan_since(self, since_s: float) -> bool:
        """Whether every battery holds a value that it was given, or that was refreshed, after a time."""
        holding = self._fleet.holding()
        return all(holding.get(battery, -1.0) > since_s for battery in self._batteries)

    async def watch_timers(self) -> None:
        """Until cancelled: no device holds a value for longer than its timer that nobody has refreshed."""
        loop, told = asyncio.get_running_loop(), set[tuple[str, float]]()
        while True:
            await asyncio.sleep(0.5)
            for device, wrote_s in self._fleet.holding().items():
                if loop.time() - wrote_s > REVERSION_S + GRACE_S and (device, wrote_s) not in told:
                    told.add((device, wrote_s))
                    self.found.late += 1
                    self.found.say(f"{device} holds a value that nobody has refreshed for {REVERSION_S + GRACE_S:g} s")

    async def round(self) -> None:
        """One kill, and the way back to the plan."""
        loop, found = asyncio.get_running_loop(), self.found
        await asyncio.sleep(self._chance.uniform(0.0, PART_MAX_S))
        part = self._chance.choice(PARTS)
        pid = _pid(self._run, part)
        while pid is None:  # it is about to be started again
            await asyncio.sleep(0.1)
            pid = _pid(self._run, part)
        os.kill(pid, signal.SIGKILL)
        killed_s = loop.time()
        if part == "gateway":
            self._fleet.killed()
        found.kills += 1
        back = await _until(lambda: self.at_plan_since(killed_s), STATED_S)
        found.late += not back
        took = f"at the plan again after {loop.time() - killed_s:.1f} s" if back else f"not back in {STATED_S:g} s"
        found.say(f"{found.kills}: {part} killed, {took}")


def unbalanced(journal: Path) -> int:
    """Intents that have no outcome, or more than one, in a journal and the files before it."""
    files = [*sorted(journal.parent.glob(f"{journal.name}.{'[0-9]' * 8}")), journal]
    records = [record for file in files for record, _, _ in read_records(file.read_bytes())]
    intents = {record.seq for record in records if isinstance(record, Intent)}
    ends = Counter(record.seq for record in records if isinstance(record, Conclusion))
    return sum(ends[seq] != 1 for seq in intents | ends.keys())


async def kill(rounds: int, seed: int, folder: Path) -> dict[str, int]:
    """Make so many rounds; what was found."""
    clock = SystemClock(asyncio.get_running_loop())
    world = World(load("ieee123"), seed=seed, start=clock.utc(), dt_s=1.0)
    fleet = AccountedFleet(world, clock.monotonic_s)
    site = write_files(world, "127.0.0.1", await world.serve(), folder / "world", mode="auto")
    site.write_text(site.read_text() + HURRIED)
    living = asyncio.ensure_future(world.run(clock))
    log = folder / "run.log"
    async with control_room(site, log) as run:
        killing = Killing(fleet, run, random.Random(seed))
        if not await _until(lambda: killing.at_plan_since(0.0), START_S):
            raise SystemExit(f"not at work after {START_S:g} s:\n{log.read_text()}")
        watching = asyncio.ensure_future(killing.watch_timers())
        for _ in range(rounds):
            await killing.round()
        watching.cancel()
        run.send_signal(signal.SIGINT)
        status = await run.wait()
    living.cancel()
    await asyncio.gather(living, watching, return_exceptions=True)
    world.close()
    if status or fleet.holding():
        raise SystemExit(f"status {status}, {len(fleet.holding())} devices not handed back:\n{log.read_text()}")
    found, lost = killing.found, unbalanced(site.parent / "data" / "commands.journal")
    return {"kills": found.kills, "lost": lost, "twice": fleet.blind, "late": found.late}


def main() -> None:
    """Read the command line, kill, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(kill(options.rounds, options.seed, Path(folder)))
    print(json.dumps(found))
    if found["lost"] or found["twice"] or found["late"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
