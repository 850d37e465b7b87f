"""Guards: the one exit for commands. Each narrows the power that a device may be told; none ever widens it.

Bounds are columns [W, + = injection], a row per device. A guard that does not know forbids: NaN never means free.
The table GUARDS is their order and their names; a new guard is one function and one line there. Those that pace what
moves give way to those before them: what has to go to a bound goes there at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from derms.control.connections import Reach, behind, shared_room, unheld
from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.der import Fleet
from derms.domain.dispatch import Quantity
from derms.domain.quality import Quality
from derms.domain.telemetry import TelemetrySnapshot

SOC_MARGIN_FRAC = 0.005
"""Distance kept from reserve and ceiling: resolution of the reading and what moves while it travels."""


@dataclass(frozen=True, slots=True)
class PowerBounds:
    """Allowed active power per device [W], shape (n,); low > high means that nothing is allowed."""

    low_w: FloatArray
    high_w: FloatArray

    def narrowed(self, low_w: FloatArray, high_w: FloatArray) -> "PowerBounds":
        """The overlap with further bounds."""
        return PowerBounds(np.maximum(self.low_w, low_w), np.minimum(self.high_w, high_w))

    def nearest(self, low_w: FloatArray, high_w: FloatArray) -> "PowerBounds":
        """The overlap with further bounds; where that would be empty, what is nearest to them of these.

        What is empty stays empty.
        """
        nothing = self.empty
        low_w, high_w = (np.clip(side_w, self.low_w, self.high_w) for side_w in (low_w, high_w))
        return PowerBounds(np.where(nothing, self.low_w, low_w), np.where(nothing, self.high_w, high_w))

    @property
    def empty(self) -> BoolArray:
        nothing: BoolArray = ~(self.low_w <= self.high_w)
        return nothing


def unbounded(count: int) -> PowerBounds:
    """Bounds that leave everything."""
    return PowerBounds(np.full(count, -np.inf), np.full(count, np.inf))


@dataclass(frozen=True)
class Permits:
    """What people, stops and commissioning have laid down for each device, columns of shape (n,)."""

    matched: BoolArray
    """It answers as the device that it is meant to be."""
    reverts: BoolArray
    """It was not proven to keep a value for ever."""
    open: BoolArray
    """The mode lets the authority pass that wants something of it."""
    tags: PowerBounds
    stops: PowerBounds


@dataclass(frozen=True)
class Quota:
    """Power that some devices together may still move now."""

    by: str
    """`author ramp`, `fleet ramp`."""
    rows: BoolArray
    left_w: float


@dataclass(frozen=True)
class Moves:
    """From where devices move, and how far they may; columns of shape (n,)."""

    low_w: FloatArray
    """A value below this lowers the power [W]; NaN where nobody knows what it does."""
    high_w: FloatArray
    """A value above this raises it [W]: the same for a setpoint, infinite for a limit where none holds a device."""
    step_w: FloatArray
    """Farthest move of each device now."""
    quotas: tuple[Quota, ...] = ()

    def change_w(self, value_w: FloatArray) -> FloatArray:
        """Power that values would move [W], >= 0, shape (n,); 0 where nothing is known or wanted."""
        moved_w = np.maximum(value_w - self.high_w, 0.0) + np.maximum(self.low_w - value_w, 0.0)
        known_w: FloatArray = np.nan_to_num(moved_w, nan=0.0, posinf=0.0)
        return known_w


@dataclass(frozen=True, slots=True)
class GuardInput:
    """What the guards look at."""

    fleet: Fleet
    snapshot: TelemetrySnapshot
    reversion_s: float
    """How long a setpoint may live in a device that nobody refreshes [s]."""
    permits: Permits | None = None
    """None where nothing is to be commanded: what would be possible is asked."""
    moves: Moves | None = None
    """None where nothing is to be moved."""
    wanted_w: FloatArray | None = None
    """What is wanted of each device; `guard` fills it in."""
    quantity: Quantity = Quantity.P_SET
    """What the values are: a limit is never below zero, whatever the kind."""
    reach: Reach | None = None
    """What devices may do until they are told something else; None where nobody knows what they hold."""


Guard = Callable[[PowerBounds, GuardInput], PowerBounds]


def quality_guard(bounds: PowerBounds, given: GuardInput) -> PowerBounds:
    """Forbid everything to a device whose values are not good and fresh: nobody would see what a command does."""
    good = (given.snapshot.quality == Quality.GOOD) & np.isfinite(given.snapshot.p_w)
    return _only(good, bounds)


def local_guard(bounds: PowerBounds, given: GuardInput) -> PowerBounds:
    """Forbid everything to a device under local control: what it held of ours is left to its timer."""
    return _only(~given.snapshot.local, bounds)


def _only(rows: BoolArray, bounds: PowerBounds) -> PowerBounds:
    """Nothing for all other rows."""
    return bounds.narrowed(np.where(rows, -np.inf, np.inf), np.where(rows, np.inf, -np.inf))


def _permit_guard(column: Callable[[Permits], BoolArray], bounds: PowerBounds, given: GuardInput) -> PowerBounds:
    """Forbid everything to devices without a permit."""
    return bounds if given.permits is None else _only(column(given.permits), bounds)


def _laid_down(column: Callable[[Permits], PowerBounds], bounds: PowerBounds, given: GuardInput) -> PowerBounds:
    """Keep to bounds that people have laid down."""
    if given.permits is None:
        return bounds
    laid = column(given.permits)
    return bounds.narrowed(laid.low_w, laid.high_w)


def nameplate_guard(bounds: PowerBounds, given: GuardInput) -> PowerBounds:
    """Keep setpoints of batteries within their rating both ways, PV and limits between zero and it; no meter's.

    The rating is the fleet file's; where connections have limits of their own, the connection guard keeps those.
    """
    return _rated(bounds, given, given.fleet.p_rated_w)


def device_maximum_guard(bounds: PowerBounds, given: GuardInput) -> PowerBounds:
    """The same with what the device itself says that it can and may; where it says nothing this leaves everything."""
    told_w = given.snapshot.p_rated_w
    return _rated(bounds, given, np.where(np.isfinite(told_w), told_w, np.inf))


def _rated(bounds: PowerBounds, given: GuardInput, rated_w: FloatArray) -> PowerBounds:
    fleet, is_setpoint = given.fleet, given.quantity is Quantity.P_SET
    commanded = fleet.is_battery | fleet.is_pv
    high_w = np.where(commanded, rated_w, -np.inf)
    low_w = np.where(fleet.is_battery & is_setpoint, -rated_w, np.where(commanded, 0.0, np.inf))
    return bounds.narrowed(low_w, high_w)


def connection_guard(bounds: PowerBounds, given: GuardInput) -> PowerBounds:
    """Keep what the devices behind each connection may inject and draw together within its limits.

    Limits hold with the least other load for export and the greatest for import. Each device counts with what it may
    do until it is told something else (`GuardInput.reach`): one that is not in this turn, one that is told later and
    one that comes down in this turn alike. So a battery gets for export what PV leaves that is limited or could give
    its rating, and a limit of PV is raised into what batteries leave; charging makes no room for PV, nor PV for
    charging, since both may end at any time. A battery that charges from PV only gets what that is measured to give
    now. Where more is under way than may be, nobody goes further and those in this turn come down, to rest at most. A
    limit of anything but PV gives nobody power, and passes.
    """
    fleet = given.fleet
    if not fleet.connections:
        return bounds
    reach = unheld(fleet, given.snapshot) if given.reach is None else given.reach
    is_setpoint = given.quantity is Quantity.P_SET
    to_w = None
    if given.wanted_w is not None:
        to_w = np.where(bounds.empty, np.nan, np.clip(given.wanted_w, bounds.low_w, bounds.high_w))
    high_w = shared_room(fleet.connection, fleet.giving_max_w, reach.high_w, to_w)
    if not is_setpoint:
        return bounds.narrowed(np.full_like(high_w, -np.inf), np.where(fleet.is_pv, high_w, np.inf))
    from_w = None if to_w is None else -to_w
    in_w = shared_room(fleet.connection, fleet.taking_max_w, -reach.low_w, from_w)
    sunny = np.where(fleet.solar_only, fleet.connection, -1)
    pv_w = np.where(fleet.is_pv & given.snapshot.good("p_w"), np.maximum(given.snapshot.p_w, 0.0), 0.0)
    from_pv_w = shared_room(sunny, behind(fleet, pv_w), -reach.low_w, from_w)
    return bounds.narrowed(-np.minimum(in_w, from_pv_w), high_w)


def soc_guard(bounds: PowerBounds, given: GuardInput) -> PowerBounds:
    """Forbid discharge at or below the reserve and charge at or above the ceiling, and taper towards both.

    What is kept for an outage is a reserve as well. A setpoint may outlive its controller by the reversion time, so its
    energy over that time must fit between the state of charge and the bound. NaN (unknown) forbids both directions, and
    holding zero too.
    """
    fleet, soc = given.fleet, given.snapshot.soc_frac
    hours = given.reversion_s / 3600.0
    energy_wh = np.fmin(fleet.energy_wh, given.snapshot.energy_wh)
    stored_wh = (soc - fleet.reserve_frac - SOC_MARGIN_FRAC) * energy_wh
    room_wh = (fleet.soc_max_frac - soc - SOC_MARGIN_FRAC) * energy_wh
    out_w = np.maximum(stored_wh, 0.0) * fleet.efficiency_frac / hours
    in_w = np.maximum(room_wh, 0.0) / fleet.efficiency_frac / hours
    known = np.isfinite(soc)
    high_w = np.where(known, out_w, -np.inf)
    low_w = np.where(known, -in_w, np.inf)
    return bounds.narrowed(np.where(fleet.is_battery, low_w, -np.inf), np.where(fleet.is_battery, high_w, np.inf))


def device_ramp_guard(bounds: PowerBounds, given: GuardInput) -> PowerBounds:
    """Keep each device within the step that it may take now."""
    moves = given.moves
    return bounds if moves is None else _within(bounds, moves, moves.step_w, np.isfinite(moves.low_w))


def _quota_guard(by: str, bounds: PowerBounds, given: GuardInput) -> PowerBounds:
    """Where devices together would move more than is left, each makes the same part of its way."""
    moves, wanted_w = given.moves, given.wanted_w
    if moves is None or wanted_w is None:
        return bounds
    for quota in moves.quotas:
        if quota.by == by:
            to_w = np.clip(wanted_w, bounds.low_w, bounds.high_w)
            change_w = np.where(quota.rows & ~bounds.empty, moves.change_w(to_w), 0.0)
            total_w = float(change_w.sum())
            if total_w > quota.left_w:
                bounds = _within(bounds, moves, change_w * max(quota.left_w, 0.0) / total_w, change_w > 0.0)
    return bounds


def _within(bounds: PowerBounds, moves: Moves, reach_w: FloatArray, rows: BoolArray) -> PowerBounds:
    """Keep some rows within a way from where they are."""
    low_w = np.where(rows, moves.low_w - reach_w, -np.inf)
    return bounds.nearest(low_w, np.where(rows, moves.high_w + reach_w, np.inf))


DEVICE_RAMP, AUTHOR_RAMP, FLEET_RAMP = "device ramp", "author ramp", "fleet ramp"
RAMPS = frozenset({DEVICE_RAMP, AUTHOR_RAMP, FLEET_RAMP})
"""What these hold back goes on with the next turn."""

GUARDS: tuple[tuple[str, Guard], ...] = (
    ("quality", quality_guard),
    ("local control", local_guard),
    ("identity", partial(_permit_guard, lambda permits: permits.matched)),
    ("certificate", partial(_permit_guard, lambda permits: permits.reverts)),
    ("mode", partial(_permit_guard, lambda permits: permits.open)),
    ("nameplate", nameplate_guard),
    ("device maximum", device_maximum_guard),
    ("connection", connection_guard),
    ("state of charge", soc_guard),
    ("tag", partial(_laid_down, lambda permits: permits.tags)),
    ("stop", partial(_laid_down, lambda permits: permits.stops)),
    (DEVICE_RAMP, device_ramp_guard),
    (AUTHOR_RAMP, partial(_quota_guard, AUTHOR_RAMP)),
    (FLEET_RAMP, partial(_quota_guard, FLEET_RAMP)),
)
"""In order; the first that moves a value gives the clamp its name, the one that leaves nothing the refusal.

What is not finite never gets here: a claim with it is refused whole. The budget of writes is the last word after these
(`derms/field/thrift.py`).
"""


def allowed(given: GuardInput) -> PowerBounds:
    """What every guard leaves of each device's power now."""
    bounds = unbounded(len(given.fleet))
    for _, narrow in GUARDS:
        bounds = narrow(bounds, given)
    return bounds


@dataclass(frozen=True, slots=True)
class Guarded:
    """What is left of what was wanted."""

    value_w: FloatArray
    """Shape (n,); NaN where nothing is allowed, or nothing was wanted."""
    by: tuple[str, ...]
    """Name of the guard that changed or refused the value, per device; empty where none did."""


def guard(wanted_w: FloatArray, given: GuardInput) -> Guarded:
    """Pass wanted values [W], shape (n,), NaN = not commanded, through every guard.

    The result lies in the bounds of every guard; where these leave nothing it is NaN with the guard's name.
    """
    given = replace(given, wanted_w=wanted_w)
    bounds = unbounded(len(given.fleet))
    value_w = wanted_w.copy()
    by = np.full(len(given.fleet), "", dtype=object)
    wanted = np.isfinite(wanted_w)
    for name, narrow in GUARDS:
        before = bounds
        bounds = narrow(before, given)
        if bounds is before:
            continue
        clipped_w = np.where(bounds.empty, np.nan, np.clip(wanted_w, bounds.low_w, bounds.high_w))
        moved = (by == "") & ~(clipped_w == wanted_w)
        by[wanted & (moved | (bounds.empty & ~before.empty))] = name
        value_w = np.where(wanted, clipped_w, np.nan)
    return Guarded(value_w, tuple(by))
