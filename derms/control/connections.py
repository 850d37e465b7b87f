"""Connections: what the devices behind one may do until they are told something else, and what is left there.

Powers in W, + = injection, columns with a row per device. All is counted the way that leaves others less: the
other load as the file bounds it, PV that nobody limits at its rating for export and at nothing for import, a battery at
what it holds or at rest, whichever is worse, and a device of which nobody knows anything at its rating.
"""

from dataclasses import dataclass, replace

import numpy as np

from derms.domain.arrays import FloatArray, IntArray
from derms.domain.der import Fleet
from derms.domain.telemetry import TelemetrySnapshot


@dataclass(frozen=True, slots=True)
class Reach:
    """Between what powers each device may be until it is told something else [W], shape (n,)."""

    low_w: FloatArray
    """Most that it draws, <= 0."""
    high_w: FloatArray
    """Most that it injects, >= 0."""

    def limited(self, limit_w: FloatArray) -> "Reach":
        """The same under limits on injection; NaN for none."""
        return replace(self, high_w=np.fmin(self.high_w, np.maximum(limit_w, 0.0)))


def unheld(fleet: Fleet, snapshot: TelemetrySnapshot) -> Reach:
    """What devices may do that hold nothing: what they are measured to do, if that is good, else their rating.

    PV gives its rating whenever the sun lets it, and may give nothing at any time. Chargers and loads only draw.
    """
    good, rated_w = snapshot.good("p_w"), fleet.p_rated_w
    measured_w = np.where(good, snapshot.p_w, 0.0)
    gives, takes = ~fleet.is_undispatched, ~fleet.is_pv
    high_w = np.where(fleet.is_pv | (~good & gives), rated_w, 0.0)
    low_w = np.where(~good & takes, -rated_w, 0.0)
    return Reach(np.minimum(low_w, measured_w), np.maximum(high_w, measured_w))


def shared_room(point: IntArray, most_w: FloatArray, now_w: FloatArray, to_w: FloatArray | None) -> FloatArray:
    """How far devices may go, so that those behind each point together stay within what is left there.

    What a device may do now counts until it is told something else, so going down makes no room yet. Those that go
    further share the room in proportion to how much further. Where there is too much already nobody goes further, and
    those that are asked come down together, to rest at most: they make good for all others.

    Parameters
    ----------
    point : IntArray
        Behind which point each device is, -1 for none, shape (n,).
    most_w : FloatArray
        What the devices of each point may do together, >= 0, shape (points,).
    now_w : FloatArray
        What each may do now, >= 0, shape (n,).
    to_w : FloatArray | None
        Where each is wanted, NaN where it is not asked; None: each is asked alone how far it could go, shape (n,).

    Returns
    -------
    FloatArray
        The most that each may be told, >= 0; inf where it is behind no point, or not asked, shape (n,).
    """
    shares = point >= 0
    at, now_w = point[shares], now_w[shares]
    left_w = most_w - sums(at, now_w, len(most_w))
    far_w = np.full(len(point), np.inf)
    if to_w is None:
        far_w[shares] = np.maximum(now_w + left_w[at], 0.0)
        return far_w
    asked = np.isfinite(to_w[shares])
    further_w = np.where(asked, np.maximum(to_w[shares] - now_w, 0.0), 0.0)
    further_part = _part(left_w, sums(at, further_w, len(most_w)))
    asked_w = sums(at, np.where(asked, now_w, 0.0), len(most_w))
    kept_part = _part(left_w + asked_w, asked_w)
    reach_w = now_w * kept_part[at] + further_w * further_part[at]
    fits = np.minimum(kept_part, further_part)[at] >= 1.0
    far_w[shares] = np.where(asked, np.where(fits, np.fmax(now_w, to_w[shares]), reach_w), np.inf)
    return far_w


def sums(point: IntArray, value: FloatArray, count: int) -> FloatArray:
    """The sum of values at each of some points, shape (count,); both columns tell of the same rows."""
    return np.bincount(point, value, count).astype(np.float64, copy=False)


def behind(fleet: Fleet, power_w: FloatArray) -> FloatArray:
    """The sum of powers behind each connection [W], shape (connections,)."""
    rows = fleet.connection >= 0
    return sums(fleet.connection[rows], power_w[rows], len(fleet.connections))


def _part(left_w: FloatArray, asked_w: FloatArray) -> FloatArray:
    """Which part of what is asked there is room for [0..1]."""
    room_w = np.maximum(left_w, 0.0)
    return np.divide(room_w, asked_w, out=np.ones_like(asked_w), where=asked_w > room_w)
