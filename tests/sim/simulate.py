"""`make sim`: many seeds of the wire tier side by side, the same seeds twice, and the sweep; last one JSON line."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed

from tests.sim.invariants import ELSEWHERE, WAITING
from tests.sim.run import HOURS, Result, run_seed
from tests.sim.sweep import points, swept, trials

SEEDS = 50
CHUNK = 20
"""Trials of the sweep that a process does in a row."""
TWICE = 5
"""Seeds that are run again, in a process with another PYTHONHASHSEED."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 when nothing is violated and traces are the same."""
    options = _parser().parse_args(arguments)
    began_s = time.monotonic()
    seeds = range(options.first, options.first + options.seeds)
    results, lines = list[Result](), 0
    with ThreadPoolExecutor(1) as beside:
        again = beside.submit(_traces, [str(seed) for seed in seeds[: options.twice]], options.hours)
        with ProcessPoolExecutor(options.processes) as pool:
            for result in _each(pool, seeds, options.hours):
                results.append(result)
                lines += 1
                print(f"[{lines}/{len(seeds)}] {line(result)}", flush=True)
                tell(result)
            trials_done, failed = _sweep(pool, options.every) if options.every else (0, 0)
        traces = again.result()  # the pool has to be gone: its processes keep pipes open that they know nothing of
    stable = len(traces) == len(seeds[: options.twice]) and _same(results, traces)
    for table, words in ((WAITING, "waits for"), (ELSEWHERE, "is checked in")):
        for invariant, what in table.items():
            print(f"{invariant} {words} {what}")
    found = sum(len(result.violations) + result.more for result in results) + failed
    summary = {
        "seeds": len(results),
        "device_hours": round(sum(result.device_s for result in results) / 3600.0, 1),
        "faults": sum(result.faults for result in results),
        "violations": found,
        "trace_stable": stable,
        "swept": trials_done,
        "stops": sum(result.stops for result in results),
        "by_hand": sum(result.by_hand for result in results),
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


def _sweep(pool: ProcessPoolExecutor, every: int) -> tuple[int, int]:
    """The fail-the-nth sweep over one control cycle: trials, and those in which an invariant was violated."""
    counted = pool.submit(points).result()
    chosen = list(trials(counted, every=every))
    names = ", ".join(f"{count} {kind}" for kind, count in counted.items())
    print(f"one control cycle has {sum(counted.values())} points ({names}): {len(chosen)} trials", flush=True)
    failed = 0
    for done in as_completed([pool.submit(swept, chosen[at : at + CHUNK]) for at in range(0, len(chosen), CHUNK)]):
        for trial, found in done.result():
            failed += 1
            print(f"{trial.action} at {trial.kind} {trial.number}: {found[0]}", flush=True)
    print(f"{len(chosen)} trials, {failed} of them with a violation", flush=True)
    return len(chosen), failed


def _traces(seeds: Sequence[str], hours: float) -> Mapping[str, str]:
    """Traces of seeds in a process of their own, where sets and dicts hash otherwise."""
    program = (
        "import sys; from tests.sim.run import run_seed\n"
        "for seed in sys.argv[2:]: print(seed, run_seed(int(seed), hours=float(sys.argv[1])).trace, flush=True)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(hours), *seeds],
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=False,
    )
    print(ran.stderr, end="")
    return dict(found.split() for found in ran.stdout.splitlines())


def _same(results: Sequence[Result], again: Mapping[str, str]) -> bool:
    """Whether the seeds that were run twice had the same traces."""
    first = {str(result.seed): result.trace for result in results}
    other = [seed for seed, trace in again.items() if first[seed] != trace]
    for seed in other:
        print(f"seed {seed}: trace {first[seed]}, and the second time {again[seed]}")
    return not other


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help="how many (default %(default)s)")
    parser.add_argument("--first", type=int, default=1, metavar="SEED", help="the first of them (default 1)")
    parser.add_argument("--hours", type=float, default=HOURS, metavar="H", help="simulated, each (default 2)")
    parser.add_argument("--twice", type=int, default=TWICE, metavar="N", help="seeds that are run twice (default 5)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each N-th trial of the sweep; 0 for none")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="side by side")
    return parser


if __name__ == "__main__":
    sys.exit(main())
