"""The driver of SunSpec devices: discovers, polls in few requests, writes checked blocks, re-arms, reads back."""

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from derms.domain.der import Device
from derms.domain.dispatch import Capabilities, Ceasing, Command, Held, Quantity
from derms.domain.telemetry import Identity, Reading
from derms.errors import DeviceMismatch, DeviceRefused, DeviceUnreachable, ProtocolViolation, WriteForbidden
from derms.ports import Clock
from drivers.modbus.proven import ProvenConnection
from drivers.modbus.unit import Priority, Span, Unit
from drivers.sunspec.codec import Image
from drivers.sunspec.control import SERVICE, Change, Control, Service, Write, rearmed, smallest, writes
from drivers.sunspec.curves import ADOPTED
from drivers.sunspec.quirks import STANDARD, SunSpecQuirks
from drivers.sunspec.scan import Chain, Discovery, Place, read_image, scan, verify
from drivers.sunspec.settings import SETTLED, settings_of
from drivers.sunspec.sources import INVERTERS, METERS
from drivers.sunspec.spans import ILLEGAL_ADDRESS, around, readable
from drivers.sunspec.telemetry import SunSpecLayout, read_plan

ILLEGAL = (2, 3)
"""Exceptions (data address, data value) with which a device refuses a block that it takes point by point."""
BEATS = 0xFFFF_FFFF
"""Heartbeats count modulo this: the value itself would be `not implemented`."""


RATINGS = ("121.", "702.")
"""Models with the settings that bound what a device gives and takes."""
RESCAN_S = 3600.0
"""Age of a scan up to which a reconnect only verifies that the device is still the one that was scanned."""


@dataclass(frozen=True)
class _Session:
    """What a scan found: all of it is replaced with the next."""

    found: Discovery
    scanned_s: float
    identity: Identity
    layout: SunSpecLayout
    spans: tuple[Span, ...]
    controls: Mapping[Quantity, tuple[Control, Place]]
    heads: tuple[tuple[int, bytes], ...]
    """Where in a reading models begin, and the ID and L that have to stand there."""
    read: Callable[[], Awaitable[bytes]]
    """One poll."""


class SunSpecDriver(ProvenConnection):
    """One SunSpec device; see derms.ports.DeviceDriver.

    Every connect makes a new connection and scans it, or verifies that it leads to the device of a recent scan.
    """

    def __init__(self, device: Device, unit: Unit, clock: Clock, quirks: SunSpecQuirks = STANDARD) -> None:
        super().__init__(unit)
        self._device = device
        self._clock = clock
        self._quirks = quirks
        self._session: _Session | None = None
        self._point_by_point: set[int] = set()
        """Models whose blocks this device refuses."""
        self._ratings: Mapping[str, float] = {}
        """As settings last told them."""
        self._beats = 0

    @property
    def identity(self) -> Identity:
        """Who the device said it is; raises DeviceUnreachable before the first scan is done."""
        return self._scanned().identity

    async def _prove(self) -> None:
        known = self._session
        recent = known is not None and self._clock.monotonic_s() - known.scanned_s < RESCAN_S
        if known is None or not recent or not await verify(self._unit, known.found):
            self._session = await self._discover()

    async def _discover(self) -> _Session:
        found = await scan(self._unit, bases=self._quirks.bases, absent=self._quirks.sentinels)
        self._check(found)
        layout, spans = read_plan(
            found.chain,
            models=self._measuring,
            absent=self._quirks.sentinels,
            registers_max=self._unit.registers_max,
        )
        places = {
            quantity: (control, place)
            for quantity, control in found.controls.items()
            if (place := found.chain.find(control.model_id))
        }
        identity = replace(
            found.identity,
            p_rated_w=smallest(found.identity.p_rated_w, *(control.most_w for control, _ in places.values())),
            capabilities=await self._capabilities(found),
        )
        heads = _heads(layout, found.chain)
        read = self._unit.reading(spans)
        return _Session(found, self._clock.monotonic_s(), identity, layout, spans, places, heads, read)

    def _check(self, found: Discovery) -> None:
        """Refuse another device than the fleet file's: inverters and meters count power with opposite signs."""
        device, serial = self._device, found.identity.serial
        expected = device.serial or (serial if self._session is None else self._session.identity.serial)
        if serial != expected:
            raise DeviceMismatch(f"{device.endpoint}: serial number {serial!r}, expected {expected!r}")
        if not any(found.chain.find(model_id) for model_id in self._measuring):
            wanted = "an inverter" if device.is_der else "a meter"
            raise DeviceMismatch(f"{device.endpoint}: is not {wanted}, which a {device.kind.value} has to be")

    @property
    def _measuring(self) -> Sequence[int]:
        """Models that measure a device of this kind: an inverter may carry those of a meter beside it."""
        return INVERTERS if self._device.is_der else METERS

    async def _capabilities(self, found: Discovery) -> Capabilities:
        controls = found.controls
        services = {service.model_id for service in SERVICE.values()}
        images = await self._images(found.chain, {control.model_id for control in controls.values()} | services)

        def has(model_id: int, name: str) -> bool:
            return model_id in images and images[model_id].implements(name)

        return Capabilities(
            takes=frozenset(controls),
            reverts=frozenset(q for q, control in controls.items() if has(control.model_id, control.timer)),
            heartbeat=has(715, "ControllerHb"),
            curves=frozenset(model_id for model_id in ADOPTED if found.chain.find(model_id)),
            ceases=frozenset(by for by, service in SERVICE.items() if has(service.model_id, service.point)),
        )

    async def _images(self, chain: Chain, model_ids: Iterable[int]) -> dict[int, Image]:
        places = [place for model_id in sorted(model_ids) if (place := chain.find(model_id))]
        return {place.model_id: await self._image(place, Priority.READ) for place in places}

    async def _image(self, place: Place, priority: Priority = Priority.WRITE) -> Image:
        image = await read_image(self._unit, place, absent=self._quirks.sentinels, priority=priority)
        head = image.registers(image.model.points["ID"]) + image.registers(image.model.points["L"])
        if head != place.head:
            raise self._moved()
        return image

    def _moved(self) -> ProtocolViolation:
        """Some makes swap their models while the connection stands: nothing more is asked before a new scan."""
        self.disconnect()
        return ProtocolViolation(f"{self._device.endpoint}: its models are no longer where they were")

    async def read(self) -> Reading:
        """All telemetry of the device; its time is that of the first request."""
        session = self._session
        if session is None or not self._proven:
            raise DeviceUnreachable(f"{self._device.endpoint}: not connected")
        requested_s = self._clock.monotonic_s()
        try:
            raw = await session.read()
        except DeviceRefused as error:
            if error.code != ILLEGAL_ADDRESS or not await self._leaves_out_holes(session):
                raise
            return await self.read()
        for at, head in session.heads:
            if not raw.startswith(head, at):
                raise self._moved()
        return Reading(raw, requested_s, session.layout, session.identity)

    async def _leaves_out_holes(self, session: _Session) -> bool:
        """Find what the device refuses to read, and leave it out from now on; false when it refuses nothing, or all."""
        found = {span: await readable(self._unit, span) for span in session.spans}
        layout, spans = around(session.layout, session.spans, found)
        if spans == session.spans or not (spans and layout.measures):
            return False
        heads, read = _heads(layout, session.found.chain), self._unit.reading(spans)
        self._session = replace(session, layout=layout, spans=spans, heads=heads, read=read)
        return True

    async def write(self, command: Command) -> None:
        """Write a command over a fresh reading of its model; raises WriteForbidden before anything is written.

        A block that the device refuses goes out point by point, enable last. A device that takes a first write and
        refuses a later one is a ProtocolViolation: it holds a part of the command.
        """
        async with self._commanding:
            control, place = self._control(self._live(), command.quantity)
            image = await self._image(place)
            await self._change(place, image, control.change(image, command))

    async def refresh(self, quantity: Quantity, reversion_s: float) -> Held:
        """Re-arm the reversion timer of what the device holds; where the time left cannot be seen, with the value."""
        async with self._commanding:
            control, place = self._control(self._live(), quantity)
            image = await self._image(place)
            told = control.left is not None and image.implements(control.left)
            whole = self._quirks.refresh_value or not told
            await self._change(place, image, rearmed(control, image, quantity, reversion_s, whole=whole))
            return control.held(await self._image(place))

    async def read_back(self, quantity: Quantity) -> Held:
        """What the device's registers hold now for a quantity."""
        async with self._commanding:
            control, place = self._control(self._live(), quantity)
            return control.held(await self._image(place))

    async def cease(self, by: Ceasing) -> bool:
        """Withdraw service, over a fresh reading of the model; whether it was there before."""
        async with self._commanding:
            service, place = self._service(self._live(), by)
            image = await self._image(place, Priority.EMERGENCY)
            await self._change(place, image, service.change(let_in=False), Priority.EMERGENCY)
            return not service.ceased(image)

    async def let_in(self, by: Ceasing) -> None:
        """Give service back."""
        async with self._commanding:
            service, place = self._service(self._live(), by)
            await self._change(place, await self._image(place), service.change(let_in=True))

    async def ceased(self, by: Ceasing) -> bool:
        """Whether the register holds now that service is withdrawn; unknown values are not."""
        async with self._commanding:
            service, place = self._service(self._live(), by)
            return service.ceased(await self._image(place, Priority.EMERGENCY))

    async def beat(self) -> int | None:
        """Count the controller's heartbeat up (715) and look at the device's own; None where it has none."""
        async with self._commanding:
            session = self._live()
            place = session.found.chain.find(715)
            if place is None or not session.identity.capabilities.heartbeat:
                return None
            image = await self._image(place)
            self._beats = (self._beats + 1) % BEATS
            await self._change(place, image, Change(value={"ControllerHb": self._beats}))
            own = image.raw("DERHb")
            return int(own) if isinstance(own, int) else None

    async def settings(self) -> Mapping[str, float]:
        """What engineers set, by model and point: `705.Ena`, `705.Crv[0].Pt[1].V`; see derms.ports.DeviceDriver.

        Ratings that are others than at the last look have the device scanned anew: commands count on them.
        """
        session = self._live()
        images = await self._images(session.found.chain, SETTLED)
        if self._live() is not session:
            raise DeviceUnreachable(f"{self._device.endpoint}: reconnected while its settings were read")
        settings = {name: value for image in images.values() for name, value in settings_of(image).items()}
        ratings = {name: value for name, value in settings.items() if name.startswith(RATINGS)}
        if self._ratings not in ({}, ratings):
            self._session = replace(session, scanned_s=-math.inf)
            self.disconnect()
        self._ratings = ratings
        return settings

    async def _change(self, place: Place, image: Image, change: Change, priority: Priority = Priority.WRITE) -> None:
        """Write a change, point by point where this device wants it so or, after it refused the block, takes it so."""
        model_id = place.model_id
        if not (self._quirks.value_first or model_id in self._point_by_point):
            block = self._requests(image, change, value_first=False)
            try:
                await self._send(place, block, priority)
            except DeviceRefused as error:
                if error.code not in ILLEGAL or all(len(names) == 1 for _, _, names in block):
                    raise
            else:
                return
        await self._send(place, self._requests(image, change, value_first=True), priority)
        self._point_by_point.add(model_id)

    def _requests(self, image: Image, change: Change, *, value_first: bool) -> list[Write]:
        """A change as requests, the enable point once more at the end where the device begins to count only then."""
        requests = writes(image, change, value_first=value_first)
        if self._quirks.enable_again and change.value:
            requests += writes(image, Change(enable=change.enable), value_first=True)
        return requests

    async def _send(self, place: Place, requests: list[Write], priority: Priority) -> None:
        taken: list[str] = []
        for offset, data, names in requests:
            try:
                await self._unit.write(place.address + offset, data, priority=priority)
            except DeviceRefused as error:
                if not taken:
                    raise
                raise ProtocolViolation(f"took only {', '.join(taken)}: {error}") from error
            taken.extend(names)

    def _live(self) -> _Session:
        """The session of the connection that stands; raises DeviceUnreachable when none does or it is not scanned."""
        session = self._scanned()
        if not self.connected:
            raise DeviceUnreachable(f"{self._device.endpoint}: not connected")
        return session

    def _scanned(self) -> _Session:
        if self._session is None:
            raise DeviceUnreachable(f"{self._device.endpoint}: not connected")
        return self._session

    def _control(self, session: _Session, quantity: Quantity) -> tuple[Control, Place]:
        if quantity not in session.controls:
            raise WriteForbidden(f"{self._device.endpoint}: the device does not take {quantity.value}")
        return session.controls[quantity]

    def _service(self, session: _Session, by: Ceasing) -> tuple[Service, Place]:
        service = SERVICE[by]
        place = session.found.chain.find(service.model_id)
        if place is None or by not in session.identity.capabilities.ceases:
            raise WriteForbidden(f"{self._device.endpoint}: the device cannot be told to cease by {by.value}")
        return service, place


def _heads(layout: SunSpecLayout, chain: Chain) -> tuple[tuple[int, bytes], ...]:
    """Where the models of a reading begin, and with what."""
    begun = [(part, chain.find(part.model_id)) for part in layout.parts if part.first == 0]
    return tuple((2 * part.start, place.head) for part, place in begun if place)
