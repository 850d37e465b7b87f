"""Guards: the one exit for commands. Each narrows the power that a device may be told; none ever widens it.

Bounds are columns [W, + = injection], a row per device. A guard that does not know forbids: NaN never means free.
The table GUARDS is their order and their names; a new guard is one function and one line there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.der import Fleet
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

    @property
    def empty(self) -> BoolArray:
        nothing: BoolArray = ~(self.low_w <= self.high_w)
        return nothing


@dataclass(frozen=True, slots=True)
class GuardInput:
    """What the guards look at."""

    fleet: Fleet
    snapshot: TelemetrySnapshot
    reversion_s: float
    """How long a setpoint may live in a device that nobody refreshes [s]."""


Guard = Callable[[PowerBounds, GuardInput], PowerBounds]


def quality_guard(bounds: PowerBounds, given: GuardInput) -> PowerBounds:
    """Forbid everything to a device whose values are not good: nobody would see what a command does."""
    good = (given.snapshot.quality == Quality.GOOD) & np.isfinite(given.snapshot.p_w)
    return bounds.narrowed(np.where(good, -np.inf, np.inf), np.where(good, np.inf, -np.inf))


def nameplate_guard(bounds: PowerBounds, given: GuardInput) -> PowerBounds:
    """Keep batteries within their rating both ways, PV limits between zero and rating; meters take nothing.

    The rating is the fleet file's or the device's own, whichever is smaller.
    """
    fleet = given.fleet
    rated_w = np.fmin(fleet.p_rated_w, given.snapshot.p_rated_w)
    high_w = np.where(fleet.is_battery | fleet.is_pv, rated_w, -np.inf)
    low_w = np.where(fleet.is_battery, -rated_w, np.where(fleet.is_pv, 0.0, np.inf))
    return bounds.narrowed(low_w, high_w)


def soc_guard(bounds: PowerBounds, given: GuardInput) -> PowerBounds:
    """Forbid discharge at or below the reserve and charge at or above the ceiling, and taper towards both.

    A setpoint may outlive its controller by the reversion time, so its energy over that time must fit between the
    state of charge and the bound. NaN (unknown) forbids both directions, and holding zero too.
    """
    fleet, soc = given.fleet, given.snapshot.soc_frac
    hours = given.reversion_s / 3600.0
    energy_wh = np.fmin(fleet.energy_wh, given.snapshot.energy_wh)
    stored_wh = (soc - fleet.soc_min_frac - SOC_MARGIN_FRAC) * energy_wh
    room_wh = (fleet.soc_max_frac - soc - SOC_MARGIN_FRAC) * energy_wh
    out_w = np.maximum(stored_wh, 0.0) * fleet.efficiency_frac / hours
    in_w = np.maximum(room_wh, 0.0) / fleet.efficiency_frac / hours
    known = np.isfinite(soc)
    high_w = np.where(known, out_w, -np.inf)
    low_w = np.where(known, -in_w, np.inf)
    return bounds.narrowed(np.where(fleet.is_battery, low_w, -np.inf), np.where(fleet.is_battery, high_w, np.inf))


GUARDS: tuple[tuple[str, Guard], ...] = (
    ("quality", quality_guard),
    ("nameplate", nameplate_guard),
    ("state of charge", soc_guard),
)
"""In order; the first that moves a value gives the clamp its name, the one that leaves nothing the refusal."""


def allowed(given: GuardInput) -> PowerBounds:
    """What every guard leaves of each device's power now."""
    bounds = PowerBounds(np.full(len(given.fleet), -np.inf), np.full(len(given.fleet), np.inf))
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
    bounds = PowerBounds(np.full(len(given.fleet), -np.inf), np.full(len(given.fleet), np.inf))
    value_w = wanted_w.copy()
    by = np.full(len(given.fleet), "", dtype=object)
    wanted = np.isfinite(wanted_w)
    for name, narrow in GUARDS:
        nothing_before = bounds.empty
        bounds = narrow(bounds, given)
        clipped_w = np.where(bounds.empty, np.nan, np.clip(wanted_w, bounds.low_w, bounds.high_w))
        moved = (by == "") & ~(clipped_w == wanted_w)
        by[wanted & (moved | (bounds.empty & ~nothing_before))] = name
        value_w = np.where(wanted, clipped_w, np.nan)
    return Guarded(value_w, tuple(by))
