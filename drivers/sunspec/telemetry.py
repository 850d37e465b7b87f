"""Which registers one poll reads, and how the bytes of many readings become columns at once.

The columns are those of derms.domain.telemetry, from the points in drivers.sunspec.sources.

Scale factors are read with every poll. Where a value and its factor do not fit one request, the factors are read
before and after the values, and values whose factor has changed in between are NaN until the next poll.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import takewhile
from operator import gt, lt
from typing import NamedTuple

import numpy as np

from derms.domain.arrays import ByteArray, FloatArray
from derms.domain.telemetry import COLUMNS, is_phase
from derms.errors import DeviceMismatch
from drivers.modbus.unit import MAX_READ, Span
from drivers.sunspec.gather import Field, Gather, Scale
from drivers.sunspec.models import Absent, Model, Point, model_layout, number_format, sentinel
from drivers.sunspec.scan import Chain, Place, apart, pieces
from drivers.sunspec.sources import BESIDE, MEASURING, SOURCES, Source


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of one model within a reading, from one request."""

    model_id: int
    first: int
    """Offset of its first register in the model."""
    count: int
    start: int
    """Registers of the reading before it."""

    def register(self, point: Point) -> int | None:
        """Where a point stands in the reading; None when the piece does not hold all of it."""
        whole = self.first <= point.offset and point.end <= self.first + self.count
        return self.start + point.offset - self.first if whole else None


class _Choice(NamedTuple):
    """A source of a column, by the numbers of the fields of its points."""

    source: Source
    lanes: list[int]
    """Which of the source's points these are: phases in columns that have them."""
    fields: list[int]
    when: list[int]
    unless: list[int]


@dataclass(frozen=True)
class SunSpecLayout:
    """The models of a reading and where they stand in it; devices with equal ones decode together."""

    registers: int
    parts: tuple[Part, ...]
    """The measuring model first."""
    absent: Absent = ()
    """Further values that mean `not implemented` on these devices."""

    @property
    def width(self) -> int:
        return 2 * self.registers

    @property
    def measures(self) -> bool:
        """Whether there is any point to decode."""
        return any(self._choices.values())

    def measured(self, raw: bytes) -> bytes:
        """The measuring model's bytes: the controls beside it move with every write and running timer."""
        return raw[: self._measured_bytes]

    def scales(self, raw: ByteArray) -> ByteArray:
        """The scale factors of k readings as they were read, shape (k, 2 * factors)."""
        return self._gather.scale_bytes(raw)

    def decode(self, raw: ByteArray) -> Mapping[str, FloatArray]:
        """Decode k readings, shape (k, width), to the COLUMNS; NaN is `not implemented`."""
        values = self._gather.values(raw)
        return {name: _column(values, self._choices[name], is_phase(name)) for name in COLUMNS}

    @cached_property
    def _measured_bytes(self) -> int:
        measuring = takewhile(lambda part: part.model_id == self.parts[0].model_id, self.parts)
        return 2 * sum(part.count for part in measuring)

    @property
    def _choices(self) -> Mapping[str, Sequence[_Choice]]:
        """Sources of every column that the reading holds, the first in rank first."""
        return self._plan[0]

    @property
    def _gather(self) -> Gather:
        return self._plan[1]

    @cached_property
    def _plan(self) -> tuple[Mapping[str, Sequence[_Choice]], Gather]:
        models = tuple(dict.fromkeys(part.model_id for part in self.parts))
        fields: dict[Field, int] = {}
        choices: dict[str, list[_Choice]] = {name: [] for name in COLUMNS}
        for name in COLUMNS:
            for source in SOURCES[name]:
                for model_id in models[:1] if source.alone else models:
                    if model_id in source.models and (points := self._points(model_id, source)):
                        lanes, *found = points
                        numbers = [[fields.setdefault(field, len(fields)) for field in some] for some in found]
                        choices[name].append(_Choice(source, lanes, *numbers))
        return choices, Gather(tuple(fields))

    def _points(self, model_id: int, source: Source) -> tuple[list[int], list[Field], list[Field], list[Field]] | None:
        """Which of a source's points the reading holds, their fields, and those of its conditions.

        None when it holds none of the points, or not all of the conditions.
        """
        values = [self._field(model_id, name, source.factor) for name in source.points]
        lanes = [lane for lane, field in enumerate(values) if field is not None]
        there, when, unless = (
            [field for field in some if field is not None]
            for some in (
                values,
                [self._field(model_id, name) for name, _ in source.when],
                [self._field(model_id, name) for name, _ in source.unless],
            )
        )
        whole = len(when) == len(source.when) and len(unless) == len(source.unless)
        return (lanes, there, when, unless) if there and whole else None

    def _field(self, model_id: int, name: str, factor: float = 1.0) -> Field | None:
        """A point with its scale factor, from one request or with the factor read twice; None otherwise."""
        model = model_layout(model_id)
        point, scale = model.points[name], model.scale_of(model.points[name])
        parts = [part for part in self.parts if part.model_id == model_id]
        for part in parts:
            if (register := part.register(point)) is None:
                continue
            beside = [part] if isinstance(scale, Point) and part.register(scale) is not None else parts
            found = _scale(beside, scale, factor)
            return None if found is None else self._typed(point, register, found)
        return None

    def _typed(self, point: Point, register: int, scale: Scale) -> Field:
        own = sentinel(point.type)
        others = (value for kind, value in self.absent if kind == point.type)
        absent = (*(() if own is None else (own,)), *others)
        return Field(number_format(point.type), absent, register, point.size, scale)


def _scale(parts: Sequence[Part], scale: Point | int, factor: float) -> Scale | None:
    """A factor out of one part that holds the value too, or out of the first and last that hold it apart."""
    if isinstance(scale, int):
        return Scale(-1, -1, factor * 10.0**scale)
    registers = [register for part in parts if (register := part.register(scale)) is not None]
    if not registers or (len(parts) > 1 and len(registers) < 2):
        return None
    return Scale(registers[0], registers[-1], factor)


def _column(values: FloatArray, choices: Sequence[_Choice], phases: bool) -> FloatArray:
    """A column from the first of its choices that is not NaN, row by row."""
    column = np.full((len(values), 3) if phases else len(values), np.nan)
    for rank, choice in enumerate(choices):
        found = _chosen(values, choice, phases)
        column = np.where(np.isnan(column), found, column) if rank else found
    return column


def _chosen(values: FloatArray, choice: _Choice, phases: bool) -> FloatArray:
    """One source of a column; NaN where its conditions do not hold and for codes that it does not know."""
    found: FloatArray = values[:, choice.fields if phases else choice.fields[0]]
    if phases and len(choice.lanes) < len(choice.source.points):
        some, found = found, np.full((len(values), len(choice.source.points)), np.nan)
        found[:, choice.lanes] = some
    for (_, code), field in zip(choice.source.when, choice.when, strict=True):
        found = np.where(values[:, field] == code, found, np.nan)
    for (_, code), field in zip(choice.source.unless, choice.unless, strict=True):
        found = np.where(values[:, field] == code, np.nan, found)
    codes = np.array(choice.source.codes)
    if codes.size:
        known = (found >= 0) & (found < codes.size)
        found = np.where(known, codes[np.where(known, found, 0).astype(np.intp)], np.nan)
    return found


@lru_cache(maxsize=1024)
def _shared(layout: SunSpecLayout) -> SunSpecLayout:
    """One object for all equal layouts: what it works out for itself, it works out once for all their devices."""
    return layout


def read_plan(
    chain: Chain, *, models: Sequence[int] = MEASURING, absent: Absent = (), registers_max: int = MAX_READ
) -> tuple[SunSpecLayout, tuple[Span, ...]]:
    """The requests of one poll and the layout of their bytes one after the other.

    One of `models`, the first that is there, and beside it one with controls, one with the state of charge and
    the one that tells who has control, where there are any.
    Raises DeviceMismatch when the device measures nothing.
    """
    measuring = next((place for model_id in models if (place := chain.find(model_id))), None)
    if measuring is None:
        raise DeviceMismatch(f"the device has none of the measuring models {', '.join(map(str, models))}")
    firsts = (next((place for model_id in row if (place := chain.find(model_id))), None) for row in BESIDE)
    beside = [place for place in firsts if place and place != measuring]
    spans: list[Span] = []
    parts: list[Part] = []
    start = 0
    for places in [[measuring], *_joined(beside, registers_max)]:
        for span, held in _requests(places, registers_max):
            parts.extend(replace(part, start=start + part.start) for part in held)
            spans.append(span)
            start += span.count
    layout = _shared(SunSpecLayout(start, tuple(parts), absent))
    if not layout.measures:
        raise DeviceMismatch(f"the device's model {measuring.model_id} is too short to hold a measurement")
    return layout, tuple(spans)


def _joined(places: Sequence[Place], registers_max: int) -> list[list[Place]]:
    """Blocks of places, in address order, that fit one request each; what lies between them is read along."""
    blocks: list[list[Place]] = []
    for place in sorted(places, key=lambda place: place.address):
        if blocks and place.address + place.size - blocks[-1][0].address <= registers_max:
            blocks[-1].append(place)
        else:
            blocks.append([place])
    return blocks


def _requests(places: Sequence[Place], registers_max: int) -> Iterator[tuple[Span, list[Part]]]:
    """The requests for places of one block, each with the parts of models that it holds, counted from its start."""
    first, last = places[0], places[-1]
    if len(places) > 1:
        span = Span(first.address, last.address + last.size - first.address)
        yield span, [Part(place.model_id, 0, place.size, place.address - first.address) for place in places]
        return
    model = model_layout(first.model_id)
    wanted = _wanted(model)
    whole = pieces(model, 0, min(first.size, model.size), registers_max)
    ranges = [piece for piece in whole if any(point.offset in piece and point.end <= piece.stop for point in wanted)]
    before, after = (_pieces_of(model, apart(model, wanted, ranges, which), registers_max) for which in (lt, gt))
    for piece in (*before, *ranges, *after):
        yield Span(first.address + piece.start, len(piece)), [Part(model.id, piece.start, len(piece), 0)]


def _pieces_of(model: Model, points: Sequence[Point], registers_max: int) -> list[range]:
    return pieces(model, points[0].offset, points[-1].end, registers_max) if points else []


def _wanted(model: Model) -> list[Point]:
    """The points of a model that any column comes from, with their scale factors."""
    sources = [source for some in SOURCES.values() for source in some if model.id in source.models]
    names = {name for source in sources for name in source.points}
    names |= {name for source in sources for name, _ in (*source.when, *source.unless)}
    scales = (model.scale_of(model.points[name]) for name in names)
    return [*(model.points[name] for name in names), *(scale for scale in scales if isinstance(scale, Point))]
