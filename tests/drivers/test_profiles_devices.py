"""Plain register maps on the wire: each profile against a simulated device with its registers and its dead-man."""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Mapping

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.domain.der import DeviceKind
from derms.domain.dispatch import Command, Quantity
from derms.errors import DeviceMismatch, DeviceRefused, DeviceUnreachable, ProtocolViolation, WriteForbidden
from derms.ports import DeviceDriver
from drivers.profiles.loader import packaged
from drivers.profiles.profile import Speaks
from hil.fault_kinds import Fault
from tests.drivers.oracles import sessions_with
from tests.drivers.profile_devices import ProfileDevice, driver_of, endpoint_with, port_of, profile_device

PLAIN = sorted(name for name, profile in packaged().items() if profile.speaks is Speaks.REGISTERS)
COMMANDED = [name for name in PLAIN if packaged()[name].controls]

Talk = Callable[[ProfileDevice, DeviceDriver, list[bytes]], Awaitable[None]]


def with_device(name: str, talk: Talk, *, p_w: float = 0.0) -> None:
    async def scenario() -> None:
        requests: list[bytes] = []
        async with profile_device(name, p_w=p_w, requests=requests) as (device, driver):
            await talk(device, driver, requests)

    asyncio.run(scenario())


async def columns_of(driver: DeviceDriver) -> Mapping[str, FloatArray]:
    reading = await driver.read()
    return reading.layout.decode(np.frombuffer(reading.raw, dtype=np.uint8)[None])


def p_set(value_w: float | None, reversion_s: float = 900.0) -> Command:
    return Command(Quantity.P_SET, value_w, reversion_s)


def written(requests: list[bytes]) -> list[tuple[int, bytes]]:
    """Address and data of write requests (FC16)."""
    return [(struct.unpack_from(">H", frame, 8)[0], frame[13:]) for frame in requests]


@pytest.mark.parametrize("name", PLAIN)
def test_power_reads_in_the_signs_of_the_house(name: str) -> None:
    async def talk(device: ProfileDevice, driver: DeviceDriver, _: list[bytes]) -> None:
        assert (await columns_of(driver))["p_w"] == pytest.approx(-2400.0)
        assert driver.identity.serial == {"meter": "", "load-switch": "7"}.get(name, "SN-7")

    with_device(name, talk, p_w=-2400.0)


SETPOINTS = [
    *(("site-battery", 4321.0), ("site-battery", -4321.0), ("site-battery", 0.0)),
    *(("ev-charger", -6900.0), ("ev-charger", 0.0), ("load-switch", -10e3), ("load-switch", 0.0)),
]


@pytest.mark.parametrize(("name", "value_w"), SETPOINTS)
def test_setpoint_is_written_read_back_obeyed_and_handed_back(name: str, value_w: float) -> None:
    async def talk(device: ProfileDevice, driver: DeviceDriver, _: list[bytes]) -> None:
        assert Quantity.P_SET in driver.identity.capabilities.takes
        await driver.write(p_set(value_w))
        held = await driver.read_back(Quantity.P_SET)
        assert (held.value_w, held.reversion_s) == (value_w, 900.0)
        assert (await columns_of(driver))["p_w"] == value_w
        await driver.write(p_set(None))
        assert (await driver.read_back(Quantity.P_SET)).value_w is None
        assert (await columns_of(driver))["p_w"] == -1000.0

    with_device(name, talk, p_w=-1000.0)


@pytest.mark.parametrize(
    ("name", "value_w"),
    [("ev-charger", 100.0), ("ev-charger", -25e3), ("load-switch", 100.0), ("load-switch", -5e3)],
)
def test_what_a_load_cannot_do_is_refused_before_the_wire(name: str, value_w: float) -> None:
    async def talk(_: ProfileDevice, driver: DeviceDriver, requests: list[bytes]) -> None:
        with pytest.raises(WriteForbidden):
            await driver.write(p_set(value_w))
        with pytest.raises(WriteForbidden, match="does not take p_limit"):
            await driver.write(Command(Quantity.P_LIMIT, 0.0, 60.0))
        assert requests == []

    with_device(name, talk)


def test_charger_counts_whole_amperes_and_never_more_than_was_asked() -> None:
    async def talk(device: ProfileDevice, driver: DeviceDriver, _: list[bytes]) -> None:
        await driver.write(p_set(-7300.0))
        assert device.register(device.profile.controls[Quantity.P_SET].value) == 10
        held = await driver.read_back(Quantity.P_SET)
        assert (held.value_w, held.resolution_w) == (-6900.0, 690.0)

    with_device("ev-charger", talk)


@pytest.mark.parametrize("name", COMMANDED)
def test_device_that_nobody_speaks_to_is_on_its_own_after_its_dead_man_time(name: str) -> None:
    async def talk(device: ProfileDevice, driver: DeviceDriver, _: list[bytes]) -> None:
        await driver.write(p_set(0.0, reversion_s=60.0))
        device.tick(59.0)
        assert (await driver.read_back(Quantity.P_SET)).value_w == 0.0
        device.tick(1.0)
        assert (await driver.read_back(Quantity.P_SET)).value_w is None

    with_device(name, talk)


def test_timer_is_restarted_by_a_refresh_that_changes_nothing_else() -> None:
    async def talk(device: ProfileDevice, driver: DeviceDriver, requests: list[bytes]) -> None:
        await driver.write(p_set(-10e3, reversion_s=60.0))
        requests.clear()
        device.tick(50.0)
        held = await driver.refresh(Quantity.P_SET, 60.0)
        assert (held.value_w, held.reversion_left_s) == (-10e3, 60.0)
        assert written(requests) == [(1, struct.pack(">H", 1))]
        device.tick(50.0)
        assert (await driver.read_back(Quantity.P_SET)).value_w == -10e3

    with_device("load-switch", talk)


def test_refresh_of_what_is_handed_back_writes_nothing() -> None:
    async def talk(_: ProfileDevice, driver: DeviceDriver, requests: list[bytes]) -> None:
        assert (await driver.refresh(Quantity.P_SET, 60.0)).value_w is None
        assert requests == []

    with_device("site-battery", talk)


@pytest.mark.parametrize("name", ["site-battery", "ev-charger"])
def test_heartbeat_keeps_the_setpoint_where_writes_alone_do_not(name: str) -> None:
    async def talk(device: ProfileDevice, driver: DeviceDriver, _: list[bytes]) -> None:
        assert driver.identity.capabilities.heartbeat
        await driver.write(p_set(0.0, reversion_s=60.0))
        for _beat in range(3):
            device.tick(40.0)
            await driver.beat()
        assert (await driver.read_back(Quantity.P_SET)).value_w == 0.0
        for _refresh in range(2):
            await driver.refresh(Quantity.P_SET, 60.0)
            device.tick(40.0)
        assert (await driver.read_back(Quantity.P_SET)).value_w is None

    with_device(name, talk)


def test_heartbeat_counts_and_shows_the_devices_own() -> None:
    async def talk(_: ProfileDevice, driver: DeviceDriver, requests: list[bytes]) -> None:
        assert [await driver.beat() for _ in range(3)] == [0, 1, 2]
        assert written(requests) == [(304, struct.pack(">H", count)) for count in range(3)]

    with_device("site-battery", talk)


def test_charger_wants_the_same_beat_each_time() -> None:
    async def talk(_: ProfileDevice, driver: DeviceDriver, requests: list[bytes]) -> None:
        assert [await driver.beat() for _ in range(2)] == [None, None]
        assert written(requests) == [(6000, b"\0\1")] * 2

    with_device("ev-charger", talk)


def test_load_switch_has_no_heartbeat_and_is_not_sent_one() -> None:
    async def talk(_: ProfileDevice, driver: DeviceDriver, requests: list[bytes]) -> None:
        assert await driver.beat() is None
        assert requests == []

    with_device("load-switch", talk)


def test_drift_of_what_engineers_set_can_be_seen() -> None:
    async def talk(device: ProfileDevice, driver: DeviceDriver, _: list[bytes]) -> None:
        before = await driver.settings()
        device.set(device.profile.settings["soc_min_pct"], 20.0)
        after = await driver.settings()
        assert {name for name in after if after[name] != before[name]} == {"soc_min_pct"}
        assert after["soc_min_pct"] == 20.0

    with_device("site-battery", talk)


def test_a_meter_reads_three_phases_with_import_positive() -> None:
    async def talk(device: ProfileDevice, driver: DeviceDriver, _: list[bytes]) -> None:
        device.show("p_phase_w", 1000.0, 2000.0, -500.0)
        device.show("absorbed_wh", 12_000.0)
        columns = await columns_of(driver)
        np.testing.assert_allclose(columns["p_phase_w"], [[1000.0, 2000.0, -500.0]])
        assert columns["absorbed_wh"] == 12_000.0
        assert np.isnan(columns["soc_frac"]).all()

    with_device("meter", talk)


def test_vehicle_that_draws_nothing_is_standby_and_a_strange_code_means_nothing() -> None:
    async def talk(device: ProfileDevice, driver: DeviceDriver, _: list[bytes]) -> None:
        point = device.profile.telemetry[-2].points[0]
        for raw, state in ((0, 7.0), (2, 3.0), (8, 6.0), (99, np.nan)):
            device.put(f"INPUT {point.address}", raw)
            np.testing.assert_equal((await columns_of(driver))["state"][0], state)

    assert packaged()["ev-charger"].telemetry[-2].column == "state"
    with_device("ev-charger", talk)


def test_device_that_refuses_to_read_holes_is_read_around_them_from_then_on() -> None:
    async def scenario() -> None:
        device = ProfileDevice(packaged()["meter"], p_w=3000.0, holes=True)
        async with endpoint_with({1: device}) as endpoint:
            driver = driver_of("meter", port_of(endpoint), kind=DeviceKind.HEAD_METER)
            await driver.connect()
            assert (await columns_of(driver))["p_w"] == 3000.0
            device.show("p_w", 4000.0)
            assert (await columns_of(driver))["p_w"] == 4000.0
            driver.disconnect()

    asyncio.run(scenario())


def test_another_map_at_the_address_is_never_written_to() -> None:
    async def scenario() -> None:
        device = ProfileDevice(packaged()["site-battery"])
        requests: list[bytes] = []
        async with endpoint_with({1: device}, requests) as endpoint:
            driver = driver_of("site-battery", port_of(endpoint))
            device.put("HOLDING 100", 1234)
            with pytest.raises(DeviceMismatch, match=r"1234 at 100, where it has 21314"):
                await driver.connect()
            assert not driver.connected
            with pytest.raises(DeviceUnreachable):
                await driver.write(p_set(0.0))
            assert requests == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("name", "serial", "why"),
    [("site-battery", "SN-8", "'SN-7', expected 'SN-8'"), ("meter", "SN-8", "not in this map, expected 'SN-8'")],
)
def test_other_serial_number_than_the_fleet_files_is_refused(name: str, serial: str, why: str) -> None:
    async def scenario() -> None:
        async with endpoint_with({1: ProfileDevice(packaged()[name])}) as endpoint:
            driver = driver_of(name, port_of(endpoint), serial=serial)
            with pytest.raises(DeviceMismatch, match=why):
                await driver.connect()

    asyncio.run(scenario())


def test_device_that_comes_back_as_another_is_neither_read_nor_written() -> None:
    async def scenario() -> None:
        profile = packaged()["site-battery"]
        units = {1: ProfileDevice(profile)}
        requests: list[bytes] = []
        async with endpoint_with(units, requests) as endpoint:
            driver = driver_of("site-battery", port_of(endpoint))
            await driver.connect()
            units[1] = ProfileDevice(profile, serial="SN-8")
            driver.disconnect()
            with pytest.raises(DeviceUnreachable):
                await driver.write(p_set(0.0))
            with pytest.raises(DeviceMismatch, match="'SN-8', expected 'SN-7'"):
                await driver.connect()
            with pytest.raises(DeviceUnreachable):
                await driver.read()
            assert requests == []

    asyncio.run(scenario())


def test_kind_that_a_profile_is_not_for_is_refused_before_anything_is_asked() -> None:
    async def scenario() -> None:
        driver = driver_of("ev-charger", 1, kind=DeviceKind.BATTERY)
        with pytest.raises(DeviceMismatch, match="ev-charger is for ev-charger, not battery"):
            await driver.connect()

    asyncio.run(scenario())


def test_part_of_a_command_taken_is_not_called_refused() -> None:
    async def talk(device: ProfileDevice, driver: DeviceDriver, requests: list[bytes]) -> None:
        await driver.write(p_set(-6900.0))
        device.put("HOLDING 5004", 32)
        requests.clear()
        first = device.write

        def refusing(address: int, data: bytes) -> int:
            return 4 if address == 5004 else first(address, data)

        device.write = refusing  # type: ignore[method-assign]
        with pytest.raises(ProtocolViolation, match="only a part"):
            await driver.write(p_set(-6210.0, reversion_s=60.0))
        with pytest.raises(DeviceRefused):
            await driver.write(p_set(-6210.0, reversion_s=60.0))

    with_device("ev-charger", talk)


def test_observing_session_lets_no_write_out() -> None:
    async def scenario() -> None:
        requests: list[bytes] = []
        async with endpoint_with({1: ProfileDevice(packaged()["site-battery"])}, requests) as endpoint:
            watching = sessions_with(timeout_s=2.0, read_only=True)
            driver = driver_of("site-battery", port_of(endpoint), sessions=watching)
            await driver.connect()
            for attempt in (driver.write(p_set(100.0)), driver.write(p_set(None)), driver.beat()):
                with pytest.raises(WriteForbidden):
                    await attempt
            assert requests == []
            driver.disconnect()

    asyncio.run(scenario())


def test_gateway_that_does_not_reach_its_device_is_refused_with_exception_11() -> None:
    async def scenario() -> None:
        async with endpoint_with({1: ProfileDevice(packaged()["site-battery"])}) as endpoint:
            driver = driver_of("site-battery", port_of(endpoint), unit=5)
            with pytest.raises(DeviceRefused) as refused:
                await driver.connect()
            assert refused.value.code == 11

    asyncio.run(scenario())


def test_values_lost_with_the_connection_are_never_taken_for_new_ones() -> None:
    async def scenario() -> None:
        device = ProfileDevice(packaged()["site-battery"], p_w=500.0)
        async with endpoint_with({1: device}) as endpoint:
            driver = driver_of("site-battery", port_of(endpoint))
            await driver.connect()
            endpoint.fault(Fault.STOP)
            with pytest.raises(DeviceUnreachable):
                await driver.read()
            await endpoint.heal()
            with pytest.raises(DeviceUnreachable):
                await driver.read()
            await driver.connect()
            assert (await columns_of(driver))["p_w"] == 500.0
            driver.disconnect()

    asyncio.run(scenario())
