"""Devices that give only a few registers per request: reads are cut where no point and no value's scale is torn."""

import asyncio
import math
import struct
from collections.abc import Awaitable, Callable, Mapping

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.domain.der import Device, DeviceKind, Endpoint
from derms.domain.dispatch import Command, Quantity
from derms.domain.telemetry import COLUMNS, Reading
from drivers.modbus.quirks import LinkQuirks
from drivers.sunspec.driver import SunSpecDriver
from drivers.sunspec.models import model_layout
from tests.drivers.oracles import BATTERY_1547, FrozenClock, connection_to
from tests.drivers.picky import PickyDevice

ILLEGAL_VALUE = 3


class SparingDevice(PickyDevice):
    """Refuses to read more than `most` registers at once, and keeps a log of what it was asked."""

    def __init__(self, most: int) -> None:
        super().__init__(BATTERY_1547)
        self.most = most
        self.reads: list[range] = []
        self.after_read: Callable[[], None] = lambda: None

    def answer(self, request: bytes) -> bytes:
        if request[7] != 3:
            return super().answer(request)
        address, count = struct.unpack(">HH", request[8:12])
        self.reads.append(range(address, address + count))
        if count > self.most:
            return request[:4] + struct.pack(">HBBB", 3, request[6], 0x83, ILLEGAL_VALUE)
        answered = super().answer(request)
        self.after_read()
        return answered


def with_sparing(most: int, talk: Callable[[SunSpecDriver, SparingDevice], Awaitable[None]]) -> None:
    """Run a talk with the driver of a sparing device whose link knows of it."""

    async def scenario() -> None:
        device = SparingDevice(most)
        async with device.listening() as port:
            box = Device(
                id="x", kind=DeviceKind.BATTERY, driver="sunspec", endpoint=Endpoint("127.0.0.1", port), bus="b"
            )
            driver = SunSpecDriver(box, connection_to(port, quirks=LinkQuirks(registers_max=most)), FrozenClock())
            await driver.connect()
            await talk(driver, device)
            driver.disconnect()

    asyncio.run(scenario())


def columns_of(reading: Reading) -> Mapping[str, FloatArray]:
    return reading.layout.decode(np.frombuffer(reading.raw, dtype=np.uint8)[np.newaxis])


def torn(device: SparingDevice) -> list[str]:
    """Points that fit one request and were cut by the end of one."""
    found = []
    for model_id in device.models:
        start = device.address(model_id)
        for point in model_layout(model_id).points.values():
            place = range(start + point.offset, start + point.end)
            cuts = [read.stop for read in device.reads if place.start < read.stop < place.stop]
            found += [f"{model_id}.{point.name}"] * (point.size <= device.most and bool(cuts))
    return found


@pytest.mark.parametrize("most", [20, 60])
def test_sparing_device_is_scanned_polled_and_commanded_without_tearing_a_point(most: int) -> None:
    polled: dict[int, Mapping[str, FloatArray]] = {}

    async def talk(driver: SunSpecDriver, device: SparingDevice) -> None:
        polled[device.most] = columns_of(await driver.read())
        await driver.write(Command(Quantity.P_SET, -1500.0, 900.0))
        assert (await driver.read_back(Quantity.P_SET)).value_w == -1500.0
        await driver.settings()
        await driver.connect()  # verifies that it is the same
        assert max(map(len, device.reads)) == device.most
        assert torn(device) == []

    async def plenty(driver: SunSpecDriver, device: SparingDevice) -> None:
        polled[device.most] = columns_of(await driver.read())

    with_sparing(most, talk)
    with_sparing(125, plenty)
    for name in COLUMNS:
        np.testing.assert_array_equal(polled[most][name], polled[125][name], err_msg=name)
    assert polled[most]["p_w"] == [4321.0]


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_scale_factor_that_changes_while_a_model_is_read_in_parts_makes_its_values_missing(moment: int) -> None:
    """The scale of a limit stands in a later request than the limit: it is read before it too."""

    async def talk(driver: SunSpecDriver, device: SparingDevice) -> None:
        await driver.write(Command(Quantity.P_LIMIT, 3000.0, 900.0))
        device.reads.clear()

        def change() -> None:
            if len(device.reads) == moment:
                device.put(704, "WMaxLimPct_SF", -1)

        device.after_read = change
        torn_w = (await driver.read_back(Quantity.P_LIMIT)).value_w
        assert torn_w is not None
        assert math.isnan(torn_w)

    with_sparing(20, talk)


@pytest.mark.parametrize("moment", [1, 2])
def test_scale_factor_that_changes_between_the_requests_of_a_poll_makes_its_values_missing(moment: int) -> None:
    async def talk(driver: SunSpecDriver, device: SparingDevice) -> None:
        device.reads.clear()

        def change() -> None:
            if len(device.reads) == moment:
                device.put(701, "W_SF", 1)

        device.after_read = change
        columns = columns_of(await driver.read())
        assert np.isnan(columns["p_w"])
        assert columns["v_v"] == pytest.approx(240.3)

    with_sparing(60, talk)
