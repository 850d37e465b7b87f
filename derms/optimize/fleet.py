"""Planning a whole fleet: system problem and feeders in turn until both agree, then shares for every store.

The system problem starts with all feeders pooled. Each feeder's own limits and network rows are then evaluated at
what its stores would do; one that is violated is modelled from then on, with zones told apart by its rows. Where the
stores of a modelled feeder miss a row that their zones keep, the difference is added to the row. The set of what is
modelled only grows, so the two agree after a few rounds, and the next plan starts where the last ended.

Before all that, what sites, an emergency and energy that is due leave each store is worked into its own bounds.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.domain.settings import PlanWeights
from derms.errors import PlanError
from derms.optimize.envelopes import within_envelopes
from derms.optimize.master import Built, Experience, Master, Slack, Solution, feeder_limit, no_experience, ranked
from derms.optimize.portfolio import Portfolio
from derms.optimize.reactive import reactive_effects, share_reactive
from derms.optimize.share import Fairness, Shares, fairness_of, share
from derms.optimize.sites import within_sites
from derms.optimize.zones import Zoning, due_scatter_h, feeder_shares, row_effects, zoning

ROUNDS_MAX = 8
CORRECTIONS_MAX = 4
UNFILLED_FRAC = 5e-4
"""Of what the fleet can hold that its stores may fail to take of the plan before their zones are slowed."""
KEPT_MORE = 2.0
"""Times the energy that stores of an overloaded feeder lacked, which their zone keeps from then on."""
SCATTER_MORE_H = 1.0
"""By which stores of one zone may come to be due further apart before zones are made anew."""
SHORT_MIN_W = 1.0
SHORT_MIN_WH = 1.0
"""Of what is due, that may be missing without a word."""
TOLERANCE_FRAC = 1e-3
"""Of the range between its limits by which a feeder or row may miss one before it is modelled or corrected."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FleetPlan:
    """A plan over zones, and the shares of every store in its first steps."""

    solution: Solution
    zones: Zoning
    shares: Shares
    feeder_w: FloatArray
    """Battery power by feeder, shape (feeders, steps): the next plan's `previous_w`, shifted."""
    held_w: FloatArray
    """PV held back by feeder, shape (feeders, steps)."""
    rounds: int
    agreed: bool
    """Feeders and system problem: False where corrections did not bring them together."""
    gave_way: tuple[Slack, ...]
    """Every limit that is violated in the plan more than without it, or gave way, with its name."""
    reactive_var: FloatArray | None = None
    """Of every store in its first steps, + = injection, shape (n, shared); None where none is planned."""

    @property
    def promised_w(self) -> FloatArray:
        """Fleet power in the shared steps, less what stores cannot give, shape (shared,)."""
        shortfall_w = self.shares.shortfall_w
        promised: FloatArray = (self.solution.injected_w[:, : shortfall_w.shape[1]] - shortfall_w).sum(axis=0)
        return promised


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlannerState:
    """How a planner was set up, and what it carries from one plan to the next: with a portfolio, all of a plan."""

    weights: PlanWeights
    scale_w: float
    shared_steps: int
    per_feeder: int
    fairness: Fairness
    feeders: IntArray
    """Modelled."""
    rows: IntArray
    """Network rows that the problem carries, by their place in `row_names`."""
    built: Built | None
    """None: the problem is built anew from the next portfolio."""
    placed: IntArray
    """Feeder of each store when the problem was built."""
    scatter_h: float
    """How far apart energy was due within one zone when the problem was built."""
    row_names: tuple[str, ...] = ()
    """Of the last portfolio."""
    first: tuple[str, ...] = ()
    """Aims that come before all weights, in this order."""


class FleetPlanner:
    """Plans again and again for one fleet; what it learned about its feeders stays."""

    def __init__(
        self,
        weights: PlanWeights,
        *,
        scale_w: float,
        shared_steps: int,
        per_feeder: int = 2,
        fairness: Fairness = Fairness.TIME_TO_GO,
        first: tuple[str, ...] = (),
    ) -> None:
        self._weights, self._scale_w, self._first = weights, scale_w, first
        self._shared_steps, self._per_feeder, self._fairness = shared_steps, per_feeder, fairness
        self._feeders: IntArray = np.zeros(0, dtype=np.intp)
        self._rows: IntArray = np.zeros(0, dtype=np.intp)
        self._row_names: tuple[str, ...] = ()
        self._master: Master | None = None
        self._placed: IntArray = np.zeros(0, dtype=np.intp)
        self._scatter_h = 0.0

    def state(self) -> PlannerState:
        """What the next plan depends on besides its portfolio."""
        return PlannerState(
            weights=self._weights,
            scale_w=self._scale_w,
            shared_steps=self._shared_steps,
            per_feeder=self._per_feeder,
            fairness=self._fairness,
            feeders=self._feeders,
            rows=self._rows,
            row_names=self._row_names,
            built=None if self._master is None else self._master.built,
            placed=self._placed,
            scatter_h=self._scatter_h,
            first=self._first,
        )

    @classmethod
    def resumed(cls, state: PlannerState) -> "FleetPlanner":
        """A planner whose next plan is, to the last bit, that of the one that was in this state."""
        planner = cls(
            state.weights,
            scale_w=state.scale_w,
            shared_steps=state.shared_steps,
            per_feeder=state.per_feeder,
            fairness=state.fairness,
            first=state.first,
        )
        planner._feeders, planner._rows, planner._row_names = state.feeders, state.rows, state.row_names
        planner._placed, planner._scatter_h = state.placed, state.scatter_h
        if state.built is not None:
            planner._master = Master.rebuilt(state.built, state.weights, scale_w=state.scale_w, first=state.first)
        return planner

    def plan(
        self, portfolio: Portfolio, *, iterations: int = 100, late: Callable[[], bool] = lambda: False
    ) -> FleetPlan:
        """Plan for what is known now, with so many iterations to a solve, until it is late.

        Raises
        ------
        PlanError
            The portfolio is absurd, the solver has no solution that it calls solved, or there is no time left.
        """
        given, short = narrowed(portfolio.checked())
        if self._master is not None and self._outlived(self._master.zones, given):
            self._master = None
        self._find_rows(given.rows.names)
        self._model(np.array(sorted(given.desk.hold_w), dtype=np.intp), self._rows, given.rows.feeder)
        bias = np.zeros((len(self._rows), len(given.hours)))
        learned: Experience | None = None
        corrections = 0
        for number in range(1, ROUNDS_MAX + 1):
            if self._master is None:
                zones = zoning(given, self._feeders, self._rows, per_feeder=self._per_feeder)
                self._master = Master(given, zones, self._weights, scale_w=self._scale_w, first=self._first)
                self._placed, self._scatter_h = given.devices.feeder, due_scatter_h(given, zones)
                bias, learned = np.zeros((len(self._rows), len(given.hours))), None
            solution = self._master.solve(given, bias, iterations=iterations, learned=learned)
            if late():
                raise PlanError(f"no plan: none that all feeders agree to in time, after {number} rounds")
            plan = self._spread(given, self._master.zones, solution, number)
            overloaded, misses, moved = _disagreement(given, plan)
            if self._model(overloaded, _worst(misses, given.rows.feeder), given.rows.feeder):
                continue
            missed = misses[self._rows].max(axis=1, initial=0.0) > 0.0
            unfilled, emptied = _unfilled(given, plan), _emptied(given, plan, overloaded)
            if corrections == CORRECTIONS_MAX or not (missed.any() or unfilled.any() or emptied.any()):
                break
            corrections += 1
            learned = _more_learned(given, plan, learned, unfilled, emptied)
            # The problem moves rows by what its zones did when it was built, the stores do by what they do now.
            bias[missed] = (moved[self._rows] - self._master.moved(solution))[missed]
        agreed = not misses.any() and not len(overloaded)
        return replace(plan, agreed=agreed, gave_way=(*_gave_way(given, plan), *short))

    def _outlived(self, zones: Zoning, given: Portfolio) -> bool:
        """Whether zones were made for another fleet, for one on other feeders, or for cars that have left."""
        elsewhere = not np.array_equal(self._placed, given.devices.feeder)
        return elsewhere or due_scatter_h(given, zones) > self._scatter_h + SCATTER_MORE_H

    def _find_rows(self, names: tuple[str, ...]) -> None:
        """Where the modelled rows are now; the problem is built anew unless all are where they were."""
        if names != self._row_names:
            place = {name: row for row, name in enumerate(names)}
            modelled = [place.get(self._row_names[row], -1) for row in self._rows]
            if modelled != self._rows.tolist():
                self._rows, self._master = np.array(sorted(set(modelled) - {-1}), dtype=np.intp), None
            self._row_names = names

    def _model(self, feeders: IntArray, rows: IntArray, row_feeder: IntArray) -> bool:
        """Model these feeders, and these rows with theirs, from now on; whether that is anything new."""
        rows = np.union1d(self._rows, rows).astype(np.intp)
        feeders = np.union1d(np.union1d(self._feeders, feeders), row_feeder[rows]).astype(np.intp)
        grown = len(feeders) > len(self._feeders) or len(rows) > len(self._rows)
        if grown:
            self._feeders, self._rows, self._master = feeders, rows, None
        return grown

    def _spread(self, given: Portfolio, zones: Zoning, solution: Solution, rounds: int) -> FleetPlan:
        first, blocks_var = slice(0, self._shared_steps), solution.reactive_var
        fairness = fairness_of(given.desk, self._fairness)
        shares = share(solution.injected_w[:, first], given.devices, zones.zone, given.hours, fairness=fairness)
        feeder_w = feeder_shares(given.devices, zones, len(given.feeders.low_w)) @ solution.injected_w
        by_feeder = csr_array(
            (np.ones(len(given.devices)), (given.devices.feeder, np.arange(len(given.devices)))),
            shape=(len(given.feeders.low_w), len(given.devices)),
        )
        feeder_w[:, first] = by_feeder @ shares.power_w
        return FleetPlan(
            solution=solution,
            zones=zones,
            shares=shares,
            reactive_var=None
            if blocks_var is None
            else share_reactive(blocks_var[:, first], given.devices, zones, shares.power_w),
            feeder_w=feeder_w,
            held_w=_held(given, zones, solution.held_w),
            rounds=rounds,
            agreed=False,
            gave_way=(),
        )


def narrowed(portfolio: Portfolio) -> tuple[Portfolio, tuple[Slack, ...]]:
    """The portfolio with all that stores have to keep to in their own bounds, and what is due and cannot be met."""
    hours, desk = portfolio.hours, portfolio.desk
    devices = within_sites(portfolio.devices, portfolio.sites, len(hours))
    if desk.emergency:
        later = np.cumsum(hours) > desk.hold_h + 1e-9
        devices = replace(devices, charge_max_w=devices.charge_max_w * later)
    devices, short_wh = within_envelopes(devices, hours)
    short = np.flatnonzero(short_wh > SHORT_MIN_WH)
    named = () if devices.envelopes is None else devices.envelopes.device[short]
    return replace(portfolio, devices=devices), tuple(
        Slack(energy_due(int(store)), 1, float(missing_wh))
        for store, missing_wh in zip(named, short_wh[short], strict=True)
    )


def energy_due(store: int) -> str:
    """What the energy that a store has to have at some time is called."""
    return f"energy due of store {store}"


def _held(given: Portfolio, zones: Zoning, held_w: FloatArray) -> FloatArray:
    """PV held back by feeder: the pool's in proportion to what each of its feeders has."""
    pv_w = given.feeders.pv_w
    pooled_w = pv_w.copy()
    pooled_w[zones.feeders] = 0.0
    total_w = pooled_w.sum(axis=0)
    by_feeder: FloatArray = pooled_w * np.divide(held_w[-1], total_w, out=np.zeros_like(total_w), where=total_w > 0.0)
    by_feeder[zones.feeders] = held_w[:-1]
    return by_feeder


def _values(given: Portfolio, plan: FleetPlan) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Flow of each feeder [W], value of each row, and how far its stores move it: zones, where not yet shared out."""
    feeders, rows = given.feeders, given.rows
    flow_w = feeders.net_load_w - plan.feeder_w + plan.held_w
    shared = plan.shares.power_w.shape[1]
    moved = row_effects(given, plan.zones, np.arange(len(rows))) @ plan.solution.injected_w
    moved[:, :shared] = rows.per_w @ plan.shares.power_w
    blocks_var, stores_var = plan.solution.reactive_var, plan.reactive_var
    if rows.per_var is not None and blocks_var is not None and stores_var is not None:
        moved[:, shared:] += reactive_effects(given.devices, plan.zones, rows.per_var) @ blocks_var[:, shared:]
        moved[:, :shared] += rows.per_var @ stores_var
    value = rows.base + moved - rows.per_pv_w[:, None] * plan.held_w[rows.feeder]
    return flow_w, value, moved


def _disagreement(given: Portfolio, plan: FleetPlan) -> tuple[IntArray, FloatArray, FloatArray]:
    """Feeders outside their limits, by how many tolerances rows are missed, and how far stores move them, both of shape
    (rows, steps)."""
    feeders, rows = given.feeders, given.rows
    flow_w, value, moved = _values(given, plan)
    low, high = ranked(feeders.low_w, feeders.high_w, feeders.net_load_w, feeders.rank)
    range_w = TOLERANCE_FRAC * size_of_limits(feeders.low_w, feeders.high_w)[:, None]
    outside = ((flow_w > high + range_w) | (flow_w < low - range_w)).any(axis=1)
    low, high = ranked(rows.low + rows.margin, rows.high - rows.margin, rows.base, rows.rank)
    tolerance = np.maximum(TOLERANCE_FRAC * size_of_limits(rows.low, rows.high), np.finfo(np.float64).tiny)[:, None]
    misses = np.maximum(np.maximum(value - high, low - value) - tolerance, 0.0) / tolerance
    return np.flatnonzero(outside), misses, moved


def size_of_limits(low: FloatArray, high: FloatArray) -> FloatArray:
    """Of limits, which tolerances and room are parts of: their range, or that of the one there is, shape (rows,)."""
    return np.where(np.isfinite(high - low), high - low, np.minimum(np.abs(low), np.abs(high)))


def _unfilled(given: Portfolio, plan: FleetPlan) -> BoolArray:
    """Where stores cannot take what their zone plans, some being full before others, shape (zones, shared); nowhere if
    it is little in all: what is not taken is missed hours later, when nobody can help it."""
    missing_w = np.maximum(-plan.shares.shortfall_w, 0.0)
    room_wh = float((given.devices.stored_max_wh - given.devices.stored_min_wh).sum())
    much = float((missing_w @ given.hours[: missing_w.shape[1]]).sum()) > UNFILLED_FRAC * room_wh
    return (missing_w > SHORT_MIN_W) & _unbound(given, plan.zones) & much


def _emptied(given: Portfolio, plan: FleetPlan, overloaded: IntArray) -> BoolArray:
    """Where zones of overloaded feeders lack power, some stores being empty before others, shape (zones, shared)."""
    whose = np.append(plan.zones.feeders, -1)[plan.zones.block]
    lacks = (plan.shares.shortfall_w > SHORT_MIN_W) & np.isin(whose, overloaded)[:, None]
    emptied: BoolArray = lacks & _unbound(given, plan.zones)
    return emptied


def _unbound(given: Portfolio, zones: Zoning) -> BoolArray:
    """Zones without an envelope: those with one have a course of their own to keep to, shape (zones, 1)."""
    unbound = np.ones((zones.zones, 1), dtype=np.bool_)
    if given.devices.envelopes is not None:
        unbound[zones.zone[given.devices.envelopes.device]] = False
    return unbound


def _more_learned(
    given: Portfolio, plan: FleetPlan, before: Experience | None, unfilled: BoolArray, emptied: BoolArray
) -> Experience:
    """What the shares of a plan add to what is known of its zones."""
    shared, steps = unfilled.shape[1], len(given.hours)
    known = before or no_experience(plan.zones, steps)
    fill_max_w = known.fill_max_w.copy()
    taken_w = plan.shares.shortfall_w - plan.solution.injected_w[:, :shared]
    fill_max_w[:, :shared][unfilled] = np.maximum(taken_w[unfilled], 0.0)
    lacked_wh = np.where(emptied, plan.shares.shortfall_w, 0.0) @ given.hours[:shared]
    since = np.arange(steps) >= emptied.argmax(axis=1)[:, None]
    return Experience(fill_max_w=fill_max_w, kept_wh=known.kept_wh + KEPT_MORE * lacked_wh[:, None] * since)


def _worst(misses: FloatArray, feeder: IntArray) -> IntArray:
    """Of each feeder the row that is missed most: with it, the others are often kept."""
    most = misses.max(axis=1, initial=0.0)
    turn = np.lexsort((-most, feeder))
    first = turn[np.unique(feeder[turn], return_index=True)[1]]
    worst: IntArray = first[most[first] > 0.0]
    return worst


def _gave_way(given: Portfolio, plan: FleetPlan) -> tuple[Slack, ...]:
    feeders, rows = given.feeders, given.rows
    flow_w, value, _ = _values(given, plan)
    found = list(plan.solution.slacks)
    known = {slack.limit for slack in found}
    for names, column, base, low, high in (
        (tuple(map(feeder_limit, range(len(flow_w)))), flow_w, feeders.net_load_w, feeders.low_w, feeders.high_w),
        (rows.names, value, rows.base, rows.low, rows.high),
    ):
        least, most = np.minimum(low[:, None], base), np.maximum(high[:, None], base)
        added = np.maximum(np.maximum(column - most, least - column), 0.0)
        steps = (added > TOLERANCE_FRAC * size_of_limits(low, high)[:, None]).sum(axis=1)
        found += [
            Slack(names[row], int(steps[row]), float(added[row].max()))
            for row in np.flatnonzero(steps)
            if names[row] not in known
        ]
    return tuple(found)
