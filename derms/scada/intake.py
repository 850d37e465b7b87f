"""From samples as a source wrote them to values that may be believed: units, quality, time and reason.

A value that cannot be read, cannot be true, or comes from the future never replaces a good one: that one is kept, and
ages until it is stale. So does one that moved too far at once, until it is told a second time. What the source itself
calls bad is bad at once.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from derms.domain.grid import SwitchState
from derms.domain.quality import Quality
from derms.domain.scada import NOTHING, PointKind, PointValue, Sample, ScadaPoint

GOOD_WORDS = ("", "good", "ok", "valid")
DEFAULT_WORDS = {
    **dict.fromkeys(GOOD_WORDS, Quality.GOOD),
    "questionable": Quality.SUSPECT,
    "suspect": Quality.SUSPECT,
    "uncertain": Quality.SUSPECT,
    "old": Quality.STALE,
    "stale": Quality.STALE,
    "bad": Quality.MISSING,
    "invalid": Quality.MISSING,
    "missing": Quality.MISSING,
}
"""What a source's words mean when its own table does not say otherwise; in lower case."""
LEAP_FACTOR = 0.5
"""Of what a value was: less than this is no leap, however large it is."""
_STATES = {state.name.lower(): state for state in SwitchState}
_SINGLE = (SwitchState.OPEN, SwitchState.CLOSED)
_DOUBLE = (SwitchState.INTERMEDIATE, SwitchState.OPEN, SwitchState.CLOSED, SwitchState.UNKNOWN)
_OTHER = {SwitchState.OPEN: SwitchState.CLOSED, SwitchState.CLOSED: SwitchState.OPEN}


@dataclass(frozen=True)
class QualityMap:
    """A source's quality words, and bits of its quality numbers, as ours."""

    words: Mapping[str, Quality] = field(default_factory=lambda: dict(DEFAULT_WORDS))
    """In lower case."""
    bits: Mapping[int, Quality] = field(default_factory=dict)
    """By number of the bit, from 0."""

    def __call__(self, word: str) -> Quality | None:
        """The quality that a word, or the worst set bit of a number, stands for; None when that is not known."""
        known = self.words.get(word.strip().lower())
        if known is not None or not word.strip().isdecimal():
            return known
        number = int(word)
        bits = [self.bits.get(bit) for bit in range(number.bit_length()) if number >> bit & 1]
        found = [quality for quality in bits if quality is not None]
        return max(found, default=Quality.GOOD) if len(found) == len(bits) else None


@dataclass(frozen=True, slots=True)
class Limits:
    """How old and how far ahead of our clock a value may be."""

    stale_after_s: float
    ahead_max_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a sample."""

    value: PointValue
    refused: str = ""
    """Why it cannot be believed; empty when it can."""
    strange_word: str = ""
    """A quality word that the map does not have."""
    leapt: bool = False
    """It is refused because it moved too far at once."""


def judge(
    point: ScadaPoint,
    samples: Sequence[Sample],
    qualities: QualityMap,
    limits: Limits,
    *,
    now: datetime,
    now_s: float,
    before: PointValue = NOTHING,
    leapt: PointValue = NOTHING,
) -> Verdict:
    """What the samples that a fetch has for one point are worth; of several the newest counts.

    `before` is what is known, aged to now, and `leapt` what was refused last, if that had moved too far at once.
    """
    if not samples:
        return Verdict(NOTHING, "it is not in what the source delivers")
    last = max((sample.at for sample in samples if sample.at is not None), default=None)
    newest = [sample for sample in samples if sample.at == last]
    sample = newest[-1]
    if len({(str(other.value), other.quality) for other in newest}) > 1:
        return Verdict(NOTHING, f"the source gives it {len(newest)} times with different values")
    quality = qualities(sample.quality)
    strange = sample.quality if quality is None else ""
    believed = Quality.SUSPECT if quality is None else quality
    number = _number(point, sample.value)
    if math.isnan(number) and believed is not Quality.MISSING:
        return Verdict(replace(NOTHING, quality=Quality.MISSING), f"'{sample.value}' is not a value for it", strange)
    value = PointValue(number, believed, sample.at, now, now_s)
    if believed is not Quality.GOOD:  # what the source itself calls bad is bad at once, whatever else is wrong with it
        return Verdict(value, "", strange)
    if refused := _disbelief(point, number, sample.at, limits, now):
        return Verdict(value, refused, strange)
    refused = _leap(point, value, before, leapt)
    return Verdict(value, refused, strange, leapt=bool(refused))


def _disbelief(point: ScadaPoint, value: float, at: datetime | None, limits: Limits, now: datetime) -> str:
    """Why a value cannot be true; empty when it can."""
    age_s = 0.0 if at is None else (now - at).total_seconds()
    if -age_s > limits.ahead_max_s:
        return f"its time is {_duration(-age_s)} in the future: is a clock or a time zone wrong?"
    if age_s > limits.stale_after_s:
        return f"its time is {_duration(age_s)} old: is a clock or a time zone wrong?"
    if value < point.low or value > point.high:
        return f"{value:g} is outside of {point.low:g} to {point.high:g}: is its unit wrong?"
    if abs(value) < point.floor:
        return f"{value:g} is nearer to 0 than {point.floor:g}: is its unit wrong?"
    return ""


def _leap(point: ScadaPoint, value: PointValue, before: PointValue, leapt: PointValue) -> str:
    """Why a value moved too far to be believed at its first telling; empty when it did not, or is told again."""
    most = max(point.step, LEAP_FACTOR * abs(before.value))
    if before.quality is not Quality.GOOD or not abs(value.value - before.value) > most:
        return ""
    newer = value.source_at is None or leapt.source_at is None or value.source_at > leapt.source_at
    if newer and abs(value.value - leapt.value) <= most:
        return ""
    return f"{value.value:g} after {before.value:g} is a leap of more than {most:g}: believed when it is told twice"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _number(point: ScadaPoint, value: float | str | None) -> float:
    """The SI value that a source's value is; NaN when it is none."""
    if point.kind is PointKind.SWITCH:
        return _switch(point, value)
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return math.nan
    number = number * point.scale + point.offset
    return (-number if point.invert else number) if math.isfinite(number) else math.nan


def _switch(point: ScadaPoint, value: float | str | None) -> float:
    """The state that a word or a number is; NaN when it is none."""
    text = str(value).strip().lower()
    state = _STATES.get({"true": "closed", "false": "open"}.get(text, text))
    if state is None:
        try:
            number = float(text)
        except ValueError:
            return math.nan
        states = _DOUBLE if point.double else _SINGLE
        if number not in range(len(states)):
            return math.nan
        state = states[int(number)]
    return float(_OTHER.get(state, state) if point.invert else state)


def kept(before: PointValue, verdict: Verdict) -> PointValue:
    """What is known after a verdict, of a value aged to now: what was refused replaces nothing that was ever good.

    Nor does an older value replace a newer one that still counts: when that is stale, a clock was set back.
    """
    new = verdict.value
    if verdict.refused:
        once_good = before.quality in (Quality.GOOD, Quality.STALE)
        return before if once_good else replace(new, quality=max(new.quality, Quality.SUSPECT))
    fresh = before.quality is Quality.GOOD
    older = before.source_at is not None and new.source_at is not None and new.source_at < before.source_at
    return before if fresh and older else new


def aged(value: PointValue, limits: Limits, *, now: datetime, now_s: float) -> PointValue:
    """A value as it stands now: STALE when it was received, or is by its own time, too long ago."""
    if value.quality is not Quality.GOOD:
        return value
    source_age_s = 0.0 if value.source_at is None else (now - value.source_at).total_seconds()
    if max(now_s - value.received_s, source_age_s) > limits.stale_after_s:
        return replace(value, quality=Quality.STALE)
    return value
