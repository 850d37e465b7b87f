"""Devices that need of their link what the standard does not say, and the function codes that some of them want."""

import asyncio

import pytest

from derms.domain.der import Endpoint
from derms.errors import DeviceUnreachable, ProtocolViolation, WriteForbidden
from drivers.modbus.quirks import LinkQuirks
from drivers.modbus.unit import Table
from tests.drivers.oracles import (
    answering,
    asked_address,
    connected_unit,
    connection_to,
    good_answer,
    pymodbus_device,
    registers_at,
    scripted_device,
    sessions_with,
    sound,
)


def test_device_that_always_answers_transaction_0_is_understood_and_never_trusted_after_a_time_out() -> None:
    def zero(request: bytes) -> list[bytes]:
        return [] if asked_address(request) == 100 else [b"\x00\x00" + good_answer(request)[2:]]

    async def scenario() -> None:
        async with scripted_device(answering(zero)) as port:
            sessions = sessions_with(timeout_s=0.03)
            quirks = LinkQuirks(zero_transaction=True, in_flight=4)
            one, two = (sessions.unit(Endpoint("127.0.0.1", port, unit), quirks) for unit in (1, 2))
            await one.connect()
            await two.connect()
            first, second = await asyncio.gather(one.read(0, 2), two.read(10, 2))
            assert (first, second) == (registers_at(0, 2), registers_at(10, 2))
            with pytest.raises(DeviceUnreachable):
                await one.read(100, 2)
            assert not two.connected

    asyncio.run(scenario())


def test_device_that_answers_as_another_unit_is_believed_under_that_name_only() -> None:
    as_255 = answering(lambda request: [good_answer(request)[:6] + b"\xff" + good_answer(request)[7:]])

    async def scenario() -> None:
        async with connected_unit(as_255, quirks=LinkQuirks(answers_as=255)) as (unit, _):
            assert await unit.read(100, 2) == registers_at(100, 2)
        async with connected_unit(sound, quirks=LinkQuirks(answers_as=255)) as (unit, _):
            with pytest.raises(ProtocolViolation, match="unit 1, expected 255"):
                await unit.read(100, 2)

    asyncio.run(scenario())


def test_long_read_goes_in_parts_that_the_device_takes_and_a_long_write_does_not_go_at_all() -> None:
    async def scenario() -> None:
        async with pymodbus_device(registers_at(1000, 100), base=1000) as device:
            unit = connection_to(device.port, quirks=LinkQuirks(registers_max=40, writes_max=2))
            await unit.connect()
            assert await unit.read(1000, 100) == registers_at(1000, 100)
            with pytest.raises(WriteForbidden, match="takes 2 at once"):
                await unit.write(1000, bytes(6))
            assert device.requests == [(3, 1000, 40), (3, 1040, 40), (3, 1080, 20)]
            unit.disconnect()

    asyncio.run(scenario())


def test_single_register_goes_by_function_6_where_the_device_wants_it_so() -> None:
    async def scenario() -> None:
        async with pymodbus_device(registers_at(1000, 10), base=1000) as device:
            unit = connection_to(device.port, quirks=LinkQuirks(single_writes=True))
            await unit.connect()
            await unit.write(1002, b"\xab\xcd")
            await unit.write(1003, b"\x00\x01\x00\x02")
            assert [function for function, _, _ in device.requests] == [6, 16]
            assert (await device.image())[4:10] == b"\xab\xcd\x00\x01\x00\x02"
            unit.disconnect()

    asyncio.run(scenario())


@pytest.mark.parametrize("echo", [b"\x00\x65\x00\x01", b"\x00\x64\x00\x02"], ids=["address", "value"])
def test_echo_of_a_single_write_must_name_its_address_and_value(echo: bytes) -> None:
    async def scenario() -> None:
        wrong = answering(lambda request: [good_answer(request)[:8] + echo])
        async with connected_unit(wrong, quirks=LinkQuirks(single_writes=True)) as (unit, _):
            with pytest.raises(ProtocolViolation, match="echo"):
                await unit.write(100, b"\x00\x01")
            assert not unit.connected

    asyncio.run(scenario())


def test_input_registers_are_read_by_function_4_and_not_mistaken_for_holding_registers() -> None:
    async def scenario() -> None:
        async with connected_unit(sound) as (unit, _):
            assert await unit.read(100, 2, table=Table.INPUT) == registers_at(100, 2)
        as_holding = answering(lambda request: [good_answer(request)[:7] + b"\x03" + good_answer(request)[8:]])
        async with connected_unit(as_holding) as (unit, _):
            with pytest.raises(ProtocolViolation, match="function code 3, expected 4"):
                await unit.read(100, 2, table=Table.INPUT)

    asyncio.run(scenario())
