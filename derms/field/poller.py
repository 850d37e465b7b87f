"""The poller: one task per device keeps its latest reading; a snapshot decodes them all in columns.

A device that fails costs its own task a back-off and nobody else anything. Stale, frozen and implausible are
qualities that a snapshot gives by looking at times and values: nothing old is ever shown as new.
"""

import asyncio
import random
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from derms.domain.alarm import Event, Severity
from derms.domain.arrays import ByteArray, FloatArray
from derms.domain.der import Device, Fleet
from derms.domain.quality import Quality
from derms.domain.settings import FieldSettings
from derms.domain.telemetry import COLUMNS, Identity, Reading, TelemetryLayout, TelemetrySnapshot
from derms.errors import FieldError
from derms.ports import Clock, DeviceDriver

PLAUSIBLE_FACTOR = 1.2
"""A DER that reports more than this many times its nameplate is not believed."""


RATING_TOLERANCE_FRAC = 0.02
"""Between what a device says of itself and the fleet file: the rounding of both."""


@dataclass(slots=True)
class _Post:
    """What the poller knows of one device."""

    device: Device
    driver: DeviceDriver
    identity: Identity | None = None
    layout: TelemetryLayout | None = None
    reading: Reading | None = None
    changed_s: float = 0.0
    failures: int = 0
    lost: bool = False


@dataclass(slots=True)
class PollCounts:
    """Polls made and failed since the start."""

    polls: int = 0
    failed: int = 0


@dataclass(slots=True)
class Poller:
    """Polls every device of a fleet; see the module's text."""

    fleet: Fleet
    drivers: Mapping[str, DeviceDriver]
    clock: Clock
    settings: FieldSettings
    chance: random.Random
    on_event: Callable[[Event], None]
    counts: PollCounts = field(default_factory=PollCounts)
    _posts: list[_Post] = field(init=False)

    def __post_init__(self) -> None:
        self._posts = [_Post(device, self.drivers[device.id]) for device in self.fleet.devices]

    async def run(self) -> None:
        """Poll until cancelled."""
        async with asyncio.TaskGroup() as group:
            for post in self._posts:
                group.create_task(self._follow(post), name=f"poll {post.device.id}")

    async def _follow(self, post: _Post) -> None:
        """Poll one device at its own phase of the interval; after failures wait longer, with jitter, to a cap."""
        clock, period_s = self.clock, self.settings.poll_s
        due_s = clock.monotonic_s() + phase(post.device.id) * period_s
        while True:
            await asyncio.sleep(max(0.0, due_s - clock.monotonic_s()))
            self.counts.polls += 1
            try:
                if not post.driver.connected:
                    await post.driver.connect()
                self._keep(post, await post.driver.read())
                self._meet(post, post.driver.identity)
            except FieldError as error:
                self._failed(post, error)
                due_s = clock.monotonic_s() + self._backoff_s(post.failures)
            else:
                missed = max(0.0, (clock.monotonic_s() - due_s) // period_s)
                due_s += (missed + 1.0) * period_s

    def _meet(self, post: _Post, identity: Identity) -> None:
        """Remember who a device says it is; a rating unlike the fleet file's is said once, and the smaller holds."""
        if identity != post.identity:
            for what, filed, told in (
                ("kW", post.device.p_rated_w, identity.p_rated_w),
                ("kWh", post.device.energy_wh, identity.energy_wh),
            ):
                if filed > 0.0 and abs(told - filed) > RATING_TOLERANCE_FRAC * filed:
                    text = f"says {told / 1e3:g} {what}, the fleet file {filed / 1e3:g} {what}: the smaller holds"
                    self._event(post, Severity.WARNING, "rating-mismatch", text)
        post.identity = identity

    def _keep(self, post: _Post, reading: Reading) -> None:
        layout = post.driver.layout
        last = post.reading
        if last is None or layout != post.layout or layout.measured(reading.raw) != layout.measured(last.raw):
            post.changed_s = reading.requested_s
        post.reading, post.layout = reading, layout
        post.failures = 0
        if post.lost:
            post.lost = False
            self._event(post, Severity.INFO, "device-back", "answers again")

    def _failed(self, post: _Post, error: FieldError) -> None:
        self.counts.failed += 1
        post.failures += 1
        post.driver.disconnect()
        if not post.lost:
            post.lost = True
            self._event(post, Severity.WARNING, "device-lost", f"does not answer as it should: {error}")

    def _backoff_s(self, failures: int) -> float:
        low_s, high_s = self.settings.backoff_min_s, self.settings.backoff_max_s
        return float(min(high_s, low_s * 2.0 ** min(failures - 1, 16)) * (0.5 + 0.5 * self.chance.random()))

    def _event(self, post: _Post, severity: Severity, kind: str, text: str) -> None:
        self.on_event(Event(self.clock.utc(), severity, post.device.id, kind, f"{post.device.id} {text}"))

    def identity(self, row: int) -> Identity | None:
        """Who the device said it is when it was last connected; None before."""
        return self._posts[row].identity

    def requested_s(self, row: int) -> float:
        """Time of the latest reading [s]; -inf before the first."""
        reading = self._posts[row].reading
        return -np.inf if reading is None else reading.requested_s

    def snapshot(self) -> TelemetrySnapshot:
        """Decode the latest reading of every device, layout by layout, and judge each device's quality."""
        count, now_s = len(self._posts), self.clock.monotonic_s()
        columns: dict[str, FloatArray] = {
            name: np.full(count if "phase" not in name else (count, 3), np.nan) for name in COLUMNS
        }
        for layout, rows in self._rows_by_layout().items():
            joined = b"".join(reading.raw for row in rows if (reading := self._posts[row].reading) is not None)
            raw = np.frombuffer(joined, dtype=np.uint8).reshape(len(rows), layout.width)
            for name, values in layout.decode(raw).items():
                columns[name][rows] = values
        known = [(np.nan,) * 3 if who is None else who.ratings for who in (post.identity for post in self._posts)]
        nominal_v, p_rated_w, energy_wh = np.array(known, dtype=np.float64).reshape(-1, 3).T
        age_s = now_s - np.array([self.requested_s(row) for row in range(count)])
        return TelemetrySnapshot(
            at=self.clock.utc(),
            now_s=now_s,
            p_w=columns["p_w"],
            q_var=columns["q_var"],
            v_pu=columns["v_v"] / nominal_v,
            soc_frac=columns["soc_frac"],
            p_phase_w=columns["p_phase_w"],
            q_phase_var=columns["q_phase_var"],
            v_phase_pu=columns["v_phase_v"] / nominal_v[:, None],
            quality=self._quality(columns, age_s, now_s),
            age_s=age_s,
            p_rated_w=p_rated_w,
            energy_wh=energy_wh,
        )

    def _rows_by_layout(self) -> Mapping[TelemetryLayout, list[int]]:
        rows: defaultdict[TelemetryLayout, list[int]] = defaultdict(list)
        for row, post in enumerate(self._posts):
            if post.layout is not None and post.reading is not None and len(post.reading.raw) == post.layout.width:
                rows[post.layout].append(row)
        return rows

    def _quality(self, columns: Mapping[str, FloatArray], age_s: FloatArray, now_s: float) -> ByteArray:
        settings = self.settings
        p_w, v_v, soc_frac = columns["p_w"], columns["v_v"], columns["soc_frac"]
        still_s = now_s - np.array([post.changed_s for post in self._posts])
        rated_w = self.fleet.p_rated_w
        implausible = (rated_w > 0.0) & (np.abs(p_w) > PLAUSIBLE_FACTOR * rated_w)
        implausible |= (soc_frac < 0.0) | (soc_frac > 1.0)
        quality = np.full(len(p_w), Quality.GOOD, dtype=np.uint8)
        quality[implausible | (still_s - age_s > settings.frozen_after_s)] = Quality.SUSPECT
        quality[np.isnan(p_w) & np.isnan(v_v)] = Quality.NOT_IMPLEMENTED
        quality[age_s > settings.stale_after_s] = Quality.STALE
        quality[~np.isfinite(age_s)] = Quality.MISSING
        return quality


def phase(device_id: str) -> float:
    """A device's own place in every interval [0, 1): the same in each run, spread over the fleet."""
    return zlib.crc32(device_id.encode()) / 2.0**32
