"""Loss of control: what the fleet would do if everything that commands it died now.

Each device keeps what it holds until its own timer ends it, then does what it does by itself. Powers in W, + =
injection; times in s on the monotonic clock; columns of shape (n,).
"""

from dataclasses import dataclass

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.der import Fleet

SOON_S = 60.0


@dataclass(frozen=True)
class Hold:
    """What devices hold of ours, and what they do."""

    p_w: FloatArray
    """Power now; NaN where nobody knows."""
    held: BoolArray
    """It holds a command."""
    reverts_at_s: FloatArray
    """When its timer ends that unless somebody refreshes it; infinite where it has none."""
    proven: BoolArray
    """Commissioning has proven that it lets go by itself."""


@dataclass(frozen=True)
class ControlLoss:
    """What would come of it."""

    now_w: float
    soon_w: float
    """In SOON_S."""
    end_w: float
    """When every timer has ended what it can."""
    end_s: float
    """Time until then; 0 where nothing is held."""
    largest_w: float
    """Farthest that the fleet is from its power now at any time on the way, + or -."""
    for_ever: BoolArray
    """Hold a command that no timer ends."""
    unproven: BoolArray
    """Take commands, and nobody has proven that they let go of them."""


def default_w(fleet: Fleet, p_w: FloatArray, held: BoolArray) -> FloatArray:
    """What each device is expected to do by itself [W].

    A battery rests, and PV gives what its neighbours give that nothing holds back; where there are none, its rating.
    """
    free = fleet.is_pv & ~held & np.isfinite(p_w) & (fleet.p_rated_w > 0.0)
    share = float(np.median(p_w[free] / fleet.p_rated_w[free])) if free.any() else 1.0
    sun_w = np.where(held, np.fmax(p_w, share * fleet.p_rated_w), p_w)
    return np.where(fleet.is_battery, np.where(held, 0.0, p_w), np.where(fleet.is_pv, sun_w, p_w))


def control_loss(fleet: Fleet, hold: Hold, now_s: float) -> ControlLoss:
    """What the fleet would do if nobody refreshed or wrote anything from now on."""
    der = fleet.is_battery | fleet.is_pv
    after_w = np.where(der, default_w(fleet, hold.p_w, hold.held), 0.0)
    before_w = np.where(der, hold.p_w, 0.0)
    change_w = np.nan_to_num(after_w - before_w)
    now_w = float(np.nansum(before_w))
    ends_s = np.where(hold.held & der, np.maximum(hold.reverts_at_s - now_s, 0.0), np.inf)
    timed = np.isfinite(ends_s)
    order = np.argsort(ends_s[timed], kind="stable")
    way_w = np.cumsum(change_w[timed][order])
    return ControlLoss(
        now_w=now_w,
        soon_w=now_w + float(change_w[ends_s <= SOON_S].sum()),
        end_w=now_w + float(change_w[timed].sum()),
        end_s=float(ends_s[timed].max(initial=0.0)),
        largest_w=float(way_w[np.argmax(np.abs(way_w))]) if way_w.size else 0.0,
        for_ever=hold.held & der & ~timed,
        unproven=der & ~hold.proven,
    )
