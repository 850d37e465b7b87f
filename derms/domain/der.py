"""The fleet: devices that are polled, and the ratings that bound every command to them.

Powers in W, + = injection into the grid; energy in Wh; state of charge 0..1.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.domain.connection import Connection


class DeviceKind(StrEnum):
    """What a device is to the control room."""

    PV = "pv"
    BATTERY = "battery"
    EV_CHARGER = "ev-charger"
    """Draws power: its injection is negative."""
    LOAD = "load"
    """A load that can be switched as a whole; draws power."""
    HEAD_METER = "head-meter"
    """Measures the whole feeder at its head; + = import."""
    VOLTAGE_SENSOR = "voltage-sensor"
    SYSTEM_METER = "system-meter"
    """Stands for the utility's SCADA: the net load of the whole system; + = import."""


DISPATCHED_KINDS = frozenset({DeviceKind.PV, DeviceKind.BATTERY})
"""DER that the control room commands."""
DER_KINDS = DISPATCHED_KINDS | {DeviceKind.EV_CHARGER, DeviceKind.LOAD}
"""Rated, at a bus of the feeder, and measured; those not dispatched stay with whoever commands them."""
METER_KINDS = frozenset(DeviceKind) - DER_KINDS
"""They measure the grid."""


class Transport(StrEnum):
    """What carries Modbus to a device."""

    TCP = "tcp"
    RTU_TCP = "rtu-tcp"
    """RTU frames with their checksum through a TCP connection, as serial servers pass them on."""
    TLS = "tls"
    """Modbus/TCP Security: the same frames inside mutual TLS, usually on port 802."""
    SERIAL = "serial"
    """An RTU line; `host` is the serial port, `port` its speed [baud]."""


class Link(StrEnum):
    """What the way to a device costs, which is how often it is polled."""

    FIXED = "fixed"
    CELLULAR = "cellular"
    """Paid by the byte."""


class ChargeFrom(StrEnum):
    """What a battery may charge from."""

    ANY = "any"
    SOLAR = "solar"
    """Only the PV behind its connection."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a device listens."""

    host: str
    port: int
    unit: int = 1
    transport: Transport = Transport.TCP

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device of the fleet file."""

    id: str
    kind: DeviceKind
    driver: str
    endpoint: Endpoint
    bus: str
    """Bus of the feeder model at which it connects."""
    p_rated_w: float = 0.0
    """Nameplate active power [W]; for a battery both ways."""
    s_rated_va: float = 0.0
    energy_wh: float = 0.0
    """Usable energy [Wh]; 0 for everything but a battery."""
    soc_min_frac: float = 0.1
    """Reserve [0..1]: no discharge at or below it."""
    soc_max_frac: float = 0.95
    efficiency_frac: float = 0.95
    """One-way efficiency (0..1] of a battery with its inverter."""
    serial: str = ""
    """Expected serial number; empty accepts any."""
    link: Link = Link.FIXED
    connection: str = ""
    """Id of the connection that it shares; empty: one of its own, without a limit."""
    inverter: str = ""
    """Id of the inverter that it shares; empty: one of its own."""
    backup_frac: float = 0.0
    """Kept in a battery for an outage [0..1]."""
    charge_from: ChargeFrom = ChargeFrom.ANY

    @property
    def is_der(self) -> bool:
        return self.kind in DER_KINDS

    @property
    def is_dispatched(self) -> bool:
        return self.kind in DISPATCHED_KINDS


@dataclass(frozen=True)
class Fleet:
    """All devices, in file order; the row of a device is its index in every column of the house."""

    devices: tuple[Device, ...]
    connections: tuple[Connection, ...] = ()
    index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {device.id: row for row, device in enumerate(self.devices)})

    def __len__(self) -> int:
        return len(self.devices)

    def mask(self, *kinds: DeviceKind) -> BoolArray:
        """Rows of the kinds named, shape (n,)."""
        return np.array([device.kind in kinds for device in self.devices], dtype=np.bool_)

    def rows(self, *kinds: DeviceKind) -> list[int]:
        """Row numbers of the kinds named, in file order."""
        return [row for row, device in enumerate(self.devices) if device.kind in kinds]

    def derated(self, p_rated_w: FloatArray, energy_wh: FloatArray) -> "Fleet":
        """The same fleet with every battery as small as it says it is [W, Wh], shape (n,); NaN: as in the file."""
        power_w, stored_wh = np.fmin(self.p_rated_w, p_rated_w), np.fmin(self.energy_wh, energy_wh)
        smaller = self.is_battery & ((power_w < self.p_rated_w) | (stored_wh < self.energy_wh))
        if not smaller.any():
            return self
        devices = list(self.devices)
        for row in np.flatnonzero(smaller).tolist():
            devices[row] = replace(devices[row], p_rated_w=float(power_w[row]), energy_wh=float(stored_wh[row]))
        return Fleet(tuple(devices), self.connections)

    @cached_property
    def is_pv(self) -> BoolArray:
        return self.mask(DeviceKind.PV)

    @cached_property
    def is_battery(self) -> BoolArray:
        return self.mask(DeviceKind.BATTERY)

    @cached_property
    def is_undispatched(self) -> BoolArray:
        """DER whose power is measured and never commanded."""
        return self.mask(*(DER_KINDS - DISPATCHED_KINDS))

    @cached_property
    def is_meter(self) -> BoolArray:
        return self.mask(*METER_KINDS)

    @cached_property
    def p_rated_w(self) -> FloatArray:
        return _column(device.p_rated_w for device in self.devices)

    @cached_property
    def s_rated_va(self) -> FloatArray:
        return _column(device.s_rated_va for device in self.devices)

    @cached_property
    def energy_wh(self) -> FloatArray:
        return _column(device.energy_wh for device in self.devices)

    @cached_property
    def soc_min_frac(self) -> FloatArray:
        return _column(device.soc_min_frac for device in self.devices)

    @cached_property
    def soc_max_frac(self) -> FloatArray:
        return _column(device.soc_max_frac for device in self.devices)

    @cached_property
    def backup_frac(self) -> FloatArray:
        return _column(device.backup_frac for device in self.devices)

    @cached_property
    def reserve_frac(self) -> FloatArray:
        """State of charge that no command goes below: the reserve, and what is kept for an outage."""
        return np.maximum(self.soc_min_frac, self.backup_frac)

    @cached_property
    def solar_only(self) -> BoolArray:
        """Batteries that charge from the PV behind their connection only."""
        return np.array([device.charge_from is ChargeFrom.SOLAR for device in self.devices], dtype=np.bool_)

    @cached_property
    def connection(self) -> IntArray:
        """Place in `connections` of each device's, -1 where it has one of its own."""
        return _places((device.connection for device in self.devices), (each.id for each in self.connections))

    @cached_property
    def giving_max_w(self) -> FloatArray:
        """What the devices behind each connection may inject together, shape (connections,)."""
        return _column(connection.giving_max_w for connection in self.connections)

    @cached_property
    def taking_max_w(self) -> FloatArray:
        """What they may draw together, >= 0, shape (connections,)."""
        return _column(connection.taking_max_w for connection in self.connections)

    @cached_property
    def inverters(self) -> tuple[str, ...]:
        """Inverters that several devices share."""
        return tuple(dict.fromkeys(device.inverter for device in self.devices if device.inverter))

    @cached_property
    def inverter(self) -> IntArray:
        """Place in `inverters` of each device's, -1 where it has one of its own."""
        return _places((device.inverter for device in self.devices), self.inverters)

    @cached_property
    def efficiency_frac(self) -> FloatArray:
        return _column(device.efficiency_frac for device in self.devices)


def _column(values: Iterable[float]) -> FloatArray:
    column = np.array(list(values), dtype=np.float64)
    column.flags.writeable = False
    return column


def _places(names: Iterable[str], among: Iterable[str]) -> IntArray:
    place = {name: number for number, name in enumerate(among)}
    return np.array([place.get(name, -1) for name in names], dtype=np.intp)
