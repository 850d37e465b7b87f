"""Real processes over loopback: the control room commands a fleet, ends, dies, comes back; another client looks on.

The fleet is `derms-hil fleet`, the control room `derms run`, the client pysunspec2's own.
"""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP

from derms.domain.dispatch import Unknown
from derms.field.journal import Conclusion, Intent, read_records
from derms.service.clock import SystemClock
from derms.service.config import Site, load_site
from derms.service.serving import STOP_S
from drivers.registry import drivers
from feeders.catalog import load
from hil.cli import write_files
from hil.world import World
from tests.hurried import HURRIED, INTERVAL_S, REVERSION_S

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
START_S = 60.0
"""Longest wait for a process to be at work, on a busy machine."""
END_S = STOP_S + 10.0
"""Longest wait for a service to end, with what it takes to hear that it should."""
TELLING = (sys.executable, "-X", "faulthandler")
"""A Python that tells at SIGABRT where each of its threads stands."""
ENDLESS = """
import sys

if "brain" in sys.orig_argv:
    import threading
    from derms.optimize.fleet import FleetPlanner

    plan, plans = FleetPlanner.plan, []

    def endless(planner, portfolio, **how):
        plans.append(portfolio)
        if len(plans) > 1:
            print("planning for ever", flush=True)
            threading.Event().wait()
        return plan(planner, portfolio, **how)

    FleetPlanner.plan = endless
"""
"""What Python does at its start where the optimizer of a brain is never to come to an end after its first plan."""


def _wait_for(what: str, happened: Callable[[], bool], within_s: float, every_s: float = 0.2) -> float:
    """Look until it has happened; returns how long that took [s]."""
    began_s = time.monotonic()
    while not happened():
        assert time.monotonic() - began_s < within_s, f"{what}: not within {within_s:g} s"
        time.sleep(every_s)
    return time.monotonic() - began_s


@contextmanager
def _process(log: Path, *command: str | Path, path: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose words go to a file; it is killed at the end, with all that it started, if it is still there.

    `path` is looked through for modules first.
    """
    environment = os.environ if path is None else {**os.environ, "PYTHONPATH": str(path)}
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=log.parent, env=environment, start_new_session=True
        ) as child,
    ):
        try:
            yield child
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def _ended(service: subprocess.Popen[bytes], log: Path, by: signal.Signals = signal.SIGINT) -> int:
    """Have a service end, within its bound; its exit status. One that does not end tells in its log what it does."""
    service.send_signal(by)
    try:
        return service.wait(timeout=END_S)
    except subprocess.TimeoutExpired:
        service.send_signal(signal.SIGABRT)
        service.wait()
        pytest.fail(f"not ended {END_S:g} s after {by.name}:\n{log.read_text()}")


def _hurry(site: Path, mode: str) -> None:
    site.write_text(site.read_text().replace('mode = "observe"', f'mode = "{mode}"') + HURRIED)


def _site(path: Path) -> Site:
    return load_site(path, drivers=drivers().names, feeder=load)


class Onlooker:
    """An independent client of some batteries: pysunspec2's scan, then reads of what they hold."""

    def __init__(self, site: Site) -> None:
        self._clients: dict[str, Any] = {}
        for device in site.fleet.devices:
            if device.kind == "battery":
                at = device.endpoint
                client = SunSpecModbusClientDeviceTCP(slave_id=at.unit, ipaddr=at.host, ipport=at.port, timeout=5)
                client.scan()
                self._clients[device.id] = client

    def holding(self) -> set[str]:
        """Devices in which a setpoint is enabled."""
        return {name for name, client in self._clients.items() if _holds(client)}

    @property
    def devices(self) -> set[str]:
        return set(self._clients)

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


def _holds(client: Any) -> bool:
    if 704 in client.models:
        client.models[704][0].read()
        return bool(client.models[704][0].WSetEna.value == 1)
    client.models[124][0].read()
    return bool(client.models[124][0].StorCtl_Mod.value != 0)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[tuple[Path, Onlooker]]:
    """`derms-hil fleet` at work, with a site file in auto mode and in a hurry."""
    site = tmp_path / "world" / "site.toml"
    log = tmp_path / "fleet.log"
    with ExitStack() as stack:
        stack.enter_context(_process(log, BIN / "derms-hil", "fleet", "--port", "0", "--out", site.parent))
        _wait_for("the fleet listens", lambda: "Ctrl-C stops" in log.read_text(), START_S)
        _hurry(site, "auto")
        onlooker = Onlooker(_site(site))
        stack.callback(onlooker.close)
        assert onlooker.holding() == set()
        yield site, onlooker


def test_setpoints_outlive_a_killed_service_until_reversion_and_a_restarted_one_hands_back(
    fleet: tuple[Path, Onlooker], tmp_path: Path
) -> None:
    site, onlooker = fleet
    run = (*TELLING, BIN / "derms", "run", "-c", site)
    log = tmp_path / "second.log"
    with _process(tmp_path / "first.log", *run) as first:
        _wait_for("setpoints in some batteries", lambda: len(onlooker.holding()) >= 4, START_S)
        os.killpg(first.pid, signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
    assert len(onlooker.holding()) >= 4, "nobody has handed them back"
    took_s = _wait_for("release by the devices' own timers", lambda: onlooker.holding() == set(), REVERSION_S + 5.0)
    assert took_s > REVERSION_S - INTERVAL_S - 2.0, "the youngest setpoint is no older than an interval"
    unfinished = _unfinished(site)

    with _process(log, *run) as second:
        _wait_for("setpoints in every battery", lambda: onlooker.holding() == onlooker.devices, START_S)
        assert _ended(second, log) == 0, log.read_text()
    assert onlooker.holding() == set()
    said = log.read_text()
    assert (f"{len(unfinished)} commands had no outcome when the service stopped" in said) == bool(unfinished)
    assert said.splitlines()[-1] == "stopped; every device that was commanded has been handed back"
    assert "Traceback" not in said
    outcomes = _outcomes(site)
    assert all(isinstance(outcomes[seq], Unknown) for seq in unfinished)
    assert _unfinished(site) == set()


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_service_that_is_stopped_while_it_plans_hands_back_and_ends(
    by: signal.Signals, fleet: tuple[Path, Onlooker], tmp_path: Path
) -> None:
    site, onlooker = fleet
    log = tmp_path / "planning.log"
    (tmp_path / "sitecustomize.py").write_text(ENDLESS)
    with _process(log, *TELLING, BIN / "derms", "run", "-c", site, path=tmp_path) as service:
        _wait_for("setpoints in every battery", lambda: onlooker.holding() == onlooker.devices, START_S)
        _wait_for("a plan under way", lambda: "planning for ever" in log.read_text(), START_S)
        assert _ended(service, log, by) == 0, log.read_text()
    assert onlooker.holding() == set()
    said = log.read_text()
    assert said.splitlines()[-1] == "stopped; every device that was commanded has been handed back"
    assert "Traceback" not in said
    assert _unfinished(site) == set()
    with closing(sqlite3.connect(site.parent / "data" / "historian.sqlite")) as records:
        assert records.execute("select count(*) from outcomes").fetchall() == [(len(_outcomes(site)),)]


def _records(site: Path) -> list[Any]:
    data = (site.parent / "data" / "commands.journal").read_bytes()
    return [record for record, _, _ in read_records(data)]


def _outcomes(site: Path) -> dict[int, Any]:
    return {record.seq: record.outcome for record in _records(site) if isinstance(record, Conclusion)}


def _unfinished(site: Path) -> set[int]:
    """Commands in the journal that have an intent and no outcome."""
    return {record.seq for record in _records(site) if isinstance(record, Intent)} - _outcomes(site).keys()


def test_in_observe_mode_no_write_reaches_any_server(tmp_path: Path) -> None:
    """The world is in this process, where every write request to any of its servers is counted."""

    async def story() -> World:
        clock = SystemClock(asyncio.get_running_loop())
        world = World(load("ieee123"), seed=1, start=clock.utc(), dt_s=1.0)
        path = write_files(world, "127.0.0.1", await world.serve(), tmp_path / "world")
        _hurry(path, "observe")
        living = asyncio.ensure_future(world.run(clock))
        run = (*TELLING, BIN / "derms", "run", "-c", path)
        service = await asyncio.create_subprocess_exec(
            *run, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        assert service.stdout is not None
        async with asyncio.timeout(START_S):
            greeting = await service.stdout.readline()
        assert b"65 devices, mode observe" in greeting
        begun = world.truth.steps
        async with asyncio.timeout(START_S):
            while world.truth.steps < begun + 4.0 * INTERVAL_S:  # noqa: ASYNC110 - a world tells nobody of its steps
                await asyncio.sleep(world.dt_s)
        service.send_signal(signal.SIGINT)
        overdue = asyncio.get_running_loop().call_later(END_S, service.send_signal, signal.SIGABRT)
        said = await service.stdout.read()
        overdue.cancel()
        assert await service.wait() == 0, said.decode()
        health, *between, stopped = said.splitlines()
        # What loss of control would do to the feeder depends on the hour of the day at which this runs.
        told = (b"loss of all control would be no worse than no plan", b" warning if all control were lost in ")
        assert all(any(text in line for text in told) for line in between), said.decode()
        assert health.startswith(b"health: http://127.0.0.1:")
        assert stopped == b"stopped"
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        world.close()
        return world

    world = asyncio.run(story())
    assert world.tap.writes == 0
    with closing(sqlite3.connect(tmp_path / "world" / "data" / "historian.sqlite")) as records:
        (plans,) = records.execute("select count(*) from decisions").fetchone()
    assert plans >= 2, "there were plans that could have been dispatched"
