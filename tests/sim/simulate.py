"""`make sim`: many seeds of the wire tier side by side, the same seeds twice, and the sweep; last one JSON line."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.sim.invariants import ELSEWHERE, WAITING
from tests.sim.run import HOURS, Result, run_seed

SEEDS = 50
TWICE = 5
"""Seeds that are run again, in a process with another PYTHONHASHSEED."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 when nothing is violated and traces are the same."""
    options = _parser().parse_args(arguments)
    began_s = time.monotonic()
    seeds = range(options.first, options.first + options.seeds)
    results, lines = list[Result](), 0
    with ProcessPoolExecutor(options.processes) as pool:
        for result in _each(pool, seeds, options.hours):
            results.append(result)
            lines += 1
            print(f"[{lines}/{len(seeds)}] {line(result)}", flush=True)
            tell(result)
    again = [result for result in results if result.seed in seeds[: options.twice]]
    stable = _same(again, options.hours)
    for table, words in ((WAITING, "waits for"), (ELSEWHERE, "is checked in")):
        for invariant, what in table.items():
            print(f"{invariant} {words} {what}")
    found = sum(len(result.violations) + result.more for result in results)
    summary = {
        "seeds": len(results),
        "device_hours": round(sum(result.device_s for result in results) / 3600.0, 1),
        "faults": sum(result.faults for result in results),
        "violations": found,
        "trace_stable": stable,
        "commands": sum(result.intents for result in results),
        "cpu_s": round(sum(result.cpu_s for result in results), 1),
        "wall_s": round(time.monotonic() - began_s, 1),
    }
    print(json.dumps(summary))
    return 0 if stable and not found else 1


def line(result: Result) -> str:
    """One run in a line."""
    found = len(result.violations) + result.more
    ended = " ".join(f"{name}:{count}" for name, count in sorted(result.outcomes.items()))
    return (
        f"seed {result.seed}: {result.faults} faults, {result.intents} commands ({ended}), {found} violations, "
        f"trace {result.trace}, {result.cpu_s:.1f} s"
    )


def tell(result: Result) -> None:
    """All that is needed to see a violation again."""
    if result.violations:
        print(result.schedule)
    for violation in result.violations:
        print(violation, flush=True)


def _each(pool: ProcessPoolExecutor, seeds: Iterable[int], hours: float) -> Iterable[Result]:
    waiting = [pool.submit(run_seed, seed, hours=hours) for seed in seeds]
    for done in as_completed(waiting):
        yield done.result()


def _same(results: Sequence[Result], hours: float) -> bool:
    """Whether seeds give the same traces again, where sets and dicts hash otherwise."""
    if not results:
        return True
    program = (
        "import sys; from tests.sim.run import run_seed\n"
        "for seed in sys.argv[2:]: print(seed, run_seed(int(seed), hours=float(sys.argv[1])).trace, flush=True)"
    )
    seeds = [str(result.seed) for result in results]
    ran = subprocess.run(
        [sys.executable, "-c", program, str(hours), *seeds],
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=False,
    )
    again = dict(found.split() for found in ran.stdout.splitlines())
    stable = True
    for result in results:
        if again.get(str(result.seed)) != result.trace:
            stable = False
            print(f"seed {result.seed}: trace {result.trace}, and the second time {again.get(str(result.seed))}")
    if ran.returncode:
        print(ran.stderr)
    return stable


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help="how many (default %(default)s)")
    parser.add_argument("--first", type=int, default=1, metavar="SEED", help="the first of them (default 1)")
    parser.add_argument("--hours", type=float, default=HOURS, metavar="H", help="simulated, each (default 2)")
    parser.add_argument("--twice", type=int, default=TWICE, metavar="N", help="seeds that are run twice (default 5)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="side by side")
    return parser


if __name__ == "__main__":
    sys.exit(main())
