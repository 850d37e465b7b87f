"""Which registers one poll of a plain map reads, and how the bytes of many readings become columns at once.

Measurements are read first and what controls hold after them, so that a reading's measured part is its beginning.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np

from derms.domain.arrays import AnyArray, ByteArray, FloatArray, IntArray
from derms.domain.dispatch import Quantity
from derms.domain.telemetry import COLUMNS, is_phase
from drivers.modbus.unit import Span, Table
from drivers.profiles.control import Per, RegisterControl, Switch
from drivers.profiles.point import TYPES, Point
from drivers.profiles.profile import Profile, Reads

HELD_COLUMNS: Mapping[Quantity, tuple[str, str]] = {
    Quantity.P_SET: ("p_set_w", "setpoint_left_s"),
    Quantity.P_LIMIT: ("p_limit_frac", "limit_left_s"),
}
"""Columns of what a control holds, and of the time left to it."""


@dataclass(frozen=True, slots=True)
class Field:
    """One point of a reading; its address counts registers from the reading's start."""

    column: str
    lane: int
    """Phase, 0 to 2; 0 in columns without."""
    point: Point
    switch: Switch | None = None
    """The value counts only while this is on; its address counts likewise."""


@dataclass(frozen=True)
class RegisterLayout:
    """The fields of a reading; devices of equal ones decode together."""

    registers: int
    measuring: int
    """Registers with measurements, at the beginning."""
    fields: tuple[Field, ...]

    @property
    def width(self) -> int:
        return 2 * self.registers

    def measured(self, raw: bytes) -> bytes:
        """The measurements in a reading, without what controls hold."""
        return raw[: 2 * self.measuring]

    def scales(self, raw: ByteArray) -> ByteArray:
        """Nothing, shape (k, 0): a plain map's scales are the profile's."""
        return raw[:, :0]

    def decode(self, raw: ByteArray) -> Mapping[str, FloatArray]:
        """Decode k readings, shape (k, width), to the COLUMNS; NaN is `no value`."""
        raw = np.ascontiguousarray(raw)
        columns = {name: np.full((len(raw), 3) if is_phase(name) else len(raw), np.nan) for name in COLUMNS}
        for group in self._groups:
            values = group.decode(raw)
            for field, value in zip(group.fields, values.T, strict=True):
                column = columns[field.column]
                (column[:, field.lane] if column.ndim == 2 else column)[...] = value
        return columns

    @cached_property
    def _groups(self) -> "tuple[_Group, ...]":
        types = sorted({field.point.type for field in self.fields})
        return tuple(_Group.of([field for field in self.fields if field.point.type == name]) for name in types)


@dataclass(frozen=True)
class _Group:
    """The fields of one type as columns: where their bytes are, and what turns register values into numbers."""

    fields: tuple[Field, ...]
    byte: IntArray
    """Shape (fields, bytes)."""
    scale: FloatArray
    offset: FloatArray

    @classmethod
    def of(cls, fields: list[Field]) -> "_Group":
        points = [field.point for field in fields]
        return cls(
            fields=tuple(fields),
            byte=np.array([[2 * point.address + at for at in point.byte_order] for point in points], dtype=np.intp),
            scale=np.array([point.scale for point in points]),
            offset=np.array([point.offset for point in points]),
        )

    def decode(self, raw: ByteArray) -> FloatArray:
        """Numbers of k readings, shape (k, fields)."""
        letter = TYPES[self.fields[0].point.type]
        cells = np.ascontiguousarray(raw[:, self.byte]).view(f">{letter}")[..., 0]
        with np.errstate(invalid="ignore"):  # a signalling NaN of a device is no value, and no fault of ours
            values = cells.astype(np.float64) * self.scale + self.offset
        for index, field in enumerate(self.fields):
            if field.point.absent:
                values[np.isin(cells[:, index], field.point.absent), index] = np.nan
            if field.point.codes:
                values[:, index] = _ours(cells[:, index], field.point.codes)
            if field.switch:
                word = raw[:, 2 * field.switch.address : 2 * field.switch.address + 2]
                held = word[:, 0].astype(np.intp) << 8 | word[:, 1]
                values[held != field.switch.on, index] = np.nan
        values[~np.isfinite(values)] = np.nan
        return values


def _ours(cells: AnyArray, codes: tuple[tuple[int, int], ...]) -> FloatArray:
    """Our codes for the device's; NaN for one that has no meaning."""
    theirs, ours = np.array(codes, dtype=np.int64).T
    at = np.minimum(np.searchsorted(theirs, cells), len(theirs) - 1)
    found: FloatArray = np.where(theirs[at] == cells, ours[at].astype(np.float64), np.nan)
    return found


def spans_of(points: Iterable[Point], reads: Reads) -> tuple[Span, ...]:
    """The requests that read points: neighbours together, holes between them read along as far as that is allowed."""
    spans: list[Span] = []
    for point in sorted(set(points), key=lambda point: (point.table.value, point.address, point.size)):
        end = point.address + point.size
        if spans:
            last = spans[-1]
            joined = max(last.address + last.count, end) - last.address
            hole = point.address - last.address - last.count
            if last.table is point.table and hole <= reads.hole_max and joined <= reads.count_max:
                spans[-1] = Span(last.address, joined, last.table)
                continue
        spans.append(Span(point.address, point.size, point.table))
    return tuple(spans)


def without_holes(span: Span, profile: Profile) -> tuple[Span, ...]:
    """The parts of a span of the read plan that hold points, for a device that refuses what lies between them."""
    measured = [point for each in profile.telemetry for point in each.points]
    held = [point for control in profile.controls.values() for point in control.points]
    end = span.address + span.count
    inside = [p for p in measured + held if p.table is span.table and span.address <= p.address < end]
    return spans_of(inside, replace(profile.reads, hole_max=0))


@cache
def read_plan(profile: Profile) -> tuple[RegisterLayout, tuple[Span, ...]]:
    """The requests of one poll, and the layout of their bytes one after the other."""
    measured = [
        Field(measured.column, lane, point)
        for measured in profile.telemetry
        for lane, point in enumerate(measured.points)
    ]
    held = [field for quantity, control in profile.controls.items() for field in _held_fields(quantity, control)]
    first = spans_of((field.point for field in measured), profile.reads)
    second = spans_of((point for field in held for point in _points(field)), profile.reads)
    starts: dict[tuple[bool, Table, int], int] = {}
    registers = 0
    for late, spans in ((False, first), (True, second)):
        for span in spans:
            starts |= {(late, span.table, span.address + word): registers + word for word in range(span.count)}
            registers += span.count
    fields = [_placed(field, {key[1:]: at for key, at in starts.items() if not key[0]}) for field in measured]
    fields += [_placed(field, {key[1:]: at for key, at in starts.items() if key[0]}) for field in held]
    return RegisterLayout(registers, sum(span.count for span in first), tuple(fields)), first + second


def _held_fields(quantity: Quantity, control: RegisterControl) -> list[Field]:
    """What a poll tells of a control: its value where the column's unit is the control's, and the time left."""
    value, left = HELD_COLUMNS[quantity]
    counts = control.per is Per.WATT if quantity is Quantity.P_SET else control.per is not Per.WATT
    shown = control.shown
    per_unit = 0.01 if control.per is Per.PERCENT else 1.0
    released = () if control.release is None else (control.release,)
    point = replace(
        shown, scale=shown.scale * per_unit, offset=shown.offset * per_unit, absent=(*shown.absent, *released)
    )
    fields = [Field(value, 0, point, control.enable)] if counts else []
    fields += [Field(left, 0, control.left, control.enable)] if control.left else []
    return [field for field in fields if field.column in COLUMNS]


def _points(field: Field) -> list[Point]:
    return [field.point, field.switch.point] if field.switch else [field.point]


def _placed(field: Field, starts: Mapping[tuple[Table, int], int]) -> Field:
    """A field with its addresses counted from the reading's start."""
    point, switch = field.point, field.switch
    if switch:
        switch = replace(switch, address=starts[Table.HOLDING, switch.address])
    return Field(field.column, field.lane, replace(point, address=starts[point.table, point.address]), switch)
