"""Why a plan of the fleet is as it is: reason codes with the figures they stand on, derived from its record alone."""

from collections.abc import Iterator
from datetime import timedelta, tzinfo

import numpy as np

from derms.domain.plan import PlanSource, Reason, Why
from derms.optimize.fleet import FleetPlan, narrowed
from derms.optimize.master import reserves_w
from derms.optimize.portfolio import Portfolio
from derms.optimize.zones import stores
from derms.service.decided import Decided
from derms.service.words import kw
from derms.service.worth import FLEET_RAMP, HELD_RESERVE, steepest_w

LEAST_FRAC = 1e-3
"""Of the planner's scale, or of what a device can: a smaller difference is no reason."""
DAY_TEXT = "%a %H:%M"
AIMS = {"peak": "peak", "ramp_3h": "three-hour ramp"}
"""What aims are called that can come before all weights."""
ENERGIES = ("state of charge", "energy due")
"""How limits begin whose amounts are energies."""


def counted(count: int, what: str) -> str:
    """`1 device`, `2 devices`."""
    return f"{count} {what}" + "s" * (count != 1)


def fleet_reasons(decided: Decided, zone: tzinfo) -> tuple[Reason, ...]:
    """Why the plan of the fleet is what it is."""
    found = list(rung(decided))
    portfolio, plan = decided.portfolio, decided.fleet_plan
    if portfolio is not None and plan is not None:
        given, _ = narrowed(portfolio.checked())
        found += [*_aims(decided, given, plan, zone), *_desk(decided, given, plan), *_limits(decided, given)]
        found += [*_energy(decided, given, plan, zone), *_trouble(decided, given, plan)]
    found += _eased(decided)
    return tuple(found)


def rung(decided: Decided) -> Iterator[Reason]:
    """Why a plan is none of the optimizer."""
    if decided.plan.source is not PlanSource.OPTIMIZER:
        why = "; ".join(decided.rejected) or decided.plan.reason
        yield Reason(Why.FALLBACK, f"the plan is of {decided.plan.source}: {why}")


def _aims(decided: Decided, given: Portfolio, plan: FleetPlan, zone: tzinfo) -> Iterator[Reason]:
    """What the plan does for peak, ramp and energy, against no store moving and no PV held back."""
    bare_w, net_w = given.feeders.net_load_w.sum(axis=0), plan.solution.net_w
    state, days = decided.planner_state, given.counted()
    if state is not None and state.first:
        first, *then = (AIMS[aim] for aim in state.first)
        yield Reason(Why.ORDER, ", then ".join([f"{first} first", *then, "the rest by weights"]))
    least_w = LEAST_FRAC * (state.scale_w if state is not None else float(np.abs(bare_w).max()))
    for has, floor_w in zip(days.has(), days.peak_w, strict=True):
        before_w, after_w = (float(course_w[has].max(initial=-np.inf)) for course_w in (bare_w, net_w))
        if max(before_w, floor_w) - max(after_w, floor_w) > least_w:
            step = int(np.where(has, bare_w, -np.inf).argmax())
            # A step is of the day of its middle.
            at = (decided.time_of(step) + 0.5 * timedelta(hours=float(given.hours[step]))).astimezone(zone)
            reached = f"; {kw(floor_w)} have been reached already" * bool(np.isfinite(floor_w))
            text = f"highest net load of {at:%a %d %b} {kw(after_w)} instead of {kw(before_w)} at {at:%H:%M}{reached}"
            yield Reason(Why.PEAK, text)
    before_w, after_w = steepest_w(given, bare_w), steepest_w(given, net_w)
    if before_w - after_w > least_w:
        yield Reason(Why.RAMP, f"steepest rise in three hours {kw(after_w)} instead of {kw(before_w)}")
    before, after = (float((given.price * given.hours) @ course_w) for course_w in (bare_w, net_w))
    if before - after > LEAST_FRAC * abs(before):
        yield Reason(Why.ENERGY_PRICE, f"energy costs {(before - after) / abs(before):.1%} less at the prices given")
    held_wh = float((plan.held_w @ given.hours).sum())
    if held_wh > least_w * float(given.hours.min()):
        yield Reason(Why.CURTAILMENT, f"{held_wh / 1e3:.3g} kWh of PV are held back")


def _desk(decided: Decided, given: Portfolio, plan: FleetPlan) -> Iterator[Reason]:
    desk, binds = given.desk, binding(decided)
    for feeder, power_w in desk.hold_w.items():
        yield Reason(
            Why.DESK, f"{kw(power_w)} held on feeder {decided.feeder_name(feeder)} for {60.0 * desk.hold_h:.0f} min"
        )
    if desk.emergency:
        yield Reason(Why.DESK, f"emergency: all that limits allow for {60.0 * desk.hold_h:.0f} min")
    if desk.reserve_up_w > 0.0 or desk.reserve_down_w > 0.0:
        gave_way = HELD_RESERVE in {slack.limit for slack in plan.gave_way}
        text = f"{kw(desk.reserve_up_w)} up and {kw(desk.reserve_down_w)} down are kept free"
        text = _kept(given, plan) if gave_way else text + ", and bind" * (HELD_RESERVE in binds)
        yield Reason(Why.RESERVE, text)
    if FLEET_RAMP in binds:
        yield Reason(Why.FLEET_RAMP, f"the fleet changes by {kw(desk.ramp_w_per_h)} an hour at most, and would by more")


def _kept(given: Portfolio, plan: FleetPlan) -> str:
    """What is left of a reserve that cannot be kept, in the step that leaves least of it."""
    left_w = reserves_w(given, plan.solution.injected_w.sum(axis=0))
    asked_w = (given.desk.reserve_up_w, given.desk.reserve_down_w)
    told = [
        f"asked {kw(asked)} {way}, kept {kw(min(asked, max(float(left.min()), 0.0)))}"
        for way, asked, left in zip(("up", "down"), asked_w, left_w, strict=True)
        if asked > 0.0
    ]
    return "; ".join(told) + ": batteries that are there cannot do more"


def binding(decided: Decided) -> dict[str, int]:
    """Limits that bind, with the number of steps."""
    plan = decided.fleet_plan
    return {} if plan is None else {limit.limit: limit.steps for limit in plan.solution.binding}


def _limits(decided: Decided, given: Portfolio) -> Iterator[Reason]:
    for limit, steps in binding(decided).items():
        if limit not in (HELD_RESERVE, FLEET_RAMP):
            why = Why.NETWORK_ROW if limit in given.rows.names else Why.FEEDER_LIMIT
            yield Reason(why, f"{decided.limit_name(limit)} binds in {steps_of(steps, given)}")


def steps_of(count: int, given: Portfolio) -> str:
    """`3 of 152 steps`."""
    return f"{count} of {len(given.hours)} steps"


def _energy(decided: Decided, given: Portfolio, plan: FleetPlan, zone: tzinfo) -> Iterator[Reason]:
    """When batteries are empty or full: what they would do beyond is done by nobody, or earlier or later."""
    now = stores(given, plan.zones)
    room_wh = LEAST_FRAC * np.maximum(now.high_wh - now.low_wh, 1.0)
    stored_wh = plan.solution.stored_wh
    for word, at in (("empty", stored_wh <= now.low_wh + room_wh), ("full", stored_wh >= now.high_wh - room_wh)):
        count = int(at.any(axis=1).sum())
        if count:
            first = clock(decided, int(at.any(axis=0).argmax()) + 1, zone)
            of, are = len(stored_wh), "is" if count == 1 else "are"
            some = f"{count} of {of} groups of batteries, each planned as one, {are}"
            who = some if of > 1 else "the batteries, planned as one, are"
            text = f"{who} {word} at some time of the plan, first at {first}"
            yield Reason(Why.STATE_OF_CHARGE, text)


def _trouble(decided: Decided, given: Portfolio, plan: FleetPlan) -> Iterator[Reason]:
    for slack in plan.gave_way:
        most = f"{slack.most:.3g}" if slack.limit in given.rows.names else kw(slack.most)
        if slack.limit.startswith(ENERGIES):
            most = f"{slack.most / 1e3:.3g} kWh"
        text = f"{decided.limit_name(slack.limit)} gave way by up to {most} in {steps_of(slack.steps, given)}"
        yield Reason(Why.GAVE_WAY, text)
    lacking_w = np.abs(plan.shares.shortfall_w).sum(axis=0)
    if lacking_w.max(initial=0.0) > LEAST_FRAC * float(given.devices.discharge_max_w.max(axis=1, initial=0.0).sum()):
        yield Reason(Why.SHORTFALL, f"stores cannot do what their zones plan: up to {kw(lacking_w.max())} less")
    if not plan.agreed:
        yield Reason(Why.NOT_AGREED, f"feeders and system problem differ after {counted(plan.rounds, 'round')}")


def _eased(decided: Decided) -> Iterator[Reason]:
    if decided.caps is not None and (eased := decided.caps < 1.0).any():
        text = f"{counted(int(eased.sum()), 'device')} may do less than the rating, the least {decided.caps.min():.0%}"
        yield Reason(Why.EASED, f"{text} of it: the power flow of the plan strained the feeder")


def clock(decided: Decided, step: int, zone: tzinfo) -> str:
    """When a step of the plan begins, for people."""
    return f"{decided.time_of(step).astimezone(zone):{DAY_TEXT}}"
