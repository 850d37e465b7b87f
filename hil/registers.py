"""Register images: the SunSpec devices of one model chain as rows of bytes, and their points as columns.

One byte image per device is what its server answers from; numpy windows into all rows are what physics writes to.
Scale factors are constants of a bank. Registers count from the base address ('SunS' at 0).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from derms.domain.arrays import AnyArray, ByteArray, FloatArray
from drivers.sunspec.models import (
    END_MODEL,
    SUNS,
    Model,
    Point,
    Value,
    decode_point,
    encode_point,
    is_numeric,
    number_format,
    sentinel,
)

BASE = 40000
"""Address of 'SunS' in every simulated device."""

ILLEGAL_ADDRESS = 2
ILLEGAL_VALUE = 3


@dataclass(frozen=True, slots=True)
class Column:
    """One numeric point of all devices: a big-endian window into their images."""

    raw: AnyArray
    factor: float
    """SI units per count."""
    missing: float
    """What stands for `not implemented`; NaN for floats."""
    low: float
    high: float
    """Counts that can be encoded beside `missing`; infinite for floats."""

    def put(self, values: FloatArray | float) -> None:
        """Encode values [SI units], shape (n,) or one for all: rounded, clipped to the type; NaN is not implemented."""
        if np.isinf(self.high):
            self.raw[...] = values
        else:
            counts = np.minimum(np.maximum(np.rint(values / self.factor), self.low), self.high)
            self.raw[...] = np.where(np.isnan(counts), self.missing, counts)

    def get(self) -> FloatArray:
        """Decode to SI units, shape (n,); NaN where not implemented."""
        counts = self.raw.astype(np.float64)
        return np.where(counts == self.missing, np.nan, counts * self.factor)


@dataclass(frozen=True, slots=True)
class Place:
    """A point and where it stands in the image."""

    model: int
    point: Point
    register: int


class Bank:
    """Images of `count` devices with the same chain of models; every point starts as `not implemented`."""

    def __init__(self, count: int, chain: Sequence[Model], scales: Mapping[str, int]) -> None:
        """`scales` gives the exponent of scale-factor points by `model.point`; the others are 0."""
        self.start: dict[int, int] = {}
        self.places: dict[int, Place] = {}
        """Every point by the register it begins at."""
        self._by_name: dict[str, Place] = {}
        self._scales = scales
        self._columns: dict[str, Column] = {}
        """Those that were asked for so far."""
        parts, register = [SUNS], len(SUNS) // 2
        for model in chain:
            self.start[model.id] = register
            parts.append(self._lay(model, register))
            register += model.size
        parts.append(END_MODEL.to_bytes(2, "big") + bytes(2))
        row: ByteArray = np.frombuffer(b"".join(parts), dtype=np.uint8)
        self.image: ByteArray = np.tile(row, (count, 1))
        self.registers = row.size // 2

    def _lay(self, model: Model, start: int) -> bytes:
        head: dict[str, Value] = {"ID": model.id, "L": model.length}
        parts = []
        for point in model.points.values():
            place, name = Place(model.id, point, start + point.offset), f"{model.id}.{point.name}"
            self.places[place.register] = self._by_name[name] = place
            value = self._scales.get(name, 0) if point.type == "sunssf" else head.get(point.name)
            parts.append(encode_point(point, value))
        return b"".join(parts)

    def _column(self, place: Place) -> Column:
        point, at = place.point, 2 * place.register
        if not is_numeric(point.type):
            raise KeyError(f"{place.model}.{point.name} is no number")
        kind = np.dtype(">" + number_format(point.type))
        exponent = self._scales.get(f"{place.model}.{point.sf}", 0) if isinstance(point.sf, str) else point.sf or 0
        raw = self.image[:, at : at + kind.itemsize].view(kind)[:, 0]
        missing = sentinel(point.type)
        if missing is None:
            return Column(raw=raw, factor=1.0, missing=np.nan, low=-np.inf, high=np.inf)
        limits = np.iinfo(kind)
        return Column(
            raw=raw,
            factor=10.0**exponent,
            missing=missing,
            low=int(limits.min) + (missing == limits.min and missing < 0),
            high=int(limits.max) - (missing == limits.max),
        )

    def __getitem__(self, name: str) -> Column:
        """The column of a numeric point, `704.WSet`; KeyError for one that the chain lacks."""
        column = self._columns.get(name)
        if column is None:
            column = self._columns[name] = self._column(self.place(name))
        return column

    def put(self, name: str, values: FloatArray | float) -> None:
        """Encode a point of all devices; see `Column.put`."""
        self[name].put(values)

    def get(self, name: str) -> FloatArray:
        """Decode a point of all devices; see `Column.get`."""
        return self[name].get()

    def text(self, name: str, texts: Sequence[str]) -> None:
        """Encode a string point, one text per device."""
        place = self.place(name)
        for row, text in enumerate(texts):
            self.store(row, place.register, encode_point(place.point, text))

    def place(self, name: str) -> Place:
        """Where a point stands, `704.WSet`; KeyError for one that the chain lacks."""
        return self._by_name[name]

    def names(self) -> Collection[str]:
        """Every point of the chain, `704.WSet`."""
        return self._by_name.keys()

    def has(self, name: str) -> bool:
        """Whether the chain has a point of this name."""
        return name in self._by_name

    def raw(self, row: int, name: str) -> Value | None:
        """The unscaled value of a point of one device; None when it is not implemented."""
        place = self.place(name)
        at = 2 * place.register
        return decode_point(place.point, bytes(self.row(row)[at : at + 2 * place.point.size]))

    def set_raw(self, row: int, name: str, value: Value | None) -> None:
        """Write the unscaled value of a point of one device; None for `not implemented`."""
        place = self.place(name)
        self.store(row, place.register, encode_point(place.point, value))

    def row(self, row: int) -> memoryview:
        """The bytes of one device, as they are at any moment."""
        return memoryview(self.image[row])

    def covered(self, register: int, count: int) -> list[Place]:
        """The points that a range of registers covers whole; empty when it cuts one or leaves the image."""
        places, at, end = [], register, register + count
        while at < end:
            place = self.places.get(at)
            if place is None:
                return []
            places.append(place)
            at += place.point.size
        return places if at == end else []

    def settings(self) -> list[tuple[int, int]]:
        """Runs of registers, none over more than one model, whose points may all be written: first and count."""
        runs: list[tuple[int, int]] = []
        model = 0
        for register, place in self.places.items():
            if not place.point.writable:
                continue
            if runs and model == place.model and sum(runs[-1]) == register:
                runs[-1] = (runs[-1][0], runs[-1][1] + place.point.size)
            else:
                runs.append((register, place.point.size))
            model = place.model
        return runs

    def refusal(self, row: int, register: int, data: bytes) -> int:
        """The Modbus exception code for a write to one device, or 0 when it may be stored.

        Illegal address: registers outside the models, part of a point, a read-only point, or a point that the device
        does not implement (it may only be written back as it is). Illegal value: `not implemented` for one that is.
        """
        places = self.covered(register, len(data) // 2)
        if not places or not all(place.point.writable for place in places):
            return ILLEGAL_ADDRESS
        image = self.row(row)
        for place in places:
            at, size = 2 * (place.register - register), 2 * place.point.size
            missing = encode_point(place.point, None)
            held = image[2 * place.register : 2 * place.register + size] == missing
            if held != (data[at : at + size] == missing):
                return ILLEGAL_ADDRESS if held else ILLEGAL_VALUE
        return 0

    def store(self, row: int, register: int, data: bytes) -> None:
        """Write bytes to one device, unchecked."""
        self.image[row, 2 * register : 2 * register + len(data)] = np.frombuffer(data, dtype=np.uint8)
