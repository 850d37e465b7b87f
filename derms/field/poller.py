"""The poller: each device at its own place in the interval; raw answers are kept, and decoded together in columns.

Each device is followed by a task of its own, so that one that fails costs a back-off of its own and nobody else
anything; who waits for his turn stands in one heap, so that ten thousand devices need one timer. What a device answers
is kept as bytes and decoded with all others of its layout twice per interval: values, quality and time go to the table.
"""

import asyncio
import gc
import heapq
import math
import random
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import numpy as np

from derms.domain.alarm import Event, Severity
from derms.domain.arrays import AnyArray
from derms.domain.der import Device, Fleet
from derms.domain.drift import drift
from derms.domain.health import Fact, Health
from derms.domain.settings import FieldSettings
from derms.domain.telemetry import Identity, Reading, TelemetryLayout, TelemetrySnapshot
from derms.errors import DeviceRefused, FieldError, ProtocolViolation, TurnedAway
from derms.field.batch import Batch
from derms.field.checks import COMPARED, Evidence
from derms.field.ending import end
from derms.field.judge import numbered, weigh
from derms.field.plan import PollPlan, plan_for
from derms.field.readings import Readings, SunIsUp, always_day
from derms.field.rollup import Rollup
from derms.field.table import TelemetryTable
from derms.field.watch import Watch, fact_of
from derms.ports import Clock, DeviceDriver

TICK_S = 0.005
"""Shortest time between two looks at what is due: polls that are due within it start together."""
TELL_WITHIN_S = 1.0
"""Longest time between two looks at whether there is something to tell."""
PUBLISH_LEAST_S = 0.1
"""Shortest time between two regular decodings."""
YOUNG_OBJECTS = 50_000
"""New objects after which the cycle collector looks at them."""
RATING_TOLERANCE_FRAC = 0.02
"""Between what a device says of itself and the fleet file: the rounding of both."""
DRIFT_NAMED = 5
"""Settings named in an event about drift."""


@dataclass(slots=True)
class Post:
    """What the poller knows of one device."""

    row: int
    device: Device
    driver: DeviceDriver
    plan: PollPlan
    layout: TelemetryLayout | None = None
    batch: Batch | None = None
    requested_s: float = -math.inf
    changed_s: float = -math.inf
    measured: bytes = b""
    identity: Identity | None = None
    settings: Mapping[str, float] | None = None
    settings_refused: bool = False
    due_s: float = 0.0
    settings_due_s: float = 0.0
    works: bool = False
    """Its health is WORKING."""
    failures: int = 0
    """In a row, for the back-off."""
    task: asyncio.Task[None] | None = None
    slow: asyncio.Task[None] | None = None
    """Its settings being read."""


@dataclass(slots=True)
class PollCounts:
    """Polls since the start."""

    polls: int = 0
    failed: int = 0
    missed: int = 0
    """Left out because the one before took a whole period too long, or nobody came to start them."""


@dataclass(slots=True)
class Poller:
    """Polls devices of a fleet; see the module's text.

    Rows without a driver are somebody else's: `writer` says which of the table's writers this one is.
    """

    fleet: Fleet
    drivers: Mapping[str, DeviceDriver]
    clock: Clock
    settings: FieldSettings
    chance: random.Random
    on_event: Callable[[Event], None]
    sun_is_up: SunIsUp = always_day
    table: TelemetryTable | None = None
    writer: int = 0
    is_polled: Callable[[int], bool] = lambda row: True
    """Whether people let a row be polled now."""
    on_identity: Callable[[int, Identity], None] = lambda row, identity: None
    counts: PollCounts = field(default_factory=PollCounts)
    readings: Readings = field(init=False)
    _posts: dict[int, Post] = field(init=False)
    _turns: list[tuple[float, int, asyncio.Future[None]]] = field(default_factory=list)
    """A heap of who waits until when; the number keeps the order of those who wait for the same moment."""
    _order: Iterator[int] = field(default_factory=count)
    _alarm: asyncio.TimerHandle | None = None
    _alarm_s: float = math.inf
    _stopping: bool = False
    _scaling: AnyArray = field(init=False)
    """A number for how each device's latest values are scaled, 0 before the first, shape (n,)."""
    _batches: dict[TelemetryLayout, Batch] = field(default_factory=dict)
    _watch: Watch = field(init=False)
    _publish_every_s: float = field(init=False)

    def __post_init__(self) -> None:
        table = self.table or TelemetryTable.local(len(self.fleet))
        plans = [plan_for(device, self.settings) for device in self.fleet.devices]
        self.readings = Readings(self.fleet, table, self.clock, [plan.stale_after_s for plan in plans], self.sun_is_up)
        self._posts = {
            row: Post(row, device, self.drivers[device.id], plans[row])
            for row, device in enumerate(self.fleet.devices)
            if device.id in self.drivers
        }
        table.claim(self.writer, list(self._posts))
        self._scaling = np.zeros(len(self.fleet), dtype=np.uint64)
        periods_s = [post.plan.poll_s for post in self._posts.values()]
        self._publish_every_s = max(PUBLISH_LEAST_S, min(periods_s, default=self.settings.poll_s) / 2.0)
        turn_s = max(periods_s, default=self.settings.poll_s) + 2.0 * self.settings.timeout_s
        lost_within_s = turn_s + self.settings.backoff_min_s
        back_within_s = 2.0 * turn_s + self.settings.backoff_max_s
        rollup = Rollup(self.fleet, lost_within_s=lost_within_s, back_within_s=back_within_s)
        self._watch = Watch(self.fleet, self.clock, self.on_event, rollup, turn_s)

    async def run(self) -> None:
        """Poll until cancelled."""
        now_s = self.clock.monotonic_s()
        for post in self._posts.values():
            post.due_s = now_s + phase(post.device.id) * post.plan.poll_s
            post.settings_due_s = now_s + phase(post.device.id) * post.plan.settings_s
            self._start(post)
        publish_s = now_s + self._publish_every_s
        try:
            while True:
                now_s = self.clock.monotonic_s()
                if now_s >= publish_s:
                    self.publish()
                    publish_s = max(publish_s + self._publish_every_s, now_s)
                self._watch.tell(now_s)
                until_s = min(publish_s, self._watch.due_s, now_s + TELL_WITHIN_S)
                await asyncio.sleep(max(until_s - self.clock.monotonic_s(), TICK_S))
        finally:
            await self._stop()

    async def _stop(self) -> None:
        self._stopping = True
        if self._alarm is not None:
            self._alarm.cancel()
        await end(task for post in self._posts.values() for task in (post.task, post.slow) if task is not None)

    def _turn(self, post: Post) -> asyncio.Future[None]:
        """What a device waits for until it is due."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._turns, (post.due_s, next(self._order), turn))
        if post.due_s < self._alarm_s:
            self._set_alarm(self.clock.monotonic_s())
        return turn

    def _set_alarm(self, now_s: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_s = max(self._turns[0][0], now_s + TICK_S)
        self._alarm = asyncio.get_running_loop().call_later(self._alarm_s - now_s, self._wake)

    def _wake(self) -> None:
        """Let everybody go whose turn has come."""
        now_s, turns = self.clock.monotonic_s(), self._turns
        while turns and turns[0][0] <= now_s:
            _, _, turn = heapq.heappop(turns)
            if not turn.done():
                turn.set_result(None)
        self._alarm, self._alarm_s = None, math.inf
        if turns:
            self._set_alarm(now_s)

    def _start(self, post: Post) -> None:
        post.task = asyncio.get_running_loop().create_task(self._follow(post), name=post.device.id)
        post.task.add_done_callback(partial(self._ended, post))

    async def _follow(self, post: Post) -> None:
        """Poll a device each time that it is due; ends only with an error that is not the field's."""
        driver, period_s, counts, time_s = post.driver, post.plan.poll_s, self.counts, self.clock.monotonic_s
        while True:
            now_s = time_s()
            while post.due_s > now_s:
                await self._turn(post)
                now_s = time_s()
            if now_s - post.due_s >= period_s:
                self._skip(post, now_s)
            post.due_s += period_s
            if not self.is_polled(post.row):
                continue
            counts.polls += 1
            try:
                if not driver.connected:
                    await driver.connect()
                reading = await driver.read()
                self._keep(post, reading)
            except FieldError as error:
                self._failed(post, error)
            else:
                if reading.requested_s >= post.settings_due_s:
                    self._start_settings(post)

    def _skip(self, post: Post, now_s: float) -> None:
        """Leave out the places in a device's rhythm that are over already."""
        missed = int((now_s - post.due_s) / post.plan.poll_s)
        self.counts.missed += missed
        post.due_s += missed * post.plan.poll_s

    def _keep(self, post: Post, reading: Reading) -> None:
        """Take an answer in: one copy of its bytes and its time."""
        raw, requested_s, layout, identity = reading
        if layout is not post.layout:
            self._seat(post, layout)
        batch = post.batch
        assert batch is not None
        if len(raw) != batch.width:
            raise ProtocolViolation(f"{post.device.endpoint}: {len(raw)} bytes instead of {batch.width}")
        post.requested_s = requested_s
        measured = batch.layout.measured(raw)
        if measured != post.measured:
            post.measured = measured
            post.changed_s = requested_s
        if batch.keep(post.row, raw, requested_s, post.changed_s):
            self._enter(batch)
        if identity is not post.identity:
            self._meet(post, identity)
        post.failures = 0
        if not post.works:
            self._watch.note(post.row, Fact.ANSWERED)
            post.works = self._watch.health(post.row) is Health.WORKING

    def _seat(self, post: Post, layout: TelemetryLayout) -> None:
        """Give a device a place among those of its layout; its bytes never meet the map of another."""
        if post.batch is None or layout != post.batch.layout:
            self.publish()  # what came in the old layout is older
            post.batch = self._batches.setdefault(layout, Batch(layout))
            post.measured = b""
        post.layout = layout

    def _meet(self, post: Post, identity: Identity) -> None:
        """Remember who a device says it is; a rating unlike the fleet file's is said once, and the smaller holds."""
        if identity != post.identity:
            for what, filed, told in (
                ("kW", post.device.p_rated_w, identity.p_rated_w),
                ("kWh", post.device.energy_wh, identity.energy_wh),
            ):
                if filed > 0.0 and abs(told - filed) > RATING_TOLERANCE_FRAC * filed:
                    text = f"says {told / 1e3:g} {what}, the fleet file {filed / 1e3:g} {what}: the smaller holds"
                    self._watch.event(post.row, Severity.WARNING, "rating-mismatch", text)
            self.readings.meet(post.row, identity)
            self.on_identity(post.row, identity)
        post.identity = identity

    def _start_settings(self, post: Post) -> None:
        """The slow ring, beside the fast one: between its many requests polls and commands have their turn."""
        post.settings_due_s = self.clock.monotonic_s() + post.plan.settings_s
        if post.slow is None:
            post.slow = asyncio.get_running_loop().create_task(self._read_settings(post), name=post.device.id)
            post.slow.add_done_callback(partial(self._ended, post))

    async def _read_settings(self, post: Post) -> None:
        """What engineers set in a device, and what of it has drifted since the last time."""
        try:
            self._compare(post, await post.driver.settings())
        except DeviceRefused as error:  # its measurements are none the worse for it
            if not post.settings_refused:
                self._watch.event(
                    post.row, Severity.WARNING, "settings-refused", f"does not tell its settings: {error}"
                )
            post.settings_refused = True
        except FieldError:
            pass  # the next poll meets it too, and says it
        post.slow = None

    def _compare(self, post: Post, now: Mapping[str, float]) -> None:
        before = post.settings
        post.settings, post.settings_refused = now, False
        if before is None:
            return
        if drifted := drift(before, now):
            more = f"; and {len(drifted) - DRIFT_NAMED} more" if len(drifted) > DRIFT_NAMED else ""
            text = f"has other settings: {'; '.join(drifted[:DRIFT_NAMED])}{more}"
            self._watch.event(post.row, Severity.WARNING, "settings-drift", text)

    def _failed(self, post: Post, error: FieldError) -> None:
        fact = fact_of(error)
        if fact is not Fact.BUSY:
            post.driver.disconnect()
        turned_away = isinstance(error, TurnedAway) and post.identity is not None
        self._back_off(post, fact, str(error), turned_away=turned_away)

    def _ended(self, post: Post, task: asyncio.Task[None]) -> None:
        """Begin anew what ended in an error that nobody expected, or was cancelled from outside."""
        error = None if task.cancelled() else task.exception()
        if self._stopping or task not in (post.task, post.slow):
            return
        post.driver.disconnect()
        self._back_off(post, Fact.CRASHED, f"{type(error).__name__}: {error}" if error else "its poll was cancelled")
        if task is post.slow:
            post.slow = None
        else:
            self._start(post)

    def _back_off(self, post: Post, fact: Fact, why: str, *, turned_away: bool = False) -> None:
        """Leave a device alone for a while: longer after each failure, longest where trying again mends nothing."""
        self.counts.failed += 1
        post.failures += 1
        post.works = False
        asleep = fact is Fact.FAILED and self._asleep(post.row)
        self._watch.note(post.row, fact, why, asleep=asleep, turned_away=turned_away)
        low_s, high_s = self.settings.backoff_min_s, self.settings.backoff_max_s
        hopeless = fact is Fact.REFUSED or self._watch.health(post.row) is Health.QUARANTINED
        wait_s = high_s if hopeless else min(high_s, low_s * 2.0 ** min(post.failures - 1, 16))
        post.due_s = self.clock.monotonic_s() + wait_s * (0.5 + 0.5 * self.chance.random())

    def _asleep(self, row: int) -> bool:
        self.publish()
        return bool(self.readings.asleep(np.array([row]))[0])

    def health(self, row: int) -> Health:
        """What may be expected of one of this poller's devices."""
        return self._watch.health(row)

    def identity(self, row: int) -> Identity | None:
        """Who the device said it is when it was last connected; None before."""
        return self.readings.identity(row)

    def requested_s(self, row: int) -> float:
        """Time of the latest reading [s]; -inf before the first."""
        return self._posts[row].requested_s

    def publish(self) -> None:
        """Decode what has come since the last time, judge it, and put it into the table."""
        for batch in self._batches.values():
            self._enter(batch)

    def _enter(self, batch: Batch) -> None:
        decoded = batch.decode()
        if decoded is None:
            return
        rows, table = decoded.rows, self.readings.table
        before, before_s = table.rows(rows, COMPARED)
        scaling = numbered(decoded.scales)
        judgement = weigh(
            Evidence(
                now=decoded.columns,
                before=before,
                plates=self.readings.plates(rows),
                dt_s=decoded.requested_s - before_s,
                still_s=decoded.requested_s - decoded.changed_s,
                rescaled=scaling != self._scaling[rows],
                frozen_after_s=self.settings.frozen_after_s,
                feeder_lives=lambda: self.readings.alive_beside(rows),
            )
        )
        self._scaling[rows] = scaling
        table.write(self.writer, rows, decoded.columns, judgement.quality, decoded.requested_s)
        self._watch.judged(rows, judgement, self.readings.asleep)
        self._watch.controlled(rows, decoded.columns["local"])

    def snapshot(self) -> TelemetrySnapshot:
        """The whole fleet now, with everything that has come."""
        self.publish()
        return self.readings.snapshot()


def spare_collector() -> None:
    """Have Python's cycle collector look for garbage seldom; for processes that poll, once at their start.

    A poll's objects die by their reference counts. At the usual threshold of 700 the collector looks through all that
    is under way hundreds of times a second, which takes half of the time of a large fleet's poller.
    """
    gc.set_threshold(YOUNG_OBJECTS, 20, 50)


def phase(device_id: str) -> float:
    """A device's own place in every interval [0, 1): the same in each run, spread over the fleet."""
    return zlib.crc32(device_id.encode()) / 2.0**32
