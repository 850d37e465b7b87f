"""Devices that tell ratings of zero, as some do until they are set up: the fleet file's hold, nothing is divided."""

import asyncio
import math
import warnings
from collections.abc import Mapping

import numpy as np
import pytest

from derms.control.guards import GuardInput, guard
from derms.domain.der import Device, DeviceKind, Endpoint, Fleet
from derms.domain.dispatch import Command, Quantity
from derms.domain.quality import Quality
from derms.domain.telemetry import Identity, Reading
from derms.field.readings import Readings, always_day
from derms.field.table import TelemetryTable
from derms.service.simulated import SimulatedLoop, run_simulated
from drivers.profiles.loader import packaged
from drivers.profiles.point import Point
from drivers.sunspec.driver import SunSpecDriver
from hil.specimen import Specimen
from tests.drivers.oracles import BATTERY_1547, BATTERY_LEGACY, FrozenClock, Points, connection_to
from tests.drivers.picky import PickyDevice
from tests.drivers.profile_devices import Beside, ProfileDevice, driver_of, endpoint_with, port_of

FILED_W, FILED_WH = 8e3, 30e3
RATING_POINTS = {
    702: ("WMaxRtg", "WMax", "VAMaxRtg", "VNomRtg"),
    713: ("WHRtg",),
    120: ("WRtg", "VARtg", "WHRtg"),
    121: ("WMax", "VRef"),
}


def battery_at(port: int) -> Device:
    return Device(
        id="bat01",
        kind=DeviceKind.BATTERY,
        driver="sunspec",
        endpoint=Endpoint("127.0.0.1", port),
        bus="b",
        p_rated_w=FILED_W,
        energy_wh=FILED_WH,
    )


def readings_of(device: Device, identity: Identity, reading: Reading) -> Readings:
    """The table of a fleet of one, with one good reading."""
    table, rows = TelemetryTable.local(1), np.array([0])
    readings = Readings(Fleet((device,)), table, FrozenClock(), [60.0], always_day)
    readings.meet(0, identity)
    columns = reading.layout.decode(np.frombuffer(reading.raw, dtype=np.uint8)[np.newaxis])
    table.write(0, rows, columns, np.array([Quality.GOOD], dtype=np.uint8), np.array([reading.requested_s]))
    return readings


@pytest.mark.parametrize("models", [BATTERY_1547, BATTERY_LEGACY], ids=["1547", "legacy"])
def test_a_sunspec_device_that_tells_ratings_of_zero_is_bounded_by_the_fleet_file(models: Mapping[int, Points]) -> None:
    async def scenario() -> None:
        box = PickyDevice(models)
        for model_id in RATING_POINTS.keys() & models.keys():
            for name in RATING_POINTS[model_id]:
                box.put(model_id, name, 0)
        async with box.listening() as port:
            device = battery_at(port)
            driver = SunSpecDriver(device, connection_to(port), FrozenClock())
            identity = await driver.connect()
            reading = await driver.read()
            driver.disconnect()
        assert all(math.isnan(rating) for rating in (*identity.ratings[::2], identity.s_rated_va))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            readings = readings_of(device, identity, reading)
            snapshot = readings.snapshot()
            guarded = guard(np.array([20e3]), GuardInput(readings.fleet, snapshot, 900.0))
        assert math.isfinite(snapshot.p_w[0])
        assert math.isnan(snapshot.v_pu[0])
        assert readings.plates(np.array([0])).energy_wh == [FILED_WH]
        assert 0.0 < guarded.value_w[0] <= FILED_W

    asyncio.run(scenario())


def test_a_plain_device_that_tells_ratings_of_zero_tells_none() -> None:
    async def scenario() -> None:
        profile = packaged()["site-battery"]
        device = ProfileDevice(profile)
        for place in profile.ratings.values():
            assert isinstance(place, Point)
            device.set(place, 0.0)
        async with endpoint_with({profile.unit: device}) as endpoint:
            driver = driver_of("site-battery", port_of(endpoint))
            identity = await driver.connect()
            driver.disconnect()
        assert all(math.isnan(rating) for rating in (*identity.ratings, identity.s_rated_va))

    asyncio.run(scenario())


def test_a_limit_in_per_cent_of_a_rating_of_zero_counts_from_the_fleet_files_rating() -> None:
    async def scenario(loop: SimulatedLoop) -> None:
        profile = packaged()["solaredge"]
        own = ProfileDevice(profile)
        rating, percent = profile.ratings["p_rated_w"], profile.controls[Quantity.P_LIMIT].value
        assert isinstance(rating, Point)
        own.set(rating, 0.0)
        async with endpoint_with({1: Beside(Specimen((1, 103)), own)}) as endpoint:
            driver = driver_of("solaredge", port_of(endpoint), kind=DeviceKind.PV)
            await driver.connect()
            await driver.write(Command(Quantity.P_LIMIT, 4250.0, 60.0))
            assert own.register(percent) == pytest.approx(42.5)
            assert (await driver.read_back(Quantity.P_LIMIT)).value_w == pytest.approx(4250.0)
            driver.disconnect()

    run_simulated(scenario, seed=1)
