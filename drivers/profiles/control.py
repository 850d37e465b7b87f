"""Commands as writes to the registers of a plain map, and registers as what a device holds: pure.

Power in W, + = injection. The dead-man timer goes out before the value that it guards, and what already stands in the
device is not written again, the value excepted: makers keep timers and switches in memory that wears, and the value is
what restarts the timer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from derms.domain.dispatch import Command, Held
from derms.errors import WriteForbidden
from drivers.modbus.unit import Table
from drivers.profiles.point import Point


class Per(StrEnum):
    """What a control's number counts."""

    WATT = "W"
    PERCENT = "percent"
    """Of the device's rating."""
    RATING = "rating"
    """1 is all of the device's rating."""

    def power_w(self, rating_w: float) -> float:
        """The power of one [W]."""
        return {Per.WATT: 1.0, Per.PERCENT: rating_w / 100.0, Per.RATING: rating_w}[self]

    @property
    def most(self) -> float:
        """The rating, where it is what is counted."""
        return {Per.WATT: math.inf, Per.PERCENT: 100.0, Per.RATING: 1.0}[self]

    @property
    def float_step(self) -> float:
        """What counts as one step of a number with a fraction."""
        return {Per.WATT: 1.0, Per.PERCENT: 0.01, Per.RATING: 1e-4}[self]


@dataclass(frozen=True, slots=True)
class Switch:
    """A register that puts a control in force."""

    address: int
    on: int = 1
    off: int = 0

    @property
    def point(self) -> Point:
        return Point(self.address, "uint16")


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A register that the controller must keep moving, from `first` to `last` and around."""

    address: int
    first: int = 0
    last: int = 0xFFFF
    timeout_s: float = math.nan
    """After which the device is on its own; NaN where a timer register says it, or nobody does."""
    echo: Point | None = None
    """The device's own count of heartbeats."""

    def after(self, count: int | None) -> int:
        """The next count to be written."""
        return self.first if count is None or not self.first <= count < self.last else count + 1


class Write(NamedTuple):
    """One write request."""

    address: int
    data: bytes


Registers = Mapping[tuple[Table, int], bytes]
"""Words as they were read, two bytes each."""


def taken(registers: Registers, point: Point) -> bytes:
    """The bytes of a point out of what was read; KeyError when it was not."""
    return b"".join(registers[point.table, point.address + word] for word in range(point.size))


@dataclass(frozen=True)
class RegisterControl:
    """How a device takes one quantity."""

    value: Point
    per: Per = Per.WATT
    low: float = -math.inf
    """Least and greatest number that the device takes; 0 it always takes."""
    high: float = math.inf
    whole_steps: bool = False
    """A number between two steps is refused, not rounded."""
    held: Point | None = None
    """Where the value is read back, where not from its own registers."""
    enable: Switch | None = None
    enable_first: bool = False
    """The device takes a value only while the control is in force."""
    release: int | None = None
    """Register value that hands back control, where there is no switch for that."""
    timer: Point | None = None
    """Dead-man time [s]."""
    left: Point | None = None
    """What is left of it [s]."""

    @property
    def shown(self) -> Point:
        """Where the value is read back."""
        return self.held or self.value

    @property
    def points(self) -> tuple[Point, ...]:
        """Everything that is read to know what the device holds."""
        switch = self.enable.point if self.enable else None
        return tuple(point for point in (self.shown, switch, self.timer, self.left) if point)

    def writes(self, registers: Registers, command: Command, rating_w: float) -> list[Write]:
        """The requests of a command, in order; raises WriteForbidden for what the device cannot take."""
        if command.value_w is None:
            return self._released()
        body = [*self._timer(registers, command.reversion_s), Write(self.value.address, self._value(command, rating_w))]
        force = []
        if self.enable and not self._on(registers):
            force = [Write(self.enable.address, self.enable.point.pack(self.enable.on))]
        return joined(force + body if self.enable_first else body + force)

    def held_by(self, registers: Registers, rating_w: float, otherwise_s: float = math.nan) -> Held:
        """What the device holds; `otherwise_s` is the dead-man time of a device without a timer register [s]."""
        each_w = self.per.power_w(rating_w)
        data = taken(registers, self.shown)
        free = not self._on(registers) or (self.release is not None and self.shown.raw(data) == self.release)
        step = self.per.float_step if self.shown.is_float else abs(self.shown.scale)
        return Held(
            value_w=None if free else self.shown.number(data) * each_w,
            reversion_s=self.timer.number(taken(registers, self.timer)) if self.timer else otherwise_s,
            reversion_left_s=self.left.number(taken(registers, self.left)) if self.left else math.nan,
            resolution_w=max(step, abs(self.value.scale) * (not self.value.is_float)) * each_w,
        )

    def _on(self, registers: Registers) -> bool:
        return self.enable is None or self.enable.point.raw(taken(registers, self.enable.point)) == self.enable.on

    def _released(self) -> list[Write]:
        if self.enable:
            return [Write(self.enable.address, self.enable.point.pack(self.enable.off))]
        assert self.release is not None
        return [Write(self.value.address, self.value.pack(self.release))]

    def _timer(self, registers: Registers, reversion_s: float) -> list[Write]:
        if self.timer is None:
            return []
        if not reversion_s >= 0:
            raise WriteForbidden(f"a reversion time of {reversion_s:g} s cannot be armed")
        data = self.timer.registers(max(reversion_s, self.timer.scale) if reversion_s > 0 else 0.0)
        return [] if data == taken(registers, self.timer) else [Write(self.timer.address, data)]

    def _value(self, command: Command, rating_w: float) -> bytes:
        """The register bytes of a command's value; more than the whole rating is the whole rating."""
        assert command.value_w is not None
        unit_w = self.per.power_w(rating_w)
        number = command.value_w / unit_w if unit_w > 0.0 else math.nan
        if not math.isfinite(number):
            raise WriteForbidden(f"{command.value_w:g} W cannot be told in {self.per} of a rating of {rating_w:g} W")
        number = min(max(number, -self.per.most), self.per.most)
        if number != 0.0 and not self.low <= number <= self.high:
            raise WriteForbidden(f"{number:g} {self.per} is not from {self.low:g} to {self.high:g}, nor 0")
        data = self.value.registers(number)
        if self.whole_steps and abs(self.value.number(data) - number) > 1e-3 * abs(self.value.scale):
            raise WriteForbidden(f"{number:g} {self.per} lies between two steps, and the device has no other")
        return data


def joined(writes: list[Write]) -> list[Write]:
    """Neighbours that follow each other become one request, which the device takes whole or not at all."""
    found: list[Write] = []
    for write in writes:
        if found and write.address == found[-1].address + len(found[-1].data) // 2:
            found[-1] = Write(found[-1].address, found[-1].data + write.data)
        else:
            found.append(write)
    return found
