"""A simulated device for every registered driver: a reference device for SunSpec, for others one made from the map."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from derms.domain.der import DeviceKind
from derms.domain.dispatch import Quantity
from drivers.modbus.unit import Table
from drivers.profiles.control import RegisterControl
from drivers.profiles.layout import spans_of
from drivers.profiles.loader import packaged
from drivers.profiles.point import Point, Text
from drivers.profiles.profile import Level, Profile, Speaks
from hil.registers import ILLEGAL_ADDRESS
from hil.specimen import Specimen
from hil.unit import READ_HOLDING, READ_INPUT, WRITE_MANY, WRITE_ONE, SimulatedUnit

P_RATED_W = 10_000.0
MEASURED_W = 1380.0
"""What a device made from its map measures, with the sign that its registers can hold."""
MODELS = {
    "sunspec": (1, *range(701, 714), 715),
    "fronius-float": (1, 113, 120, 121, 123, 124),
    "fronius-int": (1, 103, 120, 121, 123, 124),
    "sma": (1, 103, 120, 121, 123, 124),
    "solaredge": (1, 103),
}
"""What devices of each SunSpec make have."""


class Mapped(SimulatedUnit):
    """A device with the registers that a profile names: it obeys, counts its dead-man time, and lets go after it."""

    functions = frozenset({READ_HOLDING, READ_INPUT, WRITE_ONE, WRITE_MANY})

    def __init__(self, profile: Profile, serial: str) -> None:
        super().__init__()
        self.base = 0
        self.view = memoryview(b"")
        self._profile = profile
        self._left_s = math.inf
        self._words: dict[tuple[Table, int], bytes] = {}
        self._writable = set(_commanded(profile))
        for span in spans_of(_points(profile), profile.reads):
            self._store(span.table, span.address, bytes(2 * span.count))
        for measured in profile.telemetry:
            for point in measured.points:
                self._put(point, _plausible(measured.column, point))
        for place in profile.ratings.values():
            if isinstance(place, Point):
                self._put(place, place.registers(P_RATED_W if place.size > 1 else 230.0))
        self._identify(serial)

    def _identify(self, serial: str) -> None:
        nameplate = self._profile.nameplate
        for text in (nameplate.manufacturer, nameplate.model, nameplate.version, nameplate.serial):
            if isinstance(text, Text):
                self._store(text.table, text.address, serial.encode().ljust(2 * text.size, b"\0"))
            elif isinstance(text, Point):
                self._put(text, text.pack(abs(hash(serial)) % 1000 + 1))
        for proof in nameplate.proof:
            self._put(proof.point, proof.point.pack(proof.equals))

    def tick(self, dt_s: float) -> None:
        """Let time pass: what is not refreshed in its time is let go."""
        self._left_s -= dt_s
        for control in self._profile.controls.values():
            if control.left:
                self._put(control.left, control.left.pack(max(0, round(min(self._left_s, 60_000.0)))))
            if self._left_s <= 0.0:
                self._let_go(control)

    def _let_go(self, control: RegisterControl) -> None:
        if control.enable:
            self._put(control.enable.point, control.enable.point.pack(control.enable.off))
        elif control.release is not None:
            self._put(control.value, control.value.pack(control.release))

    def read(self, function: int, address: int, count: int) -> bytes | int:
        words = [(Table(function), address + at) for at in range(count)]
        return (
            b"".join(self._words[word] for word in words) if all(w in self._words for w in words) else ILLEGAL_ADDRESS
        )

    def admitted(self, address: int, data: bytes) -> bytes | int:
        inside = all(address + at in self._writable for at in range(len(data) // 2))
        return data if inside else ILLEGAL_ADDRESS

    def store(self, address: int, data: bytes, *, obeyed: bool) -> None:
        self._store(Table.HOLDING, address, data)
        if obeyed:
            self._left_s = self._dead_man_s()

    def _dead_man_s(self) -> float:
        """What is armed: the timer of a control, or the patience with a heartbeat; endless without either."""
        heartbeat = self._profile.heartbeat
        timers = [control.timer for control in self._profile.controls.values() if control.timer]
        armed = [timer.number(self._taken(timer)) for timer in timers]
        if heartbeat and math.isfinite(heartbeat.timeout_s):
            armed.append(heartbeat.timeout_s)
        return min((seconds for seconds in armed if seconds > 0.0), default=math.inf)

    def restart(self) -> None:
        """Nothing is lost."""

    def has(self, table: Table, address: int) -> bool:
        return (table, address) in self._words

    def _taken(self, point: Point) -> bytes:
        return b"".join(self._words[point.table, point.address + at] for at in range(point.size))

    def _put(self, point: Point, data: bytes) -> None:
        self._store(point.table, point.address, data)

    def _store(self, table: Table, address: int, data: bytes) -> None:
        for at in range(len(data) // 2):
            self._words[table, address + at] = data[2 * at : 2 * at + 2]


def _commanded(profile: Profile) -> Iterator[int]:
    """Addresses that commands may write."""
    for control in profile.controls.values():
        switch = control.enable.point if control.enable else None
        for point in (control.value, control.timer, switch):
            if point:
                yield from range(point.address, point.address + point.size)
    if profile.heartbeat:
        yield profile.heartbeat.address


def _points(profile: Profile) -> Iterator[Point]:
    for measured in profile.telemetry:
        yield from measured.points
    for control in profile.controls.values():
        yield from control.points
        yield control.value
    if profile.heartbeat:
        yield Point(profile.heartbeat.address)
        if profile.heartbeat.echo:
            yield profile.heartbeat.echo
    yield from profile.settings.values()


def _plausible(column: str, point: Point) -> bytes:
    """Registers of a measurement: power that is known to the checks, and something small for the rest."""
    if column == "p_w":
        return point.registers(measured_w(point))
    return point.pack(point.codes[0][0] if point.codes else 1)


def measured_w(point: Point) -> float:
    """The power that a device made from its map measures [W], with the sign that its registers can hold."""
    unsigned = point.type.startswith("uint")
    return math.copysign(MEASURED_W, point.scale) if unsigned else MEASURED_W


class Beside(SimulatedUnit):
    """A SunSpec device with registers of its maker's own beside the models."""

    functions = Mapped.functions

    def __init__(self, specimen: Specimen, own: Mapped) -> None:
        super().__init__()
        self.base = 0
        self.view = memoryview(b"")
        self._specimen = specimen
        self._own = own

    def _of(self, address: int) -> SimulatedUnit:
        return self._own if self._own.has(Table.HOLDING, address) else self._specimen

    def tick(self, dt_s: float) -> None:
        self._specimen.tick(dt_s)
        self._own.tick(dt_s)

    def read(self, function: int, address: int, count: int) -> bytes | int:
        return self._of(address).read(function, address, count)

    def admitted(self, address: int, data: bytes) -> bytes | int:
        return self._of(address).admitted(address, data)

    def store(self, address: int, data: bytes, *, obeyed: bool) -> None:
        self._of(address).store(address, data, obeyed=obeyed)

    def restart(self) -> None:
        self._specimen.restart()


Simulated = Specimen | Mapped | Beside


@dataclass(frozen=True)
class Make:
    """One registered driver: what it claims, and how to make a device for it."""

    name: str
    claims: Level
    kind: DeviceKind
    unit: int
    p_w: float
    """What its device measures [W]."""

    def device(self, serial: str = "SN-1") -> Simulated:
        """A device of this make."""
        profile = packaged().get(self.name)
        if profile is not None and profile.speaks is Speaks.REGISTERS:
            return Mapped(profile, serial)
        specimen = Specimen(MODELS[self.name], serial=serial)
        return Beside(specimen, Mapped(profile, serial)) if profile is not None and profile.controls else specimen


def make(name: str) -> Make:
    """The make of a registered driver."""
    profile = packaged().get(name)
    if profile is None:
        return Make(name, Level.GOLD, DeviceKind.BATTERY, 1, 8000.0)
    kind = DeviceKind.PV if Quantity.P_LIMIT in profile.controls else min(profile.kinds)
    power = [measured.points[0] for measured in profile.telemetry if measured.column == "p_w"]
    return Make(name, profile.level, kind, profile.unit, measured_w(power[0]) if power else 8000.0)
