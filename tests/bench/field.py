"""Device polls a second and core: our poller against stock pymodbus, and against frames packed by hand.

A device poll is the 123-register read of 701 and the 67-register read of 704. Ours ends as values with quality and time
in the table; stock pymodbus on the stock loop decodes the same 17 points with struct; the packed frames, on uvloop with
a future and a time-out per request, are not decoded at all. 100 connections to devices on the other core; CPU time of
the client; every round is a process of its own for each of the three, one after the other, and the ratios are medians
over rounds. The last line is one JSON object.
"""

import asyncio
import json
import multiprocessing
import random
import resource
import statistics
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from multiprocessing.connection import Connection
from typing import cast

import uvloop
from pymodbus.client import AsyncModbusTcpClient

from derms.domain.der import Endpoint, Fleet
from derms.domain.quality import Quality
from derms.domain.settings import FieldSettings
from derms.field.poller import Poller, spare_collector
from derms.ports import FieldOptions
from derms.service.clock import SystemClock
from drivers.registry import drivers
from tests.bench.stage import CLIENT_CORE, Manner, devices, inverter, offsets

ROUNDS, CONNECTIONS, WARM_UP_S, MEASURED_S = 7, 100, 0.5, 2.0
SPANS = ((40070, 123), (40225, 67))
"""701 and 704 in the map of the simulated device."""
TIMEOUT_S = 2.0
MEMORY_DEVICES = 1000
OPTIONS = FieldOptions(timeout_s=TIMEOUT_S, connect_timeout_s=3.0, read_only=True)
QUICK = FieldSettings(poll_s=0.001, timeout_s=TIMEOUT_S)
"""Every device is due again as soon as it has answered."""
Result = tuple[int, float]
"""Polls, and the CPU time that they took [s]."""


async def ours(fleet: Fleet) -> Result:
    """The poller as it is in the gateway."""
    spare_collector()
    poller, polling = start_poller(fleet, QUICK)
    await all_good(poller, polling)
    result = await measured(lambda: poller.counts.polls - poller.counts.failed)
    snapshot = poller.snapshot()
    assert (snapshot.quality == Quality.GOOD).all()
    assert (snapshot.age_s < 1.0).all()
    assert (snapshot.p_w >= 5000.0).all()
    assert poller.counts.failed == 0
    polling.cancel()
    return result


def start_poller(fleet: Fleet, settings: FieldSettings) -> tuple[Poller, asyncio.Task[None]]:
    """A poller on the real drivers, at work."""
    clock = SystemClock(asyncio.get_running_loop())
    sessions = drivers().open(fleet.devices, clock, OPTIONS, random.Random(1))
    poller = Poller(fleet, sessions, clock, settings, random.Random(1), print)
    return poller, asyncio.ensure_future(poller.run())


async def all_good(poller: Poller, polling: asyncio.Task[None]) -> None:
    """Wait until every device has been read well; ends the program when that takes too long."""
    for _ in range(600):
        if polling.done() or (poller.snapshot().quality == Quality.GOOD).all():
            break
        await asyncio.sleep(0.1)
    if polling.done() or (poller.snapshot().quality != Quality.GOOD).any():
        raise SystemExit(f"not every device was read: {poller.counts}")


async def stock_pymodbus(fleet: Fleet) -> Result:
    """AsyncModbusTcpClient with struct-based decode, a task per connection."""
    table: list[dict[str, float]] = [{} for _ in fleet.devices]
    counts = [0] * len(fleet)

    async def follow(number: int, place: Endpoint, stop: asyncio.Event) -> None:
        client = AsyncModbusTcpClient(place.host, port=place.port, timeout=TIMEOUT_S)
        await client.connect()
        while not stop.is_set():
            blocks = []
            for start, count in SPANS:
                answer = await client.read_holding_registers(start, count=count, device_id=1)
                blocks.append(answer.registers)
            table[number] = decode(blocks[0], blocks[1])
            counts[number] += 1

    return await with_tasks(follow, fleet, counts)


_AT, _AT_704 = offsets(701), offsets(704)
_SCALED = (
    ("A", "A_SF"), ("LLV", "V_SF"), ("LNV", "V_SF"), ("W", "W_SF"), ("VA", "VA_SF"), ("Var", "Var_SF"),
    ("PF", "PF_SF"), ("TmpAmb", "Tmp_SF"),
)  # fmt: skip
_UNSIGNED = frozenset({"LLV", "LNV"})


def decode(block_701: Sequence[int], block_704: Sequence[int]) -> dict[str, float]:
    """17 telemetry points of 701 and 704, with scale factors and `not implemented`."""
    raw = struct.pack(f">{len(block_701)}H", *block_701)
    raw_704 = struct.pack(f">{len(block_704)}H", *block_704)
    values: dict[str, float] = {}
    for name, scale in _SCALED:
        letter, absent = (">H", 0xFFFF) if name in _UNSIGNED else (">h", -0x8000)
        (value,) = struct.unpack_from(letter, raw, 2 * _AT[name])
        (power,) = struct.unpack_from(">h", raw, 2 * _AT[scale])
        values[name] = float("nan") if value == absent else value * 10.0**power
    (hertz, power) = struct.unpack_from(">I", raw, 2 * _AT["Hz"])[0], struct.unpack_from(">h", raw, 2 * _AT["Hz_SF"])[0]
    values["Hz"] = hertz * 10.0**power
    for name in ("TotWhInj", "TotWhAbs"):
        values[name] = struct.unpack_from(">Q", raw, 2 * _AT[name])[0]
    for name in ("St", "InvSt", "ConnSt"):
        values[name] = struct.unpack_from(">H", raw, 2 * _AT[name])[0]
    values["Alrm"] = struct.unpack_from(">I", raw, 2 * _AT["Alrm"])[0]
    values["WMaxLimPctEna"] = struct.unpack_from(">H", raw_704, 2 * _AT_704["WMaxLimPctEna"])[0]
    (limit,) = struct.unpack_from(">H", raw_704, 2 * _AT_704["WMaxLimPct"])
    (power,) = struct.unpack_from(">h", raw_704, 2 * _AT_704["WMaxLimPct_SF"])
    values["WMaxLimPct"] = limit * 10.0**power
    return values


class Packed(asyncio.Protocol):
    """Frames packed by hand, one future and one time-out per request, and no look at what comes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transaction = 0
        self._waiting: asyncio.Future[bytes] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, address: int, count: int) -> asyncio.Future[bytes]:
        self._transaction = self._transaction % 0xFFFF + 1
        self._waiting = self._loop.create_future()
        self._timer = self._loop.call_later(TIMEOUT_S, self._late)
        self._transport.write(struct.pack(">HHHBBHH", self._transaction, 0, 6, 1, 3, address, count))
        return self._waiting

    def data_received(self, data: bytes) -> None:
        waiting, self._waiting = self._waiting, None
        if self._timer is not None:
            self._timer.cancel()
        if waiting is not None and not waiting.done():
            waiting.set_result(data[9:])

    def _late(self) -> None:
        if self._waiting is not None:
            self._waiting.set_exception(TimeoutError())


async def hand_packed(fleet: Fleet) -> Result:
    """The least that asyncio can do."""
    loop = asyncio.get_running_loop()
    counts = [0] * len(fleet)

    async def follow(number: int, place: Endpoint, stop: asyncio.Event) -> None:
        _, link = await loop.create_connection(lambda: Packed(loop), place.host, place.port)
        while not stop.is_set():
            for start, count in SPANS:
                await link.ask(start, count)
            counts[number] += 1

    return await with_tasks(follow, fleet, counts)


async def with_tasks(
    follow: Callable[[int, Endpoint, asyncio.Event], Awaitable[None]], fleet: Fleet, counts: Sequence[int]
) -> Result:
    """A task per connection for the measured time; asked to stop, since pymodbus may swallow a cancellation."""
    stop = asyncio.Event()
    tasks = [asyncio.ensure_future(follow(row, device.endpoint, stop)) for row, device in enumerate(fleet.devices)]
    result = await measured(lambda: sum(counts))
    assert min(counts) > 0
    stop.set()
    await asyncio.gather(*tasks)
    return result


async def measured(done: Callable[[], int]) -> Result:
    """Polls and CPU time over the measured time, after the warm-up."""
    await asyncio.sleep(WARM_UP_S)
    before, began_s = done(), time.process_time()
    await asyncio.sleep(MEASURED_S)
    return done() - before, time.process_time() - began_s


async def memory(fleet: Fleet) -> Result:
    """Devices, and the resident memory that they take [KiB], connections and table included."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    poller, polling = start_poller(fleet, FieldSettings(poll_s=1.0, timeout_s=TIMEOUT_S))
    await all_good(poller, polling)
    await asyncio.sleep(3.0)
    polling.cancel()
    return len(fleet), float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


RUNS: dict[str, tuple[Callable[[Fleet], Awaitable[Result]], bool]] = {
    "ours": (ours, True),
    "stock pymodbus": (stock_pymodbus, False),
    "hand-packed": (hand_packed, True),
    "memory": (memory, True),
}
"""By name, with whether it runs on uvloop."""


def run(answer: Connection, name: str, fleet: Fleet) -> None:
    """Process: one round of one client."""
    main, on_uvloop = RUNS[name]
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop if on_uvloop else None)
    with runner:

        async def go() -> Result:
            return await main(fleet)

        answer.send(runner.run(go()))


def round_of(name: str, fleet: Fleet) -> Result:
    """One round in a process of its own, which stays on this one's core."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=run, args=(there, name, fleet))
    process.start()
    there.close()
    try:
        result: Result = here.recv()
    except EOFError:
        raise SystemExit(f"{name} ended without a result") from None
    process.join()
    return result


def main() -> None:
    """All rounds, then memory."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(f"{rounds} rounds of 3 clients, {CONNECTIONS} connections, client on core {CLIENT_CORE}", flush=True)
    rates: dict[str, list[float]] = {name: [] for name in RUNS if name != "memory"}
    with devices() as ports:
        fleet = Fleet(tuple(inverter(number, ports[Manner.WELL]) for number in range(CONNECTIONS)))
        for _ in range(rounds):
            for name, rate in rates.items():
                polls, cpu_s = round_of(name, fleet)
                rate.append(polls / cpu_s)
                print(f"{name:15} {polls / cpu_s:8.0f} polls/s/core, {1e6 * cpu_s / polls:6.1f} us each", flush=True)
        many = Fleet(tuple(inverter(number, ports[Manner.WELL]) for number in range(MEMORY_DEVICES)))
        count, used_kib = round_of("memory", many)
    own, stock, packed = rates.values()
    result = {
        "bench": "field",
        "connections": CONNECTIONS,
        "device_polls_per_core_s": round(statistics.median(own)),
        "ratio_vs_stock_pymodbus": round(statistics.median(a / b for a, b in zip(own, stock, strict=True)), 2),
        "ratio_vs_handpacked": round(statistics.median(a / b for a, b in zip(own, packed, strict=True)), 3),
        "rss_kib_per_device": round(used_kib / count, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
