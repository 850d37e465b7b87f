"""What the dispatcher can still ask of the fleet: power up and down, for how long, and how surely.

Each feeder follows its plan and one and the same power beside it for the whole time, shared out anew in every step, as
long as its stores' power, energy and courses allow. What is told is done by a way of sharing that is written here, so
it can be had; the best way may have somewhat more. Limits of feeders and network rows then cut it back. PV counts for
nothing.

Powers in W, + = injection; energy in Wh.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array

from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.domain.desk import Answers, Headroom, Offer, Reach
from derms.optimize.envelopes import within_envelopes
from derms.optimize.fleet import FleetPlan
from derms.optimize.master import ranked
from derms.optimize.portfolio import Devices, Portfolio
from derms.optimize.share import share
from derms.optimize.sites import within_sites

LASTING_H = (1.0 / 6.0, 1.0, 4.0)
BISECTIONS = 10
TIME_TOLERANCE_H = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Scheduled:
    """Stores and what they are to do, over the steps that count; shapes (n, steps) unless said otherwise."""

    devices: Devices
    hours: FloatArray
    power_w: FloatArray
    held_w: FloatArray
    """PV held back by feeder, shape (feeders, steps)."""
    by_feeder: csr_array
    """Sums over each feeder's stores, shape (feeders, n)."""
    low_wh: FloatArray
    """Least energy at the end of each step."""
    high_wh: FloatArray


def headroom(
    portfolio: Portfolio, plan: FleetPlan, *, answers: Answers | None = None, lasting_h: tuple[float, ...] = LASTING_H
) -> Headroom:
    """What can be had beside, or instead of, a plan that was made from this portfolio.

    Raises
    ------
    PlanError
        The portfolio is absurd.
    """
    given = portfolio.checked()
    expected = answers or Answers()
    times_h = [time_h for time_h in lasting_h if time_h <= given.hours.sum() + TIME_TOLERANCE_H]
    steps = int(np.searchsorted(np.cumsum(given.hours), max(times_h, default=0.0) - TIME_TOLERANCE_H)) + 1
    beside = _scheduled(given, plan, steps)
    instead = replace(beside, power_w=np.zeros_like(beside.power_w), held_w=np.zeros_like(beside.held_w))
    devices = beside.devices
    give_wh = np.maximum(devices.stored_wh - beside.low_wh[:, 0], 0.0) * devices.efficiency_frac
    take_wh = np.maximum(beside.high_wh[:, 0] - devices.stored_wh, 0.0) / devices.efficiency_frac
    return Headroom(
        offers=tuple(
            Offer(
                lasting_h=time_h,
                beside=_reach(given, beside, time_h, expected),
                instead=_reach(given, instead, time_h, expected),
            )
            for time_h in times_h
        ),
        answers=expected,
        energy_up_wh=float(give_wh[devices.discharge_max_w[:, 0] > 0.0].sum()),
        energy_down_wh=float(take_wh[devices.charge_max_w[:, 0] > 0.0].sum()),
    )


def _scheduled(given: Portfolio, plan: FleetPlan, steps: int) -> _Scheduled:
    """Shares of the plan, and what they would go on to be."""
    hours, shape = given.hours[:steps], (len(given.devices), steps)
    devices, _ = within_envelopes(within_sites(given.devices, given.sites, len(given.hours)), given.hours)
    devices = _between(devices, 0, steps)
    shared = min(plan.shares.power_w.shape[1], steps)
    power_w = plan.shares.power_w[:, :shared]
    if shared < steps:
        later = replace(_between(devices, shared, steps), stored_wh=plan.shares.stored_wh)
        wanted_w = plan.solution.injected_w[:, shared:steps]
        power_w = np.hstack([power_w, share(wanted_w, later, plan.zones.zone, hours[shared:]).power_w])
    low_wh, high_wh = (
        np.array(np.broadcast_to(bound_wh[:, None], shape))
        # A store outside its bounds goes no further.
        for bound_wh in (
            np.minimum(devices.stored_min_wh, devices.stored_wh),
            np.maximum(devices.stored_max_wh, devices.stored_wh),
        )
    )
    course = devices.envelopes
    if course is not None:
        low_wh[course.device] = np.maximum(low_wh[course.device], course.low_wh)
        high_wh[course.device] = np.minimum(high_wh[course.device], course.high_wh)
    return _Scheduled(
        devices=devices,
        hours=hours,
        power_w=power_w,
        held_w=plan.held_w[:, :steps],
        by_feeder=csr_array(
            (np.ones(len(devices)), (devices.feeder, np.arange(len(devices)))),
            shape=(len(given.feeders.low_w), len(devices)),
        ),
        low_wh=low_wh,
        high_wh=high_wh,
    )


def _between(devices: Devices, first: int, last: int) -> Devices:
    """The stores with what they can in some of the steps."""
    part, course = slice(first, last), devices.envelopes
    charge_w, discharge_w = (
        most_w if most_w.shape[1] == 1 else most_w[:, part]
        for most_w in (devices.charge_max_w, devices.discharge_max_w)
    )
    if course is not None:
        course = replace(course, low_wh=course.low_wh[:, part], high_wh=course.high_wh[:, part])
    return replace(devices, charge_max_w=charge_w, discharge_max_w=discharge_w, envelopes=course)


def _reach(given: Portfolio, scheduled: _Scheduled, lasting_h: float, answers: Answers) -> Reach:
    within_h = np.clip(lasting_h - (np.cumsum(scheduled.hours) - scheduled.hours), 0.0, scheduled.hours)
    within_h = within_h[: int((within_h > TIME_TOLERANCE_H).sum())]
    up_w, down_w = (
        more_w * _network_part(given, scheduled, more_w, way, len(within_h))[given.devices.feeder]
        for way, more_w in ((way, _more(scheduled, within_h, way)) for way in (1, -1))
    )
    return Reach(
        up_w=float(up_w.sum()),
        down_w=float(down_w.sum()),
        up_sure_w=answers.sure_w(up_w),
        down_sure_w=answers.sure_w(down_w),
    )


def _more(scheduled: _Scheduled, within_h: FloatArray, way: int) -> FloatArray:
    """What each store has in the most that its feeder can add, up (1) or down (-1) [W, >= 0], shape (n,).

    `within_h` is how much of each of the first steps it lasts for.
    """
    count, feeder = len(within_h), scheduled.devices.feeder
    power_w, able_w = scheduled.power_w[:, :count], _alone(scheduled, within_h, way)
    if not power_w.any():
        return able_w
    # A store can give, and cease to take.
    able_w += np.maximum(-way * power_w.mean(axis=1), 0.0)
    most_w = scheduled.devices.discharge_max_w if way > 0 else scheduled.devices.charge_max_w
    planned_w = scheduled.by_feeder @ power_w
    low_w = np.zeros(len(planned_w))
    high_w = np.maximum((scheduled.by_feeder @ most_w[:, :count] - way * planned_w).min(axis=1), 0.0)
    for _ in range(BISECTIONS):
        middle_w = 0.5 * (low_w + high_w)
        followed = _followed(scheduled, planned_w + way * middle_w[:, None], within_h, way)
        low_w, high_w = np.where(followed, middle_w, low_w), np.where(followed, high_w, middle_w)
    total_w = scheduled.by_feeder @ able_w
    more_w: FloatArray = able_w * np.divide(low_w, total_w, out=np.zeros_like(low_w), where=total_w > 0.0)[feeder]
    return more_w


def _alone(scheduled: _Scheduled, within_h: FloatArray, way: int) -> FloatArray:
    """What each store can give (1) or take (-1) all the time without a plan [W, >= 0], shape (n,)."""
    count, devices = len(within_h), scheduled.devices
    if way > 0:
        most_w = devices.discharge_max_w[:, :count]
        room_wh = (devices.stored_wh - scheduled.low_wh[:, :count].max(axis=1)) * devices.efficiency_frac
    else:
        most_w = devices.charge_max_w[:, :count]
        room_wh = (scheduled.high_wh[:, :count].min(axis=1) - devices.stored_wh) / devices.efficiency_frac
    alone_w: FloatArray = np.minimum(most_w.min(axis=1), np.maximum(room_wh, 0.0) / within_h.sum())
    return alone_w


def _followed(scheduled: _Scheduled, asked_w: FloatArray, within_h: FloatArray, way: int) -> BoolArray:
    """Whether the stores of each feeder have as much power (feeders, steps), up (1) or down (-1), shape (feeders,).

    Whoever could go on for longest at full power gives most: each what its energy allows for all of the time that is
    left, and more only where that is not enough.
    """
    devices, efficiency, feeder = scheduled.devices, scheduled.devices.efficiency_frac, scheduled.devices.feeder
    stored_wh, tolerance_w = devices.stored_wh, 1e-6 * np.abs(asked_w).max(axis=1) + 1e-3
    followed = np.ones(len(asked_w), dtype=np.bool_)
    left_h = np.cumsum(within_h[::-1])[::-1]
    for step, dt_h in enumerate(within_h):
        out_w, in_w = (
            most_w[:, min(step, most_w.shape[1] - 1)] for most_w in (devices.discharge_max_w, devices.charge_max_w)
        )
        above_wh, below_wh = stored_wh - scheduled.low_wh[:, step], scheduled.high_wh[:, step] - stored_wh
        most_w = np.clip(_terminal_wh(above_wh, efficiency) / dt_h, -in_w, out_w)
        least_w = np.minimum(np.clip(-_terminal_wh(below_wh, 1.0 / efficiency) / dt_h, -in_w, out_w), most_w)
        rest_w = np.clip(0.0, least_w, most_w)
        lasting_w = np.clip(above_wh * efficiency / left_h[step], rest_w, most_w)
        filling_w = np.clip(-below_wh / efficiency / left_h[step], least_w, rest_w)
        power_w = _along((least_w, filling_w, rest_w, lasting_w, most_w), asked_w[:, step], feeder)
        stored_wh = stored_wh - np.maximum(power_w / efficiency, power_w * efficiency) * dt_h
        followed &= way * (asked_w[:, step] - np.bincount(feeder, power_w, len(asked_w))) <= tolerance_w
    return followed


def _terminal_wh(stored_wh: FloatArray, efficiency: FloatArray) -> FloatArray:
    """What energy in a store is at its terminals: less where it is given, more where it has to be taken."""
    return np.where(stored_wh > 0.0, stored_wh * efficiency, stored_wh / efficiency)


def _along(levels_w: tuple[FloatArray, ...], asked_w: FloatArray, feeder: IntArray) -> FloatArray:
    """Power of each store where those of its feeder go together from level to level, up to what is asked of them."""
    power_w = levels_w[0]
    before_w = np.bincount(feeder, power_w, len(asked_w))
    for low_w, high_w in pairwise(levels_w):
        rise_w = np.bincount(feeder, high_w - low_w, len(asked_w))
        part = np.clip(np.divide(asked_w - before_w, rise_w, out=np.zeros_like(rise_w), where=rise_w > 0.0), 0.0, 1.0)
        power_w = power_w + part[feeder] * (high_w - low_w)
        before_w = before_w + rise_w
    return power_w


def _network_part(given: Portfolio, scheduled: _Scheduled, more_w: FloatArray, way: int, count: int) -> FloatArray:
    """What part of it each feeder's limits and rows leave in the first `count` steps, shape (feeders,)."""
    feeders, rows, on = given.feeders, given.rows, scheduled.by_feeder
    power_w, held_w = scheduled.power_w[:, :count], scheduled.held_w[:, :count]
    load_w, base = feeders.net_load_w[:, :count], rows.base[:, :count]
    flow_w = load_w - on @ power_w + held_w
    value = base + rows.per_w @ power_w - rows.per_pv_w[:, None] * held_w[rows.feeder]
    part = np.ones(len(load_w))
    low, high = ranked(feeders.low_w, feeders.high_w, load_w, feeders.rank)
    _cut(part, np.arange(len(part)), -way * (on @ more_w), flow_w - low, high - flow_w)
    low, high = ranked(rows.low + rows.margin, rows.high - rows.margin, base, rows.rank)
    _cut(part, rows.feeder, way * (rows.per_w @ more_w), value - low, high - value)
    return part


def _cut(part: FloatArray, feeder: IntArray, moved: FloatArray, below: FloatArray, above: FloatArray) -> None:
    """Narrow the part of each feeder, in place, to what leaves a limit its room; moved (rows,), room (rows, steps)."""
    room = np.maximum(np.where(moved > 0.0, above.min(axis=1), below.min(axis=1)), 0.0)
    kept = np.divide(room, np.abs(moved), out=np.ones_like(room), where=np.abs(moved) > room)
    np.minimum.at(part, feeder, kept)
