"""The state of a feeder from what is measured: DER powers as read, the loads allocated to the measured head.

One factor per phase scales the nominal active loads and one the reactive loads, until the modelled head meets the
measured one; loads on several phases take the mean of the factors. Single loads are not observable this way, voltages
and flows are. W, var; DER power + = injection, head power + = import.
"""

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from derms.domain.arrays import FloatArray
from derms.domain.grid import FeederPackage, GridState
from derms.domain.quality import Quality
from derms.grid.engine import Engine, PowerFlow

SOLVES_MAX = 4
RESIDUAL_MAX_FRAC = 0.002
"""Of a phase's apparent load: not of its head power, which passes through 0 when DER carry the load."""
FACTOR_MIN, FACTOR_MAX = 0.05, 3.0


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
) -> GridState:
    """Estimate the state of a feeder.

    Parameters
    ----------
    head_w, head_var
        Measured head power per phase, + = import, shape (3,). Any NaN in it: it is not known, the factors of
        `previous` stay (1 without it) and the quality is STALE.
    der_w, der_var
        DER powers in the package's order, + = injection, shape (ders,). NaN counts as 0 with quality SUSPECT.
    previous
        The state before this one, of the same feeder.

    Returns
    -------
    GridState
        GOOD only when everything was known and the modelled head meets the measured one; else SUSPECT or STALE.

    Raises
    ------
    NotConverged
        No power flow with these powers.
    """
    allocation = _Allocation.of(engine)
    factors = allocation.factors(previous) if previous is not None else np.ones((2, 3))
    head = np.array([head_w, head_var], dtype=np.float64)
    head_known = bool(np.isfinite(head).all())
    engine.set_der(np.nan_to_num(der_w), np.nan_to_num(der_var))
    flow, residual, met = _solve(engine, allocation, factors, head)
    for _ in range(SOLVES_MAX - 1):
        if met or not head_known:
            break
        factors = allocation.corrected(factors, residual)
        flow, residual, met = _solve(engine, allocation, factors, head)
    load_w, load_var = allocation.loads(factors)
    der_known = bool(np.isfinite(der_w).all() and np.isfinite(der_var).all())
    return GridState(
        feeder=package.id,
        at=at,
        v_pu=flow.v_pu,
        points=engine.layout.points,
        head_w=flow.head_w,
        head_var=flow.head_var,
        load_w=load_w,
        load_var=load_var,
        load_scale=factors[0],
        residual_w=float(residual[0].sum()),
        quality=_quality(head_known=head_known, trusted=der_known and met),
        violations=int(np.count_nonzero(engine.layout.violating(flow.v_pu))),
    )


def _quality(*, head_known: bool, trusted: bool) -> Quality:
    if not head_known:
        return Quality.STALE
    return Quality.GOOD if trusted else Quality.SUSPECT


@dataclass(frozen=True)
class _Allocation:
    """How factors per phase become loads; rows 0 and 1 of the factors are active and reactive."""

    nominal: FloatArray
    """Shape (2, loads)."""
    share: FloatArray
    """Share of a load on each phase, shape (3, loads)."""
    inverse: FloatArray
    """Factors per load on the phases [1/W, 1/var], shape (2, 3, 3)."""

    @classmethod
    def of(cls, engine: Engine) -> "_Allocation":
        nominal = np.array([engine.layout.nominal_load_w, engine.layout.nominal_load_var])
        on_one = engine.layout.load_phase == np.arange(3)[:, None]
        share = np.where(engine.layout.load_phase < 0, 1.0 / 3.0, on_one)
        return cls(nominal, share, np.linalg.pinv((share * nominal[:, None, :]) @ share.T))

    def loads(self, factors: FloatArray) -> FloatArray:
        """Load powers for factors (2, 3), shape (2, loads)."""
        powers: FloatArray = self.nominal * (factors @ self.share)
        return powers

    def factors(self, state: GridState) -> FloatArray:
        """The factors that a state was made with, shape (2, 3)."""
        return self._per_factor(np.array([state.load_w, state.load_var]) @ self.share.T)

    def corrected(self, factors: FloatArray, residual: FloatArray) -> FloatArray:
        """Factors that move the head by a residual (2, 3) [W, var], within their bounds."""
        return np.clip(factors + self._per_factor(residual), FACTOR_MIN, FACTOR_MAX)

    def _per_factor(self, phase_power: FloatArray) -> FloatArray:
        step: FloatArray = (self.inverse @ phase_power[:, :, None])[:, :, 0]
        return step


def _solve(
    engine: Engine, allocation: _Allocation, factors: FloatArray, head: FloatArray
) -> tuple[PowerFlow, FloatArray, bool]:
    """Solution, measured minus modelled head (2, 3) and whether they meet; NaN never meets."""
    load_w, load_var = allocation.loads(factors)
    engine.set_loads(load_w, load_var)
    flow = engine.solve()
    residual = head - np.array([flow.head_w, flow.head_var])
    apparent_va = allocation.share @ np.hypot(load_w, load_var)
    return flow, residual, bool((np.hypot(*residual) <= RESIDUAL_MAX_FRAC * apparent_va).all())
