"""A year of IEEE 123 hour by hour, controls acting: the product's time series against the engine's own yearly loop.

Every load has its own value in every hour. Ours gets the values as columns and gives all voltages back; the engine's
loop has them as load shapes in memory and records nothing, which is the harder opponent. Both use the published circuit
(`base.dss`: services and DER would only make more of the solver's share), the same tolerance, iteration limits and taps
to begin with. CPU time, rounds alternate, ratios are medians over rounds.

`ratio_python_native` is against OpenDSS as it comes. The product's engine has it keep the order of factorisation when
a tap moves; `ratio_python_native_reusing` is against a native loop that was told the same. Voltages are compared in
`hours_compared` hours spread over the year, in a run of its own. The last line is one JSON object.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from derms.domain.arrays import FloatArray
from derms.grid.compiled import take_context
from derms.grid.dss import SparseSolverOptions
from derms.grid.opendss import CONTROL_ITERATIONS_MAX, ITERATIONS_MAX, FeederEngine
from derms.grid.recording import Column
from derms.grid.time_series import TOLERANCE_PU, Run, Series, Study, run
from feeders.catalog import load

HOURS, ROUNDS = 8760, 7
STOPS = 120
LOAD_SIGMA = 0.2
PACKAGE = load("ieee123")
BARE = replace(
    PACKAGE, circuit=PACKAGE.circuit.with_name("base.dss"), sites=(), ders=(), meters=(), switches=(), invisible_pv=()
)


def factors(loads: int) -> FloatArray:
    """Every load against its nominal power, shape (hours, loads): a day's and a year's course, and its own chance."""
    hour = np.arange(HOURS)
    course = 0.6 - 0.2 * np.cos(2 * np.pi * hour / 24) + 0.1 * np.cos(2 * np.pi * hour / HOURS)
    own = np.random.default_rng(1).lognormal(0.0, LOAD_SIGMA, (HOURS, loads))
    values: FloatArray = course[:, None] * own
    return values


class Native:
    """The same circuit in OpenDSS's own hands, with a load shape for every load."""

    def __init__(self, load_factors: FloatArray, names: tuple[str, ...], option: SparseSolverOptions) -> None:
        self.dss = dss = take_context()
        dss(f'Redirect "{BARE.circuit}"')
        for name, column in zip(names, load_factors.T, strict=True):
            shape = dss.LoadShape.new(f"of_{name}")
            shape.NPts, shape.Interval, shape.PMult = HOURS, 1.0, column.copy()
            shape.end_edit()
            dss(f"Edit Load.{name} yearly=of_{name}")
        dss.Solution.MaxIterations = ITERATIONS_MAX
        dss.Solution.MaxControlIterations = CONTROL_ITERATIONS_MAX
        dss.YMatrix.SolverOptions = option

    def begin(self, taps: dict[str, int], hours_at_once: int) -> None:
        """Go back to the first hour, and to where the regulators stood."""
        self.dss.RegControl.TapNum = np.array(list(taps.values()), dtype=np.int32)
        number = f"number={hours_at_once} controlmode=static tolerance={TOLERANCE_PU}"
        self.dss(f"Set mode=yearly stepsize=1h hour=0 {number}")

    def go_on(self) -> Any:
        """Solve the next hours; voltages of the nodes after them [V]."""
        self.dss.Solution.Solve()
        assert self.dss.Solution.Converged
        return self.dss.YNodeVarray()

    def year(self, taps: dict[str, int]) -> float:
        """CPU time of a year [s]."""
        self.begin(taps, HOURS)
        return cpu_s(self.go_on)[0]


def cpu_s(do: Callable[[], Any]) -> tuple[float, Any]:
    """CPU time [s] and what came of it."""
    began_s = time.process_time()
    found = do()
    return time.process_time() - began_s, found


def apart_pu(engine: FeederEngine, native: Native, found: Run, taps: dict[str, int]) -> float:
    """Greatest difference of any voltage between the two, over hours spread over the year."""
    native.begin(taps, HOURS // STOPS)
    last_hours = np.arange(1, STOPS + 1) * (HOURS // STOPS) - 1
    v_pu = np.array([engine.layout.v_pu(native.go_on()) for _ in last_hours])
    return float(np.abs(v_pu - found.columns[Column.VOLTAGES][last_hours]).max())


def main() -> None:
    """Measure and print."""
    engine = FeederEngine(BARE)
    layout, taps = engine.layout, engine.taps()
    every = factors(len(layout.loads))
    loads = Series(every * layout.nominal_load_w, every * layout.nominal_load_var)
    study = Study(steps=HOURS, loads=loads, columns=(Column.VOLTAGES,))
    plain = Native(every, layout.loads, SparseSolverOptions.ReuseNothing)
    reusing = Native(every, layout.loads, SparseSolverOptions.ReuseSymbolicFactorization)
    times: list[tuple[float, float, float]] = []
    for number in range(ROUNDS):
        engine.set_taps(taps)
        python_s, _ = cpu_s(lambda: run(engine, study))
        times.append((python_s, plain.year(taps), reusing.year(taps)))
        print(f"round {number + 1} of {ROUNDS}: {python_s:.2f} s, native {times[-1][1]:.2f} s", flush=True)
    engine.set_taps(taps)
    found = run(engine, replace(study, columns=(Column.VOLTAGES, Column.TAPS_MOVED)))
    assert not found.missing.any()
    python_s, native_s, reusing_s = (statistics.median(column) for column in zip(*times, strict=True))
    result = {
        "bench": "grid",
        "hours": HOURS,
        "ratio_python_native": round(statistics.median(n / p for p, n, _ in times), 3),
        "ratio_python_native_reusing": round(statistics.median(r / p for p, _, r in times), 3),
        "steps_per_s_python": round(HOURS / python_s),
        "steps_per_s_native": round(HOURS / native_s),
        "steps_per_s_native_reusing": round(HOURS / reusing_s),
        "apart_max_pu": float(f"{apart_pu(engine, plain, found, taps):.1e}"),
        "hours_compared": STOPS,
        "taps_moved": int(found.columns[Column.TAPS_MOVED].sum()),
        "points": len(layout.points),
        "tolerance_pu": TOLERANCE_PU,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
