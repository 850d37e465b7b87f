"""Which registers one poll reads, and how the bytes of many readings become columns at once.

Signs as the models have them: inverter power (701, 101-103) + = injection, meter power (201-204) + = import.
All points read here are single registers, so that a whole shard decodes as one matrix of words.
Source: SunSpec models 101-103, 124, 201-204, 701, 713.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from derms.domain.arrays import ByteArray, FloatArray, IntArray
from derms.domain.telemetry import COLUMNS
from derms.errors import DeviceMismatch
from drivers.modbus.transport import MAX_READ
from drivers.sunspec.codec import MAX_EXPONENT, model_layout
from drivers.sunspec.models import Point, sentinel
from drivers.sunspec.scan import Chain, Place

MEASUREMENTS_701 = 123
"""Registers of 701 with every measurement and scale factor; only the alarm text lies beyond."""
BESIDE = ((704, 713), (123, 124))
"""Models read with it, each pair in one request where it fits one."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a column comes from: points of a model, one or one per phase."""

    models: tuple[int, ...]
    points: tuple[str, ...]
    factor: float = 1.0


_INVERTERS = (103, 102, 101)
METERS = (203, 204, 202, 201)
INVERTERS = (701, *_INVERTERS)
MEASURING = (*INVERTERS, *METERS)
"""Models that measure AC power, the most telling first; one of them is read."""
_PERCENT = 0.01
SOURCES: Mapping[str, tuple[_Source, ...]] = {
    "p_w": (_Source((701, *_INVERTERS, *METERS), ("W",)),),
    "q_var": (_Source((701,), ("Var",)), _Source(_INVERTERS, ("VAr",)), _Source(METERS, ("VAR",))),
    "v_v": (
        _Source((701,), ("LNV",)),
        _Source((701,), ("VL1",)),
        _Source((701,), ("LLV",)),
        _Source(_INVERTERS, ("PhVphA",)),
        _Source(METERS, ("PhV",)),
    ),
    "soc_frac": (_Source((713,), ("SoC",), _PERCENT), _Source((124,), ("ChaState",), _PERCENT)),
    "p_phase_w": (_Source(METERS, ("WphA", "WphB", "WphC")),),
    "q_phase_var": (_Source(METERS, ("VARphA", "VARphB", "VARphC")),),
    "v_phase_v": (_Source(METERS, ("PhVphA", "PhVphB", "PhVphC")),),
}
"""Sources of every column, the first that a device implements wins."""

_SIGN_BIT = 0x8000
_SCALES = np.full(0x10000, np.nan)
_SCALES[np.arange(-MAX_EXPONENT, MAX_EXPONENT + 1)] = 10.0 ** np.arange(-MAX_EXPONENT, MAX_EXPONENT + 1)
"""Scale by the word of a sunssf point (negative exponents index from the end, as two's complement does)."""


@dataclass(frozen=True, slots=True)
class Span:
    """One read request."""

    address: int
    count: int


@dataclass(frozen=True, slots=True)
class Part:
    """One model within a reading."""

    model_id: int
    start: int
    """Registers before it."""
    count: int


@dataclass(frozen=True)
class SunSpecLayout:
    """The models of a reading and where they stand in it; devices with equal ones decode together."""

    registers: int
    parts: tuple[Part, ...]

    @property
    def width(self) -> int:
        return 2 * self.registers

    @property
    def measures(self) -> bool:
        """Whether there is any point to decode."""
        return any(True for _ in self._sources())

    def measured(self, raw: bytes) -> bytes:
        """The measuring model's bytes: the controls beside it move with every write and running timer."""
        return raw[: 2 * self.parts[0].count]

    def decode(self, raw: ByteArray) -> Mapping[str, FloatArray]:
        """Decode k readings, shape (k, width), to the COLUMNS; NaN is `not implemented`."""
        fields = self._fields
        words = np.ascontiguousarray(raw).view(">u2")
        found = words[:, fields.word]
        values = found.astype(np.float64) - fields.signed * (0x10000 * (found >= _SIGN_BIT))
        values *= _SCALES[words[:, fields.scale_word]] * fields.factor
        values[found == fields.sentinel] = np.nan
        return {name: _first_implemented(values, fields.columns[name], name) for name in COLUMNS}

    @cached_property
    def _fields(self) -> "_Fields":
        columns: dict[str, list[tuple[int, ...]]] = {name: [] for name in COLUMNS}
        rows: list[tuple[int, int, int, bool, float]] = []
        for name, source, part in self._sources():
            points = [model_layout(part.model_id).points[point] for point in source.points]
            columns[name].append(tuple(range(len(rows), len(rows) + len(points))))
            rows.extend(_row(part, point, source.factor) for point in points)
        word, scale_word, absent, signed, factor = zip(*rows, strict=True)
        return _Fields(
            word=np.array(word, dtype=np.intp),
            scale_word=np.array(scale_word, dtype=np.intp),
            sentinel=np.array(absent, dtype=np.intp),
            signed=np.array(signed, dtype=np.float64),
            factor=np.array(factor, dtype=np.float64),
            columns=columns,
        )

    def _sources(self) -> Iterator[tuple[str, _Source, Part]]:
        for name in COLUMNS:
            for source in SOURCES[name]:
                for part in self.parts:
                    if part.model_id in source.models and _within(part, source.points):
                        yield name, source, part


@dataclass(frozen=True, slots=True)
class _Fields:
    """A layout's fields as columns, shape (fields,), and the fields of every column of the house."""

    word: IntArray
    scale_word: IntArray
    sentinel: IntArray
    signed: FloatArray
    factor: FloatArray
    columns: Mapping[str, list[tuple[int, ...]]]


def read_plan(chain: Chain) -> tuple[SunSpecLayout, tuple[Span, ...]]:
    """The requests of one poll and the layout of their bytes one after the other.

    Raises DeviceMismatch when the device measures nothing.
    """
    measuring = next((place for model_id in MEASURING if (place := chain.find(model_id))), None)
    if measuring is None:
        raise DeviceMismatch(f"the device has none of the measuring models {', '.join(map(str, MEASURING))}")
    blocks = [[measuring]]
    for pair in BESIDE:
        blocks.extend(_joined([place for model_id in pair if (place := chain.find(model_id))]))
    spans: list[Span] = []
    parts: list[Part] = []
    start = 0
    for block in blocks:
        first, last = block[0], block[-1]
        limit = MEASUREMENTS_701 if first.model_id == 701 else MAX_READ
        span = Span(first.address, min(last.address + last.size - first.address, limit))
        for place in block:
            before = place.address - first.address
            parts.append(Part(place.model_id, start + before, min(place.size, span.count - before)))
        spans.append(span)
        start += span.count
    layout = SunSpecLayout(start, tuple(parts))
    if not layout.measures:
        raise DeviceMismatch(f"the device's model {measuring.model_id} is too short to hold a measurement")
    return layout, tuple(spans)


def _joined(places: list[Place]) -> list[list[Place]]:
    """Blocks of places, in address order, that fit one request each; what lies between them is read along."""
    blocks: list[list[Place]] = []
    for place in sorted(places, key=lambda place: place.address):
        if blocks and place.address + place.size - blocks[-1][0].address <= MAX_READ:
            blocks[-1].append(place)
        else:
            blocks.append([place])
    return blocks


def _within(part: Part, names: Iterable[str]) -> bool:
    """Whether points and their scale factors lie within what is read of a model."""
    model = model_layout(part.model_id)
    points = [model.points[name] for name in names]
    scales = [scale for point in points if isinstance(scale := model.scale_of(point), Point)]
    return all(point.offset + point.size <= part.count for point in points + scales)


def _row(part: Part, point: Point, factor: float) -> tuple[int, int, int, bool, float]:
    scale = model_layout(part.model_id).scale_of(point)
    absent = sentinel(point.type)
    if point.size != 1 or not isinstance(scale, Point) or absent is None:
        raise ValueError(f"{point.name} of model {part.model_id} is not a single scaled register")
    return part.start + point.offset, part.start + scale.offset, absent & 0xFFFF, absent < 0, factor


def _first_implemented(values: FloatArray, sources: list[tuple[int, ...]], name: str) -> FloatArray:
    """A column from the first of its sources that is not NaN, row by row."""
    if not sources:
        return np.full((len(values), 3) if "phase" in name else len(values), np.nan)
    first, *others = (values[:, fields] if len(fields) > 1 else values[:, fields[0]] for fields in sources)
    for other in others:
        first = np.where(np.isnan(first), other, first)
    return first
