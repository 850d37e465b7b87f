"""A simulated device for every registered driver and for the template of profiles.

A reference device for SunSpec, for others one made from the map.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from derms.domain.der import DeviceKind
from derms.domain.dispatch import Quantity
from drivers.profiles.loader import FOLDER, broken, load_profile, packaged
from drivers.profiles.point import Point
from drivers.profiles.profile import Level, Profile, Speaks
from drivers.registry import REGISTRY, Kit, entry
from hil.specimen import Specimen
from tests.drivers.profile_devices import RATED_W, Beside, ProfileDevice

TEMPLATE = load_profile(FOLDER / "TEMPLATE.yaml")
PROFILES: Mapping[str, Profile] = {**packaged(), TEMPLATE.id: TEMPLATE}
KIT = Kit({**REGISTRY, TEMPLATE.id: entry(TEMPLATE)}, broken())
"""Every registered driver, and the template as if it were one."""
P_RATED_W = RATED_W
MEASURED_W = 1380.0
"""What a device made from its map measures, with the sign that its registers can hold."""
MODELS = {
    "sunspec": (1, *range(701, 714), 715),
    "fronius-float": (1, 113, 120, 121, 123, 124),
    "fronius-int": (1, 103, 120, 121, 123, 124),
    "sma": (1, 103, 120, 121, 123, 124),
    "solaredge": (1, 103),
}
"""What devices of each SunSpec make have."""


def measured_w(point: Point) -> float:
    """MEASURED_W, with the sign that the registers can hold."""
    unsigned = point.type.startswith("uint")
    return math.copysign(MEASURED_W, point.scale) if unsigned else MEASURED_W


Simulated = Specimen | ProfileDevice | Beside


@dataclass(frozen=True)
class Make:
    """One registered driver: what it claims, and how to make a device for it."""

    name: str
    claims: Level
    kind: DeviceKind
    unit: int
    p_w: float
    """What its device measures [W]."""

    def device(self, serial: str = "SN-1") -> Simulated:
        """A device of this make."""
        profile = PROFILES.get(self.name)
        if profile is not None and profile.speaks is Speaks.REGISTERS:
            return ProfileDevice(profile, p_w=self.p_w, serial=serial)
        specimen = Specimen(MODELS[self.name], serial=serial)
        return Beside(specimen, ProfileDevice(profile)) if profile is not None and profile.controls else specimen


def make(name: str) -> Make:
    """The make of a registered driver."""
    profile = PROFILES.get(name)
    if profile is None:
        return Make(name, Level.GOLD, DeviceKind.BATTERY, 1, 8000.0)
    kind = DeviceKind.PV if Quantity.P_LIMIT in profile.controls else min(profile.kinds)
    power = [measured.points[0] for measured in profile.telemetry if measured.column == "p_w"]
    return Make(name, profile.level, kind, profile.unit, measured_w(power[0]) if power else 8000.0)
