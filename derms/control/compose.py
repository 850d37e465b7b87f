"""From what is known now to the portfolio that the fleet planner plans: one feeder, and the rest of the system.

Rows of the portfolio's devices are the batteries of the fleet, in its order. The rest of the system has no limits, and
nothing that could be moved: it is there because peak and ramp are those of the whole.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from scipy.sparse import csr_array

from derms.control.connections import behind, shared_room, sums, unheld
from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.domain.der import Fleet
from derms.domain.desk import DeskOrder
from derms.domain.forecast import Forecast
from derms.domain.telemetry import TelemetrySnapshot
from derms.optimize.portfolio import Days, Desk, Devices, Feeders, Portfolio, Rank, Rows, Sites

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
    """The fleet's batteries as stores that can do the same in all steps; their turns are as the fleet has them.

    Behind a connection they share what may be drawn there when its PV gives nothing: clouds come faster than plans.
    """
    rows = np.flatnonzero(fleet.is_battery)
    power_w, energy_wh, able = fleet.p_rated_w[rows], fleet.energy_wh[rows], available[rows]
    planned = fleet.is_battery & available
    taking_w = np.maximum(
        fleet.taking_max_w + behind(fleet, np.where(planned, 0.0, unheld(fleet, snapshot).low_w)), 0.0
    )
    shared_w = shared_room(fleet.connection, taking_w, np.zeros(len(fleet)), np.where(planned, fleet.p_rated_w, np.nan))
    return Devices(
        feeder=np.zeros(len(rows), dtype=np.intp),
        charge_max_w=np.where(able, np.minimum(power_w, shared_w[rows]), 0.0)[:, None],
        discharge_max_w=np.where(able, power_w, 0.0)[:, None],
        stored_wh=np.where(able, energy_wh * snapshot.soc_frac[rows], 0.0),
        stored_min_wh=np.where(able, energy_wh * fleet.soc_min_frac[rows], 0.0),
        stored_max_wh=np.where(able, energy_wh * fleet.soc_max_frac[rows], 0.0),
        efficiency_frac=fleet.efficiency_frac[rows],
        available=able,
        turn=np.arange(len(rows), dtype=np.float64),
    )


def sites_of(fleet: Fleet, snapshot: TelemetrySnapshot, available: BoolArray, pv_frac: FloatArray) -> Sites | None:
    """What connections, shared inverters and backup leave the fleet's batteries; None where there is none of these.

    The other load is in the limits, as the file bounds it: of what it will be nobody knows more. So is what devices
    behind a connection may do that the plan does not command. PV that it can limit gives what is forecast at most: the
    dispatch limits it to what batteries leave (`pv_ceiling_w`).

    Parameters
    ----------
    pv_frac : FloatArray
        Forecast of PV, per unit of its rating, shape (steps,).
    """
    if not (fleet.connections or fleet.inverters or fleet.backup_frac.any()):
        return None
    rows, steps = np.flatnonzero(fleet.is_battery), len(pv_frac)
    pv_w = np.where(fleet.is_pv & available, fleet.p_rated_w, 0.0)
    coupled = fleet.inverter >= 0
    inverter_w = np.zeros(len(fleet.inverters))
    np.maximum.at(inverter_w, fleet.inverter[coupled], fleet.p_rated_w[coupled])
    inverter_pv_w = sums(fleet.inverter[coupled], np.where(fleet.is_pv, fleet.p_rated_w, 0.0)[coupled], len(inverter_w))
    return Sites(
        site=fleet.connection[rows],
        load_w=np.zeros((len(fleet.connections), steps)),
        pv_w=np.outer(behind(fleet, pv_w), pv_frac),
        import_max_w=fleet.taking_max_w,
        export_max_w=_left_w(fleet, snapshot, available),
        inverter=fleet.inverter[rows],
        inverter_pv_w=np.outer(inverter_pv_w, pv_frac),
        inverter_max_w=inverter_w,
        backup_wh=(fleet.backup_frac * fleet.energy_wh)[rows],
        solar_only=fleet.solar_only[rows],
    )


def pv_ceiling_w(
    fleet: Fleet, snapshot: TelemetrySnapshot, available: BoolArray, batteries_w: FloatArray
) -> FloatArray:
    """Limits [W] under which PV gives at most what the batteries behind its connection leave, by rating.

    `batteries_w` is what those are told, shape (n, steps), NaN for nothing. NaN where no limit is needed, whatever the
    sun does: in all steps or in none.
    """
    ceiling_w = np.full_like(batteries_w, np.nan)
    limited = fleet.is_pv & available & (fleet.connection >= 0)
    if not limited.any():
        return ceiling_w
    rated_w = np.where(limited, fleet.p_rated_w, 0.0)
    given_w = np.maximum(np.nan_to_num(batteries_w), 0.0)
    left_w = _left_w(fleet, snapshot, available)[:, None]
    left_w = np.maximum(left_w - np.column_stack([behind(fleet, step_w) for step_w in given_w.T]), 0.0)
    behind_w = behind(fleet, rated_w)[:, None]
    part = np.divide(left_w, behind_w, out=np.ones_like(left_w), where=behind_w > left_w)
    full: BoolArray = np.logical_or.reduce(part < 1.0, axis=1)
    bound = np.flatnonzero(limited & full[fleet.connection])
    ceiling_w[bound] = rated_w[bound, None] * part[fleet.connection[bound]]
    return ceiling_w


def _left_w(fleet: Fleet, snapshot: TelemetrySnapshot, available: BoolArray) -> FloatArray:
    """What each connection leaves the devices for export that a plan commands, shape (connections,)."""
    planned = (fleet.is_battery | fleet.is_pv) & available
    others_w = behind(fleet, np.where(planned, 0.0, unheld(fleet, snapshot).high_w))
    return np.maximum(fleet.giving_max_w - others_w, 0.0)


def compose(
    devices: Devices,
    forecast: Forecast,
    *,
    past_net_w: FloatArray,
    previous_w: FloatArray,
    timezone: ZoneInfo,
    terms: PlanTerms,
    price: FloatArray | None = None,
    sites: Sites | None = None,
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
        sites=sites,
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
