"""A device from a table of addresses: a site controller as its manual would list it, read and written by pymodbus."""

import asyncio
import struct
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from pymodbus.client import AsyncModbusTcpClient

from drivers.modbus.unit import Table
from hil.fault_kinds import Fault
from hil.plain import PlainPoint, PlainUnit
from hil.server import Endpoint, listening

SITE_CONTROLLER = (
    PlainPoint("p_set", 100, "int32", writable=True, low=-500, high=500),
    PlainPoint("heartbeat", 102, "uint16", writable=True),
    PlainPoint("serial", 110, "uint32", 4711),
    PlainPoint("p", 10, "float32", 12.5, table=Table.INPUT),
    PlainPoint("energy", 12, "uint64", 5_000_000_000, table=Table.INPUT),
    PlainPoint("soc", 16, "uint16", 550, table=Table.INPUT),
    PlainPoint("q", 17, "int32", -70_000, table=Table.INPUT, swapped=True),
)


def asked(unit: PlainUnit, scenario: Callable[[AsyncModbusTcpClient], Awaitable[None]]) -> None:
    async def run() -> None:
        endpoint = Endpoint({7: unit}, rng=np.random.default_rng(1))
        async with listening(endpoint) as port, AsyncModbusTcpClient("127.0.0.1", port=port, timeout=2.0) as client:
            await scenario(client)

    asyncio.run(run())


def test_input_and_holding_registers_are_two_tables_and_every_type_reads_as_the_manual_says() -> None:
    async def scenario(client: AsyncModbusTcpClient) -> None:
        block = await client.read_input_registers(10, count=9, device_id=7)
        data = struct.pack(">9H", *block.registers)
        assert struct.unpack(">fQH", data[:14]) == (12.5, 5_000_000_000, 550)
        assert struct.unpack(">i", data[16:18] + data[14:16]) == (-70_000,)
        serial = await client.read_holding_registers(110, count=2, device_id=7)
        assert serial.registers == [0, 4711]

    asked(PlainUnit(SITE_CONTROLLER), scenario)


def test_registers_that_nobody_listed_are_not_there() -> None:
    async def scenario(client: AsyncModbusTcpClient) -> None:
        for answer in (
            await client.read_holding_registers(10, count=2, device_id=7),
            await client.read_holding_registers(100, count=4, device_id=7),
            await client.read_input_registers(9, count=2, device_id=7),
            await client.write_register(10, 1, device_id=7),
        ):
            assert answer.exception_code == 2

    asked(PlainUnit(SITE_CONTROLLER), scenario)


def test_what_is_written_is_held_told_and_bounded() -> None:
    told: list[tuple[str, float]] = []
    unit = PlainUnit(SITE_CONTROLLER, lambda name, value: told.append((name, value)))

    async def scenario(client: AsyncModbusTcpClient) -> None:
        assert not (await client.write_registers(100, [0xFFFF, 0xFFFF - 199, 5], device_id=7)).isError()
        assert not (await client.write_register(102, 6, device_id=7)).isError()
        assert (await client.read_holding_registers(100, count=3, device_id=7)).registers == [0xFFFF, 0xFF38, 6]
        assert (await client.write_registers(100, [0, 501], device_id=7)).exception_code == 3
        assert (await client.write_register(101, 5, device_id=7)).exception_code == 2
        assert (await client.write_registers(110, [0, 1], device_id=7)).exception_code == 2

    asked(unit, scenario)
    assert told == [("p_set", -200.0), ("heartbeat", 5.0), ("heartbeat", 6.0)]
    assert unit.value("p_set") == -200.0
    assert unit.writes == {100: 1, 101: 1, 102: 2}


def test_a_frozen_table_stands_still_and_a_rebooted_one_forgets_what_was_written() -> None:
    unit = PlainUnit(SITE_CONTROLLER)

    async def scenario(client: AsyncModbusTcpClient) -> None:
        await client.write_registers(100, [0, 50], device_id=7)
        unit.fail(Fault.FREEZE)
        unit.put("soc", 560)
        assert not (await client.write_registers(100, [0, 60], device_id=7)).isError()
        assert (await client.read_input_registers(16, count=1, device_id=7)).registers == [550]
        assert (await client.read_holding_registers(101, count=1, device_id=7)).registers == [50]
        unit.mend()
        assert (await client.read_input_registers(16, count=1, device_id=7)).registers == [560]
        unit.restart()
        assert (await client.read_holding_registers(101, count=1, device_id=7)).registers == [0]

    asked(unit, scenario)
    assert unit.value("soc") == 560.0


@pytest.mark.parametrize(
    "second",
    [PlainPoint("other", 101, "uint16"), PlainPoint("p_set", 200, "uint16")],
    ids=["the same register", "the same name"],
)
def test_a_table_in_which_two_points_collide_is_refused(second: PlainPoint) -> None:
    with pytest.raises(ValueError, match="the same name or the same register"):
        PlainUnit([SITE_CONTROLLER[0], second])
