"""A device that carries the models of an inverter and of a meter is read as what the fleet file says it is."""

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from derms.domain.der import DeviceKind
from tests.drivers.oracles import METER, PV_1547, connected_driver, map_bytes, pymodbus_device

BOTH = {**PV_1547, 203: METER[203]}


@pytest.mark.parametrize("kind", [DeviceKind.PV, DeviceKind.SYSTEM_METER])
def test_an_inverter_with_a_meter_beside_it_is_read_as_its_row_says(kind: DeviceKind) -> None:
    """They count power with opposite signs: PV must never stand for net load."""

    async def power_w(models: Mapping[int, Mapping[str, Any]]) -> float:
        async with (
            pymodbus_device(map_bytes(models)) as device,
            connected_driver(device.port, kind=kind) as (driver, _),
        ):
            reading = await driver.read()
            raw = np.frombuffer(reading.raw, dtype=np.uint8)
            return float(reading.layout.decode(raw[None, :])["p_w"][0])

    async def scenario() -> None:
        alone = {1: METER[1], 203: METER[203]} if kind is DeviceKind.SYSTEM_METER else PV_1547
        assert await power_w(BOTH) == await power_w(alone)

    asyncio.run(scenario())
