"""Small fleets, snapshots and forecasts for the tests of decisions; powers in W, DER + = injection."""

from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np

from derms.control.compose import PlanTerms
from derms.domain.arrays import FloatArray
from derms.domain.der import Device, DeviceKind, Endpoint, Fleet
from derms.domain.forecast import Forecast
from derms.domain.quality import Quality
from derms.domain.strain import Strain
from derms.domain.telemetry import TelemetrySnapshot
from derms.optimize.fleet import FleetPlan
from derms.optimize.master import Slack, Solution
from derms.optimize.portfolio import Desk, Portfolio
from derms.optimize.share import share
from derms.optimize.zones import Zoning

NOON = datetime(2026, 4, 15, 19, 0, tzinfo=UTC)
"""12:00 in Los Angeles."""
STEP_S = 900.0
ZONE = ZoneInfo("America/Los_Angeles")
PAST_PERIODS = 12
TERMS = PlanTerms(desk=Desk())


def device(name: str, kind: DeviceKind, *, p_rated_w: float = 0.0, energy_wh: float = 0.0) -> Device:
    """A device that nobody connects to."""
    endpoint = Endpoint("127.0.0.1", 502)
    return Device(
        id=name, kind=kind, driver="none", endpoint=endpoint, bus="1", p_rated_w=p_rated_w, energy_wh=energy_wh
    )


def fleet_of(batteries: int, inverters: int = 0, meters: int = 0) -> Fleet:
    """Batteries of 25 kW and 100 kWh, inverters of 30 kW, then head meters."""
    return Fleet(
        (
            *(device(f"bat{n}", DeviceKind.BATTERY, p_rated_w=25e3, energy_wh=100e3) for n in range(batteries)),
            *(device(f"pv{n}", DeviceKind.PV, p_rated_w=30e3) for n in range(inverters)),
            *(device(f"head{n}", DeviceKind.HEAD_METER) for n in range(meters)),
        )
    )


def snapshot_of(
    p_w: Sequence[float],
    *,
    soc_frac: Sequence[float] | None = None,
    quality: Sequence[Quality] | None = None,
    p_rated_w: Sequence[float] | None = None,
    at: datetime = NOON,
) -> TelemetrySnapshot:
    """A snapshot with these powers, and good unless said otherwise."""
    count = len(p_w)
    nothing, nothing_3 = np.full(count, np.nan), np.full((count, 3), np.nan)
    return TelemetrySnapshot(
        at=at,
        now_s=0.0,
        p_w=np.array(p_w, dtype=np.float64),
        q_var=nothing,
        v_pu=np.ones(count),
        soc_frac=nothing if soc_frac is None else np.array(soc_frac, dtype=np.float64),
        p_phase_w=nothing_3,
        q_phase_var=nothing_3,
        v_phase_pu=nothing_3,
        quality=np.full(count, Quality.GOOD, np.uint8) if quality is None else np.array(quality, dtype=np.uint8),
        age_s=np.zeros(count),
        p_rated_w=nothing if p_rated_w is None else np.array(p_rated_w, dtype=np.float64),
        energy_wh=nothing,
    )


def forecast_of(
    net_load_w: FloatArray, *, pv_rated_w: float = 0.0, pv_frac: float = 0.0, start: datetime = NOON
) -> Forecast:
    """A forecast of this net load, with the sun standing still."""
    share = np.full(len(net_load_w), pv_frac)
    return Forecast(
        made_at=start,
        start=start,
        hours=np.full(len(net_load_w), STEP_S / 3600.0),
        net_load_w=net_load_w,
        pv_w=pv_rated_w * share,
        pv_frac=share,
        method="test",
    )


def strain_of(
    ders: int, excess_pu: float = 0.0, *, violations: int | None = None, overload: float = 0.0, **per_w: FloatArray
) -> Strain:
    """A feeder's strain; every DER counts for nothing unless `excess_per_w` or `overload_per_w` say otherwise."""
    return Strain(
        violations=int(excess_pu > 0.0) if violations is None else violations,
        excess_pu=excess_pu,
        excess_per_w=per_w.get("excess_per_w", np.zeros(ders)),
        overload=overload,
        overload_per_w=per_w.get("overload_per_w", np.zeros(ders)),
    )


def fleet_plan_of(
    given: Portfolio,
    battery_w: FloatArray,
    curtail_w: FloatArray,
    *,
    off_w: float = 0.0,
    gave_way: tuple[Slack, ...] = (),
    shared_steps: int = 4,
) -> FleetPlan:
    """A plan of all batteries as one zone; `off_w` is by how much its net load does not add up."""
    devices = given.devices
    zones = Zoning(
        zone=np.zeros(len(devices), dtype=np.intp),
        block=np.zeros(1, dtype=np.intp),
        feeders=np.zeros(0, dtype=np.intp),
        rows=np.zeros(0, dtype=np.intp),
    )
    lost = np.where(battery_w > 0.0, 1.0 / 0.95, 0.95)
    solution = Solution(
        injected_w=battery_w[None],
        held_w=curtail_w[None],
        stored_wh=devices.stored_wh.sum() - np.cumsum(battery_w * lost * given.hours)[None],
        net_w=given.feeders.net_load_w.sum(axis=0) - battery_w + curtail_w + off_w,
        slacks=(),
        binding=(),
        solver="test",
        iterations=1,
        objective=0.0,
    )
    held_w = np.vstack([curtail_w, np.zeros_like(curtail_w)])
    return FleetPlan(
        solution=solution,
        zones=zones,
        shares=share(battery_w[None, :shared_steps], devices, zones.zone, given.hours),
        feeder_w=np.vstack([battery_w, np.zeros_like(battery_w)]),
        held_w=held_w,
        rounds=1,
        agreed=True,
        gave_way=gave_way,
    )
