"""Ten thousand devices every second over loopback TCP: who is missed, who is late, and what it takes.

Each device is a connection of its own to a process on the other core; the poller and its drivers are the gateway's.
A poll is late by the time from its place in the rhythm until its bytes are in the poller's hands, and missed when its
place passes without one. Counted over a minute, after every device has been found. Arguments: devices, seconds. The
last line is one JSON object.
"""

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import uvloop

from derms.domain.der import Fleet
from derms.domain.quality import Quality
from derms.domain.settings import FieldSettings
from derms.domain.telemetry import Reading
from derms.field.poller import Poller, Post, spare_collector
from derms.ports import FieldOptions
from drivers.registry import drivers
from tests.bench.stage import Manner, devices, inverter

DEVICES, PERIOD_S, MEASURED_S = 10_000, 1.0, 60.0
FOUND_WITHIN_S = 180.0
OPTIONS = FieldOptions(timeout_s=5.0, connect_timeout_s=10.0, read_only=True, reconnects_per_s=1000.0)


class WallClock:
    """Time that does not stand still while the loop is busy, so that lateness is seen whole."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def utc(self) -> datetime:
        return datetime.now(UTC)


@dataclass(slots=True)
class TimedPoller(Poller):
    """The poller, with the lateness of each poll noted."""

    late_s: list[float] = field(default_factory=list)

    def _keep(self, post: Post, reading: Reading) -> None:
        # `due_s` is the next place in the rhythm already.
        self.late_s.append(time.monotonic() - (post.due_s - PERIOD_S))
        Poller._keep(self, post, reading)


async def measure(fleet: Fleet, seconds: float) -> dict[str, object]:
    """Find every device, then count."""
    spare_collector()
    clock, settings = WallClock(), FieldSettings(poll_s=PERIOD_S, timeout_s=OPTIONS.timeout_s)
    sessions = drivers().open(fleet.devices, clock, OPTIONS, random.Random(1))
    poller = TimedPoller(fleet, sessions, clock, settings, random.Random(1), lambda event: print(event.text))
    polling = asyncio.ensure_future(poller.run())
    began_s = time.monotonic()
    while (poller.snapshot().quality != Quality.GOOD).any():
        await asyncio.sleep(1.0)
        if polling.done() or time.monotonic() - began_s > FOUND_WITHIN_S:
            raise SystemExit(f"not every device was found: {poller.counts}")
    print(f"all found in {time.monotonic() - began_s:.0f} s; now {seconds:.0f} s of polling", flush=True)
    await asyncio.sleep(3.0)
    poller.late_s.clear()
    polls, failed, missed = poller.counts.polls, poller.counts.failed, poller.counts.missed
    began_s, cpu_s = time.monotonic(), time.process_time()
    await asyncio.sleep(seconds)
    took_s, cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
    counts, snapshot = poller.counts, poller.snapshot()
    assert (snapshot.quality == Quality.GOOD).all()
    late_ms = 1e3 * np.array(poller.late_s)
    polling.cancel()
    return {
        "bench": "fleet",
        "devices": len(fleet),
        "period_s": PERIOD_S,
        "seconds": round(took_s, 1),
        "polls": counts.polls - polls,
        "late_p50_ms": round(float(np.percentile(late_ms, 50)), 1),
        "late_p99_ms": round(float(np.percentile(late_ms, 99)), 1),
        "missed": counts.missed - missed + counts.failed - failed,
        "age_max_s": round(float(snapshot.age_s.max()), 2),
        "cpu_cores_client": round(cpu_s / took_s, 3),
    }


def main() -> None:
    """Serve, measure, print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else DEVICES
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else MEASURED_S
    with devices() as ports:
        fleet = Fleet(tuple(inverter(number, ports[Manner.WELL]) for number in range(count)))
        result = uvloop.run(measure(fleet, seconds))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
