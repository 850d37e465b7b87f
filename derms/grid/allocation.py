"""Loads from what flows through the head: one factor per phase on the gross loads, until the modelled head meets it.

Gross load is what customers take; behind some meters PV that nobody polls hides a part of it. W and var; rows 0 and 1
of factors, powers and heads are active and reactive; + = import for heads.
"""

from dataclasses import dataclass

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.grid import FeederPackage
from derms.grid.engine import Engine, PowerFlow

SOLVES_MAX = 4
RESIDUAL_MAX_FRAC = 0.002
"""Of a phase's apparent load: not of its head power, which passes through 0 when DER carry the load."""
FACTOR_MIN, FACTOR_MAX = 0.05, 3.0


@dataclass(frozen=True)
class Allocation:
    """How factors per phase become loads."""

    nominal: FloatArray
    """Gross loads of the circuit, shape (2, loads)."""
    hidden_w: FloatArray
    """Power of PV that nobody polls, per load, shape (loads,)."""
    share: FloatArray
    """Share of a load on each phase, shape (3, loads)."""
    coupling: FloatArray
    """Nominal load on each phase per factor of each [W, var], shape (2, 3, 3)."""

    @classmethod
    def of(cls, engine: Engine, package: FeederPackage, sun_pu: float) -> "Allocation":
        """For a feeder, and PV power per rating of the PV that nobody polls."""
        layout = engine.layout
        nominal = np.array([layout.nominal_load_w, layout.nominal_load_var])
        hidden_w = np.zeros(len(layout.loads))
        for pv in package.invisible_pv:
            hidden_w[layout.row("load", layout.loads, pv.load.partition(".")[2])] += sun_pu * pv.p_rated_w
        on_one = layout.load_phase == np.arange(3)[:, None]
        share = np.where(layout.load_phase < 0, 1.0 / 3.0, on_one)
        return cls(nominal, hidden_w, share, (share * nominal[:, None, :]) @ share.T)

    @property
    def three_wire(self) -> bool:
        """Whether no load stands on one phase: only the sum over the phases tells anything then."""
        return bool((self.share == 1.0 / 3.0).all())

    def known(self, head: FloatArray) -> BoolArray:
        """What of a head (2, 3) tells of loads: what is there; of three wires all phases or none, shape (2, 3)."""
        there = np.isfinite(head)
        return there & there.all(axis=1, keepdims=True) if self.three_wire else there

    def unmeasured(self, known: BoolArray) -> FloatArray:
        """Share of each load's active and reactive power that no head tells, shape (2, loads)."""
        shares: FloatArray = ~known @ self.share
        return shares

    def gross(self, factors: FloatArray) -> FloatArray:
        """Gross load for factors (2, 3), shape (2, loads)."""
        powers: FloatArray = self.nominal * (factors @ self.share)
        return powers

    def net(self, factors: FloatArray) -> FloatArray:
        """Net load for factors (2, 3), shape (2, loads)."""
        powers = self.gross(factors)
        powers[0] -= self.hidden_w
        return powers

    def factors(self, net: FloatArray) -> FloatArray:
        """The factors per phase that come nearest to net loads (2, loads), shape (2, 3)."""
        gross = net + np.array([self.hidden_w, np.zeros_like(self.hidden_w)])
        return np.clip(self._steps(gross @ self.share.T, np.ones((2, 3), dtype=np.bool_)), FACTOR_MIN, FACTOR_MAX)

    def met(self, engine: Engine, factors: FloatArray, head: FloatArray) -> tuple[FloatArray, PowerFlow, bool]:
        """Factors whose modelled head meets the measured one (2, 3), their solution, and whether it does.

        What is not known of the head (NaN) is not met: phases without it go with the others of their row, var with W
        where there are none, and without any head the factors stay as they are. DER are set already.
        """
        known, start = self.known(head), factors
        for solves in range(1, SOLVES_MAX + 1):
            powers = self.net(factors)
            engine.set_loads(*powers)
            flow = engine.solve()
            residual = np.where(known, head - np.array([flow.head_w, flow.head_var]), 0.0)
            meets = self._meets(residual, powers, known)
            if meets or not known.any() or solves == SOLVES_MAX:
                break
            factors = self._followed(factors + self._steps(residual, known), start, known)
        return factors, flow, meets

    def _meets(self, residual: FloatArray, powers: FloatArray, known: BoolArray) -> bool:
        apparent_va = self.share @ np.hypot(*powers)
        apart_va = np.hypot(*residual)
        if self.three_wire:
            apart_va, apparent_va = np.hypot(*residual.sum(axis=1, keepdims=True)), apparent_va.sum(keepdims=True)
        return bool(known.any() and (apart_va <= RESIDUAL_MAX_FRAC * apparent_va).all())

    def _followed(self, factors: FloatArray, start: FloatArray, known: BoolArray) -> FloatArray:
        """Factors with those that no head tells moved from their start as the others of their row have moved."""
        weight = known * (self.share @ np.abs(self.nominal).T).T
        now, before = (weight * factors).sum(axis=1), (weight * start).sum(axis=1)
        moved = np.divide(now, before, out=np.ones(2), where=before > 0.0)
        if not known[1].any():
            moved[1] = moved[0]
        return np.clip(np.where(known, factors, start * moved[:, None]), FACTOR_MIN, FACTOR_MAX)

    def _steps(self, phase_power: FloatArray, known: BoolArray) -> FloatArray:
        """Changes of the factors of known phases that change their power by so much, shape (2, 3)."""
        inverse = np.linalg.pinv(self.coupling * (known[:, :, None] & known[:, None, :]))
        steps: FloatArray = (inverse @ phase_power[:, :, None])[:, :, 0]
        return steps
