"""What a time series records: the shape of each column, and how a step's solution gets into it."""

from collections.abc import Callable, Mapping
from enum import StrEnum

import numpy as np

from derms.domain.arrays import FloatArray
from derms.grid.engine import Engine, PowerFlow
from derms.grid.layout import FeederLayout

Take = Callable[[int, PowerFlow], object]
"""Puts a step's solution into its column."""


class Column(StrEnum):
    """What can be recorded; NaN where a step has no result. The names stand in saved runs."""

    V_MIN = "v_min_pu"
    """Lowest voltage of each point in the whole run [pu], shape (points,)."""
    V_MAX = "v_max_pu"
    V_OUTSIDE = "v_outside"
    """Points outside their voltage range, shape (steps,)."""
    OVERLOADS = "overloads"
    """Phases of lines and transformers above their rating, shape (steps,); dear where taps move often."""
    HEAD_W = "head_w"
    """Import through the head, phases a, b, c [W], shape (steps, 3)."""
    HEAD_VAR = "head_var"
    LOSSES_W = "losses_w"
    """Losses of the whole feeder [W], shape (steps,)."""
    TAPS_MOVED = "taps_moved"
    """Tap steps that all regulators together have moved since the last result, shape (steps,)."""
    VOLTAGES = "v_pu"
    """Voltage of every point at every step [pu], shape (steps, points)."""


USUAL = (Column.V_MIN, Column.V_MAX, Column.V_OUTSIDE, Column.HEAD_W, Column.LOSSES_W, Column.TAPS_MOVED)


def empty(column: Column, layout: FeederLayout, steps: int) -> FloatArray:
    """A column in which nothing is recorded yet."""
    shapes = {
        Column.V_MIN: (len(layout.points),),
        Column.V_MAX: (len(layout.points),),
        Column.HEAD_W: (steps, 3),
        Column.HEAD_VAR: (steps, 3),
        Column.VOLTAGES: (steps, len(layout.points)),
    }
    return np.full(shapes.get(column, (steps,)), np.nan)


def recorder(column: Column, engine: Engine, into: FloatArray) -> Take:
    """What records a column, from the engine as it stands on."""
    return _RECORDERS[column](engine, into)


def _lowest(_: Engine, into: FloatArray) -> Take:
    return lambda _, flow: np.fmin(into, flow.v_pu, out=into)


def _highest(_: Engine, into: FloatArray) -> Take:
    return lambda _, flow: np.fmax(into, flow.v_pu, out=into)


def _outside(engine: Engine, into: FloatArray) -> Take:
    def take(step: int, flow: PowerFlow) -> None:
        into[step] = np.count_nonzero(engine.layout.violating(flow.v_pu))

    return take


def _overloads(engine: Engine, into: FloatArray) -> Take:
    def take(step: int, flow: PowerFlow) -> None:
        into[step] = np.count_nonzero(engine.network().loading(flow.v_v) > 1.0)  # NaN, not rated, is not above

    return take


def _head_w(_: Engine, into: FloatArray) -> Take:
    def take(step: int, flow: PowerFlow) -> None:
        into[step] = flow.head_w

    return take


def _head_var(_: Engine, into: FloatArray) -> Take:
    def take(step: int, flow: PowerFlow) -> None:
        into[step] = flow.head_var

    return take


def _losses_w(engine: Engine, into: FloatArray) -> Take:
    def take(step: int, _: PowerFlow) -> None:
        into[step] = engine.losses_w()

    return take


def _taps_moved(engine: Engine, into: FloatArray) -> Take:
    before = engine.taps()

    def take(step: int, _: PowerFlow) -> None:
        nonlocal before
        now = engine.taps()
        into[step] = 0 if now == before else sum(abs(now[name] - before[name]) for name in now)
        before = now

    return take


def _voltages(_: Engine, into: FloatArray) -> Take:
    def take(step: int, flow: PowerFlow) -> None:
        into[step] = flow.v_pu

    return take


_RECORDERS: Mapping[Column, Callable[[Engine, FloatArray], Take]] = {
    Column.V_MIN: _lowest,
    Column.V_MAX: _highest,
    Column.V_OUTSIDE: _outside,
    Column.OVERLOADS: _overloads,
    Column.HEAD_W: _head_w,
    Column.HEAD_VAR: _head_var,
    Column.LOSSES_W: _losses_w,
    Column.TAPS_MOVED: _taps_moved,
    Column.VOLTAGES: _voltages,
}
