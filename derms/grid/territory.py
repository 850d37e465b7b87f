"""Many feeders behind their substations: one column over all loads, one over all DER, head voltages coupled.

A substation is a 34.5 kV source behind its short-circuit impedance and a transformer, positive sequence only: what the
heads of its feeders draw together sets the voltage of the bus that they start from. Per unit on the transformer's own
rating. Loads and heads + = import, DER + = injection [W, var].
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, nan, sqrt

import numpy as np

from derms.domain.arrays import FloatArray
from derms.errors import ModelError, NotConverged
from derms.grid.engine import Engine, PowerFlow
from derms.grid.layout import column

PASSES_MAX = 3
MISMATCH_MAX_PU = 1e-4
"""Between the voltage that the feeders were solved with and the one that their power then makes at the bus."""


@dataclass(frozen=True, slots=True)
class Station:
    """A substation and the feeders that start at its bus."""

    id: str
    feeders: tuple[str, ...]
    s_rated_va: float
    """Of its transformers together."""
    r_pu: float
    x_pu: float
    """Of its transformers together."""
    source_r_pu: float = 0.0
    source_x_pu: float = 0.0
    """Of the 34.5 kV system, seen from the bus."""
    source_pu: float = 1.0
    """Voltage behind that impedance."""
    ratio: float = 1.0
    """Of the transformers, secondary over primary in per unit: a tap that is held."""
    no_load_w: float = 0.0
    """Losses of the iron."""

    def bus_pu(self, p_w: float, q_var: float) -> float:
        """Voltage of the feeders' bus [pu] when this power is drawn from it.

        With e the open-circuit voltage and z = r + jx in per unit: v^4 + (2 (p r + q x) - e^2) v^2 + |s|^2 |z|^2 = 0,
        of which the larger root is the one that is operated at.

        Raises
        ------
        NotConverged
            More is drawn than the station can carry.
        """
        r, x = self.r_pu + self.source_r_pu, self.x_pu + self.source_x_pu
        p, q = p_w / self.s_rated_va, q_var / self.s_rated_va
        half = (self.source_pu * self.ratio) ** 2 / 2.0 - (p * r + q * x)
        inner = half**2 - (p * p + q * q) * (r * r + x * x)
        if not (half > 0.0 and inner >= 0.0):  # catches NaN as well
            raise NotConverged(f"station {self.id}: {p_w / 1e6:.1f} MW is more than it can carry")
        return sqrt(half + sqrt(inner))

    def losses_va(self, p_w: float, q_var: float, v_pu: float) -> complex:
        """Losses of the transformers [W + j var] at this power and voltage of the bus."""
        series = (p_w**2 + q_var**2) / (self.s_rated_va * v_pu**2)
        return complex(self.r_pu * series + self.no_load_w, self.x_pu * series)


@dataclass(frozen=True, slots=True, eq=False)
class TerritoryFlow:
    """One solution of all feeders and stations."""

    v_pu: FloatArray
    """Voltages at the points of all feeders, one after the other, shape (points,); NaN where one has no solution."""
    head_w: FloatArray
    """Power into every feeder by phase, shape (feeders, 3), + = import."""
    head_var: FloatArray
    bus_pu: FloatArray
    """Voltage of every station's bus as its feeders were solved with it, shape (stations,)."""
    station_w: FloatArray
    """Drawn by every station from the 34.5 kV system, shape (stations,); NaN where a feeder has no solution."""
    station_var: FloatArray
    mismatch_pu: FloatArray
    """How far `bus_pu` is from what the feeders' power makes it, shape (stations,)."""
    passes: int
    """Most solutions that a feeder took."""
    failed: tuple[str, ...]
    """Feeders without a solution, and why."""

    @property
    def converged(self) -> bool:
        """Whether every station's voltage fits its power."""
        return not self.failed and bool((self.mismatch_pu <= MISMATCH_MAX_PU).all())


@dataclass(frozen=True, slots=True)
class _Part:
    """A feeder's engine and its places in the columns."""

    engine: Engine
    loads: slice
    ders: slice
    points: slice


class Territory:
    """Feeders behind stations, solved together. One thread uses it at a time, as each of its engines.

    Parameters
    ----------
    engines
        By feeder; their order is that of the columns. A feeder of no station keeps the head voltage it was given.
    stations
        With the feeders of each.

    Raises
    ------
    ModelError
        A station names a feeder that is not there, or one that another has.
    """

    def __init__(self, engines: Mapping[str, Engine], stations: Sequence[Station] = ()) -> None:
        self.feeders = tuple(engines)
        self.stations = tuple(stations)
        _check(self.feeders, self.stations)
        self._engines = tuple(engines.values())
        layouts = [engine.layout for engine in self._engines]
        loads = _slices(len(layout.loads) for layout in layouts)
        ders = _slices(len(layout.ders) for layout in layouts)
        points = _slices(len(layout.points) for layout in layouts)
        self._parts = tuple(map(_Part, self._engines, loads, ders, points))
        self._points = points
        self.load_count, self.der_count = loads[-1].stop if loads else 0, ders[-1].stop if ders else 0
        self.point_count = points[-1].stop if points else 0
        rows = {feeder: row for row, feeder in enumerate(self.feeders)}
        self._members = tuple(tuple(rows[feeder] for feeder in station.feeders) for station in self.stations)
        fed = {row for members in self._members for row in members}
        self._alone = tuple(row for row in range(len(self.feeders)) if row not in fed)
        self._bus_pu = np.array([station.source_pu * station.ratio for station in self.stations])

    def points_of(self, feeder: str) -> slice:
        """Where a feeder's points stand in the column of voltages; ModelError for one that is not there."""
        if feeder not in self.feeders:
            raise ModelError(f"no feeder {feeder!r} in the territory")
        return self._points[self.feeders.index(feeder)]

    def step(self, loads: tuple[FloatArray, FloatArray], ders: tuple[FloatArray, FloatArray]) -> TerritoryFlow:
        """Set every load and every DER, solve all feeders, and pass by pass the voltages of the stations.

        Parameters
        ----------
        loads
            Active [W] and reactive power [var] at nominal voltage, each of shape (loads,).
        ders
            The same of the DER, + = injection, each of shape (ders,).

        Raises
        ------
        GridError
            Another shape, or values that are not finite.
        """
        given = _Given(
            *(column("loads of the territory", values, self.load_count) for values in loads),
            *(column("DER of the territory", values, self.der_count) for values in ders),
        )
        flow = _Flow.empty(len(self.feeders), self.point_count, len(self.stations))
        for row in self._alone:
            self._set(row, given)
            self._solve(row, flow)
        for number in range(len(self.stations)):
            self._couple(number, given, flow)
        return flow.done(self._bus_pu.copy())

    def _couple(self, number: int, given: "_Given", flow: "_Flow") -> None:
        """Solve a station's feeders until the voltage they are solved with is the one that they make."""
        station, members = self.stations[number], self._members[number]
        tried: list[tuple[float, float]] = []
        v_pu = float(self._bus_pu[number])
        for passed in range(1, PASSES_MAX + 1):
            solved = True
            for row in members:
                self._engines[row].set_source_pu(v_pu)
                if passed == 1:
                    self._set(row, given)
                solved &= self._solve(row, flow)
            self._bus_pu[number], flow.passes = v_pu, max(flow.passes, passed)
            if not solved:
                return
            p_w, q_var = (float(powers[list(members)].sum()) for powers in (flow.head_w, flow.head_var))
            try:
                made_pu = station.bus_pu(p_w, q_var)
            except NotConverged as error:
                flow.failed.append(str(error))
                return
            tried.append((v_pu, made_pu))
            losses = station.losses_va(p_w, q_var, v_pu)
            flow.station_w[number], flow.station_var[number] = p_w + losses.real, q_var + losses.imag
            flow.mismatch_pu[number] = abs(made_pu - v_pu)
            if flow.mismatch_pu[number] <= MISMATCH_MAX_PU:
                return
            v_pu = _next(tried)

    def _set(self, row: int, given: "_Given") -> None:
        """Write a feeder's powers. Right before it is solved: what a feeder is made of is then near, in the cache."""
        part = self._parts[row]
        part.engine.set_loads(given.load_w[part.loads], given.load_var[part.loads])
        part.engine.set_der(given.der_w[part.ders], given.der_var[part.ders])

    def _solve(self, row: int, flow: "_Flow") -> bool:
        try:
            solved: PowerFlow = self._engines[row].solve()
        except NotConverged as error:
            flow.v_pu[self._points[row]] = flow.head_w[row] = flow.head_var[row] = nan
            flow.failed.append(f"{self.feeders[row]}: {error}")
            return False
        flow.v_pu[self._points[row]] = solved.v_pu
        flow.head_w[row], flow.head_var[row] = solved.head_w, solved.head_var
        return True


@dataclass(frozen=True, slots=True, eq=False)
class _Given:
    """Powers of all loads and DER in one step."""

    load_w: FloatArray
    load_var: FloatArray
    der_w: FloatArray
    der_var: FloatArray


@dataclass(slots=True)
class _Flow:
    """A `TerritoryFlow` while it is being filled."""

    v_pu: FloatArray
    head_w: FloatArray
    head_var: FloatArray
    station_w: FloatArray
    station_var: FloatArray
    mismatch_pu: FloatArray
    failed: list[str]
    passes: int = 1

    @classmethod
    def empty(cls, feeders: int, points: int, stations: int) -> "_Flow":
        heads, unknown = np.full((2, feeders, 3), nan), np.full((3, stations), nan)
        return cls(np.full(points, nan), heads[0], heads[1], unknown[0], unknown[1], unknown[2], [])

    def done(self, bus_pu: FloatArray) -> TerritoryFlow:
        return TerritoryFlow(
            v_pu=self.v_pu,
            head_w=self.head_w,
            head_var=self.head_var,
            bus_pu=bus_pu,
            station_w=self.station_w,
            station_var=self.station_var,
            mismatch_pu=self.mismatch_pu,
            passes=self.passes,
            failed=tuple(self.failed),
        )


def _next(tried: Sequence[tuple[float, float]]) -> float:
    """Voltage to try next: what came out, and from the second pass on where the last two say that both meet."""
    last_pu, made_pu = tried[-1]
    if len(tried) < 2:
        return made_pu
    before_pu, before_made_pu = tried[-2]
    slope = (made_pu - before_made_pu) / (last_pu - before_pu)
    if not (isfinite(slope) and abs(slope) < 0.5):  # no station is so weak: it would be noise
        return made_pu
    return last_pu + (made_pu - last_pu) / (1.0 - slope)


def _slices(counts: Iterable[int]) -> list[slice]:
    ends = np.cumsum([0, *counts]).tolist()
    return [slice(begin, end) for begin, end in pairwise(ends)]


def _check(feeders: Sequence[str], stations: Sequence[Station]) -> None:
    owner: dict[str, str] = {}
    wrong: list[str] = []
    for station in stations:
        if not (station.s_rated_va > 0.0 and isfinite(station.s_rated_va)):
            wrong.append(f"station {station.id} has no rating")
        for feeder in station.feeders:
            if feeder not in feeders:
                wrong.append(f"station {station.id} names feeder {feeder!r}, which is not there")
            elif feeder in owner:
                wrong.append(f"feeder {feeder} belongs to stations {owner[feeder]} and {station.id}")
            owner[feeder] = station.id
    if wrong:
        raise ModelError("; ".join(wrong))
