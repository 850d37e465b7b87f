"""One value in the registers of a plain Modbus map: where it stands, and what its bits mean.

Numbers are in SI units and our signs once `scale` and `offset` are applied: number = register * scale + offset.
Source: Modbus Application Protocol 1.1b3, 4.2 (a register is two bytes, high byte first); word order is the maker's.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from derms.errors import WriteForbidden
from drivers.modbus.unit import Table

TYPES: Mapping[str, str] = {
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}
"""The struct and numpy letter of every type of number, read high byte first once the bytes are in order."""
ORDERS = ("ABCD", "CDAB", "BADC", "DCBA")
"""How the bytes of a 32-bit value ABCD come: as they are, low word first, bytes swapped in words, or both."""
STEP_NOISE = 1e-6
"""Part of a register step that counts as floating-point noise when a value is rounded towards zero."""


@dataclass(frozen=True)
class Point:
    """A number; hashable, and equal when the same registers mean the same."""

    address: int
    type: str = "uint16"
    order: str = "ABCD"
    table: Table = Table.HOLDING
    scale: float = 1.0
    """What one register step is; negative where the device counts the other way than the house."""
    offset: float = 0.0
    absent: tuple[int, ...] = ()
    """Register values that mean that there is no value."""
    codes: tuple[tuple[int, int], ...] = ()
    """Register values and the codes of ours that they stand for, rising; any other has no meaning. Empty: a number."""

    @cached_property
    def size(self) -> int:
        """Registers."""
        return struct.calcsize(">" + TYPES[self.type]) // 2

    @property
    def is_float(self) -> bool:
        return TYPES[self.type] in "fd"

    @cached_property
    def byte_order(self) -> tuple[int, ...]:
        """Where in its registers each byte of the number is, highest first."""
        words = range(self.size)
        if self.order in ("CDAB", "DCBA"):
            words = words[::-1]
        swapped = self.order in ("BADC", "DCBA")
        return tuple(2 * word + byte for word in words for byte in ((1, 0) if swapped else (0, 1)))

    def raw(self, data: bytes) -> int | float:
        """The register value in a point's own bytes."""
        value: int | float = struct.unpack(">" + TYPES[self.type], bytes(data[at] for at in self.byte_order))[0]
        return value

    def number(self, data: bytes) -> float:
        """The number in a point's own bytes; NaN for none."""
        raw = self.raw(data)
        if raw in self.absent:
            return math.nan
        number = float(dict(self.codes).get(int(raw), math.nan)) if self.codes else raw * self.scale + self.offset
        return number if math.isfinite(number) else math.nan

    def registers(self, number: float) -> bytes:
        """The bytes of a number, whole steps rounded towards zero: never more than was asked.

        Raises WriteForbidden when the registers cannot hold it, or hold it as `absent`.
        """
        steps = (number - self.offset) / self.scale
        try:
            raw = steps if self.is_float else math.trunc(steps + math.copysign(STEP_NOISE, steps))
            data = self.pack(raw)
        except (struct.error, OverflowError, ValueError) as error:
            raise WriteForbidden(f"{number:g} does not fit {self.type} at {self.address}") from error
        if raw in self.absent or not math.isfinite(raw):
            raise WriteForbidden(f"{number:g} at {self.address} would mean that there is no value")
        return data

    def pack(self, raw: float) -> bytes:
        """The bytes of a register value; raises struct.error or OverflowError for one that does not fit."""
        data = struct.pack(">" + TYPES[self.type], raw)
        return bytes(data[self.byte_order.index(at)] for at in range(2 * self.size))


@dataclass(frozen=True)
class Text:
    """Characters, two in a register."""

    address: int
    size: int
    """Registers."""
    table: Table = Table.HOLDING

    def text(self, data: bytes) -> str:
        """Printable characters up to the first NUL."""
        characters = data.split(b"\0", 1)[0].decode("latin-1").strip()
        return "".join(c for c in characters if c.isprintable())
