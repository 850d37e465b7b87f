"""Why one device does what it does in a decision: its share, its setpoint, what was sent, and what binds it."""

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
    Quantity,
    Rejected,
    Superseded,
    Unknown,
)
from derms.domain.plan import Reason, Why
from derms.domain.quality import Quality
from derms.optimize.fleet import FleetPlan, narrowed
from derms.optimize.portfolio import Devices, Portfolio
from derms.optimize.share import Fairness, fairness_of
from derms.service.decided import Decided
from derms.service.reasons import LEAST_FRAC, binding, clock, rung, steps_of
from derms.service.words import kw

TRIM_MIN_FRAC = 0.01
"""Of what a device was to do: what was sent differs by less for the clock's sake alone."""

RULES = {
    Fairness.TIME_TO_GO: "those that can go on longest give most, so that all run out together",
    Fairness.PRO_RATA: "all give the same share of what they can",
    Fairness.IN_ORDER: "one after the other, each all that it can",
}


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
    setpoint_why: tuple[str, ...]
    """Why the setpoint is not the mean that the plan shares out to it in the first step."""
    sent: tuple[str, ...]
    """Setpoints of this plan that were written to it, and what they were trimmed by."""
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
    snapshot, dispatch, store, ended = decided.snapshot, decided.dispatch, decided.store_of(row), tuple(outcomes)
    plan, portfolio = decided.fleet_plan, decided.portfolio
    reasons, share = list(rung(decided)), None
    outside = False
    if plan is not None and portfolio is not None:
        if outside := store is None:
            reasons.append(Reason(Why.NOT_DISPATCHED, _no_store(decided, row)))
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
        setpoint_why=() if share is None else tuple(_setpoint_why(decided, row, share)),
        sent=tuple(_sent(decided, row, ended, zone)),
        reasons=(*reasons, *_known(decided, row, told=outside), *_own_easing(decided, row), *_outcomes(ended)),
        share=share,
    )


def _no_store(decided: Decided, row: int) -> str:
    takes = decided.available is None or bool(decided.available[row])
    does = "; all that is set for it is a limit, where PV is held back" if takes else ", and takes no commands"
    return f"it is no battery of the plan{does}"


def _setpoint_why(decided: Decided, row: int, share: Share) -> Iterator[str]:
    """What became of the share of the first step on its way to the setpoint at the beginning of the plan."""
    dispatch, caps = decided.dispatch, decided.caps
    if dispatch is None or dispatch.p_set_w.shape[1] < 2:
        return
    first_w, mean_w = (float(value_w) for value_w in dispatch.p_set_w[row, :2])
    planned_w = share.power_w[0]
    least_w = LEAST_FRAC * max(abs(first_w), abs(mean_w), abs(planned_w), 1.0)
    if abs(mean_w - planned_w) > least_w:
        whose = "it was" if caps is not None and caps[row] < 1.0 else "others were"
        yield f"{kw(mean_w)} instead of its share of {kw(planned_w)}: {whose} eased for the feeder's sake"
    if abs(first_w - mean_w) > least_w:
        yield (
            f"{kw(mean_w)} are the mean of the first step; power runs in a line from the middle of one step to that of "
            f"the next, and is {kw(first_w)} at the beginning"
        )


def _sent(decided: Decided, row: int, outcomes: Iterable[CommandRecord], zone: tzinfo) -> Iterator[str]:
    dispatch = decided.dispatch
    if dispatch is None:
        return
    for record in outcomes:
        if record.quantity is not Quantity.P_SET or record.value_w is None or np.isnan(record.value_w):
            continue
        at_s = float(dispatch.times_s[0]) + (record.at - decided.plan.start).total_seconds()
        planned_w = float(np.interp(at_s, dispatch.times_s, dispatch.p_set_w[row]))
        text = f"{kw(record.value_w)} at {record.at.astimezone(zone):%H:%M:%S}, when the plan has {kw(planned_w)}"
        trim_w = record.wanted_w - planned_w
        if abs(trim_w) > max(TRIM_MIN_FRAC * abs(planned_w), 1.0):
            text += f"; the other {kw(trim_w)} bring net load back to what the plan expects"
        yield text


def _share(decided: Decided, portfolio: Portfolio, plan: FleetPlan, store: int) -> Share:
    number, state = int(plan.zones.zone[store]), decided.planner_state
    return Share(
        power_w=tuple(plan.shares.power_w[store].tolist()),
        zone=number,
        zone_stores=int((plan.zones.zone == number).sum()),
        zone_w=float(plan.solution.injected_w[number, 0]),
        feeder=decided.feeder_name(int(portfolio.devices.feeder[store])),
        rule="" if state is None else RULES[fairness_of(portfolio.desk, state.fairness)],
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
    group = f"the {own.zone_stores} batteries" if own.zone_stores > 1 else "the one battery"
    text = f"{kw(own.power_w[0])} of the {kw(own.zone_w)} of {group} that are planned as one (zone {own.zone})"
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
            yield Reason(why, f"{word} by {clock(decided, int(at.argmax()) + 1, zone)}")


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
    for limit, steps in binding(decided).items():
        if decided.feeder_of(limit) == feeder:
            yield Reason(Why.FEEDER_LIMIT, f"{decided.limit_name(limit)} binds in {steps_of(steps, given)}")
        elif limit in rows.names and rows.feeder[row := rows.names.index(limit)] == feeder:
            per_kw = 1e3 * float(rows.per_w[[row], :].toarray()[0, store])
            text = f"{limit} binds in {steps_of(steps, given)}; this device moves it by {per_kw:.2g} per kW"
            yield Reason(Why.NETWORK_ROW, text)


def _known(decided: Decided, row: int, *, told: bool) -> Iterator[Reason]:
    """What keeps it from being commanded; only what is known of its values, where it is told already."""
    snapshot = decided.snapshot
    if snapshot is not None and snapshot.quality[row] != Quality.GOOD:
        text = f"its values are {Quality(int(snapshot.quality[row])).name.lower()}"
        age = f", {snapshot.age_s[row]:.0f} s old" * bool(np.isfinite(snapshot.age_s[row]))
        yield Reason(Why.NOT_DISPATCHED, text + age)
    elif not told and decided.available is not None and not decided.available[row]:
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
