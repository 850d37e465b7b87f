"""The tangent of IEEE 123 against finite differences: the error of what both predict, and what both cost to build.

The published circuit with 60 DER on its primary that feed in 2.1 MW, spread evenly over the load buses, at half their
rating and 0.2 var per W. Finite differences move P and Q of every DER up and down by 1 kW or kvar, with full solutions
at a tolerance of 1e-9. Both predict all voltages after all DER have moved by +30 %, by -30 %, and in 20 random draws
between; OpenDSS says what they are. A build begins after a tap has moved: network, tangent, columns of all DER. CPU
time, rounds alternate, `build_ratio_vs_finite_difference` is the median over rounds of how many times faster it is.
`adjoint_err` is that of the adjoint rows of all voltages, all currents with a rating and head power to every load and
DER, each against the greatest of its row (or a millionth of the greatest of its kind: idle transformers). The last line
is one JSON object.
"""

import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from derms.domain.arrays import FloatArray
from derms.domain.grid import DerBinding, FeederPackage, VoltageLimits
from derms.grid.engine import PowerFlow
from derms.grid.layout import GROUND, FeederLayout
from derms.grid.linearise import Tangent
from derms.grid.opendss import FeederEngine

CIRCUIT = Path(__file__).parents[2] / "feeders" / "ieee123" / "base.dss"
DERS, TOTAL_W, RATING_FRAC, VAR_PER_W = 60, 2.1e6, 0.5, 0.2
MOVE_FRAC, DRAWS, SEED = 0.3, 20, 1
TOLERANCE_PU, STEP_W = 1e-9, 1e3
ROUNDS = 15
IDLE_FRAC = 1e-6


def package(folder: Path, layout: FeederLayout | None = None) -> FeederPackage:
    """The published circuit; with the layout of that, the DER on its load buses as well."""
    text = [f'Redirect "{CIRCUIT}"', "BatchEdit Load..* vminpu=0.6 vmaxpu=1.4"]
    names = [f"der{number}" for number in range(DERS)] if layout else []
    rated_w = TOTAL_W / DERS / RATING_FRAC
    for name, where in zip(names, load_buses(layout) if layout else [], strict=True):
        text.append(
            f"New Generator.{name} phases=1 {where} model=1 kva={rated_w / 1e3} kw=0 kvar=0 vminpu=0.6 vmaxpu=1.4"
        )
    master = folder / "bench.dss"
    master.write_text("\n".join(text), encoding="utf8")
    ders = tuple(DerBinding(name, "", f"Generator.{name}", "pv", rated_w, rated_w, 0.0) for name in names)
    return FeederPackage(
        id="ieee123",
        circuit=master,
        source_bus="150",
        head_element="Transformer.reg1a",
        peak_w=3.6e6,
        sites=(),
        ders=ders,
        meters=(),
        limits=(VoltageLimits(math.inf, 0.95, 1.05),),
        buses=frozenset(),
        own=True,
    )


def load_buses(layout: FeederLayout) -> list[str]:
    """Connections for the DER, evenly over the load buses: that of the first branch of the first load there."""
    of_bus: dict[str, str] = {}
    for (node, other), nominal_v in zip(layout.branch_node, layout.branch_nominal_v, strict=True):
        bus, _, phase = layout.nodes[node].partition(".")
        second = "" if other == GROUND else "." + layout.nodes[other].partition(".")[2]
        connection = "delta" if second else "wye"
        of_bus.setdefault(bus, f"bus1={bus}.{phase}{second} conn={connection} kv={nominal_v / 1e3}")
    places = list(of_bus.values())
    return [places[number * len(places) // DERS] for number in range(DERS)]


class Bench:
    """The circuit at its operating point."""

    def __init__(self, folder: Path) -> None:
        bare = FeederEngine(package(folder))
        self.engine = FeederEngine(package(folder, bare.layout))
        self.layout = self.engine.layout
        self.engine.set_tolerance(TOLERANCE_PU)
        self.der = np.concatenate([np.full(DERS, TOTAL_W / DERS), np.full(DERS, VAR_PER_W * TOTAL_W / DERS)])
        self.solved(self.der)
        self.engine.freeze_controls(True)
        self.flow = self.solved(self.der)

    def solved(self, der: FloatArray) -> PowerFlow:
        """The full solution with DER at these W, then var."""
        self.engine.set_der(der[:DERS], der[DERS:])
        return self.engine.solve()

    def tangent(self) -> Tangent:
        """At the operating point."""
        layout = self.layout
        loads = (layout.nominal_load_w, layout.nominal_load_var)
        return Tangent(layout, self.engine.network(), self.flow.v_v, *loads, self.der[:DERS], self.der[DERS:])

    def by_tangent(self) -> FloatArray:
        """Voltages [pu] per W, then var, of every DER, shape (points, 2 x ders)."""
        loads = len(self.layout.loads)
        return self.tangent().columns(np.arange(loads, loads + DERS))

    def by_differences(self) -> FloatArray:
        """The same from solutions on both sides."""
        found = np.empty((len(self.layout.points), 2 * DERS))
        for column in range(2 * DERS):
            up, down = self.der.copy(), self.der.copy()
            up[column] += STEP_W
            down[column] -= STEP_W
            found[:, column] = (self.solved(up).v_pu - self.solved(down).v_pu) / (2.0 * STEP_W)
        return found

    def after_a_change(self) -> None:
        """Move a tap there and back, so that the network must be read again."""
        taps = self.engine.taps()
        for moved in (1, 0):
            self.engine.set_taps({name: tap + moved for name, tap in taps.items()})
            self.flow = self.solved(self.der)
            if moved:
                self.engine.network()


def cpu_s(build: Callable[[], FloatArray]) -> float:
    """CPU time of one build [s]."""
    began_s = time.process_time()
    build()
    return time.process_time() - began_s


def errors_pu(bench: Bench) -> tuple[float, float, float]:
    """Greatest error of the tangent, of finite differences, and the greatest change that they predict."""
    rng = np.random.default_rng(SEED)
    moves = [np.full(2 * DERS, MOVE_FRAC), np.full(2 * DERS, -MOVE_FRAC)]
    moves += list(rng.uniform(-MOVE_FRAC, MOVE_FRAC, (DRAWS, 2 * DERS)))
    slopes = bench.by_tangent(), bench.by_differences()
    worst, moved_pu = [0.0, 0.0], 0.0
    for move in moves:
        change_pu = bench.solved(bench.der * (1.0 + move)).v_pu - bench.flow.v_pu
        moved_pu = max(moved_pu, float(np.abs(change_pu).max()))
        for which, slope in enumerate(slopes):
            error_pu = float(np.abs(slope @ (bench.der * move) - change_pu).max())
            worst[which] = max(worst[which], error_pu)
    bench.solved(bench.der)
    return worst[0], worst[1], moved_pu


def adjoint_error(tangent: Tangent) -> float:
    """Greatest difference of an adjoint row from the full factor, each against the greatest of its row."""
    rated = np.flatnonzero(np.isfinite(tangent.network.rating_a))
    every = np.arange(len(tangent.layout.loads) + DERS)
    worst = 0.0
    for gradient in (tangent.voltage_gradient(), tangent.current_gradient(rated), tangent.head_gradient()):
        full = (gradient @ tangent.node_columns(every)).real
        greatest = np.abs(full).max(axis=1, keepdims=True)
        greatest = np.maximum(greatest, IDLE_FRAC * greatest.max())
        worst = max(worst, float((np.abs(tangent.rows(gradient) - full) / greatest).max()))
    return worst


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
    tangent_pu, differences_pu, moved_pu = errors_pu(bench)
    print(f"errors known; now {ROUNDS} builds each way", flush=True)
    rounds = []
    for _ in range(ROUNDS):
        bench.after_a_change()
        rounds.append((cpu_s(bench.by_tangent), cpu_s(bench.by_differences)))
    built_s, differences_s = (statistics.median(column) for column in zip(*rounds, strict=True))
    result = {
        "bench": "linearise",
        "nodes": len(bench.layout.nodes),
        "ders": DERS,
        "max_move_pu": round(moved_pu, 4),
        "max_err_pu": float(f"{tangent_pu:.3e}"),
        "err_ratio_vs_finite_difference": round(tangent_pu / differences_pu, 4),
        "build_ms": round(1e3 * built_s, 2),
        "finite_difference_ms": round(1e3 * differences_s, 2),
        "build_ratio_vs_finite_difference": round(statistics.median(apart / built for built, apart in rounds), 1),
        "adjoint_err": float(f"{adjoint_error(bench.tangent()):.1e}"),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
