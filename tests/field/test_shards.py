"""Worker processes: every endpoint has one owner, their values meet in one table, and a dead worker is replaced."""

import asyncio
import os
import random
import signal
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from derms.domain.alarm import Event
from derms.domain.der import Device, Endpoint, Fleet
from derms.domain.mode import Mode
from derms.domain.quality import Quality
from derms.domain.settings import FieldSettings
from derms.field.poller import Poller
from derms.field.shards import Shards, refuses, shard_of
from derms.field.table import SHARED, TelemetryTable
from derms.ports import Clock, DeviceDriver, DriverInfo, FieldOptions
from derms.service.clock import SystemClock
from tests.field.scripted import Scripted, device

SETTINGS = FieldSettings(poll_s=0.1, processes=2.0)
OPTIONS = FieldOptions(timeout_s=1.0, connect_timeout_s=1.0, read_only=True)
FLEET = Fleet(tuple(device(f"pv{number}", host=f"site{number // 2}.example", unit=number % 2) for number in range(12)))


class OwnKit:
    """Drivers that tell the process they are in, as power."""

    @property
    def names(self) -> Mapping[str, DriverInfo]:
        return {}

    def open(
        self, devices: Sequence[Device], clock: Clock, options: FieldOptions, chance: random.Random
    ) -> Mapping[str, DeviceDriver]:
        opened = {each.id: Scripted(clock, each.p_rated_w) for each in devices}
        for driver in opened.values():
            driver.values["p_w"] = os.getpid() / 1e4
        return opened


def test_endpoints_are_dealt_out_evenly_and_always_alike() -> None:
    endpoints = [Endpoint(f"10.0.{number // 250}.{number % 250}", 502) for number in range(4000)]
    counts = Counter(shard_of(endpoint, 4) for endpoint in endpoints)
    assert set(counts) == {0, 1, 2, 3}
    assert min(counts.values()) > 900
    assert shard_of(Endpoint("10.0.0.7", 502), 4) == zlib.crc32(b"10.0.0.7:502") % 4


def test_units_behind_one_connection_have_one_owner() -> None:
    assert len({shard_of(Endpoint("10.0.0.7", 502, unit), 7) for unit in range(1, 248)}) == 1


def test_more_than_one_process_only_observes() -> None:
    assert refuses(Mode.AUTO, 2)
    assert not refuses(Mode.AUTO, 1)
    assert not refuses(Mode.OBSERVE, 8)


async def until(shards: Shards, pids: set[int]) -> set[int]:
    """Wait until all values are good and come from two processes that are not those given; gives the processes."""
    for _ in range(300):
        await asyncio.sleep(0.05)
        snapshot = shards.reader.snapshot()
        found = {round(value) for value in np.unique(snapshot.p_w * 1e4) if np.isfinite(value)}
        if (snapshot.quality == Quality.GOOD).all() and len(found) == 2 and found != pids:
            return found
    raise AssertionError(f"not read by two processes: {shards.reader.snapshot().quality}")


@pytest.mark.slow
def test_workers_share_the_fleet_mind_no_ctrl_c_and_a_killed_one_is_started_again() -> None:
    events: list[Event] = []

    async def story() -> None:
        clock = SystemClock(asyncio.get_running_loop())
        table = TelemetryTable.shared(len(FLEET), 2)
        reader = Poller(FLEET, {}, clock, replace(SETTINGS, stale_after_s=1.0), random.Random(1), print, table=table)
        shards = Shards(reader, SETTINGS, OPTIONS, OwnKit, SystemClock, events.append)
        running = asyncio.ensure_future(shards.run())
        try:
            for _ in range(3):
                await asyncio.sleep(0.0)
            assert len(shards.workers) == 2
            for worker in shards.workers.values():  # which have only begun to load their libraries
                assert worker.pid is not None
                os.kill(worker.pid, signal.SIGINT)
            pids = await until(shards, set())
            assert pids == {worker.pid for worker in shards.workers.values()}
            owners = reader.snapshot().p_w
            assert all(owners[row] == owners[row + 1] for row in range(0, 12, 2))
            assert reader.identity(3) is not None
            victim = shards.workers[0].pid
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
            assert len(await until(shards, pids) & pids) == 1
            assert [event.kind for event in events] == ["worker-lost"]
            assert reader.counts.polls > 0
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            name = table.name
            table.unlink()
        assert not (SHARED / name).exists()
        for worker in shards.workers.values():
            assert worker.exitcode is not None

    asyncio.run(story())


def test_values_of_a_worker_that_is_gone_grow_stale_in_the_reader() -> None:
    async def story() -> None:
        clock = SystemClock(asyncio.get_running_loop())
        table = TelemetryTable.local(1)
        reader = Poller(Fleet(FLEET.devices[:1]), {}, clock, SETTINGS, random.Random(1), print, table=table)
        columns = {name: column.copy() for name, column in table.read().columns.items()}
        now_s = clock.monotonic_s()
        for age_s, quality in ((1.0, Quality.GOOD), (40.0, Quality.STALE)):
            table.write(0, np.arange(1), columns, np.zeros(1, np.uint8), np.array([now_s - age_s]))
            assert reader.snapshot().quality[0] == quality

    asyncio.run(story())
