"""The state of a feeder from what is measured: the most probable powers, taps and impedances, and how sure that is.

A prior (loads allocated to the measured head, DER as they report themselves, hidden PV by nameplate and sun) is moved
by voltages and head power as far as their own errors let it: a Kalman step around real power-flow solutions. There is a
state without any voltage sensor, and without a head too: then the level of all loads is one more unknown. Voltages and
flows are observable this way; single loads are not: theirs are the most probable, and hardly better than the prior.

Regulators that nobody tells act in the model as they would outside; then all stand still, and one that the voltages
show a step beside where the model has it is moved there, and stays. W and var; DER power + = injection, head power + =
import.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from scipy.special import gammaincc

from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.domain.der import DeviceKind
from derms.domain.grid import FeederPackage, GridState
from derms.domain.quality import Quality
from derms.grid.allocation import Allocation
from derms.grid.engine import Engine, PowerFlow
from derms.grid.posterior import Update, updated
from derms.grid.unknowns import (
    LEVELS,
    TAP_ACTING_SIGMA,
    TAP_SIGMA,
    Operating,
    Unknowns,
    der_sigmas,
    level_slopes,
    unknowns,
)

ROUNDS = 2
"""Solutions around which the state is moved; the model is nearly linear over what is not known."""
HEAD_SIGMA_FRAC = 0.01
"""Of a feeder whose package has no head meter."""
HEAD_FLOOR_FRAC = 0.1
"""The error of a head is that of this share of the peak at least, per phase a third of it."""
FACTOR_FLOOR = 0.05
"""A load is never taken for less than this share of its prior."""
V_DRIFT_PU, V_DRIFT_S = 0.002, 60.0
"""What a voltage moves in a minute, one standard deviation: clouds, motors; a tap (0.006 pu) now and then."""
MISFIT_CHANCE_MIN = 1e-4
"""A model that would be so far from its measurements less often than this is not to be trusted."""


@dataclass(frozen=True, eq=False)
class Voltages:
    """Measured voltages at points of a feeder."""

    names: tuple[str, ...]
    points: IntArray
    """Positions among the feeder's points, shape (k,)."""
    v_pu: FloatArray
    sigma_pu: FloatArray
    """One standard deviation of each, shape (k,)."""


NO_VOLTAGES = Voltages((), np.zeros(0, dtype=np.intp), np.zeros(0), np.zeros(0))


def aged(sigma_pu: FloatArray, age_s: FloatArray) -> FloatArray:
    """Standard deviations [pu] of voltages that were measured some time ago, as voltages now.

    A voltage wanders off from what it was in small steps that do not know of each other, so that variances add up:
    sigma(t)^2 = sigma^2 + V_DRIFT_PU^2 t / V_DRIFT_S.
    """
    grown: FloatArray = np.sqrt(np.square(sigma_pu) + V_DRIFT_PU**2 * age_s / V_DRIFT_S)
    return grown


def estimate(
    engine: Engine,
    package: FeederPackage,
    *,
    at: datetime,
    head_w: FloatArray,
    head_var: FloatArray,
    der_w: FloatArray,
    der_var: FloatArray,
    previous: GridState | None,
    voltages: Voltages = NO_VOLTAGES,
    told_regulators: Collection[str] = (),
    regulators_act: bool = True,
    sun_pu: float = 0.0,
    head_sigma_frac: float | None = None,
) -> GridState:
    """Estimate the state of a feeder; its controls are free or held afterwards as before.

    Parameters
    ----------
    head_w, head_var
        Measured head power per phase, + = import, shape (3,). Where it is NaN the loads' level is one more unknown,
        around the factors of `previous` (1 without it), moved as those of the phases that are there.
    der_w, der_var
        DER powers in the package's order, + = injection, shape (ders,). NaN: nobody knows, the quality is SUSPECT.
    previous
        The state before this one, of the same feeder.
    voltages
        Measured voltages; a NaN among them counts for nothing.
    told_regulators
        Regulators whose position in the engine is measured.
    regulators_act
        Whether those that nobody tells follow the allocation first, as they would outside; else they are taken to
        stand where the engine has them, or a step beside.
    sun_pu
        Power of PV per rating under the present sky.
    head_sigma_frac
        One standard deviation of the head's power, per unit of it; None: that of the package's head meter.

    Returns
    -------
    GridState
        GOOD only when head and DER are wholly known, the allocation meets the head, nothing was left out, and the
        model is no farther from its measurements than chance allows; else SUSPECT, and STALE without any head.

    Raises
    ------
    NotConverged
        No power flow with these powers.
    """
    der = np.array([der_w, der_var], dtype=np.float64)
    told = {name: tap for name, tap in engine.taps().items() if name in told_regulators}
    frozen = engine.frozen()
    try:
        engine.freeze_controls(not regulators_act)
        head = _head(engine, head_w, head_var)
        allocation = Allocation.of(engine, package, sun_pu)
        known = allocation.known(head)
        factors = np.ones((2, 3))
        if previous is not None:
            factors = allocation.factors(np.array([previous.load_w, previous.load_var]))
        engine.set_der(*np.nan_to_num(der))
        factors, flow, met = allocation.met(engine, factors, head)
        prior = _prior(package, allocation, factors, der, allocation.unmeasured(known))
        slopes = level_slopes(engine, prior) if regulators_act and not known[0].all() else {}
        engine.freeze_controls(True)
        engine.set_taps(told)
        flow = engine.solve()
        tap_sigma = TAP_ACTING_SIGMA if regulators_act else TAP_SIGMA
        around = unknowns(engine, flow, prior, told_regulators, tap_sigma=tap_sigma, slopes=slopes)
        accuracy = _head_sigma_frac(package) if head_sigma_frac is None else head_sigma_frac
        measured = _Measured.of(engine, package, head, voltages, accuracy)
        found = _found(engine, prior, around, measured, flow)
        v_bias_pu = _move_taps(engine, around, found)
    finally:
        engine.freeze_controls(frozen)
    trusted = bool(np.isfinite(der).all()) and met and not found.bad and found.chance >= MISFIT_CHANCE_MIN
    return GridState(
        feeder=package.id,
        at=at,
        v_pu=found.v_pu,
        points=engine.layout.points,
        head_w=found.head[0],
        head_var=found.head[1],
        load_w=found.powers.net[0],
        load_var=found.powers.net[1],
        load_scale=factors[0],
        residual_w=float((head - found.head)[0, known[0]].sum()) if known[0].any() else np.nan,
        quality=_quality(known, trusted=trusted),
        violations=int(np.count_nonzero(engine.layout.violating(found.v_pu))),
        v_sigma_pu=found.v_sigma_pu,
        v_bias_pu=v_bias_pu,
        gross_w=float(found.powers.gross[0].sum()),
        hidden_w=float(found.powers.hidden_w.sum()),
        bad=found.bad,
        misfit=found.misfit,
    )


def _head_sigma_frac(package: FeederPackage) -> float:
    """As the package's head meter measures."""
    return next((meter.sigma_frac for meter in package.meters if meter.kind == DeviceKind.HEAD_METER), HEAD_SIGMA_FRAC)


def _move_taps(engine: Engine, around: Unknowns, found: "_Found") -> FloatArray:
    """Put regulators where they most probably are; what is left of voltages that the engine does not have [pu]."""
    taps = engine.taps()
    left = around.beside(found.deviation)
    steps = np.rint(left[: len(around.regulators)]).astype(int).tolist()
    engine.set_taps({name: taps[name] + step for name, step in zip(around.regulators, steps, strict=True) if step})
    moved = engine.taps()  # one at its end goes no farther
    left[: len(around.regulators)] -= [moved[name] - taps[name] for name in around.regulators]
    bias_pu: FloatArray = around.by_points[:, around.powers :] @ left
    return bias_pu


def _head(engine: Engine, head_w: FloatArray, head_var: FloatArray) -> FloatArray:
    """Measured head, shape (2, 3); a phase that the head lacks is known to carry nothing."""
    head = np.array([head_w, head_var], dtype=np.float64)
    if np.isnan(head).any():
        head[:, engine.network().head_rows < 0] = 0.0
    return head


def _prior(
    package: FeederPackage, allocation: Allocation, factors: FloatArray, der: FloatArray, unmeasured: FloatArray
) -> Operating:
    """Allocated loads and what DER report; one that does not answer is taken to rest, and hardly believed to."""
    rated_va = np.array([binding.s_rated_va for binding in package.ders])
    known: BoolArray = np.isfinite(der[0]) & np.isfinite(der[1])
    sigma = der_sigmas(rated_va, known)
    return Operating(
        gross=allocation.gross(factors),
        hidden_w=allocation.hidden_w,
        net=allocation.net(factors),
        der=np.nan_to_num(der),
        der_sigma=np.array([sigma, sigma]),
        unmeasured=unmeasured,
    )


def _quality(known: BoolArray, *, trusted: bool) -> Quality:
    """Of a state with what is known of its head, shape (2, 3)."""
    if not known[0].any():
        return Quality.STALE
    return Quality.GOOD if trusted and known.all() else Quality.SUSPECT


@dataclass(frozen=True, eq=False)
class _Measured:
    """Everything that is measured, as one column: voltages, then head power."""

    names: tuple[str, ...]
    points: IntArray
    by_head: FloatArray
    """What of head power (P a, b, c, Q a, b, c) each further measurement takes, shape (k, 6)."""
    value: FloatArray
    sigma: FloatArray

    @classmethod
    def of(
        cls, engine: Engine, package: FeederPackage, head: FloatArray, voltages: Voltages, head_sigma_frac: float
    ) -> "_Measured":
        there = engine.network().head_rows >= 0
        three_wire = (engine.layout.load_phase < 0).all()
        groups = [there] if three_wire else [np.arange(3) == phase for phase in np.flatnonzero(there)]
        takes = np.array([np.concatenate([group, 0 * group]) for group in groups], dtype=np.float64)
        takes = np.concatenate([takes, np.roll(takes, 3, axis=1)])
        known = np.isfinite(head.ravel())
        value = takes @ np.where(known, head.ravel(), 0.0)
        apparent_va = np.hypot(*value.reshape(2, -1))
        value[takes @ ~known > 0.0] = np.nan
        floor_va = HEAD_FLOOR_FRAC * package.peak_w / len(groups)
        head_sigma = head_sigma_frac * np.tile(np.maximum(apparent_va, floor_va), 2)
        phases = ["total"] if three_wire else ["abc"[phase] for phase in np.flatnonzero(there)]
        names = tuple(f"head {kind} {phase}" for kind in "PQ" for phase in phases)
        return cls(
            names=(*voltages.names, *names),
            points=voltages.points,
            by_head=takes,
            value=np.concatenate([voltages.v_pu, value]),
            sigma=np.concatenate([voltages.sigma_pu, head_sigma]),
        )

    def seen(self, v_pu: FloatArray, head: FloatArray) -> FloatArray:
        """What would be measured, of voltages and head power; both may have further columns."""
        return np.concatenate([v_pu[self.points], self.by_head @ head])


@dataclass(frozen=True, eq=False)
class _Found:
    deviation: FloatArray
    powers: Operating
    v_pu: FloatArray
    v_sigma_pu: FloatArray
    head: FloatArray
    """Shape (2, 3)."""
    bad: tuple[str, ...]
    misfit: float
    chance: float
    """Of a sound model being as far from its measurements."""


def _found(engine: Engine, prior: Operating, around: Unknowns, measured: _Measured, flow: PowerFlow) -> _Found:
    """Move the prior to what is measured, around one solution after the other."""
    jacobian = measured.seen(around.by_points, around.by_head)
    deviation = np.zeros(len(around.sigma))
    powers = prior
    for _ in range(ROUNDS):
        v_pu, head = _beside(flow, around, deviation)
        innovation = measured.value - measured.seen(v_pu, head) + jacobian @ deviation
        update = updated(jacobian, around.sigma, innovation, measured.sigma)
        deviation = update.deviation
        powers = _moved(prior, deviation)
        engine.set_loads(*powers.net)
        engine.set_der(*powers.der)
        flow = engine.solve()
    v_pu, head = _beside(flow, around, deviation)
    return _judged(powers, v_pu, head, around, measured, update)


def _beside(flow: PowerFlow, around: Unknowns, deviation: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Voltages and head power (6,) of a solution, with what of a deviation the engine does not have."""
    left = around.beside(deviation)
    head = np.concatenate([flow.head_w, flow.head_var])
    return flow.v_pu + around.by_points[:, around.powers :] @ left, head + around.by_head[:, around.powers :] @ left


def _judged(
    powers: Operating, v_pu: FloatArray, head: FloatArray, around: Unknowns, measured: _Measured, update: Update
) -> _Found:
    there = np.isfinite(measured.value)
    count = int(np.count_nonzero(update.used))
    return _Found(
        deviation=update.deviation,
        powers=powers,
        v_pu=v_pu,
        v_sigma_pu=np.sqrt(update.variance(around.by_points, around.sigma)),
        head=head.reshape(2, 3),
        bad=tuple(np.array(measured.names, dtype=np.object_)[there & ~update.used]),
        misfit=update.chi2 / max(count, 1),
        chance=float(gammaincc(0.5 * count, 0.5 * update.chi2)) if count else 1.0,
    )


def _moved(prior: Operating, deviation: FloatArray) -> Operating:
    """The powers that a deviation means; a load keeps its sign, hidden PV is no consumer."""
    loads, ders = len(prior.hidden_w), prior.der.shape[1]
    size, reactive, hidden, der_w, der_var, level, _ = np.split(
        deviation, np.cumsum([loads, loads, loads, ders, ders, LEVELS])
    )
    gross = prior.gross * np.maximum(1.0 + size + level[0] * prior.unmeasured[0], FACTOR_FLOOR)
    gross[1] += reactive + level[1] * prior.unmeasured[1] * np.hypot(*prior.gross)
    hidden_w = np.maximum(prior.hidden_w + hidden, 0.0)
    net = gross - np.array([hidden_w, np.zeros(loads)])
    return replace(prior, gross=gross, hidden_w=hidden_w, net=net, der=prior.der + np.array([der_w, der_var]))
