"""Sessions: one connection per endpoint, back-off and a fleet-wide rate of new ones, observe mode."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from derms.domain.der import Endpoint
from derms.errors import DeviceUnreachable, WriteForbidden
from derms.service.simulated import SimulatedLoop, run_simulated
from drivers.modbus.quirks import LinkQuirks
from drivers.modbus.unit import Priority, Unit
from tests.drivers.oracles import (
    Script,
    answering,
    connection_to,
    good_answer,
    next_request,
    pymodbus_device,
    registers_at,
    scripted_device,
    sessions_with,
    sound,
)


def units_at(port: int, *numbers: int, quirks: LinkQuirks | None = None, **options: Any) -> list[Unit]:
    """Units of one endpoint in one session."""
    sessions = sessions_with(**options)
    return [sessions.unit(Endpoint("127.0.0.1", port, number), quirks or LinkQuirks()) for number in numbers]


async def connect_all(*units: Unit) -> None:
    await asyncio.gather(*(unit.connect() for unit in units))


def gateway(*dead: int) -> Script:
    """A gateway behind which some units are dead."""
    return answering(lambda request: [] if request[6] in dead else [good_answer(request)])


class Listener:
    """A server that counts its connections and takes the first few only, or none."""

    def __init__(self, *, takes: int) -> None:
        self.accepted_s: list[float] = []
        self._takes = takes

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted_s.append(asyncio.get_running_loop().time())
        if len(self.accepted_s) <= self._takes:
            await sound(reader, writer)


def test_units_of_one_endpoint_share_one_connection() -> None:
    async def scenario() -> None:
        listener = Listener(takes=9)
        async with scripted_device(listener) as port:
            one, two = units_at(port, 1, 2)
            await connect_all(one, two)
            first, second = await asyncio.gather(one.read(100, 2), two.read(200, 2))
            assert (first, second) == (registers_at(100, 2), registers_at(200, 2))
            assert len(listener.accepted_s) == 1
            one.disconnect()
            assert two.connected
            assert await two.read(300, 2) == registers_at(300, 2)
            two.disconnect()
            await connect_all(one)
            assert len(listener.accepted_s) == 2
            one.disconnect()

    asyncio.run(scenario())


def test_device_that_takes_a_single_client_is_never_asked_for_a_second_connection() -> None:
    """SolarEdge resets whoever comes second: here that is another master, and our own unit says so."""

    async def scenario() -> None:
        listener = Listener(takes=1)
        async with scripted_device(listener) as port:
            units = units_at(port, *range(1, 6))
            await connect_all(*units)
            await asyncio.gather(*(unit.read(100, 2) for unit in units))
            assert len(listener.accepted_s) == 1
            other = connection_to(port)
            await other.connect()
            with pytest.raises(DeviceUnreachable, match=r"connection lost|not connected"):
                await other.read(100, 2)
            assert await units[0].read(100, 2) == registers_at(100, 2)
            for unit in units:
                unit.disconnect()

    asyncio.run(scenario())


def test_dead_unit_behind_a_gateway_does_not_cost_the_others_their_connection() -> None:
    async def scenario(loop: SimulatedLoop) -> None:
        async with scripted_device(gateway(2)) as port:
            units = units_at(port, 1, 2, 3, timeout_s=2.0)
            await connect_all(*units)
            for _ in range(5):
                outcomes = await asyncio.gather(*(unit.read(100, 2) for unit in units), return_exceptions=True)
                assert outcomes[0] == outcomes[2] == registers_at(100, 2)
                assert isinstance(outcomes[1], DeviceUnreachable)
                assert [unit.connected for unit in units] == [True] * 3

    run_simulated(scenario, seed=1)


def test_late_answer_of_one_unit_is_known_by_its_id_and_dropped() -> None:
    async def late_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await next_request(reader)
        second = await next_request(reader)
        writer.write(good_answer(first) + good_answer(second))
        await sound(reader, writer)

    async def scenario(loop: SimulatedLoop) -> None:
        async with scripted_device(late_once) as port:
            one, two = units_at(port, 1, 2, timeout_s=2.0)
            await connect_all(one, two)
            with pytest.raises(DeviceUnreachable, match="no answer in 2 s"):
                await one.read(100, 2)
            assert await two.read(200, 2) == registers_at(200, 2)
            assert await one.read(300, 2) == registers_at(300, 2)

    run_simulated(scenario, seed=1)


def test_half_open_connection_of_several_units_is_given_up_when_all_are_silent() -> None:
    async def scenario(loop: SimulatedLoop) -> None:
        async with scripted_device(answering(lambda _: []), sound) as port:
            units = units_at(port, *range(1, 9), timeout_s=2.0)
            await connect_all(*units)
            outcomes = await asyncio.gather(*(unit.read(100, 2) for unit in units), return_exceptions=True)
            assert all(isinstance(outcome, DeviceUnreachable) for outcome in outcomes)
            assert loop.time() == pytest.approx(6.0, abs=0.1), "three time-outs, not eight"
            await connect_all(*units)
            assert await units[7].read(100, 2) == registers_at(100, 2)

    run_simulated(scenario, seed=1)


def test_unit_that_disconnects_loses_its_own_calls_and_nobody_elses() -> None:
    async def scenario() -> None:
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def hesitating(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await next_request(reader)
            asked.set()
            await go_on.wait()
            writer.write(good_answer(request))
            await sound(reader, writer)

        async with scripted_device(hesitating) as port:
            one, two = units_at(port, 1, 2)
            await connect_all(one, two)
            calls = [asyncio.ensure_future(unit.read(100, 2)) for unit in (one, one, two)]
            await asked.wait()
            one.disconnect()
            go_on.set()
            in_flight, waiting, other = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(in_flight, DeviceUnreachable)
            assert isinstance(waiting, DeviceUnreachable)
            assert other == registers_at(100, 2)
            two.disconnect()

    asyncio.run(asyncio.wait_for(scenario(), 5))


def test_call_that_waits_when_the_connection_is_replaced_never_speaks_on_the_new_one() -> None:
    async def scenario() -> None:
        asked = asyncio.Event()
        seen: list[int] = []

        async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await next_request(reader)
            asked.set()

        async def noting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                request = await next_request(reader)
                seen.append(request[9])
                writer.write(good_answer(request))

        async with scripted_device(dies, noting) as port:
            one, two = units_at(port, 1, 2)
            await connect_all(one, two)
            reading = asyncio.ensure_future(one.read(1, 1))
            writing = asyncio.create_task(two.write(2, b"\x00\x01"))
            await asked.wait()
            outcomes = await asyncio.gather(reading, writing, return_exceptions=True)
            assert all(isinstance(outcome, DeviceUnreachable) for outcome in outcomes)
            await one.connect()
            assert not two.connected, "identity is proven anew after every reconnect"
            with pytest.raises(DeviceUnreachable, match="not connected"):
                await two.write(2, b"\x00\x01")
            await one.read(3, 1)
            assert seen == [3]
            one.disconnect()

    asyncio.run(asyncio.wait_for(scenario(), 5))


def test_refused_connection_is_an_unreachable_device() -> None:
    async def scenario() -> None:
        async with scripted_device(sound) as port:
            pass
        unit = connection_to(port)
        with pytest.raises(DeviceUnreachable, match="no connection"):
            await unit.connect()
        assert not unit.connected

    asyncio.run(scenario())


def test_endpoint_that_fails_is_put_off_longer_each_time_to_a_cap_and_says_so_at_once() -> None:
    async def scenario(loop: SimulatedLoop) -> list[float]:
        (unit,) = units_at(1, 1, backoff_min_s=4.0, backoff_max_s=60.0)
        tried_s: list[float] = []
        while len(tried_s) < 8:
            with pytest.raises(DeviceUnreachable) as raised:
                await unit.connect()
            if "next try in" not in str(raised.value):
                tried_s.append(loop.time())
            await asyncio.sleep(0.1)
        return tried_s

    tried_s = run_simulated(scenario, seed=1)
    waits_s = [later - earlier for earlier, later in pairwise(tried_s)]
    for wait_s, full_s in zip(waits_s, (4, 8, 16, 32, 60, 60, 60), strict=True):
        assert 0.5 * full_s <= wait_s <= full_s + 0.2


def test_connection_that_is_lost_before_any_answer_is_put_off_and_one_that_answered_is_not() -> None:
    async def scenario(loop: SimulatedLoop) -> None:
        async with scripted_device(Listener(takes=0)) as port:
            (unit,) = units_at(port, 1, backoff_min_s=4.0)
            await unit.connect()
            with pytest.raises(DeviceUnreachable):
                await unit.read(100, 2)
            with pytest.raises(DeviceUnreachable, match=r"next try in \d\.\d s; connection lost"):
                await unit.connect()

        async def answers_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(good_answer(await next_request(reader)))

        async with scripted_device(answers_once) as port:
            (unit,) = units_at(port, 1, backoff_min_s=4.0)
            for _ in range(3):
                await unit.connect()
                assert await unit.read(100, 2) == registers_at(100, 2)
                await asyncio.sleep(0.1)
                assert not unit.connected

    run_simulated(scenario, seed=1)


def test_device_that_was_only_disconnected_is_not_put_off() -> None:
    async def scenario() -> None:
        async with scripted_device(sound) as port:
            (unit,) = units_at(port, 1, backoff_min_s=600.0)
            for _ in range(3):
                await unit.connect()
                unit.disconnect()
            await unit.connect()
            assert await unit.read(100, 2) == registers_at(100, 2)
            unit.disconnect()

    asyncio.run(scenario())


def test_fleet_that_comes_back_at_once_is_connected_at_the_rate_of_the_site() -> None:
    accepted_s: list[float] = []

    async def scenario(loop: SimulatedLoop) -> None:
        class Noting(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                accepted_s.append(loop.time())

        hosts = [f"10.0.0.{number}" for number in range(200)]
        for host in hosts:
            await loop.create_server(Noting, host, 502)
        sessions = sessions_with(reconnects_per_s=50.0, connect_timeout_s=1.0)
        await connect_all(*(sessions.unit(Endpoint(host, 502)) for host in hosts))

    run_simulated(scenario, seed=1)
    accepted_s.sort()
    assert len(accepted_s) == 200
    assert accepted_s[-1] == pytest.approx(200 / 50.0, abs=0.3)
    for start in range(190):
        assert accepted_s[start + 9] - accepted_s[start] > 0.05, "never ten at a time"


def test_cancelled_connect_leaves_the_endpoint_free_for_the_next() -> None:
    async def scenario() -> None:
        async with scripted_device(sound) as port:
            one, two = units_at(port, 1, 2)
            first = asyncio.create_task(one.connect())
            second = asyncio.create_task(two.connect())
            await asyncio.sleep(0)
            first.cancel()
            await second
            with pytest.raises(asyncio.CancelledError):
                await first
            assert await two.read(100, 2) == registers_at(100, 2)
            two.disconnect()

    asyncio.run(asyncio.wait_for(scenario(), 5))


def test_read_only_session_never_puts_a_write_on_the_wire() -> None:
    async def scenario() -> None:
        async with pymodbus_device(registers_at(1000, 10), base=1000) as device:
            for quirks in (LinkQuirks(), LinkQuirks(single_writes=True)):
                (unit,) = units_at(device.port, 1, quirks=quirks, read_only=True)
                await unit.connect()
                for priority in Priority:
                    with pytest.raises(WriteForbidden, match="read-only"):
                        await unit.write(1000, b"\x00\x01", priority=priority)
                assert await unit.read(1000, 1) == registers_at(1000, 1)
                unit.disconnect()
            assert device.requests == [(3, 1000, 1), (3, 1000, 1)]

    asyncio.run(scenario())


def test_disconnect_fails_what_is_in_flight_at_once() -> None:
    async def scenario() -> None:
        async with scripted_device(answering(lambda _: [])) as port:
            unit = connection_to(port, timeout_s=600)
            await unit.connect()
            reading = asyncio.ensure_future(unit.read(100, 2))
            await asyncio.sleep(0)
            unit.disconnect()
            with pytest.raises(DeviceUnreachable, match="disconnected"):
                await reading

    asyncio.run(scenario())
