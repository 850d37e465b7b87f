"""One feeder in OpenDSS behind numeric columns: loads and DER in, voltages and head power out.

W and var; DER power + = injection, load and head power + = import. Voltages in pu of the node's own base, line to
neutral on four-wire feeders. OpenDSS itself counts in kW: converted here and nowhere else.

An engine owns its OpenDSS context, and OpenDSS gives a context's memory back late: build engines once, not per study
step. One engine must not be used by two threads at once; several engines do not disturb each other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from altdss import ControlMode, DSSException, SetterFlags, altdss

from derms.domain.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from derms.domain.grid import FeederPackage
from derms.errors import GridError, ModelError, NotConverged
from derms.grid.layout import first_phase, node_limits, nodes_of_buses

TOLERANCE_PU = 1e-6
"""Of the power flow: tight enough that a result does not depend on the one before it."""
ITERATIONS_MAX = 50
CONTROL_ITERATIONS_MAX = 50
V_SERVED_MIN_PU, V_SERVED_MAX_PU = 0.6, 1.4
"""Beyond these loads and DER turn into impedances: such a solution does not carry the powers that were set."""

V_DEAD_PU = 1e-3
"""Nodes that no source reaches: behind a switch that is open in the circuit's files."""


@dataclass(frozen=True, slots=True)
class PowerFlow:
    """One solution."""

    v_pu: FloatArray
    """Shape (nodes,), in the engine's node order."""
    head_w: FloatArray
    """Power into the feeder through its head, phases a, b, c, shape (3,), + = import."""
    head_var: FloatArray
    losses_w: float
    iterations: int


def write_powers(batch: Any, p_w: FloatArray, q_var: FloatArray) -> None:
    """Write all powers of an OpenDSS class, in its own order.

    Through the setters that leave the admittance matrix alone: the public ones rebuild it, at four times the cost of
    the whole step. Those setters are not public in AltDSS, hence the way round. Active power goes first: OpenDSS
    derives reactive power from it until that is written.
    """
    p_kw, q_kvar = p_w / 1e3, q_var / 1e3
    set_kw, set_kvar = getattr(batch, "_set_kW", None), getattr(batch, "_set_kvar", None)
    if set_kw is None or set_kvar is None:
        batch.kW, batch.kvar = p_kw, q_kvar
    else:
        set_kw(p_kw, SetterFlags.AvoidFullRecalc)
        set_kvar(q_kvar, SetterFlags.AvoidFullRecalc)


class FeederEngine:
    """The power flow of one feeder.

    Parameters
    ----------
    package
        The feeder; every name in it is resolved here, once.
    line_scale
        Factors on the lengths of lines, by name: a plant that differs from the control room's model.

    Raises
    ------
    ModelError
        The circuit does not compile, or lacks something that the package names.
    NotConverged
        The circuit as it stands in its files has no solution.
    """

    nodes: tuple[str, ...]
    """`bus.phase` of every node, lower case."""
    v_base_v: FloatArray
    """Line-to-line base voltage of every node [V], shape (nodes,)."""
    v_min_pu: FloatArray
    """Lower end of every node's allowed range, shape (nodes,)."""
    v_max_pu: FloatArray
    loads: tuple[str, ...]
    nominal_load_w: FloatArray
    """Loads as they stand in the circuit [W], shape (loads,)."""
    nominal_load_var: FloatArray
    load_phase: IntArray
    """Phase of every load, 0..2; -1 where it is on more than one, shape (loads,)."""
    der_node: IntArray
    """Node of every DER, in the package's order, shape (ders,)."""
    lines: tuple[str, ...]
    regulators: tuple[str, ...]

    def __init__(self, package: FeederPackage, *, line_scale: Mapping[str, float] | None = None) -> None:
        self.package = package
        self._dss = altdss.NewContext()
        for forbidden in ("AllowChangeDir", "AllowDOScmd", "AllowEditor", "AllowForms"):
            setattr(self._dss.Settings, forbidden, False)
        self._line_scale = {name.lower(): scale for name, scale in (line_scale or {}).items()}
        self._frozen = False
        self._compile()
        self._resolve()
        self.solve()

    def bus_nodes(self, bus: str) -> IntArray:
        """Node of phases a, b, c at a bus, -1 where it lacks the phase, shape (3,); ModelError for a bus not there."""
        if bus.lower() not in self._bus_nodes:
            raise ModelError(f"{self.package.id}: no bus {bus!r}")
        return self._bus_nodes[bus.lower()].copy()

    def set_loads(self, p_w: FloatArray, q_var: FloatArray) -> None:
        """Set all loads at nominal voltage [W, var], each of shape (loads,); GridError for another shape or NaN."""
        count = len(self.loads)
        self._load_w, self._load_var = _column("load power", p_w, count), _column("reactive load", q_var, count)
        write_powers(self._dss.Load, self._load_w, self._load_var)

    def set_der(self, p_w: FloatArray, q_var: FloatArray) -> None:
        """Set all DER of the package [W, var, + = injection], each of shape (ders,); GridError as for loads."""
        count = len(self.package.ders)
        der_w, der_var = _column("DER power", p_w, count), _column("reactive DER power", q_var, count)
        self._generator_w[self._der_rows], self._generator_var[self._der_rows] = der_w, der_var
        if count:
            write_powers(self._dss.Generator, self._generator_w, self._generator_var)

    def freeze_controls(self, frozen: bool) -> None:
        """Hold the regulators where they are, or let them act in each solution."""
        self._frozen = frozen
        self._dss.Solution.ControlMode = ControlMode.Off if frozen else ControlMode.Static

    def set_regulator_target(self, name: str, vreg_v: float) -> None:
        """Set the voltage that a regulator keeps, on the base of its sensor [V]; GridError for NaN or no such one."""
        row = self._regulator_row(name)
        self._vreg_v[row] = _column("regulator target", np.array([vreg_v]), 1)[0]
        self._dss.RegControl.VReg = self._vreg_v

    def regulator_targets_v(self) -> dict[str, float]:
        """Voltage that every regulator keeps, on its own secondary base [V]."""
        return dict(zip(self.regulators, self._vreg_v.tolist(), strict=True))

    def taps(self) -> dict[str, int]:
        """Tap number of every regulator; 0 is neutral."""
        return dict(zip(self.regulators, self._tap_numbers().tolist(), strict=True))

    def set_taps(self, taps: Mapping[str, int]) -> None:
        """Move the regulators named; ModelError for one not there."""
        numbers = self._tap_numbers()
        for name, number in taps.items():
            numbers[self._regulator_row(name)] = number
        self._write_taps(numbers)
        self._good_taps = numbers

    def solve(self) -> PowerFlow:
        """Solve with what is set.

        A failed solution poisons the next ones in OpenDSS (NaN stays). So before it is given up the solver is started
        anew, then the whole circuit; the taps of the last good solution are put back.

        Raises
        ------
        NotConverged
            No solution, or not a finite one; the next `solve` starts clean.
        """
        for prepare in (None, self._dss.Solution.SolveDirect, self._restart):
            flow = self._attempt(prepare)
            if flow is not None:
                self._good_taps = self._tap_numbers()
                return flow
        self._restart()
        raise NotConverged(f"{self.package.id}: no finite power flow in {ITERATIONS_MAX} iterations")

    def violating(self, v_pu: FloatArray) -> BoolArray:
        """Nodes outside their range, shape (nodes,); NaN counts as outside."""
        return ~((v_pu >= self.v_min_pu) & (v_pu <= self.v_max_pu))

    def _attempt(self, prepare: Callable[[], None] | None) -> PowerFlow | None:
        solution = self._dss.Solution
        try:
            if prepare is not None:
                prepare()
            solution.Solve()
        except DSSException:  # an overrun of the control iterations comes as an exception (485)
            return None
        v_pu: FloatArray = self._dss.BusVMagPU()
        head_kva: ComplexArray = self._head.Powers()
        served = ((v_pu > V_SERVED_MIN_PU) & (v_pu < V_SERVED_MAX_PU)) | self._dead  # False for NaN
        if not (solution.Converged and served.all() and np.isfinite(head_kva).all()):
            return None
        head = self._head_phases @ head_kva[: self._head_phases.shape[1]] * 1e3
        return PowerFlow(v_pu, head.real, head.imag, float(self._dss.Losses().real), int(solution.Iterations))

    def _restart(self) -> None:
        """Compile anew and put back everything that was set since."""
        self._compile()
        write_powers(self._dss.Load, self._load_w, self._load_var)
        if self.package.ders:
            write_powers(self._dss.Generator, self._generator_w, self._generator_var)
        if self.regulators:
            self._dss.RegControl.VReg = self._vreg_v
            self._write_taps(self._good_taps)

    def _compile(self) -> None:
        try:
            self._dss(f'Redirect "{self.package.circuit}"')
            self._scale_lines()
            self._dss("MakeBusList")
        except DSSException as error:
            raise ModelError(f"{self.package.id}: {error}") from error
        solution = self._dss.Solution
        solution.Tolerance = TOLERANCE_PU
        solution.MaxIterations = ITERATIONS_MAX
        solution.MaxControlIterations = CONTROL_ITERATIONS_MAX
        self.freeze_controls(self._frozen)
        self._head = self._find_head()

    def _scale_lines(self) -> None:
        if not self._line_scale:
            return
        lines = self._dss.Line
        names = [name.lower() for name in lines.Name]
        unknown = self._line_scale.keys() - set(names)
        if unknown:
            raise ModelError(f"{self.package.id}: no line {', '.join(sorted(unknown))}")
        lines.Length = lines.Length.to_array() * np.array([self._line_scale.get(name, 1.0) for name in names])

    def _find_head(self) -> Any:
        kind, _, name = self.package.head_element.partition(".")
        elements = {"line": self._dss.Line, "transformer": self._dss.Transformer}.get(kind.lower())
        if elements is None or name.lower() not in (present.lower() for present in elements.Name):
            raise ModelError(f"{self.package.id}: {self.package.head_element!r} is no line or transformer for a head")
        return elements[name]

    def _resolve(self) -> None:
        """Turn names into positions, once; later compilations of the same files keep them."""
        dss = self._dss
        self.nodes = tuple(name.lower() for name in dss.NodeNames())
        self.loads, self.lines, self.regulators = (
            tuple(name.lower() for name in elements.Name) for elements in (dss.Load, dss.Line, dss.RegControl)
        )
        self._resolve_buses()
        self._resolve_loads()
        self._resolve_ders()
        self._vreg_v: FloatArray = dss.RegControl.VReg.to_array() if self.regulators else np.zeros(0)
        self._good_taps = self._tap_numbers()
        dss.Solution.SolveDirect()
        self._dead: BoolArray = dss.BusVMagPU() < V_DEAD_PU
        order = self._head.NodeOrder()[: self._head.NumConductors()]
        self._head_phases = (order == np.array([[1], [2], [3]])).astype(np.float64)

    def _resolve_buses(self) -> None:
        self._bus_nodes = nodes_of_buses(self.nodes)
        base_v = {bus.Name.lower(): bus.kVBase * 1e3 * np.sqrt(3.0) for bus in self._dss.Bus}
        self.v_base_v = np.array([base_v[node.partition(".")[0]] for node in self.nodes])
        self.v_min_pu, self.v_max_pu = node_limits(self.package.limits, self.v_base_v)

    def _resolve_loads(self) -> None:
        loads = self._dss.Load
        self.nominal_load_w = loads.kW.to_array() * 1e3
        self.nominal_load_var = loads.kvar.to_array() * 1e3
        self._load_w, self._load_var = self.nominal_load_w, self.nominal_load_var
        single = (loads.Phases.to_array() == 1) & (loads.Conn.to_array() == 0)
        phase = [first_phase(terminal)[1] for terminal in loads.Bus1]
        self.load_phase = np.where(single, phase, -1).astype(np.intp)

    def _resolve_ders(self) -> None:
        generators = self._dss.Generator
        bus_of = {f"generator.{name.lower()}": bus for name, bus in zip(generators.Name, generators.Bus1, strict=True)}
        row_of = {element: row for row, element in enumerate(bus_of)}
        elements = [der.element.lower() for der in self.package.ders]
        missing = sorted(set(elements) - bus_of.keys())
        if missing:
            raise ModelError(f"{self.package.id}: no generator for {', '.join(missing)}")
        self._der_rows = np.array([row_of[element] for element in elements], dtype=np.intp)
        self._generator_w = generators.kW.to_array() * 1e3 if bus_of else np.zeros(0)
        self._generator_var = generators.kvar.to_array() * 1e3 if bus_of else np.zeros(0)
        places = [first_phase(bus_of[element]) for element in elements]
        self.der_node = np.array([self._bus_nodes[bus][phase] for bus, phase in places], dtype=np.intp)

    def _regulator_row(self, name: str) -> int:
        if name.lower() not in self.regulators:
            raise ModelError(f"{self.package.id}: no regulator {name!r}")
        return self.regulators.index(name.lower())

    def _tap_numbers(self) -> IntArray:
        if not self.regulators:
            return np.zeros(0, dtype=np.intp)
        numbers: IntArray = self._dss.RegControl.TapNum.to_array().astype(np.intp)
        return numbers

    def _write_taps(self, numbers: IntArray) -> None:
        if not np.array_equal(numbers, self._tap_numbers()):  # writing rebuilds the admittance matrix
            self._dss.RegControl.TapNum = numbers.astype(np.int32)


def _column(what: str, values: FloatArray, count: int) -> FloatArray:
    column = np.array(values, dtype=np.float64)
    if column.shape != (count,):
        raise GridError(f"{what}: {count} values expected, shape {column.shape} given")
    if not np.isfinite(column).all():
        raise GridError(f"{what}: {np.count_nonzero(~np.isfinite(column))} values are not finite")
    return column
