"""The device under test: whole models with their repeats, careful writes, and the way back to what was there.

Whatever a case writes is entered, with the bytes that were there, into a list that `restore` works off backwards.
After a lost connection nothing is written before the same serial number has answered.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from derms.errors import DeviceMismatch, DeviceRefused, DeviceUnreachable, FieldError, WriteForbidden
from derms.ports import Clock
from drivers.commission.raw import RawLink
from drivers.modbus.unit import MAX_READ, Unit
from drivers.sunspec.codec import Image
from drivers.sunspec.models import BASES, SUNS, Point, encode_point
from drivers.sunspec.scan import Chain, Place, find_chain
from drivers.sunspec.writable import Permission, permission

COMMON = 1
GATEWAY_CODES = (10, 11)
"""Modbus exceptions of a gateway: no path to the unit, or no answer from it."""
RESTORE_TRIES = 4
RESTORE_PAUSE_S = 2.0
"""Before a lost device is tried again on the way back [s]."""
_REPEAT = re.compile(r"\[\d+\]")


class ModelImage(Image):
    """One model as it was read, all repeats laid out, and where it stands."""

    def __init__(self, place: Place, data: bytes) -> None:
        super().__init__(place.model_id, data)
        self.place = place

    def whole(self, name: str, otherwise: int = 0) -> int:
        """An unscaled number; `otherwise` when it is not implemented or not there."""
        value = self.raw(name) if name in self.model.points else None
        return otherwise if value is None else int(value)


def path_of(point: Point) -> str:
    """A point's name without the numbers of its repeats: `Crv.Pt.V`."""
    return _REPEAT.sub("", point.name)


Dial = Callable[[], Awaitable[RawLink]]
"""Makes a bare connection to the device."""


@dataclass
class Subject:
    """One device on the test bench."""

    unit: Unit
    clock: Clock
    wait: Callable[[float], Awaitable[None]]
    """Lets seconds pass: real ones on site, simulated ones in tests."""
    say: Callable[[str], None]
    """Shows what is going on, to those who watch."""
    tell: Callable[[str], None]
    """Says what must not be missed."""
    dial: Dial | None
    """A bare connection for the TCP cases; None where there is no plain TCP."""
    chain: Chain = field(default_factory=lambda: Chain(()))
    serial: str | None = None
    _undo: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    @property
    def base(self) -> int:
        """Address of 'SunS'."""
        return self.chain.places[0].address - len(SUNS) // 2

    async def discover(self) -> None:
        """Connect and follow the model chain; raises FieldError."""
        await self.unit.connect()
        try:
            self.chain = await find_chain(self.unit)
        except DeviceMismatch:
            await self._ask_gateway()
            raise
        if self.chain.find(COMMON) is None:
            raise DeviceMismatch("the device has no common model (1), so nobody knows who it is")
        self.serial = (await self.model(COMMON)).text("SN")

    async def _ask_gateway(self) -> None:
        """Raise DeviceUnreachable when a gateway, and not a device, has refused to answer."""
        try:
            await self.unit.read(BASES[0], 1)
        except DeviceRefused as error:
            if error.code in GATEWAY_CODES:
                raise DeviceUnreachable(f"no such unit there: {error}") from error

    async def read(self, address: int, count: int, *, chunk: int = MAX_READ) -> bytes:
        """Read any number of registers, in requests of at most `chunk`; connects anew when the connection is lost."""
        await self._ready()
        starts = range(address, address + count, chunk)
        parts = [await self.unit.read(start, min(chunk, address + count - start)) for start in starts]
        return b"".join(parts)

    async def image(self, place: Place) -> ModelImage:
        """One model as it is now; KeyError for a model that is not known."""
        data = await self.read(place.address, place.size)
        return ModelImage(place, data)

    async def model(self, model_id: int) -> ModelImage:
        """The first instance of a model, which must be there, as it is now."""
        place = self.chain.find(model_id)
        if place is None:
            raise DeviceMismatch(f"the device has no model {model_id}")
        return await self.image(place)

    async def put(self, image: ModelImage, values: Mapping[str, int], *, restore: bool = True) -> None:
        """Write points, neighbours in one request, the first named last: name the point that enables first.

        Raises WriteForbidden for a point that commissioning does not write; `restore` enters the way back.
        """
        points = [image.model.points[name] for name in values]
        for point in points:
            if permission(image.model.id, point.name) is Permission.REFUSED:
                raise WriteForbidden(f"{point.name} of model {image.model.id} is never written by a test")
        for run in sorted(_runs(image, points), key=lambda run: points[0] in run):
            address = image.place.address + run[0].offset
            data = b"".join(
                encode_point(point, values[point.name]) if point.name in values else image.registers(point)
                for point in run
            )
            if restore:
                self.later(self.writing(address, b"".join(image.registers(point) for point in run)))
            await self.send(address, data)

    async def send(self, address: int, data: bytes) -> None:
        """Write registers, to the device that was discovered and to no other."""
        await self._ready()
        await self.unit.write(address, data)

    def later(self, act: Callable[[], Awaitable[None]]) -> None:
        """Enter a step of the way back, to be gone before those entered earlier."""
        self._undo.append(act)

    async def restore(self) -> str:
        """Put back what cases have changed, last first; returns what did not come through, empty when all did."""
        failures = []
        while self._undo:
            failures += await self._tried(self._undo.pop())
        return "; ".join(failures)

    async def _tried(self, act: Callable[[], Awaitable[None]]) -> list[str]:
        """A step of the way back; a lost connection gets further tries, a refusal does not."""
        failure = ""
        for _ in range(RESTORE_TRIES):
            try:
                await act()
            except DeviceUnreachable as error:
                failure = str(error)
                await self.wait(RESTORE_PAUSE_S)
            except FieldError as error:
                return [str(error)]
            else:
                return []
        return [failure]

    def writing(self, address: int, data: bytes) -> Callable[[], Awaitable[None]]:
        """A step of the way back that writes registers."""

        async def act() -> None:
            await self.send(address, data)

        return act

    async def _ready(self) -> None:
        if self.unit.connected:
            return
        await self.unit.connect()
        place = self.chain.find(COMMON)
        if self.serial is None or place is None:
            return
        data = await self.unit.read(place.address, min(place.size, MAX_READ))
        found = ModelImage(place, data).text("SN")
        if found != self.serial:
            self.unit.disconnect()
            raise DeviceMismatch(f"serial number {found!r} answers now, {self.serial!r} was under test")


def _runs(image: ModelImage, points: list[Point]) -> list[list[Point]]:
    """Points in address order, in runs without a gap; a gap of points that may be written too is closed with them."""
    first, end = min(p.offset for p in points), max(p.offset for p in points)
    wanted = {point.name for point in points}
    runs: list[list[Point]] = [[]]
    for point in sorted(image.model.points.values(), key=lambda point: point.offset):
        if first <= point.offset <= end:
            if point.name in wanted or permission(image.model.id, point.name) is not Permission.REFUSED:
                runs[-1].append(point)
            elif runs[-1]:
                runs.append([])
    kept = [_trimmed(run, wanted) for run in runs]
    return [run for run in kept if run]


def _trimmed(run: list[Point], wanted: set[str]) -> list[Point]:
    """A run from its first to its last wanted point."""
    at = [number for number, point in enumerate(run) if point.name in wanted]
    return run[at[0] : at[-1] + 1] if at else []
