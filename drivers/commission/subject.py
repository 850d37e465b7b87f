"""The device under test: whole models with their repeats, careful writes, and the way back to what was there.

Whatever a case writes is entered, with the bytes that were there, into a list that `restore` works off backwards.
After a lost connection nothing is written before the same serial number has answered.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

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
BUSY = 6
"""Modbus exception of a device that has no time just now."""
BUSY_TRIES = 4
BUSY_PAUSE_S = 1.0
"""Before a busy device is asked again [s]."""
APART = "; "
"""Stands between the parts of a verdict."""
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
Result = TypeVar("Result")


async def patiently(wait: Callable[[float], Awaitable[None]], work: Callable[[], Awaitable[Result]]) -> Result:
    """What a work gives that is tried again while the device says that it is busy."""
    for _ in range(BUSY_TRIES - 1):
        try:
            return await work()
        except DeviceRefused as error:
            if error.code != BUSY:
                raise
        await wait(BUSY_PAUSE_S)
    return await work()


@dataclass(frozen=True)
class Step:
    """A step of the way back, and what may stay when it cannot be gone."""

    act: Callable[[], Awaitable[None]]
    model_id: int = 0
    was: Mapping[str, float] = field(default_factory=dict)
    """Values of points before the write."""
    now: Mapping[str, float] = field(default_factory=dict)
    """Values that were written."""
    otherwise: str = ""
    """What may stay, where it is not points that were written."""


def what_stays(steps: Sequence[Step]) -> list[str]:
    """What a device may still hold after steps, the first one first, that could not be taken back."""
    was: dict[int, dict[str, float]] = {}
    now: dict[int, dict[str, float]] = {}
    for step in (step for step in steps if step.now):
        was[step.model_id] = {**step.was, **was.get(step.model_id, {})}
        now.setdefault(step.model_id, {}).update(step.now)
    texts = [_held(model_id, was[model_id], values) for model_id, values in now.items()]
    return texts + [step.otherwise for step in steps if step.otherwise]


def _held(model_id: int, was: Mapping[str, float], now: Mapping[str, float]) -> str:
    points = ", ".join(
        f"{name} = {value:g} (before: {was[name]:g})" for name, value in now.items() if value != was[name]
    )
    on = any(name.endswith("Ena") and value for name, value in now.items())
    timer_s = max((value for name, value in now.items() if name.endswith("RvrtTms")), default=0.0)
    if not on:
        ends = "nothing acts on it: the function is off"
    elif timer_s > 0.0:
        ends = f"its own reversion timer is due to let go of it within {timer_s:g} s"
    else:
        ends = "no reversion timer of its own runs: it stays until it is written"
    return f"model {model_id} may still hold {points or 'what it held before'}; {ends}"


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
    common: ModelImage | None = None
    """Model 1 as it was discovered."""
    _undo: list[Step] = field(default_factory=list)

    @property
    def serial(self) -> str | None:
        """Serial number of the device that was discovered."""
        return None if self.common is None else self.common.text("SN")

    @property
    def base(self) -> int:
        """Address of 'SunS'."""
        return self.chain.places[0].address - len(SUNS) // 2

    async def discover(self) -> None:
        """Connect and follow the model chain; raises FieldError."""
        await self.unit.connect()
        try:
            self.chain = await patiently(self.wait, self._find_chain)
        except DeviceMismatch:
            await self._ask_gateway()
            raise
        if self.chain.find(COMMON) is None:
            raise DeviceMismatch("the device has no common model (1), so nobody knows who it is")
        self.common = await patiently(self.wait, partial(self.model, COMMON))

    async def _find_chain(self) -> Chain:
        """The model chain; a busy device is told by the first address that was tried."""
        try:
            return await find_chain(self.unit)
        except DeviceRefused as error:
            if error.code == BUSY:
                await self.unit.read(BASES[0], len(SUNS) // 2)
            raise

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
                self.later(self._way_back(image, run, values))
            await self.send(address, data)

    async def send(self, address: int, data: bytes) -> None:
        """Write registers, to the device that was discovered and to no other."""
        await self._ready()
        await self.unit.write(address, data)

    def _way_back(self, image: ModelImage, run: Sequence[Point], values: Mapping[str, int]) -> Step:
        """The step that takes a write back."""
        names = [point.name for point in run if point.name in values]
        return Step(
            self.writing(image.place.address + run[0].offset, b"".join(image.registers(point) for point in run)),
            image.model.id,
            {name: image.whole(name) * image.resolution(name) for name in names},
            {name: values[name] * image.resolution(name) for name in names},
        )

    def later(self, step: Step) -> None:
        """Enter a step of the way back, to be gone before those entered earlier."""
        self._undo.append(step)

    async def restore(self) -> str:
        """Put back what cases have changed, last first; returns what did not come through, empty when all did."""
        stuck: list[Step] = []
        reasons: dict[str, None] = {}
        tries = RESTORE_TRIES
        while self._undo:
            step = self._undo.pop()
            failure = await self._tried(step.act, tries)
            if failure:
                stuck.insert(0, step)
                reasons[failure] = None
                tries = 1
        return APART.join([*reasons, *what_stays(stuck)])

    async def lost(self) -> str:
        """Why the device that was discovered does not answer any more; empty while it does."""

        async def look() -> None:
            with suppress(DeviceRefused):
                await self.model(COMMON)

        return await self._tried(look, RESTORE_TRIES)

    async def _tried(self, act: Callable[[], Awaitable[None]], tries: int) -> str:
        """Why an act fails, empty when it does not; a lost connection gets further tries, a refusal does not."""
        failure = ""
        for left in reversed(range(tries)):
            try:
                await act()
            except DeviceUnreachable as error:
                failure = failure or str(error)
            except FieldError as error:
                return str(error)
            else:
                return ""
            if left:
                await self.wait(RESTORE_PAUSE_S)
        return failure

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
