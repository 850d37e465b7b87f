"""What forecasts and horizon win of what could be won: a year in closed loop by the hour, against perfect foresight.

`value_world.py` says what the year is and how it is scored. Each hour is planned when its own demand and PV are known
and nothing later is. Demand is learned from the years before; PV is known by its rating, the clear sky and the hours
already seen. Done with exact forecasts, with the product's own, with one of the two exact, and on the band of demand
instead of its middle. `--labels end` takes the other reading of the demand's labels. The last line is one JSON object;
its peak and ramp are the greatest of the year.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np
from scipy.sparse import csr_array

from derms.domain.arrays import FloatArray
from derms.domain.settings import PlanWeights
from derms.forecast.demand import DemandModel
from derms.forecast.features import LEADS_MAX
from derms.forecast.history import history_of
from derms.forecast.pv import clear_sky_pu
from derms.forecast.sun import cloud_memory, pv_ahead
from derms.optimize.fleet import FleetPlanner
from derms.optimize.portfolio import Days, Devices, Feeders, Portfolio, Rank, Rows
from tests.bench.value_bound import perfect
from tests.bench.value_world import (
    BATTERY_GW,
    DAY_H,
    DC_PER_AC,
    EFFICIENCY,
    ENERGY_MAX_GWH,
    ENERGY_MIN_GWH,
    ENERGY_START_GWH,
    HOUR_S,
    LATITUDE_DEG,
    LONGITUDE_DEG,
    PV_RATED_GW,
    RAMP_H,
    Labels,
    Records,
    Score,
    demand_of,
    records,
    score,
    weather_pv_gw,
    year_start_s,
)

YEAR = 2023
ZONE = ZoneInfo("America/Los_Angeles")
HOURS_AHEAD = 47
"""Plans reach over 48 hours, of which the first is known."""
DAYS = 3
"""That 48 hours can touch."""
WEIGHTS = PlanWeights(throughput=2.0, change=0.0, spread=0.0, terminal=0.0)
"""The score, in the horizon's own terms."""
STORES = 10
"""The planner takes a single device of a gigawatt for a mistake."""
FREE_GW = 50.0
"""A feeder's limit that never binds."""
NOBODY = np.zeros(0)
NO_ROWS = Rows(
    names=(),
    feeder=np.zeros(0, dtype=np.intp),
    base=np.zeros((0, HOURS_AHEAD + 1)),
    low=NOBODY,
    high=NOBODY,
    margin=NOBODY,
    rank=np.zeros(0, dtype=np.intp),
    per_w=csr_array((0, STORES)),
    per_pv_w=NOBODY,
)
IDLE_GW = 1e-3
QUARTERS = 4
GW = 1e9
MIDDLE = 1
"""Of three quantiles, the forecast itself."""


@dataclass(frozen=True)
class Course:
    """How a year went."""

    net_gw: FloatArray
    battery_gw: FloatArray

    @property
    def score(self) -> Score:
        """See `value_world.score`."""
        return score(self.net_gw, float(np.abs(self.battery_gw).sum()))

    @property
    def sign_changes_per_h(self) -> float:
        """How often charging turns to discharging or back; an idle hour between does not hide it."""
        busy = self.battery_gw[np.abs(self.battery_gw) > IDLE_GW]
        return float(np.count_nonzero(np.diff(np.sign(busy))) / self.battery_gw.size)


class Battery:
    """The battery as it is: what a plan asks for within power and energy."""

    def __init__(self) -> None:
        self.energy_gwh = ENERGY_START_GWH

    def move(self, wanted_gw: float) -> float:
        """Charge (+) or discharge for an hour; returns what was possible [GW]."""
        room_gw = (ENERGY_MAX_GWH - self.energy_gwh) / EFFICIENCY
        left_gw = (self.energy_gwh - ENERGY_MIN_GWH) * EFFICIENCY
        power_gw = float(np.clip(wanted_gw, -min(BATTERY_GW, left_gw), min(BATTERY_GW, room_gw)))
        self.energy_gwh += power_gw * EFFICIENCY if power_gw > 0.0 else power_gw / EFFICIENCY
        return power_gw


def portfolio(net_gw: FloatArray, past_gw: FloatArray, stored_gwh: float, days: Days) -> Portfolio:
    """The battery as equal stores on one feeder without limits: net load of the coming hours and of the last three."""
    steps, one, each = net_gw.size, np.ones(1), np.full(STORES, GW / STORES)
    power_w = BATTERY_GW * each[:, None]
    return Portfolio(
        hours=np.ones(steps),
        period_h=1.0,
        days=days,
        devices=Devices(
            feeder=np.zeros(STORES, dtype=np.intp),
            charge_max_w=power_w,
            discharge_max_w=power_w,
            stored_wh=stored_gwh * each,
            stored_min_wh=ENERGY_MIN_GWH * each,
            stored_max_wh=ENERGY_MAX_GWH * each,
            efficiency_frac=np.full(STORES, EFFICIENCY),
            available=np.ones(STORES, dtype=np.bool_),
        ),
        feeders=Feeders(
            net_load_w=net_gw[None] * GW,
            pv_w=np.zeros((1, steps)),
            low_w=-FREE_GW * GW * one,
            high_w=FREE_GW * GW * one,
            rank=np.full(1, Rank.HARD.value),
        ),
        rows=NO_ROWS,
        past_net_w=past_gw * GW,
        previous_w=np.zeros((1, steps)),
        price=np.zeros(steps),
    )


def closed_loop(net_gw: FloatArray, later_gw: FloatArray) -> Course:
    """Plan every hour anew and do the first hour of each plan.

    Parameters
    ----------
    net_gw : FloatArray
        Net load without the battery [GW], shape (hours,); known up to the hour that is planned.
    later_gw : FloatArray
        What is expected after each hour, shape (hours, HOURS_AHEAD).
    """
    planner = FleetPlanner(WEIGHTS, scale_w=GW, shared_steps=1)
    battery, done_gw = Battery(), np.zeros(net_gw.size)
    # Before the first hour the net load is taken to have been as in it.
    course_gw = np.concatenate([np.full(RAMP_H, net_gw[0]), net_gw])
    peak_gw, ramp_gw = -np.inf, 0.0
    for hour in range(net_gw.size):
        if hour % DAY_H == 0:
            peak_gw, ramp_gw = -np.inf, 0.0
        day = (hour % DAY_H + np.arange(HOURS_AHEAD + 1)) // DAY_H
        peaks, rises = np.full(DAYS, -np.inf), np.full(DAYS, -np.inf)
        peaks[0], rises[0] = peak_gw, ramp_gw
        given = portfolio(
            np.concatenate([net_gw[hour : hour + 1], later_gw[hour]]),
            course_gw[hour : hour + RAMP_H],
            battery.energy_gwh,
            Days(day=day, peak_w=peaks * GW, rise_w=rises * GW),
        )
        done_gw[hour] = battery.move(-float(planner.plan(given).shares.power_w.sum()) / GW)
        now_gw = net_gw[hour] + done_gw[hour]
        course_gw[hour + RAMP_H] = now_gw
        peak_gw, ramp_gw = max(peak_gw, now_gw), max(ramp_gw, now_gw - course_gw[hour])
    return Course(course_gw[RAMP_H:], done_gw)


def demand_after(known: Records, year: int, hours: int) -> FloatArray:
    """Demand after each hour of a year [GW], shape (hours, HOURS_AHEAD); fitted on the years before.

    A forecast begins at the wall-clock hour after the last one known; see `History` for the days with 23 and 25.
    """
    history = history_of(known.starts_s + HOUR_S, known.demand_gw * GW, ZONE)
    starts_s = year_start_s(year) + HOUR_S * np.arange(hours + HOURS_AHEAD + 1, dtype=np.float64)
    places = history.place(starts_s)
    model = DemandModel(history, before=int(places[0]))
    origins = places[1 : hours + 1]
    load_w = model.predict(history, origins)
    leads = places[np.arange(hours)[:, None] + np.arange(1, HOURS_AHEAD + 1)] - origins[:, None]
    wanted_w = np.take_along_axis(load_w[:, :, MIDDLE], np.clip(leads, 0, LEADS_MAX - 1), axis=1)
    return wanted_w / GW


def clear_sky_hours_pu(year: int, first: int, last: int) -> FloatArray:
    """Clear-sky power of the PV in hours of a year, per unit of its rating and limited by its inverters."""
    quarters_s = year_start_s(year) + HOUR_S / QUARTERS * (np.arange(first * QUARTERS, last * QUARTERS) + 0.5)
    clear_pu = clear_sky_pu(np.asarray(quarters_s, dtype=np.float64), LATITUDE_DEG, LONGITUDE_DEG)
    mean_pu: FloatArray = np.minimum(clear_pu, 1.0 / DC_PER_AC).reshape(-1, QUARTERS).mean(axis=1)
    return mean_pu


def pv_after(pv_gw: FloatArray, year: int) -> FloatArray:
    """PV after each hour of a year as the sky seen until then makes likely [GW], shape (hours, HOURS_AHEAD)."""
    seen_pu = pv_gw / PV_RATED_GW
    clear_pu = clear_sky_hours_pu(year, 0, pv_gw.size + LEADS_MAX)
    origins = 1 + np.arange(pv_gw.size)
    found_pu = pv_ahead(cloud_memory(seen_pu, clear_pu[: seen_pu.size]), clear_pu, origins, np.arange(HOURS_AHEAD))
    return PV_RATED_GW * found_pu[:, :, MIDDLE]


def as_it_comes(course_gw: FloatArray) -> FloatArray:
    """What comes after each hour, shape (hours, HOURS_AHEAD); after the end of the records, the last day again."""
    extended = np.concatenate([course_gw, *[course_gw[-DAY_H:]] * (DAYS - 1)])
    later_gw: FloatArray = extended[np.arange(course_gw.size)[:, None] + np.arange(1, HOURS_AHEAD + 1)]
    return later_gw


def measure(year: int, labels: Labels) -> dict[str, float]:
    """Run the year without battery, with perfect foresight and in closed loop on several forecasts."""
    began_s = time.perf_counter()
    known = records(labels)
    demand_gw = demand_of(known, year)
    pv_gw = weather_pv_gw(year)[: demand_gw.size]
    net_gw = demand_gw - pv_gw
    true_demand_gw, true_pv_gw = as_it_comes(demand_gw), as_it_comes(pv_gw)
    own_demand_gw, own_pv_gw = demand_after(known, year, demand_gw.size), pv_after(pv_gw, year)
    scores = {"none": score(net_gw, 0.0), "bound": score(*perfect(net_gw))}
    for name, later_gw in {
        "exact": true_demand_gw - true_pv_gw,
        "exact PV": own_demand_gw - true_pv_gw,
        "exact demand": true_demand_gw - own_pv_gw,
    }.items():
        scores[name] = closed_loop(net_gw, later_gw).score
    run = closed_loop(net_gw, own_demand_gw - own_pv_gw)
    scores["ours"] = run.score
    tell(scores)
    none, bound, ours = scores["none"], scores["bound"], scores["ours"]
    three = {"none": none, "bound": bound, "ours": ours}
    return {
        "captured_share": round(captured_share(scores, "ours"), 4),
        "captured_share_exact": round(captured_share(scores, "exact"), 4),
        "regret_pct": round(100.0 * (ours.total / bound.total - 1.0), 2),
        **{f"score_{name}": round(part.total, 1) for name, part in three.items()},
        **{f"peak_gw_{name}": round(part.peak, 3) for name, part in three.items()},
        **{f"ramp3h_gw_{name}": round(part.ramp, 3) for name, part in three.items()},
        "sign_changes_per_h": round(run.sign_changes_per_h, 4),
        "wall_s": round(time.perf_counter() - began_s, 1),
    }


def captured_share(scores: Mapping[str, Score], name: str) -> float:
    """Of what perfect foresight wins over no battery, how much a run won."""
    none, bound = scores["none"].total, scores["bound"].total
    return (none - scores[name].total) / (none - bound)


def tell(scores: Mapping[str, Score]) -> None:
    """Print the parts of every score: sums over the days, and what they come to."""
    print(f"{'':14s}{'score':>8s}{'peaks':>9s}{'ramps':>8s}{'changes':>9s}{'captured':>10s}")
    for name, part in scores.items():
        parts = f"{part.total:8.1f}{part.peaks:9.1f}{part.ramps:8.1f}{part.changes:9.1f}"
        print(f"{name:14s}{parts}{captured_share(scores, name):10.4f}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", choices=("begin", "end"), default="begin", help="what the demand's labels mark")
    labels: Labels = "end" if parser.parse_args().labels == "end" else "begin"
    print(json.dumps({"bench": "value", **measure(YEAR, labels)}))


if __name__ == "__main__":
    main()
