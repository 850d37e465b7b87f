"""What is expected of the coming hours, on a fixed grid of steps that starts now."""

from dataclasses import dataclass
from datetime import datetime

from derms.domain.arrays import FloatArray


@dataclass(frozen=True)
class Forecast:
    """Means over steps of `step_s` from `start`; net load + = import."""

    made_at: datetime
    start: datetime
    step_s: float
    net_load_w: FloatArray
    """System net load if no battery of ours moved and no PV were limited [W], shape (steps,)."""
    pv_w: FloatArray
    """Power that the managed PV could inject [W], shape (steps,)."""
    pv_frac: FloatArray
    """The same per unit of its nameplate, shape (steps,)."""
    method: str
    """How it was made, in words that an operator may read."""
