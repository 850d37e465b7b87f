"""The simulated world: a feeder with its customers, weather and DER, and every device of it on Modbus TCP.

One step moves physics and plant by a fixed time and publishes what devices would measure. The sky, the customers and
the noise of a day come from the seed alone, so a day with control and the same day without see the same world.
Powers in W, DER + = injection, meters + = import.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.domain.der import Device, DeviceKind, Endpoint, Fleet
from derms.domain.grid import FeederPackage
from derms.forecast.pv import ClearSky
from derms.ports import Clock
from hil import history, physics
from hil.faces import RUNNING, SLEEPING, THROTTLED, V_NOMINAL_V, Measured, ModernFace, serial
from hil.legacy import LegacyFace
from hil.load import Loads, local_offset_s, shape_pu
from hil.meters import MeterFace
from hil.plant import Plant, Solved
from hil.server import DeviceServer, Fault
from hil.tap import Plate, Tap
from hil.truth import Truth
from hil.unit import nothing
from hil.weather import Clouds

PLACE_DEG = (34.05, -118.24)
"""Latitude and longitude of the feeder."""
LEGACY_PV, LEGACY_BATTERIES = 6, 4
VOLT_VAR_PV = 10
"""Of the devices of the 701 family."""
POWER_NOISE, VOLTAGE_NOISE = 0.005, 0.001
"""One standard deviation of what devices measure, per unit of the value."""
_NOISE = np.array([POWER_NOISE, POWER_NOISE, VOLTAGE_NOISE])
CATCH_UP_STEPS = 12
"""Most steps taken in a row when the world is late; what is beyond is let go."""


class World:
    """Everything outside the control room.

    Parameters
    ----------
    package
        The feeder with its DER and meters.
    seed
        Fixes everything that is random.
    start
        First moment, timezone-aware.
    dt_s
        Length of a step [s].
    soc_start_frac
        State of charge of every battery at the start [0..1].
    publish
        Whether steps write registers; without it nothing can be read, and a day takes seconds.
    """

    ratings: physics.Ratings
    state: physics.State
    """What the DER truly do."""
    commands: physics.Commands
    solved: Solved
    """The true state of the feeder."""
    truth: Truth
    tap: Tap
    servers: dict[str, DeviceServer]
    """By device id, in fleet order."""

    def __init__(
        self,
        package: FeederPackage,
        *,
        seed: int,
        start: datetime,
        dt_s: float = 5.0,
        soc_start_frac: float = 0.5,
        publish: bool = True,
    ) -> None:
        self.package = package
        self.start = start.astimezone(UTC)
        self.dt_s = dt_s
        self.truth = Truth(dt_s)
        self._publishes = publish
        of_plant, of_loads, of_clouds, self._noise, of_faults, self._of_history = (
            np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(6)
        )
        self._set_up_ders(soc_start_frac)
        self._set_up_servers(of_faults)
        self.plant = Plant(package, of_plant)
        self._loads = Loads(self.plant.engine.layout.nominal_load_w, dt_s=dt_s, rng=of_loads)
        self._clouds = Clouds(len(self.ratings), dt_s=dt_s, rng=of_clouds)
        self._sky = ClearSky(*PLACE_DEG)
        self._offset_s = local_offset_s(self.start)
        self._solve_and_publish(available_w=np.zeros(len(self.ratings)))

    def _set_up_ders(self, soc_start_frac: float) -> None:
        ders = self.package.ders
        is_battery = np.array([der.kind == DeviceKind.BATTERY for der in ders], dtype=np.bool_)
        pv, batteries = np.flatnonzero(~is_battery), np.flatnonzero(is_battery)
        legacy = np.sort(np.concatenate([_evenly(pv, LEGACY_PV), _evenly(batteries, LEGACY_BATTERIES)]))
        modern = np.setdiff1d(np.arange(len(ders)), legacy)
        volt_var = np.isin(np.arange(len(ders)), _evenly(np.intersect1d(pv, modern), VOLT_VAR_PV))
        self.ratings = physics.Ratings(
            is_battery=is_battery,
            p_rated_w=np.array([der.p_rated_w for der in ders]),
            s_rated_va=np.array([der.s_rated_va for der in ders]),
            energy_wh=np.array([der.energy_wh for der in ders]),
        )
        self.state = physics.State(
            p_w=np.zeros(len(ders)),
            q_var=np.zeros(len(ders)),
            soc_frac=np.where(is_battery, soc_start_frac, np.nan),
        )
        self.commands = physics.Commands(
            limit=physics.Control.off(len(ders)),
            setpoint=physics.Control.off(len(ders)),
            permitted=np.ones(len(ders), dtype=np.bool_),
            volt_var=volt_var,
        )
        self._timer_pace = np.ones(len(ders))
        """Seconds that reversion timers count in a second; 0 in devices that ignore them."""
        self._deaf_to_refresh = np.zeros(len(ders), dtype=np.bool_)
        self._exchanged_wh = np.zeros((2, len(ders)))
        ids = np.array([der.id for der in ders])
        self._modern = ModernFace(modern, ids[modern].tolist(), self.ratings.of(modern), volt_var[modern])
        self._legacy = LegacyFace(legacy, ids[legacy].tolist(), self.ratings.of(legacy))
        self._meters = MeterFace([meter.id for meter in self.package.meters])
        self._metering_power = np.array([[bool(meter.element)] for meter in self.package.meters], dtype=np.bool_)

    def _set_up_servers(self, rng: np.random.Generator) -> None:
        legacy = set(self._legacy.rows.tolist())
        row_of = {der.id: row for row, der in enumerate(self.package.ders)}
        self.tap = Tap(
            {der.id: Plate(der.p_rated_w, der.energy_wh, row_of[der.id] in legacy) for der in self.package.ders},
            lambda device: float(self.state.soc_frac[row_of[device]]),
        )
        served: dict[str, DeviceServer] = {}
        for face in (self._modern, self._legacy):
            for row, at in enumerate(face.rows.tolist()):
                device = self.package.ders[at].id
                served[device] = DeviceServer(
                    face.bank,
                    row,
                    rng=rng,
                    on_write=partial(self._obey, face),
                    tap=partial(self.tap.saw, device),
                    on_fault=partial(self._befall, at),
                )
        for row, meter in enumerate(self.package.meters):
            served[meter.id] = DeviceServer(
                self._meters.bank, row, rng=rng, on_write=nothing, tap=partial(self.tap.saw, meter.id)
            )
        order = [der.id for der in self.package.ders] + [meter.id for meter in self.package.meters]
        self.servers = {device: served[device] for device in order}

    @property
    def now(self) -> datetime:
        """End of the last step (UTC)."""
        return self.start + timedelta(seconds=self.truth.steps * self.dt_s)

    def violating(self) -> BoolArray:
        """Points truly outside their voltage range, shape (points,)."""
        return self.plant.engine.layout.violating(self.solved.v_pu)

    def step(self) -> None:
        """Move on by one step: weather, devices, feeder, registers.

        Raises NotConverged when the feeder has no solution.
        """
        ratings = self.ratings
        next_s = np.array([self.start.timestamp() + (self.truth.steps + 1) * self.dt_s])
        clear_pu = self._sky.pu(next_s)
        sun_w = clear_pu * self._clouds.step() * ratings.p_rated_w
        available_w = np.where(ratings.is_battery, 0.0, sun_w)
        self._count_down()
        self.state = physics.step(ratings, self.state, self.commands, self.solved.der_v_pu, available_w, self.dt_s)
        self._exchanged_wh += np.maximum([self.state.p_w, -self.state.p_w], 0.0) * (self.dt_s / 3600.0)
        self._solve_and_publish(available_w)
        self._record()

    def fleet(self, host: str, ports: Sequence[int]) -> Fleet:
        """The world's devices as a fleet file would name them, for the ports that `serve` returned."""
        bus_of = {site.id: site.bus for site in self.package.sites}
        ders = [
            Device(
                id=der.id,
                kind=DeviceKind(der.kind),
                driver="sunspec",
                endpoint=Endpoint(host, port),
                bus=bus_of[der.site],
                p_rated_w=der.p_rated_w,
                s_rated_va=der.s_rated_va,
                energy_wh=der.energy_wh,
                serial=serial(der.id),
            )
            for der, port in zip(self.package.ders, ports, strict=False)
        ]
        meters = [
            Device(
                id=meter.id,
                kind=DeviceKind(meter.kind),
                driver="sunspec",
                endpoint=Endpoint(host, port),
                bus=meter.bus,
                serial=serial(meter.id),
            )
            for meter, port in zip(self.package.meters, ports[len(ders) :], strict=True)
        ]
        return Fleet((*ders, *meters))

    def history(self, days: int = 7) -> tuple[list[datetime], FloatArray]:
        """Net load of the days before the start: ends of 15-minute intervals (UTC) and means [W]. Call it once."""
        return history.net_load(
            self.start,
            days,
            load_w=float(self.plant.engine.layout.nominal_load_w.sum()),
            pv_rated_w=float(self.ratings.p_rated_w[~self.ratings.is_battery].sum()),
            place_deg=PLACE_DEG,
            rng=self._of_history,
        )

    async def serve(self, host: str = "127.0.0.1", base_port: int = 0) -> list[int]:
        """Start every device's server on ports from `base_port` (0: any free ones); returns the ports, in fleet order.

        Raises OSError, with nothing left listening, when a port cannot be had.
        """
        ports = []
        try:
            for index, server in enumerate(self.servers.values()):
                ports.append(await server.start(host, base_port + index if base_port else 0))
        except OSError:
            self.close()
            raise
        return ports

    def close(self) -> None:
        """Stop every server and drop every connection."""
        for server in self.servers.values():
            server.stop()

    async def run(self, clock: Clock) -> None:
        """Step on the clock's deadlines until cancelled."""
        due_s = clock.monotonic_s() + self.dt_s
        while True:
            await asyncio.sleep(max(0.0, due_s - clock.monotonic_s()))
            for _ in range(CATCH_UP_STEPS):
                if clock.monotonic_s() < due_s:
                    break
                self.step()
                due_s += self.dt_s
                await asyncio.sleep(0)
            if due_s < clock.monotonic_s():
                due_s = clock.monotonic_s() + self.dt_s

    def _obey(self, face: ModernFace | LegacyFace, row: int, model: int, offset: int, data: bytes) -> None:
        at = int(face.rows[row])
        timers_s = [control.left_s for control in (self.commands.limit, self.commands.setpoint)]
        running_s = [left_s[at] for left_s in timers_s]
        face.obey(row, model, offset, data, self.commands)
        if self._deaf_to_refresh[at]:
            for left_s, before_s in zip(timers_s, running_s, strict=True):
                left_s[at] = min(left_s[at], before_s)

    def _befall(self, at: int, fault: Fault | None) -> None:
        self._timer_pace[at] = fault is not Fault.IGNORE_REVERSION
        self._deaf_to_refresh[at] = fault is Fault.EARLY_REVERSION

    def _count_down(self) -> None:
        dt_s = self.dt_s * self._timer_pace
        limit, limits_over = self.commands.limit.counted_down(dt_s)
        setpoint, setpoints_over = self.commands.setpoint.counted_down(dt_s)
        self.commands = replace(self.commands, limit=limit, setpoint=setpoint)
        if limits_over.any() or setpoints_over.any():
            for face in (self._modern, self._legacy):
                face.revert(np.flatnonzero(limits_over), np.flatnonzero(setpoints_over))

    def _solve_and_publish(self, available_w: FloatArray) -> None:
        now_s = self.start.timestamp() + self.truth.steps * self.dt_s
        factors = self._loads.step(float(shape_pu(now_s, self._offset_s)))
        self.solved = self.plant.step(factors, self.state.p_w, self.state.q_var)
        ders = 1.0 + self._noise.standard_normal((3, len(self.ratings))) * _NOISE[:, None]
        meters = 1.0 + self._noise.standard_normal((3, len(self.package.meters), 3)) * _NOISE[:, None, None]
        if not self._publishes:
            return
        measured = Measured(
            p_w=self.state.p_w * ders[0],
            q_var=self.state.q_var * ders[1],
            v_v=self.solved.der_v_pu * V_NOMINAL_V * ders[2],
            soc_frac=self.state.soc_frac,
            state=self._operating_state(available_w),
            injected_wh=self._exchanged_wh[0],
            absorbed_wh=self._exchanged_wh[1],
        )
        self._modern.publish(measured, self.commands)
        self._legacy.publish(measured, self.commands)
        self._meters.publish(
            self.solved.meter_v_v * meters[2],
            np.where(self._metering_power, self.solved.head_w * meters[0], np.nan),
            np.where(self._metering_power, self.solved.head_var * meters[1], np.nan),
        )

    def _operating_state(self, available_w: FloatArray) -> FloatArray:
        held_back = self.state.p_w < 0.99 * available_w
        working = np.where(held_back, THROTTLED, RUNNING)
        return np.where(self.ratings.is_battery | (available_w > 0.0), working, SLEEPING).astype(np.float64)

    def _record(self) -> None:
        battery_w = float(self.state.p_w[self.ratings.is_battery].sum())
        minute_is_over = self.truth.step(
            head_w=float(self.solved.head_w.sum()),
            battery_w=battery_w,
            pv_w=float(self.state.p_w.sum()) - battery_w,
        )
        if minute_is_over:
            self.truth.minute(
                v_pu=self.solved.v_pu,
                violating_nodes=int(self.violating().sum()),
                soc_frac=self.state.soc_frac[self.ratings.is_battery],
            )


def _evenly(rows: IntArray, count: int) -> IntArray:
    """`count` of the rows, evenly spaced; all when there are fewer."""
    taken = min(count, rows.size)
    picks: IntArray = rows[((np.arange(taken) + 0.5) * rows.size / max(taken, 1)).astype(np.intp)]
    return picks
