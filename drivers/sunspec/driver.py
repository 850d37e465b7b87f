"""The driver of SunSpec devices on Modbus TCP: discovers, polls in few requests, writes checked blocks, reads back."""

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from derms.domain.der import Device
from derms.domain.dispatch import Command, Held, Quantity
from derms.domain.telemetry import Identity, Reading
from derms.errors import DeviceMismatch, DeviceRefused, DeviceUnreachable, ProtocolViolation, WriteForbidden
from derms.ports import Clock
from drivers.modbus.unit import Unit
from drivers.sunspec.control import Control
from drivers.sunspec.scan import Discovery, Place, read_image, scan
from drivers.sunspec.telemetry import INVERTERS, METERS, Span, SunSpecLayout, read_plan


@dataclass(frozen=True)
class _Session:
    """What the scan of a connection found: all of it is replaced with the next."""

    identity: Identity
    layout: SunSpecLayout
    spans: tuple[Span, ...]
    controls: Mapping[Quantity, tuple[Control, Place]]


class SunSpecDriver:
    """One SunSpec device; see derms.ports.DeviceDriver.

    Every connect makes a new connection and scans it, so that a call that began on the old one fails instead of
    reading the new map with the old addresses.
    """

    def __init__(self, device: Device, unit: Unit, clock: Clock) -> None:
        self._device = device
        self._unit = unit
        self._clock = clock
        self._session: _Session | None = None
        self._commanding = asyncio.Lock()
        self._connecting = asyncio.Lock()

    @property
    def connected(self) -> bool:
        return self._session is not None and self._unit.connected

    @property
    def layout(self) -> SunSpecLayout:
        """How readings decode; raises DeviceUnreachable before the first scan is done."""
        return self._scanned().layout

    @property
    def identity(self) -> Identity:
        """Who the device said it is; raises DeviceUnreachable before the first scan is done."""
        return self._scanned().identity

    async def connect(self) -> Identity:
        """Connect and discover anew; of calls at the same time one does it for all.

        Raises DeviceMismatch, after disconnecting, for another serial number, and for a device of another kind than
        the fleet file says.
        """
        others = self._connecting.locked()
        async with self._connecting:
            if not (others and self.connected):
                await self._connect_anew()
            return self.identity

    async def _connect_anew(self) -> None:
        self.disconnect()
        with ExitStack() as undo:
            undo.callback(self._unit.disconnect)
            await self._unit.connect()
            found = await scan(self._unit)
            self._check(found)
            layout, spans = read_plan(found.chain)
            places = {
                quantity: (control, place)
                for quantity, control in found.controls.items()
                if (place := found.chain.find(control.model_id))
            }
            self._session = _Session(found.identity, layout, spans, places)
            undo.pop_all()

    def _check(self, found: Discovery) -> None:
        """Refuse another device than the fleet file's: inverters and meters count power with opposite signs."""
        device, serial = self._device, found.identity.serial
        if device.serial and serial != device.serial:
            raise DeviceMismatch(f"{device.endpoint}: serial number {serial!r}, expected {device.serial!r}")
        if not any(found.chain.find(model_id) for model_id in (INVERTERS if device.is_der else METERS)):
            wanted = "an inverter" if device.is_der else "a meter"
            raise DeviceMismatch(f"{device.endpoint}: is not {wanted}, which a {device.kind.value} has to be")

    async def read(self) -> Reading:
        """All telemetry of the device; its time is that of the first request."""
        session = self._scanned()
        requested_s = self._clock.monotonic_s()
        raw = b"".join([await self._unit.read(span.address, span.count) for span in session.spans])
        return Reading(raw, requested_s, self._clock.monotonic_s())

    async def write(self, command: Command) -> None:
        """Write a command over a fresh reading of its model; raises WriteForbidden before anything is written.

        A device that takes a first block and refuses a later one is a ProtocolViolation: it holds a part of it.
        """
        session = self._scanned()
        control, place = self._control(session, command.quantity)
        async with self._commanding:
            image = await read_image(self._unit, place)
            for number, (offset, data) in enumerate(control.writes(image, command)):
                try:
                    await self._unit.write(place.address + offset, data)
                except DeviceRefused as error:
                    if number == 0:
                        raise
                    raise ProtocolViolation(f"only a part of the command was taken: {error}") from error

    async def read_back(self, quantity: Quantity) -> Held:
        """What the device's registers hold now for a quantity."""
        session = self._scanned()
        control, place = self._control(session, quantity)
        async with self._commanding:
            return control.held(await read_image(self._unit, place))

    def disconnect(self) -> None:
        """Drop the connection, a scan in progress included."""
        self._unit.disconnect()

    def _scanned(self) -> _Session:
        if self._session is None:
            raise DeviceUnreachable(f"{self._device.endpoint}: not connected")
        return self._session

    def _control(self, session: _Session, quantity: Quantity) -> tuple[Control, Place]:
        if quantity not in session.controls:
            raise WriteForbidden(f"{self._device.endpoint}: the device does not take {quantity.value}")
        return session.controls[quantity]
