"""Loads from what flows through the head: one factor per phase on the gross loads, until the modelled head meets it.

Gross load is what customers take; behind some meters PV that nobody polls hides a part of it. W and var; rows 0 and 1
of factors and powers are active and reactive.
"""

from dataclasses import dataclass

import numpy as np

from derms.domain.arrays import FloatArray
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
    inverse: FloatArray
    """Factors per load on the phases [1/W, 1/var], shape (2, 3, 3)."""

    @classmethod
    def of(cls, engine: Engine, package: FeederPackage, sun_pu: float) -> "Allocation":
        """For a feeder, and PV power per rating of the PV that nobody polls."""
        layout = engine.layout
        nominal = np.array([layout.nominal_load_w, layout.nominal_load_var])
        hidden_w = np.zeros(len(layout.loads))
        for pv in package.invisible_pv:
            hidden_w[layout.row("load", layout.loads, pv.load.partition(".")[2])] += sun_pu * pv.p_rated_w
        on_one = layout.load_phase == np.arange(3)[:, None]
        # Where no load stands on one phase, as on three-wire feeders, only the sum over the phases tells anything.
        share = np.where(layout.load_phase < 0, 1.0 / 3.0, on_one)
        return cls(nominal, hidden_w, share, np.linalg.pinv((share * nominal[:, None, :]) @ share.T))

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
        return np.clip(self._per_factor(gross @ self.share.T), FACTOR_MIN, FACTOR_MAX)

    def met(self, engine: Engine, factors: FloatArray, head: FloatArray) -> tuple[FloatArray, PowerFlow, bool]:
        """Factors whose modelled head meets the measured one (2, 3), their solution, and whether it does.

        A head that is not known (NaN) leaves the factors as they are, and is not met. DER are set already.
        """
        for solves in range(1, SOLVES_MAX + 1):
            powers = self.net(factors)
            engine.set_loads(*powers)
            flow = engine.solve()
            residual = head - np.array([flow.head_w, flow.head_var])
            if self._meets(residual, powers) or not np.isfinite(residual).all() or solves == SOLVES_MAX:
                break
            factors = np.clip(factors + self._per_factor(residual), FACTOR_MIN, FACTOR_MAX)
        return factors, flow, self._meets(residual, powers)

    def _meets(self, residual: FloatArray, powers: FloatArray) -> bool:
        apparent_va = self.share @ np.hypot(*powers)
        apart_va = np.hypot(*residual)
        if (self.share == 1.0 / 3.0).all():
            apart_va, apparent_va = np.hypot(*residual.sum(axis=1, keepdims=True)), apparent_va.sum(keepdims=True)
        return bool((apart_va <= RESIDUAL_MAX_FRAC * apparent_va).all())

    def _per_factor(self, phase_power: FloatArray) -> FloatArray:
        step: FloatArray = (self.inverse @ phase_power[:, :, None])[:, :, 0]
        return step
