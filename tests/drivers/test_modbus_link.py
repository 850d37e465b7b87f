"""One Modbus connection: time-outs, losses, callers that give up, the window, priorities and pauses."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest

from derms.errors import DeviceUnreachable, ProtocolViolation
from derms.service.simulated import SimulatedLoop, run_simulated
from drivers.modbus.link import WAITING_MAX
from drivers.modbus.quirks import LinkQuirks
from drivers.modbus.unit import Priority
from tests.drivers.oracles import (
    Script,
    answering,
    asked_address,
    connected_unit,
    good_answer,
    next_request,
    registers_at,
    sound,
)


def silent_on(*addresses: int) -> Script:
    """A device that never answers what begins at some addresses, and everything else at once."""
    return answering(lambda request: [] if asked_address(request) in addresses else [good_answer(request)])


def test_silence_ends_in_a_time_out_and_closes_the_connection() -> None:
    async def scenario() -> None:
        async with connected_unit(silent_on(100), timeout_s=0.03) as (unit, _):
            with pytest.raises(DeviceUnreachable, match=r"no answer in 0\.03 s"):
                await unit.read(100, 2)
            assert not unit.connected
            with pytest.raises(DeviceUnreachable, match=r"not connected.*no answer"):
                await unit.read(200, 2)

    asyncio.run(scenario())


def test_silent_device_costs_one_time_out_however_many_wait() -> None:
    async def scenario(loop: SimulatedLoop) -> float:
        async with connected_unit(silent_on(*range(100)), timeout_s=2.0) as (unit, _):
            began_s = loop.time()
            outcomes = await asyncio.gather(*(unit.read(n, 1) for n in range(100)), return_exceptions=True)
            assert all(isinstance(outcome, DeviceUnreachable) for outcome in outcomes)
            return loop.time() - began_s

    assert run_simulated(scenario, seed=1) == pytest.approx(2.0)


def test_late_answer_is_never_taken_for_the_next_one() -> None:
    async def scenario() -> None:
        timed_out = asyncio.Event()
        answered = asyncio.Event()

        async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await next_request(reader)
            await timed_out.wait()
            writer.write(good_answer(request))
            answered.set()

        async with connected_unit(late, sound, timeout_s=0.03) as (unit, _):
            with pytest.raises(DeviceUnreachable):
                await unit.read(100, 2)
            await unit.connect()
            timed_out.set()
            await answered.wait()
            assert await unit.read(200, 2) == registers_at(200, 2)

    asyncio.run(scenario())


def test_quick_answers_after_a_slow_start_do_not_meet_the_first_deadline() -> None:
    async def scenario(loop: SimulatedLoop) -> None:
        async with connected_unit(sound, timeout_s=0.02) as (unit, _):
            while loop.time() < 0.2:
                assert await unit.read(100, 2) == registers_at(100, 2)
            assert unit.connected

    run_simulated(scenario, seed=1)


def test_dribbling_answer_is_bounded_by_the_deadline_of_its_request() -> None:
    async def slow_loris(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in good_answer(await next_request(reader)):
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    async def scenario(loop: SimulatedLoop) -> float:
        async with connected_unit(slow_loris, timeout_s=2.0) as (unit, _):
            began_s = loop.time()
            with pytest.raises(DeviceUnreachable, match="no answer in 2 s"):
                await unit.read(100, 123)
            assert not unit.connected
            return loop.time() - began_s

    assert run_simulated(scenario, seed=1) == pytest.approx(2.0)


def test_half_open_connection_is_noticed_by_the_first_request_after_it() -> None:
    """Between two polls the device's power goes: no FIN, no answer, and a new connection reaches it again."""

    async def goes_dark(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(good_answer(await next_request(reader)))
        await asyncio.Event().wait()

    async def scenario(loop: SimulatedLoop) -> float:
        async with connected_unit(goes_dark, sound, timeout_s=2.0) as (unit, _):
            assert await unit.read(100, 2) == registers_at(100, 2)
            await asyncio.sleep(60.0)
            assert unit.connected
            began_s = loop.time()
            with pytest.raises(DeviceUnreachable, match="no answer"):
                await unit.read(100, 2)
            await unit.connect()
            assert await unit.read(200, 2) == registers_at(200, 2)
            return loop.time() - began_s

    assert run_simulated(scenario, seed=1) < 2.1


@pytest.mark.parametrize("sent", [0, 10], ids=["before the answer", "in the middle of a frame"])
def test_peer_that_closes_with_a_request_in_flight_fails_it_at_once(sent: int) -> None:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(good_answer(await next_request(reader))[:sent])

    async def scenario() -> None:
        async with connected_unit(closing, sound, timeout_s=600) as (unit, _):
            waiting = asyncio.ensure_future(unit.read(200, 2))
            with pytest.raises(DeviceUnreachable, match="connection lost"):
                await unit.read(100, 2)
            with pytest.raises(DeviceUnreachable, match="connection lost"):
                await waiting
            await unit.connect()
            assert await unit.read(200, 2) == registers_at(200, 2)

    asyncio.run(asyncio.wait_for(scenario(), 5))


def test_bytes_that_nobody_asked_for_drop_the_connection() -> None:
    async def scenario() -> None:
        dropped = asyncio.Event()

        async def talkative(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"\x00\x01\x00\x00\x00\x03\x01\x83\x02")
            try:
                await reader.read()
            finally:
                dropped.set()

        async with connected_unit(talkative) as (unit, _):
            await dropped.wait()
            assert not unit.connected
            with pytest.raises(DeviceUnreachable, match=r"not connected.*nobody asked for"):
                await unit.read(100, 2)

    asyncio.run(asyncio.wait_for(scenario(), 5))


def test_answer_that_comes_again_later_closes_the_connection_and_harms_no_value() -> None:
    async def scenario() -> None:
        dropped = asyncio.Event()

        async def stammering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await next_request(reader)
            writer.write(good_answer(request))
            await next_request(reader)
            writer.write(good_answer(request))
            await reader.read()
            dropped.set()

        async with connected_unit(stammering) as (unit, _):
            assert await unit.read(100, 2) == registers_at(100, 2)
            with pytest.raises(ProtocolViolation, match="transaction id 1, expected 2"):
                await unit.read(200, 2)
            await dropped.wait()
            assert not unit.connected

    asyncio.run(asyncio.wait_for(scenario(), 5))


def test_cancelled_read_leaves_the_connection_whole_and_its_answer_goes_nowhere() -> None:
    async def scenario() -> None:
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def hesitating(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await next_request(reader)
            asked.set()
            await go_on.wait()
            writer.write(good_answer(request))
            await sound(reader, writer)

        async with connected_unit(hesitating) as (unit, _):
            reading = asyncio.ensure_future(unit.read(100, 2))
            waiting = asyncio.ensure_future(unit.read(200, 2))
            await asked.wait()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            go_on.set()
            assert await waiting == registers_at(200, 2)
            assert await unit.read(300, 2) == registers_at(300, 2)

    asyncio.run(asyncio.wait_for(scenario(), 5))


def test_cancelled_read_of_a_silent_device_still_ends_at_its_own_deadline() -> None:
    async def scenario(loop: SimulatedLoop) -> float:
        async with connected_unit(silent_on(100), timeout_s=2.0) as (unit, _):
            reading = asyncio.ensure_future(unit.read(100, 2))
            await asyncio.sleep(1.5)
            reading.cancel()
            with pytest.raises(DeviceUnreachable, match=r"connection closed: .* no answer in 2 s"):
                await unit.read(200, 2)
            return loop.time()

    assert run_simulated(scenario, seed=1) == pytest.approx(2.0, abs=0.02)


def test_read_cancelled_before_its_turn_never_reaches_the_wire() -> None:
    async def scenario() -> None:
        go_on = asyncio.Event()
        seen: list[int] = []

        async def hesitating(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                request = await next_request(reader)
                seen.append(asked_address(request))
                await go_on.wait()
                writer.write(good_answer(request))

        async with connected_unit(hesitating) as (unit, _):
            first = asyncio.ensure_future(unit.read(100, 2))
            second = asyncio.ensure_future(unit.read(200, 2))
            await asyncio.sleep(0)
            second.cancel()
            go_on.set()
            assert await first == registers_at(100, 2)
            assert await unit.read(300, 2) == registers_at(300, 2)
            assert seen == [100, 300]

    asyncio.run(asyncio.wait_for(scenario(), 5))


def test_overlapping_calls_go_one_at_a_time_and_each_gets_its_own() -> None:
    async def scenario() -> None:
        surplus: list[bytes] = []

        async def strict(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                request = await next_request(reader)
                try:
                    surplus.append(await asyncio.wait_for(reader.readexactly(1), 0.002))
                except TimeoutError:
                    writer.write(good_answer(request))

        async with connected_unit(strict) as (unit, _):
            answers = await asyncio.gather(*(unit.read(address, 3) for address in range(0, 100, 10)))
            assert answers == [registers_at(address, 3) for address in range(0, 100, 10)]
            assert not surplus

    asyncio.run(scenario())


def in_batches(size: int, *, order: Sequence[int]) -> Script:
    """A device that answers only when it has `size` requests, all in one segment and in another order."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            requests = [await next_request(reader) for _ in range(size)]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(1), 0.002)
            writer.write(b"".join(good_answer(requests[n]) for n in order))

    return script


def test_pipelined_requests_fill_the_window_and_may_be_answered_in_any_order() -> None:
    async def scenario() -> None:
        async with connected_unit(in_batches(3, order=(2, 0, 1)), quirks=LinkQuirks(in_flight=3)) as (unit, _):
            answers = await asyncio.gather(*(unit.read(address, 3) for address in range(0, 90, 10)))
            assert answers == [registers_at(address, 3) for address in range(0, 90, 10)]

    asyncio.run(asyncio.wait_for(scenario(), 5))


def test_pipelined_answers_cut_across_segments_are_put_together() -> None:
    async def odd_segments(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers = b"".join([good_answer(await next_request(reader)) for _ in range(3)])
        for start in range(0, len(answers), 5):
            writer.write(answers[start : start + 5])
            await writer.drain()
            await asyncio.sleep(0.0005)

    async def scenario() -> None:
        async with connected_unit(odd_segments, quirks=LinkQuirks(in_flight=3)) as (unit, _):
            answers = await asyncio.gather(*(unit.read(address, 2) for address in (0, 10, 20)))
            assert answers == [registers_at(address, 2) for address in (0, 10, 20)]

    asyncio.run(asyncio.wait_for(scenario(), 5))


def test_wrong_answer_among_pipelined_ones_is_a_violation_for_its_own_question_only() -> None:
    async def second_is_wrong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, second, _ = [await next_request(reader) for _ in range(3)]
        writer.write(good_answer(first) + good_answer(second)[:7] + b"\x04" + good_answer(second)[8:])
        await reader.read()

    async def scenario() -> None:
        async with connected_unit(second_is_wrong, quirks=LinkQuirks(in_flight=3)) as (unit, _):
            answers = await asyncio.gather(*(unit.read(n, 2) for n in (0, 10, 20)), return_exceptions=True)
            assert answers[0] == registers_at(0, 2)
            assert isinstance(answers[1], ProtocolViolation)
            assert isinstance(answers[2], DeviceUnreachable)

    asyncio.run(asyncio.wait_for(scenario(), 5))


async def order_on_the_wire(calls: Sequence[tuple[int, Priority]]) -> list[int]:
    """Addresses in the order in which a device sees them that is busy with a first read while all calls come in."""
    seen: list[int] = []
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def noting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await next_request(reader)
            seen.append(asked_address(request))
            asked.set()
            await go_on.wait()
            writer.write(good_answer(request))

    async with connected_unit(noting) as (unit, _):
        tasks: list[asyncio.Task[bytes] | asyncio.Task[None]] = [asyncio.ensure_future(unit.read(0, 1))]
        await asked.wait()
        for address, priority in calls:
            if priority is Priority.READ:
                tasks.append(asyncio.ensure_future(unit.read(address, 1)))
            else:
                tasks.append(asyncio.create_task(unit.write(address, b"\x00\x01", priority=priority)))
            await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(*tasks)
    return seen[1:]


def test_write_overtakes_twenty_queued_reads_and_an_emergency_overtakes_the_writes() -> None:
    reads = [(address, Priority.READ) for address in range(1, 21)]
    writes = [(address, Priority.WRITE) for address in (101, 102, 103)]
    seen = asyncio.run(order_on_the_wire([*reads, *writes, (911, Priority.EMERGENCY)]))
    assert seen == [911, 101, 102, 103, *range(1, 21)]


def test_queue_is_bounded_for_everything_but_an_emergency() -> None:
    async def scenario() -> None:
        async with connected_unit(answering(lambda _: []), timeout_s=600) as (unit, _):
            waiting = [asyncio.ensure_future(unit.read(0, 1)) for _ in range(WAITING_MAX + 1)]
            await asyncio.sleep(0)
            with pytest.raises(DeviceUnreachable, match="calls are waiting"):
                await unit.read(0, 1)
            emergency = asyncio.create_task(unit.write(0, b"\x00\x00", priority=Priority.EMERGENCY))
            await asyncio.sleep(0)
            assert not emergency.done()
            unit.disconnect()
            for outcome in await asyncio.gather(*waiting, emergency, return_exceptions=True):
                assert isinstance(outcome, DeviceUnreachable)

    asyncio.run(scenario())


def test_gap_and_settling_time_are_kept_to() -> None:
    async def scenario(loop: SimulatedLoop) -> None:
        asked_s: list[float] = []

        async def noting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                request = await next_request(reader)
                asked_s.append(loop.time())
                writer.write(good_answer(request))

        async with connected_unit(noting, quirks=LinkQuirks(gap_s=0.5, settle_s=1.0)) as (unit, _):
            connected_s = loop.time()
            await asyncio.gather(*(unit.read(n, 1) for n in range(3)))
            answered_s = loop.time()
            await unit.read(3, 1)
        assert asked_s[0] - connected_s >= 1.0
        assert all(0.5 <= later - earlier < 0.55 for earlier, later in pairwise(asked_s))
        assert 0.5 <= asked_s[3] - answered_s < 0.55

    run_simulated(scenario, seed=1)
