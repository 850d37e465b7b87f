"""Gates that every series passes before a forecast is made from it: what of it is refused, and why.

Each gate is a function from samples to those that it refuses; the tables at the end are their order, and the
first that refuses a sample gives the reason. What the samples are held against comes with them: their usual course
(climatology of load, clear sky of PV) and the bounds about it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from derms.domain.arrays import BoolArray, ByteArray, FloatArray, IntArray


class Reason(StrEnum):
    """Why a sample is refused: a stable word for programs; `WORDS` has the sentence for people."""

    MISSING = "missing"
    NOT_FINITE = "not-finite"
    LATE = "late"
    EARLY = "from-the-future"
    UNITS = "units"
    NEGATIVE = "negative"
    CLEAR_SKY = "above-clear-sky"
    CLIMATOLOGY = "climatology"
    STUCK = "stuck"
    SHIFTED = "shifted"
    UNREADABLE = "unreadable"


WORDS: Mapping[Reason, str] = {
    Reason.MISSING: "not there",
    Reason.NOT_FINITE: "not a finite number",
    Reason.LATE: "too old",
    Reason.EARLY: "of a time that is still to come",
    Reason.UNITS: "a power of ten off: are the units right?",
    Reason.NEGATIVE: "below zero",
    Reason.CLEAR_SKY: "more than a clear sky gives",
    Reason.CLIMATOLOGY: "beyond all that is usual at that time of day",
    Reason.STUCK: "the same for hours",
    Reason.SHIFTED: "not at their time of day: are clock and time zone right?",
    Reason.UNREADABLE: "not to be read",
}

LATE_S = 3600.0
"""Age of a live sample that no longer tells what is now [s]."""
EARLY_S = 60.0
"""Clocks of a well-kept site differ by less [s]."""
POWERS_OF_TEN = (1e1, 1e3, 1e6, 1e-1, 1e-3, 1e-6)
"""kW for W, MW for kW, a factor of current transformers, and the other way round."""
LIKELY_SHARE = 0.3
"""What another unit would make of a value counts from this share of the usual on."""
STUCK_S = 4.0 * 3600.0
STUCK_COURSE_SHARE = 0.1
"""A value may stand still while its usual course does: it must have moved by this share of its greatest value."""
CLIPPED_PU = 0.95
"""PV near its rating stands still because inverters clip."""
NIGHT_PU = -0.02
"""Inverters take this much at night."""
ENHANCED, GLOW_PU = 1.3, 0.05
"""PV up to 1.3 times clear sky happens at the edges of clouds; at low sun the formula errs by this."""
DARK_SHARE, DARK_H, LIT_PU = 0.02, 6, 0.2
"""The darkest overcast gives more than this share of clear sky over so many lit hours."""
SHIFT_MAX_H = 12
SHIFT_WINDOW_H = 72
BATCH = 128
"""Windows that are looked at in one piece, so that years of records fit into memory."""
SHIFT_KNOWN_SHARE = 0.35
SHIFT_RATIO, SHIFT_MARGIN = 2.5, 0.02
"""A lag is believed when it leaves less than 1/2.5 of the variance unexplained, by this share of all at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """A series and what it is held against, all of shape (k,), in order of time."""

    name: str
    """What it is, in words."""
    at_s: FloatArray
    """Middles or moments [s since 1970-01-01 UTC]."""
    values: FloatArray
    usual: FloatArray
    low: FloatArray
    high: FloatArray
    now_s: float
    age_max_s: float = np.inf
    said_s: FloatArray | None = None
    """When it was said; None for what is said of the moment itself."""
    around: FloatArray | None = None
    """Usual course of each hour from `SHIFT_MAX_H` before the first to as much after the last, shape (k + 24,); only
    for hours without a gap between, to look for a shift."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was refused of a series for one reason."""

    series: str
    reason: Reason
    count: int
    text: str
    """For the operator."""


@dataclass(frozen=True, slots=True)
class Gated:
    """A series after its gates."""

    values: FloatArray
    """NaN where refused, shape (k,)."""
    codes: ByteArray
    """0 for what passed, else 1 + the place of the reason in `Reason`, shape (k,)."""
    refusals: tuple[Refusal, ...]
    """One for each reason but for what was simply not there."""

    def reason(self, row: int) -> Reason | None:
        """Why a sample was refused; None for one that passed."""
        return tuple(Reason)[self.codes[row] - 1] if self.codes[row] else None


Gate = Callable[[Samples], BoolArray]


def _missing(samples: Samples) -> BoolArray:
    return np.isnan(samples.values)


def _not_finite(samples: Samples) -> BoolArray:
    return ~np.isfinite(samples.values)


def _late(samples: Samples) -> BoolArray:
    # A time that is not known (NaN) cannot be shown to be recent.
    said_s = samples.at_s if samples.said_s is None else samples.said_s
    return np.asarray(~(samples.now_s - said_s <= samples.age_max_s))


def _early(samples: Samples) -> BoolArray:
    said_s = samples.at_s if samples.said_s is None else samples.said_s
    return np.asarray(said_s > samples.now_s + EARLY_S)


def _outside(samples: Samples) -> BoolArray:
    return ~_within(samples, samples.values)


def _within(samples: Samples, values: FloatArray) -> BoolArray:
    return np.asarray((values >= samples.low) & (values <= samples.high))


def _units(samples: Samples) -> BoolArray:
    """Values outside that a power of ten brings to where most values are."""
    with np.errstate(over="ignore"):
        others = [samples.values * factor for factor in POWERS_OF_TEN]
    likely = [_within(samples, other) & (other >= LIKELY_SHARE * samples.usual) for other in others]
    found: BoolArray = _outside(samples) & np.any(likely, axis=0) & (samples.values != 0.0)
    return found


def _dark(samples: Samples) -> BoolArray:
    """All of a series that is all but dark while the sun shines for hours."""
    return np.full(samples.values.size, _is_dark(samples, slice(None)))


def _dark_days(samples: Samples) -> BoolArray:
    """Days of PV that are all but dark."""
    found = np.zeros(samples.values.size, dtype=np.bool_)
    mornings = np.flatnonzero(np.diff((samples.usual > LIT_PU).astype(np.int8)) > 0) + 1
    for first, after in zip([0, *mornings], [*mornings, found.size], strict=True):
        found[first:after] = _is_dark(samples, slice(first, after))
    return found


def _is_dark(samples: Samples, rows: slice) -> bool:
    values, usual = samples.values[rows], samples.usual[rows]
    lit = (usual > LIT_PU) & np.isfinite(values)
    if not lit.any() or np.ptp(samples.at_s[rows][lit]) < (DARK_H - 1) * 3600.0:
        return False
    return bool(values[lit].sum() < DARK_SHARE * usual[lit].sum())


def _negative(samples: Samples) -> BoolArray:
    return np.asarray(samples.values < samples.low)


def _above(samples: Samples) -> BoolArray:
    return np.asarray(samples.values > samples.high)


def _stuck(samples: Samples) -> BoolArray:
    """Runs of one value over `STUCK_S` in which the usual course moved."""
    found = np.zeros(samples.values.size, dtype=np.bool_)
    if not found.size:
        return found
    starts = np.flatnonzero(np.concatenate([[True], np.diff(samples.values) != 0.0]))
    moved = STUCK_COURSE_SHARE * np.abs(samples.usual).max()
    ends = np.append(starts[1:], found.size)
    long = samples.at_s[ends - 1] - samples.at_s[starts] >= STUCK_S
    for first, after in zip(starts[long], ends[long], strict=True):
        found[first:after] = np.ptp(samples.usual[first:after]) > moved
    return found


def _stuck_unclipped(samples: Samples) -> BoolArray:
    """The same between darkness, which is another gate's, and the rating."""
    return np.asarray(_stuck(samples) & (samples.values > 0.0) & (samples.values < CLIPPED_PU))


def _shifted(samples: Samples) -> BoolArray:
    """Hours of windows that fit their usual course much better at another hour."""
    found = np.zeros(samples.values.size, dtype=np.bool_)
    last = found.size - SHIFT_WINDOW_H
    if samples.around is None or last < 0 or np.isnan(samples.values).all():
        return found
    firsts = np.append(np.arange(0, last, 24), last)
    for some in np.array_split(firsts, firsts.size // BATCH + 1):
        windows = some[:, None] + np.arange(SHIFT_WINDOW_H)
        around = some[:, None] + np.arange(SHIFT_WINDOW_H + 2 * SHIFT_MAX_H)
        late = lags_h(samples.values[windows], samples.around[around]) != 0
        found[windows[late]] = True
    return found


def lags_h(values: FloatArray, around: FloatArray) -> IntArray:
    """By how many hours series run late behind their usual course (-12..12); 0 where that is not clearly so.

    Parameters
    ----------
    values : FloatArray
        Means of hours one after the other, shape (n, k); NaN where unknown.
    around : FloatArray
        The usual course of these hours and of the `SHIFT_MAX_H` before and after, shape (n, k + 24).

    Returns
    -------
    IntArray
        Shape (n,).
    """
    known = np.isfinite(values)[:, None, :]
    count = np.maximum(known.sum(axis=2, keepdims=True), 1)
    shifted = np.lib.stride_tricks.sliding_window_view(around, values.shape[1], axis=1)[:, ::-1]  # 12 h early first

    def about_mean(course: FloatArray) -> FloatArray:
        course = np.where(known, course, 0.0)
        return np.where(known, course - course.sum(axis=2, keepdims=True) / count, 0.0)

    held, usual = about_mean(values[:, None, :]), about_mean(shifted)
    size = np.sqrt((held**2).sum(axis=2) * (usual**2).sum(axis=2))
    alike = np.clip((held * usual).sum(axis=2) / np.maximum(size, 1e-300), 0.0, 1.0)
    left = 1.0 - alike**2  # share of the variance that the course does not explain
    best = left.argmin(axis=1)
    least = left[np.arange(best.size), best]
    clear = (left[:, SHIFT_MAX_H] > SHIFT_RATIO * least + SHIFT_MARGIN) & (known.mean(axis=(1, 2)) >= SHIFT_KNOWN_SHARE)
    return np.where(clear, best - SHIFT_MAX_H, 0)


_FIRST: tuple[tuple[Reason, Gate], ...] = (
    (Reason.MISSING, _missing),
    (Reason.NOT_FINITE, _not_finite),
    (Reason.LATE, _late),
    (Reason.EARLY, _early),
)
LOAD = (*_FIRST, (Reason.UNITS, _units), (Reason.CLIMATOLOGY, _outside), (Reason.STUCK, _stuck))
_SUN = (*_FIRST, (Reason.NEGATIVE, _negative), (Reason.UNITS, _units), (Reason.CLEAR_SKY, _above))
PV = (*_SUN, (Reason.UNITS, _dark_days), (Reason.STUCK, _stuck_unclipped))
SKY = (*_SUN, (Reason.UNITS, _dark))
"""A forecast of the sky may stand still, and may say that the fog lifts late."""
CLOCK = ((Reason.SHIFTED, _shifted),)
"""For the hours of some days."""


def gated(samples: Samples, gates: tuple[tuple[Reason, Gate], ...]) -> Gated:
    """Let a series through its gates, in their order; a later gate does not see what an earlier one has refused."""
    codes = np.zeros(samples.values.size, dtype=np.uint8)
    left = samples
    for reason, gate in gates:
        found = gate(left) & (codes == 0)
        codes[found] = 1 + tuple(Reason).index(reason)
        left = replace(left, values=np.where(codes == 0, samples.values, np.nan))
    return Gated(left.values, codes, _refusals(samples.name, codes))


def _refusals(name: str, codes: ByteArray) -> tuple[Refusal, ...]:
    counts = {reason: int((codes == code).sum()) for code, reason in enumerate(Reason, start=1)}
    return tuple(
        Refusal(name, reason, count, f"{name}: {count} of {codes.size} values are {WORDS[reason]}")
        for reason, count in counts.items()
        if count and reason is not Reason.MISSING
    )


def pv_bounds_pu(clear_pu: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Least and most that PV can give under a clear-sky power [per unit], of the same shape."""
    return np.full_like(clear_pu, NIGHT_PU), np.minimum(ENHANCED * clear_pu + GLOW_PU, ENHANCED)
