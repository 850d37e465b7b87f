"""The SunSpec driver on pymodbus's server: commands as pysunspec2 sees them arrive, read back, and refused."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
import pytest
import sunspec2.modbus.client

from derms.domain.der import Device, DeviceKind, Endpoint
from derms.domain.dispatch import Command, Held, Quantity
from derms.errors import DeviceMismatch, DeviceUnreachable, WriteForbidden
from derms.ports import DeviceDriver
from drivers.registry import REGISTRY, drivers
from drivers.sunspec.codec import Image
from drivers.sunspec.control import WRITABLE, block
from drivers.sunspec.driver import SunSpecDriver
from drivers.sunspec.models import layout
from tests.drivers.oracles import (
    BATTERY_1547,
    BATTERY_LEGACY,
    METER,
    PV_1547,
    FrozenClock,
    Points,
    PymodbusDevice,
    address_of,
    connected_driver,
    connection_to,
    map_bytes,
    model_bytes,
    next_request,
    pymodbus_device,
    scripted_device,
)

Models = Mapping[int, Points]
Talk = Callable[[SunSpecDriver, PymodbusDevice], Awaitable[None]]


def _kind(models: Models) -> DeviceKind:
    return DeviceKind.HEAD_METER if 203 in models else DeviceKind.BATTERY


def with_device(models: Models, talk: Talk, *, read_only: bool = False) -> None:
    """Run a talk with the driver of a device that pymodbus serves."""

    async def scenario() -> None:
        async with (
            pymodbus_device(map_bytes(models)) as device,
            connected_driver(device.port, kind=_kind(models), read_only=read_only) as (driver, _),
        ):
            device.requests.clear()
            await talk(driver, device)

    asyncio.run(scenario())


def p_set(value_w: float | None, reversion_s: float = 900.0) -> Command:
    return Command(Quantity.P_SET, value_w, reversion_s)


def p_limit(value_w: float | None, reversion_s: float = 900.0) -> Command:
    return Command(Quantity.P_LIMIT, value_w, reversion_s)


def changed(models: Models, model_id: int, **points: int | None) -> Models:
    return {**models, model_id: {**models[model_id], **points}}


def test_limit_goes_out_in_one_block_that_ends_in_no_limit() -> None:
    async def talk(driver: SunSpecDriver, device: PymodbusDevice) -> None:
        await driver.write(p_limit(3210.4))
        assert device.writes() == [(address_of(PV_1547, 704) + 14, 6)]
        controls = await device.model(PV_1547, 704)
        assert controls.WMaxLimPctEna.value == 1
        assert controls.WMaxLimPct.cvalue == pytest.approx(64.20)
        assert controls.WMaxLimPctRvrtTms.value == 900
        assert controls.WMaxLimPctEnaRvrt.value == 0
        assert controls.WMaxLimPctRvrt.value == 8000
        held = await driver.read_back(Quantity.P_LIMIT)
        assert held.value_w == pytest.approx(3210.0)
        assert (held.reversion_s, held.reversion_left_s) == (900, 17)
        assert held.resolution_w == pytest.approx(0.5)

    with_device(PV_1547, talk)


def test_released_limit_is_only_disabled() -> None:
    async def talk(driver: SunSpecDriver, device: PymodbusDevice) -> None:
        await driver.write(p_limit(1000.0))
        await driver.write(p_limit(None))
        assert device.writes()[1:] == [(address_of(PV_1547, 704) + 14, 1)]
        assert (await driver.read_back(Quantity.P_LIMIT)).value_w is None

    with_device(PV_1547, talk)


@pytest.mark.parametrize(("asked_w", "held_w"), [(2345.0, 2340), (-2345.0, -2340), (9.9, 0), (0.0, 0), (5000.0, 5000)])
def test_setpoint_goes_out_in_one_block_rounded_towards_zero(asked_w: float, held_w: float) -> None:
    async def talk(driver: SunSpecDriver, device: PymodbusDevice) -> None:
        await driver.write(p_set(asked_w, reversion_s=120.0))
        assert device.writes() == [(address_of(BATTERY_1547, 704) + 22, 11)]
        controls = await device.model(BATTERY_1547, 704)
        assert (controls.WSetEna.value, controls.WSetMod.value, controls.WSet.cvalue) == (1, 1, held_w)
        assert (controls.WSetRvrt.value, controls.WSetEnaRvrt.value, controls.WSetRvrtTms.value) == (0, 0, 120)
        assert await driver.read_back(Quantity.P_SET) == Held(held_w, 120, 23, 10)

    with_device(BATTERY_1547, talk)


def test_points_that_the_device_lacks_are_written_back_as_read() -> None:
    models = changed(BATTERY_1547, 704, WSetMod=None, WSetRvrt=None, WSetEnaRvrt=None, WSetRvrtTms=None)

    async def talk(driver: SunSpecDriver, device: PymodbusDevice) -> None:
        before = await device.image()
        await driver.write(p_set(1000.0))
        assert (await driver.read_back(Quantity.P_SET)).value_w == 1000
        assert math.isnan((await driver.read_back(Quantity.P_SET)).reversion_s)
        start = 2 * (address_of(models, 704) - 40000)
        after = await device.image()
        changes = {index // 2 for index in range(len(after)) if after[index] != before[index]}
        assert changes == {start // 2 + 22, start // 2 + 25}

    with_device(models, talk)


def test_released_setpoint_is_only_disabled() -> None:
    async def talk(driver: SunSpecDriver, device: PymodbusDevice) -> None:
        await driver.write(p_set(-3000.0))
        await driver.write(p_set(None))
        assert device.writes()[1:] == [(address_of(BATTERY_1547, 704) + 22, 1)]
        assert (await driver.read_back(Quantity.P_SET)).value_w is None

    with_device(BATTERY_1547, talk)


def test_setpoint_that_another_master_gave_in_percent_is_read_back_in_watts() -> None:
    models = changed(BATTERY_1547, 704, WSetEna=1, WSetMod=0, WSetPct=-25, WSetPct_SF=0)

    async def talk(driver: SunSpecDriver, _: PymodbusDevice) -> None:
        assert (await driver.read_back(Quantity.P_SET)).value_w == -1250

    with_device(models, talk)


def test_legacy_limit_goes_out_in_one_block() -> None:
    async def talk(driver: SunSpecDriver, device: PymodbusDevice) -> None:
        await driver.write(p_limit(2999.0))
        assert device.writes() == [(address_of(BATTERY_LEGACY, 123) + 5, 5)]
        controls = await device.model(BATTERY_LEGACY, 123)
        assert (controls.WMaxLimPct.cvalue, controls.WMaxLim_Ena.value) == (59, 1)
        assert (controls.WMaxLimPct_WinTms.value, controls.WMaxLimPct_RvrtTms.value) == (0, 900)
        held = await driver.read_back(Quantity.P_LIMIT)
        assert (held.value_w, held.reversion_s, held.resolution_w) == (2950, 900, 50)
        assert math.isnan(held.reversion_left_s)
        await driver.write(p_limit(None))
        assert device.writes()[1:] == [(address_of(BATTERY_LEGACY, 123) + 9, 1)]
        assert (await driver.read_back(Quantity.P_LIMIT)).value_w is None

    with_device(BATTERY_LEGACY, talk)


@pytest.mark.parametrize(("asked_w", "out", "into"), [(1999.0, 49.9, -39.9), (-2000.0, -50.0, 40.0), (0.0, 0.0, 0.0)])
def test_legacy_pair_of_rates_pins_the_power_before_the_mode_obeys_it(asked_w: float, out: float, into: float) -> None:
    async def talk(driver: SunSpecDriver, device: PymodbusDevice) -> None:
        await driver.write(p_set(asked_w))
        at_124 = address_of(BATTERY_LEGACY, 124)
        assert device.writes() == [(at_124 + 12, 4), (at_124 + 5, 1)]
        storage = await device.model(BATTERY_LEGACY, 124)
        assert storage.OutWRte.cvalue == pytest.approx(out)
        assert storage.InWRte.cvalue == pytest.approx(into)
        assert (storage.InOutWRte_WinTms.value, storage.InOutWRte_RvrtTms.value) == (0, 900)
        assert storage.StorCtl_Mod.value == 3
        held = await driver.read_back(Quantity.P_SET)
        assert held.value_w == pytest.approx(out * 40)
        assert held.resolution_w == pytest.approx(5)

    with_device(BATTERY_LEGACY, talk)


def test_legacy_release_clears_the_mode_and_nothing_else() -> None:
    async def talk(driver: SunSpecDriver, device: PymodbusDevice) -> None:
        await driver.write(p_set(1000.0))
        device.requests.clear()
        await driver.write(p_set(None))
        assert device.writes() == [(address_of(BATTERY_LEGACY, 124) + 5, 1)]
        assert (await driver.read_back(Quantity.P_SET)).value_w is None

    with_device(BATTERY_LEGACY, talk)


@pytest.mark.parametrize("points", [{"StorCtl_Mod": 1}, {"StorCtl_Mod": 3, "OutWRte": 500, "InWRte": 300}])
def test_rates_that_leave_the_battery_a_choice_are_no_setpoint(points: dict[str, int]) -> None:
    async def talk(driver: SunSpecDriver, _: PymodbusDevice) -> None:
        value_w = (await driver.read_back(Quantity.P_SET)).value_w
        assert value_w is not None
        assert math.isnan(value_w)

    with_device(changed(BATTERY_LEGACY, 124, **points), talk)


REFUSED = {
    "limit above all the device has": (PV_1547, p_limit(5001.0)),
    "negative limit": (PV_1547, p_limit(-1.0)),
    "limit that is not a number": (PV_1547, p_limit(math.nan)),
    "negative reversion time": (PV_1547, p_limit(100.0, -1.0)),
    "reversion time that is not a number": (PV_1547, p_limit(100.0, math.nan)),
    "setpoint for a PV inverter": (PV_1547, p_set(100.0)),
    "setpoint beyond its register": (BATTERY_1547, p_set(3e10)),
    "setpoint without a scale factor": (changed(BATTERY_1547, 704, WSet_SF=None), p_set(100.0)),
    "setpoint without a value register": (changed(BATTERY_1547, 704, WSet=None), p_set(100.0)),
    "limit without a value register": (changed(PV_1547, 704, WMaxLimPct=None), p_limit(100.0)),
    "limit without a rating": (changed(PV_1547, 702, WMax=None, WMaxRtg=None), p_limit(100.0)),
    "legacy discharge above its rate": (BATTERY_LEGACY, p_set(4500.0)),
    "legacy charge above its rate": (BATTERY_LEGACY, p_set(-4500.0)),
    "legacy reversion time beyond its register": (BATTERY_LEGACY, p_set(100.0, 1e5)),
    "limit for a meter": (METER, p_limit(100.0)),
}


@pytest.mark.parametrize(("models", "command"), REFUSED.values(), ids=REFUSED.keys())
def test_command_that_the_device_cannot_take_never_reaches_it(models: Models, command: Command) -> None:
    async def talk(driver: SunSpecDriver, device: PymodbusDevice) -> None:
        with pytest.raises(WriteForbidden):
            await driver.write(command)
        assert device.writes() == []
        await driver.read()

    with_device(models, talk)


def test_reversion_time_below_a_second_still_arms_the_timer() -> None:
    async def talk(driver: SunSpecDriver, _: PymodbusDevice) -> None:
        await driver.write(p_set(100.0, reversion_s=0.4))
        assert (await driver.read_back(Quantity.P_SET)).reversion_s == 1

    with_device(BATTERY_1547, talk)


def test_read_only_driver_reads_and_never_writes() -> None:
    async def talk(driver: SunSpecDriver, device: PymodbusDevice) -> None:
        with pytest.raises(WriteForbidden, match="read-only"):
            await driver.write(p_set(100.0))
        assert device.writes() == []
        assert (await driver.read_back(Quantity.P_SET)).value_w is None

    with_device(BATTERY_1547, talk, read_only=True)


def test_only_listed_points_can_be_put_into_a_write() -> None:
    image = Image(704, model_bytes(704, {**BATTERY_1547[704], "WRmp": 50}))
    with pytest.raises(WriteForbidden, match="WRmp of model 704 is not a point that may be written"):
        block(image, {"WRmp": 60}, needs=())
    with pytest.raises(WriteForbidden, match="WMaxLimPctRvrtRem"):
        block(image, {"WMaxLimPct": 60, "WSetEna": 1}, needs=())


def test_every_listed_point_is_writable_in_its_model() -> None:
    listed = [(model_id, name) for model_id, names in WRITABLE.items() for name in names]
    assert all(layout(model_id).points[name].writable for model_id, name in listed)


@pytest.mark.parametrize("models", [PV_1547, BATTERY_1547, BATTERY_LEGACY, METER])
def test_reading_over_the_wire_agrees_with_the_client_of_pysunspec2(models: Models) -> None:
    measuring, power, voltage = {
        701 in models: (701, "W", "LNV"),
        103 in models: (103, "W", "PhVphA"),
        203 in models: (203, "W", "PhV"),
    }[True]

    def scanned(port: int) -> Any:
        oracle = sunspec2.modbus.client.SunSpecModbusClientDeviceTCP(1, "127.0.0.1", port, timeout=2.0)
        oracle.scan()
        return oracle

    async def talk(driver: SunSpecDriver, device: PymodbusDevice) -> None:
        reading = await driver.read()
        columns = driver.layout.decode(np.frombuffer(reading.raw, dtype=np.uint8).reshape(1, -1))
        oracle = (await asyncio.to_thread(scanned, device.port)).models[measuring][0]
        assert columns["p_w"][0] == pytest.approx(oracle.points[power].cvalue)
        assert columns["v_v"][0] == pytest.approx(oracle.points[voltage].cvalue)

    with_device(models, talk)


def test_time_of_a_reading_is_that_of_its_first_request() -> None:
    async def talk(driver: SunSpecDriver, device: PymodbusDevice) -> None:
        reading = await driver.read()
        assert (reading.requested_s, reading.received_s) == (1.0, 2.0)
        assert len(reading.raw) == driver.layout.width
        assert len(device.requests) == 2

    with_device(BATTERY_1547, talk)


def test_another_serial_number_is_refused_and_disconnected() -> None:
    async def scenario() -> None:
        async with pymodbus_device(map_bytes(PV_1547)) as device:
            with pytest.raises(DeviceMismatch, match=r"serial number 'SN-7', expected 'SN-8'"):
                async with connected_driver(device.port, serial="SN-8"):
                    pass
            await asyncio.wait_for(device.left.wait(), 5)
            async with connected_driver(device.port, serial="SN-7") as (driver, identity):
                assert driver.connected
                assert identity.serial == "SN-7"

    asyncio.run(scenario())


def test_driver_that_was_never_connected_says_so() -> None:
    device = Device(id="x", kind=DeviceKind.PV, driver="sunspec", endpoint=Endpoint("127.0.0.1", 1), bus="b")
    driver: DeviceDriver = SunSpecDriver(device, connection_to(1), FrozenClock())
    assert not driver.connected
    driver.disconnect()
    with pytest.raises(DeviceUnreachable):
        asyncio.run(driver.read())
    with pytest.raises(DeviceUnreachable):
        _ = driver.layout


def test_disconnected_driver_comes_back_with_a_scan() -> None:
    async def talk(driver: SunSpecDriver, _: PymodbusDevice) -> None:
        driver.disconnect()
        assert not driver.connected
        assert driver.layout.width == 2 * (123 + 76)
        with pytest.raises(DeviceUnreachable):
            await driver.read()
        await driver.connect()
        assert len((await driver.read()).raw) == driver.layout.width

    with_device(BATTERY_1547, talk)


def test_disconnect_ends_a_scan_in_progress() -> None:
    async def scenario() -> None:
        asked = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await next_request(reader)
            asked.set()
            await reader.read()

        async with scripted_device(silent) as port:
            device = Device(id="x", kind=DeviceKind.PV, driver="sunspec", endpoint=Endpoint("127.0.0.1", port), bus="b")
            driver = SunSpecDriver(device, connection_to(port, timeout_s=600.0), FrozenClock())
            connecting = asyncio.create_task(driver.connect())
            await asked.wait()
            driver.disconnect()
            with pytest.raises(DeviceUnreachable, match="disconnected"):
                await connecting
            assert not driver.connected

    asyncio.run(scenario())


def test_commands_given_at_once_take_effect_in_their_order() -> None:
    async def talk(driver: SunSpecDriver, device: PymodbusDevice) -> None:
        commands = [*(p_set(100.0 * step) for step in range(5)), p_set(None)]
        await asyncio.gather(*(driver.write(command) for command in commands), *(driver.read() for _ in range(5)))
        assert len(device.writes()) == 11
        assert (await driver.read_back(Quantity.P_SET)).value_w is None
        assert (await device.model(BATTERY_LEGACY, 124)).OutWRte.cvalue == pytest.approx(10.0)

    with_device(BATTERY_LEGACY, talk)


def test_new_scale_factor_counts_from_the_next_command() -> None:
    async def talk(driver: SunSpecDriver, device: PymodbusDevice) -> None:
        await driver.write(p_set(1000.0))
        other = connection_to(device.port)
        await other.connect()
        await other.write(address_of(BATTERY_1547, 704) + 55, b"\x00\x00")
        other.disconnect()
        await driver.write(p_set(1000.0))
        assert (await device.model(BATTERY_1547, 704)).WSet.value == 1000
        assert (await driver.read_back(Quantity.P_SET)).value_w == 1000

    with_device(BATTERY_1547, talk)


def test_registry_names_every_driver_once() -> None:
    assert set(drivers().names) == set(REGISTRY)


@pytest.mark.parametrize(("models", "kind"), [(METER, DeviceKind.PV), (PV_1547, DeviceKind.SYSTEM_METER)])
def test_an_inverter_is_never_taken_for_a_meter_nor_a_meter_for_an_inverter(models: Models, kind: DeviceKind) -> None:
    """They count power with opposite signs: swapped addresses must not become a net load."""

    async def scenario() -> None:
        async with pymodbus_device(map_bytes(models)) as device:
            with pytest.raises(DeviceMismatch, match="is not"):
                async with connected_driver(device.port, kind=kind):
                    pass

    asyncio.run(scenario())
