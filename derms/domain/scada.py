"""What the utility's own system tells and is told: points with quality and two times, and the plan on its way out.

Power + = import [W, var]; voltage [V]; taps in steps, 0 is neutral; switches as SwitchState.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum

import numpy as np

from derms.domain.arrays import FloatArray
from derms.domain.der import Endpoint
from derms.domain.grid import SwitchState, Topology
from derms.domain.mode import Mode
from derms.domain.plan import Plan
from derms.domain.quality import Quality


class PointKind(StrEnum):
    """What a point tells."""

    NET_LOAD = "net_load"
    """Net load of the whole system."""
    HEAD_P = "head_p"
    """Active power into a feeder at its head."""
    HEAD_Q = "head_q"
    SWITCH = "switch"
    TAP = "tap"
    VOLTAGE = "voltage"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScadaPoint:
    """One row of the point map: where a value stands at the source, and what it is in SI."""

    id: str
    kind: PointKind
    element: str
    """`system`, the feeder, or the full name of an element of its circuit, lower case."""
    where: str
    """Column, name, JSON pointer or register at the source."""
    phase: str = ""
    """`a`, `b`, `c`; empty for the total."""
    scale: float = 1.0
    """SI value = scale * what the source says + offset; the unit of the row is already in both."""
    offset: float = 0.0
    double: bool = False
    """A switch told in two bits (IEC 60870-5: 1 open, 2 closed), not in one (0 open, 1 closed)."""
    invert: bool = False
    """The source's sign, or its open and closed, are the other way round."""
    low: float = -math.inf
    high: float = math.inf
    """Values outside are another unit or a broken instrument."""
    floor: float = 0.0
    """Magnitudes below are another unit or a dead instrument."""
    step: float = math.inf
    """A value that moved further at once, and by more than half of what it was, is believed when it is told twice."""
    normal: SwitchState = SwitchState.CLOSED
    """How the feeder's model has a switch."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A value as the source wrote it."""

    where: str
    value: float | str | None
    """None where a value should stand and none can be read."""
    quality: str = ""
    """The source's own word, or bits as a number; empty where it has none."""
    at: datetime | None = None
    """Source time; None where it has none."""


@dataclass(frozen=True, slots=True)
class PointValue:
    """A value that passed: SI, with its quality and its two times."""

    value: float
    """SI; a SwitchState for a switch; NaN when nothing is known."""
    quality: Quality
    source_at: datetime | None
    received_at: datetime | None
    received_s: float
    """Monotonic time of the receipt [s]."""


NOTHING = PointValue(math.nan, Quality.MISSING, None, None, math.nan)
"""Before a point's first value."""


@dataclass(frozen=True)
class ScadaReading:
    """All points at one moment, each aged to it; only GOOD values are given out by kind."""

    at: datetime
    points: Sequence[ScadaPoint]
    values: Mapping[str, PointValue]
    """By id of the point."""

    def good(self, point: ScadaPoint) -> float:
        """The value of a point, NaN unless it is GOOD."""
        found = self.values.get(point.id, NOTHING)
        return found.value if found.quality is Quality.GOOD else math.nan

    @property
    def net_load_w(self) -> float:
        """Net load of the system [W], + = import; the sum where it is told in parts; NaN when any is not known."""
        parts = [self.good(point) for point in self.points if point.kind is PointKind.NET_LOAD]
        return sum(parts) if parts else math.nan

    def head(self, kind: PointKind) -> tuple[float, ...]:
        """Power at the feeder's head: phases a, b, c, or the total alone; empty when no point tells it."""
        told = {point.phase: self.good(point) for point in self.points if point.kind is kind}
        return tuple(told[phase] for phase in "abc") if "a" in told else tuple(told.values())

    @property
    def topology(self) -> Topology:
        """Switches and taps as last told; without a point for any switch its quality is NOT_IMPLEMENTED."""
        switches = [point for point in self.points if point.kind is PointKind.SWITCH]
        taps = {p.element: self.good(p) for p in self.points if p.kind is PointKind.TAP}
        if not switches:
            return Topology(taps=taps)
        states = {point.element: self._state(point) for point in switches}
        normal = (SwitchState.OPEN, SwitchState.CLOSED)
        worst = max(self.values.get(point.id, NOTHING).quality for point in switches)
        unknown = tuple(element for element, state in states.items() if state not in normal)
        return Topology(
            quality=max(worst, Quality.SUSPECT) if unknown else worst,
            switches=states,
            taps=taps,
            unknown=unknown,
            abnormal=tuple(
                p.element for p in switches if states[p.element] in normal and states[p.element] != p.normal
            ),
        )

    def _state(self, point: ScadaPoint) -> SwitchState:
        value = self.good(point)
        return SwitchState(int(value)) if math.isfinite(value) else SwitchState.UNKNOWN


class PublicationStatus(IntEnum):
    """Whether a published plan may still be counted on; the numbers are on the wire: never renumber them."""

    VALID = 1
    EXPIRED = 2
    WITHDRAWN = 3
    """The service stopped, or handed the fleet back."""


@dataclass(frozen=True)
class Publication:
    """The plan as the utility is told it."""

    plan: Plan
    mode: Mode
    """In observe mode nobody acts on the plan."""
    valid_until: datetime
    status: PublicationStatus
    published_at: datetime


_REGISTER_TYPES = {"int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "float32": 2}
_REGISTER = re.compile(
    r"(?P<unit>\d+)/(?P<table>holding|input)/(?P<address>\d+)/(?P<type>u?int(?:16|32)|float32)(?:/(?P<quality>\d+))?"
)


@dataclass(frozen=True, slots=True)
class RegisterPlace:
    """Where a Modbus point stands: `1/holding/100/float32`, or `1/input/100/int16/200` with a register of quality."""

    unit: int
    table: str
    """`holding` or `input`."""
    address: int
    """Protocol address, from 0."""
    type: str
    """int16, uint16, int32, uint32 or float32, the high register first."""
    quality: int | None
    """Protocol address of the register that holds quality bits, in the same table."""

    @property
    def count(self) -> int:
        return _REGISTER_TYPES[self.type]

    @classmethod
    def parse(cls, text: str) -> "RegisterPlace | None":
        """The place that a text names, or None."""
        found = _REGISTER.fullmatch(text)
        if not found:
            return None
        quality = None if found["quality"] is None else int(found["quality"])
        place = cls(int(found["unit"]), found["table"], int(found["address"]), found["type"], quality)
        inside = place.unit <= 255 and place.address + place.count <= 0x10000 and (quality or 0) < 0x10000
        return place if inside else None


_MODBUS_URL = re.compile(
    r"modbus://(?P<host>[A-Za-z0-9.-]+)(?::(?P<port>\d{1,5}))?(?:/(?P<unit>\d{1,3})/(?P<address>\d{1,5}))?/?"
)
MODBUS_PORT = 502


def modbus_place(url: str) -> tuple[Endpoint, int | None] | None:
    """Endpoint and protocol address of `modbus://host:port/unit/address`; None for another text.

    Without a port it is 502; without unit and address, unit 1 and no address.
    """
    found = _MODBUS_URL.fullmatch(url)
    if not found:
        return None
    port, unit, address = (int(found[name]) if found[name] else None for name in ("port", "unit", "address"))
    port = MODBUS_PORT if port is None else port
    if not (0 < port < 0x10000 and (unit or 0) <= 255 and (address or 0) < 0x10000):
        return None
    return Endpoint(found["host"], port, 1 if unit is None else unit), address


def head_phases(told: Sequence[float], like_w: FloatArray) -> FloatArray:
    """Head power per phase, shape (3,): as told, or a total spread like an earlier head; NaN when not known.

    Where the phases of that one are not all of one sign, nothing is known of the spread: thirds.
    """
    if len(told) == 3:
        return np.array(told)
    even = not (np.all(like_w > 0.0) or np.all(like_w < 0.0))
    shares: FloatArray = np.full(3, 1.0 / 3.0) if even else like_w / like_w.sum()
    return shares * (told[0] if told else math.nan)
