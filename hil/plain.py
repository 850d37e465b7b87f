"""A simulated Modbus device without SunSpec: a table of values at addresses, as a vendor's manual lists them.

Holding registers (FC3, FC6, FC16) and input registers (FC4) are two tables. Registers that no value covers are not
there (exception 2); numbers outside a value's bounds are refused (exception 3).
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drivers.modbus.unit import Table
from hil.fault_kinds import OF_MODELS, Fault
from hil.registers import ILLEGAL_ADDRESS, ILLEGAL_VALUE
from hil.unit import READ_HOLDING, READ_INPUT, WRITE_MANY, WRITE_ONE, SimulatedUnit, nothing

_FORMATS = {"int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q", "float32": "f"}


@dataclass(frozen=True, slots=True)
class PlainPoint:
    """One value of the table; numbers are what the registers hold, unscaled."""

    name: str
    address: int
    type: str
    """`int16`, `uint32`, `float32` and so on; the more significant register comes first."""
    value: float = 0.0
    writable: bool = False
    table: Table = Table.HOLDING
    low: float = float("-inf")
    high: float = float("inf")
    """What may be written."""
    swapped: bool = False
    """The less significant register comes first."""

    @property
    def size(self) -> int:
        """Registers."""
        return struct.calcsize(">" + _FORMATS[self.type]) // 2

    def encode(self, value: float) -> bytes:
        """Raises struct.error when the value does not fit the type."""
        letter = _FORMATS[self.type]
        data = struct.pack(">" + letter, value if letter == "f" else round(value))
        return _reversed(data) if self.swapped else data

    def decode(self, data: bytes) -> float:
        number: float = struct.unpack(">" + _FORMATS[self.type], _reversed(data) if self.swapped else data)[0]
        return number


def _reversed(data: bytes) -> bytes:
    """The registers in the other order."""
    return b"".join(data[at : at + 2] for at in range(len(data) - 2, -1, -2))


class PlainUnit(SimulatedUnit):
    """One device from a table; `on_write` is told the name and the new value of each point that was written."""

    functions = frozenset({READ_HOLDING, READ_INPUT, WRITE_ONE, WRITE_MANY})

    def __init__(self, points: Sequence[PlainPoint], on_write: Callable[[str, float], None] = nothing) -> None:
        """Raises ValueError for points that share a name or a register."""
        super().__init__()
        self.base = 0
        self.view = memoryview(b"")
        self._points = {point.name: point for point in points}
        self._starts = {(point.table, point.address): point for point in points}
        self._on_write = on_write
        self._registers: dict[Table, dict[int, bytes]] = {table: {} for table in Table}
        self._frozen: dict[Table, dict[int, bytes]] | None = None
        for point in points:
            self.put(point.name, point.value)
        covered = sum(len(registers) for registers in self._registers.values())
        if len(self._points) < len(points) or covered < sum(point.size for point in points):
            raise ValueError("two points have the same name or the same register")

    def value(self, name: str) -> float:
        """What a point holds now."""
        point = self._points[name]
        registers = self._registers[point.table]
        return point.decode(b"".join(registers[point.address + i] for i in range(point.size)))

    def put(self, name: str, value: float) -> None:
        """Set a point, written or measured; raises struct.error when the value does not fit."""
        point = self._points[name]
        self._put(point.table, point.address, point.encode(value))

    def fail(self, kind: Fault, value: float | None = None) -> None:
        if kind in OF_MODELS:
            raise ValueError(f"'{kind.value}' befalls SunSpec models, and this device has none")
        super().fail(kind, value)
        if kind is Fault.FREEZE:
            self._frozen = {table: dict(registers) for table, registers in self._registers.items()}

    def mend(self) -> None:
        super().mend()
        self._frozen = None

    def read(self, function: int, address: int, count: int) -> bytes | int:
        registers = (self._frozen or self._registers)[Table(function)]
        wanted = range(address, address + count)
        return b"".join(registers[at] for at in wanted) if all(at in registers for at in wanted) else ILLEGAL_ADDRESS

    def admitted(self, address: int, data: bytes) -> bytes | int:
        """Illegal address for what is not there, read-only, or a part of a value; illegal value beyond the bounds."""
        points = self._covered(address, len(data) // 2)
        if not points or not all(point.writable for point in points):
            return ILLEGAL_ADDRESS
        values = [point.decode(_part(point, address, data)) for point in points]
        inside = all(point.low <= value <= point.high for point, value in zip(points, values, strict=True))
        return data if inside else ILLEGAL_VALUE

    def store(self, address: int, data: bytes, *, obeyed: bool) -> None:
        self._put(Table.HOLDING, address, data)
        if obeyed:
            for point in self._covered(address, len(data) // 2):
                self._on_write(point.name, self.value(point.name))

    def restart(self) -> None:
        for point in self._points.values():
            if point.writable:
                self.put(point.name, point.value)

    def _put(self, table: Table, address: int, data: bytes) -> None:
        for i in range(0, len(data), 2):
            self._registers[table][address + i // 2] = data[i : i + 2]

    def _covered(self, address: int, count: int) -> list[PlainPoint]:
        """The holding points that a range covers whole; empty when it cuts one or leaves the table."""
        points, at = [], address
        while at < address + count:
            point = self._starts.get((Table.HOLDING, at))
            if point is None:
                return []
            points.append(point)
            at += point.size
        return points if at == address + count else []


def _part(point: PlainPoint, address: int, data: bytes) -> bytes:
    return data[2 * (point.address - address) :][: 2 * point.size]
