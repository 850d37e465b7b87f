"""Stopping: four verbs, what each sends to a device, in which stages, and how it is confirmed.

Release to autonomous, freeze, stop export and/or charging, cease to energize. WAYS is their table; the verb with
directions is three rows of it. Powers in W, + = injection; times in s on the monotonic clock; columns of shape (n,).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.domain.dispatch import Capabilities, Ceasing, Quantity
from derms.domain.scope import Places


class Means(IntEnum):
    """What can be sent to a device; the numbers are columns."""

    PERMIT_SERVICE = 0
    """703 ES to 0: cease to energize, the point of IEEE 1547."""
    OPERATION = 1
    """715 OpCtl to stop."""
    CONNECT = 2
    """123 Conn to 0."""
    SETPOINT = 3
    """A setpoint; for a battery the only way to end charging."""
    LIMIT = 4
    """A limit of zero. WMaxLimPct is unsigned: it ends export, and no charging."""
    RELEASE = 5
    """Disable what it holds of ours."""
    HOLD = 6
    """Go on refreshing what it holds, and change nothing."""


CEASING: Mapping[Means, Ceasing] = {
    Means.PERMIT_SERVICE: Ceasing.PERMIT_SERVICE,
    Means.OPERATION: Ceasing.OPERATION,
    Means.CONNECT: Ceasing.CONNECT,
}
"""Means that withdraw service, in the order of their columns."""
QUANTITIES: Mapping[Means, Quantity] = {Means.SETPOINT: Quantity.P_SET, Means.LIMIT: Quantity.P_LIMIT}
"""Means that are a value."""
NOTHING = -1
"""In place of a means: there is none, or none is left."""

RESPONSE_S: Mapping[Means, float] = {
    Means.PERMIT_SERVICE: 2.0,
    Means.OPERATION: 2.0,
    Means.CONNECT: 2.0,
    Means.SETPOINT: 30.0,
    Means.LIMIT: 30.0,
    Means.RELEASE: 30.0,
    Means.HOLD: 30.0,
}
"""Time that a device has to show the effect before the next means is tried (IEEE 1547: 2 s for permit service)."""


class How(StrEnum):
    """Ways to stop, as a command names them."""

    RELEASE = "release"
    FREEZE = "freeze"
    NO_EXPORT = "stop-export"
    NO_CHARGE = "stop-charging"
    NO_FLOW = "stop-both"
    CEASE = "cease"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to stop."""

    text: str
    ladder: tuple[Means, ...]
    """What to try at a device, in this order, as far as it takes it."""
    low_w: float = -np.inf
    high_w: float = np.inf
    """What it leaves of a device's power."""


WAYS: Mapping[How, Way] = {
    How.RELEASE: Way("devices go back to what they do by themselves", (Means.RELEASE,)),
    How.FREEZE: Way("devices keep what they hold, and nothing new goes out", (Means.HOLD,)),
    How.NO_EXPORT: Way("no device injects", (Means.LIMIT, Means.SETPOINT), high_w=0.0),
    How.NO_CHARGE: Way("no device draws", (Means.SETPOINT,), low_w=0.0),
    How.NO_FLOW: Way("no device injects or draws", (Means.SETPOINT, Means.LIMIT), low_w=0.0, high_w=0.0),
    How.CEASE: Way(
        "devices cease to energize",
        (Means.PERMIT_SERVICE, Means.OPERATION, Means.CONNECT, Means.SETPOINT, Means.LIMIT),
        low_w=0.0,
        high_w=0.0,
    ),
}


@dataclass(frozen=True)
class Stoppable:
    """What is to be known of devices before they are stopped."""

    can: BoolArray
    """Means that each takes, shape (n, len(Means))."""
    low_w: FloatArray
    high_w: FloatArray
    """The power that each could have at all: PV from 0 up, chargers up to 0."""
    held: BoolArray
    """It holds a command of ours."""
    p_w: FloatArray
    """Its power now; NaN where nobody knows."""
    default_w: FloatArray
    """What it does by itself; NaN where nobody knows."""

    @property
    def charges(self) -> BoolArray:
        charges: BoolArray = self.low_w < 0.0
        return charges


def means_of(capabilities: Iterable[Capabilities]) -> BoolArray:
    """Means that devices take, shape (n, len(Means)), from what their maps show."""
    return np.array(
        [
            [
                *(by in it.ceases for by in CEASING.values()),
                *(Quantity.P_SET in it.takes, Quantity.P_LIMIT in it.takes),
                *(True, True),
            ]
            for it in capabilities
        ],
        dtype=np.bool_,
    ).reshape(-1, len(Means))


def needed(how: How, devices: Stoppable) -> BoolArray:
    """Devices that have anything to do: PV never charges, and what holds nothing of ours is on its own already."""
    way = WAYS[how]
    if how in (How.RELEASE, How.FREEZE):
        return devices.held.copy()
    inside = (way.low_w <= devices.low_w) & (devices.high_w <= way.high_w)
    rows: BoolArray = ~inside | (how is How.CEASE)
    return rows


def ladders(how: How, devices: Stoppable) -> IntArray:
    """What to try at each device, in order, shape (n, depth); NOTHING from where no further means is left."""
    order = np.array(WAYS[how].ladder)
    takes = devices.can[:, order] & needed(how, devices)[:, None]
    first = np.argsort(~takes, axis=1, kind="stable")
    return np.where(np.take_along_axis(takes, first, axis=1), order[first], NOTHING)


def trying(ladders_: IntArray, attempt: IntArray) -> IntArray:
    """Means of each device's attempt, counted from 0, shape (n,); NOTHING beyond the last."""
    depth = ladders_.shape[1]
    within = np.minimum(attempt, depth - 1)[:, None]
    return np.where(attempt < depth, np.take_along_axis(ladders_, within, axis=1)[:, 0], NOTHING)


def next_attempt(ladders_: IntArray, attempt: IntArray, sent_s: FloatArray, done: BoolArray, now_s: float) -> IntArray:
    """Each device's attempt now: the next where it had its time since `sent_s` [s], is not done, and has one left."""
    means = trying(ladders_, attempt)
    time_s = np.array([RESPONSE_S[one] for one in Means])[means]
    late = ~done & (means != NOTHING) & (now_s - sent_s >= time_s)
    moved = late & (trying(ladders_, attempt + 1) != NOTHING)
    return np.where(moved, attempt + 1, attempt)


def value_w(how: How, means: IntArray, p_w: FloatArray) -> FloatArray:
    """Value that goes with each device's means [W]: the nearest to its power that the way leaves; NaN for none."""
    way = WAYS[how]
    setpoint_w = np.clip(np.nan_to_num(p_w), way.low_w, way.high_w)
    return np.where(means == Means.SETPOINT, setpoint_w, np.where(means == Means.LIMIT, 0.0, np.nan))


def after_w(how: How, devices: Stoppable) -> FloatArray:
    """Power of each device once it is stopped [W]; NaN where nobody can know."""
    way = WAYS[how]
    own_w = devices.default_w if how is How.RELEASE else devices.p_w
    stopped_w = np.clip(own_w, way.low_w, way.high_w)
    return np.where(needed(how, devices), stopped_w, devices.p_w)


def change_w(how: How, devices: Stoppable) -> FloatArray:
    """How far stopping may move each device [W], 0 or more; where nobody knows, as far as it could go at all."""
    far_w = np.abs(after_w(how, devices) - devices.p_w)
    moved_w = np.where(np.isnan(far_w), devices.high_w - devices.low_w, far_w)
    return np.where(needed(how, devices), moved_w, 0.0)


def stages(how: How, devices: Stoppable, scope: BoolArray, *, stage_w: float) -> IntArray:
    """Stage in which each device of a scope is stopped, from 0; NOTHING for those that need not be.

    No stage moves more than `stage_w` [W] at once, but for a single device that is larger.
    """
    rows = np.flatnonzero(scope & needed(how, devices))
    total_w = np.cumsum(change_w(how, devices)[rows])
    stage = np.full(len(scope), NOTHING)
    first = number = 0
    while first < len(rows):
        done_w = total_w[first - 1] if first else 0.0
        end = max(first + 1, int(np.searchsorted(total_w, done_w + stage_w, side="right")))
        stage[rows[first:end]] = number
        first, number = end, number + 1
    return stage


def let_in_now(waiting: BoolArray, high_w: FloatArray, *, stage_w: float) -> BoolArray:
    """The first of the devices that wait to be let in: as many as may bring `stage_w` [W] together, at least one."""
    rows = np.flatnonzero(waiting)
    count = max(1, int(np.searchsorted(np.cumsum(high_w[rows]), stage_w, side="right")))
    now = np.zeros(len(waiting), dtype=np.bool_)
    now[rows[:count]] = True
    return now


def due(stage: IntArray, elapsed_s: float, *, every_s: float, immediate: bool) -> BoolArray:
    """Devices whose stage has come; all of them once somebody says immediate."""
    rows: BoolArray = (stage != NOTHING) & ((stage * every_s <= elapsed_s) | immediate)
    return rows


@dataclass(frozen=True)
class ReadBack:
    """What devices were read to hold after they had been told; NaN where nothing was read, which confirms nothing."""

    permitted: FloatArray
    """703 ES: 1 or 0."""
    operating: FloatArray
    """715 OpCtl: 1 or 0."""
    connected: FloatArray
    """123 Conn: 1 or 0."""
    p_set_w: FloatArray
    p_limit_w: FloatArray
    """Infinite, as the setpoint is, where it is disabled or the device has none."""
    p_w: FloatArray
    """Power measured after the write; NaN where there is none yet: then the registers alone count."""


def confirmed(how: How, sent: BoolArray, devices: Stoppable, seen: ReadBack, tolerance_w: FloatArray) -> BoolArray:
    """Devices that were seen to be stopped: they hold any of what was sent, and their power does not contradict it.

    `sent` says which means went to each so far, shape (n, len(Means)); powers are compared within `tolerance_w` [W].
    """
    way = WAYS[how]
    limit_suits = np.isneginf(way.low_w) | ~devices.charges
    low_w, high_w = way.low_w - tolerance_w, way.high_w + tolerance_w
    holds: Mapping[Means, BoolArray] = {
        Means.PERMIT_SERVICE: seen.permitted == 0.0,
        Means.OPERATION: seen.operating == 0.0,
        Means.CONNECT: seen.connected == 0.0,
        Means.SETPOINT: np.isfinite(seen.p_set_w) & (low_w <= seen.p_set_w) & (seen.p_set_w <= high_w),
        Means.LIMIT: (np.abs(seen.p_limit_w) <= tolerance_w) & limit_suits,
        Means.RELEASE: np.isinf(seen.p_set_w) & np.isinf(seen.p_limit_w),
        Means.HOLD: np.isfinite(seen.p_set_w) | np.isfinite(seen.p_limit_w),
    }
    held = (sent & np.column_stack([holds[means] for means in Means])).any(axis=1)
    contradicts = (seen.p_w < low_w) | (seen.p_w > high_w)
    rows: BoolArray = held & ~contradicts
    return rows


def default_meets(how: How, default_w: FloatArray) -> BoolArray:
    """Devices that will do what a stop asks once they are on their own: PV that exports by itself never does."""
    way = WAYS[how]
    rows: BoolArray = (way.low_w <= default_w) & (default_w <= way.high_w)
    return rows if how is not How.RELEASE else np.ones(len(default_w), dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class Tally:
    """How far a stop has come."""

    total: int
    confirmed: int
    reverting: int
    within_s: float
    """When the last of those that revert will have done so [s from now]."""
    unknown: tuple[str, ...]
    """Devices of which nobody knows."""
    waiting: int = 0
    """Devices whose stage has not come, or which have been told and have time left."""

    @property
    def settled(self) -> bool:
        """Nothing more will come by itself: each is confirmed, reverting, or unknown."""
        return not self.waiting

    def __str__(self) -> str:
        parts = [f"{self.confirmed} of {self.total} confirmed"]
        if self.waiting:
            parts.append(f"{self.waiting} under way")
        if self.reverting:
            parts.append(f"{self.reverting} reverting within {self.within_s:.0f} s")
        if self.unknown:
            parts.append(f"{len(self.unknown)} unknown: {', '.join(self.unknown)}")
        return ", ".join(parts)


def tally(
    wanted: BoolArray,
    done: BoolArray,
    meets: BoolArray,
    reverts_in_s: FloatArray,
    places: Places,
    *,
    waiting: BoolArray | None = None,
) -> Tally:
    """Count the devices to be stopped.

    Parameters
    ----------
    wanted, done, meets : BoolArray
        To be stopped at all; confirmed; doing by themselves what the stop asks (`default_meets`).
    reverts_in_s : FloatArray
        Time until each device is on its own, proven at its commissioning [s]; NaN where nothing is proven.
    places : Places
    waiting : BoolArray, optional
        Those that have time left to be told or to confirm; none where it is not given.
    """
    confirmed_rows = wanted & done
    under_way = np.zeros_like(wanted) if waiting is None else wanted & ~done & waiting
    reverting = wanted & ~done & meets & np.isfinite(reverts_in_s) & ~under_way
    unknown = wanted & ~done & ~reverting & ~under_way
    return Tally(
        total=int(wanted.sum()),
        confirmed=int(confirmed_rows.sum()),
        reverting=int(reverting.sum()),
        within_s=float(np.max(reverts_in_s[reverting], initial=0.0)),
        unknown=tuple(places.devices[row] for row in np.flatnonzero(unknown)),
        waiting=int(under_way.sum()),
    )
