"""The system problem over zones: built once, and solved again with new bounds and vectors.

Powers in per unit of `scale_w` inside, in W outside.
"""

from dataclasses import astuple, dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.domain.settings import PlanWeights
from derms.optimize.horizon import (
    _CHANGE_COST,
    _RAMP_COST,
    FleetShape,
    fleet_form,
    period_of,
    ramp_weights,
)
from derms.optimize.portfolio import Portfolio, Rank
from derms.optimize.reactive import reactive_effects, reactive_room
from derms.optimize.solver import EPS, Found, Solver, Vectors
from derms.optimize.zones import Stores, Zoning, row_effects, stores

SLACK_COST = 20.0
"""Per pu and step beyond a limit: above any marginal value of the objective, so that slack is the last resort."""
EMERGENCY_VALUE = 10.0
"""Per pu h that is discharged in an emergency: above all else but limits."""
BOTH_MAX_FRAC = 1e-4
"""Of its power a zone may charge and discharge at once, or as much as the solver is inaccurate; more is done away
with, not netted."""
SLACK_MIN_PU = 1e-6
KEPT_PU = 1e-3
"""By which the peak or rise of a day that comes first may be worse than its best, so that what follows has room."""
REST_FRAC = 1e-4
"""The heaviest that another aim or a price is against one that comes first, while that is made as good as it can be."""
AIM_VARIABLES = {"peak": "peak", "ramp_3h": "rise"}
"""Aims that can come before all weights, and their variables."""
FAR_PU = 1e3
"""A right side that bounds nothing; infinity would take a row out of PIQP's problem for ever."""


@dataclass(frozen=True, slots=True)
class Slack:
    """A limit that gave way."""

    limit: str
    steps: int
    most: float
    """Greatest amount [W, or the unit of the row]."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A limit that costs something: where it stands, more of it would make the objective better."""

    limit: str
    steps: int
    per_mw: float
    """Objective won per MW (or unit of the row) and hour of more room, summed over the steps."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution:
    """A solution of the system problem in SI units; blocks as of the zoning, the pool last."""

    injected_w: FloatArray
    """By zone, shape (zones, steps)."""
    held_w: FloatArray
    """PV held back by block, shape (blocks + 1, steps)."""
    stored_wh: FloatArray
    net_w: FloatArray
    slacks: tuple[Slack, ...]
    binding: tuple[Binding, ...]
    solver: str
    iterations: int
    objective: float
    reactive_var: FloatArray | None = None
    """By modelled feeder, + = injection, shape (blocks, steps); None where none is planned."""


def ranked(low: FloatArray, high: FloatArray, base: FloatArray, rank: IntArray) -> tuple[FloatArray, FloatArray]:
    """Limits with their rank: what is violated without the plan is not worsened, or left alone. (rows, steps) each."""
    kind = rank[:, None]
    not_worse, ignored = kind == Rank.NOT_WORSE, kind == Rank.IGNORED
    least = np.where(not_worse, np.minimum(low[:, None], base), np.broadcast_to(low[:, None], base.shape))
    most = np.where(not_worse, np.maximum(high[:, None], base), np.broadcast_to(high[:, None], base.shape))
    return np.where(ignored, -np.inf, least), np.where(ignored, np.inf, most)


def feeder_limit(feeder: int) -> str:
    """What the limits of a feeder's power are called."""
    return f"feeder {feeder} power"


def reserves_w(portfolio: Portfolio, fleet_w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What batteries could give and take beside what the fleet does, or is to do [W], shape (steps,) each."""
    devices = portfolio.devices
    return devices.discharge_max_w.sum(axis=0) - fleet_w, devices.charge_max_w.sum(axis=0) + fleet_w


def _beyond_fleet(portfolio: Portfolio) -> BoolArray:
    """Steps in which more is to be held in reserve than all batteries that are there can give, or take."""
    up_w, down_w = reserves_w(portfolio, np.zeros(len(portfolio.hours)))
    beyond: BoolArray = (portfolio.desk.reserve_up_w > up_w) | (portfolio.desk.reserve_down_w > down_w)
    return beyond


def _unkept_w(portfolio: Portfolio, fleet_w: FloatArray) -> FloatArray:
    """What lacks of a reserve that is beyond the fleet [W], shape (steps,); 0 where it is not."""
    up_w, down_w = reserves_w(portfolio, fleet_w)
    lacks_w = np.maximum(portfolio.desk.reserve_up_w - up_w, portfolio.desk.reserve_down_w - down_w)
    return np.where(_beyond_fleet(portfolio), np.maximum(lacks_w, 0.0), 0.0)


def _strongest(effects: csr_array) -> FloatArray:
    """Greatest effect on each row, shape (rows,)."""
    if not effects.shape[0]:
        return np.zeros(0)
    strongest: FloatArray = np.abs(effects).max(axis=1).toarray().ravel()
    return strongest


def _support(portfolio: Portfolio, zones: Zoning) -> csr_array | None:
    """Change of the carried rows per var of each modelled feeder; None where no reactive power is planned."""
    per_var = portfolio.rows.per_var
    if per_var is None or portfolio.devices.apparent_max_va is None or not len(zones.rows):
        return None
    return reactive_effects(portfolio.devices, zones, per_var[zones.rows])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Experience:
    """What sharing has shown that zones cannot do although one battery of their sum could, shape (zones, steps)."""

    fill_max_w: FloatArray
    """Most that each zone can charge with: its stores are not full at once."""
    kept_wh: FloatArray
    """Energy that each has to keep beside its least: nor are they empty at once."""


def no_experience(zones: Zoning, steps: int) -> Experience:
    """Zones that have not been shared out yet."""
    size = (zones.zones, steps)
    return Experience(fill_max_w=np.full(size, np.inf), kept_wh=np.zeros(size))


def _taught(now: Stores, learned: Experience, hours: FloatArray) -> Stores:
    """Zones within what is known of them, as far as that leaves each a way to its least energy."""
    low_wh = now.low_wh + learned.kept_wh
    slowed_w = np.minimum(now.charge_max_w, learned.fill_max_w)
    most_wh = now.stored_wh[:, None] + now.efficiency_frac[:, None] * np.cumsum(slowed_w * hours, axis=1)
    arrives = (most_wh >= now.low_wh).all(axis=1, keepdims=True)
    return replace(
        now,
        charge_max_w=np.where(arrives, slowed_w, now.charge_max_w),
        # A zone that has not as much is not asked to gain it.
        low_wh=np.where(low_wh <= np.minimum(now.stored_wh[:, None], now.high_wh), low_wh, now.low_wh),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Built:
    """What a problem was built from: the same is built from it again."""

    zones: Zoning
    effects: csr_array
    """Change of the carried rows per W of each zone, shape (rows, zones)."""
    support: csr_array | None
    """Change of the carried rows per var of each modelled feeder, shape (rows, blocks); None for no such."""
    shape: FleetShape


def _row_unit(effects: csr_array, support: csr_array | None) -> FloatArray:
    """A row is divided by its strongest effect, so that its slack is power and costs the same."""
    strongest = _strongest(effects)
    if support is not None:
        strongest = np.maximum(strongest, _strongest(support))
    return np.where(strongest > 0.0, strongest, 1.0)


def _shape(
    portfolio: Portfolio, zones: Zoning, effects: csr_array, support: csr_array | None, *, scale_w: float
) -> FleetShape:
    now, row_unit = stores(portfolio, zones), _row_unit(effects, support)
    place = np.full(len(portfolio.feeders.low_w), len(zones.feeders))
    place[zones.feeders] = np.arange(len(zones.feeders))
    count = len(zones.rows)
    per_pv = portfolio.rows.per_pv_w[zones.rows] / row_unit
    columns = place[portfolio.rows.feeder[zones.rows]]
    return FleetShape(
        hours=portfolio.hours,
        efficiency_frac=now.efficiency_frac,
        # A zone that has no power now counts as a mean one: its stores may come back.
        power=np.maximum(now.power_w, max(float(now.power_w.mean()), 1.0)) / scale_w,
        block=zones.block,
        blocks=len(zones.feeders),
        zone_effect=csr_array(effects / row_unit[:, None]) if count else effects,
        pv_effect=csr_array((per_pv, (np.arange(count), columns)), shape=(count, len(zones.feeders) + 1)),
        period_h=portfolio.period_h,
        days=len(portfolio.counted()),
        reactive_effect=None if support is None else csr_array(support / row_unit[:, None]),
        reactive_power=None
        if support is None
        else np.maximum(reactive_room(portfolio, zones).max(axis=1), 1.0) / scale_w,
    )


class Master:
    """The problem for one zoning; aims that are named in `first` come before all others, in this order."""

    def __init__(
        self, portfolio: Portfolio, zones: Zoning, weights: PlanWeights, *, scale_w: float, first: tuple[str, ...] = ()
    ) -> None:
        effects, support = row_effects(portfolio, zones, zones.rows), _support(portfolio, zones)
        shape = _shape(portfolio, zones, effects, support, scale_w=scale_w)
        self._begin(Built(zones=zones, effects=effects, support=support, shape=shape), weights, scale_w, first)

    @classmethod
    def rebuilt(cls, built: Built, weights: PlanWeights, *, scale_w: float, first: tuple[str, ...] = ()) -> "Master":
        """The same problem as the one that was built from this."""
        master = cls.__new__(cls)
        master._begin(built, weights, scale_w, first)
        return master

    def _begin(self, built: Built, weights: PlanWeights, scale_w: float, first: tuple[str, ...]) -> None:
        self.built, self.zones, self.effects, self.support = built, built.zones, built.effects, built.support
        self._weights, self._scale_w, self._first = weights, scale_w, first
        self._row_unit = _row_unit(built.effects, built.support)
        self._efficiency_frac = built.shape.efficiency_frac
        self._form = fleet_form(built.shape, weights)
        self._solver = Solver(self._form)

    def solve(
        self, portfolio: Portfolio, bias: FloatArray, *, iterations: int = 100, learned: Experience | None = None
    ) -> Solution:
        """Solve for what is known now; `bias` is added to the carried rows [their unit], shape (rows, steps).

        Raises
        ------
        PlanError
            The solver does not call its solution solved: a limit of iterations and inaccuracy are failures.
        """
        now = stores(portfolio, self.zones, efficiency_frac=self._efficiency_frac)
        if learned is not None:
            now = _taught(now, learned, portfolio.hours)
        changed = Vectors(self._form)
        self._fill(changed, portfolio, now, bias)
        self._solver.iterations = iterations
        rest_frac = REST_FRAC / max(1.0, *astuple(self._weights), float(np.abs(portfolio.price).max()))
        found = self._in_order(changed, rest_frac)
        for everywhere in (False, True):
            charge, discharge = self._of(found.x, "charge"), self._of(found.x, "discharge")
            both = np.minimum(charge, discharge) > np.maximum(BOTH_MAX_FRAC * now.power_w[:, None] / self._scale_w, EPS)
            if not both.any():
                break
            # First where it happens; should it then happen elsewhere, each zone keeps to its direction in every step.
            one_way = both | everywhere
            # By what the store does, so that the energy that was planned stays possible with one direction.
            gives = discharge >= self._efficiency_frac[:, None] ** 2 * charge
            changed.shut("charge", one_way & gives)
            changed.shut("discharge", one_way & ~gives)
            found = self._in_order(changed, rest_frac)
        return self._solution(found, portfolio, now)

    def moved(self, solution: Solution) -> FloatArray:
        """How far the carried rows move with this solution, but for PV held back, shape (rows, steps)."""
        moved: FloatArray = self.effects @ solution.injected_w
        if self.support is not None and solution.reactive_var is not None:
            moved += self.support @ solution.reactive_var
        return moved

    def _in_order(self, changed: Vectors, rest_frac: float) -> Found:
        """What comes first as good as it can be, each day's in its turn, and then the rest by weights.

        Each bound is of a solution that keeps all bounds before it, so that there always is one that keeps them all.
        """
        bounded, iterations = changed.copy(), 0
        for aim in self._first:
            best = self._solver.run(bounded.alone(AIM_VARIABLES[aim], rest_frac))
            best_pu = self._of(best.x, AIM_VARIABLES[aim])
            bounded.put(AIM_VARIABLES[aim], high=best_pu + KEPT_PU)
            iterations += best.iterations
        found = self._solver.run(bounded)
        return replace(found, iterations=iterations + found.iterations)

    def _of(self, x: FloatArray, name: str) -> FloatArray:
        place, shape = self._form.columns[name]
        values: FloatArray = x[place].reshape(shape, order="F")
        return values

    def _fill(self, put: Vectors, portfolio: Portfolio, now: Stores, bias: FloatArray) -> None:
        scale, hours, desk = self._scale_w, portfolio.hours, portfolio.desk
        first = np.cumsum(hours) <= desk.hold_h + 1e-9
        emergency = first & desk.emergency
        put.put("charge", high=np.where(emergency, 0.0, now.charge_max_w) / scale)
        put.put("discharge", high=now.discharge_max_w / scale)
        put.put("stored", low=now.low_wh / scale, high=now.high_wh / scale)
        put.above("discharge", -EMERGENCY_VALUE * hours * emergency)
        start = np.zeros((self.zones.block.size, len(hours)))
        start[:, 0] = now.stored_wh / scale
        put.equal("stored", start)
        put.equal("net", portfolio.feeders.net_load_w.sum(axis=0) / scale)
        put.cost("net", portfolio.price * hours)
        self._fill_course(put, portfolio)
        self._fill_fleet(put, portfolio, now)
        self._fill_limits(put, portfolio, bias, first)

    def _fill_course(self, put: Vectors, portfolio: Portfolio) -> None:
        scale, hours, period_h = self._scale_w, portfolio.hours, portfolio.period_h
        past, previous = portfolio.past_net_w / scale, portfolio.previous_w.sum(axis=0) / scale
        days = portfolio.counted()
        has = days.has()
        # The peak of a day without a step has nothing else to rest on.
        put.put("peak", low=np.where(has.any(axis=1), days.peak_w / scale, 0.0))
        put.put("rise", low=np.maximum(days.rise_w / scale, 0.0))
        elsewhere = np.where(has, 0.0, FAR_PU)
        put.less("peak", elsewhere)
        # A period is of the day in which it ends.
        last = np.flatnonzero(np.diff(period_of(hours, period_h), append=-1))
        lag = len(past)
        put.less("across", elsewhere[:, last[:lag]] + past[: len(last)])
        if len(last) > lag:
            put.less("rise", elsewhere[:, last[lag:]])
        pull = np.zeros(len(hours))
        weight = 2.0 * self._weights.ramp * _RAMP_COST * ramp_weights(hours, period_h)[0]
        pull[0] = -weight * past[-1]
        put.cost("net", pull)
        put.cost("fleet", -2.0 * self._weights.change * _CHANGE_COST * hours / period_h * previous)

    def _fill_fleet(self, put: Vectors, portfolio: Portfolio, now: Stores) -> None:
        scale, desk = self._scale_w, portfolio.desk
        lowest_w = np.minimum(desk.reserve_down_w - now.charge_max_w.sum(axis=0), 0.0)
        highest_w = np.maximum(now.discharge_max_w.sum(axis=0) - desk.reserve_up_w, 0.0)
        lowest_w = np.where(desk.reserve_down_w > 0.0, lowest_w, -np.inf)
        highest_w = np.where(desk.reserve_up_w > 0.0, highest_w, np.inf)
        put.put("reserve", low=lowest_w / scale, high=highest_w / scale)
        most = desk.ramp_w_per_h * portfolio.hours / scale
        put.put("move", low=-most, high=most)
        start = np.zeros(len(portfolio.hours))
        start[0] = -portfolio.previous_w[:, 0].sum() / scale
        put.equal("move", start)
        for name in ("reserve", "move"):
            put.slack(name, self._slack_cost(portfolio))

    def _slack_cost(self, portfolio: Portfolio) -> float:
        return SLACK_COST + 10.0 * float(np.abs(portfolio.price * portfolio.hours).max())

    def _fill_limits(self, put: Vectors, portfolio: Portfolio, bias: FloatArray, first: BoolArray) -> None:
        scale, feeders, zones = self._scale_w, portfolio.feeders, self.zones
        chosen = zones.feeders
        pv_w = np.vstack([feeders.pv_w[chosen], feeders.pv_w.sum(axis=0) - feeders.pv_w[chosen].sum(axis=0)])
        if len(chosen):
            load_w = feeders.net_load_w[chosen]
            low, high = ranked(feeders.low_w[chosen], feeders.high_w[chosen], load_w, feeders.rank[chosen])
            for feeder, power_w in portfolio.desk.hold_w.items():
                at = np.ix_(chosen == feeder, first)
                low[at] = high[at] = np.clip(load_w[at] - power_w, low[at], high[at])
                pv_w[:-1][at] = 0.0
            put.put("flow", low=low / scale, high=high / scale)
            put.equal("flow", load_w / scale)
            put.slack("flow", self._slack_cost(portfolio))
        # The pool has no limits to keep. Where batteries rest for a reserve that cannot be had, PV does not pay for it.
        pv_w[-1][_beyond_fleet(portfolio)] = 0.0
        put.put("held", high=np.maximum(pv_w, 0.0) / scale)
        if self.support is not None:
            room = reactive_room(portfolio, zones) / scale
            put.put("reactive", low=-room, high=room)
        if len(zones.rows):
            rows, unit = portfolio.rows, self._row_unit[:, None] * scale
            base = rows.base[zones.rows] + bias
            margin = rows.margin[zones.rows]
            low, high = ranked(
                rows.low[zones.rows] + margin, rows.high[zones.rows] - margin, base, rows.rank[zones.rows]
            )
            put.put("row", low=low / unit, high=high / unit)
            put.equal("row", base / unit)
            put.slack("row", self._slack_cost(portfolio))

    def _solution(self, found: Found, portfolio: Portfolio, now: Stores) -> Solution:
        scale, x = self._scale_w, found.x
        injected_w = np.clip(
            scale * (self._of(x, "discharge") - self._of(x, "charge")), -now.charge_max_w, now.discharge_max_w
        )
        held_w = np.maximum(scale * self._of(x, "held"), 0.0)
        return Solution(
            injected_w=injected_w,
            held_w=held_w,
            stored_wh=scale * self._of(x, "stored"),
            reactive_var=None if self.support is None else scale * self._of(x, "reactive"),
            net_w=portfolio.feeders.net_load_w.sum(axis=0) - injected_w.sum(axis=0) + held_w.sum(axis=0),
            slacks=self._slacks(x, portfolio, now),
            binding=self._binding(found.price, portfolio),
            solver=found.solver,
            iterations=found.iterations,
            objective=found.objective,
        )

    def _names(self, portfolio: Portfolio) -> dict[str, tuple[list[str], FloatArray]]:
        """Of each kind of limit the names of its rows, and their unit against per unit."""
        zones, scale = self.zones, self._scale_w
        named = {
            "flow": ([feeder_limit(int(feeder)) for feeder in zones.feeders], np.full(len(zones.feeders), scale)),
            "row": ([portfolio.rows.names[row] for row in zones.rows], self._row_unit * scale),
            "reserve": (["held reserve"], np.array([scale])),
            "move": (["fleet ramp"], np.array([scale])),
        }
        return {kind: names for kind, names in named.items() if kind in self._form.columns}

    def _slacks(self, x: FloatArray, portfolio: Portfolio, now: Stores) -> tuple[Slack, ...]:
        found = []
        for kind, (names, unit) in self._names(portfolio).items():
            slack = np.atleast_2d(self._of(x, f"{kind}_over") + self._of(x, f"{kind}_under"))
            if kind == "reserve":
                slack = np.maximum(slack, _unkept_w(portfolio, self._scale_w * self._of(x, "fleet")) / unit[0])
            found += [
                Slack(names[row], int((slack[row] > SLACK_MIN_PU).sum()), float(slack[row].max() * unit[row]))
                for row in np.flatnonzero((slack > SLACK_MIN_PU).any(axis=1))
            ]
        found += [
            Slack(f"state of charge of zone {zone}", 1, float(now.gave_way_wh[zone]))
            for zone in np.flatnonzero(now.gave_way_wh > 1.0)
        ]
        return tuple(found)

    def _binding(self, price: FloatArray, portfolio: Portfolio) -> tuple[Binding, ...]:
        found = []
        for kind, (names, unit) in self._names(portfolio).items():
            dual = np.atleast_2d(self._of(price, kind))
            found += [
                Binding(names[row], int((dual[row] > 1e-4).sum()), float(dual[row].sum() * 1e6 / unit[row]))
                for row in np.flatnonzero((dual > 1e-4).any(axis=1))
            ]
        return tuple(found)
