"""What the limits of a plan cost: shadow prices as money, and what would be if one of them were a little wider.

The plain unit of the objective is the scale's worth of system peak at weight 1. What a kW of peak costs turns it into
money, so a price here is worth as much as that one is: it says what the next kW of room would save if the peak of this
plan were the one that is billed, and holds for small changes only.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from derms.domain.arrays import FloatArray
from derms.errors import PlanError
from derms.optimize.fleet import FleetPlan, FleetPlanner, PlannerState, size_of_limits
from derms.optimize.horizon import period_means, period_of
from derms.optimize.master import Binding, feeder_limit
from derms.optimize.portfolio import Portfolio
from derms.service.decided import Decided

WIDER_FRAC = 0.05
"""By which a limit is widened to see what it costs."""
WIDENED_MAX = 5
"""Limits that are tried, the dearest first: each is two re-plans."""
GROWN_MAX = 3
"""Times that the problem may have to model more for a wider limit, before it is compared as it is."""
BATTERIES = "batteries"
REST_H = 1.0
"""For which nothing is done, to see what doing something now is worth."""
OF_ITSELF, OF_STRONGEST = "of it", "of what moves it most"
HELD_RESERVE, FLEET_RAMP = "held reserve", "fleet ramp"
"""What the planner calls these limits."""


@dataclass(frozen=True, slots=True)
class Worth:
    """A limit that binds, and its shadow price."""

    limit: str
    steps: int
    """In which it binds."""
    of: str
    """Of what a kW is meant: of the limit itself, or of what moves a voltage or current most."""
    per_kw: float
    """Objective won per kW of more room, over all steps in which it binds."""
    usd_per_kw: float
    """The same as money; NaN where the peak has no weight, or the limit gives way: then it is the penalty for that."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a re-plan with a wider limit does differently."""

    limit: str
    wider: str
    peak_less_w: float = np.nan
    rise_less_w: float = np.nan
    """Of the steepest rise over three hours."""
    gives_more_w: float = np.nan
    """Greatest power of the fleet, + = injection."""
    takes_more_w: float = np.nan
    moved_w: float = np.nan
    """Greatest difference of what the stores of a feeder do in a step."""
    held_less_wh: float = np.nan
    """PV."""
    usd: float = np.nan
    """Of the whole objective, as money; NaN where the peak has no weight, or a penalty for what gave way is in it."""
    usd_peaks: float = np.nan
    """Of that what the peaks of all days are worth."""
    usd_rises: float = np.nan
    """And what their steepest rises over three hours are; the rest is of the other aims."""
    gives_way: tuple[str, ...] = ()
    """Limits that give way in the re-plan, and do not in the plan."""
    wrong: str = ""
    """Why there was no such plan."""


def usd_per_objective(state: PlannerState, peak_price: float) -> float:
    """Money [$] in a unit of the objective at a price of system peak [$/kW]; NaN where the peak has no weight."""
    weight = state.weights.peak
    return peak_price * state.scale_w / 1e3 / weight if weight > 0.0 else float("nan")


def worths(decided: Decided, peak_price: float) -> tuple[Worth, ...]:
    """The limits that bind, the dearest first."""
    portfolio, plan, state = decided.portfolio, decided.fleet_plan, decided.planner_state
    if portfolio is None or plan is None or state is None:
        return ()
    money = usd_per_objective(state, peak_price)
    gave_way = {slack.limit for slack in plan.solution.slacks}
    found = [
        _worth(binding, portfolio, float("nan") if binding.limit in gave_way else money)
        for binding in plan.solution.binding
    ]
    return tuple(sorted(found, key=lambda worth: -worth.per_kw))


def _worth(binding: Binding, portfolio: Portfolio, money: float) -> Worth:
    per_kw, of = binding.per_mw / 1e3, OF_ITSELF
    if binding.limit in portfolio.rows.names:
        row = portfolio.rows.names.index(binding.limit)
        per_kw, of = per_kw * strongest_per_w(portfolio, row), OF_STRONGEST
    return Worth(binding.limit, binding.steps, of, per_kw, per_kw * money)


def strongest_per_w(portfolio: Portfolio, row: int) -> float:
    """The most by which a W of any store, or of PV, moves a network row [its unit]."""
    rows = portfolio.rows
    by_stores = np.abs(rows.per_w[[row], :].data).max(initial=0.0)
    return float(max(by_stores, abs(rows.per_pv_w[row])))


def effects(decided: Decided, peak_price: float) -> Iterator[Effect]:
    """Re-plan with each of the dearest limits wider, from the inputs that are stored."""
    portfolio, state = decided.portfolio, decided.planner_state
    binding = worths(decided, peak_price)
    if portfolio is None or state is None or not binding:
        return
    planner = FleetPlanner.resumed(state)
    tried = [(worth, wider) for worth in binding if (wider := widened(portfolio, worth.limit)) is not None]
    tried.sort(key=lambda pair: -pair[0].per_kw * pair[1].room_kw)
    for worth, wider in tried[:WIDENED_MAX]:
        try:
            before, after = _pair(planner, portfolio, wider.portfolio, decided.iterations)
        except PlanError as error:
            yield Effect(worth.limit, wider.words, wrong=str(error))
        else:
            yield _effect(worth.limit, wider.words, portfolio, before, after, state, peak_price)


def at_rest(decided: Decided, peak_price: float) -> Effect | None:
    """Re-plan with no battery moving for REST_H: what the plan does now is worth as much as this one is worse."""
    portfolio, state = decided.portfolio, decided.planner_state
    if portfolio is None or state is None or decided.fleet_plan is None:
        return None
    devices, later = portfolio.devices, np.cumsum(portfolio.hours) > REST_H + 1e-9
    resting = replace(
        devices, charge_max_w=devices.charge_max_w * later, discharge_max_w=devices.discharge_max_w * later
    )
    words = f"at rest for the first {REST_H:g} h"
    try:
        planner, idle = FleetPlanner.resumed(state), replace(portfolio, devices=resting)
        before, after = _pair(planner, portfolio, idle, decided.iterations)
    except PlanError as error:
        return Effect(BATTERIES, words, wrong=str(error))
    return _effect(BATTERIES, words, portfolio, before, after, state, peak_price)


def _pair(
    planner: FleetPlanner, portfolio: Portfolio, wider: Portfolio, iterations: int
) -> tuple[FleetPlan, FleetPlan]:
    """Plans of both from one and the same problem: where one of them needs more modelled, the other has it too."""
    for _ in range(GROWN_MAX):
        before = planner.plan(portfolio, iterations=iterations)
        built = planner.state().built
        after = planner.plan(wider, iterations=iterations)
        if planner.state().built is built:
            break
    return before, after


def _effect(
    limit: str,
    words: str,
    portfolio: Portfolio,
    before: FleetPlan,
    after: FleetPlan,
    state: PlannerState,
    peak_price: float,
) -> Effect:
    money = usd_per_objective(state, peak_price)
    fleet_w = [plan.solution.injected_w.sum(axis=0) for plan in (before, after)]
    held_wh = [float((plan.held_w @ portfolio.hours).sum()) for plan in (before, after)]
    net_w = [plan.solution.net_w for plan in (before, after)]
    known = {slack.limit for slack in before.gave_way}
    if before.solution.slacks or after.solution.slacks:
        money = float("nan")
    aims = [course_aims_w(portfolio, course_w) for course_w in net_w]
    peaks_w, rises_w = (old_w - new_w for old_w, new_w in zip(*aims, strict=True))
    return Effect(
        limit,
        words,
        peak_less_w=float(net_w[0].max() - net_w[1].max()),
        rise_less_w=steepest_w(portfolio, net_w[0]) - steepest_w(portfolio, net_w[1]),
        gives_more_w=float(fleet_w[1].max() - fleet_w[0].max()),
        takes_more_w=float(fleet_w[0].min() - fleet_w[1].min()),
        moved_w=float(np.abs(before.feeder_w - after.feeder_w).max()),
        held_less_wh=held_wh[0] - held_wh[1],
        usd=(before.solution.objective - after.solution.objective) * money,
        usd_peaks=state.weights.peak * peaks_w / state.scale_w * money,
        usd_rises=state.weights.ramp_3h * rises_w / state.scale_w * money,
        gives_way=tuple(slack.limit for slack in after.gave_way if slack.limit not in known),
    )


def course_aims_w(portfolio: Portfolio, net_w: FloatArray) -> tuple[float, float]:
    """What the objective counts of a course of net load: the sum over days of peaks, and of steepest rises [W]."""
    days, hours, past_w = portfolio.counted(), portfolio.hours, portfolio.past_net_w
    has = days.has()
    peaks_w = np.maximum(np.where(has, net_w, -np.inf).max(axis=1), days.peak_w)[has.any(axis=1)]
    course_w = np.concatenate([past_w, period_means(hours, portfolio.period_h) @ net_w])
    # A period is of the day in which it ends.
    last = np.flatnonzero(np.diff(period_of(hours, portfolio.period_h), append=-1))
    rises_w = np.where(has[:, last], course_w[len(past_w) :] - course_w[: -len(past_w)], 0.0).max(axis=1)
    return float(peaks_w.sum()), float(np.maximum(np.maximum(rises_w, days.rise_w), 0.0).sum())


def steepest_w(portfolio: Portfolio, net_w: FloatArray) -> float:
    """Steepest rise of net load over three hours [W], the three before now included; 0 where it only falls."""
    past_w = portfolio.past_net_w
    course_w = np.concatenate([past_w, period_means(portfolio.hours, portfolio.period_h) @ net_w])
    return float((course_w[len(past_w) :] - course_w[: -len(past_w)]).max(initial=0.0))


@dataclass(frozen=True, slots=True)
class Wider:
    """A portfolio with one limit wider."""

    portfolio: Portfolio
    room_kw: float
    """By how much, in the kW of its worth."""
    words: str


def widened(portfolio: Portfolio, limit: str) -> Wider | None:
    """The portfolio with a limit wider by WIDER_FRAC; None for a limit of which nobody knows what wider is."""
    desk, feeders, rows, more = portfolio.desk, portfolio.feeders, portfolio.rows, WIDER_FRAC
    feeder = {feeder_limit(feeder): feeder for feeder in range(len(feeders.low_w))}.get(limit)
    if feeder is not None:
        at = np.arange(len(feeders.low_w)) == feeder
        low_w = np.where(at, feeders.low_w - more * np.abs(feeders.low_w), feeders.low_w)
        high_w = np.where(at, feeders.high_w + more * np.abs(feeders.high_w), feeders.high_w)
        wider = replace(portfolio, feeders=replace(feeders, low_w=low_w, high_w=high_w))
        return Wider(wider, float(more * np.abs(feeders.high_w[feeder]) / 1e3), f"{more:.0%} more")
    if limit in rows.names:
        room = more * size_of_limits(rows.low, rows.high) * (np.arange(len(rows)) == rows.names.index(limit))
        wider = replace(portfolio, rows=replace(rows, low=rows.low - room, high=rows.high + room))
        room_kw = float(room.max()) / max(1e3 * strongest_per_w(portfolio, rows.names.index(limit)), 1e-12)
        return Wider(wider, room_kw, f"{more:.0%} of its range more on both sides")
    if limit == HELD_RESERVE:
        up_w, down_w = desk.reserve_up_w * (1.0 - more), desk.reserve_down_w * (1.0 - more)
        wider = replace(portfolio, desk=replace(desk, reserve_up_w=up_w, reserve_down_w=down_w))
        return Wider(wider, more * max(desk.reserve_up_w, desk.reserve_down_w) / 1e3, f"{more:.0%} less held")
    if limit == FLEET_RAMP:
        wider = replace(portfolio, desk=replace(desk, ramp_w_per_h=desk.ramp_w_per_h * (1.0 + more)))
        return Wider(wider, more * desk.ramp_w_per_h * float(portfolio.hours.mean()) / 1e3, f"{more:.0%} more")
    return None
