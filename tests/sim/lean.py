"""The lean tier: drivers that act on the physics of hil's devices at once, without registers, frames and sockets.

Faults of devices and ways do to a call what they do to its frames in the wire tier. Powers in W, + = injection.
"""

import asyncio
import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from derms.domain.arrays import ByteArray, FloatArray
from derms.domain.der import Device
from derms.domain.dispatch import Capabilities, Ceasing, Command, Held, Quantity
from derms.domain.telemetry import COLUMNS, Identity, Reading, is_phase
from derms.errors import DeviceMismatch, DeviceRefused, DeviceUnreachable, ProtocolViolation
from derms.ports import Clock, DeviceDriver, DriverInfo, FieldOptions
from drivers.registry import REGISTRY
from hil.fault_kinds import RECONNECTING, Fault
from hil.physics import Control
from hil.world import World
from tests.sim.field import METER, Field
from tests.sim.loop import LIFE, SimLoop
from tests.sim.schedule import Kind, Mishap
from tests.sim.watch import Key, Write

TOLD = ("p_w", "q_var", "v_v", "soc_frac", "p_limit_frac", "p_set_w")
RESOLUTION_W = 1.0
ROUND_TRIP_S = 0.02
DROPPING = frozenset({*RECONNECTING, Fault.STOP, Fault.REBOOT, Kind.RESET})
GONE = frozenset({Fault.STOP, Fault.REFUSE, Fault.REBOOT, Fault.SECOND_REFUSED})
SILENT = frozenset({Fault.HANG, Fault.HALF_OPEN, Fault.LATE})
WRONG = frozenset(
    {
        *(Fault.GARBAGE, Fault.WRONG_TRANSACTION, Fault.ZERO_TRANSACTION, Fault.WRONG_PROTOCOL, Fault.WRONG_UNIT),
        *(Fault.WRONG_FUNCTION, Fault.SHORT, Fault.LONG, Fault.ODD, Fault.DROP_MID_FRAME, Fault.MAP_CHANGE),
    }
)


@dataclass(frozen=True)
class LeanLayout:
    """A big-endian float for each of `TOLD`."""

    width: int = 8 * len(TOLD)

    def measured(self, raw: bytes) -> bytes:
        return raw[: 8 * 4]

    def scales(self, raw: ByteArray) -> ByteArray:
        return raw[:, :0]

    def decode(self, raw: ByteArray) -> Mapping[str, FloatArray]:
        values = np.ascontiguousarray(raw).view(">f8").astype(np.float64)
        columns = {name: np.full((len(raw), 3) if is_phase(name) else len(raw), np.nan) for name in COLUMNS}
        return columns | {name: values[:, number] for number, name in enumerate(TOLD)}


LAYOUT = LeanLayout()


class LeanField(Field):
    """The field without frames; see the module's text."""

    def __init__(self, loop: SimLoop, world: World, ders: Sequence[str], ports: Mapping[str, int]) -> None:
        super().__init__(loop, world, ders, ports)
        self.on_write: Callable[[Write], None] = lambda write: None
        self.told_w: dict[Key, float | None] = {}
        self.open: dict[str, list[LeanDriver]] = {}
        """Drivers of all lives."""
        self.armed_s: dict[Key, float] = {}
        """Time for which each timer was armed last [s]."""

    async def begin(self, mishap: Mishap) -> None:
        await super().begin(mishap)
        self._drop(mishap)
        if mishap.kind is Fault.REBOOT and mishap.target != METER:
            for quantity in Quantity:
                self.obey(mishap.target, quantity, None, 0.0)

    async def end(self, mishap: Mishap) -> None:
        await super().end(mishap)
        self._drop(mishap)

    def fail(self, device: str, kind: Fault, value: float | None) -> None:
        self.server(device).fail(kind, value)

    async def heal(self, device: str) -> None:
        self.server(device).mend()

    def _drop(self, mishap: Mishap) -> None:
        """Connections do not outlive some mishaps, nor their end."""
        if mishap.kind in DROPPING:
            for driver in self.open.get(mishap.target, ()):
                driver.disconnect()

    def control(self, quantity: Quantity) -> Control:
        commands = self.world.commands
        return commands.setpoint if quantity is Quantity.P_SET else commands.limit

    def obey(self, device: str, quantity: Quantity, value_w: float | None, reversion_s: float) -> None:
        """Let a device do what it is told."""
        self.control(quantity).set(
            self.rows[device],
            enabled=value_w is not None,
            value_w=value_w or 0.0,
            rvrt_enabled=False,
            rvrt_value_w=0.0,
            left_s=reversion_s if value_w is not None and reversion_s else np.inf,
        )

    def meddle(self, device: str, frac: float) -> None:
        battery = device.startswith("bat")
        value_w = frac * self.rated_w(device) if battery else abs(frac) * self.rated_w(device)
        self.obey(device, Quantity.P_SET if battery else Quantity.P_LIMIT, value_w, 300.0)
        self.on_master(device)


@dataclass
class LeanDriver:
    """One device; see derms.ports.DeviceDriver."""

    device: Device
    clock: Clock
    options: FieldOptions
    field: LeanField
    chance: random.Random
    connected: bool = False
    _frozen: bytes | None = None
    _local: dict[Quantity, Held] = dataclasses.field(default_factory=dict)
    """What a device under local control was told."""

    @property
    def identity(self) -> Identity:
        battery = self.device.energy_wh > 0.0
        takes = frozenset({Quantity.P_LIMIT, Quantity.P_SET} if battery else {Quantity.P_LIMIT})
        return Identity(
            manufacturer="Simulated",
            model="Lean",
            version="1",
            serial=self.device.serial,
            p_rated_w=self.device.p_rated_w or np.nan,
            s_rated_va=self.device.s_rated_va or np.nan,
            energy_wh=self.device.energy_wh or np.nan,
            v_nominal_v=240.0,
            capabilities=Capabilities(takes, takes) if self.device.is_der else Capabilities(),
        )

    async def connect(self) -> Identity:
        wire, port = self.field.wire, self.field.ports[self.device.id]
        wire.connects[port] += 1
        if wire.refuses(port):
            raise DeviceUnreachable(f"{self.device.endpoint}: refuses")
        await self._exchange()
        if self._fault is Fault.SERIAL_CHANGE:
            raise DeviceMismatch(f"{self.device.endpoint}: another serial number")
        self.connected = True
        self._answered()
        return self.identity

    async def read(self) -> Reading:
        self._live()
        requested_s = self.clock.monotonic_s()
        await self._exchange()
        raw = self._raw()
        if self._fault is Fault.FREEZE:
            raw = self._frozen = self._frozen or raw
        else:
            self._frozen = None
        self._answered(raw)
        return Reading(raw, requested_s, LAYOUT, self.identity)

    async def write(self, command: Command) -> None:
        self._live()
        await self._exchange(lambda: self._take(command))
        self._answered()

    async def read_back(self, quantity: Quantity) -> Held:
        self._live()
        await self._exchange()
        self._answered()
        return self._local.get(quantity) or self._held(quantity)

    async def refresh(self, quantity: Quantity, reversion_s: float) -> Held:
        self._live()
        held = self._local.get(quantity) or self._held(quantity)
        if held.value_w is not None:
            again = Command(quantity, held.value_w, reversion_s)
            await self._exchange(lambda: self._take(again))
        return await self.read_back(quantity)

    async def beat(self) -> int | None:
        return None

    async def settings(self) -> Mapping[str, float]:
        self._live()
        await self._exchange()
        return {}

    async def cease(self, by: Ceasing) -> bool:
        self._live()
        before = not await self.ceased(by)
        await self._exchange(lambda: self._permit(False))
        return before

    async def let_in(self, by: Ceasing) -> None:
        self._live()
        await self._exchange(lambda: self._permit(True))

    async def ceased(self, by: Ceasing) -> bool:
        self._live()
        await self._exchange()
        return not self.field.world.commands.permitted[self.field.rows[self.device.id]]

    def disconnect(self) -> None:
        self.connected = False

    @property
    def _fault(self) -> Fault | None:
        return self.field.server(self.device.id).failing

    def _live(self) -> None:
        if not self.connected:
            raise DeviceUnreachable(f"{self.device.endpoint}: not connected")

    async def _exchange(self, act: Callable[[], None] = lambda: None) -> None:
        """Go there, act, come back; raises what a fault makes of that."""
        life = LIFE.get()
        if life is not None:
            life.point("send")
        trouble, damage, fault = self.field.way(self.device.id)
        late_s = trouble.latency_s + (self.chance.expovariate(1.0 / trouble.jitter_s) if trouble.jitter_s else 0.0)
        if fault in GONE:
            await asyncio.sleep(ROUND_TRIP_S)
            raise self._gone("no connection")
        if fault in SILENT or trouble.to_cut:
            await self._time_out()
        value = self.field.server(self.device.id).fault_value
        late_s += value if fault is Fault.DELAY else 0.0
        await asyncio.sleep(ROUND_TRIP_S / 2.0 + late_s)
        if fault is Fault.EXCEPTION:
            raise DeviceRefused(f"{self.device.endpoint}: exception {value:g}", int(value))
        if life is None or life.alive:
            act()
        if trouble.back_cut or late_s > self.options.timeout_s / 2.0 or self.chance.random() < trouble.loss_frac**3:
            await self._time_out()
        await asyncio.sleep(ROUND_TRIP_S / 2.0 + late_s)
        if fault in WRONG or self.chance.random() < damage.damage_frac:
            self.field.wire.injected["damaged"] += 1
            raise self._wrong("not an answer")
        if life is not None:
            life.point("receive")

    async def _time_out(self) -> None:
        await asyncio.sleep(self.options.timeout_s)
        raise self._gone(f"no answer in {self.options.timeout_s:g} s")

    def _gone(self, why: str) -> DeviceUnreachable:
        self.connected = False
        return DeviceUnreachable(f"{self.device.endpoint}: {why}")

    def _wrong(self, why: str) -> ProtocolViolation:
        self.connected = False
        return ProtocolViolation(f"{self.device.endpoint}: {why}")

    def _permit(self, permitted: bool) -> None:
        self.field.world.commands.permitted[self.field.rows[self.device.id]] = permitted

    def _take(self, command: Command) -> None:
        """A command has come to the device."""
        quantity, value_w, fault = command.quantity, command.value_w, self._fault
        reversion_s = float(round(command.reversion_s))
        self.field.on_write(
            Write(
                self.clock.monotonic_s(),
                self.device.id,
                quantity,
                value_w,
                reversion_s,
                self.field.told_w.get((self.device.id, quantity)),
                True,
            )
        )
        self.field.told_w[self.device.id, quantity] = value_w
        if fault in (Fault.FREEZE, Fault.IGNORE_WRITE):
            return
        if fault is Fault.LOCAL_MODE:
            self._local[quantity] = Held(value_w, reversion_s, reversion_s, RESOLUTION_W)
            return
        self._local.clear()
        self.field.armed_s[self.device.id, quantity] = reversion_s
        self.field.obey(self.device.id, quantity, value_w, reversion_s)

    def _held(self, quantity: Quantity) -> Held:
        control, row = self.field.control(quantity), self.field.rows[self.device.id]
        if not control.enabled[row]:
            return Held(None, 0.0, 0.0, RESOLUTION_W)
        left_s = float(control.left_s[row])
        armed_s = self.field.armed_s.get((self.device.id, quantity), 300.0)
        return Held(float(control.value_w[row]), armed_s, left_s, RESOLUTION_W)

    def _raw(self) -> bytes:
        world, device = self.field.world, self.device
        if device.id == METER:
            values = [float(world.solved.head_w.sum()), float(world.solved.head_var.sum()), 240.0, np.nan]
            return np.array([*values, np.nan, np.nan], dtype=">f8").tobytes()
        row = self.field.rows[device.id]
        limit, setpoint = (self._held(quantity).value_w for quantity in (Quantity.P_LIMIT, Quantity.P_SET))
        noise = 1.0 + 0.005 * self.chance.gauss(0.0, 1.0)
        p_w = float(world.state.p_w[row]) * noise * (10.0 if self._fault is Fault.IMPLAUSIBLE else 1.0)
        values = [
            p_w,
            float(world.state.q_var[row]),
            240.0 * (1.0 + 0.1 * (noise - 1.0)),
            float(world.state.soc_frac[row]),
        ]
        if self._fault is Fault.SENTINEL:
            values = [np.nan] * 4
        shown = [np.nan if limit is None else limit / device.p_rated_w, np.nan if setpoint is None else setpoint]
        return np.array([*values, *shown], dtype=">f8").tobytes()

    def _answered(self, data: bytes = b"") -> None:
        port = self.field.ports[self.device.id]
        self.field.wire.answered_s[port] = now_s = self.clock.monotonic_s()
        self.field.loop.network.record(now_s, port, data)


@dataclass(frozen=True)
class LeanKit:
    """Opens lean drivers; see derms.ports.DriverKit."""

    field: LeanField

    @property
    def names(self) -> Mapping[str, DriverInfo]:
        return {"sunspec": REGISTRY["sunspec"].info}

    def open(
        self, devices: Sequence[Device], clock: Clock, options: FieldOptions, chance: random.Random
    ) -> Mapping[str, DeviceDriver]:
        seeds = random.Random(chance.random())
        opened = {
            device.id: LeanDriver(device, clock, options, self.field, random.Random(seeds.random()))
            for device in devices
        }
        for device, driver in opened.items():
            self.field.open.setdefault(device, []).append(driver)
        return opened
