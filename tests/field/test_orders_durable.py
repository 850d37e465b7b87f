"""Orders and a disk that hangs: a stop holds at once, a change is refused in time, and the loop goes on."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from derms.control.modes import ControlMode
from derms.control.stopping import How
from derms.domain.refusal import Refused
from derms.domain.scope import EVERYTHING
from derms.domain.tags import Tag, TagKind
from derms.field.orders import Orders
from derms.field.orders_saver import SAVE_S
from derms.service.simulated import SimulatedLoop, run_simulated
from tests.field.test_orders_file import BAT0, FEEDER, Desk


class Threads:
    """What was given to threads; while they hang nothing of it is done."""

    def __init__(self) -> None:
        self.hang = True
        self.most = 0
        self._given: list[tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def take(self, loop: asyncio.AbstractEventLoop, work: Callable[..., Any], given: tuple[Any, ...]) -> Any:
        future = loop.create_future()
        self._given.append((future, work, given))
        self.most = max(self.most, len(self._given))
        if not self.hang:
            self.work()
        return future

    def work(self) -> None:
        self.hang = False
        for future, work, given in self._given:
            future.set_result(work(*given))
        self._given.clear()


Story = Callable[[Desk, Orders, Threads], Awaitable[None]]


def told(story: Story, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell a story of orders that are kept up, on a disk that hangs."""
    threads = Threads()

    async def scenario(loop: SimulatedLoop) -> None:
        desk = Desk(folder)
        orders = desk.open(fresh=True)
        monkeypatch.setattr(type(loop), "run_in_executor", lambda me, _, work, *given: threads.take(me, work, given))
        running = asyncio.ensure_future(orders.run())
        await story(desk, orders, threads)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run_simulated(scenario, seed=1)


def test_a_stop_holds_at_once_is_told_to_be_unsaved_and_is_saved_when_the_disk_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(desk: Desk, orders: Orders, threads: Threads) -> None:
        first = orders.latch(How.CEASE, FEEDER, "smith")
        assert orders.stopped().all()
        assert orders.unsaved
        await asyncio.sleep(1.5)
        second = orders.latch(How.FREEZE, EVERYTHING, "lee")
        desk.clock.now_s += SAVE_S + 1.0
        await asyncio.sleep(1.5)
        assert "orders-not-kept" in desk.kinds()
        threads.work()
        await asyncio.sleep(1.5)
        assert not orders.unsaved
        assert threads.most == 1, "one save at a time"
        assert desk.kinds()[-1] == "orders-kept"
        assert {it.number for it in desk.open().latches} == {first.number, second.number}

    told(story, tmp_path, monkeypatch)


def test_changes_are_refused_in_time_and_the_file_says_in_the_end_what_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(desk: Desk, orders: Orders, threads: Threads) -> None:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        found = await asyncio.gather(
            orders.durably(lambda: orders.hang(TagKind.CLEARANCE, FEEDER, "crew", "jones")),
            orders.durably(lambda: orders.lock(BAT0, "lee", 60.0)),
            orders.durably(lambda: orders.set_mode(FEEDER, ControlMode.OFF, "lee", "storm")),
        )
        assert all(isinstance(it, Refused) and it.reasons[0].by == "disk" for it in found)
        assert loop.time() - begun_s <= 2 * SAVE_S
        assert orders.kept.board.tags == ()
        threads.work()
        await asyncio.sleep(1.5)
        assert not orders.unsaved
        assert desk.open().kept == orders.kept

    told(story, tmp_path, monkeypatch)


def test_a_stop_that_is_given_while_a_change_is_saved_is_in_what_holds_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(desk: Desk, orders: Orders, threads: Threads) -> None:
        change = asyncio.ensure_future(
            orders.durably(lambda: orders.hang(TagKind.CAUTION, BAT0, "dog in the yard", "jones"))
        )
        await asyncio.sleep(0.5)
        assert orders.board.tags == (), "nothing holds before it is durable"
        orders.latch(How.CEASE, FEEDER, "smith")
        assert orders.stopped().all()
        threads.work()
        assert isinstance(await change, Tag)
        assert [it.how for it in orders.latches] == [How.CEASE]
        await asyncio.sleep(1.5)
        assert not orders.unsaved
        again = desk.open()
        assert (again.board, len(again.latches)) == (orders.board, 1)

    told(story, tmp_path, monkeypatch)


def test_a_change_that_is_none_is_refused_without_a_look_at_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(desk: Desk, orders: Orders, threads: Threads) -> None:
        refused = await orders.durably(lambda: orders.take_off(7, "lee"))
        assert isinstance(refused, Refused)
        assert refused.reasons[0].by == "request"
        assert threads.most == 0

    told(story, tmp_path, monkeypatch)
