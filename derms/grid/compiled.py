"""A circuit compiled in OpenDSS, and its names resolved into a layout. Contexts come from a pool: OpenDSS leaks them.

Only `opendss.py` uses this. Circuit text is OpenDSS's own language and units: kV, kW, kvar.
"""

import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from derms.domain.arrays import FloatArray, IntArray
from derms.domain.grid import NEW, Between, DerBinding, FeederPackage, SwitchState, VoltageLimits
from derms.errors import ModelError
from derms.grid.dss import DSSException, altdss
from derms.grid.layout import GROUND, FeederLayout, points_of, voltage_class

LINEAR = ("line", "transformer", "autotrans", "capacitor", "reactor", "vsource", "fault")
"""Classes that are admittances; the others must be loads, DER, or carry no current."""
DRIVEN = ("load", "generator", "pvsystem", "storage")
WITHOUT_CURRENT = (
    *("regcontrol", "capcontrol", "swtcontrol", "invcontrol", "expcontrol", "storagecontroller", "relay", "recloser"),
    *("fuse", "monitor", "energymeter", "sensor", "gendispatcher", "espvlcontrol", "upfccontrol"),
)
OWN_CONTROLS = ("InvControl", "ExpControl", "StorageController")
"""What moves DER by itself: DER are set from outside."""
V_SERVED_MIN_PU, V_SERVED_MAX_PU = 0.6, 1.4
"""Beyond these loads and DER turn into impedances: such a solution does not carry the powers that were set."""
STAND_IN = "derms_"
"""Begins the name of the generator that stands for a PVSystem or a Storage, or for a DER that the circuit lacks."""

_free: list[Any] = []
_pool = threading.RLock()
"""Reentrant: making a context can set off the garbage collector, which gives back that of a forgotten engine."""


def take_context() -> Any:
    """An OpenDSS context that nobody uses, with everything forbidden that a circuit does not need."""
    with _pool:
        dss = _free.pop() if _free else _new_context()
    for forbidden in ("AllowChangeDir", "AllowDOScmd", "AllowEditor", "AllowForms"):
        setattr(dss.Settings, forbidden, False)
    return dss


def _new_context() -> Any:
    """The first one takes the process to the folder in which the library was loaded: back to where it was."""
    folder = Path.cwd()
    try:
        return altdss.NewContext()
    finally:
        if Path.cwd() != folder:  # a confined process cannot move, and has not been moved
            os.chdir(folder)


def give_back(dss: Any) -> None:
    """Empty a context and keep it for the next engine."""
    dss.ClearAll()
    with _pool:
        _free.append(dss)


def compile_circuit(dss: Any, package: FeederPackage, line_scale: Mapping[str, float]) -> None:
    """Compile a package's circuit: its DER as generators, its switches in their normal states.

    Raises
    ------
    ModelError
        OpenDSS refuses the text, or something is not there that package or scale name.
    """
    try:
        dss.ClearAll()
        dss(f'Redirect "{package.circuit}"')
        _scale_lines(dss, package, line_scale)
        _prepare_driven(dss, package)
        dss("MakeBusList")
        dss.Solution.SolveDirect()  # node numbers are known from here on
    except DSSException as error:
        raise ModelError(f"{package.id}: {_words(error)}") from error
    known = {*LINEAR, *DRIVEN, *WITHOUT_CURRENT}
    strange = sorted({kind for kind in map(_class_of, dss.Element) if kind not in known})
    if strange:
        raise ModelError(f"{package.id}: elements of class {', '.join(strange)} are not supported")


def _words(error: DSSException) -> str:
    """The message of OpenDSS, with file and line, on one line."""
    return re.sub(r"\s+", " ", str(error.args[-1]))


def _class_of(element: Any) -> str:
    return str(element.FullName()).partition(".")[0].lower()


def _scale_lines(dss: Any, package: FeederPackage, line_scale: Mapping[str, float]) -> None:
    if not line_scale:
        return
    names = [name.lower() for name in dss.Line.Name]
    unknown = line_scale.keys() - set(names)
    if unknown:
        raise ModelError(f"{package.id}: no line {', '.join(sorted(unknown))}")
    dss.Line.Length = dss.Line.Length.to_array() * np.array([line_scale.get(name, 1.0) for name in names])


def _prepare_driven(dss: Any, package: FeederPackage) -> None:
    """Let what is set from outside carry what it is given, and nothing inside the circuit move it."""
    for name in OWN_CONTROLS:
        if len(getattr(dss, name)):
            dss(f"BatchEdit {name}..* enabled=no")
    for der in package.ders:
        if der.element.lower() == NEW:
            _add(dss, package, der)
        elif not der.element.lower().startswith("generator."):
            _stand_in(dss, package, der)
    if not package.own:
        for name in ("Load", "Generator"):
            if len(getattr(dss, name)):
                dss(f"BatchEdit {name}..* vminpu={V_SERVED_MIN_PU} vmaxpu={V_SERVED_MAX_PU}")


def _stand_in(dss: Any, package: FeederPackage, der: DerBinding) -> None:
    """A generator in the place of a PVSystem or Storage: setting those would rebuild the admittances each time."""
    kind, _, name = der.element.partition(".")
    elements = {"pvsystem": dss.PVSystem, "storage": dss.Storage}.get(kind.lower())
    if elements is None or name.lower() not in (present.lower() for present in elements.Name):
        raise ModelError(f"{package.id}: no generator, PVSystem or Storage {der.element!r} for DER {der.id}")
    there = elements[name]
    connection = "delta" if there.Conn else "wye"
    _generator(dss, der, f"bus1={there.Bus1} phases={there.Phases} conn={connection} kv={there.kV}")
    dss(f"Disable {der.element}")


def _add(dss: Any, package: FeederPackage, der: DerBinding) -> None:
    """A generator at a bus, for a DER that the circuit lacks: to neutral or between phases as its class has it."""
    bus = next((bus for bus in dss.Bus if bus.Name.lower() == der.bus.lower()), None)
    if bus is None:
        raise ModelError(f"{package.id}: no bus {der.bus!r} for DER {der.id}")
    there = {int(node) for node in bus.Nodes if node <= 3}
    phases = sorted(set(der.phases) or there)
    base_v = float(bus.kVBase) * 1e3
    between = _class_at(package, der.bus, base_v).between
    least = 2 if between is Between.PHASES else 1
    if len(phases) < least or not there.issuperset(phases):
        has = ", ".join(map(str, sorted(there)))
        raise ModelError(
            f"{package.id}: bus {der.bus} has phases {has}; DER {der.id} asks for {phases}, {least} at least"
        )
    delta = between is Between.PHASES
    count = 1 if delta and len(phases) == 2 else len(phases)
    kv = base_v / 1e3 * (float(np.sqrt(3.0)) if delta or count > 1 else 1.0)
    place = f"{der.bus}.{'.'.join(map(str, phases))}"
    _generator(dss, der, f"bus1={place} phases={count} conn={'delta' if delta else 'wye'} kv={kv}")


def _generator(dss: Any, der: DerBinding, place: str) -> None:
    dss(
        f"New Generator.{STAND_IN}{der.id} {place}"
        f" kva={der.s_rated_va / 1e3} model=1 kw=0 kvar=0 vminpu={V_SERVED_MIN_PU} vmaxpu={V_SERVED_MAX_PU}"
    )


def generator_of(der: DerBinding) -> str:
    """Bare name of the generator that stands for a DER, lower case."""
    kind, _, name = der.element.lower().partition(".")
    return name if kind == "generator" else f"{STAND_IN}{der.id}".lower()


def layout_of(dss: Any, package: FeederPackage) -> FeederLayout:
    """Resolve every name of a package in its compiled circuit; raises ModelError with all that are not there."""
    nodes = tuple(name.lower() for name in dss.YNodeOrder())
    points, point_node, v_base_v, v_range = _points(dss, package, nodes)
    rows = [dss.Generator.Name.index(name) for name in _generators(dss, package)]
    driven = [*dss.Load, *(dss.Generator[row] for row in rows)]
    branches = [(index, *branch) for index, element in enumerate(driven) for branch in _branches(element)]
    branch_node = np.array([branch[1:3] for branch in branches], dtype=np.intp).reshape(-1, 2)
    element = np.array([branch[0] for branch in branches], dtype=np.intp)
    share = 1.0 / np.bincount(element, minlength=len(driven))[element]
    loads = dss.Load
    first_branch = np.searchsorted(element, np.arange(len(loads), len(driven)))
    return FeederLayout(
        nodes=nodes,
        points=points,
        point_node=point_node,
        v_base_v=v_base_v,
        v_min_pu=v_range[:, 0],
        v_max_pu=v_range[:, 1],
        loads=tuple(name.lower() for name in loads.Name),
        nominal_load_w=_values(loads.kW) * 1e3,
        nominal_load_var=_values(loads.kvar) * 1e3,
        load_phase=_load_phases(nodes, branch_node, element, len(loads)),
        load_exponent=np.array([_exponents(load) for load in loads]).reshape(-1, 2).T,
        ders=tuple(der.id for der in package.ders),
        der_point=_points_at(point_node, branch_node[first_branch]),
        branch_element=element,
        branch_node=branch_node,
        branch_share=share,
        branch_nominal_v=np.array([branch[3] for branch in branches]),
        regulators=tuple(name.lower() for name in dss.RegControl.Name),
        regulated=tuple(str(control.Transformer.FullName()).lower() for control in dss.RegControl),
        capacitors=tuple(name.lower() for name in dss.Capacitor.Name),
        capacitor_steps=np.array([bank.NumSteps for bank in dss.Capacitor], dtype=np.intp),
        switches=_switches(dss, package),
        lines=tuple(name.lower() for name in dss.Line.Name),
        buses=tuple(bus.Name.lower() for bus in dss.Bus),
        bus_xy=np.array([(bus.X, bus.Y) if bus.CoordDefined else (np.nan, np.nan) for bus in dss.Bus]),
        spans=_spans(dss),
    )


def _spans(dss: Any) -> tuple[tuple[str, str, str], ...]:
    joined = [(str(line.FullName()).lower(), (line.Bus1, line.Bus2)) for line in dss.Line]
    joined += [(str(transformer.FullName()).lower(), transformer.Buses) for transformer in dss.Transformer]
    return tuple(
        (name, first.partition(".")[0].lower(), other.partition(".")[0].lower())
        for name, (first, *others) in joined
        for other in others
    )


def _values(proxy: Any) -> FloatArray:
    return np.array(proxy.to_array(), dtype=np.float64) if len(proxy) else np.zeros(0)


def _generators(dss: Any, package: FeederPackage) -> list[str]:
    """Names, as OpenDSS writes them, of the generators of all DER."""
    there = {name.lower(): name for name in dss.Generator.Name}
    wanted = [generator_of(der) for der in package.ders]
    if missing := sorted(set(wanted) - there.keys()):
        raise ModelError(f"{package.id}: no generator {', '.join(missing)}")
    return [there[name] for name in wanted]


def _switches(dss: Any, package: FeederPackage) -> tuple[str, ...]:
    lines = {f"line.{name.lower()}" for name in dss.Line.Name}
    named = tuple(switch.element.lower() for switch in package.switches)
    if missing := sorted(set(named) - lines):
        raise ModelError(f"{package.id}: no line for the switches {', '.join(missing)}")
    for switch in package.switches:
        if switch.normal is SwitchState.OPEN:
            dss.Line[switch.element.partition(".")[2]].Open(1, 0)
    return named


def _points(
    dss: Any, package: FeederPackage, nodes: tuple[str, ...]
) -> tuple[tuple[str, ...], IntArray, FloatArray, FloatArray]:
    """Names, nodes (points, 2), bases [V] and ranges (points, 2) of all points, in the order of the nodes."""
    position = {node: index for index, node in enumerate(nodes)}
    base_v = {bus.Name.lower(): float(bus.kVBase) * 1e3 for bus in dss.Bus}
    phases: dict[str, list[int]] = {}
    for node in nodes:
        bus, _, conductor = node.rpartition(".")
        phases.setdefault(bus, []).append(int(conductor))
    names: list[str] = []
    places: list[tuple[int, int]] = []
    bases: list[float] = []
    ranges: list[tuple[float, float]] = []
    for bus, there in phases.items():
        limit = _class_at(package, bus, base_v[bus])
        for name, phase, other in points_of(bus, there, limit.between):
            names.append(name)
            places.append((position[f"{bus}.{phase}"], position[f"{bus}.{other}"] if other else GROUND))
            bases.append(base_v[bus] * (np.sqrt(3.0) if limit.between is Between.PHASES else 1.0))
            ranges.append((limit.v_min_pu, limit.v_max_pu))
    return tuple(names), np.array(places, dtype=np.intp).reshape(-1, 2), np.array(bases), np.array(ranges)


def _class_at(package: FeederPackage, bus: str, base_v: float) -> VoltageLimits:
    """The voltage class of a bus by its base, line to neutral [V]."""
    try:
        return voltage_class(package.limits, base_v * np.sqrt(3.0))
    except ModelError as error:
        raise ModelError(f"{package.id}: bus {bus}: {error}") from error


def _branches(element: Any) -> list[tuple[int, int, float]]:
    """Single-phase branches of a load or generator: two nodes (GROUND for none) and nominal voltage [V]."""
    reference = np.asarray(element.NodeRef(), dtype=np.intp) - 1
    phases, delta, v_v = int(element.Phases), bool(element.Conn), float(element.kV) * 1e3
    if delta and phases == 1:
        return [(int(reference[0]), int(reference[1]), v_v)]
    if delta:
        count = len(reference)
        return [(int(reference[i]), int(reference[(i + 1) % count]), v_v) for i in range(phases)]
    neutral_v = v_v if phases == 1 else v_v / np.sqrt(3.0)
    return [(int(reference[i]), int(reference[phases]), float(neutral_v)) for i in range(phases)]


def _exponents(load: Any) -> tuple[float, float]:
    """How active and reactive power of an OpenDSS load model go with voltage, near nominal."""
    model = int(load.Model)
    if model == 8:
        zip_v = load.ZIPV
        return 2.0 * zip_v[0] + zip_v[1], 2.0 * zip_v[3] + zip_v[4]
    if model == 4:
        return float(load.CVRWatts), float(load.CVRVars)
    return {1: (0.0, 0.0), 2: (2.0, 2.0), 3: (0.0, 2.0), 5: (1.0, 1.0), 6: (0.0, 2.0)}.get(model, (0.0, 0.0))


def _load_phases(nodes: tuple[str, ...], branch_node: IntArray, element: IntArray, loads: int) -> IntArray:
    """Phase of loads with one branch to neutral, else -1."""
    found = np.full(loads, -1, dtype=np.intp)
    counts = np.bincount(element, minlength=loads)
    for index, (node, other) in zip(element, branch_node, strict=True):
        phase = int(nodes[node].rpartition(".")[2])
        if index < loads and counts[index] == 1 and other == GROUND and phase <= 3:
            found[index] = phase - 1
    return found


def _points_at(point_node: IntArray, ends: IntArray) -> IntArray:
    """The point at each pair of nodes, in either direction; else the first point with the first node."""
    by_ends = {frozenset((int(one), int(other))): index for index, (one, other) in enumerate(point_node)}
    by_node: dict[int, int] = {}
    for index, (one, other) in enumerate(point_node):
        by_node.setdefault(int(one), index)
        by_node.setdefault(int(other), index)
    found = [by_ends.get(frozenset((int(a), int(b))), by_node.get(int(a), 0)) for a, b in ends]
    return np.array(found, dtype=np.intp)
