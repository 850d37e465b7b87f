"""The engine in this process: one OpenDSS context behind numeric columns.

After compiling only numbers are written. OpenDSS counts in kW and per unit of its own: converted here and nowhere else.
What OpenDSS accepts in silence (NaN, wrong names, dead buses, solutions that carry other powers than were set) is
refused here.
"""

import threading
import weakref
from cmath import isfinite
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from derms.domain.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from derms.domain.grid import FeederPackage
from derms.errors import GridError, ModelError, NotConverged
from derms.grid.compiled import (
    V_SERVED_MAX_PU,
    V_SERVED_MIN_PU,
    compile_circuit,
    generator_of,
    give_back,
    layout_of,
    take_context,
)
from derms.grid.consistency import PROBE_FRAC, astray
from derms.grid.dss import ControlMode, DSSException, SparseSolverOptions
from derms.grid.engine import PowerFlow
from derms.grid.layout import V_DEAD_PU, FeederLayout, column
from derms.grid.linear import LinearPart
from derms.grid.network import Network
from derms.grid.powers import PowerColumns

TOLERANCE_PU = 1e-6
"""Of the power flow: tight enough that a result does not depend on the one before it."""
ITERATIONS_MAX = 50
CONTROL_ITERATIONS_MAX = 50
SOURCE_MIN_PU, SOURCE_MAX_PU = 0.5, 1.5

_least, _greatest = np.minimum.reduce, np.maximum.reduce
"""Without what `min` and `max` do around them: they look at every solution."""


@dataclass
class _Settings:
    """Everything that was set, so that a circuit that is compiled anew stands as the one before."""

    load_w: FloatArray
    load_var: FloatArray
    generator_w: FloatArray
    generator_var: FloatArray
    vreg_v: FloatArray
    taps: IntArray
    steps: IntArray
    closed: BoolArray
    source_pu: float
    frozen: bool = False
    tolerance_pu: float = TOLERANCE_PU


class FeederEngine:
    """The power flow of one feeder, see `Engine`.

    Parameters
    ----------
    package
        The feeder; every name in it is resolved here, once.
    line_scale
        Factors on the lengths of lines, by name: a plant that differs from the control room's model.
    confined
        Whether this process is confined; circuit text that is not the product's own is loaded in no other.

    Raises
    ------
    ModelError
        The circuit does not compile, or lacks something that the package names.
    NotConverged
        The circuit as it stands in its files has no solution.
    """

    layout: FeederLayout

    def __init__(
        self, package: FeederPackage, *, line_scale: Mapping[str, float] | None = None, confined: bool = False
    ) -> None:
        if not (package.own or confined):
            raise ModelError(f"{package.id}: a circuit from elsewhere is loaded in a confined process only")
        self.package = package
        self._scale = {name.lower(): scale for name, scale in (line_scale or {}).items()}
        self._dss = take_context()
        self.close = weakref.finalize(self, give_back, self._dss)
        """Gives the context back; done by itself when the engine is forgotten."""
        self.close.atexit = False
        self._busy = threading.Lock()
        self._network: Network | None = None
        self._network_state: tuple[bytes, ...] = ()
        self._moved = False
        """Whether something was moved since the last solution."""
        self._compile()
        self.layout = layout_of(self._dss, package)
        self._set = self._as_compiled()
        self._generators_compiled = self._set.generator_w.copy(), self._set.generator_var.copy()
        self._attach()
        self._probe()

    # --- what is set -------------------------------------------------------------------------------------------------

    def set_loads(self, p_w: FloatArray, q_var: FloatArray) -> None:
        count = len(self.layout.loads)
        self._set.load_w, self._set.load_var = column("load power", p_w, count), column("reactive load", q_var, count)
        self._loads.write(self._set.load_w, self._set.load_var)

    def set_der(self, p_w: FloatArray, q_var: FloatArray) -> None:
        count = len(self.layout.ders)
        der_w, der_var = column("DER power", p_w, count), column("reactive DER power", q_var, count)
        if count:
            self._set.generator_w[self._der_rows], self._set.generator_var[self._der_rows] = der_w, der_var
            self._generators.write(self._set.generator_w, self._set.generator_var)

    def set_source_pu(self, v_pu: float) -> None:
        if not SOURCE_MIN_PU <= v_pu <= SOURCE_MAX_PU:
            raise GridError(f"source voltage of {v_pu} pu: {SOURCE_MIN_PU} to {SOURCE_MAX_PU} expected")
        self._set.source_pu = v_pu
        sources = self._dss.to_opendssdirect().Vsources  # the setter of AltDSS rebuilds the admittance matrix
        sources.First()
        sources.PU(v_pu)

    def freeze_controls(self, frozen: bool) -> None:
        self._set.frozen = frozen
        self._dss.Solution.ControlMode = ControlMode.Off if frozen else ControlMode.Static

    def frozen(self) -> bool:
        return self._set.frozen

    def set_tolerance(self, v_pu: float) -> None:
        self._set.tolerance_pu = self._dss.Solution.Tolerance = v_pu

    def set_regulator_target(self, name: str, vreg_v: float) -> None:
        row = self.layout.row("regulator", self.layout.regulators, name)
        self._set.vreg_v[row] = column("regulator target", np.array([vreg_v]), 1)[0]
        self._dss.RegControl.VReg = self._set.vreg_v

    def regulator_targets_v(self) -> dict[str, float]:
        return dict(zip(self.layout.regulators, self._set.vreg_v.tolist(), strict=True))

    def taps(self) -> dict[str, int]:
        return dict(zip(self.layout.regulators, self._set.taps.tolist(), strict=True))

    def set_taps(self, taps: Mapping[str, int]) -> None:
        numbers = self._tap_numbers()
        for name, number in taps.items():
            numbers[self.layout.row("regulator", self.layout.regulators, name)] = number
        self._write_taps(numbers)
        self._set.taps = self._tap_numbers()  # OpenDSS keeps them within the regulator's range

    def capacitors(self) -> dict[str, int]:
        return dict(zip(self.layout.capacitors, self._set.steps.tolist(), strict=True))

    def set_capacitors(self, steps: Mapping[str, int]) -> None:
        wanted = self._steps()
        for name, on in steps.items():
            row = self.layout.row("capacitor", self.layout.capacitors, name)
            if not 0 <= on <= self.layout.capacitor_steps[row]:
                raise GridError(f"capacitor {name}: {on} steps; it has {self.layout.capacitor_steps[row]}")
            wanted[row] = on
        self._write_steps(wanted)
        self._set.steps = wanted

    def switches(self) -> dict[str, bool]:
        return dict(zip(self.layout.switches, self._set.closed.tolist(), strict=True))

    def set_switches(self, closed: Mapping[str, bool]) -> None:
        wanted = self._set.closed.copy()
        for name, state in closed.items():
            wanted[self.layout.row("switch", self.layout.switches, name)] = state
        if not np.array_equal(wanted, self._set.closed):
            self._set.closed = wanted
            self._write_switches()
            self._find_dead()

    # --- solutions ---------------------------------------------------------------------------------------------------

    def solve(self) -> PowerFlow:
        """Solve with what is set; see `Engine`.

        A failed solution poisons the next ones in OpenDSS (NaN stays). So before it is given up the solver is started
        anew, then the whole circuit; taps and steps of the last good solution are put back.
        """
        if not self._busy.acquire(blocking=False):
            raise GridError(f"{self.package.id}: the engine is used by two threads at once")
        try:
            for prepare in (None, self._dss.Solution.SolveDirect, self._restart):
                flow = self._attempt(prepare)
                if flow is not None:
                    if prepare is not None or flow.acted:  # else nothing has moved
                        self._keep_positions()
                    return flow
            self._restart()
        finally:
            self._busy.release()
        raise NotConverged(f"{self.package.id}: no finite power flow in {ITERATIONS_MAX} iterations{self._largest()}")

    def _keep_positions(self) -> None:
        """Keep what the controls did in a good solution."""
        if not self._set.frozen:
            self._set.taps = self._tap_numbers()
            if self._banks_act:
                self._set.steps = self._steps()

    def _largest(self) -> str:
        """Where to look first when there is no solution."""
        if not self.layout.loads:
            return ""
        row = int(np.argmax(np.abs(self._set.load_w)))
        return f"; its largest load is load.{self.layout.loads[row]} with {self._set.load_w[row] / 1e3:.0f} kW"

    def restart(self) -> None:
        self._set.load_w, self._set.load_var = self.layout.nominal_load_w, self.layout.nominal_load_var
        self._set.generator_w, self._set.generator_var = (column.copy() for column in self._generators_compiled)
        self._restart()

    def losses_w(self) -> float:
        return float(self._dss.Losses().real)

    def energised(self) -> BoolArray:
        return self._energised.copy()

    def network(self) -> Network:
        state = (self._tap_numbers().tobytes(), self._steps().tobytes(), self._set.closed.tobytes())
        if self._network is None or self._network_state != state:
            if self._moved:  # admittances follow what was moved with the next solution only
                self._dss.Solution.SolveDirect()
                self._moved = False
            self._network, self._network_state = self._linear.read(), state
        return self._network

    def _attempt(self, prepare: Callable[[], None] | None) -> PowerFlow | None:
        solution = self._dss.Solution
        try:
            if prepare is not None:
                prepare()
            solution.Solve()
            self._moved = False
        except DSSException:  # an overrun of the control iterations comes as an exception (485)
            return None
        v_v: ComplexArray = self._dss.YNodeVarray()
        v_pu = self.layout.v_pu(v_v)
        if not (solution.Converged and self._is_served(v_pu)):
            return None
        head_va = self._linear.head_va()
        if not all(map(isfinite, head_va.tolist())):
            return None
        acted = solution.ControlIterations > 1
        return PowerFlow(v_v, v_pu, head_va.real, head_va.imag, int(solution.Iterations), acted)

    def _is_served(self, v_pu: FloatArray) -> bool:
        """Whether no voltage is so far off that OpenDSS makes impedances of loads and DER; False for NaN."""
        if v_pu.size and _least(v_pu) > V_SERVED_MIN_PU and _greatest(v_pu) < V_SERVED_MAX_PU:
            return True
        return bool((((v_pu > V_SERVED_MIN_PU) & (v_pu < V_SERVED_MAX_PU)) | self._dead).all())

    # --- the compiled circuit ----------------------------------------------------------------------------------------

    def _compile(self) -> None:
        """Compile the circuit, and take hold of what is read or written again and again."""
        compile_circuit(self._dss, self.package, self._scale)
        self._source, self._banks = self._dss.Vsource[0], list(self._dss.Capacitor)
        self._tap_column = self._dss.RegControl.TapNum if self._dss.RegControl else None
        self._banks_act = bool(self._dss.CapControl)
        self._loads, self._generators = PowerColumns(self._dss.Load), PowerColumns(self._dss.Generator)

    def _as_compiled(self) -> _Settings:
        """What the circuit's files set."""
        dss, layout = self._dss, self.layout
        generators = dss.Generator
        kw, kvar = (
            values.to_array() * 1e3 if len(values) else np.zeros(0) for values in (generators.kW, generators.kvar)
        )
        normal = [not dss.Line[name.partition(".")[2]].IsOpen(1, 0) for name in layout.switches]
        return _Settings(
            load_w=layout.nominal_load_w,
            load_var=layout.nominal_load_var,
            generator_w=kw,
            generator_var=kvar,
            vreg_v=dss.RegControl.VReg.to_array() if layout.regulators else np.zeros(0),
            taps=self._tap_numbers(),
            steps=self._steps(),
            closed=np.array(normal, dtype=np.bool_),
            source_pu=float(self._source.pu),
        )

    def _probe(self) -> None:
        """Solve with every DER at a part of its rating, and see that all powers are carried; then as it is.

        A circuit without DER, which nobody drives, may have its loads as it likes.
        """
        ders = self.package.ders
        if not ders:
            self.solve()
            return
        frozen, generators_w = self._set.frozen, (self._set.generator_w.copy(), self._set.generator_var.copy())
        self.freeze_controls(True)
        probe_w = PROBE_FRAC * np.array([der.p_rated_w for der in ders])
        self.set_der(probe_w, np.zeros(len(ders)))
        flow = self.solve()
        powers = np.r_[self._set.load_w, probe_w], np.r_[self._set.load_var, np.zeros(len(ders))]
        wrong = astray(self.layout, self.network(), flow, powers, source_bus=self.package.source_bus)
        if wrong:
            names = ", ".join(wrong[:8]) + f" and {len(wrong) - 8} more" * (len(wrong) > 8)
            right = "give phases= before kv=, and vminpu= and vmaxpu= wide enough"
            raise ModelError(f"{self.package.id}: what is set is not what flows at {names}; {right}")
        self._set.generator_w, self._set.generator_var = generators_w
        self._generators.write(*generators_w)
        self.freeze_controls(frozen)
        self.solve()

    def _attach(self) -> None:
        """Take hold of a circuit that has just been compiled."""
        dss = self._dss
        solution = dss.Solution
        solution.Tolerance = self._set.tolerance_pu
        solution.MaxIterations = ITERATIONS_MAX
        solution.MaxControlIterations = CONTROL_ITERATIONS_MAX
        self.freeze_controls(self._set.frozen)
        dss.YMatrix.SolverOptions = SparseSolverOptions.ReuseSymbolicFactorization  # a tap moves values, not places
        row_of = {name.lower(): row for row, name in enumerate(dss.Generator.Name)}
        rows = np.array([row_of[generator_of(der)] for der in self.package.ders], dtype=np.intp)
        self._der_rows = slice(None) if np.array_equal(rows, np.arange(len(row_of))) else rows
        self._linear = LinearPart(dss, self.package, self.layout)
        self._network = None
        self._find_dead()

    def _restart(self) -> None:
        """Compile anew and put back everything that was set since."""
        self._compile()
        self._attach()
        self._loads.write(self._set.load_w, self._set.load_var)
        if self.layout.ders:
            self._generators.write(self._set.generator_w, self._set.generator_var)
        self._source.pu = self._set.source_pu
        if self.layout.regulators:
            self._dss.RegControl.VReg = self._set.vreg_v
            self._write_taps(self._set.taps)
        self._write_steps(self._set.steps)
        self._write_switches()
        self._find_dead()

    def _find_dead(self) -> None:
        """See which nodes and points no source reaches: without loads and DER their voltage is nothing."""
        self._dss.Solution.SolveDirect()
        v_v = self._dss.YNodeVarray()
        self._dead: BoolArray = self.layout.v_pu(v_v) < V_DEAD_PU
        alive = np.zeros(len(self.layout.nodes), dtype=np.bool_)
        ends = self.layout.point_node[~self._dead]
        alive[ends[ends >= 0]] = True
        alive[np.abs(v_v) > 1.0] = True
        self._energised = alive

    def _tap_numbers(self) -> IntArray:
        if self._tap_column is None:
            return np.zeros(0, dtype=np.intp)
        numbers: IntArray = self._tap_column.to_array().astype(np.intp)
        return numbers

    def _write_taps(self, numbers: IntArray) -> None:
        if not np.array_equal(numbers, self._tap_numbers()):  # writing rebuilds the admittance matrix
            self._dss.RegControl.TapNum = numbers.astype(np.int32)
            self._moved = True

    def _steps(self) -> IntArray:
        return np.array([int(np.sum(bank.States)) for bank in self._banks], dtype=np.intp)

    def _write_steps(self, steps: IntArray) -> None:
        """Through OpenDSSDirect: the setter of AltDSS does nothing."""
        there = self._steps()
        banks = self._dss.to_opendssdirect().Capacitors
        for row in np.flatnonzero(steps != there):
            self._moved = True
            banks.Name(self.layout.capacitors[row])
            banks.States([int(step < steps[row]) for step in range(self.layout.capacitor_steps[row])])

    def _write_switches(self) -> None:
        for name, closed in zip(self.layout.switches, self._set.closed, strict=True):
            line = self._dss.Line[name.partition(".")[2]]
            if closed:
                line.Close(1, 0)
            else:
                line.Open(1, 0)
