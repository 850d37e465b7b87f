"""A state with a Gaussian prior, updated by measurements: the Kalman step, bad data, and what is left of uncertainty.

State x = mean + deviation, deviations independent with known sigma; measurements z = h(x) + noise, linear near where
they are looked at. Works without measurements, and with more states than measurements.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from derms.domain.arrays import BoolArray, FloatArray

SUSPICION = 3.5
"""Leave-one-out residual, in sigmas, from which a measurement is taken for bad."""
BAD_MAX = 3
"""Most measurements that are left out of one estimate; more than these is another problem."""


@dataclass(frozen=True, eq=False)
class Update:
    """What measurements make of a prior."""

    deviation: FloatArray
    """Of the state from its prior mean, shape (states,)."""
    used: BoolArray
    """Measurements that were believed, shape (measurements,)."""
    residual_sigma: FloatArray
    """Leave-one-out residual of each measurement, in sigmas, shape (measurements,)."""
    chi2: float
    """Squared distance of the believed measurements from the prior, by its covariance: about their number."""
    spread: FloatArray
    """Square root of what the measurements take from the covariance of the state, shape (states, used)."""

    def variance(self, rows: FloatArray, sigma: FloatArray) -> FloatArray:
        """Variances of linear combinations of the state, one per row (k, states), after the update, shape (k,)."""
        before = np.square(rows) @ np.square(sigma)
        left: FloatArray = np.maximum(before - np.square(rows @ self.spread).sum(axis=1), 0.0)
        return left


def updated(jacobian: FloatArray, sigma: FloatArray, innovation: FloatArray, noise: FloatArray) -> Update:
    """Update by measurements; the worst that contradicts all others is left out, and again.

    Parameters
    ----------
    jacobian
        Of the measurements by the state, shape (measurements, states).
    sigma
        Prior standard deviation of every state, shape (states,).
    innovation
        Measured minus predicted at the prior mean; NaN where nothing is measured, shape (measurements,).
    noise
        Standard deviation of every measurement, shape (measurements,).
    """
    there = np.isfinite(innovation)
    used = there.copy()
    suspicion = np.full(len(innovation), np.nan)
    for _ in range(BAD_MAX + 1):
        h = jacobian[used]
        shared = h * np.square(sigma)
        covariance = shared @ h.T + np.diag(np.square(noise[used]))
        weighted = _solve(covariance, np.column_stack([innovation[used][:, None], np.eye(len(h))]))
        gain, inverse = weighted[:, 0], weighted[:, 1:]
        suspicion[used] = np.abs(gain) / np.sqrt(np.diag(inverse))
        worst = int(np.nanargmax(np.where(used, suspicion, -1.0))) if len(h) else 0
        if not len(h) or suspicion[worst] <= SUSPICION or np.count_nonzero(there & ~used) == BAD_MAX:
            break
        used[worst] = False
    root = np.linalg.cholesky(inverse) if len(h) else np.zeros((0, 0))
    return Update(
        deviation=shared.T @ gain,
        used=used,
        residual_sigma=suspicion,
        chi2=float(innovation[used] @ gain),
        spread=shared.T @ root,
    )


def _solve(covariance: FloatArray, right: FloatArray) -> FloatArray:
    if not len(covariance):
        return right
    scale = np.sqrt(np.diag(covariance))  # volts and watts stand side by side
    factor = cho_factor(covariance / np.outer(scale, scale))
    solved: FloatArray = cho_solve(factor, right / scale[:, None]) / scale[:, None]
    return solved
