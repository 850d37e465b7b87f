"""The optimizer's plan for the fleet: powers over steps, what it expects, and how it came about."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np

from derms.domain.arrays import FloatArray


class PlanSource(StrEnum):
    """Which rung of the ladder a plan stands on."""

    OPTIMIZER = "optimizer"
    LAST_GOOD = "last good plan"
    RULES = "rules"
    DEFAULTS = "device defaults"


class Why(StrEnum):
    """What made a decision, or a device's part in it, what it is."""

    ORDER = "order of aims"
    PEAK = "peak"
    RAMP = "ramp"
    ENERGY_PRICE = "energy price"
    FEEDER_LIMIT = "feeder limit"
    NETWORK_ROW = "network row"
    """A voltage or a current within the feeder."""
    STATE_OF_CHARGE = "state of charge"
    POWER = "rated power"
    SITE = "site"
    """Its connection, a shared inverter, its own PV, or energy kept for an outage."""
    DUE = "energy due"
    """A car that leaves, a load that waits, an aggregator's envelope."""
    ZONE = "share of its zone"
    RESERVE = "held reserve"
    DESK = "dispatcher's desk"
    FLEET_RAMP = "fleet ramp"
    CURTAILMENT = "PV held back"
    EASED = "eased by look-ahead"
    GAVE_WAY = "limit gave way"
    SHORTFALL = "shortfall"
    NOT_AGREED = "feeders not agreed"
    GUARD = "guard"
    NOT_FOLLOWING = "does not follow"
    NOT_DISPATCHED = "not dispatched"
    FALLBACK = "no plan of the optimizer"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason, with the figures that it stands on."""

    why: Why
    text: str
    """For people; times in the zone of the site."""


@dataclass(frozen=True)
class Plan:
    """Fleet powers over steps from `start` (mean over each step), + = injection."""

    id: int
    made_at: datetime
    start: datetime
    hours: FloatArray
    """Length of each step [h], shape (steps,)."""
    battery_w: FloatArray
    """Total of all batteries [W], shape (steps,)."""
    curtail_w: FloatArray
    """PV power to be held back [W], shape (steps,), >= 0."""
    energy_wh: FloatArray
    """Energy in all batteries at the end of each step [Wh], shape (steps,)."""
    net_load_w: FloatArray
    """System net load that the plan expects [W], shape (steps,)."""
    source: PlanSource
    reason: str
    """Why this rung, and which soft limits had to give, with their amounts."""
    solver: str
    iterations: int
    objective: float

    @property
    def edges_s(self) -> FloatArray:
        """Where steps begin and the last one ends [s after `start`], shape (steps + 1,)."""
        return np.concatenate([[0.0], 3600.0 * np.cumsum(self.hours)])


def means_between(edges_s: FloatArray, values: FloatArray, held_s: FloatArray) -> FloatArray:
    """Means between edges of values that hold between other ones, `held_s`; zero beyond these."""
    total = np.concatenate([[0.0], np.cumsum(values * np.diff(held_s))])
    means: FloatArray = np.diff(np.interp(edges_s, held_s, total)) / np.diff(edges_s)
    return means


def even_steps(plan: Plan) -> tuple[float, FloatArray, FloatArray]:
    """Length of the longest step [s], and net load and battery power as means over steps of it [W], shape (steps,).

    For readers that know steps of one length only; a rest at the end that fills no whole step is left out.
    """
    step_s = 3600.0 * float(plan.hours.max())
    edges_s = np.arange(int(plan.edges_s[-1] / step_s + 1e-6) + 1, dtype=np.float64) * step_s
    net_w, battery_w = (means_between(edges_s, each, plan.edges_s) for each in (plan.net_load_w, plan.battery_w))
    return step_s, net_w, battery_w
