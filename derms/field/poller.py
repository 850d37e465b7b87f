"""The poller: each device at its own place in the interval; raw answers are kept, and decoded together in columns.

A device that fails costs a back-off of its own and nobody else anything. Due times stand in one column, so that ten
thousand devices need one timer; a poll is a task of its own that ends with the answer. What a device answers is kept as
bytes and decoded with all others of its layout twice per interval: values, quality and time go to the table.
"""

import asyncio
import gc
import math
import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from derms.domain.alarm import Event, Severity
from derms.domain.arrays import AnyArray, FloatArray, IntArray
from derms.domain.der import Device, Fleet
from derms.domain.drift import drift
from derms.domain.health import Fact, Health
from derms.domain.settings import FieldSettings
from derms.domain.telemetry import Identity, Reading, TelemetryLayout, TelemetrySnapshot
from derms.errors import DeviceRefused, FieldError, ProtocolViolation
from derms.field.batch import Batch
from derms.field.judge import COMPARED, judge, numbered
from derms.field.plan import PollPlan, plan_for
from derms.field.readings import Readings, SunIsUp, always_day
from derms.field.rollup import Rollup
from derms.field.table import TelemetryTable
from derms.field.watch import Watch, fact_of
from derms.ports import Clock, DeviceDriver

TICK_S = 0.005
"""Shortest time between two looks at what is due: polls that are due within it start together."""
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
    settings_due_s: float = 0.0
    failures: int = 0
    """In a row, for the back-off."""
    task: asyncio.Task[None] | None = None
    """A poll under way, or one that ended in an error that nobody expected."""


@dataclass(slots=True)
class PollCounts:
    """Polls since the start."""

    polls: int = 0
    failed: int = 0
    missed: int = 0
    """Left out because the one before was still under way, or nobody came to start them in time."""


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
    on_identity: Callable[[int, Identity], None] = lambda row, identity: None
    counts: PollCounts = field(default_factory=PollCounts)
    readings: Readings = field(init=False)
    _posts: dict[int, Post] = field(init=False)
    _due_s: FloatArray = field(init=False)
    _period_s: FloatArray = field(init=False)
    _scaling: AnyArray = field(init=False)
    """A number for how each device's latest values are scaled, 0 before the first, shape (n,)."""
    _batches: dict[TelemetryLayout, Batch] = field(default_factory=dict)
    _watch: Watch = field(init=False)
    _publish_every_s: float = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.fleet)
        table = self.table or TelemetryTable.local(count)
        plans = [plan_for(device, self.settings) for device in self.fleet.devices]
        self.readings = Readings(self.fleet, table, self.clock, [plan.stale_after_s for plan in plans], self.sun_is_up)
        self._posts = {
            row: Post(row, device, self.drivers[device.id], plans[row])
            for row, device in enumerate(self.fleet.devices)
            if device.id in self.drivers
        }
        table.claim(self.writer, list(self._posts))
        self._due_s = np.full(count, np.inf)
        self._period_s = np.array([plan.poll_s for plan in plans])
        self._scaling = np.zeros(count, dtype=np.uint64)
        periods_s = [post.plan.poll_s for post in self._posts.values()]
        self._publish_every_s = max(PUBLISH_LEAST_S, min(periods_s, default=self.settings.poll_s) / 2.0)
        turn_s = max(periods_s, default=self.settings.poll_s) + 2.0 * self.settings.timeout_s
        lost_within_s = turn_s + self.settings.backoff_min_s
        back_within_s = 2.0 * turn_s + self.settings.backoff_max_s
        rollup = Rollup(self.fleet, lost_within_s=lost_within_s, back_within_s=back_within_s)
        self._watch = Watch(self.fleet, self.clock, self.on_event, rollup)

    async def run(self) -> None:
        """Poll until cancelled."""
        now_s = self.clock.monotonic_s()
        for row, post in self._posts.items():
            self._due_s[row] = now_s + phase(post.device.id) * post.plan.poll_s
            post.settings_due_s = now_s + phase(post.device.id) * post.plan.settings_s
        publish_s = now_s + self._publish_every_s
        try:
            while True:
                now_s = self.clock.monotonic_s()
                self._start_due(now_s)
                if now_s >= publish_s:
                    self.publish()
                    publish_s = max(publish_s + self._publish_every_s, now_s)
                self._watch.tell(now_s)
                await asyncio.sleep(self._nap_s(publish_s))
        finally:
            await self._stop()

    def _nap_s(self, publish_s: float) -> float:
        """Until something is due; never longer than the shortest back-off that a poll may ask for meanwhile."""
        next_s = min(float(self._due_s.min(initial=np.inf)), publish_s, self._watch.due_s)
        longest_s = max(TICK_S, 0.5 * self.settings.backoff_min_s)
        return min(max(next_s - self.clock.monotonic_s(), TICK_S), longest_s)

    async def _stop(self) -> None:
        under_way = [post.task for post in self._posts.values() if post.task is not None]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    def _start_due(self, now_s: float) -> None:
        """Start every poll that is due, each at its next place in the rhythm; one that is still under way is left."""
        rows = np.flatnonzero(self._due_s <= now_s)
        if not rows.size:
            return
        self._advance(rows, now_s)
        loop = asyncio.get_running_loop()
        for row in rows.tolist():
            post = self._posts[row]
            task = post.task
            if task is None:
                post.task = loop.create_task(self._poll(post))
            elif not task.done():
                self.counts.missed += 1
            else:
                self._crashed(post, task)

    def _advance(self, rows: IntArray, now_s: float) -> None:
        """Set what is due to its next place in the rhythm; places that are over already are missed."""
        skipped = np.floor((now_s - self._due_s[rows]) / self._period_s[rows])
        self._due_s[rows] += (skipped + 1.0) * self._period_s[rows]
        self.counts.missed += int(skipped.sum())

    async def _poll(self, post: Post) -> None:
        """Poll until the device is in time again; an error that is not the field's stays in the task, to be found."""
        try:
            while True:
                self.counts.polls += 1
                if not post.driver.connected:
                    await post.driver.connect()
                reading = await post.driver.read()
                self._keep(post, reading)
                now_s = reading.received_s
                if now_s >= post.settings_due_s:
                    await self._read_settings(post)
                if self._due_s[post.row] > now_s:
                    break
                self._due_s[post.row] += post.plan.poll_s
        except FieldError as error:
            self._failed(post, error)
        post.task = None

    def _keep(self, post: Post, reading: Reading) -> None:
        """Take an answer in: one copy of its bytes and its time."""
        raw, requested_s, _, layout, identity = reading
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
        if self._watch.health(post.row) is not Health.WORKING:
            self._watch.note(post.row, Fact.ANSWERED)

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

    async def _read_settings(self, post: Post) -> None:
        """The slow ring: what engineers set in a device, and what of it has drifted since the last time."""
        post.settings_due_s = self.clock.monotonic_s() + post.plan.settings_s
        try:
            now, before = await post.driver.settings(), post.settings
        except DeviceRefused as error:  # its measurements are none the worse for it
            if not post.settings_refused:
                self._watch.event(
                    post.row, Severity.WARNING, "settings-refused", f"does not tell its settings: {error}"
                )
            post.settings_refused = True
            return
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
        self._back_off(post, fact, str(error))

    def _crashed(self, post: Post, task: asyncio.Task[None]) -> None:
        """The last poll ended in an error that nobody expected, or was cancelled from outside."""
        post.task = None
        error = None if task.cancelled() else task.exception()
        post.driver.disconnect()
        self._back_off(post, Fact.CRASHED, f"{type(error).__name__}: {error}" if error else "its poll was cancelled")

    def _back_off(self, post: Post, fact: Fact, why: str) -> None:
        """Leave a device alone for a while: longer after each failure, longest where trying again mends nothing."""
        self.counts.failed += 1
        post.failures += 1
        self._watch.note(post.row, fact, why, asleep=fact is Fact.FAILED and self._asleep(post.row))
        low_s, high_s = self.settings.backoff_min_s, self.settings.backoff_max_s
        hopeless = fact is Fact.REFUSED or self._watch.health(post.row) is Health.QUARANTINED
        wait_s = high_s if hopeless else min(high_s, low_s * 2.0 ** min(post.failures - 1, 16))
        self._due_s[post.row] = self.clock.monotonic_s() + wait_s * (0.5 + 0.5 * self.chance.random())

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
        quality = judge(
            decoded.columns,
            before,
            self.readings.plates(rows),
            dt_s=decoded.requested_s - before_s,
            still_s=decoded.requested_s - decoded.changed_s,
            rescaled=scaling != self._scaling[rows],
            frozen_after_s=self.settings.frozen_after_s,
        )
        self._scaling[rows] = scaling
        table.write(self.writer, rows, decoded.columns, quality, decoded.requested_s)

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
