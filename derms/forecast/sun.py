"""Hourly PV of the next two days from capacity, clear sky and the hours already seen; nothing is fitted beforehand.

    pv(h + lead) = clear(h + lead) * k
    k = usual(hour of day) + 0.9 exp(-lead / 5) * now + 0.3 * today

The cloud index k is PV against clear sky. `usual` is its mean at the same hour of the day over the last days, fading
over ten; `now` is how far the last hours lie from their usual index less `today`, fading over two hours; `today` how
far the last 24 daylight-weighted hours do. By night `now` fades, `today` does not: a grey day is often followed by
another. The quantiles are those of the index at the same hour of the day on earlier days around its mean, narrower at
short leads. The figures are of the persistence of cloud over hours and days in general, not of one place's record.
"""

from dataclasses import dataclass

import numpy as np

from derms.domain.arrays import FloatArray
from derms.forecast.history import DAY, IntArray

CLOUD_TYPICAL = 0.88
"""Cloud index before anything has been seen: a fair day."""
CLOUD_MAX = 1.2
"""Edges of clouds and clear cold air bring more than the clear sky of the formula."""
SKY_MIN_PU = 0.05
"""Under this clear-sky power the index is noise."""
USUAL_MEMORY_DAYS = 10.0
PRIOR_DAYS = 2.0
"""What was assumed before counts as much as this many days seen."""
NOW_MEMORY_H = 2.0
NOW_SHARE, NOW_FADES_H = 0.9, 5.0
TODAY_SHARE = 0.3
SPREAD_PRIOR = 0.15
"""Half-width of the band of the index before days have been seen."""
Z_80 = 1.2816
"""Ends of the central 80 % of a normal distribution, in standard deviations."""


@dataclass(frozen=True)
class CloudMemory:
    """What the hours seen say of clouds, at every hour of a record at once, from what lies before that hour only."""

    usual: FloatArray
    """Cloud index of every hour as earlier days had it, shape (hours,)."""
    now: FloatArray
    """How far the last hours lay from the usual, shape (hours + 1,): at k, before hour k."""
    today: FloatArray
    """The same of the last day, weighted by clear sky, shape (hours + 1,)."""
    sd: FloatArray
    """Standard deviation of the index about its usual, by hour as earlier days had it, shape (hours,)."""


def cloud_memory(pv_pu: FloatArray, clear_pu: FloatArray) -> CloudMemory:
    """Memory of a record of hourly means, whole days, per unit of nameplate.

    Parameters
    ----------
    pv_pu : FloatArray
        PV that could be injected [per unit], shape (24 days,); NaN where unknown or not yet seen.
    clear_pu : FloatArray
        Clear-sky power of the same hours, shape (24 days,).
    """
    lit = (clear_pu > SKY_MIN_PU) & np.isfinite(pv_pu)
    index = np.where(lit, np.clip(pv_pu / np.maximum(clear_pu, SKY_MIN_PU), 0.0, CLOUD_MAX), np.nan)
    usual, sd = _of_earlier_days(index.reshape(-1, DAY))
    away = np.where(lit, index - usual, 0.0)
    weight = np.where(lit, clear_pu, 0.0)
    now = _faded(away * weight, np.exp(-1.0 / NOW_MEMORY_H)) / _floor(_faded(weight, np.exp(-1.0 / NOW_MEMORY_H)))
    ago = np.exp(-1.0 / DAY)
    today = _faded(away * weight, ago) / _floor(_faded(weight, ago))
    return CloudMemory(usual, now - today, today, sd)


def pv_ahead(memory: CloudMemory, clear_pu: FloatArray, origins: IntArray, leads: IntArray) -> FloatArray:
    """PV by origin, lead and quantile (0.1, 0.5, 0.9) [per unit of nameplate], shape (n, leads, 3).

    Parameters
    ----------
    memory : CloudMemory
        Of the record; what it holds of hours at and after an origin is not looked at for that origin.
    clear_pu : FloatArray
        Clear-sky power of the record's hours and of all hours ahead, shape (m,).
    origins, leads : IntArray
        Place of the first hour that is not known, shape (n,), and hours ahead below 48, shape (leads,).
    """
    targets = origins[:, None] + leads
    known = targets - DAY * (leads // DAY + 1)  # the last hour of the same time of day that has been seen
    usual, sd = memory.usual[known], memory.sd[known]
    fading = np.exp(-leads / NOW_FADES_H)
    centre = usual + NOW_SHARE * fading * memory.now[origins][:, None] + TODAY_SHARE * memory.today[origins][:, None]
    half = Z_80 * sd * np.sqrt(1.0 - (NOW_SHARE * fading) ** 2)
    index = np.stack([centre - half, centre, centre + half], axis=-1)
    ahead: FloatArray = np.clip(clear_pu[targets][..., None] * np.clip(index, 0.0, CLOUD_MAX), 0.0, 1.0)
    return ahead


def _of_earlier_days(index: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Fading mean and standard deviation by hour of day from the days before each, both flat."""
    total = np.full(DAY, PRIOR_DAYS * CLOUD_TYPICAL)
    square = np.full(DAY, PRIOR_DAYS * SPREAD_PRIOR**2)
    weight = np.full(DAY, PRIOR_DAYS)
    keep = np.exp(-1.0 / USUAL_MEMORY_DAYS)
    usual, sd = np.empty_like(index), np.empty_like(index)
    for day, seen in enumerate(index):
        usual[day], sd[day] = total / weight, np.sqrt(square / weight)
        lit = np.isfinite(seen)
        value = np.where(lit, seen, 0.0)
        total = keep * total + value
        square = keep * square + np.where(lit, (value - usual[day]) ** 2, 0.0)
        weight = keep * weight + lit
    return usual.ravel(), sd.ravel()


def _faded(values: FloatArray, keep: float) -> FloatArray:
    """Fading sum before each hour and after the last, shape (hours + 1,)."""
    found = np.zeros(values.size + 1)
    for hour, value in enumerate(values):
        found[hour + 1] = keep * found[hour] + value
    return found


def _floor(weight: FloatArray) -> FloatArray:
    """Against division by the dark: little light seen says little."""
    return weight + SKY_MIN_PU
