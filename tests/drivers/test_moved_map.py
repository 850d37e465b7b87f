"""A map that moves while the connection stands, and nobody has read since: no command goes to where it was."""

import asyncio

import pytest

from derms.domain.dispatch import Command, Quantity
from derms.errors import ProtocolViolation
from tests.drivers.oracles import BATTERY_1547, connected_driver
from tests.drivers.picky import PickyDevice


def test_a_command_that_finds_another_model_in_its_place_is_not_written_and_the_map_is_scanned_anew() -> None:
    async def scenario() -> None:
        device = PickyDevice(BATTERY_1547)
        async with device.listening() as port, connected_driver(port) as (driver, _):
            device.models[703] = device.models.pop(703)
            device.image = PickyDevice(device.models).image
            command = Command(Quantity.P_SET, 1000.0, 900.0)
            with pytest.raises(ProtocolViolation, match="no longer where they were"):
                await driver.write(command)
            assert device.writes == []
            assert not driver.connected
            await driver.connect()
            await driver.write(command)
            assert device.get(704, "WSet") == 100

    asyncio.run(scenario())
