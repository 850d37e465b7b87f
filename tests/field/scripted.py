"""A poller on devices that do as they are told, in simulated time."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from derms.domain.alarm import Event
from derms.domain.arrays import ByteArray, FloatArray
from derms.domain.der import Device, DeviceKind, Endpoint, Fleet
from derms.domain.dispatch import Capabilities, Ceasing, Command, Held, Quantity
from derms.domain.quality import Quality
from derms.domain.settings import FieldSettings
from derms.domain.telemetry import COLUMNS, Identity, Reading, is_phase
from derms.errors import DeviceUnreachable
from derms.field.poller import Poller
from derms.field.readings import SunIsUp, always_day
from derms.ports import Clock
from derms.service.clock import LoopClock
from derms.service.simulated import SimulatedLoop, run_simulated

NOON = datetime(2026, 4, 15, 19, 0, tzinfo=UTC)
PLAIN = ("p_w", "v_v", "soc_frac")
QUICK = FieldSettings(poll_s=10.0, timeout_s=1.0, backoff_min_s=5.0, backoff_max_s=60.0, settings_s=60.0)


@dataclass(frozen=True)
class PlainLayout:
    """Three big-endian floats, and a scale factor that says nothing."""

    name: str = "plain"
    width: int = 8 * len(PLAIN) + 2

    def measured(self, raw: bytes) -> bytes:
        return raw

    def scales(self, raw: ByteArray) -> ByteArray:
        return raw[:, 8 * len(PLAIN) :]

    def decode(self, raw: ByteArray) -> Mapping[str, FloatArray]:
        values = np.ascontiguousarray(raw[:, : 8 * len(PLAIN)]).view(">f8")
        columns = {name: np.full((len(raw), 3) if is_phase(name) else len(raw), np.nan) for name in COLUMNS}
        return columns | {name: values[:, number].astype(np.float64) for number, name in enumerate(PLAIN)}


@dataclass
class Scripted:
    """A driver without a wire; set what it says, or what it raises."""

    clock: Clock
    rated_w: float
    values: dict[str, float] = field(default_factory=lambda: {"p_w": 1e3, "v_v": 120.0, "soc_frac": 0.5})
    scale: int = 0
    told: dict[str, float] = field(default_factory=lambda: {"705.Ena": 1.0})
    error: Exception | None = None
    settings_error: Exception | None = None
    noisy: bool = True
    connected: bool = False
    reads: list[float] = field(default_factory=list)
    settings_reads: int = 0
    layout: PlainLayout = PlainLayout()

    def __post_init__(self) -> None:
        self.identity = Identity(
            manufacturer="Make",
            model="Model",
            version="1",
            serial="7",
            p_rated_w=self.rated_w,
            s_rated_va=self.rated_w,
            energy_wh=np.nan,
            v_nominal_v=120.0,
            capabilities=Capabilities(),
        )

    async def connect(self) -> Identity:
        if self.error is not None:
            self.reads.append(self.clock.monotonic_s())
            raise self.error
        self.connected = True
        return self.identity

    async def read(self) -> Reading:
        now_s = self.clock.monotonic_s()
        self.reads.append(now_s)
        if self.error is not None:
            raise self.error
        values = [self.values[name] for name in PLAIN]
        if self.noisy:
            values[1] += 1e-3 * now_s
        raw = np.array(values, dtype=">f8").tobytes() + self.scale.to_bytes(2, "big", signed=True)
        return Reading(raw, now_s, self.layout, self.identity)

    async def settings(self) -> Mapping[str, float]:
        self.settings_reads += 1
        if self.settings_error is not None:
            raise self.settings_error
        return dict(self.told)

    async def write(self, command: Command) -> None:
        raise NotImplementedError

    async def read_back(self, quantity: Quantity) -> Held:
        raise NotImplementedError

    async def refresh(self, quantity: Quantity, reversion_s: float) -> Held:
        raise NotImplementedError

    async def cease(self, by: Ceasing) -> bool:
        raise NotImplementedError

    async def let_in(self, by: Ceasing) -> None:
        raise NotImplementedError

    async def ceased(self, by: Ceasing) -> bool:
        raise NotImplementedError

    async def beat(self) -> int | None:
        return None

    def disconnect(self) -> None:
        self.connected = False


async def deaf(cancels: int, until: asyncio.Event | None = None) -> None:
    """Mind none of so many cancels; the next one ends it, or the event."""
    event = until or asyncio.Event()
    for _ in range(cancels):
        with suppress(asyncio.CancelledError):
            await event.wait()
    await event.wait()


def device(
    name: str, kind: DeviceKind = DeviceKind.PV, *, host: str = "", unit: int = 1, p_rated_w: float = 10e3
) -> Device:
    """A row of a fleet; by default at a host of its own."""
    place = Endpoint(host or f"{name}.example", 502, unit)
    energy_wh = 20e3 if kind is DeviceKind.BATTERY else 0.0
    return Device(id=name, kind=kind, driver="", endpoint=place, bus="", p_rated_w=p_rated_w, energy_wh=energy_wh)


@dataclass
class Story:
    """What a scenario is told with."""

    poller: Poller
    clock: LoopClock
    devices: Mapping[str, Scripted]
    events: list[Event]

    def quality(self, name: str) -> Quality:
        return Quality(int(self.poller.snapshot().quality[self.poller.fleet.index[name]]))

    def kinds(self) -> list[tuple[str, str]]:
        """Source and kind of every event."""
        return [(event.source, event.kind) for event in self.events]


def polled(
    scenario: Callable[[Story], Awaitable[None]],
    devices: Sequence[Device],
    *,
    settings: FieldSettings = QUICK,
    sun_is_up: SunIsUp = always_day,
) -> None:
    """Tell a scenario, from the moment that polling begins."""

    async def main(loop: SimulatedLoop) -> None:
        clock = LoopClock(loop, NOON)
        sessions = {row.id: Scripted(clock, row.p_rated_w) for row in devices}
        events: list[Event] = []
        fleet = Fleet(tuple(devices))
        poller = Poller(fleet, sessions, clock, settings, random.Random(1), events.append, sun_is_up=sun_is_up)
        polling = loop.create_task(poller.run())
        await scenario(Story(poller, clock, sessions, events))
        assert not polling.done()
        polling.cancel()

    run_simulated(main, seed=1)


UNREACHABLE = DeviceUnreachable("no answer in 1 s")
