"""Simulated devices with exactly the registers of a profile, which obey its controls and its dead-man.

What lies between the points of a reading is there too, unless a device is told to have holes.
"""

import asyncio
import math
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import numpy as np

from derms.domain.der import Device, DeviceKind, Endpoint
from derms.domain.dispatch import Quantity
from derms.ports import DeviceDriver
from drivers.modbus.session import Sessions
from drivers.profiles.control import RegisterControl
from drivers.profiles.layout import read_plan
from drivers.profiles.loader import packaged
from drivers.profiles.point import Point, Text
from drivers.profiles.profile import Profile
from drivers.registry import REGISTRY
from hil import server
from hil.plain import PlainPoint, PlainUnit
from hil.specimen import Specimen
from hil.unit import READ_HOLDING, SimulatedUnit
from tests.drivers.oracles import FrozenClock, sessions_with

RATED_W = 10_000.0
SERIAL = "SN-7"


class ProfileDevice(PlainUnit):
    """One device; `p_w` is the power that it has by itself, in the signs of the house."""

    def __init__(self, profile: Profile, *, p_w: float = 0.0, serial: str = SERIAL, holes: bool = False) -> None:
        self.profile = profile
        self.own_w = p_w
        self._running: dict[Quantity, float] = {}
        """Dead-man time left by quantity [s]."""
        self._heard = math.nan
        points = list(_plain_points(profile))
        super().__init__(points if holes else points + _fillers(profile, points), self._obey)
        for name, place in profile.ratings.items():
            if isinstance(place, Point):
                self.set(place, {"p_rated_w": RATED_W, "s_rated_va": RATED_W}.get(name, 230.0))
        for control in profile.controls.values():
            if not control.enable:
                self._let_go(control)
        for proof in profile.nameplate.proof:
            self.put(_name(proof.point), proof.equals)
        nameplate = profile.nameplate
        if isinstance(nameplate.serial, Point):
            self.put(_name(nameplate.serial), _number(serial))
        texts = (nameplate.manufacturer, nameplate.model, nameplate.version, nameplate.serial)
        for text, says in zip(texts, ("Maker", "Simulated", "1.0", serial), strict=True):
            if isinstance(text, Text):
                self.write_text(text, says)
        self._settle()

    def set(self, point: Point, number: float) -> None:
        """Set a point to a number in SI units and the signs of the house."""
        self.put(_name(point), (number - point.offset) / point.scale)

    def show(self, column: str, *numbers: float) -> None:
        """Set what is measured."""
        measured = next(measured for measured in self.profile.telemetry if measured.column == column)
        for point, number in zip(measured.points, numbers, strict=True):
            self.set(point, number)

    def register(self, point: Point) -> float:
        """What a point's registers hold, as the device counts."""
        return self.value(_name(point))

    def write_text(self, place: Text, text: str) -> None:
        """Set a text, two characters in a register."""
        data = text.encode("latin-1").ljust(2 * place.size, b"\0")
        for word in range(place.size):
            point = Point(place.address + word, table=place.table)
            self.put(_name(point), int.from_bytes(data[2 * word : 2 * word + 2], "big"))

    def tick(self, dt_s: float) -> None:
        """Let time pass for the dead-man."""
        for quantity, left_s in list(self._running.items()):
            self._running[quantity] = left_s - dt_s
            if left_s <= dt_s:
                del self._running[quantity]
                self._let_go(self.profile.controls[quantity])
        self._settle()

    def _obey(self, name: str, value: float) -> None:
        self._hold()
        heartbeat = self.profile.heartbeat
        beaten = heartbeat is not None and name == _name(Point(heartbeat.address))
        if heartbeat and beaten:
            if heartbeat.echo:
                self.put(_name(heartbeat.echo), value)
            if heartbeat.first == heartbeat.last:
                self.put(name, 0)
        for quantity, control in self.profile.controls.items():
            ours = beaten if heartbeat else name in {_name(control.value), control.timer and _name(control.timer)}
            dead_man_s = self._dead_man_s(control)
            if dead_man_s < math.inf and (ours or quantity not in self._running) and self._in_force(control):
                self._running[quantity] = dead_man_s
        self._settle()

    def _dead_man_s(self, control: RegisterControl) -> float:
        """After which a control is let go: its timer's, or the patience with a heartbeat; endless without either."""
        if control.timer:
            return self.register(control.timer) * control.timer.scale
        heartbeat = self.profile.heartbeat
        return heartbeat.timeout_s if heartbeat and math.isfinite(heartbeat.timeout_s) else math.inf

    def _in_force(self, control: RegisterControl) -> bool:
        if control.enable:
            return self.register(control.enable.point) == control.enable.on
        return self.register(control.shown) != control.release

    def _let_go(self, control: RegisterControl) -> None:
        if control.enable:
            self.put(_name(control.enable.point), control.enable.off)
        elif control.release is not None:
            self.put(_name(control.value), control.release)

    def _hold(self) -> None:
        """What was told appears where the profile reads it back."""
        for control in self.profile.controls.values():
            if control.held:
                told = self.register(control.value)
                if told == control.release:
                    self.put(_name(control.held), told)
                else:
                    self.set(control.held, told * control.value.scale + control.value.offset)

    def _settle(self) -> None:
        """What is held follows what was told, power what is in force, and the time left is shown."""
        self._hold()
        power_w = self.own_w
        for quantity, control in self.profile.controls.items():
            if self._in_force(control):
                told_w = self.register(control.shown) * control.shown.scale * control.per.power_w(RATED_W)
                power_w = told_w if quantity is Quantity.P_SET else min(power_w, told_w)
            if control.left:
                self.set(control.left, self._running.get(quantity, 0.0))
        if any(measured.column == "p_w" for measured in self.profile.telemetry):
            self.show("p_w", power_w)


class Beside(SimulatedUnit):
    """A SunSpec device with registers of its maker's own beside the models."""

    base = 0
    view = memoryview(b"")

    def __init__(self, specimen: Specimen, own: ProfileDevice) -> None:
        super().__init__()
        self.functions = specimen.functions | own.functions
        self._specimen = specimen
        self._own = own

    def tick(self, dt_s: float) -> None:
        """Let time pass for both."""
        self._specimen.tick(dt_s)
        self._own.tick(dt_s)

    def read(self, function: int, address: int, count: int) -> bytes | int:
        return self._at(address).read(function, address, count)

    def write(self, address: int, data: bytes) -> int:
        return self._at(address).write(address, data)

    def admitted(self, address: int, data: bytes) -> bytes | int:
        return self._at(address).admitted(address, data)

    def store(self, address: int, data: bytes, *, obeyed: bool) -> None:
        self._at(address).store(address, data, obeyed=obeyed)

    def restart(self) -> None:
        self._specimen.restart()
        self._own.restart()

    def _at(self, address: int) -> SimulatedUnit:
        return self._specimen if isinstance(self._own.read(READ_HOLDING, address, 1), int) else self._own


def _name(point: Point) -> str:
    return f"{point.table.name} {point.address}"


def _number(serial: str) -> int:
    """A serial number where the map has room for digits only."""
    return int("".join(filter(str.isdigit, serial)) or zlib.crc32(serial.encode()) % 1000)


def _plain_points(profile: Profile) -> Iterable[PlainPoint]:
    """Every register that a profile names, once."""
    nameplate = profile.nameplate
    texts = (nameplate.manufacturer, nameplate.model, nameplate.version, nameplate.serial)
    words = [
        Point(text.address + word, table=text.table)
        for text in texts
        if isinstance(text, Text)
        for word in range(text.size)
    ]
    read = [point for measured in profile.telemetry for point in measured.points]
    read += [place for place in (*profile.ratings.values(), nameplate.serial) if isinstance(place, Point)]
    read += [proof.point for proof in nameplate.proof]
    written = [*profile.settings.values()]
    for control in profile.controls.values():
        read += [point for point in (control.held, control.left) if point]
        written += [control.value, *([control.timer] if control.timer else [])]
        written += [control.enable.point] if control.enable else []
    if profile.heartbeat:
        written.append(Point(profile.heartbeat.address))
        read += [profile.heartbeat.echo] if profile.heartbeat.echo else []
    points = {_name(point): (point, False) for point in words + read} | {
        _name(point): (point, True) for point in written
    }
    for name, (point, writable) in points.items():
        swapped = point.order == "CDAB"
        yield PlainPoint(name, point.address, point.type, writable=writable, table=point.table, swapped=swapped)


def _fillers(profile: Profile, points: Iterable[PlainPoint]) -> list[PlainPoint]:
    """Registers between the points of a reading."""
    taken = {(point.table, point.address + word) for point in points for word in range(point.size)}
    places = [(span.table, span.address + word) for span in read_plan(profile)[1] for word in range(span.count)]
    missing = [place for place in places if place not in taken]
    return [PlainPoint(f"{table.name} {address}", address, "uint16", table=table) for table, address in missing]


@asynccontextmanager
async def endpoint_with(
    units: Mapping[int, SimulatedUnit], requests: list[bytes] | None = None
) -> AsyncIterator[server.Endpoint]:
    """Units behind a port of this machine; `requests` collects the write requests."""
    tap = requests.append if requests is not None else lambda frame: None
    endpoint = server.Endpoint(units, rng=np.random.default_rng(1), tap=tap)
    async with server.listening(endpoint):
        yield endpoint


def port_of(endpoint: server.Endpoint) -> int:
    """Where an endpoint listens."""
    return endpoint._address[1]


def driver_of(
    name: str,
    port: int,
    *,
    kind: DeviceKind | None = None,
    unit: int | None = None,
    serial: str = "",
    sessions: Sessions | None = None,
) -> DeviceDriver:
    """The driver that the registry opens for a device of a profile, not connected yet."""
    entry = REGISTRY[name]
    endpoint = Endpoint("127.0.0.1", port, entry.info.unit if unit is None else unit)
    device = Device(
        id="dut",
        kind=kind or sorted(entry.info.kinds)[0],
        driver=name,
        endpoint=endpoint,
        bus="b1",
        p_rated_w=RATED_W,
        serial=serial,
    )
    return entry.open(device, (sessions or sessions_with(timeout_s=2.0)).unit(endpoint, entry.link), FrozenClock())


@asynccontextmanager
async def profile_device(
    name: str, *, p_w: float = 0.0, requests: list[bytes] | None = None
) -> AsyncIterator[tuple[ProfileDevice, DeviceDriver]]:
    """A simulated device of a plain profile, and its driver, connected."""
    profile = packaged()[name]
    device = ProfileDevice(profile, p_w=p_w)
    async with endpoint_with({profile.unit: device}, requests) as endpoint:
        driver = driver_of(name, port_of(endpoint))
        await driver.connect()
        try:
            yield device, driver
        finally:
            driver.disconnect()
            await asyncio.sleep(0)
