"""A step of a whole territory: 200 feeders of IEEE 123 with 60 DER each, every load and DER set anew, solved, read.

The yardstick is the packaged circuit 200 times: 398 nodes, 91 loads, and the DER behind their service transformers.
Regulators are held, as in live use. In `step_cpu_ms` every value moves from the last one by its own random amount, a
tenth of its rating at one sigma, and every head voltage is given, as by telemetry; `jump_cpu_ms` is the same with
values that have nothing to do with those before, which takes more iterations. `coupled_cpu_ms` has the feeders behind
stations of eight, with as many passes as these take. These are medians of all steps. A step goes through some 40 MB
that no cache holds, and whoever shares the machine's memory only adds to its time: `least_cpu_ms` stands beside the
first. `err_pu` is what the tolerance of 1e-4 costs against 1e-8. The circuit is the product's own, so all engines stand
in this process. The last line is one JSON object.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np

from derms.domain.arrays import FloatArray
from derms.grid.opendss import FeederEngine
from derms.grid.territory import Station, Territory
from feeders.catalog import load

FEEDERS = 200
STEPS = 30
WALK_FRAC = 0.1
PER_STATION = 8
TOLERANCE_PU, EXACT_PU = 1e-4, 1e-8
S_RATED_VA = 40e6

Columns = tuple[FloatArray, FloatArray]


class Day:
    """Loads and DER of all feeders, another value for each with every draw."""

    def __init__(self, engines: list[FeederEngine]) -> None:
        self._rng = np.random.default_rng(4)
        self._load_w = np.concatenate([engine.layout.nominal_load_w for engine in engines])
        self._load_var = np.concatenate([engine.layout.nominal_load_var for engine in engines])
        self._der_w = np.array([der.p_rated_w for engine in engines for der in engine.package.ders])
        self._load, self._der = np.full(self._load_w.size, 0.6), np.full(self._der_w.size, 0.5)

    def move(self) -> tuple[Columns, Columns]:
        """Every value moved a little from the last one, within the ranges of `draw`."""
        rng = self._rng
        self._load = np.clip(self._load + WALK_FRAC * rng.standard_normal(self._load.size), 0.3, 0.9)
        self._der = np.clip(self._der + WALK_FRAC * rng.standard_normal(self._der.size), 0.0, 1.0)
        loads, ders = self._load_w * self._load, self._der_w * self._der
        return (loads, self._load_var * self._load), (ders, 0.2 * ders)

    def draw(self) -> tuple[Columns, Columns]:
        """Loads at 30 to 90 % of nominal, DER from nothing to their rating with reactive power either way."""
        load = self._rng.uniform(0.3, 0.9, self._load_w.size)
        der, der_var = self._rng.uniform(0.0, 1.0, self._der_w.size), self._rng.uniform(-0.3, 0.3, self._der_w.size)
        return (self._load_w * load, self._load_var * load), (self._der_w * der, self._der_w * der_var)


class Timed:
    """Steps of one kind: their CPU times [ms], and the worst of what they gave."""

    def __init__(self, territory: Territory, draw: Callable[[], tuple[Columns, Columns]], steps: int) -> None:
        self.cpu_ms: list[float] = []
        self.passes, self.mismatch_pu, self.failed = 0, 0.0, 0
        for _ in range(steps):
            drawn = draw()
            began_s = time.process_time()
            flow = territory.step(*drawn)
            self.cpu_ms.append(1e3 * (time.process_time() - began_s))
            self.passes = max(self.passes, flow.passes)
            self.mismatch_pu = max(self.mismatch_pu, *flow.mismatch_pu, 0.0)
            self.failed += len(flow.failed)

    @property
    def median_ms(self) -> float:
        return round(statistics.median(self.cpu_ms), 1)


def error_pu(territory: Territory, engines: list[FeederEngine], day: Day) -> float:
    """Greatest difference between the two tolerances, over three draws."""
    found = []
    for _ in range(3):
        drawn, flows = day.draw(), []
        for tolerance_pu in (TOLERANCE_PU, EXACT_PU):
            for engine in engines:
                engine.set_tolerance(tolerance_pu)
            flows.append(territory.step(*drawn).v_pu)
        found.append(float(np.abs(flows[0] - flows[1]).max()))
    return max(found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--feeders", type=int, default=FEEDERS)
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    package = load("ieee123")
    began_s = time.process_time()
    engines = [FeederEngine(package) for _ in range(given.feeders)]
    compile_s = time.process_time() - began_s
    for engine in engines:
        engine.freeze_controls(True)
        engine.set_tolerance(TOLERANCE_PU)
    print(f"{given.feeders} feeders compiled; now {given.steps} steps of each kind", flush=True)
    named = {f"f{row:03d}": engine for row, engine in enumerate(engines)}
    names = list(named)
    groups = [tuple(names[row : row + PER_STATION]) for row in range(0, len(names), PER_STATION)]
    stations = [
        Station(f"s{row}", group, S_RATED_VA, 0.005, 0.08, 0.005, 0.03, source_pu=1.03, no_load_w=4e4)
        for row, group in enumerate(groups)
    ]
    day, alone, coupled = Day(engines), Territory(named), Territory(named, stations)
    jumps, steps = Timed(alone, day.draw, given.steps), Timed(alone, day.move, given.steps)
    both = Timed(coupled, day.move, given.steps)
    result = {
        "bench": "territory",
        "feeders": len(engines),
        "nodes": sum(len(engine.layout.nodes) for engine in engines),
        "der": alone.der_count,
        "loads": alone.load_count,
        "step_cpu_ms": steps.median_ms,
        "least_cpu_ms": round(min(steps.cpu_ms), 1),
        "jump_cpu_ms": jumps.median_ms,
        "coupled_cpu_ms": both.median_ms,
        "passes_max": both.passes,
        "mismatch_pu": float(f"{both.mismatch_pu:.1e}"),
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "compile_s": round(compile_s, 1),
        "err_pu": float(f"{error_pu(alone, engines, day):.1e}"),
        "failed": jumps.failed + steps.failed + both.failed,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
