"""A feeder's names turned into positions, once: nodes, voltage points, loads, DER and what is switched.

A point is where a voltage is reported: a node against neutral (`65.2`), or two phases against each other on three-wire
parts (`701.1-2`), by the voltage class of the bus.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from derms.domain.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from derms.domain.grid import Between, VoltageLimits
from derms.errors import GridError, ModelError

GROUND = -1
"""In place of a node: neutral or ground."""
V_DEAD_PU = 1e-3
"""Below this a point is dead: no source reaches it."""


@dataclass(frozen=True, eq=False)
class FeederLayout:
    """Positions in a compiled circuit; they hold for as long as the engine lives."""

    nodes: tuple[str, ...]
    """`bus.phase`, lower case, in the order of the admittance matrix."""
    points: tuple[str, ...]
    point_node: IntArray
    """The node of each point and the one it is measured against (GROUND: neutral), shape (points, 2)."""
    v_base_v: FloatArray
    """Base of each point, between what it stands between [V], shape (points,)."""
    v_min_pu: FloatArray
    """Allowed range of each point, shape (points,)."""
    v_max_pu: FloatArray
    loads: tuple[str, ...]
    nominal_load_w: FloatArray
    """Loads as they stand in the circuit [W], shape (loads,)."""
    nominal_load_var: FloatArray
    load_phase: IntArray
    """Phase of every load, 0..2; -1 where it is on more than one, shape (loads,)."""
    load_exponent: FloatArray
    """How active and reactive load go with voltage, s = s0 |u/u0|^exponent, shape (2, loads)."""
    ders: tuple[str, ...]
    """Ids of the package's DER, in its order."""
    der_point: IntArray
    """Point at each DER, on its first phase, shape (ders,)."""
    branch_element: IntArray
    """Load, or loads + DER, that a single-phase branch belongs to, shape (branches,)."""
    branch_node: IntArray
    """Its two nodes, GROUND for neutral, shape (branches, 2)."""
    branch_share: FloatArray
    """Its share of the element's power, shape (branches,)."""
    branch_nominal_v: FloatArray
    """Voltage at which a load takes its nominal power [V], shape (branches,)."""
    regulators: tuple[str, ...]
    regulated: tuple[str, ...]
    """Full name of the transformer that each regulator moves, lower case."""
    capacitors: tuple[str, ...]
    capacitor_steps: IntArray
    """Steps that each bank has, shape (capacitors,)."""
    switches: tuple[str, ...]
    """Full names of the lines that the package calls switches."""
    lines: tuple[str, ...]
    buses: tuple[str, ...]
    bus_xy: FloatArray
    """Where each bus is drawn, in the circuit's own coordinates; NaN where they say nothing, shape (buses, 2)."""
    spans: tuple[tuple[str, str, str], ...]
    """Lines and transformers: full name and the two buses that it joins (windings beyond the second give one each)."""

    @cached_property
    def _ends(self) -> tuple[IntArray, IntArray, IntArray]:
        """First node of every point, the points between two phases, and the second node of those."""
        between = np.flatnonzero(self.point_node[:, 1] != GROUND)
        return self.point_node[:, 0].copy(), between, self.point_node[between, 1]

    def v_pu(self, v_v: ComplexArray) -> FloatArray:
        """Voltages of the points [pu] of node voltages [V], shape (..., nodes) to (..., points)."""
        first, between, second = self._ends
        across = v_v.take(first, axis=-1)
        if len(between):
            across[..., between] -= v_v.take(second, axis=-1)
        magnitudes: FloatArray = np.abs(across) / self.v_base_v
        return magnitudes

    def violating(self, v_pu: FloatArray) -> BoolArray:
        """Points outside their range, shape (..., points); NaN counts as outside, a dead point does not."""
        inside = (v_pu >= self.v_min_pu) & (v_pu <= self.v_max_pu)
        return ~(inside | (v_pu < V_DEAD_PU))

    def excess_pu(self, v_pu: FloatArray) -> FloatArray:
        """How far each point is outside its range [pu], 0 inside and at dead points, shape (..., points)."""
        outside = np.maximum(np.maximum(self.v_min_pu - v_pu, v_pu - self.v_max_pu), 0.0)
        return np.where(v_pu < V_DEAD_PU, 0.0, outside)

    def bus_points(self, bus: str) -> IntArray:
        """Points on phases a, b, c (or from a to b, b to c, c to a) of a bus, -1 where it lacks one, shape (3,).

        Raises ModelError for a bus that is not there.
        """
        found = np.full(3, -1, dtype=np.intp)
        for index, point in enumerate(self.points):
            name, _, phases = point.rpartition(".")
            if name == bus.lower():
                found[int(phases[0]) - 1] = index
        if (found < 0).all():
            raise ModelError(f"no bus {bus!r} with a voltage")
        return found

    def row(self, what: str, names: Sequence[str], name: str) -> int:
        """Position of a name, in any case; raises ModelError with what it is that is not there."""
        try:
            return names.index(name.lower())
        except ValueError:
            raise ModelError(f"no {what} {name!r}; there are {', '.join(names) or 'none'}") from None


def column(what: str, values: FloatArray, count: int) -> FloatArray:
    """A copy of a column that is to be written; raises GridError for another shape or values that are not finite."""
    copied = np.array(values, dtype=np.float64)
    if copied.shape != (count,):
        raise GridError(f"{what}: {count} values expected, shape {copied.shape} given")
    if not np.isfinite(copied).all():
        raise GridError(f"{what}: {np.count_nonzero(~np.isfinite(copied))} values are not finite")
    return copied


def voltage_class(limits: Sequence[VoltageLimits], v_base_v: float) -> VoltageLimits:
    """The class with the lowest ceiling that a base voltage [V line to line] fits under.

    Raises ModelError for a base that is missing (0) or above all classes.
    """
    fitting = [limit for limit in limits if v_base_v <= limit.v_base_max_v]
    if not v_base_v > 0.0 or not fitting:
        raise ModelError(f"no voltage class for a base of {v_base_v:.0f} V line to line")
    return min(fitting, key=lambda limit: limit.v_base_max_v)


def points_of(bus: str, phases: Iterable[int], between: Between) -> list[tuple[str, int, int]]:
    """Points of a bus with these phases (1..3): name, phase, and the phase it is measured against (0: neutral)."""
    there = sorted(phase for phase in phases if phase <= 3)
    if between is Between.NEUTRAL:
        return [(f"{bus}.{phase}", phase, 0) for phase in there]
    pairs = [(phase, phase % 3 + 1) for phase in there if phase % 3 + 1 in there]
    return [(f"{bus}.{one}-{other}", one, other) for one, other in pairs]
