"""Points of any width from many readings at once: numpy index arrays instead of a loop over devices.

Source: SunSpec Device Information Model Specification 1.2, 4.4 (scale factors) and 4.5 (unimplemented points).
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from derms.domain.arrays import AnyArray, ByteArray, FloatArray, IntArray
from drivers.sunspec.codec import MAX_EXPONENT

_SCALES = np.full(0x10000, np.nan)
_SCALES[np.arange(-MAX_EXPONENT, MAX_EXPONENT + 1)] = 10.0 ** np.arange(-MAX_EXPONENT, MAX_EXPONENT + 1)
"""Scale by the word of a sunssf point (negative exponents index from the end, as two's complement does)."""


class Scale(NamedTuple):
    """What a field is multiplied by."""

    register: int
    """Of its sunssf point; -1 for a constant."""
    again: int
    """Where that point stands a second time, read after the value; else the same register."""
    factor: float


class Field(NamedTuple):
    """One point of a reading."""

    letter: str
    """Of its number format."""
    absent: tuple[int, ...]
    """Values that mean `not implemented`."""
    register: int
    size: int
    scale: Scale


class _Run(NamedTuple):
    """Fields of one format with the same sentinels, side by side among the words and among the values."""

    words: slice
    fields: slice
    wire: AnyArray
    """An empty array of their type on the wire."""
    absent: tuple[int, ...]


class Gather:
    """How the fields of one layout are taken from its readings."""

    def __init__(self, fields: Sequence[Field]) -> None:
        order = sorted(range(len(fields)), key=lambda number: _format(fields[number]))
        ordered = [fields[number] for number in order]
        scales = sorted({field.scale for field in fields}, key=lambda scale: (scale.register < 0, scale))
        read = [scale for scale in scales if scale.register >= 0]
        self._words = _indices(field.register + each for field in ordered for each in range(field.size))
        self._runs = list(_runs(ordered))
        self._floats = any(run.wire.dtype.kind == "f" for run in self._runs)
        """Whether a value may be infinite: no integer is, whatever its scale."""
        self._place = _indices(np.argsort(order))
        self._factors = np.array([scale.factor for scale in scales])
        self._scale_of = _indices(scales.index(field.scale) for field in fields)
        self._scale_words = _indices(scale.register for scale in read)
        self._scale_words_again = _indices(scale.again for scale in read)
        self._twice = not np.array_equal(self._scale_words, self._scale_words_again)

    def scale_bytes(self, raw: ByteArray) -> ByteArray:
        """The scale factors of k readings as they were read, shape (k, 2 * factors)."""
        return np.take(_registers(raw), self._scale_words, axis=1).view(np.uint8)

    def values(self, raw: ByteArray) -> FloatArray:
        """The scaled fields of k readings, shape (k, fields); NaN for what is not implemented or not finite."""
        registers = _registers(raw)
        words = np.take(registers, self._words, axis=1)
        numbers = np.empty((len(words), len(self._place)))
        for run in self._runs:
            counts = words[:, run.words].view(run.wire.dtype)
            with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN
                numbers[:, run.fields] = counts
            for absent in run.absent:
                np.copyto(numbers[:, run.fields], np.nan, where=counts == absent)
        values = np.take(numbers, self._place, axis=1)
        values *= np.take(self._scales(registers), self._scale_of, axis=1)
        if self._floats:
            np.copyto(values, np.nan, where=np.isinf(values))
        return values

    def _scales(self, registers: AnyArray) -> FloatArray:
        """Every scale of k readings, shape (k, scales); NaN for an invalid factor and for one that changed."""
        found = np.take(registers, self._scale_words, axis=1)
        scales = np.empty((len(found), len(self._factors)))
        scales[:] = self._factors
        scales[:, : found.shape[1]] *= np.take(_SCALES, found)
        if self._twice:
            changed = found != np.take(registers, self._scale_words_again, axis=1)
            np.copyto(scales[:, : found.shape[1]], np.nan, where=changed)
        return scales


def _runs(ordered: Sequence[Field]) -> Iterable[_Run]:
    at = word = 0
    for (letter, absent), group in groupby(ordered, key=_format):
        sizes = [field.size for field in group]
        wire = np.empty(0, dtype=">" + letter)
        yield _Run(slice(word, word + sum(sizes)), slice(at, at + len(sizes)), wire, absent)
        at, word = at + len(sizes), word + sum(sizes)


def _format(field: Field) -> tuple[str, tuple[int, ...]]:
    return field.letter, field.absent


def _indices(numbers: Iterable[int]) -> IntArray:
    return np.fromiter(numbers, dtype=np.intp)


def _registers(raw: ByteArray) -> AnyArray:
    """Readings as big-endian words, shape (k, registers)."""
    return np.ascontiguousarray(raw).view(">u2")
