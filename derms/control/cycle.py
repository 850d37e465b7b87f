"""The control cycle: from what is known now to a verified plan and what each device should do. Pure but for its ports.

The ladder is visible in `Plan.source`: optimizer, last good plan, rules, device defaults. A rung is used only when
the verifier finds nothing wrong with it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.domain.der import Fleet
from derms.domain.dispatch import Dispatch
from derms.domain.forecast import Forecast
from derms.domain.plan import Plan, PlanSource
from derms.domain.strain import Strain
from derms.domain.telemetry import TelemetrySnapshot
from derms.errors import PlanError
from derms.optimize.aggregate import VirtualBattery, aggregate, disaggregate
from derms.optimize.fallback import defaults, rules, shifted
from derms.optimize.horizon import PAST_STEPS, HorizonInput, HorizonOutput
from derms.optimize.verify import (
    FeederFinding,
    FeederLookAhead,
    check_feeder,
    check_numbers,
    eased,
)

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
    """Bounds of the cycle."""

    dispatch_steps: int
    """Plan steps that are shared out to devices."""
    validity_s: float
    """Life of a dispatch that no newer one replaces [s]."""
    last_good_age_max_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleInput:
    """Everything a decision depends on besides the state."""

    fleet: Fleet
    available: BoolArray
    """Devices that may be dispatched, shape (n,)."""
    snapshot: TelemetrySnapshot
    forecast: Forecast
    past_net_w: FloatArray
    """Means of the last quarter hours [W], oldest first, shape (PAST_STEPS,)."""
    der_rows: tuple[int, ...]
    """Row in the fleet of each DER of the feeder model."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A plan that passed, what it means for each device, and the state for the next cycle."""

    plan: Plan
    dispatch: Dispatch
    state: ControlState
    rejected: tuple[str, ...]
    """Why each higher rung was not used."""


Optimizer = Callable[[HorizonInput], HorizonOutput]


def decide(
    state: ControlState,
    given: CycleInput,
    *,
    now: datetime,
    now_s: float,
    optimizer: Optimizer,
    look_ahead: FeederLookAhead,
    settings: CycleSettings,
) -> Decision:
    """Plan, disaggregate and verify; fall down the ladder until a rung passes.

    `optimizer` raises PlanError when it has no plan; the last rung, device defaults, commands nobody and always
    passes.
    """
    snapshot = given.snapshot
    given = replace(given, fleet=given.fleet.derated(snapshot.p_rated_w, snapshot.energy_wh))
    battery = aggregate(given.fleet, snapshot.soc_frac, given.available)
    plan_id = state.plan_id + 1
    rejected: list[str] = []
    for plan in _ladder(state, given, battery, plan_id, now, optimizer, settings, rejected):
        last = plan.source is PlanSource.DEFAULTS
        wrong = [] if last else check_numbers(plan, battery, given.forecast.pv_w, given.forecast.net_load_w)
        dispatch = None if wrong else _fitting(plan, given, now, now_s, look_ahead, settings, wrong)
        if dispatch is None:
            rejected.append(f"{plan.source}: {'; '.join(wrong)}")
            continue
        good = plan if plan.source is PlanSource.OPTIMIZER else state.last_good
        return Decision(plan, dispatch, ControlState(plan_id=plan_id, last_good=good, previous=plan), tuple(rejected))
    raise AssertionError("the ladder ends with device defaults, which always pass")


def _ladder(
    state: ControlState,
    given: CycleInput,
    battery: VirtualBattery,
    plan_id: int,
    now: datetime,
    optimizer: Optimizer,
    settings: CycleSettings,
    rejected: list[str],
) -> Iterator[Plan]:
    """The rungs in order; why one is missing goes to `rejected`, which is also the next rung's reason."""
    try:
        yield _optimized(state, given, battery, plan_id, optimizer)
    except PlanError as error:
        rejected.append(f"{PlanSource.OPTIMIZER}: {error}")
    last = state.last_good
    if last is None:
        rejected.append(f"{PlanSource.LAST_GOOD}: there is none")
    elif (now - last.made_at).total_seconds() > settings.last_good_age_max_s:
        rejected.append(f"{PlanSource.LAST_GOOD}: made at {last.made_at:%H:%M}, too old")
    else:
        yield shifted(last, given.forecast, battery, plan_id=plan_id, reason=" | ".join(rejected))
    yield rules(given.forecast, battery, plan_id=plan_id, reason=" | ".join(rejected))
    yield defaults(given.forecast, battery, plan_id=plan_id, reason=" | ".join(rejected))


def _optimized(
    state: ControlState, given: CycleInput, battery: VirtualBattery, plan_id: int, optimizer: Optimizer
) -> Plan:
    forecast = given.forecast
    if state.previous is None:
        previous_w = np.zeros_like(forecast.net_load_w)
    else:
        previous_w = shifted(state.previous, forecast, battery, plan_id=plan_id, reason="").battery_w
    solution = optimizer(
        HorizonInput(
            net_load_w=forecast.net_load_w,
            pv_w=forecast.pv_w,
            past_net_w=given.past_net_w[-PAST_STEPS:],
            previous_w=previous_w,
            battery=battery,
        )
    )
    reason = ""
    if solution.slack_wh > 1e-3 * max(battery.energy_max_wh, 1.0):
        reason = f"state-of-charge bounds gave way by {solution.slack_wh / 1e3:.2f} kWh"
    return Plan(
        id=plan_id,
        made_at=forecast.made_at,
        start=forecast.start,
        step_s=forecast.step_s,
        battery_w=solution.battery_w,
        curtail_w=solution.curtail_w,
        energy_wh=solution.energy_wh,
        net_load_w=solution.net_load_w,
        source=PlanSource.OPTIMIZER,
        reason=reason,
        solver=solution.solver,
        iterations=solution.iterations,
        objective=solution.objective,
    )


def _fitting(
    plan: Plan,
    given: CycleInput,
    now: datetime,
    now_s: float,
    look_ahead: FeederLookAhead,
    settings: CycleSettings,
    wrong: list[str],
) -> Dispatch | None:
    """A dispatch of the plan that the feeder bears: batteries that strain it are eased a few times.

    Only steps that are shared out now can refuse a plan: later ones are verified again before they are. None, with
    the reasons in `wrong`, when easing does not help.
    """
    if plan.source is PlanSource.DEFAULTS:
        return _dispatch(plan, given, np.ones(len(given.fleet)), now=now, now_s=now_s, settings=settings)
    feeder = _Feeder(given, look_ahead)
    caps = np.ones(len(given.fleet))
    for _ in range(EASE_ROUNDS):
        dispatch = _dispatch(plan, given, caps, now=now, now_s=now_s, settings=settings)
        batteries_w, findings = feeder.findings(dispatch)
        if not findings:
            return dispatch
        ders, powers_w = feeder.ders, batteries_w[[finding.point for finding in findings]]
        caps[ders] = eased(caps[ders], given.fleet.p_rated_w[ders], powers_w, findings)
    wrong.extend(finding.text for finding in findings)
    return None


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
    plan: Plan, given: CycleInput, caps: FloatArray, *, now: datetime, now_s: float, settings: CycleSettings
) -> Dispatch:
    """Share the first steps of a plan among devices, with support points at now and at the middle of each step."""
    steps = min(settings.dispatch_steps, len(plan.battery_w))
    shares_w = share_steps(plan.battery_w[:steps], given, plan.step_s, caps)
    limits_w = limit_steps(plan.curtail_w[:steps], given)
    if plan.source is PlanSource.DEFAULTS:
        shares_w, limits_w = np.full_like(shares_w, np.nan), np.full_like(limits_w, np.nan)
    start_s = now_s + (plan.start - now).total_seconds()
    middles_s = start_s + (np.arange(steps) + 0.5) * plan.step_s
    # The line through the first two means, taken back to the start of the step.
    first_w = shares_w[:, 0] if steps == 1 else 1.5 * shares_w[:, 0] - 0.5 * shares_w[:, 1]
    most_w = given.fleet.p_rated_w * caps
    return Dispatch(
        plan_id=plan.id,
        issued_at=now,
        valid_until_s=min(now_s + settings.validity_s, start_s + steps * plan.step_s),
        times_s=np.concatenate([[start_s], middles_s]),
        p_set_w=np.column_stack([np.clip(first_w, -most_w, most_w), shares_w]),
        p_limit_w=np.column_stack([limits_w[:, 0], limits_w]),
    )


def share_steps(battery_w: FloatArray, given: CycleInput, step_s: float, caps: FloatArray) -> FloatArray:
    """Disaggregate fleet powers [W], shape (steps,), step after step; `caps` is the share of each rating to be used.

    Returns power per device, shape (n, steps); NaN for devices that are not dispatched.
    """
    fleet = given.fleet
    rows = fleet.is_battery & given.available
    hours = step_s / 3600.0
    energy_wh, efficiency = fleet.energy_wh[rows], fleet.efficiency_frac[rows]
    soc = given.snapshot.soc_frac[rows]
    most_w = fleet.p_rated_w[rows] * caps[rows]
    stored_wh = np.maximum(soc - fleet.soc_min_frac[rows], 0.0) * energy_wh * efficiency
    room_wh = np.maximum(fleet.soc_max_frac[rows] - soc, 0.0) * energy_wh / efficiency
    shares_w = np.full((len(fleet), len(battery_w)), np.nan)
    for step, total_w in enumerate(battery_w):
        power_w = disaggregate(float(total_w), most_w, stored_wh, room_wh, dt_h=hours)
        shares_w[rows, step] = power_w
        out_wh, in_wh = np.maximum(power_w, 0.0) * hours, np.maximum(-power_w, 0.0) * hours
        stored_wh = np.maximum(stored_wh - out_wh + in_wh * efficiency**2, 0.0)
        room_wh = np.maximum(room_wh - in_wh + out_wh / efficiency**2, 0.0)
    return shares_w


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
