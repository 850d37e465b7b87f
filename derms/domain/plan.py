"""The optimizer's plan for the fleet: powers over steps, what it expects, and how it came about."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from derms.domain.arrays import FloatArray


class PlanSource(StrEnum):
    """Which rung of the ladder a plan stands on."""

    OPTIMIZER = "optimizer"
    LAST_GOOD = "last good plan"
    RULES = "rules"
    DEFAULTS = "device defaults"


@dataclass(frozen=True)
class Plan:
    """Fleet powers over steps of `step_s` from `start` (mean over each step), + = injection."""

    id: int
    made_at: datetime
    start: datetime
    step_s: float
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
