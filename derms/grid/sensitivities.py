"""What a feeder hands to the optimizer: how voltages, currents and head power follow its DER, where it matters.

Carried are the rows that can come near a limit within the reach of the DER, and head power always; the others are
dropped and counted. Also here: how long a tangent holds. DER + = injection, head + = import [W, var].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.sparse import csr_array

from derms.domain.arrays import BoolArray, ComplexArray, FloatArray
from derms.errors import GridError
from derms.grid.engine import Engine, PowerFlow
from derms.grid.layout import V_DEAD_PU, column
from derms.grid.linearise import Tangent

MOVED_MAX_PU = 0.01
"""Voltages that moved further than this make a tangent stale: its error is some 3 % of the way."""
IDLE_FRAC = 0.05
"""Below this share of its rating a current has no direction worth following."""


class Kind(StrEnum):
    """What a row is about."""

    VOLTAGE = "voltage"
    """At a point [pu]."""
    CURRENT = "current"
    """Of a phase of a line or transformer [A], along its direction now; -rating is rated current the other way."""
    HEAD_W = "head active power"
    """Into the feeder on one phase [W]."""
    HEAD_VAR = "head reactive power"


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """How far every DER can move from where it is [W, var], each of shape (ders,), low <= high."""

    p_low_w: FloatArray
    p_high_w: FloatArray
    q_low_var: FloatArray
    q_high_var: FloatArray


@dataclass(frozen=True, slots=True)
class Margins:
    """How near to its limit a row must be able to come to be carried."""

    voltage_pu: float = 0.00625
    """One tap of a regulator: it may move before the plan does."""
    current_frac: float = 0.1
    """Of the rating."""


@dataclass(frozen=True, slots=True, eq=False)
class Sensitivities:
    """The critical rows of one feeder at one solution."""

    names: tuple[str, ...]
    """Voltage point, element and phase of a current, or phase of the head."""
    kinds: tuple[Kind, ...]
    values: FloatArray
    """At the solution, shape (rows,)."""
    low: FloatArray
    """Limits, infinite where there is none, each of shape (rows,)."""
    high: FloatArray
    d_dp: FloatArray
    """Change per W of every DER, shape (rows, ders)."""
    d_dq: FloatArray
    """Change per var of every DER, shape (rows, ders)."""
    dropped: Mapping[Kind, int]
    """Rows with a limit that they cannot come near."""

    def predicted(self, dp_w: FloatArray, dq_var: FloatArray) -> FloatArray:
        """Values of the rows when the DER move by this much [W, var], each of shape (ders,)."""
        values: FloatArray = self.values + self.d_dp @ dp_w + self.d_dq @ dq_var
        return values


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Rows of one kind before they are sifted; `slope` is per W, then per var, shape (rows, 2 x ders)."""

    kind: Kind
    names: tuple[str, ...]
    values: FloatArray
    low: FloatArray
    high: FloatArray
    slope: FloatArray
    critical: BoolArray


def sensitivities(
    tangent: Tangent,
    reach: Reach,
    margins: Margins | None = None,
    *,
    head_low_w: FloatArray | None = None,
    head_high_w: FloatArray | None = None,
) -> Sensitivities:
    """The rows that DER within their reach can bring near a limit, from one solution for all DER.

    Parameters
    ----------
    head_low_w, head_high_w
        Allowed active power into the head, phases a, b, c [W], shape (3,); None for none.

    Raises
    ------
    GridError
        A reach of another shape, not finite, or with a low end above its high one.
    """
    margins = margins or Margins()
    low, high = _moves(reach, len(tangent.layout.ders))
    loads = len(tangent.layout.loads)
    changes_v = tangent.node_columns(np.arange(loads, loads + len(tangent.layout.ders)))
    nowhere = np.full(3, np.inf)
    found = [
        _voltage_rows(tangent, changes_v, low, high, margins.voltage_pu),
        _current_rows(tangent, changes_v, low, high, margins.current_frac),
        *_head_rows(
            tangent,
            changes_v,
            -nowhere if head_low_w is None else column("head limit", head_low_w, 3),
            nowhere if head_high_w is None else column("head limit", head_high_w, 3),
        ),
    ]
    return _sifted(found, len(tangent.layout.ders))


def _moves(reach: Reach, ders: int) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest change of P, then of Q, of every DER, each of shape (2 x ders,)."""
    low = np.concatenate([column("reach", reach.p_low_w, ders), column("reach", reach.q_low_var, ders)])
    high = np.concatenate([column("reach", reach.p_high_w, ders), column("reach", reach.q_high_var, ders)])
    if (low > high).any():
        raise GridError(f"reach: {np.count_nonzero(low > high)} of {len(low)} low ends are above their high ends")
    return low, high


def _voltage_rows(
    tangent: Tangent, changes_v: ComplexArray, low: FloatArray, high: FloatArray, margin_pu: float
) -> _Rows:
    layout = tangent.layout
    values, slope = layout.v_pu(tangent.v_v), tangent.at_points(changes_v)
    highest = values + np.maximum(slope * low, slope * high).sum(axis=1)
    lowest = values + np.minimum(slope * low, slope * high).sum(axis=1)
    near = (highest > layout.v_max_pu - margin_pu) | (lowest < layout.v_min_pu + margin_pu)
    return _Rows(
        Kind.VOLTAGE, layout.points, values, layout.v_min_pu, layout.v_max_pu, slope, near & (values > V_DEAD_PU)
    )


def _current_rows(
    tangent: Tangent, changes_v: ComplexArray, low: FloatArray, high: FloatArray, margin_frac: float
) -> _Rows:
    """Currents with a rating. What DER can add to each is bounded in any direction, its row has one.

    That is the direction of the current; of an idle one, of the greatest change that one DER can make.
    """
    network = tangent.network
    rated = np.flatnonzero(np.isfinite(network.rating_a))
    rating_a = network.rating_a[rated]
    gives = network.current[rated]
    present, change = gives @ tangent.v_v, gives @ changes_v
    added = np.abs(change) * np.maximum(np.abs(low), np.abs(high))
    critical = np.abs(present) + added.sum(axis=1) > (1.0 - margin_frac) * rating_a
    idle = np.abs(present) < IDLE_FRAC * rating_a
    if len(low):
        strongest = change[np.arange(len(rated)), added.argmax(axis=1)]
        leading = np.where(idle & (added.max(axis=1) > 0.0), strongest, present)
    else:
        leading = present
    along = np.exp(-1j * np.angle(leading))
    names = tuple(network.current_names[row] for row in rated)
    values, slope = (along * present).real, (along[:, None] * change).real
    return _Rows(Kind.CURRENT, names, values, -rating_a, rating_a, slope, critical)


def _head_rows(tangent: Tangent, changes_v: ComplexArray, low_w: FloatArray, high_w: FloatArray) -> tuple[_Rows, _Rows]:
    """Head power by phase, carried whether it has a limit or not: the feeder's power is planned with it."""
    network = tangent.network
    there = network.head_rows >= 0
    phases = tuple(phase for phase, present in zip("abc", there, strict=True) if present)
    gradient: csr_array = tangent.head_gradient()
    slope = (gradient @ changes_v).real
    current = network.current[network.head_rows[there]] @ tangent.v_v
    power = tangent.v_v[network.head_nodes[there]] * current.conj()
    every, open_end = np.ones(len(phases), dtype=np.bool_), np.full(len(phases), np.inf)
    return (
        _Rows(Kind.HEAD_W, phases, power.real, low_w[there], high_w[there], slope[:3][there], every),
        _Rows(Kind.HEAD_VAR, phases, power.imag, -open_end, open_end, slope[3:][there], every),
    )


def _sifted(found: list[_Rows], ders: int) -> Sensitivities:
    slope = np.concatenate([rows.slope[rows.critical] for rows in found])
    return Sensitivities(
        names=tuple(name for rows in found for name, kept in zip(rows.names, rows.critical, strict=True) if kept),
        kinds=tuple(rows.kind for rows in found for _ in range(np.count_nonzero(rows.critical))),
        values=np.concatenate([rows.values[rows.critical] for rows in found]),
        low=np.concatenate([rows.low[rows.critical] for rows in found]),
        high=np.concatenate([rows.high[rows.critical] for rows in found]),
        d_dp=slope[:, :ders],
        d_dq=slope[:, ders:],
        dropped={rows.kind: int(np.count_nonzero(~rows.critical)) for rows in found},
    )


@dataclass(frozen=True, slots=True, eq=False)
class Linearised:
    """A tangent and what it holds for."""

    tangent: Tangent
    taps: Mapping[str, int]
    capacitors: Mapping[str, int]
    switches: Mapping[str, bool]
    v_pu: FloatArray
    """Voltages at the points where it touches, shape (points,)."""

    def outdated(self, engine: Engine, flow: PowerFlow, *, moved_max_pu: float = MOVED_MAX_PU) -> str:
        """Why it does not hold for a later solution, in words; empty as long as it does."""
        states: tuple[tuple[str, Mapping[str, int], Mapping[str, int]], ...] = (
            ("tap", self.taps, engine.taps()),
            ("capacitor", self.capacitors, engine.capacitors()),
            ("switch", self.switches, engine.switches()),
        )
        for what, before, now in states:
            if changed := [name for name, state in now.items() if before[name] != state]:
                return f"{what} changed: {', '.join(changed)}"
        moved_pu = np.abs(flow.v_pu - self.v_pu)
        furthest = int(np.argmax(moved_pu))  # the first NaN, if there is one
        if not moved_pu[furthest] <= moved_max_pu:
            return f"voltage at {self.tangent.layout.points[furthest]} moved by {moved_pu[furthest]:.4f} pu"
        return ""


def linearised(
    engine: Engine,
    flow: PowerFlow,
    load_w: FloatArray,
    load_var: FloatArray,
    der_w: FloatArray,
    der_var: FloatArray,
    *,
    dp_dv: FloatArray | None = None,
    dq_dv: FloatArray | None = None,
) -> Linearised:
    """The tangent at an engine's last solution, with these powers set; parameters and errors as of `Tangent`."""
    tangent = Tangent(
        engine.layout, engine.network(), flow.v_v, load_w, load_var, der_w, der_var, dp_dv=dp_dv, dq_dv=dq_dv
    )
    return Linearised(tangent, engine.taps(), engine.capacitors(), engine.switches(), flow.v_pu)


def curve_slope(curve_v_pu: FloatArray, curve: FloatArray, v_pu: FloatArray) -> FloatArray:
    """Slope of a volt-var or volt-watt curve at present voltages [of the curve's unit per pu], shape of `v_pu`.

    Between its points a curve is straight, beyond them level (IEEE 1547-2018, 5.3.3 and 5.4.2); at a corner it is the
    mean of both sides.

    >>> curve_slope(np.array([0.92, 0.98, 1.02, 1.08]), np.array([0.44, 0.0, 0.0, -0.44]), np.array([0.95, 1.0, 1.08]))
    array([-7.33333333,  0.        , -3.66666667])

    Raises
    ------
    GridError
        Fewer than two points, or voltages that do not rise.
    """
    steps_pu = np.diff(curve_v_pu)
    if len(curve_v_pu) != len(curve) or not len(steps_pu) or not (steps_pu > 0.0).all():
        raise GridError("curve: two or more points with rising voltages expected")
    slopes = np.concatenate([[0.0], np.diff(curve) / steps_pu, [0.0]])
    left, right = (np.searchsorted(curve_v_pu, v_pu, side=side) for side in ("left", "right"))
    mean: FloatArray = (slopes[left] + slopes[right]) / 2.0
    return mean
