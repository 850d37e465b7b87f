"""Both adapters of the link keep the same contract; what is special to a socket follows."""

import asyncio
import getpass
import random
import socket
import threading
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from derms.control.authority import Ticket
from derms.domain.dispatch import Dispatch
from derms.domain.records import Position, Records
from derms.errors import LinkError
from derms.link.answering import Answering, Handler
from derms.link.asking import Link
from derms.link.inprocess import BOOT, InProcessLink
from derms.link.local import LocalLink, LocalServer, call, this_boot
from derms.link.messages import Drain, Envelope, Hand, Lead, Led, NotDone, Observe, Stamp, Taken
from derms.service.clock import SystemClock

Scenario = Callable[[Link, dict[type, Handler]], Awaitable[None]]


async def in_process(scenario: Scenario, folder: Path) -> None:
    clock, handlers = SystemClock(asyncio.get_running_loop()), dict[type, Handler]()
    link = InProcessLink(clock, random.Random(1), author="brain", packed=True)
    with pytest.raises(LinkError, match="not there"):
        await link.ask(Lead("brain"), Led, within_s=1.0)
    link.answering = Answering(clock, BOOT, handlers)
    await scenario(link, handlers)


async def over_a_socket(scenario: Scenario, folder: Path) -> None:
    clock, handlers = SystemClock(asyncio.get_running_loop()), dict[type, Handler]()
    path = folder / "gateway.sock"
    link = LocalLink(path, clock, random.Random(1))
    with pytest.raises(LinkError, match="no gateway at"):
        await link.ask(Lead("brain"), Led, within_s=1.0)
    server = LocalServer(path, Answering(clock, this_boot(), handlers))
    await server.start()
    try:
        await scenario(link, handlers)
    finally:
        server.close()


@pytest.fixture(params=[in_process, over_a_socket])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    """Runs a scenario on one adapter."""
    return lambda scenario: asyncio.run(request.param(scenario, tmp_path))


def test_a_request_has_its_reply_with_every_number_to_the_last_bit(told: Callable[[Scenario], None]) -> None:
    dispatch = Dispatch(
        plan_id=7,
        issued_at=SystemClock(asyncio.new_event_loop()).utc(),
        valid_until_s=1e9 / 3.0,
        times_s=np.array([0.0, 1.0 / 3.0]),
        p_set_w=np.array([[1.0, np.nan]]),
        p_limit_w=np.full((1, 2), np.nan),
    )

    async def scenario(link: Link, handlers: dict[type, Handler]) -> None:
        taken: list[Hand] = []

        async def take(hand: Hand, author: str) -> object:
            taken.append(hand)
            return Taken()

        handlers[Hand] = take
        await link.ask(Hand(dispatch, Ticket(3, 1, 1e9)), Taken, within_s=5.0)
        (hand,) = taken
        assert hand.ticket == Ticket(3, 1, 1e9)
        assert hand.dispatch.valid_until_s == dispatch.valid_until_s
        assert hand.dispatch.p_set_w.tobytes() == dispatch.p_set_w.tobytes()

    told(scenario)


def test_what_nobody_answers_what_fails_and_another_reply_are_told(told: Callable[[Scenario], None]) -> None:
    async def scenario(link: Link, handlers: dict[type, Handler]) -> None:
        async def refuse(_: Lead, __: str) -> object:
            raise LinkError("another brain leads")

        async def mistake(_: Observe, __: str) -> object:
            return Led(1)

        handlers[Lead], handlers[Observe] = refuse, mistake
        with pytest.raises(LinkError, match="Lead: another brain leads"):
            await link.ask(Lead("brain"), Led, within_s=5.0)
        with pytest.raises(LinkError, match="Observe: answered with Led"):
            await link.ask(Observe(), Taken, within_s=5.0)
        with pytest.raises(LinkError, match="Drain: nobody here answers Drain"):
            await link.ask(Drain(Position(), 1), Records, within_s=5.0)

    told(scenario)


def test_an_answer_that_does_not_come_is_not_waited_for(told: Callable[[Scenario], None]) -> None:
    async def scenario(link: Link, handlers: dict[type, Handler]) -> None:
        never = asyncio.Event()

        async def hang(_: Lead, __: str) -> object:
            await never.wait()
            return Led(1)

        handlers[Lead] = hang
        with pytest.raises(LinkError, match=r"no answer within 0\.05 s"):
            await link.ask(Lead("brain"), Led, within_s=0.05)
        never.set()

    told(scenario)


class Still:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def utc(self) -> datetime:
        raise AssertionError("nothing here depends on the wall clock")


def test_a_message_is_acted_on_once_in_time_and_only_on_its_own_machine() -> None:
    async def main() -> None:
        clock, led = Still(), list[str]()

        async def lead(request: Lead, author: str) -> object:
            led.append(f"{request.owner} by {author}")
            return Led(len(led))

        answering = Answering(clock, "here", {Lead: lead})
        envelope = Envelope("a-1", Stamp("here", 100.0), 5.0, Lead("brain"))
        first = await answering.answer(envelope, "anna")
        clock.now_s = 200.0
        assert await answering.answer(envelope, "anna") == first
        assert first.reply == Led(1)
        late = (await answering.answer(Envelope("a-2", Stamp("here", 190.0), 5.0, Lead("b")), "anna")).reply
        assert late == NotDone("it arrived 5.0 s after its end")
        far = (await answering.answer(Envelope("a-3", Stamp("there", 200.0), 5.0, Lead("b")), "anna")).reply
        assert far == NotDone("it was sent from another machine, or before this one was started")
        odd = (await answering.answer(Envelope("a-4", Stamp("here", 200.0), 5.0, Lead("b"), 9), "anna")).reply
        assert odd == NotDone("a message of version 9, and this process speaks version 1")
        assert led == ["brain by anna"]

    asyncio.run(main())


def test_a_command_asks_without_a_loop_under_the_name_of_its_user(tmp_path: Path) -> None:
    path, started, stop = tmp_path / "gateway.sock", threading.Event(), threading.Event()

    async def serve() -> None:
        async def who(_: Lead, author: str) -> object:
            raise LinkError(f"you are {author}")

        answering = Answering(SystemClock(asyncio.get_running_loop()), this_boot(), {Lead: who})
        server = LocalServer(path, answering)
        await server.start()
        started.set()
        await asyncio.to_thread(stop.wait)
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(10.0)
    try:
        with pytest.raises(LinkError, match=f"you are {getpass.getuser()}"):
            call(path, Lead("me"), Led, within_s=10.0)
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(path))
            stranger.sendall(b"\xff\xff\xff\xff")
            assert stranger.recv(10) == b""
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(path))
            stranger.sendall(b"\0\0\0\x04DERM")
            assert stranger.recv(10) == b""
        assert path.stat().st_mode & 0o777 == 0o660
    finally:
        stop.set()
        thread.join()
    with pytest.raises(LinkError, match="no gateway at"):
        call(path, Lead("me"), Led, within_s=1.0)


def test_a_path_too_long_for_a_socket_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="use a shorter storage folder"):
        call(tmp_path / ("x" * 120), Lead("me"), Led, within_s=1.0)
