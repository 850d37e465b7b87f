"""How far values may be believed: judged when they come, by what can be, and when they are looked at, by their age.

Columns have a row per reading, shape (k,) unless said otherwise; powers in W, + = injection. NaN is never implausible:
what is not there has a quality of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from derms.domain.arrays import AnyArray, BoolArray, ByteArray, FloatArray
from derms.domain.quality import Quality
from derms.domain.telemetry import OPERATING_STATES

PLAUSIBLE_FACTOR = 1.2
"""A DER that reports more than this many times its nameplate is not believed."""
BACKWARD_FRAC = 0.05
"""Of its nameplate: a PV inverter that draws more than this has its sign turned."""
_WEIGHT = np.uint64(0x9E3779B97F4A7C15)
COMPARED = ("p_w", "q_var", "v_v", "soc_frac")
"""Columns of which the reading before is looked at."""
SOC_MARGIN_FRAC = 0.02
"""What a state of charge may move beyond the energy that can have flowed: resolution and recalibration."""
SCALE_JUMP_DECADES = 0.9
"""A value that moves by about a power of ten together with a scale factor has met the wrong one."""
IDLE_FRAC = 0.01
"""Of its nameplate: a PV inverter that gives less is doing nothing."""
ASLEEP_STATES = tuple(float(OPERATING_STATES.index(state)) for state in ("off", "sleeping", "standby"))


@dataclass(frozen=True, slots=True)
class Plates:
    """What bounds the values of some devices, shape (k,); NaN or 0 where there is no bound."""

    is_pv: BoolArray
    p_rated_w: FloatArray
    energy_wh: FloatArray


def judge(
    now: Mapping[str, FloatArray],
    before: Mapping[str, FloatArray],
    plates: Plates,
    *,
    dt_s: FloatArray,
    still_s: FloatArray,
    rescaled: BoolArray,
    frozen_after_s: float,
) -> ByteArray:
    """Quality of fresh readings, shape (k,).

    Parameters
    ----------
    now, before
        Columns of each reading, and those COMPARED of the one before it (NaN for none).
    dt_s
        Time between the two [s].
    still_s
        How long the measurements have not changed [s].
    rescaled
        Whether a scale factor is another than before.
    """
    doubtful = implausible(now, plates) | soc_jumped(now, before, plates, dt_s)
    doubtful |= still_s > frozen_after_s
    if rescaled.any():
        doubtful |= rescaled & scale_jumped(now, before)
    quality = np.full(len(dt_s), Quality.GOOD, dtype=np.uint8)
    quality[doubtful] = Quality.SUSPECT
    quality[np.isnan(now["p_w"]) & np.isnan(now["v_v"])] = Quality.NOT_IMPLEMENTED
    return quality


def implausible(now: Mapping[str, FloatArray], plates: Plates) -> BoolArray:
    """More power than there is, PV that draws power, or a state of charge outside 0..1."""
    p_w, soc_frac, rated_w = now["p_w"], now["soc_frac"], plates.p_rated_w
    beyond = (rated_w > 0.0) & (np.abs(p_w) > PLAUSIBLE_FACTOR * rated_w)
    backward = plates.is_pv & (p_w < -BACKWARD_FRAC * rated_w)
    impossible: BoolArray = beyond | backward | (soc_frac < 0.0) | (soc_frac > 1.0)
    return impossible


def soc_jumped(
    now: Mapping[str, FloatArray], before: Mapping[str, FloatArray], plates: Plates, dt_s: FloatArray
) -> BoolArray:
    """A state of charge that moved further than the nameplate can have moved it in the time."""
    energy_wh = np.where(plates.energy_wh > 0.0, plates.energy_wh, np.nan)
    with np.errstate(invalid="ignore"):  # the first reading comes an infinite time after none
        most_frac = PLAUSIBLE_FACTOR * plates.p_rated_w * dt_s / 3600.0 / energy_wh + SOC_MARGIN_FRAC
        jumped: BoolArray = np.abs(now["soc_frac"] - before["soc_frac"]) > most_frac
    return jumped


def numbered(scales: ByteArray) -> AnyArray:
    """A number for the bytes of each row, shape (k,): equal for equal bytes, and hardly ever for others."""
    weights = _WEIGHT ** np.arange(1, scales.shape[1] + 1, dtype=np.uint64)
    number: AnyArray = (scales * weights).sum(axis=1, dtype=np.uint64)
    return number


def scale_jumped(now: Mapping[str, FloatArray], before: Mapping[str, FloatArray]) -> BoolArray:
    """A power or voltage that moved by about a power of ten or more."""
    jumped = np.zeros(len(now["p_w"]), dtype=np.bool_)
    for name in COMPARED[:3]:
        with np.errstate(divide="ignore", invalid="ignore"):
            jumped |= np.abs(np.log10(np.abs(now[name] / before[name]))) > SCALE_JUMP_DECADES
    return jumped


def idle(columns: Mapping[str, FloatArray], plates: Plates) -> BoolArray:
    """PV that when last seen slept or gave nothing, shape (k,)."""
    quiet = (np.abs(columns["p_w"]) <= IDLE_FRAC * plates.p_rated_w) | np.isin(columns["state"], ASLEEP_STATES)
    return plates.is_pv & quiet


def aged(quality: ByteArray, age_s: FloatArray, stale_after_s: FloatArray, asleep: BoolArray) -> ByteArray:
    """Quality now of values that were judged when they came, shape (k,).

    What is too old is stale, and what never came is missing; where a device is `asleep` (idle PV at night), silence
    and values that stand still are expected.
    """
    now = quality.copy()
    now[age_s > stale_after_s] = Quality.STALE
    now[asleep & ((now == Quality.STALE) | (now == Quality.SUSPECT))] = Quality.EXPECTED_SILENT
    now[~np.isfinite(age_s)] = Quality.MISSING
    return now
