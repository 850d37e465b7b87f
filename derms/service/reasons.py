"""Why a decision is as it is: reason codes with the figures that they stand on, derived from its record alone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import tzinfo

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.dispatch import (
    Applied,
    Clamped,
    CommandRecord,
    Expired,
    Failed,
    NotFollowing,
    Rejected,
    Superseded,
    Unknown,
)
from derms.domain.plan import PlanSource, Reason, Why
from derms.domain.quality import Quality
from derms.optimize.fleet import FleetPlan, narrowed
from derms.optimize.portfolio import Devices, Portfolio
from derms.optimize.share import Fairness
from derms.optimize.zones import stores
from derms.service.decided import Decided
from derms.service.worth import FLEET_RAMP, HELD_RESERVE, steepest_w

LEAST_FRAC = 1e-3
"""Of the planner's scale, or of what a device can: a smaller difference is no reason."""
DAY_TEXT = "%a %H:%M"
ENERGIES = ("state of charge", "energy due")
"""How limits begin whose amounts are energies."""

RULES = {
    Fairness.TIME_TO_GO: "those that can go on longest give most, so that all run out together",
    Fairness.PRO_RATA: "all give the same share of what they can",
    Fairness.IN_ORDER: "one after the other, each all that it can",
}


def kw(power_w: float) -> str:
    """A power for people; less than a watt is none."""
    value_kw = power_w / 1e3 if abs(power_w) >= 1.0 or np.isnan(power_w) else 0.0
    return f"{value_kw:,.0f} kW" if abs(value_kw) >= 100.0 else f"{value_kw:.3g} kW"


def counted(count: int, what: str) -> str:
    """`1 device`, `2 devices`."""
    return f"{count} {what}" + "s" * (count != 1)


def fleet_reasons(decided: Decided, zone: tzinfo) -> tuple[Reason, ...]:
    """Why the plan of the fleet is what it is."""
    found = list(_rung(decided))
    portfolio, plan = decided.portfolio, decided.fleet_plan
    if portfolio is not None and plan is not None:
        given, _ = narrowed(portfolio.checked())
        found += [*_aims(decided, given, plan, zone), *_desk(decided, given), *_limits(decided, given)]
        found += [*_energy(decided, given, plan, zone), *_trouble(decided, given, plan)]
    found += _eased(decided)
    return tuple(found)


def _rung(decided: Decided) -> Iterator[Reason]:
    if decided.plan.source is not PlanSource.OPTIMIZER:
        why = "; ".join(decided.rejected) or decided.plan.reason
        yield Reason(Why.FALLBACK, f"the plan is of {decided.plan.source}: {why}")


def _aims(decided: Decided, given: Portfolio, plan: FleetPlan, zone: tzinfo) -> Iterator[Reason]:
    """What the plan does for peak, ramp and energy, against no store moving and no PV held back."""
    bare_w, net_w = given.feeders.net_load_w.sum(axis=0), plan.solution.net_w
    state, days = decided.planner_state, given.counted()
    least_w = LEAST_FRAC * (state.scale_w if state is not None else float(np.abs(bare_w).max()))
    for has, floor_w in zip(days.has(), days.peak_w, strict=True):
        before_w, after_w = (float(course_w[has].max(initial=-np.inf)) for course_w in (bare_w, net_w))
        if max(before_w, floor_w) - max(after_w, floor_w) > least_w:
            at = _clock(decided, int(np.where(has, bare_w, -np.inf).argmax()), zone)
            reached = f"; {kw(floor_w)} have been reached already" * bool(np.isfinite(floor_w))
            yield Reason(Why.PEAK, f"highest net load {kw(after_w)} instead of {kw(before_w)} ({at}){reached}")
    before_w, after_w = steepest_w(given, bare_w), steepest_w(given, net_w)
    if before_w - after_w > least_w:
        yield Reason(Why.RAMP, f"steepest rise in three hours {kw(after_w)} instead of {kw(before_w)}")
    before, after = (float((given.price * given.hours) @ course_w) for course_w in (bare_w, net_w))
    if before - after > LEAST_FRAC * abs(before):
        yield Reason(Why.ENERGY_PRICE, f"energy costs {(before - after) / abs(before):.1%} less at the prices given")
    held_wh = float((plan.held_w @ given.hours).sum())
    if held_wh > least_w * float(given.hours.min()):
        yield Reason(Why.CURTAILMENT, f"{held_wh / 1e3:.3g} kWh of PV are held back")


def _desk(decided: Decided, given: Portfolio) -> Iterator[Reason]:
    desk, binding = given.desk, _binding(decided)
    for feeder, power_w in desk.hold_w.items():
        yield Reason(Why.DESK, f"{kw(power_w)} held on feeder {decided.feeder_name(feeder)} for {desk.hold_h:g} h")
    if desk.emergency:
        yield Reason(Why.DESK, f"emergency: all that limits allow for {desk.hold_h:g} h")
    if desk.reserve_up_w > 0.0 or desk.reserve_down_w > 0.0:
        text = f"{kw(desk.reserve_up_w)} up and {kw(desk.reserve_down_w)} down are kept free"
        yield Reason(Why.RESERVE, text + ", and bind" * (HELD_RESERVE in binding))
    if FLEET_RAMP in binding:
        yield Reason(Why.FLEET_RAMP, f"the fleet changes by {kw(desk.ramp_w_per_h)} an hour at most, and would by more")


def _binding(decided: Decided) -> dict[str, int]:
    """Limits that bind, with the number of steps."""
    plan = decided.fleet_plan
    return {} if plan is None else {limit.limit: limit.steps for limit in plan.solution.binding}


def _limits(decided: Decided, given: Portfolio) -> Iterator[Reason]:
    for limit, steps in _binding(decided).items():
        if limit not in (HELD_RESERVE, FLEET_RAMP):
            why = Why.NETWORK_ROW if limit in given.rows.names else Why.FEEDER_LIMIT
            yield Reason(why, f"{decided.limit_name(limit)} binds in {_steps(steps, given)}")


def _steps(count: int, given: Portfolio) -> str:
    return f"{count} of {len(given.hours)} steps"


def _energy(decided: Decided, given: Portfolio, plan: FleetPlan, zone: tzinfo) -> Iterator[Reason]:
    """When zones are empty or full: what they would do beyond is done by nobody, or earlier or later."""
    now = stores(given, plan.zones)
    room_wh = LEAST_FRAC * np.maximum(now.high_wh - now.low_wh, 1.0)
    stored_wh = plan.solution.stored_wh
    for word, at in (("empty", stored_wh <= now.low_wh + room_wh), ("full", stored_wh >= now.high_wh - room_wh)):
        count = int(at.any(axis=1).sum())
        if count:
            first = _clock(decided, int(at.any(axis=0).argmax()) + 1, zone)
            text = f"{count} of {counted(len(stored_wh), 'zone')} {word} at some time, the first at {first}"
            yield Reason(Why.STATE_OF_CHARGE, text)


def _trouble(decided: Decided, given: Portfolio, plan: FleetPlan) -> Iterator[Reason]:
    for slack in plan.gave_way:
        most = f"{slack.most:.3g}" if slack.limit in given.rows.names else kw(slack.most)
        if slack.limit.startswith(ENERGIES):
            most = f"{slack.most / 1e3:.3g} kWh"
        text = f"{decided.limit_name(slack.limit)} gave way by up to {most} in {_steps(slack.steps, given)}"
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


def _clock(decided: Decided, step: int, zone: tzinfo) -> str:
    return f"{decided.time_of(step).astimezone(zone):{DAY_TEXT}}"


@dataclass(frozen=True, slots=True)
class DeviceWhy:
    """One device's part in a decision; NaN where a value is not there."""

    der: str
    quality: str
    age_s: float
    soc_frac: float
    p_set_w: float
    """Setpoint at the first support point, + = injection; NaN: not commanded."""
    p_limit_w: float
    reasons: tuple[Reason, ...]
    share: "Share | None"
    """None for what is no store of the plan."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a store has of the plan."""

    power_w: tuple[float, ...]
    """In each shared step, + = injection."""
    zone: int
    zone_stores: int
    zone_w: float
    """Power of the zone in the first step."""
    feeder: str
    rule: str
    """How the zone's power is shared."""


def device_reasons(decided: Decided, der: str, outcomes: Iterable[CommandRecord], zone: tzinfo) -> DeviceWhy:
    """What one device of the record does, and why; `outcomes` are the ends of its commands of this plan.

    Raises
    ------
    KeyError
        The fleet of the record has no such device.
    """
    if der not in decided.device_ids:
        raise KeyError(der)
    row = decided.device_ids.index(der)
    snapshot, dispatch, store = decided.snapshot, decided.dispatch, decided.store_of(row)
    plan, portfolio = decided.fleet_plan, decided.portfolio
    reasons, share = list(_rung(decided)), None
    if plan is not None and portfolio is not None:
        if store is None:
            reasons.append(Reason(Why.NOT_DISPATCHED, "it is no store of the plan"))
        else:
            share = _share(decided, portfolio, plan, store)
            reasons += _store_reasons(decided, portfolio, plan, store, zone)
    return DeviceWhy(
        der=der,
        quality="" if snapshot is None else Quality(int(snapshot.quality[row])).name.lower(),
        age_s=np.nan if snapshot is None else float(snapshot.age_s[row]),
        soc_frac=np.nan if snapshot is None else float(snapshot.soc_frac[row]),
        p_set_w=np.nan if dispatch is None else float(dispatch.p_set_w[row, 0]),
        p_limit_w=np.nan if dispatch is None else float(dispatch.p_limit_w[row, 0]),
        reasons=(*reasons, *_known(decided, row), *_own_easing(decided, row), *_outcomes(outcomes)),
        share=share,
    )


def _share(decided: Decided, portfolio: Portfolio, plan: FleetPlan, store: int) -> Share:
    number, state = int(plan.zones.zone[store]), decided.planner_state
    return Share(
        power_w=tuple(plan.shares.power_w[store].tolist()),
        zone=number,
        zone_stores=int((plan.zones.zone == number).sum()),
        zone_w=float(plan.solution.injected_w[number, 0]),
        feeder=decided.feeder_name(int(portfolio.devices.feeder[store])),
        rule="" if state is None else RULES[state.fairness],
    )


def _store_reasons(
    decided: Decided, portfolio: Portfolio, plan: FleetPlan, store: int, zone: tzinfo
) -> Iterator[Reason]:
    rated = portfolio.checked()
    if not rated.devices.available[store]:
        told = bool(portfolio.devices.available[store])
        why = "its numbers are missing or absurd" if told else "it may not be commanded, or its values are not good"
        yield Reason(Why.NOT_DISPATCHED, f"set aside: {why}")
        return
    given, _ = narrowed(rated)
    own = _share(decided, portfolio, plan, store)
    text = f"{kw(own.power_w[0])} of the {kw(own.zone_w)} of zone {own.zone}, of {counted(own.zone_stores, 'store')}"
    yield Reason(Why.ZONE, text)
    yield from _own_bounds(decided, rated.devices, given, plan.shares.power_w[store], store, zone)
    yield from _feeder_reasons(decided, given, store)


def _own_bounds(
    decided: Decided, rated: Devices, given: Portfolio, power_w: FloatArray, store: int, zone: tzinfo
) -> Iterator[Reason]:
    """Its own power and energy where they bind in the steps that are shared out, and whose bounds they are."""
    devices, steps, gives = given.devices, len(power_w), power_w > 0.0
    most_w = np.where(gives, *_most_w(devices, store, steps))
    rated_w = np.where(gives, *_most_w(rated, store, steps))
    at_most = (power_w != 0.0) & (np.abs(power_w) >= (1.0 - LEAST_FRAC) * most_w)
    own = most_w >= (1.0 - LEAST_FRAC) * rated_w
    for why, whose, at in (
        (Why.POWER, "its own", at_most & own),
        (Why.SITE, "what its site leaves it:", at_most & ~own),
    ):
        if at.any():
            yield Reason(why, f"at {whose} {kw(most_w[at].max())} in {int(at.sum())} of {steps} steps")
    efficiency = devices.efficiency_frac[store]
    spent_wh = power_w * np.where(gives, 1.0 / efficiency, efficiency) * given.hours[:steps]
    stored_wh = devices.stored_wh[store] - np.cumsum(spent_wh)
    for why, word, at in _energy_bounds(devices, rated, stored_wh, store):
        if at.any():
            yield Reason(why, f"{word} by {_clock(decided, int(at.argmax()) + 1, zone)}")


def _most_w(devices: Devices, store: int, steps: int) -> tuple[FloatArray, FloatArray]:
    """Most that a store gives and takes, shape (steps,) each."""
    gives_w, takes_w = devices.discharge_max_w[store, :steps], devices.charge_max_w[store, :steps]
    return np.broadcast_to(gives_w, steps), np.broadcast_to(takes_w, steps)


def _energy_bounds(
    devices: Devices, rated: Devices, stored_wh: FloatArray, store: int
) -> Iterator[tuple[Why, str, BoolArray]]:
    """Bounds on a store's energy, and at the end of which of the shared steps it is at them."""
    low_wh, high_wh = devices.stored_min_wh[store], devices.stored_max_wh[store]
    room_wh = LEAST_FRAC * (high_wh - low_wh)
    kept = bool(low_wh > rated.stored_min_wh[store])
    low_word = "down to what is kept for an outage" if kept else "empty"
    yield Why.SITE if kept else Why.STATE_OF_CHARGE, low_word, stored_wh <= low_wh + room_wh
    yield Why.STATE_OF_CHARGE, "full", stored_wh >= high_wh - room_wh
    bound = devices.envelopes
    if bound is not None and (row := np.flatnonzero(bound.device == store)).size:
        due_wh = bound.low_wh[row[0], : len(stored_wh)]
        yield Why.DUE, "down to what it needs in time for later", (due_wh > low_wh) & (stored_wh <= due_wh + room_wh)


def _feeder_reasons(decided: Decided, given: Portfolio, store: int) -> Iterator[Reason]:
    """The limits of its feeder that bind, and how far it moves them."""
    feeder, rows = int(given.devices.feeder[store]), given.rows
    for limit, steps in _binding(decided).items():
        if decided.feeder_of(limit) == feeder:
            yield Reason(Why.FEEDER_LIMIT, f"{decided.limit_name(limit)} binds in {_steps(steps, given)}")
        elif limit in rows.names and rows.feeder[row := rows.names.index(limit)] == feeder:
            per_kw = 1e3 * float(rows.per_w[[row], :].toarray()[0, store])
            text = f"{limit} binds in {_steps(steps, given)}; this device moves it by {per_kw:.2g} per kW"
            yield Reason(Why.NETWORK_ROW, text)


def _known(decided: Decided, row: int) -> Iterator[Reason]:
    snapshot = decided.snapshot
    if snapshot is not None and snapshot.quality[row] != Quality.GOOD:
        text = f"its values are {Quality(int(snapshot.quality[row])).name.lower()}"
        age = f", {snapshot.age_s[row]:.0f} s old" * bool(np.isfinite(snapshot.age_s[row]))
        yield Reason(Why.NOT_DISPATCHED, text + age)
    elif decided.available is not None and not decided.available[row]:
        yield Reason(Why.NOT_DISPATCHED, "it takes no commands, or would not let go of them by itself")


def _own_easing(decided: Decided, row: int) -> Iterator[Reason]:
    if decided.caps is not None and decided.caps[row] < 1.0:
        text = f"it may use {decided.caps[row]:.0%} of its rating"
        yield Reason(Why.EASED, f"{text}: the power flow of the plan strained the feeder")


def _outcomes(outcomes: Iterable[CommandRecord]) -> Iterator[Reason]:
    """What became of its commands, where it was not what was wanted."""
    for record in outcomes:
        match record.outcome:
            case Clamped(by=by):
                value = "nothing" if record.value_w is None else kw(record.value_w)
                yield Reason(Why.GUARD, f"{record.quantity}: {by} made {value} of {kw(record.wanted_w)}")
            case Rejected(by=by):
                yield Reason(Why.GUARD, f"{record.quantity}: {by} refused {kw(record.wanted_w)}")
            case NotFollowing(effect_w=effect_w):
                wanted = "a release" if record.value_w is None else kw(record.value_w)
                yield Reason(Why.NOT_FOLLOWING, f"{record.quantity}: {kw(effect_w)} were seen after {wanted}")
            case Failed(why=why) | Unknown(why=why):
                yield Reason(Why.NOT_FOLLOWING, f"{record.quantity}: {type(record.outcome).__name__.lower()}: {why}")
            case Expired():
                yield Reason(Why.NOT_FOLLOWING, f"{record.quantity}: not written in time")
            case Applied() | Superseded():
                pass
