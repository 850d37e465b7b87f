"""CPU time of one poll: our driver against pymodbus's own client, the same requests to the same simulated device.

The device is served over loopback TCP by a process of its own. Rounds alternate between the two, so that a busy
machine is busy for both; the ratio is the median over rounds. Neither side decodes: readings stay bytes in the driver
and register lists in pymodbus. The last line is one JSON object.
"""

import asyncio
import json
import multiprocessing
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from multiprocessing.connection import Connection

import uvloop
from pymodbus.client import AsyncModbusTcpClient

from derms.domain.der import Device, DeviceKind, Endpoint
from derms.ports import FieldOptions
from derms.service.clock import SystemClock
from drivers.modbus.session import Sessions
from drivers.sunspec.driver import SunSpecDriver
from drivers.sunspec.scan import scan
from drivers.sunspec.telemetry import Span, read_plan
from feeders.catalog import load
from hil.world import World

ROUNDS, POLLS = 15, 200
HOST, DEVICE = "127.0.0.1", "bat01"
OPTIONS = FieldOptions(timeout_s=2.0, connect_timeout_s=3.0, read_only=True)
NOON = datetime(2026, 4, 15, 19, 0, tzinfo=UTC)


def serve(ready: Connection) -> None:
    """Serve a world that stands still; tells the port of the device."""

    async def forever() -> None:
        world = World(load("ieee123"), seed=1, start=NOON)
        ports = await world.serve(HOST)
        ready.send(ports[list(world.servers).index(DEVICE)])
        await asyncio.Event().wait()

    asyncio.run(forever())


async def cpu_s(poll: Callable[[], Awaitable[object]]) -> float:
    """CPU time of this process for a round of polls [s]."""
    began_s = time.process_time()
    for _ in range(POLLS):
        await poll()
    return time.process_time() - began_s


async def spans_of(port: int) -> tuple[Span, ...]:
    """What the driver asks the device for in one poll."""
    connection = Sessions(OPTIONS, random.Random(1)).unit(Endpoint(HOST, port))
    await connection.connect()
    spans = read_plan((await scan(connection)).chain)[1]
    connection.disconnect()
    return spans


async def measure(port: int) -> dict[str, object]:
    """Alternate rounds of both clients."""
    spans = await spans_of(port)
    device = Device(
        id=DEVICE, kind=DeviceKind.BATTERY, driver="sunspec", endpoint=Endpoint(HOST, port), bus="", energy_wh=1.0
    )
    unit = Sessions(OPTIONS, random.Random(1)).unit(device.endpoint)
    driver = SunSpecDriver(device, unit, SystemClock(asyncio.get_running_loop()))
    await driver.connect()
    client = AsyncModbusTcpClient(HOST, port=port)
    await client.connect()

    async def theirs() -> None:
        for span in spans:
            answer = await client.read_holding_registers(span.address, count=span.count, device_id=1)
            if answer.isError():
                raise SystemExit(f"the device answered {answer}")

    for warm_up in (driver.read, theirs):
        await cpu_s(warm_up)
    rounds = [(await cpu_s(driver.read), await cpu_s(theirs)) for _ in range(ROUNDS)]
    driver.disconnect()
    client.close()
    return {
        "bench": "poll",
        "requests_per_poll": len(spans),
        "polls": ROUNDS * POLLS,
        "cpu_us_per_poll": round(1e6 * statistics.median(ours for ours, _ in rounds) / POLLS, 1),
        "cpu_us_per_poll_pymodbus": round(1e6 * statistics.median(other for _, other in rounds) / POLLS, 1),
        "ratio": round(statistics.median(ours / other for ours, other in rounds), 3),
    }


def main() -> None:
    """Start the device, measure, print."""
    here, there = multiprocessing.Pipe()
    world = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    world.start()
    print(f"starting the simulated device; then {ROUNDS} rounds of {POLLS} polls for each client", flush=True)
    result = uvloop.run(measure(here.recv()))
    world.terminate()
    world.join()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
