"""The drivers of profiles: devices with a register map of their own, and SunSpec devices with controls beside it."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import replace

from derms.domain.der import Device
from derms.domain.dispatch import Ceasing, Command, Held, Quantity
from derms.domain.telemetry import Identity, Reading
from derms.errors import DeviceMismatch, DeviceRefused, DeviceUnreachable, WriteForbidden
from derms.ports import Clock
from drivers.modbus.proven import ProvenConnection
from drivers.modbus.unit import Span, Unit
from drivers.profiles.layout import read_plan, without_holes
from drivers.profiles.profile import Profile
from drivers.profiles.register_map import RegisterMap
from drivers.sunspec.driver import SunSpecDriver

ILLEGAL_ADDRESS = 2


class RegisterDriver(ProvenConnection):
    """One device with a plain register map; see derms.ports.DeviceDriver.

    Every connect proves anew who answers, as far as the map can tell.
    """

    def __init__(self, device: Device, unit: Unit, clock: Clock, profile: Profile) -> None:
        super().__init__(unit)
        self._device = device
        self._clock = clock
        self._profile = profile
        self._layout, self._spans = read_plan(profile)
        self._parts: dict[Span, tuple[Span, ...]] = {}
        """How spans are read whose holes this device refuses."""
        self._map = RegisterMap(profile, unit)
        self._identity: Identity | None = None
        self._session = 0
        """Counts connects; what began in one is not believed in the next."""

    @property
    def identity(self) -> Identity:
        """Who the device said it is; raises DeviceUnreachable before the first connect is done."""
        if self._identity is None:
            raise DeviceUnreachable(f"{self._device.endpoint}: not connected")
        return self._identity

    async def connect(self) -> Identity:
        """Connect and prove anew; a kind of device that the profile is not for is refused before anything is asked."""
        if self._device.kind not in self._profile.kinds:
            kinds = ", ".join(sorted(self._profile.kinds))
            raise DeviceMismatch(f"{self._device.id}: {self._profile.id} is for {kinds}, not {self._device.kind}")
        return await super().connect()

    async def _prove(self) -> None:
        for proof in self._profile.nameplate.proof:
            await self._map.prove(proof)
        self._identity = await self._identify()
        self._session += 1

    async def _identify(self) -> Identity:
        nameplate = self._profile.nameplate
        serial = await self._map.text(nameplate.serial)
        expected = self._device.serial or (serial if self._identity is None else self._identity.serial)
        if serial != expected:
            told = repr(serial) if nameplate.serial else "not in this map"
            raise DeviceMismatch(f"{self._device.endpoint}: serial number {told}, expected {expected!r}")
        return Identity(
            manufacturer=await self._map.text(nameplate.manufacturer),
            model=await self._map.text(nameplate.model),
            version=await self._map.text(nameplate.version),
            serial=serial,
            **await self._map.ratings(),
            capabilities=self._profile.capabilities,
        )

    async def read(self) -> Reading:
        """All telemetry of the device; its time is that of the first request."""
        session = self._live()
        requested_s = self._clock.monotonic_s()
        parts = [await self._read(span) for span in self._spans]
        if self._live() != session:
            raise DeviceUnreachable(f"{self._device.endpoint}: reconnected while it was read")
        return Reading(b"".join(parts), requested_s, self._layout, self.identity)

    async def _read(self, span: Span) -> bytes:
        """One span; where the device refuses it for its holes, its parts, and so from then on. Holes read as 0."""
        if span not in self._parts:
            try:
                return await self._unit.read(span.address, span.count, table=span.table)
            except DeviceRefused as error:
                parts = without_holes(span, self._profile)
                if error.code != ILLEGAL_ADDRESS or parts == (span,):
                    raise
            self._parts[span] = parts
        data = bytearray(2 * span.count)
        for part in self._parts[span]:
            at = 2 * (part.address - span.address)
            data[at : at + 2 * part.count] = await self._unit.read(part.address, part.count, table=part.table)
        return bytes(data)

    async def write(self, command: Command) -> None:
        """Write a command, its dead-man timer first; raises WriteForbidden before anything is written."""
        async with self._commanding:
            self._live()
            await self._map.write(command, self._rating_w)

    async def read_back(self, quantity: Quantity) -> Held:
        """What the device's registers hold now for a quantity."""
        async with self._commanding:
            self._live()
            return await self._map.held(quantity, self._rating_w)

    async def refresh(self, quantity: Quantity, reversion_s: float) -> Held:
        """Write what the device holds once more with its timer, and read back; what is free stays so, unwritten."""
        async with self._commanding:
            self._live()
            return await self._map.refresh(quantity, reversion_s, self._rating_w)

    async def cease(self, by: Ceasing) -> bool:
        """No profile names a way: raises WriteForbidden."""
        raise self._cannot_cease(by)

    async def let_in(self, by: Ceasing) -> None:
        """Raises WriteForbidden."""
        raise self._cannot_cease(by)

    async def ceased(self, by: Ceasing) -> bool:
        """Raises WriteForbidden."""
        raise self._cannot_cease(by)

    def _cannot_cease(self, by: Ceasing) -> WriteForbidden:
        return WriteForbidden(f"{self._device.endpoint}: the device cannot be told to cease by {by.value}")

    async def beat(self) -> int | None:
        """Move the controller's heartbeat on; the device's own count, None where it has none."""
        async with self._commanding:
            self._live()
            return await self._map.beat()

    async def settings(self) -> Mapping[str, float]:
        """The profile's settings by name; see derms.ports.DeviceDriver."""
        session = self._live()
        found = await self._map.settings()
        if self._live() != session:
            raise DeviceUnreachable(f"{self._device.endpoint}: reconnected while its settings were read")
        return found

    @property
    def _rating_w(self) -> float:
        """What per cent count: the device's own rating, or the fleet file's where it does not say."""
        own_w = self.identity.p_rated_w
        return own_w if own_w > 0.0 else self._device.p_rated_w

    def _live(self) -> int:
        """The number of the connection that stands; raises DeviceUnreachable when none does or it is not proven."""
        if not self.connected:
            raise DeviceUnreachable(f"{self._device.endpoint}: not connected")
        return self._session


class SunSpecWithRegisters:
    """A SunSpec device that takes some quantities in registers of its maker's own; see derms.ports.DeviceDriver.

    Everything else is the SunSpec driver's, which also proves who answers.
    """

    def __init__(self, device: Device, unit: Unit, clock: Clock, profile: Profile) -> None:
        self._device = device
        self._profile = profile
        self._map = RegisterMap(profile, unit)
        self._driver = SunSpecDriver(device, unit, clock, profile.sunspec)
        self._rating_w = math.nan
        self._identity: Identity | None = None
        self._commanding = asyncio.Lock()

    @property
    def connected(self) -> bool:
        return self._identity is not None and self._driver.connected

    @property
    def identity(self) -> Identity:
        """Who the device said it is, with what its own registers take; raises DeviceUnreachable before that."""
        if self._identity is None:
            raise DeviceUnreachable(f"{self._device.endpoint}: not connected")
        return self._identity

    async def connect(self) -> Identity:
        """Connect and discover anew; see SunSpecDriver.connect."""
        async with self._commanding:
            self._identity = None
            found = await self._driver.connect()
            own_w = (await self._map.ratings())["p_rated_w"]
            known_w = own_w if own_w > 0.0 else found.p_rated_w
            self._rating_w = known_w if known_w > 0.0 else self._device.p_rated_w
            before, beside = found.capabilities, self._profile.capabilities
            self._identity = replace(
                found,
                capabilities=replace(
                    before,
                    takes=before.takes | beside.takes,
                    reverts=(before.reverts - beside.takes) | beside.reverts,
                    heartbeat=before.heartbeat or beside.heartbeat,
                ),
            )
            return self._identity

    async def read(self) -> Reading:
        """All telemetry of the device."""
        return (await self._driver.read())._replace(identity=self.identity)

    async def write(self, command: Command) -> None:
        """Write a command where the device takes its quantity."""
        if command.quantity not in self._profile.controls:
            await self._driver.write(command)
            return
        async with self._commanding:
            self._live()
            await self._map.write(command, self._rating_w)

    async def read_back(self, quantity: Quantity) -> Held:
        """What the device holds now for a quantity."""
        if quantity not in self._profile.controls:
            return await self._driver.read_back(quantity)
        async with self._commanding:
            self._live()
            return await self._map.held(quantity, self._rating_w)

    async def refresh(self, quantity: Quantity, reversion_s: float) -> Held:
        """Re-arm the dead-man timer of what the device holds."""
        if quantity not in self._profile.controls:
            return await self._driver.refresh(quantity, reversion_s)
        async with self._commanding:
            self._live()
            return await self._map.refresh(quantity, reversion_s, self._rating_w)

    async def cease(self, by: Ceasing) -> bool:
        """Have the device cease to energize, as its models take it."""
        return await self._driver.cease(by)

    async def let_in(self, by: Ceasing) -> None:
        """Permit it to energize again."""
        await self._driver.let_in(by)

    async def ceased(self, by: Ceasing) -> bool:
        """Whether it holds that it is to cease."""
        return await self._driver.ceased(by)

    async def beat(self) -> int | None:
        """Move the controller's heartbeat on."""
        if self._profile.heartbeat is None:
            return await self._driver.beat()
        async with self._commanding:
            self._live()
            return await self._map.beat()

    async def settings(self) -> Mapping[str, float]:
        """What engineers set, in models and in the profile's own registers."""
        found = await self._driver.settings()
        return {**found, **await self._map.settings()}

    def disconnect(self) -> None:
        """Drop the connection."""
        self._driver.disconnect()

    def _live(self) -> None:
        if not self.connected:
            raise DeviceUnreachable(f"{self._device.endpoint}: not connected")
