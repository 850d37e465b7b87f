"""The control cycle: from what is known now to a verified plan and what each device should do. Pure but for its ports.

The ladder is visible in `Plan.source`: optimizer, last good plan, rules, device defaults. A rung is used only when
the verifier finds nothing wrong with it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np

from derms.control.compose import PlanTerms, batteries, compose, pv_ceiling_w, sites_of
from derms.control.signs import SignChanges, restlessness
from derms.control.trim import with_leeway
from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.domain.der import Fleet
from derms.domain.dispatch import Dispatch, Heads
from derms.domain.forecast import Forecast
from derms.domain.plan import Plan, PlanSource
from derms.domain.strain import Strain
from derms.domain.telemetry import TelemetrySnapshot
from derms.errors import GridError, PlanError
from derms.optimize.aggregate import VirtualBattery, aggregate
from derms.optimize.fallback import defaults, rules, shifted
from derms.optimize.fleet import FleetPlan
from derms.optimize.portfolio import Devices, Portfolio
from derms.optimize.share import Fairness, fairness_of, share
from derms.optimize.sites import within_sites
from derms.optimize.verify import (
    FeederFinding,
    FeederLookAhead,
    check_feeder,
    check_numbers,
    eased,
)
from derms.optimize.verify_fleet import check_feeder_power, check_shares
from derms.optimize.verify_stores import site_faults

CURTAIL_MIN_FRAC = 0.01
"""Held-back PV under this share of what is available is solver noise: nobody is limited for it."""

EASE_ROUNDS = 8
"""Times that shares are made smaller where they strain the feeder, before a plan is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlState:
    """What one cycle hands to the next."""

    plan_id: int = 0
    last_good: Plan | None = None
    previous: Plan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleSettings:
    """Bounds of the cycle, and what plans are asked for."""

    shared_h: float
    """Plan steps that end within this time are shared out to devices."""
    validity_s: float
    """Life of a dispatch that no newer one replaces [s]."""
    last_good_age_max_s: float
    timezone: ZoneInfo
    terms: PlanTerms
    fairness: Fairness = Fairness.TIME_TO_GO
    """Who goes first where devices share what their group is to give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleInput:
    """Everything a decision depends on besides the state."""

    fleet: Fleet
    available: BoolArray
    """Devices that may be dispatched, shape (n,)."""
    snapshot: TelemetrySnapshot
    forecast: Forecast
    past_net_w: FloatArray
    """Means of system net load over the last periods [W], oldest first, three hours at least, shape (k,)."""
    der_rows: tuple[int, ...]
    """Row in the fleet of each DER of the feeder model."""
    price: FloatArray | None = None
    """Cost of importing a per-unit hour in each step, in units of the objective; None where energy costs nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A plan that passed, what it means for each device, and the state for the next cycle."""

    plan: Plan
    dispatch: Dispatch
    state: ControlState
    rejected: tuple[str, ...]
    """Why each higher rung was not used."""
    portfolio: Portfolio
    fleet_plan: FleetPlan | None
    """None on the rungs below the optimizer."""
    caps: FloatArray
    """Share of its rating that the look-ahead left each device, shape (n,)."""
    sign_changes: SignChanges
    """Of the fleet over the plan, and of the most restless device over the dispatch."""
    contingency: str = ""
    """What would be worse than without the plan if all control were lost; empty when nothing would."""


Optimizer = Callable[[Portfolio], FleetPlan]

ControlLost = Callable[[FloatArray, FloatArray, float], int]
"""Voltages and ratings beyond their limits when every device reverts at once: powers with the plan, for which the
regulators have acted, and those that devices fall back to [W], each of shape (ders,), and the load against now."""


@dataclass(frozen=True, slots=True)
class _Rung:
    """A plan, and the powers of its first steps by groups of batteries that share them."""

    plan: Plan
    group_w: FloatArray
    """Shape (groups, shared steps)."""
    group: IntArray
    """Of each battery."""
    fleet_plan: FleetPlan | None = None


def shared_steps(hours: FloatArray, within_h: float) -> int:
    """How many of the first steps end within a time; one at least."""
    return max(1, int(np.count_nonzero(np.cumsum(hours) <= within_h + 1e-9)))


def decide(
    state: ControlState,
    given: CycleInput,
    *,
    now: datetime,
    now_s: float,
    optimizer: Optimizer,
    look_ahead: FeederLookAhead,
    settings: CycleSettings,
    control_lost: ControlLost | None = None,
) -> Decision:
    """Plan, disaggregate and verify; fall down the ladder until a rung passes.

    `optimizer` raises PlanError when it has no plan; the last rung, device defaults, commands nobody and always
    passes.
    """
    snapshot = given.snapshot
    given = replace(given, fleet=given.fleet.derated(snapshot.p_rated_w, snapshot.energy_wh))
    battery = aggregate(given.fleet, snapshot.soc_frac, given.available)
    plan_id = state.plan_id + 1
    portfolio = _portfolio(state, given, battery, settings)
    rejected: list[str] = []
    for rung in _ladder(state, given, battery, portfolio, plan_id, now, optimizer, settings, rejected):
        plan = rung.plan
        wrong = [] if plan.source is PlanSource.DEFAULTS else _wrong(rung, portfolio, battery, given.forecast)
        fitting = None if wrong else _fitting(rung, given, portfolio, now, now_s, look_ahead, settings, wrong)
        if fitting is None:
            rejected.append(f"{plan.source}: {'; '.join(wrong)}")
            continue
        dispatch, caps = fitting
        plan = _as_shared(plan, dispatch, battery)
        # What is asked of batteries is not trimmed away.
        if plan.source is not PlanSource.DEFAULTS and not (portfolio.desk.hold_w or portfolio.desk.emergency):
            dispatch = with_leeway(dispatch, plan, given.fleet.p_rated_w * caps, _heads(given.fleet, portfolio))
        good = plan if plan.source is PlanSource.OPTIMIZER else state.last_good
        after = ControlState(plan_id=plan_id, last_good=good, previous=plan)
        lost = "" if control_lost is None else _Feeder(given, look_ahead).contingency(dispatch, control_lost)
        return Decision(
            plan=plan,
            dispatch=dispatch,
            state=after,
            rejected=tuple(rejected),
            portfolio=portfolio,
            fleet_plan=rung.fleet_plan,
            caps=caps,
            sign_changes=_restlessness(plan, dispatch, given.fleet),
            contingency=lost,
        )
    raise AssertionError("the ladder ends with device defaults, which always pass")


def _portfolio(state: ControlState, given: CycleInput, battery: VirtualBattery, settings: CycleSettings) -> Portfolio:
    previous_w = np.zeros_like(given.forecast.net_load_w)
    if state.previous is not None:
        previous_w = shifted(state.previous, given.forecast, battery, plan_id=0, reason="").battery_w
    return compose(
        batteries(given.fleet, given.snapshot, given.available),
        given.forecast,
        past_net_w=given.past_net_w,
        previous_w=previous_w,
        timezone=settings.timezone,
        terms=settings.terms,
        price=given.price,
        sites=sites_of(given.fleet, given.snapshot, given.available, given.forecast.pv_frac),
    )


def _ladder(
    state: ControlState,
    given: CycleInput,
    battery: VirtualBattery,
    portfolio: Portfolio,
    plan_id: int,
    now: datetime,
    optimizer: Optimizer,
    settings: CycleSettings,
    rejected: list[str],
) -> Iterator[_Rung]:
    """The rungs in order; why one is missing goes to `rejected`, which is also the next rung's reason."""
    forecast = given.forecast
    shared = shared_steps(forecast.hours, settings.shared_h)

    def together(plan: Plan) -> _Rung:
        return _Rung(plan, plan.battery_w[None, :shared], np.zeros(len(portfolio.devices), dtype=np.intp))

    try:
        yield _optimized(portfolio, forecast, plan_id, optimizer)
    except PlanError as error:
        rejected.append(f"{PlanSource.OPTIMIZER}: {error}")
    last = state.last_good
    if last is None:
        rejected.append(f"{PlanSource.LAST_GOOD}: there is none")
    elif (now - last.made_at).total_seconds() > settings.last_good_age_max_s:
        rejected.append(f"{PlanSource.LAST_GOOD}: made at {last.made_at:%H:%M}, too old")
    else:
        yield together(shifted(last, forecast, battery, plan_id=plan_id, reason=" | ".join(rejected)))
    yield together(rules(forecast, battery, plan_id=plan_id, reason=" | ".join(rejected)))
    yield together(defaults(forecast, battery, plan_id=plan_id, reason=" | ".join(rejected)))


def _optimized(portfolio: Portfolio, forecast: Forecast, plan_id: int, optimizer: Optimizer) -> _Rung:
    found = optimizer(portfolio)
    solution = found.solution
    plan = Plan(
        id=plan_id,
        made_at=forecast.made_at,
        start=forecast.start,
        hours=forecast.hours,
        battery_w=solution.injected_w.sum(axis=0),
        curtail_w=solution.held_w.sum(axis=0),
        energy_wh=solution.stored_wh.sum(axis=0),
        net_load_w=solution.net_w,
        source=PlanSource.OPTIMIZER,
        reason="; ".join(f"{slack.limit} gave way by {slack.most:.4g}" for slack in found.gave_way),
        solver=solution.solver,
        iterations=solution.iterations,
        objective=solution.objective,
    )
    return _Rung(plan, solution.injected_w[:, : found.shares.power_w.shape[1]], found.zones.zone, found)


def _wrong(rung: _Rung, portfolio: Portfolio, battery: VirtualBattery, forecast: Forecast) -> list[str]:
    """What the verifiers say of a plan's own numbers."""
    wrong = check_numbers(rung.plan, battery, forecast.pv_w, forecast.net_load_w)
    found = rung.fleet_plan
    if found is None and not wrong:
        # Steps to come are looked at again before they are shared out.
        shared = rung.group_w.shape[1]
        wrong = check_feeder_power(portfolio, rung.plan.battery_w[:shared], rung.plan.curtail_w[:shared])
    if found is not None and not wrong:
        named = {slack.limit for slack in found.gave_way}
        wrong = check_shares(
            portfolio,
            found.shares.power_w,
            found.held_w,
            found.promised_w,
            named,
            reactive_var=found.reactive_var,
        )
    return wrong


def _fitting(
    rung: _Rung,
    given: CycleInput,
    portfolio: Portfolio,
    now: datetime,
    now_s: float,
    look_ahead: FeederLookAhead,
    settings: CycleSettings,
    wrong: list[str],
) -> tuple[Dispatch, FloatArray] | None:
    """A dispatch of the plan that the feeder bears, and the share of each rating that it may use: batteries that strain
    the feeder are eased a few times.

    Only steps that are shared out now can refuse a plan: later ones are verified again before they are. None, with
    the reasons in `wrong`, when easing does not help.
    """
    caps = np.ones(len(given.fleet))
    if rung.plan.source is PlanSource.DEFAULTS:
        return _dispatch(rung, given, portfolio, caps, now=now, now_s=now_s, settings=settings), caps
    feeder = _Feeder(given, look_ahead)
    for _ in range(EASE_ROUNDS):
        dispatch = _dispatch(rung, given, portfolio, caps, now=now, now_s=now_s, settings=settings)
        told_w = np.nan_to_num(dispatch.p_set_w[given.fleet.is_battery, 1:])
        if crowded := site_faults(portfolio, told_w):
            wrong.extend(crowded)
            return None
        batteries_w, findings = feeder.findings(dispatch)
        if not findings:
            return dispatch, caps
        ders, powers_w = feeder.ders, batteries_w[[finding.point for finding in findings]]
        caps[ders] = eased(caps[ders], given.fleet.p_rated_w[ders], powers_w, findings)
    wrong.extend(finding.text for finding in findings)
    return None


def _heads(fleet: Fleet, portfolio: Portfolio) -> Heads | None:
    """Limits of the one feeder, on which all DER are."""
    low_w, high_w = portfolio.feeders.low_w[:1], portfolio.feeders.high_w[:1]
    if not np.isfinite([low_w, high_w]).any():
        return None
    return Heads(low_w, high_w, np.where(fleet.is_meter, -1, 0))


class _Feeder:
    """The feeder at the support points of a dispatch: what is sent lies between two of them."""

    def __init__(self, given: CycleInput, look_ahead: FeederLookAhead) -> None:
        self.ders: IntArray = np.array(given.der_rows, dtype=np.intp)
        self._given = given
        self._look_ahead = look_ahead
        self._bare: dict[int, Strain] = {}

    def findings(self, dispatch: Dispatch) -> tuple[FloatArray, list[FeederFinding]]:
        """Battery power [W], shape (points, ders), and what the dispatch makes worse."""
        # The first point is now, in step 0 like the second, which stands in the middle of it.
        steps = [0, *range(len(dispatch.times_s) - 1)]
        free_w, factor = self._free_w(steps), self._factor(steps)
        limits_w = dispatch.p_limit_w[self.ders].T
        held_w = np.where(np.isfinite(limits_w), np.minimum(free_w, limits_w), free_w)
        shares_w = np.nan_to_num(dispatch.p_set_w)[self.ders].T

        def without(point: int) -> Strain:
            if point not in self._bare:
                self._bare[point] = self._look_ahead(free_w[point], float(factor[point]))
            return self._bare[point]

        return shares_w, check_feeder(held_w + shares_w, factor, self._look_ahead, without)

    def contingency(self, dispatch: Dispatch, control_lost: ControlLost) -> str:
        """What loss of all control would do when batteries work hardest, against the same moment without a plan."""
        steps = [0, *range(len(dispatch.times_s) - 1)]
        shares_w = np.nan_to_num(dispatch.p_set_w)[self.ders].T
        point = int(np.abs(shares_w.sum(axis=1)).argmax())
        if not shares_w[point].any():
            return ""
        free_w, factor = self._free_w(steps)[point], float(self._factor(steps)[point])
        when = f"if all control were lost in {(dispatch.times_s[point] - dispatch.times_s[0]) / 60.0:.0f} min"
        try:
            lost = control_lost(free_w + shares_w[point], free_w, factor)
            bare = self._look_ahead(free_w, factor).violations
        except GridError as error:
            return f"{when}: the feeder has no solution: {error}"
        return f"{when}: {lost} limits violated, {bare} without the plan" if lost > bare else ""

    def _free_w(self, steps: list[int]) -> FloatArray:
        """What the DER do when nobody commands them [W], shape (points, ders)."""
        fleet, given = self._given.fleet, self._given
        rated_w, sun = fleet.p_rated_w[self.ders], given.forecast.pv_frac[steps]
        free_w = np.where(fleet.is_pv[self.ders], np.outer(sun, rated_w), 0.0)
        # What nobody here commands goes on as it is measured.
        steady = (fleet.is_undispatched & given.snapshot.good("p_w"))[self.ders]
        return np.where(steady, given.snapshot.p_w[self.ders], free_w)

    def _factor(self, steps: list[int]) -> FloatArray:
        """Load against now, shape (points,)."""
        gross_w = self._given.forecast.net_load_w + self._given.forecast.pv_w
        factor: FloatArray = np.clip(gross_w[steps] / max(float(gross_w[0]), 1.0), 0.1, 3.0)
        return factor


def _dispatch(
    rung: _Rung,
    given: CycleInput,
    portfolio: Portfolio,
    caps: FloatArray,
    *,
    now: datetime,
    now_s: float,
    settings: CycleSettings,
) -> Dispatch:
    """Share the first steps of a plan among devices, with support points at now and at the middle of each step."""
    plan, steps = rung.plan, rung.group_w.shape[1]
    shares_w = share_steps(rung.group_w, rung.group, given, portfolio, caps, settings.fairness)
    limits_w = limit_steps(plan.curtail_w[:steps], given)
    limits_w = np.fmin(limits_w, pv_ceiling_w(given.fleet, given.snapshot, given.available, shares_w))
    if plan.source is PlanSource.DEFAULTS:
        shares_w, limits_w = np.full_like(shares_w, np.nan), np.full_like(limits_w, np.nan)
    start_s = now_s + (plan.start - now).total_seconds()
    edges_s = start_s + plan.edges_s[: steps + 1]
    # The line through the first two means, taken back to the start of the step.
    first_w = shares_w[:, 0] if steps == 1 else 1.5 * shares_w[:, 0] - 0.5 * shares_w[:, 1]
    most_w = given.fleet.p_rated_w * caps
    return Dispatch(
        plan_id=plan.id,
        issued_at=now,
        valid_until_s=min(now_s + settings.validity_s, float(edges_s[-1])),
        times_s=np.concatenate([[start_s], 0.5 * (edges_s[1:] + edges_s[:-1])]),
        p_set_w=np.column_stack([np.clip(first_w, -most_w, most_w), shares_w]),
        p_limit_w=np.column_stack([limits_w[:, 0], limits_w]),
    )


def _restlessness(plan: Plan, dispatch: Dispatch, fleet: Fleet) -> SignChanges:
    rows = np.flatnonzero(fleet.is_battery)
    shared_h = float(dispatch.times_s[-1] - dispatch.times_s[0]) / 3600.0
    return restlessness(
        plan.battery_w, float(plan.hours.sum()), dispatch.p_set_w[rows], shared_h, most_w=fleet.p_rated_w[rows]
    )


def share_steps(
    group_w: FloatArray,
    group: IntArray,
    given: CycleInput,
    portfolio: Portfolio,
    caps: FloatArray,
    fairness: Fairness = Fairness.TIME_TO_GO,
) -> FloatArray:
    """Disaggregate powers of groups of batteries [W], shape (groups, steps); `caps` is the share of each rating to use.

    Returns power per device, shape (n, steps); NaN for devices that are not dispatched.
    """
    rows = np.flatnonzero(given.fleet.is_battery)
    devices = _capped(within_sites(portfolio.devices, portfolio.sites, len(portfolio.hours)), caps[rows])
    power_w = share(group_w, devices, group, portfolio.hours, fairness=fairness_of(portfolio.desk, fairness)).power_w
    shares_w = np.full((len(given.fleet), group_w.shape[1]), np.nan)
    shares_w[rows] = np.where(devices.available[:, None], power_w, np.nan)
    return shares_w


def _capped(devices: Devices, caps: FloatArray) -> Devices:
    return replace(
        devices,
        charge_max_w=devices.charge_max_w * caps[:, None],
        discharge_max_w=devices.discharge_max_w * caps[:, None],
    )


def _as_shared(plan: Plan, dispatch: Dispatch, battery: VirtualBattery) -> Plan:
    """The plan with what batteries were really given in its first steps, and its energy and net load with it."""
    if plan.source is PlanSource.DEFAULTS:
        return plan
    shared_w = np.nansum(dispatch.p_set_w[:, 1:], axis=0)
    battery_w = np.concatenate([shared_w, plan.battery_w[len(shared_w) :]])
    moved_w = battery_w - plan.battery_w
    moved_wh = battery.flow_wh(battery_w, plan.hours) - battery.flow_wh(plan.battery_w, plan.hours)
    return replace(
        plan,
        battery_w=battery_w,
        net_load_w=plan.net_load_w - moved_w,
        energy_wh=plan.energy_wh + np.cumsum(moved_wh),
    )


def limit_steps(curtail_w: FloatArray, given: CycleInput) -> FloatArray:
    """Limits [W] that hold PV back by the totals given, in proportion to nameplate.

    Returns limits per device, shape (n, steps); NaN where there is none.
    """
    fleet, forecast = given.fleet, given.forecast
    rows = fleet.is_pv & given.available
    steps = len(curtail_w)
    limits_w = np.full((len(fleet), steps), np.nan)
    pv_w = forecast.pv_w[:steps]
    held = curtail_w > CURTAIL_MIN_FRAC * np.maximum(pv_w, 1.0)
    if rows.any() and held.any():
        left_frac = np.clip(1.0 - curtail_w / np.maximum(pv_w, 1.0), 0.0, 1.0) * forecast.pv_frac[:steps]
        limits_w[np.ix_(rows, held)] = np.outer(fleet.p_rated_w[rows], left_frac[held])
    return limits_w
