"""The brain: estimates the feeder, forecasts, decides, and hands the dispatch to the gateway; records everything.

It may hang or die: devices do not notice within the dispatch's validity.
"""

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from threading import Thread
from typing import TypeVar

import numpy as np

from derms.control.compose import LOOK_BACK_H, PlanTerms, asked
from derms.control.cycle import ControlState, CycleInput, CycleSettings, Decision, decide, shared_steps
from derms.domain.alarm import Event
from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.der import DeviceKind
from derms.domain.desk import DeskOrder, Headroom
from derms.domain.forecast import Forecast
from derms.domain.grid import GridState, Topology
from derms.domain.mode import Mode
from derms.domain.plan import Plan, PlanSource
from derms.domain.presence import BrainTold
from derms.domain.quality import Quality
from derms.domain.scada import PointKind, ScadaReading, head_phases
from derms.domain.strain import Strain
from derms.domain.telemetry import TelemetrySnapshot
from derms.errors import HistorianError
from derms.forecast.forecaster import Forecaster
from derms.forecast.netload import Place
from derms.forecast.pv import ClearSky
from derms.forecast.sun import CLOUD_TYPICAL
from derms.forecast.weather import CsvWeather
from derms.grid.engine import Engine
from derms.grid.estimate import estimate
from derms.grid.look_ahead import Moment, examine
from derms.grid.strain import strain
from derms.grid.topology import AsOperated, follow
from derms.historian.store import Store
from derms.link.asking import Link
from derms.link.messages import Observed, Tell
from derms.optimize.desk import headroom
from derms.optimize.fleet import FleetPlan, FleetPlanner
from derms.optimize.portfolio import Desk, Portfolio
from derms.optimize.share import Fairness
from derms.ports import Clock
from derms.scada.topology import as_operated, changes, with_doubt
from derms.service.brain_notes import BrainNotes
from derms.service.config import Site
from derms.service.gateway_view import GatewayView
from derms.service.observation import Observation
from derms.service.pricing import Pricing
from derms.service.scada import Past
from derms.service.sensors import Sensors
from derms.service.shadowing import Shadowing

T = TypeVar("T")

SHARED_H = 1.0
"""Plan steps that are shared out to devices: an hour, well beyond a dispatch's validity."""
SEEDED = 4 * LOOK_BACK_H
"""Quarter hours of the utility's records that the memory starts from."""
LAST_GOOD_AGE_MAX_S = 4 * 3600.0
RECORD_EVERY_S = 60.0
STUCK_S = 300.0
"""Longest work of the engine's thread: an estimate or a plan, with whatever waits before it."""
STATE_AGE_MAX_ESTIMATES = 6
"""Age of the feeder's state, in estimates, beyond which nothing is verified against it and so nothing is planned."""


class Brain:
    """One feeder's brain; its jobs are called from the cadence table."""

    def __init__(
        self,
        site: Site,
        *,
        link: Link,
        history: Past,
        engine: Engine,
        store: Store,
        clock: Clock,
        executor: Executor | None,
        on_event: Callable[[Event], None],
        on_plan: Callable[[Plan, datetime], None] | None = None,
        plan_deadline_s: float | None = None,
    ) -> None:
        self._site = site
        self.gateway = GatewayView(link, clock, on_event)
        self._engine = engine
        self._store = store
        self._clock = clock
        self._executor = executor
        self._plan_deadline_s = plan_deadline_s
        self._on_event = on_event
        self._on_plan = on_plan
        self._place = Place(ClearSky(site.latitude, site.longitude), site.timezone)
        fleet, package = site.fleet, site.package
        self._der_rows = tuple(fleet.index[der.id] for der in package.ders if der.id in fleet.index)
        self._engine_rows = np.array([row for row, der in enumerate(package.ders) if der.id in fleet.index], np.intp)
        self._head_rows = fleet.rows(DeviceKind.HEAD_METER)
        self._pv_rated_w = float(fleet.p_rated_w[fleet.is_pv].sum())
        plan = site.plan
        self._planner = FleetPlanner(
            plan.weights,
            scale_w=package.peak_w,
            shared_steps=shared_steps(plan.hours, SHARED_H),
            fairness=Fairness(plan.fairness),
            first=plan.order,
        )
        self._cycle = CycleSettings(
            shared_h=SHARED_H,
            validity_s=site.dispatch.validity_s,
            last_good_age_max_s=LAST_GOOD_AGE_MAX_S,
            timezone=site.timezone,
            terms=PlanTerms(
                period_h=plan.period_h,
                peak_floor_w=1e3 * plan.peak_floor_kw,
                import_max_w=plan.head_limits_w[0],
                export_max_w=plan.head_limits_w[1],
                desk=Desk(
                    reserve_up_w=1e3 * plan.reserve_up_kw,
                    reserve_down_w=1e3 * plan.reserve_down_kw,
                    ramp_w_per_h=60e3 * plan.ramp_kw_per_min,
                ),
            ),
            fairness=Fairness(plan.fairness),
        )
        periods = round(LOOK_BACK_H / plan.period_h)
        self._memory = Observation(fleet, step_s=3600.0 * plan.period_h, steps=periods)
        times, net_w = history
        self._memory.seed(times[-SEEDED:], net_w[-SEEDED:])
        self._forecaster = Forecaster(
            self._place,
            pv_rated_w=self._pv_rated_w,
            peak_w=package.peak_w,
            weather=None if site.weather is None else CsvWeather(site.weather),
        )
        self._pricing = None if site.prices is None else Pricing(site.prices, plan, clock, on_event)
        self._notes = BrainNotes(on_event)
        self._notes.history(self._forecaster.remember(clock.utc(), times, net_w), clock.utc())
        self._fitting: Thread | None = None
        self._control = ControlState()
        self._grid: GridState | None = None
        self._state_age_max = timedelta(seconds=STATE_AGE_MAX_ESTIMATES * site.estimate.every_s)
        self._topology = Topology()
        self._sensors = Sensors(package, fleet, engine.layout)
        self._shadowing = Shadowing(site, self._der_rows, store, clock)
        self._membership = store.membership()
        self._good_s = dict.fromkeys(("forecast", "model", "optimizer", "database"), clock.monotonic_s())
        """When each last came to what it should, or this brain began [s]."""
        self._working_s = math.inf
        """Since when the engine's thread is at work; infinite while it is not [s]."""
        self._desk: DeskOrder | None = None
        """What the dispatcher asks of the fleet, as the gateway last said."""
        self._planned_for: DeskOrder | None = None
        """What of that the latest plan was made for."""
        self._planned_s = math.nan
        self._headroom: Headroom | None = None
        """Beside the latest plan; None where it is not the optimizer's."""
        self._planning = asyncio.Lock()
        self.decision: Decision | None = None
        self.seen: Observed | None = None
        """The field, as it last was."""
        self.net_load_w = np.nan
        self.plans = 0
        self.plans_fallback = 0

    @property
    def grid(self) -> GridState | None:
        """The feeder's state as last estimated; None before."""
        return self._grid

    async def estimate(self) -> None:
        """Job: take a snapshot, follow the feeder model to it, record both."""
        seen = await self._observe()
        snapshot, told = seen.snapshot, seen.reading
        self._store.samples(snapshot)
        self.net_load_w = told.net_load_w
        sky_pu = self._place.sky.pu(np.array([snapshot.at.timestamp()]))
        limited = self._limited(snapshot)
        self._memory.add(snapshot, self.net_load_w, limited, sky_frac=CLOUD_TYPICAL * float(sky_pu[0]))
        der_w, der_var = self._der_powers(snapshot)
        head_w, head_var = self._head(snapshot, told)
        previous = self._grid
        voltages, fresh = self._sensors.read(snapshot), self._sensors.fresh
        sun_pu = CLOUD_TYPICAL * float(sky_pu[0])

        def solve() -> tuple[AsOperated, GridState]:
            operated = follow(self._engine, told.topology)
            return operated, estimate(
                self._engine,
                self._site.package,
                at=snapshot.at,
                head_w=head_w,
                head_var=head_var,
                der_w=der_w,
                der_var=der_var,
                previous=previous,
                voltages=voltages,
                told_regulators=operated.told_regulators,
                sun_pu=sun_pu,
            )

        operated, state = await self._run(solve)
        self._came_to("model")
        self._note_places(operated, snapshot.at)
        self._grid = grid = as_operated(state, told.topology)
        for event in changes(self._topology, self._grid):
            self._on_event(event)
        self._topology = told.topology
        self._notes.state(self._grid)
        harm_nodes = await self._run(lambda: self._harm_nodes(grid, snapshot))
        self._shadowing.estimated(seen, grid, voltages, fresh, harm_nodes)

    async def follow_desk(self) -> None:
        """Job: plan at once when something else is asked of the fleet than in the latest plan."""
        if self.decision is not None and self._asked() != self._planned_for:
            await self.plan()

    def _asked(self) -> DeskOrder | None:
        """What is asked of the fleet now."""
        order = self._desk
        return order if order is not None and self._clock.monotonic_s() < order.until_s else None

    async def plan(self) -> None:
        """Job: forecast, decide, hand over, record; when it is due before the first estimate, it makes that too."""
        async with self._planning:
            await self._plan()

    async def _plan(self) -> None:
        if self._grid is None:
            await self.estimate()
        seen = await self._observe()
        now, now_s = self._clock.utc(), self._clock.monotonic_s()
        snapshot, state = seen.snapshot, self._grid
        load_known = bool(np.isfinite(self._memory.seen(now).gross_w).any())
        if not load_known or state is None or now - state.at > self._state_age_max:
            self._notes.waiting(now)
            return
        given = CycleInput(
            fleet=self._site.fleet,
            available=self._available(seen),
            snapshot=snapshot,
            forecast=self._forecast(),
            past_net_w=self._memory.past_net_w(now, self.net_load_w),
            der_rows=self._der_rows,
            price=None if self._pricing is None else self._pricing.price(),
        )

        before, order = self._planner.state(), self._asked()
        terms = asked(self._cycle.terms, order, now_s, float(self._site.plan.hours[0]))

        def work() -> tuple[Decision, Headroom | None]:
            decision = decide(
                self._control,
                given,
                now=now,
                now_s=now_s,
                optimizer=self._optimize,
                look_ahead=lambda der_w, factor: self._look_ahead(state, der_w, factor),
                settings=replace(self._cycle, terms=terms),
                control_lost=lambda planned_w, reverted_w, factor: self._lost(state, planned_w, reverted_w, factor),
            )
            found = decision.fleet_plan
            return decision, None if found is None else headroom(decision.portfolio, found)

        made, self._headroom = await self._run(work)
        decision = with_doubt(made, state.topology)
        self._planned_for, self._planned_s = order, now_s
        self._control = decision.state
        self.decision = decision
        self.plans += 1
        if decision.plan.source is PlanSource.OPTIMIZER:
            self._came_to("optimizer")
        else:
            self.plans_fallback += 1
        self._notes.decided(decision)
        self._shadowing.decided(decision, given.forecast, seen)
        if self._site.mode is Mode.AUTO:
            await self.gateway.hand(decision.dispatch)
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
            portfolio=decision.portfolio,
            fleet_plan=decision.fleet_plan,
            planner_state=before,
            store_rows=np.flatnonzero(self._site.fleet.is_battery),
            feeder_ids=(self._site.package.id, "rest of the system"),
            dispatch=decision.dispatch,
            caps=decision.caps,
            contingency=decision.contingency,
            sign_changes=decision.sign_changes,
        )
        with suppress(HistorianError):  # told where records are written; `explain` is to know of this plan at once
            await self._flush()

    async def record(self) -> None:
        """Job: take what the gateway has for the database, and write all that has gathered."""
        try:
            await self.gateway.drain(self._store)
        finally:
            await self._flush()

    async def _flush(self) -> None:
        """Write all that has gathered, not on the engine's thread: a plan there does not mean the database is away."""
        await asyncio.get_running_loop().run_in_executor(None, self._store.flush)
        self._came_to("database")

    def _came_to(self, what: str) -> None:
        self._good_s[what] = self._clock.monotonic_s()

    async def tell(self) -> None:
        """Job: let the gateway hear how this brain is, and hear what is asked of the fleet."""
        now_s = self._clock.monotonic_s()
        away_s = {f"{what}_s": now_s - good_s for what, good_s in self._good_s.items()}
        away_s["database_s"] = max(0.0, away_s["database_s"] - RECORD_EVERY_S)
        told = BrainTold(**away_s, topology="" if self._grid is None else self._grid.topology.doubt)
        tell = Tell(told, self._shadowing.cards(), self._headroom, self._planned_s, self._planned_for)
        self._desk = await self.gateway.tell(tell)

    async def _observe(self) -> Observed:
        """What the field says."""
        self.seen = await self.gateway.observed()
        return self.seen

    async def _run(self, work: Callable[[], T]) -> T:
        """Do slow work off the loop, on the one thread that owns the engine."""
        began_s = self._clock.monotonic_s()
        self._working_s = min(self._working_s, began_s)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._working_s = math.inf

    @property
    def stuck(self) -> bool:
        """Whether the engine's thread has been at one piece of work for so long that it will not come back."""
        return self._clock.monotonic_s() - self._working_s > STUCK_S

    def _optimize(self, given: Portfolio) -> FleetPlan:
        began_s, deadline_s = self._clock.monotonic_s(), self._plan_deadline_s
        if deadline_s is None:
            return self._planner.plan(given)
        return self._planner.plan(given, late=lambda: self._clock.monotonic_s() - began_s > deadline_s)

    def _lost(self, state: GridState, planned_w: FloatArray, reverted_w: FloatArray, factor: float) -> int:
        """Limits violated when every DER reverts at once, in the order of `der_rows` [W]."""
        every_w = np.zeros((2, len(self._site.package.ders)))
        every_w[:, self._engine_rows] = planned_w, reverted_w
        still = np.zeros(every_w.shape[1])
        moment = Moment(load_factor=factor, der_w=every_w[0], der_var=still, reverted_w=every_w[1], reverted_var=still)
        return len(examine(self._engine, state, (moment,))[0].control_lost)

    def _harm_nodes(self, state: GridState, snapshot: TelemetrySnapshot) -> float:
        """Voltage points that the latest plan would now add to those beyond their limits."""
        return self._shadowing.harm_nodes(state, snapshot, lambda der_w, factor: self._look_ahead(state, der_w, factor))

    def _look_ahead(self, state: GridState, der_w: FloatArray, factor: float) -> Strain:
        """The strain with power of the fleet's DER [W], in the order of `der_rows`."""
        every_w = np.zeros(len(self._site.package.ders))
        every_w[self._engine_rows] = der_w
        found = strain(self._engine, state, every_w, factor)
        rows = self._engine_rows
        return replace(found, excess_per_w=found.excess_per_w[rows], overload_per_w=found.overload_per_w[rows])

    def _forecast(self) -> Forecast:
        """What is expected from now on; what has come since the last time is judged, told and learned from first."""
        now = self._clock.utc()
        seen = self._memory.seen(now)
        for event in self._forecaster.score(now, seen):
            self._on_event(event)
        self._fit_forecast(now)
        made = self._forecaster.forecast(now, self._site.plan.hours, seen, feeder_load_w=self._feeder_load_w())
        self._store.forecast(made)
        self._came_to("forecast")
        return made

    def _fit_forecast(self, now: datetime) -> None:
        """Fit the model of load where that is due, on a thread of its own: it takes a minute, and nobody waits."""
        if not self._forecaster.fit_due(now) or (self._fitting is not None and self._fitting.is_alive()):
            return
        if self._executor is None:
            self._forecaster.fit(now)
            return
        self._fitting = Thread(target=self._forecaster.fit, args=(now,), name="forecast fit", daemon=True)
        self._fitting.start()

    def _feeder_load_w(self) -> float:
        """What the customers of the feeder take now [W]; NaN where it is the whole system, or that is not known."""
        meter = self._site.net_load_id
        whole = meter is not None and self._site.fleet.index[meter] in self._head_rows
        return np.nan if whole or self._grid is None else float(self._grid.load_w.sum())

    def _available(self, seen: Observed) -> BoolArray:
        """Devices that take commands, let go of them by themselves, and are good and remote, shape (n,)."""
        snapshot = seen.snapshot
        known: BoolArray = ~self._site.fleet.is_battery | np.isfinite(snapshot.soc_frac)
        return snapshot.good("p_w") & known & seen.commandable & ~snapshot.local

    def _limited(self, snapshot: TelemetrySnapshot) -> BoolArray:
        if self.decision is None or self._site.mode is not Mode.AUTO:
            return np.zeros(len(self._site.fleet), dtype=np.bool_)
        return self.decision.dispatch.holds_back(snapshot.p_w, self._site.fleet.p_rated_w)

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
        """Keep account of which DER is on the feeder."""
        package = self._site.package
        moved = self._membership.moved(seen.feeder_of(package.id, tuple(der.id for der in package.ders)), at)
        self._store.spans(moved.spans[len(self._membership.spans) :])
        self._membership = moved
        self._notes.operated(package.id, seen, at)
