"""The admittances of a compiled circuit's elements, read once, and again where something can have moved.

Only `opendss.py` uses this.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from derms.domain.arrays import ComplexArray, IntArray
from derms.domain.grid import FeederPackage
from derms.errors import ModelError
from derms.grid.compiled import LINEAR
from derms.grid.layout import FeederLayout
from derms.grid.network import Blocks, Network

AMPERES_UNRATED = (400.0, 600.0)
"""Normal and emergency rating of a line of which nobody said any: OpenDSS's defaults, which rate nothing."""


_Named = tuple[Any, str, str]
"""An element of AltDSS, its class and its name."""


class LinearPart:
    """Everything of a circuit but loads, DER and controls.

    Raises
    ------
    ModelError
        The package's head is no line or transformer of the circuit.
    """

    def __init__(self, dss: Any, package: FeederPackage, layout: FeederLayout) -> None:
        named = [(element, *_class_and_name(element)) for element in dss.Element]
        linear = [(e, kind, name) for e, kind, name in named if kind in LINEAR and e.Enabled]
        references = [np.asarray(e.NodeRef(), dtype=np.intp) for e, _, _ in linear]
        regulated = {str(control.Transformer.FullName()).lower() for control in dss.RegControl}
        moving = regulated | set(layout.switches)
        names = [f"{kind}.{name}" for _, kind, name in linear]
        kinds = [kind for _, kind, _ in linear]
        self._movable = {row for row, name in enumerate(names) if kinds[row] == "capacitor" or name in moving}
        self._lines = [row for row, kind in enumerate(kinds) if kind == "line"]
        self._read_next = {row: element for row, (element, _, _) in enumerate(linear)}
        head = package.head_element.lower()
        if head not in names or head.partition(".")[0] not in ("line", "transformer"):
            raise ModelError(f"{package.id}: {package.head_element!r} is no line or transformer for a head")
        self._find_currents(linear, references, names.index(head))
        self._blocks = Blocks(references, len(layout.nodes), self._lines, self._conductors)

    def head_va(self) -> ComplexArray:
        """Power into the feeder [VA], phases a, b, c, shape (3,); 0 on a phase that it lacks."""
        drawn: ComplexArray = self._head.Powers()[self._head_conductors] * 1e3
        if self._head_phases is None:
            return drawn
        powers = np.zeros(3, dtype=np.complex128)
        powers[self._head_phases] = drawn
        return powers

    def read(self) -> Network:
        """The network as it stands; after the first time only what can move is read again."""
        for at, element in self._read_next.items():
            self._blocks.put(at, element.YPrim())
        if len(self._read_next) > len(self._movable):  # an element of AltDSS is some kilobytes
            self._read_next = {at: self._read_next[at] for at in sorted(self._movable)}
        return Network(
            y=self._blocks.matrix(),
            current=self._blocks.currents(),
            current_names=self._current_names,
            rating_a=self._rating_a,
            head_rows=self._head_rows,
            head_nodes=self._head_nodes,
            line_entry=self._blocks.line_entries(),
            line_row=self._blocks.line_row,
            line_column=self._blocks.line_column,
            line_of=self._blocks.line_of,
            lines=len(self._lines),
        )

    def _find_currents(self, linear: Sequence[_Named], references: Sequence[IntArray], head: int) -> None:
        """List the phase currents at terminal 1 of lines and transformers, and those of the head among them."""
        conductors: list[tuple[int, int, int]] = []
        names: list[str] = []
        ratings: list[float] = []
        self._head_rows: IntArray = np.full(3, -1, dtype=np.intp)
        self._head_nodes: IntArray = np.full(3, -1, dtype=np.intp)
        for row, (element, kind, name) in enumerate(linear):
            if kind not in ("line", "transformer", "autotrans"):
                continue
            order, reference = element.NodeOrder(), references[row]
            for at in (at for at in range(element.NumConductors()) if 1 <= order[at] <= 3):
                if row == head:
                    self._head_rows[order[at] - 1], self._head_nodes[order[at] - 1] = len(names), reference[at] - 1
                conductors.append((row, at, len(reference)))
                names.append(f"{kind}.{name}.{order[at]}")
                ratings.append(_rating_a(kind, element))
        self._conductors, self._current_names = conductors, tuple(names)
        self._rating_a = np.array(ratings)
        self._head = linear[head][0]
        order = np.asarray(self._head.NodeOrder()[: self._head.NumConductors()])
        self._head_conductors: IntArray | slice = np.flatnonzero((order >= 1) & (order <= 3))
        self._head_phases: IntArray | None = order[self._head_conductors] - 1
        if order[:3].tolist() == [1, 2, 3]:
            self._head_conductors, self._head_phases = slice(3), None


def _class_and_name(element: Any) -> tuple[str, str]:
    kind, _, name = str(element.FullName()).lower().partition(".")
    return kind, name


def _rating_a(kind: str, element: Any) -> float:
    """Continuous rating of a phase at terminal 1 [A]; NaN where the circuit gives none."""
    if kind == "line":
        amperes = float(element.NormAmps), float(element.EmergAmps)
        return float("nan") if amperes == AMPERES_UNRATED else amperes[0]
    kva, kv = float(element.kVAs[0]), float(element.kVs[0])
    return kva / kv / (1.0 if element.Phases == 1 else float(np.sqrt(3.0)))
