"""The linear part of a feeder: admittances of everything but loads and DER, at the present taps and switches.

The source's Thevenin impedance is inside, so that no node needs to be a reference. Amperes, volts, siemens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csc_array, csr_array

from derms.domain.arrays import AnyArray, BoolArray, ComplexArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Network:
    """Valid until a tap, a capacitor or a switch moves."""

    y: csc_array
    """Node admittances [S], shape (nodes, nodes)."""
    current: csr_array
    """Gives the currents into terminal 1 of lines and transformers from node voltages [A], shape (currents, nodes)."""
    current_names: tuple[str, ...]
    """`line.l1.2`: element and phase."""
    rating_a: FloatArray
    """What each may carry all the time [A], NaN where nobody says, shape (currents,)."""
    head_rows: IntArray
    """Currents into the feeder's head, phases a, b, c; -1 where it lacks one, shape (3,)."""
    head_nodes: IntArray
    """Nodes of these, shape (3,)."""
    line_entry: ComplexArray
    """Admittances of the single lines, entry by entry [S], shape (entries,)."""
    line_row: IntArray
    """Node of each entry's row, column and the line it belongs to, each of shape (entries,)."""
    line_column: IntArray
    line_of: IntArray
    lines: int

    def overload(self, v_v: ComplexArray) -> float:
        """Loading beyond the rating, summed over all phases that have a rating."""
        loading = self.loading(v_v)
        return float((loading[loading > 1.0] - 1.0).sum())

    def line_draw(self, v_v: ComplexArray) -> csc_array:
        """Currents that each line draws from its nodes at both ends [A], shape (nodes, lines)."""
        entries = (self.line_entry * v_v[self.line_column], (self.line_row, self.line_of))
        return coo_array(entries, shape=(self.y.shape[0], self.lines)).tocsc()

    def loading(self, v_v: ComplexArray) -> FloatArray:
        """Current over rating of every line and transformer phase, NaN without a rating, shape (currents,)."""
        shares: FloatArray = np.abs(self.current @ v_v) / self.rating_a
        return shares


class Pattern:
    """Where the entries of a sparse matrix go, found once; whenever their values change they are only added up.

    Parameters
    ----------
    major, minor
        Row and column of every entry, or column and row for a matrix in columns; several may meet, shape (entries,).
    majors
        How many rows, or columns, it has.
    """

    def __init__(self, major: IntArray, minor: IntArray, majors: int) -> None:
        self._order = np.lexsort((minor, major))
        major, minor = major[self._order], minor[self._order]
        first = np.ones(len(major), dtype=np.bool_)
        first[1:] = (np.diff(major) != 0) | (np.diff(minor) != 0)
        self._first = np.flatnonzero(first)
        self.indices = minor[first].astype(np.int32)
        self.starts = np.searchsorted(major[first], np.arange(majors + 1)).astype(np.int32)
        for shared in (self.indices, self.starts):
            shared.flags.writeable = False  # all matrices of this pattern stand on them

    def filled(self, values: ComplexArray) -> tuple[ComplexArray, AnyArray, AnyArray]:
        """What scipy makes the matrix of: values, indices and starts."""
        summed: ComplexArray = np.add.reduceat(values[self._order], self._first) if len(values) else values
        return summed, self.indices, self.starts


class Blocks:
    """Admittance matrices of single elements, kept apart so that one that moves is read again by itself.

    Parameters
    ----------
    references
        Nodes of the conductors of every element, 1-based as OpenDSS gives them, 0 for ground.
    lines
        Which of the elements are lines.
    conductors
        Those whose currents are asked for, each by element, place among its conductors and their number.
    """

    def __init__(
        self,
        references: Sequence[IntArray],
        nodes: int,
        lines: Sequence[int],
        conductors: Sequence[tuple[int, int, int]],
    ) -> None:
        sizes = np.array([len(reference) for reference in references], dtype=np.intp)
        self._starts = np.concatenate([[0], np.cumsum(sizes**2)])
        self._values = np.zeros(self._starts[-1], dtype=np.complex128)
        # OpenDSS gives a block column after column.
        rows = _joined([np.tile(reference - 1, len(reference)) for reference in references])
        columns = _joined([np.repeat(reference - 1, len(reference)) for reference in references])
        kept = (rows >= 0) & (columns >= 0)
        self._shape = (nodes, nodes)
        self._kept = np.flatnonzero(kept)
        self._pattern = Pattern(columns[kept], rows[kept], nodes)
        self._find_lines(lines, rows, columns, kept)
        self._find_currents(conductors, columns)

    def put(self, element: int, block: ComplexArray) -> None:
        """Replace the admittances of an element."""
        self._values[self._starts[element] : self._starts[element + 1]] = block

    def matrix(self) -> csc_array:
        """All elements together, shape (nodes, nodes)."""
        return csc_array(self._pattern.filled(self._values[self._kept]), shape=self._shape)

    def currents(self) -> csr_array:
        """Gives the currents of the conductors asked for from node voltages, shape (conductors, nodes)."""
        filled = self._current_pattern.filled(self._values[self._current_entry])
        return csr_array(filled, shape=(self._conductors, self._shape[1]))

    def line_entries(self) -> ComplexArray:
        """Admittances of the lines, entry by entry; `line_row`, `line_column`, `line_of` say where each belongs."""
        values: ComplexArray = self._values[self._line_entry]
        return values

    def _find_lines(self, lines: Sequence[int], rows: IntArray, columns: IntArray, kept: BoolArray) -> None:
        places = [np.arange(self._starts[line], self._starts[line + 1]) for line in lines]
        owner = np.repeat(np.arange(len(lines)), [len(place) for place in places])
        entry = _joined(places)
        self._line_entry = entry[kept[entry]]
        self.line_row, self.line_column = rows[self._line_entry], columns[self._line_entry]
        self.line_of = owner[kept[entry]]

    def _find_currents(self, conductors: Sequence[tuple[int, int, int]], columns: IntArray) -> None:
        places = [self._starts[element] + np.arange(size) * size + at for element, at, size in conductors]
        owner = np.repeat(np.arange(len(places)), [len(place) for place in places])
        entry = _joined(places)
        there = columns[entry] >= 0
        self._current_entry, self._conductors = entry[there], len(places)
        self._current_pattern = Pattern(owner[there], columns[self._current_entry], len(places))


def _joined(parts: Sequence[IntArray]) -> IntArray:
    joined: IntArray = np.concatenate(parts).astype(np.intp) if parts else np.zeros(0, dtype=np.intp)
    return joined
