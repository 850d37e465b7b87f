"""SunSpec models laid out in registers, from the definitions that the pysunspec2 package carries, and their points.

Offsets count registers from the model's ID register (ID 0, L 1, first point 2). How often a group repeats is what the
device says in the count that the definition names, bounded by the length L; where the definition names none (0) the
group fills the length. A model shorter than its definition has fewer points, a longer one has registers nobody knows.
Source: SunSpec Device Information Model Specification 1.2; definitions of sunspec/models.
"""

import ipaddress
import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

SUNS = b"SunS"
BASES = (40000, 50000, 0)
END_MODEL = 0xFFFF
SCALE_FACTOR = "sunssf"
MAX_REGISTERS = 0xFFFF
"""More than any model instance has."""
LAYOUTS_KEPT = 512
"""Layouts of repeating groups that are remembered."""

Value = int | float | str
Absent = tuple[tuple[str, int], ...]
"""Pairs of a type and a value by which a device says `not implemented` beside the type's own sentinel."""


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

    @property
    def end(self) -> int:
        """Offset after its last register."""
        return self.offset + self.size

    @property
    def group(self) -> str:
        """Path of its group, `Crv[0].Pt[1].`; empty at the top."""
        return self.name[: self.name.rfind(".") + 1]


@dataclass(frozen=True)
class Model:
    """A model instance with all its repeats laid out."""

    id: int
    name: str
    points: Mapping[str, Point]
    size: int
    """Registers with ID and L."""
    repeats: Mapping[str, int] = field(default_factory=dict)
    """How often its groups repeat, by the name of the count."""

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
        return self.points.get(point.group + point.sf) or self.points[point.sf]


@cache
def definition(model_id: int) -> Mapping[str, Any]:
    """The JSON definition of a model; KeyError for a model that is not known."""
    source = files("sunspec2") / "models" / "json" / f"model_{model_id}.json"
    if not source.is_file():
        raise KeyError(model_id)
    loaded: Mapping[str, Any] = json.loads(source.read_text(encoding="utf8"))
    return loaded


@cache
def model_layout(model_id: int) -> Model:
    """A model without its repeating groups; KeyError for a model that is not known."""
    return layout(model_id)


@cache
def outer_groups(model_id: int) -> tuple[tuple[str, str], ...]:
    """The repeating groups at the top of a model and the names of their counts; `0` fills the length."""
    groups = definition(model_id)["group"].get("groups", [])
    return tuple((group["name"], str(group["count"])) for group in groups if "count" in group)


@cache
def counts_of(model_id: int) -> tuple[str, ...]:
    """The names of all counts of a model's repeating groups, nested ones too."""
    groups = list(definition(model_id)["group"].get("groups", []))
    names = []
    for group in groups:
        names += [str(group["count"])] if "count" in group else []
        groups.extend(group.get("groups", []))
    return tuple(dict.fromkeys(names))


def layout(model_id: int, repeats: Mapping[str, int] | None = None, *, registers: int = MAX_REGISTERS) -> Model:
    """Lay out a model; `repeats` counts its repeating groups, by count name (`NCrv`, `NPt`) or group name.

    No repeat begins beyond `registers`, the size of the instance with ID and L.
    """
    group = definition(model_id)["group"]
    points = {point.name: point for point in _walk(group, "", 0, repeats or {}, registers)}
    last = max(points.values(), key=lambda point: point.offset)
    return Model(model_id, group["name"], points, last.end, dict(repeats or {}))


def layout_of(model_id: int, data: bytes, registers: int) -> Model:
    """The layout of an instance of `registers` registers with ID and L, from the bytes of its top-level points.

    A count that is not implemented, or beyond what was read, is none.
    """
    names = counts_of(model_id)
    if not names:
        return model_layout(model_id)
    points = model_layout(model_id).points
    counts = tuple((name, _count(points.get(name), data, registers)) for name in names)
    return _counted(model_id, counts, registers)


def _count(point: Point | None, data: bytes, registers: int) -> int:
    """What a count says; a group without a count fills the length, so that it is as large as it can be."""
    if point is None:
        return registers
    raw = data[2 * point.offset : 2 * point.end]
    value = decode_point(point, raw) if len(raw) == 2 * point.size else None
    return 0 if value is None else min(int(value), registers)


@lru_cache(maxsize=LAYOUTS_KEPT)
def _counted(model_id: int, counts: tuple[tuple[str, int], ...], registers: int) -> Model:
    return layout(model_id, dict(counts), registers=registers)


def _walk(
    group: Mapping[str, Any], prefix: str, offset: int, repeats: Mapping[str, int], registers: int
) -> Iterator[Point]:
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
        offset = point.end
        yield point
    for child in group.get("groups", []):
        count = child.get("count", 1)
        repeating = "count" in child
        number = repeats.get(str(count), repeats.get(child["name"], 0)) if repeating else 1
        for repeat in range(number):
            if offset >= registers:
                return
            path = f"{prefix}{child['name']}[{repeat}]." if repeating else f"{prefix}{child['name']}."
            for point in _walk(child, path, offset, repeats, registers):
                yield point
                offset = max(offset, point.end)


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

IPV6_ADDRESS = "ipv6addr"
MAC_ADDRESS = "eui48"
_ABSENT_BYTES: Mapping[str, bytes] = {
    IPV6_ADDRESS: bytes(16),
    MAC_ADDRESS: b"\0\0" + b"\xff" * 6,
    "float32": bytes.fromhex("7fc00000"),
    "float64": bytes.fromhex("7ff8000000000000"),
}
"""`Not implemented` of the types that are no integers; of a float it is any NaN, and of text all NUL."""

ANSI_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
"""Terminal control sequences: CSI, OSC and the two-character ones (ECMA-48)."""


def number_format(point_type: str) -> str:
    """The struct and numpy letter of a numeric type, to be read big-endian; KeyError for text and addresses."""
    return _FORMATS[point_type]


def is_numeric(point_type: str) -> bool:
    return point_type in _FORMATS


def sentinel(point_type: str) -> int | None:
    """The `not implemented` value of an integer type; None for floats (NaN), text and addresses."""
    return _SENTINELS.get(point_type)


def decode_point(point: Point, data: bytes, absent: Absent = ()) -> Value | None:
    """The unscaled value in a point's own bytes; None when the device does not implement it.

    `absent` names further values of a type that the device uses for `not implemented`.
    """
    letter = _FORMATS.get(point.type)
    if letter is None:
        return _decode_text(point.type, data)
    value: int | float = struct.unpack(">" + letter, data)[0]
    if value != value or value == _SENTINELS.get(point.type) or (absent and (point.type, value) in absent):
        return None
    return value


def _decode_text(point_type: str, data: bytes) -> str | None:
    if point_type == IPV6_ADDRESS:
        return str(ipaddress.IPv6Address(data)) if any(data) else None
    if point_type == MAC_ADDRESS:
        there = any(data) and data[2:] != _ABSENT_BYTES[MAC_ADDRESS][2:]
        return data[2:].hex(":").upper() if there else None
    return readable(data.split(b"\0", 1)[0])


def readable(data: bytes) -> str | None:
    """Text from a device as people may see it, None for nothing.

    UTF-8, or Latin-1 where it is not; without terminal sequences and without what does not print, which control
    characters, line ends and marks of writing direction are. It is never longer than its registers.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    plain = ANSI_SEQUENCE.sub("", text)
    return "".join(character for character in plain if character.isprintable()).strip() or None


def encode_point(point: Point, value: Value | None) -> bytes:
    """A point's bytes for an unscaled value; None encodes as `not implemented`.

    Raises struct.error when the value does not fit the type.
    """
    letter = _FORMATS.get(point.type)
    if value is None:
        value = _SENTINELS.get(point.type)
        if value is None or letter is None:
            return _ABSENT_BYTES.get(point.type, bytes(2 * point.size))
    if letter is None:
        return _encode_text(point, str(value))
    return struct.pack(">" + letter, value if letter in "fd" else int(value))


def _encode_text(point: Point, text: str) -> bytes:
    if point.type == IPV6_ADDRESS:
        return ipaddress.IPv6Address(text).packed
    if point.type == MAC_ADDRESS:
        return bytes.fromhex(text.replace(":", "")).rjust(2 * point.size, b"\0")
    whole = text.encode("utf-8")[: 2 * point.size].decode("utf-8", "ignore")
    return whole.encode("utf-8").ljust(2 * point.size, b"\0")


def encode_model(model: Model, values: Mapping[str, Value | None]) -> bytes:
    """All registers of a laid-out model from unscaled values by point name; the rest is `not implemented`.

    ID, L and the counts of repeating groups come from the layout unless they are given. KeyError for a value whose
    point the model does not have.
    """
    unknown = values.keys() - model.points.keys()
    if unknown:
        raise KeyError(f"model {model.id} has no {', '.join(sorted(unknown))}")
    given: Mapping[str, Value | None] = {**model.repeats, "ID": model.id, "L": model.length, **values}
    return b"".join(encode_point(point, given.get(point.name)) for point in model.points.values())


def repeated(model: Model, group: str) -> Sequence[str]:
    """Paths of the repeats of a group, `Crv` to `Crv[0].`, `Crv[1].`, as the model is laid out."""
    outer = re.compile(re.escape(group) + r"\[\d+\]\.")
    found = (match.group() for name in model.points if (match := outer.match(name)))
    return tuple(dict.fromkeys(found))
