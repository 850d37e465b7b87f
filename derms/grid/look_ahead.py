"""What a feeder would do: a plan's powers solved, and what they would violate; the same when all control is lost.

Each moment is solved twice: with the regulators where they stand, as in the seconds after a step of power, and with
the regulators acting, as some minutes later. W and var; DER power + = injection, load and head power + = import.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from derms.domain.arrays import FloatArray
from derms.domain.grid import GridState
from derms.grid.engine import Engine, PowerFlow


class ViolationKind(StrEnum):
    """What is beyond its limit."""

    VOLTAGE_LOW = "voltage-low"
    VOLTAGE_HIGH = "voltage-high"
    THERMAL = "thermal"
    REVERSE_POWER = "reverse-power"


@dataclass(frozen=True, slots=True)
class Violation:
    """One limit that would not hold."""

    kind: ViolationKind
    where: str
    """Voltage point, phase of a line or transformer, or `head`."""
    value: float
    """[pu] of the base voltage, [pu] of the rating, or power out of the feeder [W]."""
    limit: float
    """In the same unit."""

    @property
    def excess(self) -> float:
        """Distance beyond the limit, in the same unit."""
        return abs(self.value - self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Powers of a feeder at one moment of a plan."""

    load_factor: float
    """Load against the state's."""
    der_w: FloatArray
    """With the plan, shape (ders,)."""
    der_var: FloatArray
    reverted_w: FloatArray
    """Where every device goes by itself when nobody commands it any more, shape (ders,)."""
    reverted_var: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What one moment would violate."""

    at_once: tuple[Violation, ...]
    """With the plan, regulators where they stand."""
    settled: tuple[Violation, ...]
    """With the plan, after the regulators have acted."""
    control_lost: tuple[Violation, ...]
    """Every gateway lost and every device reverted in one step, regulators where the plan has led them."""
    control_lost_settled: tuple[Violation, ...]
    """The same after the regulators have acted."""
    head_w: float
    """Import with the plan, settled [W]."""
    head_lost_w: float
    """Import when control is lost, settled [W]."""


def violations(engine: Engine, flow: PowerFlow, *, reverse_max_w: float = np.inf) -> tuple[Violation, ...]:
    """Everything beyond its limits in a solution: ANSI range of each point, ratings, power out of the feeder.

    The engine's taps and switches have to be those of the solution: currents follow from both.
    """
    layout, network = engine.layout, engine.network()
    found = []
    for row in np.flatnonzero(layout.violating(flow.v_pu)):
        value = float(flow.v_pu[row])
        low = not value > layout.v_max_pu[row]
        kind = ViolationKind.VOLTAGE_LOW if low else ViolationKind.VOLTAGE_HIGH
        limit = layout.v_min_pu[row] if low else layout.v_max_pu[row]
        found.append(Violation(kind, layout.points[row], value, float(limit)))
    loading = network.loading(flow.v_v)
    found += [
        Violation(ViolationKind.THERMAL, network.current_names[row], float(loading[row]), 1.0)
        for row in np.flatnonzero(loading > 1.0)
    ]
    out_w = -float(flow.head_w.sum())
    if out_w > reverse_max_w:
        found.append(Violation(ViolationKind.REVERSE_POWER, "head", out_w, reverse_max_w))
    return tuple(found)


def look_ahead(
    engine: Engine,
    state: GridState,
    der_w: FloatArray,
    der_var: FloatArray,
    load_factor: float,
    *,
    regulators_act: bool = True,
) -> PowerFlow:
    """Solve DER powers [W, var, + = injection], shape (ders,), with the state's loads times a factor.

    The regulators act from where they stand, or hold still, and are put back afterwards, so that one look does not
    bend the next: currents of a solution in which they acted can no longer be told from its voltages. Hold them to
    compare two plans: a tap that one of them happens to trip would hide the difference.
    Raises GridError for powers that are not finite, NotConverged without a solution.
    """
    with _Undisturbed(engine):
        return _solve(engine, state, der_w, der_var, load_factor, regulators_act=regulators_act)


def examine(
    engine: Engine, state: GridState, moments: Sequence[Moment], *, reverse_max_w: float = np.inf
) -> tuple[Outlook, ...]:
    """Look at moments of a plan, one after the other, each with the regulators as they stand now.

    Raises GridError for powers that are not finite, NotConverged without a solution.
    """
    return tuple(_outlook(engine, state, moment, reverse_max_w) for moment in moments)


def _outlook(engine: Engine, state: GridState, moment: Moment, reverse_max_w: float) -> Outlook:
    planned, reverted = (moment.der_w, moment.der_var), (moment.reverted_w, moment.reverted_var)
    seen: list[tuple[Violation, ...]] = []
    heads_w = []
    with _Undisturbed(engine):
        for powers in (planned, reverted):  # what is reverted starts with the taps that the plan led to
            for acting in (False, True):
                flow = _solve(engine, state, *powers, moment.load_factor, regulators_act=acting)
                seen.append(violations(engine, flow, reverse_max_w=reverse_max_w))
            heads_w.append(float(flow.head_w.sum()))
    return Outlook(
        at_once=seen[0],
        settled=seen[1],
        control_lost=seen[2],
        control_lost_settled=seen[3],
        head_w=heads_w[0],
        head_lost_w=heads_w[1],
    )


def _solve(
    engine: Engine,
    state: GridState,
    der_w: FloatArray,
    der_var: FloatArray,
    load_factor: float,
    *,
    regulators_act: bool,
) -> PowerFlow:
    engine.set_loads(state.load_w * load_factor, state.load_var * load_factor)
    engine.set_der(der_w, der_var)
    engine.freeze_controls(not regulators_act)
    return engine.solve()


class _Undisturbed:
    """Puts taps and capacitors back, and lets the controls act again, whatever happens inside."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> None:
        self._taps, self._steps = self._engine.taps(), self._engine.capacitors()

    def __exit__(self, *_: object) -> None:
        self._engine.set_taps(self._taps)
        self._engine.set_capacitors(self._steps)
        self._engine.freeze_controls(False)
