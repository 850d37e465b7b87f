"""What the core asks of the world; drivers, feeders and the shell fill these in."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from derms.domain.alarm import Event
from derms.domain.der import Device, DeviceKind
from derms.domain.dispatch import Ceasing, Command, Held, Quantity
from derms.domain.grid import FeederPackage
from derms.domain.scada import Publication, Sample, ScadaPoint, ScadaReading
from derms.domain.telemetry import Identity, Reading, TelemetrySnapshot


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

    async def refresh(self, quantity: Quantity, reversion_s: float) -> Held:
        """Re-arm the reversion timer of what the device holds, and read back; what is disabled stays so, unwritten."""
        ...

    async def cease(self, by: Ceasing) -> bool:
        """Have the device cease to energize, before all else that waits for it; whether it was let in before.

        It holds until `let_in`, also when nobody speaks to the device any more. Raises WriteForbidden for a way that
        the device does not have.
        """
        ...

    async def let_in(self, by: Ceasing) -> None:
        """Permit the device to energize again, as far as this way goes: it enters service by its own rules."""
        ...

    async def ceased(self, by: Ceasing) -> bool:
        """Whether the device holds now that it is to cease to energize."""
        ...

    async def beat(self) -> int | None:
        """Show the device that its controller lives; its own count of heartbeats, None where it has none."""
        ...

    async def settings(self) -> Mapping[str, float]:
        """What engineers set in the device, by name: enabled functions, active curves, settings in force.

        Nothing that commands move, so that every difference between two calls is drift; what the device does not
        implement is not there. Units and signs are the device's own. Slow: many requests.
        """
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
    in_flight: int = 1
    """Requests that one connection may leave unanswered at once."""
    reconnects_per_s: float = 500.0
    """New connections a second over the whole fleet."""
    backoff_min_s: float = 1.0
    """First wait before an endpoint that failed is tried again; doubled with each failure, and jittered."""
    backoff_max_s: float = 60.0
    tls_ca: Path | None = None
    """PEM file of the authority that signs devices' certificates."""
    tls_certificate: Path | None = None
    """PEM file of the certificate that we show devices."""
    tls_key: Path | None = None
    serial_parity: str = "N"
    """N, E or O, of every serial line."""


@dataclass(frozen=True, slots=True)
class DriverInfo:
    """What the fleet file may say of a device with this driver."""

    kinds: frozenset[DeviceKind]
    unit: int = 1
    """Modbus unit where the file says none."""


class DriverKit(Protocol):
    """The drivers that this installation has, by the names that the fleet file uses."""

    @property
    def names(self) -> Mapping[str, DriverInfo]: ...

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

    async def poll(self) -> None:
        """Ask for news; what does not come through is an event, and what was known ages."""
        ...

    def reading(self, snapshot: TelemetrySnapshot) -> ScadaReading:
        """Everything known now, each value aged to now."""
        ...


class ScadaLink(Protocol):
    """The way to the utility's system; calls do not overlap."""

    async def fetch(self) -> Sequence[Sample] | None:
        """Every sample as it stands there now, None when nothing is new; raises ScadaError or FieldError."""
        ...


class PlanOutlet(Protocol):
    """Where the plan is published; calls do not overlap."""

    async def send(self, publication: Publication) -> None:
        """Publish the whole, so that no reader takes a part for it; raises ScadaError or FieldError."""
        ...


class ScadaKit(Protocol):
    """The utility's system over Modbus."""

    def source(self, url: str, points: Sequence[ScadaPoint]) -> ScadaLink:
        """Reads points from `modbus://host:port`."""
        ...

    def outlet(self, url: str) -> PlanOutlet:
        """Publishes to a block of holding registers at `modbus://host:port/unit/address`."""
        ...


class Historian(Protocol):
    """Where the record of everything goes."""

    def samples(self, snapshot: TelemetrySnapshot) -> None: ...

    def event(self, event: Event) -> None: ...
