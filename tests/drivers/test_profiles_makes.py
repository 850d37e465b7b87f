"""Makes that speak SunSpec with quirks: each profile against a simulated device with that quirk.

Where a make wants patience time is simulated; elsewhere sockets are real.
"""

import asyncio
import struct
from pathlib import Path

import pytest

from derms.domain.der import Device, DeviceKind, Endpoint
from derms.domain.dispatch import Command, Quantity
from derms.errors import DeviceMismatch, DeviceUnreachable, FieldError
from derms.service.simulated import SimulatedLoop, run_simulated
from drivers.profiles.driver import SunSpecWithRegisters
from drivers.profiles.loader import load_profile, packaged
from drivers.profiles.point import Point
from drivers.registry import entry
from drivers.sunspec.driver import SunSpecDriver
from hil.fault_kinds import Fault
from hil.specimen import Specimen
from hil.unit import SimulatedUnit
from tests.drivers.oracles import FrozenClock, sessions_with
from tests.drivers.profile_devices import Beside, ProfileDevice, driver_of, endpoint_with, port_of

LEGACY = (1, 103, 120, 121, 122, 123)
FLOAT = (1, 113, 120, 121, 122, 123)


def p_limit(value_w: float | None, reversion_s: float = 60.0) -> Command:
    return Command(Quantity.P_LIMIT, value_w, reversion_s)


def written(requests: list[bytes]) -> list[tuple[int, ...]]:
    """Address and registers of write requests."""
    return [struct.unpack_from(">HH", frame, 8) for frame in requests]


def solaredge() -> tuple[Beside, ProfileDevice]:
    registers = ProfileDevice(packaged()["solaredge"])
    registers.put("HOLDING 62242", 100.0)
    return Beside(Specimen((1, 103)), registers), registers


def test_solaredge_is_measured_by_sunspec_and_limited_in_its_own_registers() -> None:
    async def scenario(loop: SimulatedLoop) -> None:
        unit, registers = solaredge()
        requests: list[bytes] = []
        async with endpoint_with({1: unit}, requests) as endpoint:
            driver = driver_of("solaredge", port_of(endpoint), kind=DeviceKind.PV)
            identity = await driver.connect()
            assert isinstance(driver, SunSpecWithRegisters)
            assert identity.serial == "SIM-SPECIMEN"
            assert identity.capabilities.takes == {Quantity.P_LIMIT}
            assert identity.capabilities.reverts == {Quantity.P_LIMIT}
            assert (await driver.read()).raw
            await driver.write(p_limit(4250.0))
            assert written(requests) == [(0xF300, 1), (0xF310, 2), (0xF322, 2)]
            assert registers.register(Point(0xF322)) == pytest.approx(42.5)
            held = await driver.read_back(Quantity.P_LIMIT)
            assert held.value_w == pytest.approx(4250.0)
            assert held.reversion_s == 60.0
            await driver.write(p_limit(None))
            assert (await driver.read_back(Quantity.P_LIMIT)).value_w is None
            driver.disconnect()

    run_simulated(scenario, seed=1)


def test_solaredges_flash_is_written_once_and_its_limit_as_often_as_it_must() -> None:
    async def scenario(loop: SimulatedLoop) -> None:
        unit, registers = solaredge()
        async with endpoint_with({1: unit}) as endpoint:
            driver = driver_of("solaredge", port_of(endpoint), kind=DeviceKind.PV)
            await driver.connect()
            await driver.write(p_limit(5000.0))
            for _ in range(5):
                registers.tick(50.0)
                held = await driver.refresh(Quantity.P_LIMIT, 60.0)
                assert held.value_w == pytest.approx(5000.0)
            assert registers.writes == {0xF300: 1, 0xF310: 1, 0xF311: 1, 0xF322: 6, 0xF323: 6}
            registers.tick(61.0)
            assert (await driver.read_back(Quantity.P_LIMIT)).value_w is None
            driver.disconnect()

    run_simulated(scenario, seed=1)


def test_solaredges_limit_is_lost_at_a_restart_and_that_is_seen() -> None:
    async def scenario(loop: SimulatedLoop) -> None:
        unit, _ = solaredge()
        async with endpoint_with({1: unit}) as endpoint:
            driver = driver_of("solaredge", port_of(endpoint), kind=DeviceKind.PV)
            await driver.connect()
            await driver.write(p_limit(3000.0))
            endpoint.fault(Fault.REBOOT)
            with pytest.raises(DeviceUnreachable):
                await driver.read_back(Quantity.P_LIMIT)
            await endpoint.heal()
            await driver.connect()
            assert (await driver.read_back(Quantity.P_LIMIT)).value_w is None
            driver.disconnect()

    run_simulated(scenario, seed=1)


def test_solaredges_fallback_is_watched_for_drift() -> None:
    async def scenario(loop: SimulatedLoop) -> None:
        unit, registers = solaredge()
        async with endpoint_with({1: unit}) as endpoint:
            driver = driver_of("solaredge", port_of(endpoint), kind=DeviceKind.PV)
            await driver.connect()
            registers.put("HOLDING 62226", 30.0)
            assert (await driver.settings())["fallback_limit_pct"] == 30.0
            driver.disconnect()

    run_simulated(scenario, seed=1)


def test_solaredge_is_given_a_second_after_connecting() -> None:
    async def scenario(loop: SimulatedLoop) -> None:
        unit, _ = solaredge()
        async with endpoint_with({1: unit}) as endpoint:
            driver = driver_of("solaredge", port_of(endpoint), kind=DeviceKind.PV)
            began_s = loop.time()
            await driver.connect()
            assert 1.0 <= loop.time() - began_s < 2.0
            driver.disconnect()

    run_simulated(scenario, seed=1)


def test_solaredge_takes_one_client_and_the_second_is_turned_away() -> None:
    async def scenario(loop: SimulatedLoop) -> None:
        unit, _ = solaredge()
        async with endpoint_with({1: unit}) as endpoint:
            endpoint.fault(Fault.SECOND_REFUSED)
            first, second = (driver_of("solaredge", port_of(endpoint), kind=DeviceKind.PV) for _ in range(2))
            await first.connect()
            with pytest.raises(DeviceUnreachable):
                await second.connect()
            assert (await first.read()).raw
            first.disconnect()
            second.disconnect()

    run_simulated(scenario, seed=1)


def fronius(models: tuple[int, ...], serial: str = "FR-1") -> Specimen:
    return Specimen(models, serial=serial)


@pytest.mark.parametrize(("name", "models"), [("fronius-int", LEGACY), ("fronius-float", FLOAT)])
def test_fronius_is_read_and_limited_in_both_layouts(name: str, models: tuple[int, ...]) -> None:
    async def scenario() -> None:
        device = fronius(models)
        requests: list[bytes] = []
        async with endpoint_with({1: device}, requests) as endpoint:
            driver = driver_of(name, port_of(endpoint), kind=DeviceKind.PV)
            await driver.connect()
            assert isinstance(driver, SunSpecDriver)
            await driver.write(p_limit(0.25 * driver.identity.p_rated_w))
            assert device.value("123.WMaxLimPct") == pytest.approx(25.0)
            # The enable point is written once more, by itself: only then does it count.
            assert written(requests)[-1][1] == 1
            assert (await driver.read_back(Quantity.P_LIMIT)).reversion_s == 60.0
            driver.disconnect()

    asyncio.run(scenario())


@pytest.mark.parametrize(("before", "after"), [(LEGACY, FLOAT), (FLOAT, LEGACY)])
def test_fronius_switched_to_its_other_layout_is_never_read_with_the_old_addresses(
    before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    """Register 216 swaps the models while the connection stands: model 123 moves by ten registers."""

    async def scenario() -> None:
        units: dict[int, SimulatedUnit] = {1: fronius(before)}
        requests: list[bytes] = []
        async with endpoint_with(units, requests) as endpoint:
            driver = driver_of("fronius-int", port_of(endpoint), kind=DeviceKind.PV)
            await driver.connect()
            old = (await driver.read()).layout
            units[1] = device = fronius(after)
            with pytest.raises(FieldError):
                await driver.read()
            with pytest.raises(FieldError):
                await driver.write(p_limit(1000.0))
            assert requests == []
            await driver.connect()
            assert (await driver.read()).layout != old
            await driver.write(p_limit(0.5 * driver.identity.p_rated_w))
            assert device.value("123.WMaxLimPct") == pytest.approx(50.0)
            driver.disconnect()

    asyncio.run(scenario())


def test_fronius_inverter_that_is_off_is_unreachable_and_not_another_device() -> None:
    async def scenario() -> None:
        async with endpoint_with({1: fronius(LEGACY)}) as endpoint:
            driver = driver_of("fronius-int", port_of(endpoint), kind=DeviceKind.PV, unit=2)
            with pytest.raises(DeviceUnreachable, match="no such unit there"):
                await driver.connect()

    asyncio.run(scenario())


def test_sma_is_found_at_126_beside_the_makers_own_map_at_3() -> None:
    async def scenario() -> None:
        own = ProfileDevice(packaged()["site-battery"])
        async with endpoint_with({3: own, 126: Specimen((1, 103, 123, 701, 702, 704), serial="SMA-1")}) as endpoint:
            driver = driver_of("sma", port_of(endpoint), kind=DeviceKind.PV)
            assert (await driver.connect()).serial == "SMA-1"
            driver.disconnect()
            native = driver_of("sma", port_of(endpoint), kind=DeviceKind.PV, unit=3)
            with pytest.raises(DeviceMismatch, match="no SunSpec map"):
                await native.connect()

    asyncio.run(scenario())


STUBBORN = """\
profile: stubborn
title: Inverter that refuses blocks
speaks: sunspec
kinds: [pv]
sunspec: {bases: [50000], value_first: true}
"""


def test_make_that_refuses_blocks_gets_value_first_and_enable_last(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "stubborn.yaml").write_text(STUBBORN, encoding="utf8")
        found = entry(load_profile(tmp_path / "stubborn.yaml"))
        device = Specimen((1, 701, 702, 704), base=50000)
        requests: list[bytes] = []
        async with endpoint_with({1: device}, requests) as endpoint:
            place = Endpoint("127.0.0.1", port_of(endpoint))
            inverter = Device(id="dut", kind=DeviceKind.PV, driver="stubborn", endpoint=place, bus="b1")
            driver = found.open(inverter, sessions_with().unit(place, found.link), FrozenClock())
            await driver.connect()
            await driver.write(p_limit(0.5 * driver.identity.p_rated_w))
            # Offsets in model 704: WMaxLimPct 15, what it reverts to and when from 17 on, WMaxLimPctEna 14.
            first = written(requests)[0][0]
            assert written(requests) == [(first, 1), (first + 2, 3), (first - 1, 1)]
            assert device.value("704.WMaxLimPct") == pytest.approx(50.0)
            driver.disconnect()

    asyncio.run(scenario())
