"""Simulated device-seconds per CPU second of the whole loop: world, gateway and brain for an hour in virtual time.

The hour from 16:00, seed 1, as `derms demo --fast --hours 1` runs it, without the day without control and without the
report. The last line is one JSON object.
"""

import json
import tempfile
import time

from hil.demo import managed_day, parse

HOURS = 1.0


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        options = parse(["--fast", "--headless", "--hours", str(HOURS), "--report", folder])
        print(f"{HOURS:g} h in virtual time", flush=True)
        began_s = time.process_time()
        run = managed_day(options)
        cpu_s = time.process_time() - began_s
    devices = len(run.service.site.fleet)
    polls = run.service.gateway.poller.counts.polls
    result = {
        "bench": "day",
        "devices": devices,
        "simulated_s": HOURS * 3600.0,
        "polls": polls,
        "cpu_s": round(cpu_s, 2),
        "device_s_per_cpu_s": round(devices * HOURS * 3600.0 / cpu_s),
        "polls_per_cpu_s": round(polls / cpu_s),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
