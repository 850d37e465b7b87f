"""A profile: what is particular to one make of device, as its YAML file says it, checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from derms.domain.der import DeviceKind
from derms.domain.dispatch import Capabilities, Quantity
from drivers.modbus.quirks import STANDARD, LinkQuirks
from drivers.profiles.control import Heartbeat, RegisterControl
from drivers.profiles.point import Point, Text
from drivers.sunspec.quirks import SunSpecQuirks

PLAIN = SunSpecQuirks()
"""A SunSpec device without quirks."""


class Speaks(StrEnum):
    """Where a device keeps its values."""

    SUNSPEC = "sunspec"
    """In models that are discovered."""
    REGISTERS = "registers"
    """In a map of its maker's own."""


class Level(StrEnum):
    """How far a profile is proven by the conformance suite."""

    BRONZE = "bronze"
    SILVER = "silver"
    GOLD = "gold"


@dataclass(frozen=True)
class Measured:
    """One column of derms.domain.telemetry, and the point it comes from; a point per phase where it has phases."""

    column: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Proof:
    """A register value that every device of the make has, and hardly any other."""

    point: Point
    equals: int


@dataclass(frozen=True, slots=True)
class Nameplate:
    """Who makes it; texts from the file, or read from the device."""

    manufacturer: str | Text = ""
    model: str | Text = ""
    version: str | Text = ""
    serial: Text | Point | None = None
    """None: the map does not have it, so the device cannot prove who it is."""
    proof: tuple[Proof, ...] = ()


@dataclass(frozen=True, slots=True)
class Reads:
    """How points are gathered into requests."""

    hole_max: int = 16
    """Registers between two points that may be read along [registers]; 0 where holes cannot be read."""
    count_max: int = 125
    """Longest request [registers]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """One make of device."""

    id: str
    """Its name in the `driver` column of the fleet file."""
    title: str
    speaks: Speaks
    kinds: frozenset[DeviceKind]
    level: Level = Level.BRONZE
    unit: int = 1
    """The Modbus unit that the make answers at when nobody changed it."""
    verified: str = ""
    """The real devices and firmware that it was tried on; empty for none."""
    link: LinkQuirks = STANDARD
    sunspec: SunSpecQuirks = PLAIN
    nameplate: Nameplate = Nameplate()
    ratings: Mapping[str, Point | float] = field(default_factory=dict)
    """`p_rated_w`, `s_rated_va`, `energy_wh`, `v_nominal_v`: numbers, or read from the device."""
    telemetry: tuple[Measured, ...] = ()
    reads: Reads = Reads()
    controls: Mapping[Quantity, RegisterControl] = field(default_factory=dict)
    heartbeat: Heartbeat | None = None
    settings: Mapping[str, Point] = field(default_factory=dict)
    """Points of the slow ring, by name: what engineers set, watched for drift."""

    @property
    def capabilities(self) -> Capabilities:
        """What the profile's own registers take, and how that ends when nobody speaks to the device."""
        takes = frozenset(self.controls)
        timers = frozenset(quantity for quantity, control in self.controls.items() if control.timer)
        watched = self.heartbeat is not None
        return Capabilities(takes=takes, reverts=takes if watched else timers, heartbeat=watched)

    @property
    def reversion_class(self) -> str:
        """How its own controls end when nobody speaks to it: A by timer, B by heartbeat, C not at all, or empty."""
        able = self.capabilities
        if not able.takes:
            return ""
        return "B" if able.heartbeat else "A" if able.takes == able.reverts else "C"
