"""What forecasts of net load start from: where the feeder lies, what was measured just now, and a standard day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from derms.domain.arrays import FloatArray
from derms.forecast.pv import ClearSky

HOUR_S = 1800.0
"""How far back measurements tell what this hour is like [s]."""

WEEKDAY_SHAPE = (
    *(0.807, 0.772, 0.748, 0.728, 0.737, 0.764, 0.809, 0.871, 0.951, 0.993, 1.0, 0.995),
    *(0.988, 0.98, 0.98, 0.975, 0.962, 0.95, 0.937, 0.959, 0.964, 0.932, 0.888, 0.84),
)
"""Mean load of each local hour, per unit of its maximum: LADWP, March to May 2023, mean weekday (EIA-930)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the feeder lies."""

    sky: ClearSky
    timezone: ZoneInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Measurements of the last half hour, one entry each, shape (k,); NaN where unknown."""

    at: Sequence[datetime]
    gross_w: FloatArray
    """Net load plus all DER injection [W]."""
    pv_frac: FloatArray
    """PV that could be injected, per unit of nameplate."""
