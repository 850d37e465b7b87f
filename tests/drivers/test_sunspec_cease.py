"""Ceasing to energize and being let in again, by 703, 715 and 123: what goes on the wire, and what it leaves alone."""

import asyncio
from collections.abc import Mapping

import numpy as np
import pytest

from derms.domain.dispatch import Ceasing
from derms.errors import DeviceRefused, DeviceUnreachable, ProtocolViolation, WriteForbidden
from drivers.sunspec.driver import SunSpecDriver
from hil.server import Endpoint, listening
from hil.specimen import Specimen
from tests.drivers.oracles import BATTERY_1547, BATTERY_LEGACY, PV_1547, Points, connected_driver
from tests.drivers.picky import PickyDevice
from tests.drivers.test_sunspec_driver import with_picky

CONTROL_715: Points = {"LocRemCtl": 0, "DERHb": 41, "ControllerHb": 7, "AlarmReset": 0, "OpCtl": 1}
IMMEDIATE: Points = {"Conn_WinTms": 60, "Conn_RvrtTms": 30, "Conn": 1, **BATTERY_LEGACY[123]}
OLDER: Mapping[int, Points] = {**BATTERY_LEGACY, 123: IMMEDIATE}
WAYS: Mapping[Ceasing, tuple[Mapping[int, Points], int, str, tuple[int, int, int]]] = {
    Ceasing.PERMIT_SERVICE: (PV_1547, 703, "ES", (703, 2, 1)),
    Ceasing.OPERATION: ({**BATTERY_1547, 715: CONTROL_715}, 715, "OpCtl", (715, 8, 1)),
    Ceasing.CONNECT: (OLDER, 123, "Conn", (123, 2, 3)),
}
EACH = pytest.mark.parametrize("by", WAYS)


@EACH
def test_ceasing_and_letting_in_write_one_point_and_tell_what_was_there_before(by: Ceasing) -> None:
    models, model_id, point, write = WAYS[by]

    async def talk(driver: SunSpecDriver, device: PickyDevice) -> None:
        before = bytes(device.image)
        assert not await driver.ceased(by)
        assert await driver.cease(by)
        assert (device.writes, device.get(model_id, point)) == ([write], 0)
        assert await driver.ceased(by)
        assert not await driver.cease(by)
        await driver.let_in(by)
        assert device.get(model_id, point) == 1
        assert not await driver.ceased(by)
        if by is not Ceasing.CONNECT:
            assert bytes(device.image) == before

    with_picky(models, talk)


def test_a_disconnection_is_immediate_and_does_not_revert() -> None:
    async def talk(driver: SunSpecDriver, device: PickyDevice) -> None:
        await driver.cease(Ceasing.CONNECT)
        assert [device.get(123, name) for name in ("Conn_WinTms", "Conn_RvrtTms", "WMaxLim_Ena")] == [0, 0, 0]

    with_picky(OLDER, talk)


def test_a_device_that_refuses_the_block_is_disconnected_point_by_point_the_times_first() -> None:
    async def talk(driver: SunSpecDriver, device: PickyDevice) -> None:
        device.refuses = lambda model_id, offset, count: 3 if count > 2 else 0
        await driver.cease(Ceasing.CONNECT)
        assert device.writes == [(123, 2, 3), (123, 2, 2), (123, 4, 1)]
        assert device.get(123, "Conn") == 0

    with_picky(OLDER, talk)


@EACH
def test_a_refusal_is_the_callers_to_know(by: Ceasing) -> None:
    models, model_id, _, _ = WAYS[by]

    async def talk(driver: SunSpecDriver, device: PickyDevice) -> None:
        device.refuses = lambda refused, offset, count: 4 if refused == model_id else 0
        with pytest.raises((DeviceRefused, ProtocolViolation)):
            await driver.cease(by)
        assert not await driver.ceased(by)

    with_picky(models, talk)


@pytest.mark.parametrize("by", Ceasing)
def test_a_way_that_the_device_does_not_have_never_reaches_the_wire(by: Ceasing) -> None:
    async def talk(driver: SunSpecDriver, device: PickyDevice) -> None:
        for call in (driver.cease, driver.let_in, driver.ceased):
            with pytest.raises(WriteForbidden, match=f"told to cease by {by.value}"):
                await call(by)
        assert device.writes == []

    with_picky(BATTERY_LEGACY, talk)


def test_nothing_is_told_to_a_device_that_is_not_connected() -> None:
    async def talk(driver: SunSpecDriver, device: PickyDevice) -> None:
        driver.disconnect()
        with pytest.raises(DeviceUnreachable):
            await driver.cease(Ceasing.PERMIT_SERVICE)

    with_picky(PV_1547, talk)


@EACH
def test_the_reference_device_gives_nothing_while_it_ceases_and_power_again_after(by: Ceasing) -> None:
    specimen = Specimen((1, 701, 702, WAYS[by][1]))

    async def scenario() -> None:
        endpoint = Endpoint({1: specimen}, rng=np.random.default_rng(1))
        async with listening(endpoint) as port, connected_driver(port) as (driver, _):
            assert by in driver.identity.capabilities.ceases
            for call, runs in ((driver.cease, False), (driver.let_in, True)):
                await call(by)
                specimen.tick(1.0)
                assert (specimen.value("701.W") > 0.0) is runs

    asyncio.run(scenario())
