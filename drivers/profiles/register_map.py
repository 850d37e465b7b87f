"""What a profile's map tells about one device, and how that device is commanded through it."""

import math
from collections.abc import Mapping

from derms.domain.dispatch import Command, Held, Quantity
from derms.errors import DeviceMismatch, DeviceRefused, ProtocolViolation, WriteForbidden
from drivers.modbus.unit import Priority, Table, Unit
from drivers.profiles.control import RegisterControl, Registers
from drivers.profiles.layout import spans_of
from drivers.profiles.point import Point, Text
from drivers.profiles.profile import Profile, Proof

ILLEGAL = (2, 3)
"""Exceptions with which a device refuses registers that it does not have."""
RATINGS = ("p_rated_w", "s_rated_va", "energy_wh", "v_nominal_v")


class RegisterMap:
    """Identity, ratings, settings and controls of one device as its profile places them."""

    def __init__(self, profile: Profile, unit: Unit) -> None:
        self._profile = profile
        self._unit = unit
        self._beats: int | None = None

    async def text(self, place: str | Text | Point | None) -> str:
        """A text of the profile's, or read from the device; empty for none."""
        if isinstance(place, Text):
            return place.text(await self._unit.read(place.address, place.size, table=place.table))
        if isinstance(place, Point):
            raw = place.raw(await self._unit.read(place.address, place.size, table=place.table))
            return "" if raw in place.absent else str(int(raw))
        return place or ""

    async def number(self, place: Point | float) -> float:
        """A number of the profile's, or read from the device; NaN for no value."""
        if isinstance(place, Point):
            return place.number(await self._unit.read(place.address, place.size, table=place.table))
        return place

    async def ratings(self) -> Mapping[str, float]:
        """What the device is rated for; NaN where nobody says, or what is said is no rating."""
        places = self._profile.ratings
        found = {name: await self.number(places.get(name, math.nan)) for name in RATINGS}
        return {name: number if number > 0.0 else math.nan for name, number in found.items()}

    async def prove(self, proof: Proof) -> None:
        """Raise DeviceMismatch for a device of another make: it lacks the registers, or they differ."""
        point = proof.point
        try:
            raw = point.raw(await self._unit.read(point.address, point.size, table=point.table))
        except DeviceRefused as error:
            if error.code not in ILLEGAL:
                raise
            raise DeviceMismatch(f"{self._unit.name}: is no {self._profile.title}: {error}") from error
        if raw != proof.equals:
            told = f"{raw} at {point.address}, where it has {proof.equals}"
            raise DeviceMismatch(f"{self._unit.name}: is no {self._profile.title}: {told}")

    async def settings(self) -> Mapping[str, float]:
        """What engineers set, by name; what has no value is not there."""
        found = {name: await self.number(point) for name, point in self._profile.settings.items()}
        return {name: number for name, number in found.items() if math.isfinite(number)}

    async def write(self, command: Command, rating_w: float) -> None:
        """Write a command over a fresh reading; a part taken and a part refused is a ProtocolViolation."""
        control = self.control(command.quantity)
        for number, write in enumerate(control.writes(await self._registers(control), command, rating_w)):
            try:
                await self._unit.write(write.address, write.data)
            except DeviceRefused as error:
                if number == 0:
                    raise
                raise ProtocolViolation(f"only a part of the command was taken: {error}") from error

    async def held(self, quantity: Quantity, rating_w: float) -> Held:
        """What the device holds now."""
        heartbeat = self._profile.heartbeat
        control = self.control(quantity)
        otherwise_s = heartbeat.timeout_s if heartbeat else math.nan
        return control.held_by(await self._registers(control), rating_w, otherwise_s)

    async def refresh(self, quantity: Quantity, reversion_s: float, rating_w: float) -> Held:
        """Write what the device holds once more with its timer, and read back; what is free stays so, unwritten."""
        held = await self.held(quantity, rating_w)
        if held.value_w is None or math.isnan(held.value_w):
            return held
        await self.write(Command(quantity, held.value_w, reversion_s), rating_w)
        return await self.held(quantity, rating_w)

    async def beat(self) -> int | None:
        """Move the controller's heartbeat on; the device's own count, or None where it has none."""
        heartbeat = self._profile.heartbeat
        if heartbeat is None:
            return None
        self._beats = heartbeat.after(self._beats)
        await self._unit.write(heartbeat.address, Point(heartbeat.address).pack(self._beats))
        echo = math.nan if heartbeat.echo is None else await self.number(heartbeat.echo)
        return int(echo) if math.isfinite(echo) else None

    def control(self, quantity: Quantity) -> RegisterControl:
        """How the device takes a quantity; raises WriteForbidden when it does not."""
        if quantity not in self._profile.controls:
            raise WriteForbidden(f"{self._unit.name}: the device does not take {quantity.value}")
        return self._profile.controls[quantity]

    async def _registers(self, control: RegisterControl) -> Registers:
        words: dict[tuple[Table, int], bytes] = {}
        for span in spans_of(control.points, self._profile.reads):
            data = await self._unit.read(span.address, span.count, table=span.table, priority=Priority.WRITE)
            words |= {(span.table, span.address + word): data[2 * word : 2 * word + 2] for word in range(span.count)}
        return words
