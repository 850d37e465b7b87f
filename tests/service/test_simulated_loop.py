"""Simulated time: jumps, order, repeatability, and the same byte streams as a real loop gives."""

import asyncio
import time

import pytest

from derms.service.paced import PacedLoop
from derms.service.simulated import SimulatedLoop, SimulationStalled, run_simulated


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())
        if data.endswith(b"bye"):
            self.transport.close()


class _Caller(asyncio.Protocol):
    def __init__(self) -> None:
        self.received = bytearray()
        self.lost = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


async def _conversation() -> tuple[bytes, Exception | None]:
    """One exchange; the contract that both networks keep."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport, caller = await loop.create_connection(_Caller, "127.0.0.1", port)
    for part in (b"one ", b"two ", b"bye"):
        transport.write(part)
    ended = await asyncio.wait_for(caller.lost, 5.0)
    server.close()
    with pytest.raises(OSError):
        await loop.create_connection(_Caller, "127.0.0.1", port)
    return bytes(caller.received), ended


def test_both_networks_carry_the_same_conversation() -> None:
    real = asyncio.run(_conversation())

    async def main(_: SimulatedLoop) -> tuple[bytes, Exception | None]:
        return await _conversation()

    assert run_simulated(main, seed=3) == real == (b"ONE TWO BYE", None)
    with asyncio.Runner(loop_factory=lambda: PacedLoop(1000.0)) as runner:
        assert runner.run(_conversation()) == real


def test_a_simulated_day_takes_no_time() -> None:
    async def main(loop: SimulatedLoop) -> float:
        await asyncio.sleep(86_400.0)
        return loop.time()

    before = time.process_time()
    assert run_simulated(main, seed=0) == 86_400.0
    assert time.process_time() - before < 5.0


def _traced(seed: int) -> tuple[str, float]:
    async def main(loop: SimulatedLoop) -> tuple[str, float]:
        await asyncio.gather(*(_conversation() for _ in range(5)))
        return loop.network.trace_hash, loop.time()

    return run_simulated(main, seed=seed)


def test_the_trace_repeats_with_the_seed_and_differs_with_another() -> None:
    assert _traced(1) == _traced(1)
    assert _traced(1)[0] != _traced(2)[0]


def test_a_simulation_that_waits_for_nothing_says_so() -> None:
    async def main(_: SimulatedLoop) -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(SimulationStalled):
        run_simulated(main, seed=0)


def test_a_reset_reaches_the_other_side_as_an_error() -> None:
    async def main(loop: SimulatedLoop) -> Exception | None:
        links: list[asyncio.Transport] = []

        class Resetting(_Echo):
            def data_received(self, data: bytes) -> None:
                self.transport.abort()

        server = await loop.create_server(Resetting, "127.0.0.1", 0)
        transport, caller = await loop.create_connection(_Caller, *server.sockets[0].getsockname())
        links.append(transport)
        transport.write(b"x")
        assert isinstance(caller, _Caller)
        error: Exception | None = await caller.lost
        return error

    assert isinstance(run_simulated(main, seed=0), ConnectionResetError)


def test_executor_work_runs_in_place_and_hands_its_exception_on() -> None:
    async def main(loop: SimulatedLoop) -> None:
        assert await loop.run_in_executor(None, divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, divmod, 7, 0)

    run_simulated(main, seed=0)


def test_paced_time_never_jumps_over_a_stall() -> None:
    """A turn that blocks for long in real time advances the paced clock by one step at most."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(1.0)
        before = loop.time()
        sum(range(3_000_000))
        await asyncio.sleep(0)
        return loop.time() - before

    with asyncio.Runner(loop_factory=lambda: PacedLoop(10_000.0, step_max_s=0.5)) as runner:
        assert 0.0 <= runner.run(main()) <= 1.0
