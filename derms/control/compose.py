"""From what is known now to the portfolio that the fleet planner plans: one feeder, and the rest of the system.

Rows of the portfolio's devices are the batteries of the fleet, in its order. The rest of the system has no limits, and
nothing that could be moved: it is there because peak and ramp are those of the whole.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from scipy.sparse import csr_array

from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.domain.der import Fleet
from derms.domain.desk import DeskOrder
from derms.domain.forecast import Forecast
from derms.domain.telemetry import TelemetrySnapshot
from derms.optimize.portfolio import Days, Desk, Devices, Feeders, Portfolio, Rank, Rows

LOOK_BACK_H = 28
"""How far back a day can have begun, with what a rise that ends in it looks back on [h]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTerms:
    """What the plan is asked for besides being flat."""

    period_h: float = 0.25
    peak_floor_w: float = 0.0
    """Net load below which no peak counts."""
    import_max_w: float = np.inf
    """Greatest power into the feeder at its head."""
    export_max_w: float = np.inf
    """Greatest power out of it."""
    desk: Desk


def asked(terms: PlanTerms, order: DeskOrder | None, now_s: float, least_h: float) -> PlanTerms:
    """The terms with what the dispatcher asks of the feeder, for the time that is left of it; a step at least."""
    if order is None:
        return terms
    hold_w = {} if order.power_w is None else {0: order.power_w}
    hold_h = max((order.until_s - now_s) / 3600.0, least_h)
    return replace(terms, desk=replace(terms.desk, hold_w=hold_w, hold_h=hold_h, emergency=order.power_w is None))


def batteries(fleet: Fleet, snapshot: TelemetrySnapshot, available: BoolArray) -> Devices:
    """The fleet's batteries as stores that can do the same in all steps; their turns are as the fleet has them."""
    rows = np.flatnonzero(fleet.is_battery)
    power_w, energy_wh, able = fleet.p_rated_w[rows], fleet.energy_wh[rows], available[rows]
    return Devices(
        feeder=np.zeros(len(rows), dtype=np.intp),
        charge_max_w=np.where(able, power_w, 0.0)[:, None],
        discharge_max_w=np.where(able, power_w, 0.0)[:, None],
        stored_wh=np.where(able, energy_wh * snapshot.soc_frac[rows], 0.0),
        stored_min_wh=np.where(able, energy_wh * fleet.soc_min_frac[rows], 0.0),
        stored_max_wh=np.where(able, energy_wh * fleet.soc_max_frac[rows], 0.0),
        efficiency_frac=fleet.efficiency_frac[rows],
        available=able,
        turn=np.arange(len(rows), dtype=np.float64),
    )


def compose(
    devices: Devices,
    forecast: Forecast,
    *,
    past_net_w: FloatArray,
    previous_w: FloatArray,
    timezone: ZoneInfo,
    terms: PlanTerms,
    price: FloatArray | None = None,
) -> Portfolio:
    """The portfolio of one feeder and the rest of the system.

    Parameters
    ----------
    past_net_w : FloatArray
        Means of system net load over the last periods [W], oldest first, at least three hours of them, shape (k,).
    previous_w : FloatArray
        Battery power of the last plan over the steps of the forecast [W], shape (steps,).
    price : FloatArray
        Cost of importing a per-unit hour, in units of the objective, shape (steps,); None where energy costs nothing.
    """
    steps = len(forecast.net_load_w)
    nothing = np.zeros(steps)
    return Portfolio(
        hours=forecast.hours,
        period_h=terms.period_h,
        devices=devices,
        feeders=Feeders(
            net_load_w=np.vstack([forecast.feeder_w, forecast.net_load_w - forecast.feeder_w]),
            pv_w=np.vstack([np.maximum(forecast.pv_w, 0.0), nothing]),
            low_w=np.array([-terms.export_max_w, -np.inf]),
            high_w=np.array([terms.import_max_w, np.inf]),
            rank=np.full(2, Rank.HARD.value),
        ),
        rows=_no_rows(len(devices), steps),
        past_net_w=past_net_w[-round(3.0 / terms.period_h) :],
        previous_w=np.vstack([previous_w, nothing]),
        price=nothing if price is None else price,
        desk=terms.desk,
        days=days(forecast, past_net_w, timezone, terms),
    )


def days(forecast: Forecast, past_net_w: FloatArray, timezone: ZoneInfo, terms: PlanTerms) -> Days:
    """The local days of the forecast's steps, and what today has had already; a step is of the day of its middle.

    A rise that today has had is lost. A peak is not: where one quarter hour was eased for a feeder's sake, nothing
    would be held down below it for the rest of the evening. What is lost for good is told as `peak_floor_w`.
    """
    dates = _dates(forecast.start, forecast.ends_h - 0.5 * forecast.hours, timezone)
    today = forecast.start.astimezone(timezone).date().toordinal()
    ends_h = -terms.period_h * np.arange(len(past_net_w))[::-1].astype(np.float64)
    here = _dates(forecast.start, ends_h - 0.5 * terms.period_h, timezone) == today
    lag = round(3.0 / terms.period_h)
    # As many days as these hours can touch, whatever the time is: the problem is built for their number.
    count = int(np.ceil(forecast.hours.sum() / 24.0 - 1e-9)) + 1
    peak_w, rise_w = np.full(count, terms.peak_floor_w or -np.inf), np.full(count, -np.inf)
    rise_w[0] = (past_net_w[lag:] - past_net_w[:-lag])[here[lag:]].max(initial=-np.inf)
    return Days(day=dates - today, peak_w=peak_w, rise_w=rise_w)


def _dates(start: datetime, ahead_h: FloatArray, timezone: ZoneInfo) -> IntArray:
    """Ordinals of the local dates at some hours from a start."""
    times = [start + timedelta(hours=float(hour)) for hour in ahead_h]
    return np.array([time.astimezone(timezone).date().toordinal() for time in times], dtype=np.intp)


def _no_rows(count: int, steps: int) -> Rows:
    none, nobody = np.zeros(0), np.zeros(0, dtype=np.intp)
    return Rows(
        names=(),
        feeder=nobody,
        base=np.zeros((0, steps)),
        low=none,
        high=none,
        margin=none,
        rank=nobody,
        per_w=csr_array((0, count)),
        per_pv_w=none,
    )
