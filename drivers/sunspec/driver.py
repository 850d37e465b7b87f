"""The driver of SunSpec devices on Modbus TCP: discovers, polls in few requests, writes checked blocks, reads back."""

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from derms.domain.der import Device
from derms.domain.dispatch import Command, Held, Quantity
from derms.domain.telemetry import Identity, Reading
from derms.errors import DeviceMismatch, DeviceUnreachable, WriteForbidden
from derms.ports import Clock, FieldOptions
from drivers.modbus.transport import ModbusConnection
from drivers.sunspec.control import Control
from drivers.sunspec.scan import Place, read_image, scan
from drivers.sunspec.telemetry import Span, SunSpecLayout, read_plan


@dataclass(frozen=True)
class _Session:
    """A connection and what its scan found: valid together, replaced together."""

    connection: ModbusConnection
    layout: SunSpecLayout
    spans: tuple[Span, ...]
    controls: Mapping[Quantity, tuple[Control, Place]]


class SunSpecDriver:
    """One SunSpec device; see derms.ports.DeviceDriver.

    Every connect makes a new connection and scans it, so that a call that began on the old one fails instead of
    reading the new map with the old addresses.
    """

    def __init__(self, device: Device, clock: Clock, options: FieldOptions) -> None:
        self._device = device
        self._clock = clock
        self._options = options
        self._connection: ModbusConnection | None = None
        self._session: _Session | None = None
        self._commanding = asyncio.Lock()

    @property
    def connected(self) -> bool:
        return self._session is not None and self._session.connection.connected

    @property
    def layout(self) -> SunSpecLayout:
        """How readings decode; raises DeviceUnreachable before the first scan is done."""
        return self._scanned().layout

    async def connect(self) -> Identity:
        """Connect and discover anew; raises DeviceMismatch, after disconnecting, for another serial number."""
        self.disconnect()
        endpoint = self._device.endpoint
        connection = self._connection = ModbusConnection(
            endpoint.host,
            endpoint.port,
            endpoint.unit,
            timeout_s=self._options.timeout_s,
            connect_timeout_s=self._options.connect_timeout_s,
            read_only=self._options.read_only,
        )
        with ExitStack() as undo:
            undo.callback(connection.disconnect)
            await connection.connect()
            found = await scan(connection)
            if self._device.serial and found.identity.serial != self._device.serial:
                raise DeviceMismatch(
                    f"{endpoint}: serial number {found.identity.serial!r}, expected {self._device.serial!r}"
                )
            layout, spans = read_plan(found.chain)
            places = {
                quantity: (control, place)
                for quantity, control in found.controls.items()
                if (place := found.chain.find(control.model_id))
            }
            self._session = _Session(connection, layout, spans, places)
            undo.pop_all()
        return found.identity

    async def read(self) -> Reading:
        """All telemetry of the device; its time is that of the first request."""
        session = self._scanned()
        requested_s = self._clock.monotonic_s()
        raw = b"".join([await session.connection.read(span.address, span.count) for span in session.spans])
        return Reading(raw, requested_s, self._clock.monotonic_s())

    async def write(self, command: Command) -> None:
        """Write a command over a fresh reading of its model; raises WriteForbidden before anything is written."""
        session = self._scanned()
        control, place = self._control(session, command.quantity)
        async with self._commanding:
            image = await read_image(session.connection, place)
            for offset, data in control.writes(image, command):
                await session.connection.write(place.address + offset, data)

    async def read_back(self, quantity: Quantity) -> Held:
        """What the device's registers hold now for a quantity."""
        session = self._scanned()
        control, place = self._control(session, quantity)
        async with self._commanding:
            return control.held(await read_image(session.connection, place))

    def disconnect(self) -> None:
        """Drop the connection, a scan in progress included."""
        if self._connection is not None:
            self._connection.disconnect()

    def _scanned(self) -> _Session:
        if self._session is None:
            raise DeviceUnreachable(f"{self._device.endpoint}: not connected")
        return self._session

    def _control(self, session: _Session, quantity: Quantity) -> tuple[Control, Place]:
        if quantity not in session.controls:
            raise WriteForbidden(f"{self._device.endpoint}: the device does not take {quantity.value}")
        return session.controls[quantity]
