"""Hosting capacity: how much generation a bus takes before something goes beyond a limit, by bisection over hours.

In every hour the feeder first settles without what is added, regulators acting; the added generation starts from those
taps. What is beyond its limit already then counts only as far as it gets worse. Power + = injection [W, var].
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil, isfinite, nan

import numpy as np

from derms.domain.arrays import FloatArray, IntArray
from derms.domain.grid import NEW, DerBinding, FeederPackage
from derms.errors import GridError, NotConverged
from derms.grid.engine import Engine, PowerFlow

CANDIDATE_W = 10e3
"""Rating under which a candidate is bound: a tenth of it is injected once, to see that it is connected."""
FLUCTUATION_MAX_PU = 0.03
"""Step of the voltage at a medium-voltage point of connection: IEEE 1547-2018, 7.2.2 (5 % on low voltage)."""
WORSE_PU, WORSE_FRAC = 1e-3, 1e-2
"""By how much what is beyond its limit already must get worse to count: voltage, and loading against the rating."""
EXACT = 1e-5
"""What a power flow leaves open of either."""
NO_FLOW = "no power flow"


class Criterion(StrEnum):
    """What can limit the generation at a bus."""

    VOLTAGE = "voltage"
    """Range of every point of the feeder, regulators acting."""
    THERMAL = "thermal"
    """Ratings of lines and transformers."""
    REVERSE_FLOW = "reverse-flow"
    """Power out of the feeder through its head."""
    FLUCTUATION = "fluctuation"
    """Step of the bus's voltage when the added generation drops out, regulators still where they stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """Limits, and how far and how finely to search."""

    p_max_w: float = 10e6
    """Most that is tried."""
    resolution_w: float = 10e3
    """Capacities are multiples of it."""
    var_per_w: float = 0.0
    """Reactive power that comes with every watt, + = injection."""
    reverse_max_w: float = 0.0
    fluctuation_max_pu: float = FLUCTUATION_MAX_PU
    wanted: tuple[Criterion, ...] = tuple(Criterion)

    def __post_init__(self) -> None:
        positive = {"p_max_w": self.p_max_w, "resolution_w": self.resolution_w, "fluctuation": self.fluctuation_max_pu}
        wrong = [f"{name} of {value}" for name, value in positive.items() if not (isfinite(value) and value > 0.0)]
        if not isfinite(self.var_per_w):
            wrong.append(f"var_per_w of {self.var_per_w}")
        if not self.reverse_max_w >= 0.0:
            wrong.append(f"reverse_max_w of {self.reverse_max_w}")
        if wrong:
            raise GridError(f"criteria of a hosting capacity: {', '.join(wrong)}: positive numbers expected")


@dataclass(frozen=True, slots=True, eq=False)
class Hour:
    """What the feeder carries in an hour that stands for others."""

    name: str
    load_w: FloatArray
    """At nominal voltage, shape (loads,)."""
    load_var: FloatArray
    der_w: FloatArray
    """Of the DER that are there without the candidates, shape (ders,)."""
    der_var: FloatArray


@dataclass(frozen=True, slots=True)
class Limit:
    """Capacity by one criterion."""

    criterion: Criterion
    capacity_w: float
    """Nothing is beyond the limit with this; it is with `resolution_w` more, unless nothing binds."""
    hour: str = ""
    """Where it binds first; empty when nothing binds up to the most that was tried."""
    where: str = ""
    """Voltage point, phase of a line or transformer, `head`, or `no power flow`."""
    value: float = nan
    """There, a step beyond the capacity: [pu], [pu of the rating], [W out of the feeder], [pu]."""
    limit: float = nan
    """In the same unit."""

    @property
    def binds(self) -> bool:
        """Whether the criterion limits at all."""
        return bool(self.hour)


@dataclass(frozen=True, slots=True)
class Hosting:
    """Hosting capacity at one DER, criterion by criterion."""

    der: str
    limits: tuple[Limit, ...]

    @property
    def tightest(self) -> Limit:
        """The criterion with the lowest capacity."""
        return min(self.limits, key=lambda limit: (limit.capacity_w, not limit.binds))


def with_candidates(package: FeederPackage, buses: Sequence[str], *, phases: tuple[int, ...] = ()) -> FeederPackage:
    """The feeder with a DER `host_<bus>` at each of these buses, on some phases or on all that a bus has.

    Open an engine on it and ask for the capacity of each. A bus that is not there, or lacks a phase, is a ModelError
    of the engine.
    """
    added = tuple(
        DerBinding(f"host_{bus}", "", NEW, "candidate", CANDIDATE_W, CANDIDATE_W, 0.0, bus, phases) for bus in buses
    )
    return replace(package, ders=(*package.ders, *added))


def representative_hours(load_w: FloatArray, month: IntArray, hour: IntArray) -> IntArray:
    """Positions, in time, of the hours with the least and with the most load of each hour of the day in each month.

    Parameters
    ----------
    load_w
        Of a whole year, shape (hours,); NaN is passed over.
    month, hour
        Month 1..12 and hour of the day 0..23 of each, shape (hours,).

    Returns
    -------
    IntArray
        Up to 576 positions: 12 months, 24 hours, light and heavy, as in California's integration capacity analysis.
    """
    found: set[int] = set()
    for one_month in range(1, 13):
        for one_hour in range(24):
            there = np.flatnonzero((month == one_month) & (hour == one_hour) & np.isfinite(load_w))
            if len(there):
                found |= {int(there[np.argmin(load_w[there])]), int(there[np.argmax(load_w[there])])}
    return np.array(sorted(found), dtype=np.intp)


def hosting_capacity(engine: Engine, der: str, hours: Sequence[Hour], criteria: Criteria | None = None) -> Hosting:
    """Most generation that can be added at a DER, by each criterion, in every one of these hours.

    What holds at an amount is taken to hold below it, as it does but for the steps of regulators; the capacity itself
    has been tried in every hour. Taps, capacitors and acting controls are put back; loads and DER are not.

    Parameters
    ----------
    der
        A candidate of `with_candidates`, or any DER of the package: what is added comes on top of its own power.

    Raises
    ------
    GridError
        No such DER, no hours, or columns of another shape.
    NotConverged
        An hour has no solution even when nothing is added.
    """
    criteria = criteria or Criteria()
    if der not in engine.layout.ders:
        raise GridError(f"{engine.package.id}: no DER {der!r} to add generation at")
    if not hours:
        raise GridError(f"{engine.package.id}: hosting capacity needs one representative hour at least")
    taps, capacitors = engine.taps(), engine.capacitors()
    try:
        search = _Search(engine, engine.layout.ders.index(der), hours, criteria)
        return Hosting(der, tuple(search.limit(criterion) for criterion in criteria.wanted))
    finally:
        engine.set_taps(taps)
        engine.set_capacitors(capacitors)
        engine.freeze_controls(False)


@dataclass(frozen=True, slots=True)
class _Beyond:
    """Something that an added generation brings beyond its limit."""

    where: str
    value: float
    limit: float


@dataclass(frozen=True, slots=True, eq=False)
class _Settled:
    """An hour without what is added."""

    taps: dict[str, int]
    capacitors: dict[str, int]
    excess_pu: FloatArray
    loading: FloatArray
    head_w: float


_Seen = dict[Criterion, _Beyond]


class _Search:
    """One DER, its hours, and what has been tried; amounts are counted in steps of the resolution."""

    def __init__(self, engine: Engine, row: int, hours: Sequence[Hour], criteria: Criteria) -> None:
        self._engine, self._row, self._criteria = engine, row, criteria
        self._hours = [_padded(engine, hour) for hour in hours]
        layout = engine.layout
        bus = layout.points[layout.der_point[row]].rpartition(".")[0]
        points = layout.bus_points(bus)
        self._points = points[points >= 0]
        start = engine.taps(), engine.capacitors()
        self._settled = [self._settle(hour, *start) for hour in self._hours]
        self._order = np.argsort([settled.head_w for settled in self._settled], kind="stable").tolist()
        """Hours that import least come first: they mostly bind, and the others then need a single look."""
        self._seen: dict[tuple[int, int], _Seen] = {}

    def limit(self, criterion: Criterion) -> Limit:
        """Search until the amount that is left has been seen to hold in every hour."""
        most = ceil(self._criteria.p_max_w / self._criteria.resolution_w)
        high, binding, beyond = most, -1, None
        before = most + 1
        while 0 < high < before:
            before = high
            for hour in self._order:
                found = self._look(hour, high).get(criterion)
                if found is not None:
                    high, beyond = self._bisect(hour, criterion, high, found)
                    binding = hour
                if high == 0:
                    break
        capacity_w = high * self._criteria.resolution_w
        if beyond is None:
            return Limit(criterion, capacity_w)
        return Limit(criterion, capacity_w, self._hours[binding].name, beyond.where, beyond.value, beyond.limit)

    def _bisect(self, hour: int, criterion: Criterion, high: int, found: _Beyond) -> tuple[int, _Beyond]:
        """Greatest amount that holds below one that does not, and what is beyond its limit a step above it."""
        low = 0
        while high - low > 1:
            middle = (low + high) // 2
            beyond = self._look(hour, middle).get(criterion)
            if beyond is None:
                low = middle
            else:
                high, found = middle, beyond
        return low, found

    def _look(self, hour: int, steps: int) -> _Seen:
        key = (hour, steps)
        if key not in self._seen:
            self._seen[key] = self._try(self._hours[hour], self._settled[hour], steps * self._criteria.resolution_w)
        return self._seen[key]

    def _try(self, hour: Hour, settled: _Settled, added_w: float) -> _Seen:
        """What an amount brings beyond its limit in an hour."""
        engine, wanted = self._engine, self._criteria.wanted
        engine.set_taps(settled.taps)
        engine.set_capacitors(settled.capacitors)
        try:
            flow = self._solve(hour, added_w, acting=True)
        except NotConverged:
            return dict.fromkeys(wanted, _Beyond(NO_FLOW, nan, nan))
        seen = {
            Criterion.THERMAL: self._thermal(flow, settled) if Criterion.THERMAL in wanted else None,
            Criterion.REVERSE_FLOW: self._reverse(flow),
            Criterion.FLUCTUATION: self._fluctuation(hour, flow) if Criterion.FLUCTUATION in wanted else None,
            Criterion.VOLTAGE: self._voltage(hour, flow, settled) if Criterion.VOLTAGE in wanted else None,
        }  # in this order: the last one lets the regulators move
        return {criterion: beyond for criterion, beyond in seen.items() if beyond is not None}

    # --- criteria ----------------------------------------------------------------------------------------------------

    def _voltage(self, hour: Hour, flow: PowerFlow, settled: _Settled) -> _Beyond | None:
        """The point whose voltage is furthest beyond its range, as far as the added generation makes it worse.

        A regulator can be tripped within its band by next to nothing. Where it stays there once all that was added is
        gone, it could have stood there before, and what is beyond its range with that does not count.
        """
        layout = self._engine.layout
        excess_pu = layout.excess_pu(flow.v_pu)
        if (excess_pu - _tolerated(settled.excess_pu, WORSE_PU)).max() <= 0.0:
            return None
        try:
            gone = self._solve(hour, 0.0, acting=True)
        except NotConverged:
            return _Beyond(NO_FLOW, nan, nan)
        before_pu = np.maximum(settled.excess_pu, layout.excess_pu(gone.v_pu))
        worse = excess_pu - _tolerated(before_pu, WORSE_PU)
        row = int(np.argmax(worse))
        if worse[row] <= 0.0:
            return None
        value = float(flow.v_pu[row])
        limit = layout.v_max_pu[row] if value > layout.v_max_pu[row] else layout.v_min_pu[row]
        return _Beyond(layout.points[row], value, float(limit))

    def _thermal(self, flow: PowerFlow, settled: _Settled) -> _Beyond | None:
        network = self._engine.network()
        loading = network.loading(flow.v_v)
        overload = np.nan_to_num(loading - 1.0, nan=-1.0)
        worse = overload - _tolerated(np.nan_to_num(settled.loading - 1.0, nan=-1.0), WORSE_FRAC)
        row = int(np.argmax(worse))
        if worse[row] <= 0.0:
            return None
        return _Beyond(network.current_names[row], float(loading[row]), 1.0)

    def _reverse(self, flow: PowerFlow) -> _Beyond | None:
        out_w, most_w = -float(flow.head_w.sum()), self._criteria.reverse_max_w
        return _Beyond("head", out_w, most_w) if out_w > most_w else None

    def _fluctuation(self, hour: Hour, flow: PowerFlow) -> _Beyond | None:
        most_pu = self._criteria.fluctuation_max_pu
        try:
            dropped = self._solve(hour, 0.0, acting=False)
        except NotConverged:
            return _Beyond(NO_FLOW, nan, most_pu)
        step_pu = np.abs(flow.v_pu - dropped.v_pu)[self._points]
        row = int(np.argmax(step_pu))
        if step_pu[row] <= most_pu:
            return None
        return _Beyond(self._engine.layout.points[self._points[row]], float(step_pu[row]), most_pu)

    # --- solutions ---------------------------------------------------------------------------------------------------

    def _settle(self, hour: Hour, taps: dict[str, int], capacitors: dict[str, int]) -> _Settled:
        engine = self._engine
        engine.set_taps(taps)
        engine.set_capacitors(capacitors)
        try:
            flow = self._solve(hour, 0.0, acting=True)
        except NotConverged as error:
            raise NotConverged(f"hour {hour.name}, with nothing added: {error}") from error
        return _Settled(
            engine.taps(),
            engine.capacitors(),
            engine.layout.excess_pu(flow.v_pu),
            engine.network().loading(flow.v_v),
            float(flow.head_w.sum()),
        )

    def _solve(self, hour: Hour, added_w: float, *, acting: bool) -> PowerFlow:
        engine = self._engine
        der_w, der_var = hour.der_w.copy(), hour.der_var.copy()
        der_w[self._row] += added_w
        der_var[self._row] += added_w * self._criteria.var_per_w
        engine.set_loads(hour.load_w, hour.load_var)
        engine.set_der(der_w, der_var)
        engine.freeze_controls(not acting)
        return engine.solve()


def _tolerated(before: FloatArray, worse: float) -> FloatArray:
    """How far each may be beyond its limit: not at all, or a little further than it was with nothing added."""
    tolerated: FloatArray = np.where(before > 0.0, before + worse, EXACT)
    return tolerated


def _padded(engine: Engine, hour: Hour) -> Hour:
    """An hour whose DER columns have zeros for the candidates too; raises GridError for another shape."""
    is_there = np.array([der.element != NEW for der in engine.package.ders], dtype=np.bool_)
    columns = []
    for values in (hour.der_w, hour.der_var):
        if values.shape != (np.count_nonzero(is_there),):
            there = np.count_nonzero(is_there)
            raise GridError(f"hour {hour.name}: {there} powers of DER expected, shape {values.shape} given")
        padded = np.zeros(len(is_there))
        padded[is_there] = values
        columns.append(padded)
    return replace(hour, der_w=columns[0], der_var=columns[1])
