"""What the core asks of the world; drivers, feeders and the shell fill these in."""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from derms.domain.alarm import Event
from derms.domain.arrays import FloatArray
from derms.domain.der import Device
from derms.domain.dispatch import Command, Held, Quantity
from derms.domain.grid import FeederPackage
from derms.domain.telemetry import Identity, Reading, TelemetryLayout, TelemetrySnapshot


class Clock(Protocol):
    """The only way to know the time."""

    def monotonic_s(self) -> float:
        """Seconds that never step back; drives control."""
        ...

    def utc(self) -> datetime:
        """Wall clock, timezone-aware UTC; for people, storage and the calendar."""
        ...


class DeviceDriver(Protocol):
    """One device, over whatever it speaks. Calls may overlap: the driver puts them in order.

    Every call raises a FieldError when it does not come through.
    """

    @property
    def connected(self) -> bool: ...

    @property
    def identity(self) -> Identity:
        """Who the device said it is; known once connected."""
        ...

    @property
    def layout(self) -> TelemetryLayout:
        """How readings of this device decode; known once connected."""
        ...

    async def connect(self) -> Identity:
        """Connect and discover anew; refuses another serial number than the fleet file's."""
        ...

    async def read(self) -> Reading:
        """All telemetry of the device, in as few requests as its layout allows."""
        ...

    async def write(self, command: Command) -> None:
        """Write a command as one checked block; a release disables the function."""
        ...

    async def read_back(self, quantity: Quantity) -> Held:
        """What the device holds now for a quantity."""
        ...

    def disconnect(self) -> None:
        """Drop the connection; `connect` starts anew."""
        ...


@dataclass(frozen=True, slots=True)
class FieldOptions:
    """Bounds of field communications, from the site file."""

    timeout_s: float
    """For one answer."""
    connect_timeout_s: float
    read_only: bool
    """Refuse write function codes inside the transport."""


class DriverKit(Protocol):
    """The drivers that this installation has, by the names that the fleet file uses."""

    @property
    def names(self) -> Collection[str]: ...

    def open(
        self, devices: Sequence[Device], clock: Clock, options: FieldOptions, chance: random.Random
    ) -> Mapping[str, DeviceDriver]:
        """A driver per device id, not connected yet; devices of one endpoint share its session."""
        ...


class FeederSource(Protocol):
    """Feeders by id or by path."""

    def __call__(self, feeder: str) -> FeederPackage:
        """Load a feeder package; raises ConfigError with every problem of its manifest."""
        ...


class ScadaSource(Protocol):
    """The utility's own view of its system."""

    def net_load_w(self, snapshot: TelemetrySnapshot) -> float:
        """System net load now [W], + = import; NaN when it is not known."""
        ...

    def history(self) -> tuple[Sequence[datetime], FloatArray]:
        """Past net load: ends of intervals (UTC) and means [W]; empty when there is none."""
        ...


class Historian(Protocol):
    """Where the record of everything goes."""

    def samples(self, snapshot: TelemetrySnapshot) -> None: ...

    def event(self, event: Event) -> None: ...
