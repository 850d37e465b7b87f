"""The stop desk: gives stops, has every device of each told and read back, keeps them stopped, and lets them in again.

A stop is latched first and holds from then on. Its devices are told all at once within bounds, stage by stage or
immediately, each by its own ladder; one that is silent, or whose driver hangs, costs no other anything. While the stop
is latched, what devices hold is refreshed, looked at, and told again to one that was away. It needs neither brain nor
database nor a disk. It is not isolation. Powers in W, + = injection; times in s on the monotonic clock.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from derms.control.latch import Latch, Released, spared
from derms.control.stop_report import Preview, Progress, preview
from derms.control.stopping import How, Means, Stoppable, let_in_now, means_of, stages
from derms.domain.alarm import Event, Severity
from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.quality import Quality
from derms.domain.refusal import Reason, Refused
from derms.domain.scope import Scope
from derms.domain.tags import Act
from derms.errors import FieldError
from derms.field.disk import SYSTEM_DISK, Disk
from derms.field.orders import Orders
from derms.field.reconcile import Reconciler
from derms.field.shut_out import ShutOut
from derms.field.stop_calls import StopCalls
from derms.field.stop_sender import StopSender
from derms.field.stop_walk import RETRY_S, Walk
from derms.field.withdrawn import Withdrawn

TICK_S, IDLE_S, PAUSE_S = 0.1, 1.0, 0.02
"""Longest time between two looks at what is due, while something is under way and else; and the shortest."""
MEASURE_S = 1.0
"""Time between two looks at measured power, and at who is away."""
SEARCH_S = 10.0
"""Time between two looks for devices that are out of service without an order."""
REMEMBERED, RELEASED_KEPT = 64, 8
"""Requests that may come twice, and latest stops whose progress is kept once they are released."""


@dataclass(frozen=True, slots=True)
class StopSettings:
    """How stops go out."""

    stage_w: float = 2e6
    """What one stage may move."""
    every_s: float = 10.0
    """Time between two stages."""


@dataclass(slots=True)
class StopDesk:
    """All stops of a site; see the module's text."""

    reconciler: Reconciler
    orders: Orders
    on_event: Callable[[Event], None]
    net_load_w: Callable[[], float]
    """Net load of the system [W], + = import; NaN where nobody knows."""
    proven: Callable[[int], bool] = lambda row: False
    """Whether commissioning has proven that a device lets go by itself when nobody speaks to it."""
    settings: StopSettings = StopSettings()
    writes: bool = True
    """False where the site only observes."""
    path: Path | None = None
    """File that remembers from whom service is withdrawn; None remembers it until the end of the process."""
    disk: Disk = SYSTEM_DISK
    withdrawn: Withdrawn = field(init=False)
    shut_out: ShutOut = field(init=False)
    sender: StopSender = field(init=False)
    _ours: BoolArray = field(init=False)
    """Devices that we command at all, shape (n,)."""
    _walks: dict[int, Walk] = field(default_factory=dict)
    _given: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """Stops by the id of the request, which may come twice."""
    _told: set[int] = field(default_factory=set)
    """Stops of which it was told that they are settled."""
    _calls: StopCalls = field(init=False)
    _away: BoolArray = field(init=False)
    _again_s: FloatArray = field(init=False)
    """Before which a device is not tried to be let in again."""
    _next_in_s: float = -math.inf
    _measured_s: float = -math.inf
    _searched_s: float = -math.inf
    _called: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        fleet = self.reconciler.fleet
        self.withdrawn = Withdrawn(fleet, self.reconciler.clock, self.on_event, self.path, self.disk)
        self.sender = StopSender(self.reconciler, self.orders, self.withdrawn, self.on_event)
        self._calls = StopCalls(self.reconciler, self._failed, self._called.set)
        self._ours = np.array([it.is_dispatched and it.id in self.reconciler.drivers for it in fleet.devices])
        self.shut_out = ShutOut(self.orders.places, self.reconciler.clock, self.on_event, self._ours.copy())
        self._away = np.zeros(len(fleet), dtype=np.bool_)
        self._again_s = np.full(len(fleet), -np.inf)

    # What people ask

    def preview(self, how: How, scope: Scope) -> Preview | Refused:
        """What a stop would do now."""
        refused = self._refused(scope)
        if refused:
            return refused
        devices, settings = self._stoppable(), self.settings
        return preview(
            how,
            scope,
            devices,
            self.orders.places,
            among=self._ours & ~self._spared(how),
            net_load_w=self.net_load_w(),
            stage_w=settings.stage_w,
            every_s=settings.every_s,
        )

    def stop(self, how: How, scope: Scope, author: str, *, immediate: bool = False, request: str = "") -> int | Refused:
        """Stop; its number, the same for a request that has come before. It is latched when this returns."""
        if request and request in self._given:
            return self._given[request]
        refused = self._refused(scope)
        if refused:
            return refused
        spares = self._spared(how)
        latch = self.orders.latch(how, scope, author)
        if request:
            self._given[request] = latch.number
            while len(self._given) > REMEMBERED:
                self._given.popitem(last=False)
        rows = self.orders.places.under(scope) & self._ours
        self.reconciler.seize(np.flatnonzero(rows))
        self._begin(latch, spares, immediate=immediate)
        return latch.number

    def hurry(self, number: int) -> Progress | Refused:
        """Have all stages of a stop go out now."""
        walk = self._walks.get(number)
        if walk is None:
            return _unknown(number)
        if not walk.immediate:
            walk.immediate = True
            self._event("stop-hurried", f"stop {number} goes on in one stage", Severity.WARNING)
        self._called.set()
        return self._progress(walk, detail=False)

    def status(self, number: int, *, detail: bool = False) -> Progress | Refused:
        """How far one stop has come; `detail` tells each of its devices."""
        walk = self._walks.get(number)
        return _unknown(number) if walk is None else self._progress(walk, detail=detail)

    def standing(self) -> tuple[Progress, ...]:
        """All stops that are latched, and those from which devices have not been let in yet."""
        found = (self._progress(walk, detail=False) for walk in self._walks.values())
        return tuple(each for each in found if each.latched or each.kept_out)

    async def release(
        self, number: int, person: str, *, remote: bool = False, why: str = ""
    ) -> Latch | Released | Refused:
        """One of the two steps of a release, or all of it by one person who breaks the glass and says why."""
        orders = self.orders
        step: Latch | Released | Refused
        if why:
            step = await orders.durably(lambda: orders.break_glass(number, person, why))
        else:
            step = await orders.durably(lambda: orders.approve(number, person, remote=remote))
        if isinstance(step, Released):
            free = self.orders.places.under(step.latch.scope) & ~self.orders.stopped()
            self.sender.let_go(free)
            self._take_up(step.latch)
            self._called.set()
        return step

    def _take_up(self, over: Latch) -> None:
        """Have the stops that release devices take up those that they had left to one that is over."""
        rows = self.orders.places.under(over.scope)
        for latch in self.orders.latches:
            if latch.how is How.RELEASE and (rows & self.orders.places.under(latch.scope)).any():
                self._begin(latch, self._spared(latch.how), immediate=True)

    def _refused(self, scope: Scope) -> Refused | None:
        reasons = []
        if not self.writes:
            reasons.append(Reason("observe", "the site only observes: nothing can be sent to its devices"))
        if not (self.orders.places.under(scope) & self._ours).any():
            reasons.append(Reason("scope", f"there is no device to be stopped under {scope}"))
        return Refused(tuple(reasons)) if reasons else None

    def _spared(self, how: How) -> BoolArray:
        orders = self.orders
        return spared(how, orders.latches, orders.board, orders.places)

    def _progress(self, walk: Walk, *, detail: bool) -> Progress:
        latch = next((it for it in self.orders.latches if it.number == walk.latch.number), None)
        kept_out = 0
        if latch is None:
            kept_out = int((self.orders.places.under(walk.latch.scope) & self.withdrawn.rows).sum())
        return walk.progress(self._reverts_in_s(walk), kept_out=kept_out, latch=latch, detail=detail)

    # Knowledge

    def _stoppable(self) -> Stoppable:
        """What is known of all devices now."""
        reconciler, custody = self.reconciler, self.reconciler.custody
        fleet, snapshot = reconciler.fleet, reconciler.poller.snapshot()
        can = np.zeros((len(fleet), len(Means)), dtype=np.bool_)
        for row in np.flatnonzero(self._ours).tolist():
            identity = reconciler.poller.identity(row)
            if identity is not None:
                can[row] = means_of([identity.capabilities])[0]
        held = np.zeros(len(fleet), dtype=np.bool_)
        held[[row for row, _ in custody.held | custody.unknown]] = True
        rated_w = fleet.p_rated_w
        return Stoppable(
            can=can,
            low_w=np.where(fleet.is_battery, -rated_w, 0.0),
            high_w=rated_w.copy(),
            held=held & self._ours,
            p_w=np.where(snapshot.quality == Quality.GOOD, snapshot.p_w, np.nan),
            default_w=np.where(fleet.is_battery, 0.0, np.nan),
        )

    def _reverts_in_s(self, walk: Walk) -> FloatArray:
        """Time until each device that is not confirmed is on its own [s]; NaN where nothing is proven."""
        custody, settings, now_s = self.reconciler.custody, self.reconciler.settings, self._now_s()
        longest_s = settings.reversion_s + settings.reversion_jitter_s
        within_s = np.where(walk.wanted & ~walk.done, 0.0, np.nan)
        for row, quantity in custody.held | custody.unknown:
            if np.isnan(within_s[row]):
                continue
            holding = custody.holdings.get((row, quantity))
            ends_s = now_s + longest_s if holding is None else holding.armed_s + holding.reversion_s
            within_s[row] = max(within_s[row], ends_s - now_s) if self.proven(row) else np.nan
        return within_s

    # The walks

    def _begin(self, latch: Latch, spares: BoolArray, *, immediate: bool, resumed: bool = False) -> None:
        devices, settings, places = self._stoppable(), self.settings, self.orders.places
        scope = places.under(latch.scope) & self._ours & ~spares
        self._walks[latch.number] = Walk(
            latch,
            places,
            devices,
            stages(latch.how, devices, scope, stage_w=settings.stage_w),
            self.reconciler.settings.tolerance_frac * self.reconciler.fleet.p_rated_w,
            self._now_s(),
            settings.every_s,
            immediate=immediate,
            resumed=resumed,
        )
        self._called.set()

    async def run(self) -> None:
        """Have devices told and looked at until cancelled; stops that were latched before are gone on with first."""
        for latch in self.orders.latches:
            if latch.number not in self._walks:
                self._begin(latch, self._spared(latch.how), immediate=True, resumed=not self.withdrawn.remembers)
        try:
            while True:
                self._called.clear()
                self._turn()
                rest_s = TICK_S if self._calls.busy or self._under_way() else IDLE_S
                try:
                    async with asyncio.timeout(rest_s):
                        await self._called.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(PAUSE_S)
        finally:
            await self._calls.close()

    def _under_way(self) -> bool:
        latched = {latch.number for latch in self.orders.latches}
        return any(
            (walk.wanted & ~walk.done & ~walk.tried).any()
            for walk in self._walks.values()
            if walk.latch.number in latched
        )

    def _turn(self) -> None:
        """Judge what has come back, and speak to whoever is due."""
        now_s = self._now_s()
        self._calls.break_off(now_s)
        latched = {latch.number for latch in self.orders.latches}
        walks = [walk for number, walk in self._walks.items() if number in latched]
        if walks and now_s - self._measured_s >= MEASURE_S:
            self._measure(walks, now_s)
        for walk in walks:
            if walk.how is How.RELEASE:
                walk.spare(self._spared(walk.how))
            walk.judge(now_s)
            self._calls.start(walk.due(now_s), partial(self.sender.tell, walk), now_s)
            self._calls.start(walk.to_look_at(now_s) & ~self._away, partial(self.sender.look, walk), now_s)
            self._tell_settled(walk)
        self._let_in(now_s)
        if self.shut_out.looks and now_s - self._searched_s >= SEARCH_S:
            self._search(now_s)
        self.withdrawn.keep()
        self._forget(latched)

    def _measure(self, walks: Iterable[Walk], now_s: float) -> None:
        """Take in measured power, and who went away or came back."""
        self._measured_s = now_s
        snapshot = self.reconciler.poller.snapshot()
        p_w = np.where(snapshot.quality == Quality.GOOD, snapshot.p_w, np.nan)
        requested_s = snapshot.now_s - snapshot.age_s
        connected = np.zeros(len(p_w), dtype=np.bool_)
        for row in np.flatnonzero(self._ours).tolist():
            connected[row] = self._calls.driver(row).connected
        left = ~connected & ~self._away & self._ours
        self._away = ~connected & self._ours
        for walk in walks:
            walk.measured(p_w, requested_s)
            for row in np.flatnonzero(left & walk.sent.any(axis=1)).tolist():
                walk.lost(row)

    def _search(self, now_s: float) -> None:
        """Ask devices that are at rest, and that no order has out of service, whether they are in service."""
        self._searched_s = now_s
        self.shut_out.tell()
        reconciler = self.reconciler
        snapshot = reconciler.poller.snapshot()
        p_w = np.where(snapshot.quality == Quality.GOOD, snapshot.p_w, np.nan)
        tolerance_w = reconciler.settings.tolerance_frac * reconciler.fleet.p_rated_w
        asks = self.shut_out.due(p_w, tolerance_w, self._out_by_order(), now_s)
        self._calls.start(asks, self._ask_service, now_s)

    def _out_by_order(self) -> BoolArray:
        """Devices that a stop holds, or that are not let in yet after one, shape (n,)."""
        return self.orders.stopped() | self.withdrawn.rows

    async def _ask_service(self, row: int) -> None:
        try:
            ways = await self.sender.ceased(row)
        except FieldError:  # asked again
            return
        if not self._out_by_order()[row]:
            self.shut_out.heard(row, ways)

    def service_of(self, row: int) -> str:
        """How a device stands that is out of service; nothing for any other."""
        if self.withdrawn.rows[row]:
            return "service withdrawn by a stop"
        return "out of service, and no order says so" if self.shut_out.rows[row] else ""

    def _tell_settled(self, walk: Walk) -> None:
        number = walk.latch.number
        if number in self._told or (walk.wanted & ~walk.done & ~walk.tried).any():
            return
        self._told.add(number)
        found = walk.tally(self._reverts_in_s(walk))
        severity = Severity.ALARM if found.unknown else Severity.INFO
        self._event("stop-settled", f"stop {number} ({walk.how}, {walk.latch.scope}): {found}", severity)

    def _forget(self, latched: set[int]) -> None:
        released = [number for number in self._walks if number not in latched]
        for number in released[:-RELEASED_KEPT]:
            del self._walks[number]
            self._told.discard(number)

    # Letting in

    def _may_let_in(self) -> BoolArray:
        """Devices from which service is withdrawn, and which no stop holds and no tag keeps out any more."""
        orders = self.orders
        rows: BoolArray = self.withdrawn.rows & ~orders.stopped()
        return rows & ~orders.board.forbids(Act.ENERGIZE, orders.places) if rows.any() else rows

    def _let_in(self, now_s: float) -> None:
        """Let the next stage of released devices in."""
        waiting = self._may_let_in() & (self._again_s <= now_s)
        if now_s < self._next_in_s or not waiting.any():
            return
        rows = let_in_now(waiting, self.reconciler.fleet.p_rated_w, stage_w=self.settings.stage_w)
        self._next_in_s = now_s + self.settings.every_s
        self._calls.start(rows, self._let_one_in, now_s)

    async def _let_one_in(self, row: int) -> None:
        why = await self.sender.let_in(row, lambda row: bool(self._may_let_in()[row]))
        if why and self._may_let_in()[row]:
            if math.isinf(self._again_s[row]):
                device = self.reconciler.fleet.devices[row].id
                self._event("not-let-in", f"{device} is not let in yet: {why}", Severity.WARNING)
            self._again_s[row] = self._now_s() + max(RETRY_S, self.settings.every_s)
        else:
            self._again_s[row] = -math.inf

    def _failed(self, row: int, why: str) -> None:
        now_s = self._now_s()
        self._again_s[row] = now_s + RETRY_S
        for walk in self._walks.values():
            if walk.wanted[row] and not walk.done[row]:
                walk.missed(row, why, now_s)

    def _now_s(self) -> float:
        return self.reconciler.clock.monotonic_s()

    def _event(self, kind: str, text: str, severity: Severity) -> None:
        self.on_event(Event(self.reconciler.clock.utc(), severity, "gateway", kind, text))


def _unknown(number: int) -> Refused:
    return Refused((Reason("number", f"there is no stop {number}"),))
