"""The rungs below the optimizer: the last good plan, shifted in time, and a plain rule."""

from dataclasses import replace
from datetime import datetime

import numpy as np

from derms.domain.arrays import FloatArray
from derms.domain.forecast import Forecast
from derms.domain.plan import Plan, PlanSource, means_between
from derms.optimize.aggregate import VirtualBattery


def shifted(last: Plan, forecast: Forecast, battery: VirtualBattery, *, plan_id: int, reason: str) -> Plan:
    """The last good plan at the steps of a new forecast; beyond its end batteries rest and PV runs free.

    A new step that reaches over two old ones takes the mean of what it covers, so that energy stays what it was. What
    the batteries cannot do any more, since they hold more or less than that plan expected, is left out.
    """
    offset_s = (forecast.start - last.start).total_seconds()
    edges_s = np.concatenate([[0.0], 3600.0 * forecast.ends_h]) + offset_s
    ends_s = last.edges_s
    battery_w, energy_wh = _kept(means_between(edges_s, last.battery_w, ends_s), battery, forecast.hours)
    curtail_w = np.minimum(means_between(edges_s, last.curtail_w, ends_s), np.maximum(forecast.pv_w, 0.0))
    return replace(
        last,
        id=plan_id,
        made_at=forecast.made_at,
        start=forecast.start,
        hours=forecast.hours,
        battery_w=battery_w,
        curtail_w=curtail_w,
        energy_wh=energy_wh,
        net_load_w=forecast.net_load_w - battery_w + curtail_w,
        source=PlanSource.LAST_GOOD,
        reason=reason,
    )


def rules(forecast: Forecast, battery: VirtualBattery, *, plan_id: int, reason: str) -> Plan:
    """Half of the distance to the forecast's mean, within power and energy: plain, and safe without a solver."""
    mean_w = float(np.average(forecast.net_load_w, weights=forecast.hours))
    battery_w, energy_wh = _kept(0.5 * (forecast.net_load_w - mean_w), battery, forecast.hours)
    return _plan(forecast, battery_w, energy_wh, plan_id, PlanSource.RULES, reason)


def _kept(wanted_w: FloatArray, battery: VirtualBattery, hours: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Powers [W] cut to what a battery can do, and its energy at the end of each step [Wh], both of shape (steps,)."""
    battery_w = np.clip(wanted_w, -battery.p_rated_w, battery.p_rated_w)
    stored_wh = battery.energy_wh
    for step, power_w in enumerate(battery_w):
        out_w = max(0.0, stored_wh - battery.energy_min_wh) * battery.efficiency_frac / hours[step]
        in_w = max(0.0, battery.energy_max_wh - stored_wh) / battery.efficiency_frac / hours[step]
        battery_w[step] = min(max(power_w, -in_w), out_w)
        stored_wh += float(battery.flow_wh(battery_w[step], hours[step]))
    return battery_w, battery.energy_wh + np.cumsum(battery.flow_wh(battery_w, hours))


def defaults(forecast: Forecast, battery: VirtualBattery, *, plan_id: int, reason: str) -> Plan:
    """No command to anybody: every device on its own default."""
    nothing = np.zeros_like(forecast.net_load_w)
    energy_wh = np.full_like(nothing, battery.energy_wh)
    return _plan(forecast, nothing, energy_wh, plan_id, PlanSource.DEFAULTS, reason)


def _plan(
    forecast: Forecast,
    battery_w: FloatArray,
    energy_wh: FloatArray,
    plan_id: int,
    source: PlanSource,
    reason: str,
) -> Plan:
    made_at: datetime = forecast.made_at
    return Plan(
        id=plan_id,
        made_at=made_at,
        start=forecast.start,
        hours=forecast.hours,
        battery_w=battery_w,
        curtail_w=np.zeros_like(battery_w),
        energy_wh=energy_wh,
        net_load_w=forecast.net_load_w - battery_w,
        source=source,
        reason=reason,
        solver="",
        iterations=0,
        objective=float("nan"),
    )
