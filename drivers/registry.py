"""The one table of drivers, by the name that the fleet file uses."""

import random
from collections.abc import Callable, Collection, Mapping, Sequence

from derms.domain.der import Device
from derms.ports import Clock, DeviceDriver, FieldOptions
from drivers.modbus.transport import ModbusConnection
from drivers.modbus.unit import Unit
from drivers.sunspec.driver import SunSpecDriver

Opener = Callable[[Device, Unit, Clock], DeviceDriver]

REGISTRY: Mapping[str, Opener] = {"sunspec": SunSpecDriver}


class Kit:
    """All drivers of a table; see derms.ports.DriverKit."""

    def __init__(self, table: Mapping[str, Opener]) -> None:
        self._table = table

    @property
    def names(self) -> Collection[str]:
        return self._table.keys()

    def open(
        self, devices: Sequence[Device], clock: Clock, options: FieldOptions, chance: random.Random
    ) -> Mapping[str, DeviceDriver]:
        """A driver per device id."""
        return {device.id: self._table[device.driver](device, _unit(device, options), clock) for device in devices}


def _unit(device: Device, options: FieldOptions) -> Unit:
    endpoint = device.endpoint
    return ModbusConnection(
        endpoint.host,
        endpoint.port,
        endpoint.unit,
        timeout_s=options.timeout_s,
        connect_timeout_s=options.connect_timeout_s,
        read_only=options.read_only,
    )


def drivers() -> Kit:
    """All drivers that this installation has."""
    return Kit(REGISTRY)
