"""`make soak`: long runs of the lean tier, some side by side; what is done already is not done again."""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

from tests.sim.run import LEAN, run_seed
from tests.sim.simulate import line, tell

HOURS, SEEDS, FIRST = 24.0, 4, 1001
STATE = Path("build/soak.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 when nothing is violated in all that was ever done under this state."""
    options = _parser().parse_args(arguments)
    began_s = time.monotonic()
    done = _read(options.state)
    seeds = [seed for seed in range(options.first, options.first + options.seeds) if _name(seed, options) not in done]
    with ProcessPoolExecutor(options.processes) as pool:
        waiting = [pool.submit(partial(run_seed, seed, hours=options.hours, tier=LEAN)) for seed in seeds]
        for finished in as_completed(waiting):
            result = finished.result()
            print(line(result), flush=True)
            tell(result)
            done[_name(result.seed, options)] = {
                "device_s": result.device_s,
                "cpu_s": result.cpu_s,
                "faults": result.faults,
                "commands": result.intents,
                "violations": len(result.violations) + result.more,
            }
            _write(options.state, done)
    total = {key: sum(run[key] for run in done.values()) for key in ("device_s", "cpu_s", "faults", "violations")}
    summary = {
        "seeds": len(done),
        "device_hours": round(total["device_s"] / 3600.0, 1),
        "faults": total["faults"],
        "violations": total["violations"],
        "device_s_per_cpu_s": round(total["device_s"] / total["cpu_s"]) if done else 0,
        "wall_s": round(time.monotonic() - began_s, 1),
    }
    print(json.dumps(summary))
    return 1 if total["violations"] else 0


def _name(seed: int, options: argparse.Namespace) -> str:
    return f"{seed} for {options.hours:g} h"


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}
    return found


def _write(path: Path, done: dict[str, Any]) -> None:
    """Put the new state in the place of the old at once: whoever stops this finds one of the two."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(done, indent=1) + "\n", encoding="utf8")
    fresh.replace(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=HOURS, metavar="H", help="simulated, each (default 24)")
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help="how many (default 4)")
    parser.add_argument("--first", type=int, default=FIRST, metavar="SEED", help="the first of them (default 1001)")
    parser.add_argument("--state", type=Path, default=STATE, metavar="FILE", help="what is done (default %(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="side by side")
    return parser


if __name__ == "__main__":
    sys.exit(main())
