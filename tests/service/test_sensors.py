"""Voltages for the estimate: whose value stands where, and how one counts that has grown old, or is doubted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from derms.domain.der import DeviceKind, Fleet
from derms.domain.grid import MeterBinding
from derms.domain.quality import Quality
from derms.domain.telemetry import TelemetrySnapshot
from derms.grid.estimate import V_DRIFT_PU, V_DRIFT_S, Voltages, aged
from derms.grid.opendss import FeederEngine
from derms.service.sensors import DER_SIGMA_FRAC, MISSING_AGES, Sensors
from tests.control.values import device, snapshot_of
from tests.grid.village import village

AGE_MAX_S, SIGMA = 60.0, 0.004
BASE_V = 4160.0 / np.sqrt(3.0)
FLEET = Fleet((device("sun", DeviceKind.PV, p_rated_w=4e5), device("eye", DeviceKind.VOLTAGE_SENSOR)))


@pytest.fixture
def sensors(tmp_path: Path) -> Sensors:
    eye = MeterBinding("eye", "voltage-sensor", "market", "", 1, SIGMA, AGE_MAX_S, phases=(1, 3))
    package = replace(village(tmp_path), meters=(eye,), own=True)
    return Sensors(package, FLEET, FeederEngine(package).layout)


def seen(
    now_s: float, eye_pu: float, *, quality: Quality = Quality.GOOD, age_s: float = 0.0, sun_pu: float = 1.0
) -> TelemetrySnapshot:
    """What the two devices tell; quality and age are those of the sensor."""
    columns = {
        "v_v": np.array([sun_pu * BASE_V, np.nan]),
        "v_phase_v": np.array([[np.nan] * 3, [eye_pu * BASE_V, np.nan, eye_pu * BASE_V]]),
    }
    told = snapshot_of([0.0, np.nan], quality=[Quality.GOOD, quality])
    return replace(told, now_s=now_s, age_s=np.array([0.0, age_s]), columns=columns)


def of_eye(voltages: Voltages) -> tuple[float, float]:
    return float(voltages.v_pu[0]), float(voltages.sigma_pu[0])


def test_sensors_and_der_stand_at_the_points_that_the_package_says(sensors: Sensors) -> None:
    voltages = sensors.read(seen(0.0, 1.02, sun_pu=0.99))
    assert voltages.names == ("eye at market.1", "eye at market.3", "sun at mill.1")
    assert voltages.v_pu == pytest.approx([1.02, 1.02, 0.99])
    assert voltages.sigma_pu == pytest.approx([SIGMA, SIGMA, DER_SIGMA_FRAC])


def test_a_value_that_goes_stale_counts_on_with_a_sigma_that_grows_with_its_age(sensors: Sensors) -> None:
    sensors.read(seen(100.0, 1.02, age_s=5.0))
    sigmas = []
    for now_s in (130.0, 200.0, 500.0):
        v_pu, sigma_pu = of_eye(sensors.read(seen(now_s, 1.02, quality=Quality.STALE, age_s=now_s - 95.0)))
        assert v_pu == pytest.approx(1.02)
        assert sigma_pu**2 == pytest.approx(SIGMA**2 + V_DRIFT_PU**2 * (now_s - 95.0) / V_DRIFT_S)
        sigmas.append(sigma_pu)
    assert sigmas == sorted(sigmas)


def test_a_value_far_beyond_its_greatest_age_is_missing(sensors: Sensors) -> None:
    sensors.read(seen(0.0, 1.02))
    last_s = MISSING_AGES * AGE_MAX_S
    assert np.isfinite(of_eye(sensors.read(seen(last_s, 1.02, quality=Quality.STALE, age_s=last_s)))[0])
    gone = sensors.read(seen(last_s + 1.0, 1.02, quality=Quality.STALE, age_s=last_s + 1.0))
    assert np.isnan(gone.v_pu).tolist() == [True, True, False]
    assert np.isfinite(gone.sigma_pu).all()


@pytest.mark.parametrize("quality", [Quality.SUSPECT, Quality.MISSING, Quality.NOT_IMPLEMENTED])
def test_a_doubted_value_does_not_replace_the_last_good_one(sensors: Sensors, quality: Quality) -> None:
    sensors.read(seen(0.0, 1.02))
    doubted = sensors.read(seen(60.0, 1.3, quality=quality))
    assert of_eye(doubted) == pytest.approx((1.02, np.hypot(SIGMA, V_DRIFT_PU)))
    stale = sensors.read(seen(120.0, 1.3, quality=Quality.STALE, age_s=60.0))  # what was doubted has grown old
    assert of_eye(stale)[0] == pytest.approx(1.02)


def test_what_was_never_good_is_missing(sensors: Sensors) -> None:
    for quality in (Quality.MISSING, Quality.STALE, Quality.SUSPECT):
        assert np.isnan(of_eye(sensors.read(seen(0.0, 1.02, quality=quality)))[0])
    assert np.isnan(sensors.read(snapshot_of([0.0, np.nan])).v_pu[:2]).all(), "and neither is what has no column"


def test_a_value_that_comes_back_is_as_sure_as_before(sensors: Sensors) -> None:
    sensors.read(seen(0.0, 1.02))
    sensors.read(seen(300.0, 1.02, quality=Quality.STALE, age_s=300.0))
    assert of_eye(sensors.read(seen(360.0, 0.99))) == pytest.approx((0.99, SIGMA))


def test_variances_of_one_wait_after_another_add_up() -> None:
    start = np.array([0.003, 0.01])
    at_once = aged(start, np.array([90.0, 150.0]))
    assert aged(aged(start, np.full(2, 30.0)), np.array([60.0, 120.0])) == pytest.approx(at_once)
