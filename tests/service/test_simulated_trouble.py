"""The simulated network in trouble: what is cut waits and comes whole and in order, what is lost comes late."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from derms.service.simulated import SimulatedLoop, Trouble, run_simulated

THERE = ("10.0.0.1", 502)


class Noting(asyncio.Protocol):
    """Keeps what comes with its time, and when the connection ended."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self.came: list[tuple[float, bytes]] = []
        self.ended_s = float("nan")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.came.append((self._loop.time(), data))

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended_s = self._loop.time()

    @property
    def bytes_(self) -> bytes:
        return b"".join(data for _, data in self.came)


Story = Callable[[SimulatedLoop, Noting, Noting], Awaitable[None]]


def connected(story: Story) -> None:
    """Tell a story between a client and a server."""

    async def main(loop: SimulatedLoop) -> None:
        far = Noting(loop)
        await loop.create_server(lambda: far, *THERE)
        _, near = await loop.create_connection(lambda: Noting(loop), *THERE)
        assert isinstance(near, Noting)
        await story(loop, near, far)

    run_simulated(main, seed=1)


def test_what_is_sent_over_a_cut_way_arrives_in_order_when_it_is_mended() -> None:
    async def story(loop: SimulatedLoop, near: Noting, far: Noting) -> None:
        loop.network.disturb(THERE, Trouble(to_cut=True))
        for part in (b"one", b"two", b"three"):
            near.transport.write(part)
            await asyncio.sleep(1.0)
        far.transport.write(b"back")
        await asyncio.sleep(1.0)
        assert (far.came, near.bytes_) == ([], b"back")
        near.transport.close()
        await asyncio.sleep(1.0)
        assert far.ended_s != far.ended_s
        loop.network.disturb(THERE, Trouble())
        await asyncio.sleep(1.0)
        assert far.bytes_ == b"onetwothree"
        assert far.came[-1][0] < far.ended_s < loop.time()

    connected(story)


def test_a_way_that_is_cut_in_the_other_direction_still_carries_questions() -> None:
    async def story(loop: SimulatedLoop, near: Noting, far: Noting) -> None:
        loop.network.disturb(THERE, Trouble(back_cut=True))
        near.transport.write(b"question")
        await asyncio.sleep(1.0)
        far.transport.write(b"answer")
        await asyncio.sleep(1.0)
        assert (far.bytes_, near.came) == (b"question", [])
        loop.network.disturb(THERE, Trouble())
        await asyncio.sleep(1.0)
        assert near.bytes_ == b"answer"

    connected(story)


@pytest.mark.parametrize("cut", [Trouble(to_cut=True), Trouble(back_cut=True)])
def test_a_listener_cannot_be_reached_while_its_way_is_cut(cut: Trouble) -> None:
    async def main(loop: SimulatedLoop) -> None:
        await loop.create_server(lambda: Noting(loop), *THERE)
        loop.network.disturb(THERE, cut)
        connecting = asyncio.ensure_future(loop.create_connection(lambda: Noting(loop), *THERE))
        await asyncio.sleep(60.0)
        assert not connecting.done()
        loop.network.disturb(THERE, Trouble())
        await asyncio.wait_for(connecting, 1.0)

    run_simulated(main, seed=1)


@pytest.mark.parametrize(
    ("trouble", "least_s", "mean_s"),
    [
        (Trouble(), 0.004, 0.006),
        (Trouble(latency_s=2.5), 2.504, 2.506),
        (Trouble(jitter_s=0.5), 0.004, 0.506),
        (Trouble(loss_frac=0.3), 0.004, 0.006 + 0.3 * 0.2 / 0.4),
    ],
)
def test_latency_jitter_and_loss_delay_by_as_much_as_they_say(trouble: Trouble, least_s: float, mean_s: float) -> None:
    async def story(loop: SimulatedLoop, near: Noting, far: Noting) -> None:
        loop.network.disturb(THERE, trouble)
        delays_s = [loop.network.delay_s(THERE) for _ in range(20_000)]
        assert min(delays_s) == pytest.approx(least_s, abs=0.001)
        assert sum(delays_s) / len(delays_s) == pytest.approx(mean_s, rel=0.1)

    connected(story)
