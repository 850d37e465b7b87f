"""The brain: estimates the feeder, forecasts, decides, and hands the dispatch to the gateway; records everything.

It may hang or die: devices do not notice within the dispatch's validity.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

import numpy as np

from derms.control.cycle import ControlState, CycleInput, CycleSettings, Decision, decide
from derms.domain.alarm import Event, Severity
from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.der import DeviceKind
from derms.domain.dispatch import Dispatch, Quantity
from derms.domain.forecast import Forecast
from derms.domain.grid import GridState, Topology
from derms.domain.mode import Mode
from derms.domain.plan import Plan, PlanSource
from derms.domain.quality import Quality
from derms.domain.scada import PointKind, ScadaReading, head_phases
from derms.domain.strain import Strain
from derms.domain.telemetry import Identity, TelemetrySnapshot
from derms.forecast.netload import CLOUD_TYPICAL, QUARTER_S, Place, forecast, load_profile, standard_profile
from derms.forecast.pv import ClearSky
from derms.grid.engine import Engine
from derms.grid.estimate import estimate
from derms.grid.strain import strain
from derms.grid.topology import AsOperated, follow
from derms.historian.store import Store
from derms.optimize.horizon import PAST_STEPS, Horizon, HorizonInput, HorizonOutput, SolverLimits
from derms.ports import Clock, ScadaSource
from derms.scada.topology import as_operated, changes, with_doubt
from derms.service.config import Site
from derms.service.observation import Observation
from derms.service.sensors import Sensors

T = TypeVar("T")

DISPATCH_STEPS = 4
"""Plan steps shared out to devices: an hour, well beyond a dispatch's validity."""
LAST_GOOD_AGE_MAX_S = 4 * 3600.0
STATE_AGE_MAX_ESTIMATES = 6
"""Age of the feeder's state, in estimates, beyond which nothing is verified against it and so nothing is planned."""


class GatewayLink(Protocol):
    """What the brain needs of a gateway."""

    def snapshot(self) -> TelemetrySnapshot: ...

    def identity(self, row: int) -> Identity | None: ...

    def adopt(self, dispatch: Dispatch) -> None: ...


class Brain:
    """One feeder's brain; its jobs are called from the cadence table."""

    def __init__(
        self,
        site: Site,
        *,
        gateway: GatewayLink,
        scada: ScadaSource,
        engine: Engine,
        store: Store,
        clock: Clock,
        executor: Executor | None,
        limits: SolverLimits,
        on_event: Callable[[Event], None],
        on_plan: Callable[[Plan, datetime], None] | None = None,
    ) -> None:
        self._site = site
        self._gateway = gateway
        self._scada = scada
        self._engine = engine
        self._store = store
        self._clock = clock
        self._executor = executor
        self._limits = limits
        self._on_event = on_event
        self._on_plan = on_plan
        self._place = Place(ClearSky(site.latitude, site.longitude), site.timezone)
        fleet, package = site.fleet, site.package
        self._der_rows = tuple(fleet.index[der.id] for der in package.ders if der.id in fleet.index)
        self._engine_rows = np.array([row for row, der in enumerate(package.ders) if der.id in fleet.index], np.intp)
        self._head_rows = fleet.rows(DeviceKind.HEAD_METER)
        self._pv_rated_w = float(fleet.p_rated_w[fleet.is_pv].sum())
        self._horizon = Horizon(
            steps=site.plan.steps, step_s=site.plan.step_s, scale_w=package.peak_w, weights=site.plan.weights
        )
        self._memory = Observation(fleet, step_s=QUARTER_S, steps=PAST_STEPS)
        times, net_w = scada.history()
        self._memory.seed(times[-PAST_STEPS:], net_w[-PAST_STEPS:])
        self._profile_w = load_profile(times, net_w, self._pv_rated_w, self._place)
        self._control = ControlState()
        self._grid: GridState | None = None
        self._source = PlanSource.OPTIMIZER
        self._missed = 0
        self._state_age_max = timedelta(seconds=STATE_AGE_MAX_ESTIMATES * site.estimate.every_s)
        self._grid_quality = Quality.GOOD
        self._topology = Topology()
        self._sensors = Sensors(package, fleet, engine.layout)
        self._membership = store.membership()
        self._dark: tuple[str, ...] = ()
        self.decision: Decision | None = None
        self.net_load_w = np.nan
        self.plans = 0
        self.plans_fallback = 0

    @property
    def grid(self) -> GridState | None:
        """The feeder's state as last estimated; None before."""
        return self._grid

    async def estimate(self) -> None:
        """Job: take a snapshot, follow the feeder model to it, record both."""
        snapshot = self._gateway.snapshot()
        self._store.samples(snapshot)
        told = self._scada.reading(snapshot)
        self.net_load_w = told.net_load_w
        sky_pu = self._place.sky.pu(np.array([snapshot.at.timestamp()]))
        self._memory.add(snapshot, self.net_load_w, self._limited(), sky_frac=CLOUD_TYPICAL * float(sky_pu[0]))
        der_w, der_var = self._der_powers(snapshot)
        head_w, head_var = self._head(snapshot, told)
        previous = self._grid
        voltages = self._sensors.read(snapshot)
        sun_pu = CLOUD_TYPICAL * float(sky_pu[0])

        def solve() -> tuple[AsOperated, GridState]:
            seen = follow(self._engine, told.topology)
            return seen, estimate(
                self._engine,
                self._site.package,
                at=snapshot.at,
                head_w=head_w,
                head_var=head_var,
                der_w=der_w,
                der_var=der_var,
                previous=previous,
                voltages=voltages,
                told_regulators=seen.told_regulators,
                sun_pu=sun_pu,
            )

        seen, state = await self._run(solve)
        self._note_places(seen, snapshot.at)
        self._grid = as_operated(state, told.topology)
        for event in changes(self._topology, self._grid):
            self._on_event(event)
        self._topology = told.topology
        self._note_grid(self._grid)

    async def plan(self) -> None:
        """Job: forecast, decide, hand over, record; when it is due before the first estimate, it makes that too."""
        if self._grid is None:
            await self.estimate()
        now, now_s = self._clock.utc(), self._clock.monotonic_s()
        snapshot = self._gateway.snapshot()
        state = self._grid
        load_known = bool(np.isfinite(self._memory.seen(now).gross_w).any())
        if not load_known or state is None or now - state.at > self._state_age_max:
            self._note_waiting(now)
            return
        given = CycleInput(
            fleet=self._site.fleet,
            available=self._available(snapshot),
            snapshot=snapshot,
            forecast=self._forecast(),
            past_net_w=self._memory.past_net_w(now, self.net_load_w),
            der_rows=self._der_rows,
        )
        settings = CycleSettings(
            dispatch_steps=DISPATCH_STEPS,
            validity_s=self._site.dispatch.validity_s,
            last_good_age_max_s=LAST_GOOD_AGE_MAX_S,
        )

        def work() -> Decision:
            return decide(
                self._control,
                given,
                now=now,
                now_s=now_s,
                optimizer=self._optimize,
                look_ahead=lambda der_w, factor: self._look_ahead(state, der_w, factor),
                settings=settings,
            )

        decision = with_doubt(await self._run(work), state.topology)
        self._missed = 0
        self._control = decision.state
        self.decision = decision
        self.plans += 1
        self.plans_fallback += decision.plan.source is not PlanSource.OPTIMIZER
        self._note_source(decision)
        if self._site.mode is Mode.AUTO:
            self._gateway.adopt(decision.dispatch)
        if self._on_plan is not None:
            self._on_plan(decision.plan, now + timedelta(seconds=decision.dispatch.valid_until_s - now_s))
        self._store.decision(
            decision.plan,
            snapshot=snapshot,
            forecast=given.forecast,
            available=given.available,
            past_net_w=given.past_net_w,
            load_w=state.load_w,
            load_var=state.load_var,
            topology=state.topology,
            known=state.summary,
            rejected=list(decision.rejected),
        )

    async def record(self) -> None:
        """Job: write what has gathered to the historian."""
        await self._run(self._store.flush)

    async def _run(self, work: Callable[[], T]) -> T:
        """Do slow work off the loop, on the one thread that owns the engine."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _optimize(self, given: HorizonInput) -> HorizonOutput:
        return self._horizon.solve(given, self._limits)

    def _look_ahead(self, state: GridState, der_w: FloatArray, factor: float) -> Strain:
        """The strain with power of the fleet's DER [W], in the order of `der_rows`."""
        every_w = np.zeros(len(self._site.package.ders))
        every_w[self._engine_rows] = der_w
        found = strain(self._engine, state, every_w, factor)
        rows = self._engine_rows
        return replace(found, excess_per_w=found.excess_per_w[rows], overload_per_w=found.overload_per_w[rows])

    def _forecast(self) -> Forecast:
        profile_w = self._profile_w
        if profile_w is None:
            profile_w = standard_profile(self._site.package.peak_w)
        return forecast(
            self._clock.utc(),
            steps=self._site.plan.steps,
            step_s=self._site.plan.step_s,
            profile_w=profile_w,
            pv_rated_w=self._pv_rated_w,
            seen=self._memory.seen(self._clock.utc()),
            place=self._place,
        )

    def _available(self, snapshot: TelemetrySnapshot) -> BoolArray:
        """Devices that take commands, let go of them by themselves, and whose values are good, shape (n,)."""
        fleet = self._site.fleet
        able: BoolArray = np.logical_and(snapshot.good("p_w"), ~fleet.is_battery | np.isfinite(snapshot.soc_frac))
        for row, device in enumerate(fleet.devices):
            identity = self._gateway.identity(row)
            quantity = Quantity.P_SET if device.kind is DeviceKind.BATTERY else Quantity.P_LIMIT
            able[row] &= identity is not None and identity.capabilities.may_be_commanded(quantity)
        return able

    def _limited(self) -> BoolArray:
        if self.decision is None or self._site.mode is not Mode.AUTO:
            return np.zeros(len(self._site.fleet), dtype=np.bool_)
        first, second = np.isfinite(self.decision.dispatch.p_limit_w[:, :2]).T
        limited: BoolArray = np.logical_or(first, second)
        return limited

    def _der_powers(self, snapshot: TelemetrySnapshot) -> tuple[FloatArray, FloatArray]:
        """Measured power per DER of the feeder model; NaN where it is not known."""
        p_w = np.full(len(self._site.package.ders), np.nan)
        q_var = np.full_like(p_w, np.nan)
        rows = np.array(self._der_rows, dtype=np.intp)
        good: BoolArray = snapshot.good("p_w")[rows]
        p_w[self._engine_rows] = np.where(good, snapshot.p_w[rows], np.nan)
        q_var[self._engine_rows] = np.where(good, np.nan_to_num(snapshot.q_var[rows]), np.nan)
        return p_w, q_var

    def _head(self, snapshot: TelemetrySnapshot, told: ScadaReading) -> tuple[FloatArray, FloatArray]:
        """Power at the head per phase, of our own meter, else as the utility's system tells it; NaN where unknown."""
        for row in self._head_rows:
            if snapshot.quality[row] == Quality.GOOD and np.isfinite(snapshot.p_phase_w[row]).any():
                return snapshot.p_phase_w[row], snapshot.q_phase_var[row]
        like = self._grid
        head_w = head_phases(told.head(PointKind.HEAD_P), like.head_w if like else np.ones(3))
        head_var = head_phases(told.head(PointKind.HEAD_Q), like.head_var if like else np.ones(3))
        return head_w, head_var

    def _note_places(self, seen: AsOperated, at: datetime) -> None:
        """Keep account of which DER is on the feeder; an event when some lose their source, and when all have it."""
        package = self._site.package
        places = seen.feeder_of(package.id, tuple(der.id for der in package.ders))
        moved = self._membership.moved(places, at)
        self._store.spans(moved.spans[len(self._membership.spans) :])
        self._membership = moved
        if seen.dark_ders == self._dark:
            return
        self._dark = seen.dark_ders
        if self._dark:
            buses = sum(map(len, seen.islands))
            names = ", ".join(self._dark)
            text = f"feeder {package.id}: {len(self._dark)} DER and {buses} buses have no source: {names}"
            self._on_event(Event(at, Severity.WARNING, "brain", "der-dark", text))
        else:
            text = f"feeder {package.id}: every DER has its source again"
            self._on_event(Event(at, Severity.INFO, "brain", "der-lit", text))

    def _note_grid(self, state: GridState) -> None:
        """An event when the feeder's state starts or stops to rest on measurements that are all there."""
        if state.quality is not self._grid_quality:
            self._grid_quality = state.quality
            good = state.quality is Quality.GOOD
            text = f"the state of feeder {state.feeder} is {state.quality.name.lower()}"
            if not good:
                text += ": its head or some of its DER are not measured, or the model does not meet the head"
                text += ", or is not what stands outside" * bool(state.topology.doubt)
                text += f"; left out, for they contradict all others: {', '.join(state.bad)}" if state.bad else ""
            severity = Severity.INFO if good else Severity.WARNING
            self._on_event(Event(state.at, severity, "brain", "feeder-state", text))

    def _note_waiting(self, now: datetime) -> None:
        """An alarm at the second plan in a row that could not be made; right after the start the first may be early."""
        self._missed += 1
        if self._missed == 2:
            text = "no plan: system net load or the feeder's state is not known"
            self._on_event(Event(now, Severity.ALARM, "brain", "plan-waits", text))

    def _note_source(self, decision: Decision) -> None:
        source = decision.plan.source
        if source is not self._source:
            self._source = source
            severity = Severity.INFO if source is PlanSource.OPTIMIZER else Severity.ALARM
            text = f"plans now come from: {source}" + "".join(f"; {why}" for why in decision.rejected)
            self._on_event(Event(decision.plan.made_at, severity, "brain", "plan-source", text))
