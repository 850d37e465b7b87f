"""The one table of drivers, by the name that the fleet file uses: SunSpec by the book, and every profile."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from derms.domain.der import DISPATCHED_KINDS, Device, DeviceKind
from derms.errors import Problem
from derms.ports import Clock, DeviceDriver, DriverInfo, FieldOptions
from drivers.modbus.quirks import STANDARD, LinkQuirks
from drivers.modbus.session import Sessions
from drivers.modbus.unit import Unit
from drivers.profiles.driver import RegisterDriver, SunSpecWithRegisters
from drivers.profiles.loader import broken, packaged
from drivers.profiles.profile import Profile, Speaks
from drivers.sunspec.driver import SunSpecDriver

Opener = Callable[[Device, Unit, Clock], DeviceDriver]


@dataclass(frozen=True, slots=True)
class Entry:
    """One driver."""

    open: Opener
    info: DriverInfo
    link: LinkQuirks = STANDARD


def entry(profile: Profile) -> Entry:
    """The driver of a profile."""

    def opened(device: Device, unit: Unit, clock: Clock) -> DeviceDriver:
        if profile.speaks is Speaks.REGISTERS:
            return RegisterDriver(device, unit, clock, profile)
        if profile.controls:
            return SunSpecWithRegisters(device, unit, clock, profile)
        return SunSpecDriver(device, unit, clock, profile.sunspec)

    return Entry(opened, DriverInfo(profile.kinds, profile.unit), profile.link)


METERS = frozenset({DeviceKind.HEAD_METER, DeviceKind.VOLTAGE_SENSOR, DeviceKind.SYSTEM_METER})
REGISTRY: Mapping[str, Entry] = {
    "sunspec": Entry(SunSpecDriver, DriverInfo(DISPATCHED_KINDS | METERS)),
    **{name: entry(profile) for name, profile in packaged().items()},
}


NO_PROBLEMS: Mapping[str, Sequence[Problem]] = MappingProxyType({})


class Kit:
    """All drivers of a table; see derms.ports.DriverKit. `problems` says what is wrong with those it cannot have."""

    def __init__(self, table: Mapping[str, Entry], problems: Mapping[str, Sequence[Problem]] = NO_PROBLEMS) -> None:
        self._table = table
        self.problems = problems

    @property
    def names(self) -> Mapping[str, DriverInfo]:
        return {name: found.info for name, found in self._table.items()}

    def open(
        self, devices: Sequence[Device], clock: Clock, options: FieldOptions, chance: random.Random
    ) -> Mapping[str, DeviceDriver]:
        """A driver per device id, not connected yet; devices of one endpoint share its session."""
        sessions = Sessions(options, chance)
        opened: dict[str, DeviceDriver] = {}
        for device in devices:
            found = self._table[device.driver]
            opened[device.id] = found.open(device, sessions.unit(device.endpoint, found.link), clock)
        return opened


def drivers() -> Kit:
    """All drivers that this installation has, and the mistakes of profiles that cannot be used."""
    return Kit(REGISTRY, broken())
