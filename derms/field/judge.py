"""How far values may be believed: judged when they come, by what can be, and when they are looked at, by their age.

Columns have a row per reading, shape (k,) unless said otherwise. The reasons for a doubt stand in `checks`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from derms.domain.arrays import AnyArray, BoolArray, ByteArray, FloatArray
from derms.domain.quality import Quality
from derms.domain.telemetry import OPERATING_STATES
from derms.field.checks import CHECKS, IDLE_FRAC, Evidence, Plates

ASLEEP_STATES = tuple(float(OPERATING_STATES.index(state)) for state in ("off", "sleeping", "standby"))
_GOOD, _SUSPECT = np.uint8(Quality.GOOD), np.uint8(Quality.SUSPECT)
_WEIGHT = np.uint64(0x9E3779B97F4A7C15)
_LAST_FIRST = tuple(enumerate(CHECKS, start=1))[::-1]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What readings are worth, shape (k,) each."""

    evidence: Evidence
    quality: ByteArray
    doubt: ByteArray
    """1 + the place in CHECKS of the first that speaks against a reading; 0 for none."""

    def why(self, reading: int) -> str:
        """The reason for a doubt; only of a reading that has one."""
        return CHECKS[int(self.doubt[reading]) - 1].words(self.evidence, reading)


def weigh(evidence: Evidence) -> Judgement:
    """Judge fresh readings by every check."""
    p_w = evidence.now["p_w"]
    doubt, quality = np.zeros(len(p_w), dtype=np.uint8), np.full(len(p_w), _GOOD)
    for number, check in _LAST_FIRST:
        fails = check.fails(evidence)
        if fails is not None:
            doubt[fails], quality[fails] = number, _SUSPECT
    absent = np.isnan(p_w)
    if np.count_nonzero(absent):
        absent &= np.isnan(evidence.now["v_v"])
        quality[absent], doubt[absent] = Quality.NOT_IMPLEMENTED, 0
    return Judgement(evidence, quality, doubt)


def numbered(scales: ByteArray) -> AnyArray:
    """A number for the bytes of each row, shape (k,): equal for equal bytes, and hardly ever for others."""
    weights = _WEIGHT ** np.arange(1, scales.shape[1] + 1, dtype=np.uint64)
    number: AnyArray = (scales * weights).sum(axis=1, dtype=np.uint64)
    return number


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
