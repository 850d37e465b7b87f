"""What a fifth of a fleet that fails costs the rest: the time between two polls of the healthy devices.

500 devices every second, each with a connection of its own; of a fifth, in equal parts, nobody listens, nobody answers,
or an answer comes one byte every 50 ms. Beside it a fleet of 500 that are all well; rounds of both alternate. The last
line is one JSON object.
"""

import asyncio
import json
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import uvloop

from derms.domain.der import Fleet
from derms.domain.settings import FieldSettings
from derms.domain.telemetry import Reading
from derms.field.poller import Poller, Post
from derms.ports import FieldOptions
from drivers.registry import drivers
from tests.bench.fleet import WallClock
from tests.bench.stage import Manner, devices, inverter

DEVICES, ILL, PERIOD_S = 500, 100, 1.0
ROUNDS, WARM_UP_S, MEASURED_S = 4, 6.0, 12.0
ILL_MANNERS = (Manner.DEAD, Manner.SILENT, Manner.DRIBBLING)
SETTINGS = FieldSettings(poll_s=PERIOD_S, timeout_s=0.5, connect_timeout_s=1.0, backoff_min_s=1.0, backoff_max_s=5.0)
OPTIONS = FieldOptions(
    timeout_s=0.5, connect_timeout_s=1.0, read_only=True, backoff_min_s=1.0, backoff_max_s=5.0, reconnects_per_s=1000.0
)


@dataclass(slots=True)
class PeriodPoller(Poller):
    """The poller, with the times of each device's readings noted."""

    times_s: dict[int, list[float]] = field(default_factory=dict)

    def _keep(self, post: Post, reading: Reading) -> None:
        self.times_s.setdefault(post.row, []).append(self.clock.monotonic_s())
        Poller._keep(self, post, reading)


async def periods_s(fleet: Fleet, healthy: int) -> list[float]:
    """Times between two readings of the first `healthy` devices over one round."""
    clock = WallClock()
    sessions = drivers().open(fleet.devices, clock, OPTIONS, random.Random(1))
    poller = PeriodPoller(fleet, sessions, clock, SETTINGS, random.Random(1), lambda event: None)
    polling = asyncio.ensure_future(poller.run())
    await asyncio.sleep(WARM_UP_S)
    poller.times_s.clear()
    await asyncio.sleep(MEASURED_S)
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)
    for session in sessions.values():
        session.disconnect()
    found = [np.diff(poller.times_s[row]) for row in range(healthy)]
    assert min(len(each) for each in found) >= MEASURED_S / PERIOD_S - 2
    return [float(period_s) for each in found for period_s in each]


async def measure(ports: Mapping[Manner, int], rounds: int) -> dict[str, object]:
    """Alternate the two fleets."""
    manners = [Manner.WELL] * (DEVICES - ILL) + [ILL_MANNERS[number % len(ILL_MANNERS)] for number in range(ILL)]
    well = Fleet(tuple(inverter(number, ports[Manner.WELL]) for number in range(DEVICES)))
    mixed = Fleet(tuple(inverter(number, ports[manner]) for number, manner in enumerate(manners)))
    periods: dict[str, list[float]] = {"well": [], "mixed": []}
    for number in range(rounds):
        for name, fleet in (("well", well), ("mixed", mixed)):
            found = await periods_s(fleet, DEVICES - ILL)
            periods[name] += found
            print(f"round {number}, {name}: p99 {np.percentile(found, 99):.4f} s", flush=True)
    p99_well_s, p99_mixed_s = (float(np.percentile(periods[name], 99)) for name in ("well", "mixed"))
    return {
        "bench": "isolation",
        "devices": DEVICES,
        "ill": ILL,
        "period_s": PERIOD_S,
        "p99_well_s": round(p99_well_s, 4),
        "p99_mixed_s": round(p99_mixed_s, 4),
        "p99_ratio": round(p99_mixed_s / p99_well_s, 4),
    }


def main() -> None:
    """Serve, measure, print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with devices() as ports:
        result = uvloop.run(measure(ports, rounds))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
