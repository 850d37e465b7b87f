"""Commands on their way to devices, and the one outcome that each of them gets.

Active power in W, + = injection. Times are seconds on the monotonic clock.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray, IntArray

FREE_FRAC = 0.1
"""Of its rating, by which PV that a limit does not hold back is measured below it."""


class Quantity(StrEnum):
    """What a command sets."""

    P_SET = "p_set"
    """Active power of a battery: + discharges, - charges."""
    P_LIMIT = "p_limit"
    """Ceiling on active-power injection."""


class Ceasing(StrEnum):
    """Ways in which a device is told to cease to energize, and later let in again."""

    PERMIT_SERVICE = "permit service"
    """SunSpec 703 ES, the point of IEEE 1547."""
    OPERATION = "operation"
    """SunSpec 715 OpCtl."""
    CONNECT = "connect"
    """SunSpec 123 Conn."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a device can be used for, as its map shows; what it truly does is for commissioning to prove."""

    takes: frozenset[Quantity] = frozenset()
    reverts: frozenset[Quantity] = frozenset()
    """Quantities that end by themselves when nobody speaks to the device: by a timer, or by its maker's watchdog."""
    heartbeat: bool = False
    """It watches its controller's heartbeat."""
    curves: frozenset[int] = frozenset()
    """Models of its adoptable curves (705 volt-var, 706 volt-watt, 711 frequency droop, 712 watt-var)."""
    ceases: frozenset[Ceasing] = frozenset()
    """Ways in which it can be told to cease to energize, and be let in again."""

    def may_be_commanded(self, quantity: Quantity) -> bool:
        """Whether it takes a quantity, and lets go of it by itself when its controller dies."""
        return quantity in self.takes & self.reverts


@dataclass(frozen=True, slots=True)
class Command:
    """One absolute, idempotent instruction to one device; `value_w` None releases it to its own default."""

    quantity: Quantity
    value_w: float | None
    reversion_s: float
    """Dead-man time armed in the device with the value: after it, unrefreshed, the device is on its own [s]."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a device holds for a quantity when it is read back."""

    value_w: float | None
    """None when the function is disabled, which is neither zero nor everything."""
    reversion_s: float
    reversion_left_s: float
    """NaN where the device does not tell."""
    resolution_w: float
    """Smallest step of the value in the device's registers [W]."""


@dataclass(frozen=True, slots=True)
class Applied:
    """Written, read back, and its effect seen."""

    effect_w: float


@dataclass(frozen=True, slots=True)
class Clamped:
    """Applied at another value than wanted, because a guard said so."""

    by: str
    wanted_w: float
    effect_w: float


@dataclass(frozen=True, slots=True)
class NotFollowing:
    """Written and read back, but the measured power does not follow."""

    effect_w: float


@dataclass(frozen=True, slots=True)
class Rejected:
    """Refused by a guard, or by the device with an answer; nothing changed."""

    by: str


@dataclass(frozen=True, slots=True)
class Superseded:
    """A newer command took its place before its effect could be seen."""


@dataclass(frozen=True, slots=True)
class Expired:
    """Its validity ended before it could be written."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The write or the read-back did not come through; the device's state is what it was or its default."""

    why: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Sent, and nobody knows whether it arrived: read back before anything else."""

    why: str


Outcome = Applied | Clamped | NotFollowing | Rejected | Superseded | Expired | Failed | Unknown

GOOD_OUTCOMES = (Applied, Clamped, Superseded)
"""Outcomes that leave the device as the control room believes it to be."""


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """One command with its end: what the ledger shows."""

    seq: int
    at: datetime
    device_id: str
    quantity: Quantity
    plan_id: int
    wanted_w: float
    """What the plan wanted [W]; NaN for a release."""
    value_w: float | None
    """What was written [W]; None for a release."""
    outcome: Outcome
    ended_at: datetime


@dataclass(frozen=True)
class Heads:
    """Limits of feeders at their heads, + = import."""

    low_w: FloatArray
    """Least power into each feeder [W], shape (f,)."""
    high_w: FloatArray
    """Greatest, likewise."""
    feeder: IntArray
    """Row of each device's feeder, -1 for none, shape (n,)."""


@dataclass(frozen=True)
class Leeway:
    """What a plan expects and what the feeder bears, so that its setpoints may be trimmed while it holds."""

    net_load_w: FloatArray
    """Net load of the system at the support points when every device does what it is told [W], + = import, (k,)."""
    most_w: FloatArray
    """Greatest battery power either way that the plan may use [W], eased where the feeder strains, shape (n,)."""
    heads: Heads | None = None
    """None where no feeder is limited."""

    def expected_w(self, times_s: FloatArray, now_s: float) -> float:
        """Net load that is expected now, on the line between support points [W]."""
        left, right, share = _between(times_s, now_s)
        return float(self.net_load_w[left] * (1.0 - share) + self.net_load_w[right] * share)


@dataclass(frozen=True)
class Trim:
    """What measurements add to the planned setpoints of batteries for a short time."""

    offset_w: FloatArray
    """Shape (n,), + = more injection [W]."""
    until_s: float
    """Unless renewed it ends then."""


@dataclass(frozen=True)
class Dispatch:
    """What the fleet should do until `valid_until_s`: piecewise linear in time, a row per device.

    NaN means that the device is not commanded and stays with, or returns to, its own default.
    """

    plan_id: int
    issued_at: datetime
    valid_until_s: float
    times_s: FloatArray
    """Support points [s], increasing, shape (k,)."""
    p_set_w: FloatArray
    """Wanted battery power at the support points, shape (n, k)."""
    p_limit_w: FloatArray
    """Wanted limits at the support points, shape (n, k)."""
    leeway: Leeway | None = None
    """None where the plan does not say what it expects: then nothing is trimmed."""
    trim: Trim | None = None

    def planned_w(self, quantity: Quantity, now_s: float) -> FloatArray:
        """What the plan says per device now [W], interpolated between support points, shape (n,); NaN: not commanded.

        Before the first and after the last support point the nearest value holds.
        """
        values = self.p_set_w if quantity is Quantity.P_SET else self.p_limit_w
        left, right, share = _between(self.times_s, now_s)
        planned: FloatArray = values[:, left] * (1.0 - share) + values[:, right] * share
        return planned

    def wanted_w(self, quantity: Quantity, now_s: float) -> FloatArray:
        """Value per device now [W], the plan's with its trim, shape (n,); NaN when not commanded."""
        planned_w = self.planned_w(quantity, now_s)
        trim, leeway = self.trim, self.leeway
        if trim is None or leeway is None or quantity is not Quantity.P_SET or now_s > trim.until_s:
            return planned_w
        most_w = np.where(trim.offset_w == 0.0, np.inf, leeway.most_w)
        wanted: FloatArray = np.clip(planned_w + trim.offset_w, -most_w, most_w)
        return wanted

    def holds_back(self, p_w: FloatArray, p_rated_w: FloatArray) -> BoolArray:
        """PV that its first limits may hold back: what is measured [W] is near them, or not known; shape (n,)."""
        limit_w = np.fmin(self.p_limit_w[:, 0], self.p_limit_w[:, 1])
        near: BoolArray = ~(p_w < limit_w - FREE_FRAC * p_rated_w)
        return np.isfinite(limit_w) & near


def _between(times_s: FloatArray, now_s: float) -> tuple[int, int, float]:
    """The support points before and after a time, and the share of the way between them [0..1]."""
    right = int(np.clip(np.searchsorted(times_s, now_s), 1, len(times_s) - 1))
    left_s, right_s = times_s[right - 1], times_s[right]
    return right - 1, right, float(np.clip((now_s - left_s) / (right_s - left_s), 0.0, 1.0))
