"""The one table of drivers, by the name that the fleet file uses."""

from collections.abc import Mapping

from derms.ports import DriverFactory
from drivers.sunspec.driver import SunSpecDriver

REGISTRY: Mapping[str, DriverFactory] = {"sunspec": SunSpecDriver}


def drivers() -> Mapping[str, DriverFactory]:
    """All drivers that this installation has."""
    return REGISTRY
