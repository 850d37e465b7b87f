"""The event loop is held up, or control no longer gets on: a service manager hears no sign of life any more."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from derms.service.notify import ALIVE, Notifier
from derms.service.simulated import SimulatedLoop, run_simulated
from tests.field.rig import Rig, in_the_field

WATCHDOG_S = 30.0


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """A service manager that listens."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def _heard(manager: socket.socket) -> list[str]:
    heard = []
    while True:
        try:
            heard.append(manager.recv(64).decode())
        except BlockingIOError:
            return heard


def _notifier(manager: socket.socket) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": f"{WATCHDOG_S * 1e6:.0f}"})


def test_a_sign_of_life_is_given_for_progress_and_for_nothing_else(manager: socket.socket) -> None:
    turns = [0]

    async def main(loop: SimulatedLoop) -> None:
        showing = asyncio.ensure_future(_notifier(manager).show_progress(lambda: turns[0]))
        heard = []
        for _ in range(30):
            await asyncio.sleep(5.0)
            turns[0] += 1
            heard += _heard(manager)
        assert set(heard) == {ALIVE}
        assert len(heard) >= 150.0 / (WATCHDOG_S / 2.0)
        await asyncio.sleep(WATCHDOG_S)  # the loop still turns, and control does not
        _heard(manager)
        await asyncio.sleep(600.0)
        assert _heard(manager) == []
        turns[0] += 1
        await asyncio.sleep(WATCHDOG_S)
        assert _heard(manager) == [ALIVE]
        showing.cancel()

    run_simulated(main, seed=1)


def test_what_is_shown_of_a_gateway_is_the_turns_of_its_control(tmp_path: Path, manager: socket.socket) -> None:
    async def scenario(rig: Rig) -> None:
        showing = asyncio.ensure_future(_notifier(manager).show_progress(lambda: rig.reconciler.turns))
        rig.want({"bat01": 5e3})
        for _ in range(10):
            await rig.turns(30.0)
            assert ALIVE in _heard(manager)
        await asyncio.sleep(WATCHDOG_S)
        _heard(manager)
        await asyncio.sleep(300.0)  # polls go on, and nobody has a turn
        assert _heard(manager) == []
        showing.cancel()

    in_the_field(scenario, tmp_path, devices=("bat01",))
