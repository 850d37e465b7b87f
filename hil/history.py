"""The utility's records of the days before: system net load as means over 15 minutes, made without a power flow."""

from datetime import UTC, datetime, timedelta

import numpy as np

from derms.domain.arrays import FloatArray
from derms.forecast.pv import clear_sky_pu
from hil.load import local_offset_s, shape_pu

INTERVAL_S = 900.0
LOSS_FACTOR = 1.03
"""Net load over the sum of loads: what lines and transformers take."""
DAY_SIGMA = 0.03
"""Difference of whole days' load."""
CLOUD_MEAN, CLOUD_SIGMA = 0.92, 0.06
"""Share of clear-sky energy that a day brings."""


def net_load(
    start: datetime,
    days: int,
    *,
    load_w: float,
    pv_rated_w: float,
    place_deg: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[list[datetime], FloatArray]:
    """Net load of the `days` before `start`, all batteries at rest, on the quarters of the clock.

    Parameters
    ----------
    load_w
        Sum of the nominal loads [W].
    pv_rated_w
        Sum of the photovoltaic nameplates [W].
    place_deg
        Latitude and longitude [degrees].

    Returns
    -------
    tuple
        Ends of the intervals (UTC) and means over them [W, + = import], one per interval.
    """
    intervals = round(days * 86400.0 / INTERVAL_S)
    end = datetime.fromtimestamp(start.timestamp() // INTERVAL_S * INTERVAL_S, UTC)
    ends_s = end.timestamp() + INTERVAL_S * np.arange(1 - intervals, 1, dtype=np.float64)
    middles_s = ends_s - INTERVAL_S / 2
    offset_s = local_offset_s(end)
    day = ((middles_s + offset_s) // 86400.0).astype(np.intp)
    day -= day[0]
    size = 1.0 + DAY_SIGMA * rng.standard_normal(day[-1] + 1)
    sky = np.clip(rng.normal(CLOUD_MEAN, CLOUD_SIGMA, day[-1] + 1), 0.3, 1.0)
    consumed_w = load_w * LOSS_FACTOR * shape_pu(middles_s, offset_s) * size[day]
    generated_w = pv_rated_w * clear_sky_pu(middles_s, *place_deg) * sky[day]
    ends = [end + timedelta(seconds=float(second - ends_s[-1])) for second in ends_s]
    return ends, consumed_w - generated_w
