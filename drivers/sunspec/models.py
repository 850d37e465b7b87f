"""SunSpec models laid out in registers, from the definitions that the pysunspec2 package carries.

Offsets count registers from the model's ID register (ID 0, L 1, first point 2).
Source: SunSpec Device Information Model Specification 1.2; definitions of sunspec/models.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

SUNS = b"SunS"
BASES = (40000, 50000, 0)
END_MODEL = 0xFFFF

Value = int | float | str


@dataclass(frozen=True, slots=True)
class Point:
    """One point of one model instance."""

    name: str
    """Name with its group path, `Crv[0].Pt[1].V`; repeats count from 0."""
    type: str
    offset: int
    size: int
    """Registers."""
    sf: str | int | None
    """Scale factor: the name of a sunssf point of the model, or a constant exponent."""
    writable: bool
    static: bool


@dataclass(frozen=True)
class Model:
    """A model instance with all its repeats laid out."""

    id: int
    name: str
    points: Mapping[str, Point]
    size: int
    """Registers with ID and L."""

    @property
    def length(self) -> int:
        """What the L register holds."""
        return self.size - 2

    def scale_of(self, point: Point) -> Point | int:
        """The sunssf point that scales a point, or a constant exponent (0 for none)."""
        if point.sf is None:
            return 0
        if isinstance(point.sf, int):
            return point.sf
        return self.points[point.sf]


@cache
def definition(model_id: int) -> Mapping[str, Any]:
    """The JSON definition of a model; KeyError for a model that is not known."""
    source = files("sunspec2") / "models" / "json" / f"model_{model_id}.json"
    if not source.is_file():
        raise KeyError(model_id)
    loaded: Mapping[str, Any] = json.loads(source.read_text(encoding="utf8"))
    return loaded


def layout(model_id: int, repeats: Mapping[str, int] | None = None) -> Model:
    """Lay out a model; `repeats` counts its repeating groups, by count name (`NCrv`, `NPt`) or group name."""
    group = definition(model_id)["group"]
    points = {point.name: point for point in _walk(group, "", 0, repeats or {})}
    last = max(points.values(), key=lambda point: point.offset)
    return Model(model_id, group["name"], points, last.offset + last.size)


def _walk(group: Mapping[str, Any], prefix: str, offset: int, repeats: Mapping[str, int]) -> Iterator[Point]:
    for raw in group["points"]:
        point = Point(
            name=prefix + raw["name"],
            type=raw["type"],
            offset=offset,
            size=raw["size"],
            sf=raw.get("sf"),
            writable=raw.get("access") == "RW",
            static=raw.get("static") == "S",
        )
        offset += point.size
        yield point
    for child in group.get("groups", []):
        count = child.get("count", 1)
        repeating = "count" in child
        number = repeats.get(str(count), repeats.get(child["name"], 0)) if repeating else 1
        for repeat in range(number):
            path = f"{prefix}{child['name']}[{repeat}]." if repeating else f"{prefix}{child['name']}."
            for point in _walk(child, path, offset, repeats):
                yield point
                offset = max(offset, point.offset + point.size)


_FORMATS = {
    "int16": "h",
    "sunssf": "h",
    "uint16": "H",
    "enum16": "H",
    "bitfield16": "H",
    "count": "H",
    "acc16": "H",
    "raw16": "H",
    "pad": "H",
    "int32": "i",
    "uint32": "I",
    "enum32": "I",
    "bitfield32": "I",
    "acc32": "I",
    "ipaddr": "I",
    "int64": "q",
    "uint64": "Q",
    "bitfield64": "Q",
    "acc64": "Q",
    "float32": "f",
    "float64": "d",
}

_SENTINELS: Mapping[str, int] = {
    "int16": -0x8000,
    "sunssf": -0x8000,
    "uint16": 0xFFFF,
    "enum16": 0xFFFF,
    "bitfield16": 0xFFFF,
    "count": 0xFFFF,
    "pad": 0x8000,
    "int32": -0x8000_0000,
    "uint32": 0xFFFF_FFFF,
    "enum32": 0xFFFF_FFFF,
    "bitfield32": 0xFFFF_FFFF,
    "int64": -0x8000_0000_0000_0000,
    "uint64": 0xFFFF_FFFF_FFFF_FFFF,
    "bitfield64": 0xFFFF_FFFF_FFFF_FFFF,
    "acc16": 0,
    "acc32": 0,
    "acc64": 0,
    "ipaddr": 0,
}
"""`Not implemented` of every integer type."""


def number_format(point_type: str) -> str:
    """The struct and numpy letter of a numeric type, to be read big-endian; KeyError for text."""
    return _FORMATS[point_type]


def sentinel(point_type: str) -> int | None:
    """The `not implemented` value of an integer type; None for floats (NaN) and text."""
    return _SENTINELS.get(point_type)


def decode_point(point: Point, data: bytes) -> Value | None:
    """The unscaled value in a point's own bytes; None when the device does not implement it."""
    letter = _FORMATS.get(point.type)
    if letter is None:
        text = data.split(b"\0", 1)[0].decode("latin-1").strip()
        return "".join(c for c in text if c.isprintable()) or None
    value: int | float = struct.unpack(">" + letter, data)[0]
    if value != value or value == _SENTINELS.get(point.type):
        return None
    return value


def encode_point(point: Point, value: Value | None) -> bytes:
    """A point's bytes for an unscaled value; None encodes as `not implemented`.

    Raises struct.error when the value does not fit the type.
    """
    letter = _FORMATS.get(point.type)
    if letter is None:
        return str(value or "").encode("latin-1", "replace")[: point.size * 2].ljust(point.size * 2, b"\0")
    if value is None:
        value = _SENTINELS.get(point.type, float("nan"))
    return struct.pack(">" + letter, value if letter in "fd" else int(value))
