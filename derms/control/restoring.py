"""Restoring: how devices go back to their defaults when control ends, ramped and one after another.

Powers in W, + = injection; times in s on the monotonic clock; columns of shape (n,).
"""

from dataclasses import dataclass

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray

SHORTEST_S = 1e-6
"""For a device that has nowhere to go."""


@dataclass(frozen=True)
class Restoring:
    """When each device moves, and from where to where."""

    held_w: FloatArray
    """What it holds at the start; NaN for a device that holds nothing, which is no part of this."""
    default_w: FloatArray
    """What it is expected to do by itself; NaN where nobody knows: it keeps its value until it is let go."""
    start_s: FloatArray
    end_s: FloatArray

    def wanted_w(self, now_s: float) -> FloatArray:
        """What each device should hold now; NaN once it is to be let go."""
        length_s = np.maximum(self.end_s - self.start_s, SHORTEST_S)
        share = np.clip((now_s - self.start_s) / length_s, 0.0, 1.0)
        target_w = np.where(np.isnan(self.default_w), self.held_w, self.default_w)
        return np.where(now_s >= self.end_s, np.nan, self.held_w + share * (target_w - self.held_w))

    def due(self, now_s: float) -> BoolArray:
        """Devices that are to be let go by now."""
        due: BoolArray = np.isfinite(self.held_w) & (now_s >= self.end_s)
        return due

    @property
    def until_s(self) -> float:
        """When the last device is let go."""
        return float(np.max(self.end_s, initial=-np.inf))


def restoring(
    held_w: FloatArray,
    default_w: FloatArray,
    p_rated_w: FloatArray,
    place: FloatArray,
    *,
    start_s: float,
    ramp_w_per_min: float,
) -> Restoring:
    """Let devices go one after another, so that all of them together never move faster than a ramp.

    Parameters
    ----------
    held_w, default_w, p_rated_w : FloatArray
        What each device holds (NaN: nothing), is expected to do by itself (NaN: not known), and could do at most [W].
    place : FloatArray
        Its place in the order, as [0, 1); neighbours on a feeder should be far apart.
    start_s : float
        Monotonic time of the first move [s].
    ramp_w_per_min : float
        Fastest change of all devices together, whichever way each of them moves [W/min].

    Returns
    -------
    Restoring
        A device whose default is not known counts with its rating, and takes as long as that would.
    """
    if not ramp_w_per_min > 0.0:
        raise ValueError("a ramp is greater than zero")
    known_w = np.abs(default_w - held_w)
    change_w = np.where(np.isnan(held_w), 0.0, np.where(np.isnan(known_w), p_rated_w, known_w))
    order = np.argsort(place, kind="stable")
    end_s = np.empty(len(held_w))
    end_s[order] = start_s + np.cumsum(change_w[order]) / ramp_w_per_min * 60.0
    return Restoring(held_w, default_w, end_s - change_w / ramp_w_per_min * 60.0, end_s)
