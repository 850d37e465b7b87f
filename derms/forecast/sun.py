"""Hourly PV of the next two days from rating, clear sky and the hours already seen: the cloud index as a Gaussian.

The cloud index k is PV against clear sky. The hours of a day vary together, so that those seen tell of the later ones.
Mean m and covariance C of a day's 24 hours come from the days before it, recent ones counting more, and from a prior
that stands for a few days, so that there is a forecast on the first day:

    today         k(h) = m(h) + d(h),     d(h) = C(h, seen) C(seen, seen)^-1 (k(seen) - m(seen))
                  var(h) = C(h, h) - C(h, seen) C(seen, seen)^-1 C(seen, h)
    j days later  k(h) = m(h) + r^j D,    D = mean of d over the daytime
                  var(h) = C(h, h) - r^2j (variance of D over what may be seen)

Today is the day of the last hour seen. While nothing of it is, d is r times how far the day before lay from m. The
quantiles are those of this Gaussian, within what a sky can bring.

Source: conditional Gaussian, Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), eq. A.6. Nothing
is fitted beforehand: the constants are what one would say of any sky.
"""

from dataclasses import dataclass

import numpy as np

from derms.domain.arrays import FloatArray
from derms.forecast.history import DAY, IntArray

CLOUD_TYPICAL = 0.88
"""Cloud index before anything has been seen: a fair day."""
SKY_MIN_PU = 0.08
"""Under this clear-sky power the index is noise."""
MEMORY_DAYS = 30
"""Weather of a month ago belongs to another season."""
HALF_LIFE_DAYS = 15.0
"""Half of the memory: the oldest day counts a quarter of the latest."""
PRIOR_DAYS = 5.0
"""Days that the prior stands for: a week seen outweighs it, two cloudy days do not."""
PRIOR_SD = 0.2
"""The index of a fair climate goes from overcast, some 0.3, to clear: three deviations about the typical."""
PRIOR_MEMORY_H = 3.0
"""Hours after which the prior's correlation has faded to 1/e: a cloud field crosses a region in hours."""
NEXT_DAY = 0.4
"""r: of a day's deviation this is expected the day after; weather lasts days, and fair weather returns."""
INDEX_MIN, INDEX_MAX = 0.03, 1.1
"""The darkest overcast still gives diffuse light; the edges of clouds and clear cold air hardly more for an hour."""
SEEN_MAX = 1.3
"""More than this in an hour is an error of the record, or of the formula at low sun."""
NOISE = 1e-3
"""Variance of an hour's index that says nothing of other hours: some 3 %, as the formula and meters err."""
DAYTIME = slice(8, 16)
"""Standard hours whose deviation is the day's: those that are lit all year."""
Z_80 = 1.2816
"""Ends of the central 80 % of a normal distribution, in standard deviations."""


@dataclass(frozen=True)
class CloudMemory:
    """The cloud index of a record by day and hour, and for every day what the days before it say of its hours."""

    index: FloatArray
    """Cloud index, shape (days, 24); NaN in the dark and where unknown."""
    mean: FloatArray
    """Mean of the index as earlier days had it, shape (days, 24)."""
    covariance: FloatArray
    """Covariance of the hours of a day as earlier days had it, shape (days, 24, 24)."""


@dataclass(frozen=True)
class _Today:
    """What the seen hours of a day say of all of its hours and of its level, by origin."""

    deviation: FloatArray
    """Expected index less its mean, shape (n, 24)."""
    explained: FloatArray
    """Variance of the index that is known with the hours seen, shape (n, 24)."""
    level: FloatArray
    """Expected deviation of the daytime, shape (n,)."""
    level_explained: FloatArray
    """Variance of the daytime's deviation that is known with the hours seen, shape (n,)."""


def cloud_memory(pv_pu: FloatArray, clear_pu: FloatArray) -> CloudMemory:
    """Memory of a record of hourly means, whole standard days, at least one, per unit of nameplate.

    Parameters
    ----------
    pv_pu : FloatArray
        PV that could be injected [per unit], shape (24 days,); NaN where unknown or not yet seen.
    clear_pu : FloatArray
        Clear-sky power of the same hours, shape (24 days,).
    """
    lit_pu = np.where(clear_pu > SKY_MIN_PU, clear_pu, np.nan)
    index = np.clip(pv_pu / lit_pu, INDEX_MIN, SEEN_MAX).reshape(-1, DAY)
    means, covariances = zip(*(_climate(index, day) for day in range(len(index))), strict=True)
    return CloudMemory(index, np.array(means), np.array(covariances))


def pv_ahead(memory: CloudMemory, clear_pu: FloatArray, origins: IntArray, leads: IntArray) -> FloatArray:
    """PV by origin, lead and quantile (0.1, 0.5, 0.9) [per unit of nameplate], shape (n, leads, 3).

    Parameters
    ----------
    memory : CloudMemory
        Of the record; what it holds of hours at and after an origin is not looked at for that origin.
    clear_pu : FloatArray
        Clear-sky power of the record's hours and of all hours ahead, shape (m,).
    origins, leads : IntArray
        Place of the first hour that is not known, from 0 to the record's end, shape (n,), and hours ahead of it, from
        0, shape (leads,).

    Raises
    ------
    ValueError
        When an origin lies outside the record.
    """
    index = index_ahead(memory, origins, leads)
    ahead: FloatArray = np.clip(clear_pu[origins[:, None] + leads][..., None] * index, 0.0, 1.0)
    return ahead


def index_ahead(memory: CloudMemory, origins: IntArray, leads: IntArray) -> FloatArray:
    """Cloud index by origin, lead and quantile (0.1, 0.5, 0.9), shape (n, leads, 3); as `pv_ahead`, in the dark too."""
    hours = memory.index.size
    if ((origins < 0) | (origins > hours)).any():
        raise ValueError(f"origins from {origins.min()} to {origins.max()}: the record has places 0 to {hours}")
    day = np.maximum(origins - 1, 0) // DAY  # of the last hour seen
    today = _today(memory, day, origins)
    targets = origins[:, None] + leads
    later, hour = targets // DAY - day[:, None], targets % DAY
    row, fading = np.arange(day.size)[:, None], NEXT_DAY**later
    deviation = np.where(later == 0, today.deviation[row, hour], fading * today.level[:, None])
    explained = np.where(later == 0, today.explained[row, hour], fading**2 * today.level_explained[:, None])
    variance = memory.covariance[day[:, None], hour, hour] - explained
    # An hour that has hardly varied can vary less than the level carried on would have it.
    half = Z_80 * np.sqrt(np.maximum(variance, 0.0))
    centre = memory.mean[day[:, None], hour] + deviation
    index: FloatArray = np.clip(np.stack([centre - half, centre, centre + half], axis=-1), INDEX_MIN, INDEX_MAX)
    return index


def _today(memory: CloudMemory, day: IntArray, origins: IntArray) -> _Today:
    """Condition the hours of days, shape (n,), on those that lie before the origins, shape (n,), and are known."""
    away = memory.index[day] - memory.mean[day]
    seen = (day[:, None] * DAY + np.arange(DAY) < origins[:, None]) & np.isfinite(away)
    # Hours not seen stay in the system as rows of the unit matrix without a weight, so that all origins have one shape.
    cross = np.where(seen[:, None, :], memory.covariance[day], 0.0)
    inner = np.where(seen[:, :, None], cross, 0.0) + np.eye(DAY) * np.where(seen, NOISE, 1.0)[:, :, None]
    gain = np.linalg.solve(inner, cross.transpose(0, 2, 1)).transpose(0, 2, 1)
    deviation = (gain * np.where(seen, away, 0.0)[:, None, :]).sum(axis=2)
    deviation = np.where(seen.any(axis=1, keepdims=True), deviation, _from_the_day_before(memory, day)[:, None])
    return _Today(
        deviation,
        explained=(gain * cross).sum(axis=2),
        level=deviation[:, DAYTIME].mean(axis=1),
        level_explained=(gain[:, DAYTIME].mean(axis=1) * cross[:, DAYTIME].mean(axis=1)).sum(axis=1),
    )


def _from_the_day_before(memory: CloudMemory, day: IntArray) -> FloatArray:
    """Deviation of a day of which nothing was seen, shape (n,); 0 after an unknown day and on the record's first."""
    away = memory.index[np.maximum(day - 1, 0)] - memory.mean[day]
    known = np.isfinite(away) & (day > 0)[:, None]
    found: FloatArray = NEXT_DAY * np.where(known, away, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return found


def _climate(index: FloatArray, day: int) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance of the index by hour of day, from the days before `day`, shapes (24,) and (24, 24)."""
    first = max(day - MEMORY_DAYS, 0)
    past = index[first:day]
    seen = np.isfinite(past)
    weight = 0.5 ** ((day - np.arange(first, day)) / HALF_LIFE_DAYS)
    total = PRIOR_DAYS + weight @ seen
    mean = (PRIOR_DAYS * CLOUD_TYPICAL + weight @ np.where(seen, past, 0.0)) / total
    deviation = np.where(seen, past - mean, 0.0)
    together = (deviation * weight[:, None]).T @ deviation
    gap_h = np.abs(np.arange(DAY)[:, None] - np.arange(DAY))
    prior = PRIOR_SD**2 * np.exp(-gap_h / PRIOR_MEMORY_H)
    # Each hour by the days on which it was seen: unknown days are no calm days. The root keeps the matrix positive.
    covariance: FloatArray = (together + PRIOR_DAYS * prior) / np.sqrt(total[:, None] * total)
    return mean, covariance
