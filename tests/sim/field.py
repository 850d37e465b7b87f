"""The field of a simulation: hil's devices on the small feeder, a plant without a power flow, and what reaches them.

The product has a part of the feeder's devices: five where bytes are simulated (an inverter and a battery of the 701
family, one each of the older make, and the meter that stands for SCADA). Powers in W, + = injection.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from derms.domain.arrays import FloatArray
from derms.domain.connection import Connection
from derms.domain.der import Fleet
from derms.service.simulated import Trouble
from feeders.catalog import load
from hil.fault_kinds import Fault
from hil.plant import Plant, Solved
from hil.server import DeviceServer
from hil.tap import AT_123, AT_124, AT_704
from hil.world import World
from tests.sim.frames import Damage, Wire
from tests.sim.loop import SimLoop
from tests.sim.schedule import EVERYWHERE, Kind, Mishap

PACKAGE = load("ieee13")
FEW = ("pv01", "pv03", "bat01", "bat02")
ALL = tuple(der.id for der in PACKAGE.ders)
METER = "system"
BEHIND = ("pv01", "bat01")
FARM = Connection(id="farm", export_max_w=30e3, import_max_w=15e3)
"""Of 30 kW of PV and a battery of 25 kW."""
HOST = "127.0.0.1"
STARTS = (
    datetime(2026, 4, 15, 13, 0, tzinfo=UTC),
    datetime(2026, 4, 15, 19, 30, tzinfo=UTC),
    datetime(2026, 4, 15, 23, 10, tzinfo=UTC),
    datetime(2026, 11, 1, 7, 40, tzinfo=UTC),
    datetime(2026, 3, 8, 9, 15, tzinfo=UTC),
)
"""Morning, noon, the evening over midnight of UTC, and the two nights in which clocks are put."""
STEP_S = 5.0


class FlatPlant:
    """A feeder that only adds up: what its customers draw less what DER give, at a voltage that hardly moves."""

    def __init__(self, plant: Plant, world: World, chance: np.random.Generator) -> None:
        self.engine = plant.engine
        self._nominal_w = plant.engine.layout.nominal_load_w
        self._meters_v = world.solved.meter_v_v
        self._v_pu = world.solved.v_pu
        self._chance = chance

    def step(self, load_factors: FloatArray, der_w: FloatArray, der_var: FloatArray) -> Solved:
        """The same as hil's plant, without OpenDSS."""
        head_w = (float(load_factors @ self._nominal_w) - float(der_w.sum())) / 3.0
        wobble = 1.0 + 0.002 * float(self._chance.standard_normal())
        return Solved(
            v_pu=self._v_pu * wobble,
            der_v_pu=np.full(len(der_w), wobble),
            meter_v_v=self._meters_v * wobble,
            head_w=np.full(3, head_w),
            head_var=np.full(3, 0.3 * head_w),
        )


class SteppedClock:
    """A loop's time, with a wall clock that others set."""

    def __init__(self, loop: SimLoop, start: datetime) -> None:
        self._loop, self._start = loop, start
        self.off_s = 0.0

    def monotonic_s(self) -> float:
        return self._loop.time()

    def utc(self) -> datetime:
        return self._start + timedelta(seconds=self._loop.time() + self.off_s)


def small_world(seed: int, *, publish: bool = True) -> World:
    """A world of the small feeder at a time of day, with states of charge, that the seed gives."""
    chance = random.Random(f"{seed}:world")
    world = World(PACKAGE, seed=seed, start=chance.choice(STARTS), dt_s=STEP_S, publish=publish)
    world.plant = FlatPlant(world.plant, world, np.random.default_rng(seed))  # type: ignore[assignment]
    for row, der in enumerate(PACKAGE.ders):
        if der.energy_wh > 0.0:
            world.state.soc_frac[row] = chance.choice((0.11, 0.3, 0.5, 0.7, 0.94, chance.uniform(0.11, 0.94)))
    return world


def part_of(fleet: Fleet, ders: Sequence[str]) -> Fleet:
    """Some DER and the meter; two of the DER are behind one connection."""
    own = (device for device in fleet.devices if device.id in (*ders, METER))
    return Fleet(
        tuple(replace(device, connection=FARM.id) if device.id in BEHIND else device for device in own), (FARM,)
    )


def legacy(world: World) -> frozenset[str]:
    """Devices of the older make."""
    return frozenset(PACKAGE.ders[row].id for row in world._legacy.rows.tolist())


class Field:
    """The ways to the devices and the devices themselves, as mishaps have them."""

    def __init__(self, loop: SimLoop, world: World, ders: Sequence[str], ports: Mapping[str, int]) -> None:
        self.world = world
        self.ders = ders
        self.devices = (*ders, METER)
        self.ports = ports
        self.loop = loop
        self.wire: Wire = loop.wire
        self.rows = {der.id: row for row, der in enumerate(PACKAGE.ders)}
        self._legacy = legacy(world)
        self._troubles: dict[str, Trouble] = {}
        self._active: list[Mishap] = []
        self.on_master: Callable[[str], None] = lambda device: None
        """Told of each device that another master has just written to."""

    async def begin(self, mishap: Mishap) -> None:
        """Let it go wrong."""
        if isinstance(mishap.kind, Fault):
            self.fail(mishap.target, mishap.kind, mishap.value if mishap.value else None)
            return
        self._active.append(mishap)
        if mishap.kind is Kind.RESET:
            for link in tuple(self.server(mishap.target).links):
                link.abort()
        self._set(mishap.target)

    async def end(self, mishap: Mishap) -> None:
        """Let it be well again."""
        if isinstance(mishap.kind, Fault):
            await self.heal(mishap.target)
            return
        self._active.remove(mishap)
        self._set(mishap.target)

    def fail(self, device: str, kind: Fault, value: float | None) -> None:
        """Let a device fail."""
        self.server(device).fault(kind, value)

    async def heal(self, device: str) -> None:
        """Let it be well again."""
        await self.server(device).heal()

    def server(self, device: str) -> DeviceServer:
        return self.world.servers[device]

    def way(self, device: str) -> tuple[Trouble, Damage, Fault | None]:
        """What is wrong with the way to a device, with its answers, and with itself."""
        damage = self.wire.damage.get(self.ports[device], Damage())
        return self._troubles.get(device, Trouble()), damage, self.server(device).failing

    def meddle(self, device: str, frac: float) -> None:
        """Another master writes a value of this part of the rating, past the product's ways."""
        server, rated_w = self.server(device), self.rated_w(device)
        battery, old = device.startswith("bat"), device in self._legacy
        if battery and old:
            rate = round(10000.0 * frac)
            _put(server, AT_124 + 12, rate, -rate)
            _put(server, AT_124 + 15, 300)
            _put(server, AT_124 + 5, 3)
        elif battery:
            watts = round(frac * rated_w) & 0xFFFFFFFF
            _put(server, AT_704 + 23, 1, watts >> 16, watts & 0xFFFF)
            _put(server, AT_704 + 31, 0, 300)
            _put(server, AT_704 + 22, 1)
        elif old:
            _put(server, AT_123 + 5, round(10000.0 * abs(frac)))
            _put(server, AT_123 + 7, 300)
            _put(server, AT_123 + 9, 1)
        else:
            _put(server, AT_704 + 15, round(10000.0 * abs(frac)))
            _put(server, AT_704 + 18, 0, 300)
            _put(server, AT_704 + 14, 1)
        self.on_master(device)

    def rated_w(self, device: str) -> float:
        return PACKAGE.ders[self.rows[device]].p_rated_w

    def _set(self, target: str) -> None:
        for device in self.devices if target == EVERYWHERE else (target,):
            self._set_way(device)

    def _set_way(self, device: str) -> None:
        port = self.ports[device]
        trouble, damage = Trouble(), Damage()
        self.wire.refusing.discard(port)
        for mishap in self._active:
            if mishap.target not in (device, EVERYWHERE):
                continue
            match mishap.kind:
                case Kind.CUT | Kind.PARTITION:
                    trouble = replace(trouble, to_cut=True, back_cut=True)
                case Kind.CUT_THERE:
                    trouble = replace(trouble, to_cut=True)
                case Kind.CUT_BACK:
                    trouble = replace(trouble, back_cut=True)
                case Kind.LATE:
                    trouble = replace(trouble, latency_s=mishap.value, jitter_s=0.3 * mishap.value)
                case Kind.LOSSY:
                    trouble = replace(trouble, loss_frac=mishap.value)
                case Kind.REFUSE:
                    self.wire.refusing.add(port)
                case Kind.SPLIT:
                    damage = replace(damage, split_frac=mishap.value)
                case Kind.DOUBLE:
                    damage = replace(damage, double_frac=mishap.value)
                case Kind.DAMAGE:
                    damage = replace(damage, damage_frac=mishap.value)
                case _:
                    pass
        self.wire.damage[port] = damage
        self._troubles[device] = trouble
        self.loop.network.disturb((HOST, port), trouble)


def _put(server: DeviceServer, address: int, *registers: int) -> None:
    """Write registers as another client of the device would."""
    server.write(address, b"".join((register & 0xFFFF).to_bytes(2, "big") for register in registers))
