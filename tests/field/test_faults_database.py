"""Fault 26 of the failure catalogue: control room and database lose each other, and the fleet does not notice."""

import asyncio
import random
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from derms.domain.der import Fleet
from derms.domain.quality import Quality
from derms.service.app import Service
from derms.service.cadence import run_on_clock
from derms.service.clock import LoopClock
from derms.service.config import load_site
from derms.service.simulated import SimulatedLoop, run_simulated
from derms.service.surroundings import Surroundings
from drivers.registry import drivers
from feeders.catalog import load
from hil.cli import write_files
from hil.world import World
from tests.field.rig import NOON

MINUTE_S = 60.0
"""Between two records."""
DEVICES = ("pv01", "bat01", "bat02", "head", "system")


def counted(database: Path, table: str) -> int:
    with closing(sqlite3.connect(database)) as raw:
        (rows,) = raw.execute(f"select count(*) from {table}").fetchone()
    return int(rows)


def rename(database: Path, old: str, new: str) -> None:
    with closing(sqlite3.connect(database)) as raw, raw:
        raw.execute(f"alter table {old} rename to {new}")


def test_fault_26_without_its_database_the_gateway_goes_on_and_nothing_is_missing_afterwards(tmp_path: Path) -> None:
    database = tmp_path / "data" / "historian.sqlite"

    async def main(loop: SimulatedLoop) -> None:
        clock = LoopClock(loop, NOON)
        world = World(load("ieee123"), seed=1, start=NOON)
        path = write_files(world, "127.0.0.1", await world.serve(), tmp_path, mode="auto")
        site = load_site(path, drivers=drivers().names, feeder=load)
        site = replace(site, fleet=Fleet(tuple(d for d in site.fleet.devices if d.id in DEVICES)))
        around = Surroundings(
            clock=clock,
            runner=lambda jobs: run_on_clock(jobs, clock),
            chance=random.Random(1),
            executor=None,
        )
        service = Service(site, around, drivers=drivers(), on_event=lambda event: None)
        stop = asyncio.Event()
        living, serving = asyncio.ensure_future(world.run(clock)), asyncio.ensure_future(service.run(stop))
        await asyncio.sleep(400.0)
        rename(database, "samples", "away")
        samples, writes = counted(database, "away"), service.gateway.reconciler.counts.writes
        await asyncio.sleep(600.0)
        assert service.gateway.reconciler.counts.writes > writes
        assert (service.gateway.snapshot().quality == Quality.GOOD).all()
        assert counted(database, "away") == samples
        told = [event.kind for event in service.events if event.source == "record"]
        assert told == ["job-failed"]
        rename(database, "away", "samples")
        await asyncio.sleep(120.0)
        stop.set()
        await serving
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        world.close()
        assert service.store.dropped == 0
        assert service.gateway.reconciler.counts.failed == 0

    run_simulated(main, seed=1)
    with closing(sqlite3.connect(database)) as raw:
        times_us = np.array(raw.execute("select distinct at_us from samples order by at_us").fetchall())[:, 0]
    assert len(times_us) >= 1000.0 / MINUTE_S
    assert np.diff(times_us).max() <= 1.1e6 * MINUTE_S
