"""The SunSpec driver on pymodbus's server: commands as pysunspec2 sees them arrive, read back, and refused."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
import pytest
import sunspec2.modbus.client

from derms.domain.der import Device, DeviceKind, Endpoint
from derms.domain.dispatch import Capabilities, Ceasing, Command, Held, Quantity
from derms.domain.drift import drift
from derms.errors import DeviceMismatch, DeviceRefused, DeviceUnreachable, ProtocolViolation, WriteForbidden
from derms.ports import DeviceDriver
from drivers.registry import REGISTRY, drivers
from drivers.sunspec.driver import SunSpecDriver
from drivers.sunspec.quirks import STANDARD, SunSpecQuirks
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
    next_request,
    pymodbus_device,
    scripted_device,
)
from tests.drivers.picky import PickyDevice

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


def with_picky(
    models: Models, talk: Callable[[SunSpecDriver, PickyDevice], Awaitable[None]], quirks: SunSpecQuirks = STANDARD
) -> None:
    """Run a talk with the driver of a picky device."""

    async def scenario() -> None:
        device = PickyDevice(models)
        async with device.listening() as port:
            box = Device(
                id="x", kind=DeviceKind.BATTERY, driver="sunspec", endpoint=Endpoint("127.0.0.1", port), bus="b"
            )
            driver = SunSpecDriver(box, connection_to(port), FrozenClock(), quirks)
            await driver.connect()
            await talk(driver, device)
            driver.disconnect()

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
        columns = reading.layout.decode(np.frombuffer(reading.raw, dtype=np.uint8).reshape(1, -1))
        oracle = (await asyncio.to_thread(scanned, device.port)).models[measuring][0]
        assert columns["p_w"][0] == pytest.approx(oracle.points[power].cvalue)
        assert columns["v_v"][0] == pytest.approx(oracle.points[voltage].cvalue)

    with_device(models, talk)


class RequestClock(FrozenClock):
    """A clock that moves a second with each request that a device gets."""

    def __init__(self, device: PymodbusDevice) -> None:
        self._device = device

    def monotonic_s(self) -> float:
        return float(len(self._device.requests))


def test_time_of_a_reading_is_that_before_its_first_request() -> None:
    async def scenario() -> None:
        async with (
            pymodbus_device(map_bytes(BATTERY_1547)) as device,
            connected_driver(device.port, clock=RequestClock(device)) as (driver, _),
        ):
            before = len(device.requests)
            reading = await driver.read()
            assert reading.requested_s == before
            assert len(reading.raw) == reading.layout.width
            assert len(device.requests) == before + 2

    asyncio.run(scenario())


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
        _ = driver.identity


def test_disconnected_driver_comes_back_with_a_scan() -> None:
    async def talk(driver: SunSpecDriver, _: PymodbusDevice) -> None:
        driver.disconnect()
        assert not driver.connected
        assert driver.identity.serial == "SN-7"
        with pytest.raises(DeviceUnreachable):
            await driver.read()
        await driver.connect()
        reading = await driver.read()
        assert len(reading.raw) == reading.layout.width == 2 * (123 + 76)

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


def test_a_device_that_comes_back_with_another_serial_number_is_not_written_to() -> None:
    """The fleet file names no serial number: then the first one counts (swapped addresses, a stolen lease)."""

    async def scenario() -> None:
        device = PickyDevice(BATTERY_1547)
        async with device.listening() as port, connected_driver(port) as (driver, _):
            await driver.write(p_set(1000.0))
            taken = list(device.writes)
            driver.disconnect()
            device.put(1, "SN", "SN-8")
            with pytest.raises(DeviceMismatch, match=r"serial number 'SN-8', expected 'SN-7'"):
                await driver.connect()
            assert not driver.connected
            for attempt in (driver.write(p_set(2000.0)), driver.refresh(Quantity.P_SET, 900.0), driver.beat()):
                with pytest.raises(DeviceUnreachable):
                    await attempt
            assert device.writes == taken

    asyncio.run(scenario())


def test_a_command_waits_until_the_scan_of_a_new_connection_has_proven_who_answers() -> None:
    async def scenario() -> None:
        device = PickyDevice(BATTERY_1547)
        async with device.listening() as port, connected_driver(port) as (driver, _):
            driver.disconnect()
            device.put(1, "SN", "SN-8")
            connecting = asyncio.create_task(driver.connect())
            await asyncio.sleep(0)  # the scan has begun, the session of the old connection is still known
            with pytest.raises(DeviceUnreachable):
                await driver.write(p_set(2000.0))
            with pytest.raises(DeviceMismatch):
                await connecting
            assert device.writes == []

    asyncio.run(scenario())


def test_a_map_that_has_changed_behind_a_reconnect_is_discovered_anew_before_any_write() -> None:
    async def scenario() -> None:
        device = PickyDevice(BATTERY_1547)
        async with device.listening() as port, connected_driver(port) as (driver, _):
            driver.disconnect()
            device.models.pop(703)
            device.image = PickyDevice(device.models).image
            await driver.connect()
            await driver.write(p_set(1000.0))
            assert device.writes == [(704, 22, 11)]
            assert device.get(704, "WSet") == 100

    asyncio.run(scenario())


REFUSES_BLOCKS = {"told by its profile": SunSpecQuirks(value_first=True), "found by trying": SunSpecQuirks()}


@pytest.mark.parametrize("quirks", REFUSES_BLOCKS.values(), ids=REFUSES_BLOCKS.keys())
@pytest.mark.parametrize("code", [2, 3])
def test_a_device_that_refuses_blocks_gets_value_then_reversion_then_enable(quirks: SunSpecQuirks, code: int) -> None:
    async def talk(driver: SunSpecDriver, device: PickyDevice) -> None:
        device.refuses = lambda model_id, offset, count: code if count > 3 else 0
        for value_w in (3000.0, 2000.0):
            await driver.write(p_limit(value_w, 600.0))
        one_by_one = [(704, 15, 1), (704, 17, 3), (704, 14, 1)]
        tried = [] if quirks.value_first else [(704, 14, 6)]
        assert device.writes == [*tried, *one_by_one, *one_by_one]  # what was refused once is not tried again
        assert await driver.read_back(Quantity.P_LIMIT) == Held(2000.0, 600.0, 17.0, 0.5)
        device.writes.clear()
        await driver.write(p_limit(None))
        assert device.writes == [(704, 14, 1)]
        assert device.get(704, "WMaxLimPctEna") == 0

    with_picky(PV_1547, talk, quirks)


def test_a_device_that_takes_a_part_of_a_command_only_is_a_protocol_violation_that_says_which() -> None:
    async def talk(driver: SunSpecDriver, device: PickyDevice) -> None:
        device.refuses = lambda model_id, offset, count: 3 if offset in (22, 30) else 0
        with pytest.raises(ProtocolViolation, match=r"took only WSetMod, WSet, WSetRvrt:"):
            await driver.write(p_set(1000.0))
        assert device.get(704, "WSetEna") == 0
        assert (await driver.read_back(Quantity.P_SET)).value_w is None

    with_picky(BATTERY_1547, talk, SunSpecQuirks(value_first=True))


@pytest.mark.parametrize("code", [1, 4, 6])
def test_other_refusals_than_of_the_block_are_not_tried_around(code: int) -> None:
    async def talk(driver: SunSpecDriver, device: PickyDevice) -> None:
        device.refuses = lambda model_id, offset, count: code
        with pytest.raises(DeviceRefused):
            await driver.write(p_set(1000.0))
        assert len(device.writes) == 1

    with_picky(BATTERY_1547, talk)


def test_zero_and_everything_and_released_are_three_states() -> None:
    async def talk(driver: SunSpecDriver, device: PickyDevice) -> None:
        held: list[float | None] = []
        for value_w in (0.0, 5000.0, None):
            await driver.write(p_limit(value_w))
            held.append((await driver.read_back(Quantity.P_LIMIT)).value_w)
        assert held == [0.0, 5000.0, None]
        assert (device.get(704, "WMaxLimPctEna"), device.get(704, "WMaxLimPct")) == (0, 10000)

    with_picky(PV_1547, talk)


def test_a_limit_above_what_the_device_is_set_to_give_is_all_of_it() -> None:
    models = changed(PV_1547, 702, WMax=4000)

    async def talk(driver: SunSpecDriver, device: PickyDevice) -> None:
        assert driver.identity.p_rated_w == 4000.0
        await driver.write(p_limit(4500.0))
        assert device.get(704, "WMaxLimPct") == 10000
        assert (await driver.read_back(Quantity.P_LIMIT)).value_w == 4000.0
        await driver.write(p_limit(2000.0))
        assert device.get(704, "WMaxLimPct") == 5000

    with_picky(models, talk)


def test_a_battery_is_rated_by_the_least_of_what_it_gives_and_takes() -> None:
    models = changed(BATTERY_1547, 702, WChaRteMax=3000, WDisChaRteMax=3500)

    async def modern(driver: SunSpecDriver, _: PickyDevice) -> None:
        assert driver.identity.p_rated_w == 3000.0

    async def legacy(driver: SunSpecDriver, _: PickyDevice) -> None:
        assert driver.identity.p_rated_w == 4000.0

    with_picky(models, modern)
    with_picky(BATTERY_LEGACY, legacy)


def test_a_limit_that_counts_only_when_enabled_again_is_enabled_again() -> None:
    async def talk(driver: SunSpecDriver, device: PickyDevice) -> None:
        await driver.write(p_limit(1000.0))
        assert device.writes == [(123, 5, 5), (123, 9, 1)]
        device.writes.clear()
        await driver.write(p_limit(None))
        assert device.writes == [(123, 9, 1)]

    with_picky(BATTERY_LEGACY, talk, SunSpecQuirks(enable_again=True))


def test_refreshing_writes_the_timer_and_nothing_else() -> None:
    async def talk(driver: SunSpecDriver, device: PickyDevice) -> None:
        await driver.write(p_set(1000.0, 900.0))
        device.writes.clear()
        held = await driver.refresh(Quantity.P_SET, 600.0)
        assert device.writes == [(704, 31, 2)]
        assert (held.value_w, held.reversion_s) == (1000.0, 600.0)

    with_picky(BATTERY_1547, talk)


REFRESHED_WHOLE = {
    "told by its profile": (BATTERY_1547, SunSpecQuirks(refresh_value=True), [(704, 22, 11)]),
    "no time left to be seen": (BATTERY_LEGACY, SunSpecQuirks(), [(124, 12, 4), (124, 5, 1)]),
}


@pytest.mark.parametrize(("models", "quirks", "writes"), REFRESHED_WHOLE.values(), ids=REFRESHED_WHOLE.keys())
def test_refreshing_writes_the_held_value_again_where_the_timer_alone_may_not_do(
    models: Models, quirks: SunSpecQuirks, writes: list[tuple[int, int, int]]
) -> None:
    async def talk(driver: SunSpecDriver, device: PickyDevice) -> None:
        await driver.write(p_set(-1500.0, 900.0))
        before, device.writes = bytes(device.image), []
        assert await driver.refresh(Quantity.P_SET, 900.0) == await driver.read_back(Quantity.P_SET)
        assert device.writes == writes
        assert bytes(device.image) == before

    with_picky(models, talk, quirks)


def test_refreshing_what_has_been_released_writes_nothing() -> None:
    async def talk(driver: SunSpecDriver, device: PickyDevice) -> None:
        assert (await driver.refresh(Quantity.P_SET, 900.0)).value_w is None
        assert device.writes == []

    with_picky(BATTERY_1547, talk)


WITH_HEARTBEAT = {**BATTERY_1547, 715: {"LocRemCtl": 0, "DERHb": 41, "ControllerHb": 0, "OpCtl": 0}}


def test_each_beat_counts_the_controllers_heartbeat_up_and_tells_the_devices_own() -> None:
    async def talk(driver: SunSpecDriver, device: PickyDevice) -> None:
        own = [await driver.beat()]
        counted = [device.get(715, "ControllerHb")]
        device.put(715, "DERHb", 42)
        own.append(await driver.beat())
        counted.append(device.get(715, "ControllerHb"))
        assert own == [41, 42]
        assert counted[1] == counted[0] + 1
        assert device.writes == [(715, 5, 2)] * 2

    with_picky(WITH_HEARTBEAT, talk)


def test_a_device_without_a_heartbeat_is_not_written_to_by_a_beat() -> None:
    async def talk(driver: SunSpecDriver, device: PickyDevice) -> None:
        assert await driver.beat() is None
        assert device.writes == []

    with_picky(BATTERY_1547, talk)


BOTH = frozenset(Quantity)
LIMIT = frozenset({Quantity.P_LIMIT})
BY_703 = frozenset({Ceasing.PERMIT_SERVICE})
WITHOUT_WSET = {**BATTERY_1547, 704: PV_1547[704]}
CAPABLE: dict[str, tuple[Models, Capabilities]] = {
    "inverter": (PV_1547, Capabilities(LIMIT, LIMIT, ceases=BY_703)),
    "battery": (BATTERY_1547, Capabilities(BOTH, BOTH, ceases=BY_703)),
    "battery with heartbeat": (
        WITH_HEARTBEAT,
        Capabilities(BOTH, BOTH, heartbeat=True, ceases=BY_703 | {Ceasing.OPERATION}),
    ),
    "older battery": (BATTERY_LEGACY, Capabilities(BOTH, BOTH)),
    "battery without WSet": (WITHOUT_WSET, Capabilities(LIMIT, LIMIT, ceases=BY_703)),
    "WSet without a state of charge": (
        {model_id: points for model_id, points in BATTERY_1547.items() if model_id != 713},
        Capabilities(LIMIT, LIMIT, ceases=BY_703),
    ),
    "setpoint without a timer": (
        changed(BATTERY_1547, 704, WSetRvrtTms=None),
        Capabilities(BOTH, LIMIT, ceases=BY_703),
    ),
    "no permit service": (changed(PV_1547, 703, ES=None), Capabilities(LIMIT, LIMIT)),
}


@pytest.mark.parametrize(("models", "capable"), CAPABLE.values(), ids=CAPABLE.keys())
def test_a_device_is_known_for_what_it_can_do(models: Models, capable: Capabilities) -> None:
    async def talk(driver: SunSpecDriver, device: PickyDevice) -> None:
        assert driver.identity.capabilities == capable
        if Quantity.P_SET not in capable.takes:
            with pytest.raises(WriteForbidden, match="does not take p_set"):
                await driver.write(p_set(1000.0))
        await driver.write(p_limit(1000.0))
        assert {model_id for model_id, _, _ in device.writes} <= {704, 123}

    with_picky(models, talk)


def test_settings_tell_what_people_set_and_not_what_commands_move() -> None:
    async def talk(driver: SunSpecDriver, device: PickyDevice) -> None:
        before = await driver.settings()
        assert (before["703.ES"], before["702.WMax"]) == (1.0, 5000.0)
        await driver.write(p_set(1000.0))
        await driver.write(p_limit(1000.0))
        assert drift(before, await driver.settings()) == []
        device.put(703, "ES", 0)
        assert drift(before, await driver.settings()) == ["703.ES was 1, is 0"]

    with_picky(BATTERY_1547, talk)


def test_a_rating_that_was_set_anew_has_the_device_scanned_before_the_next_command() -> None:
    async def talk(driver: SunSpecDriver, device: PickyDevice) -> None:
        before = await driver.settings()
        device.put(702, "WMax", 2500)
        assert drift(before, await driver.settings()) == ["702.WMax was 5000, is 2500"]
        assert not driver.connected
        assert (await driver.connect()).p_rated_w == 2500.0
        await driver.write(p_limit(1000.0))
        assert device.get(704, "WMaxLimPct") == 4000

    with_picky(PV_1547, talk)


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
