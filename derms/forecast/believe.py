"""What of a record may be believed: its quarters through the gates, its days against the clock."""

from dataclasses import dataclass

import numpy as np

from derms.domain.arrays import FloatArray
from derms.forecast.climate import Climate
from derms.forecast.gates import (
    CLOCK,
    LOAD,
    PV,
    SHIFT_MAX_H,
    Gated,
    Reason,
    Refusal,
    Samples,
    gated,
    pv_bounds_pu,
)
from derms.forecast.history import DAY
from derms.forecast.record import HOUR_QUARTERS, HOUR_S, Record, hourly, middles_s

LASTING_H = 6
"""What was refused for its course this short before the end is still refused [h]."""


@dataclass(frozen=True, slots=True)
class Belief:
    """A record without what the gates refuse."""

    record: Record
    refusals: tuple[Refusal, ...]
    load_doubt: tuple[Refusal, ...]
    """Why load that is measured now is not to be believed, whatever its size: its meter stands still, or its clock is
    wrong; empty when there is no reason."""
    pv_doubt: tuple[Refusal, ...]


def belief(record: Record, climate: Climate, now_s: float) -> Belief:
    """Let a record of load and PV through the gates.

    Parameters
    ----------
    climate : Climate
        What load is usual.
    now_s : float
        Now [s since 1970-01-01 UTC].
    """
    whole = record.whole_hours()
    if not whole.load_w.size:
        return Belief(whole, (), (), ())
    at_s = whole.middles_s
    low_w, high_w = climate.bounds(at_s)
    usual_w = climate.usual(at_s)
    load = gated(
        Samples(
            name="load on record", at_s=at_s, values=whole.load_w, usual=usual_w, low=low_w, high=high_w, now_s=now_s
        ),
        LOAD,
    )
    clear_pu = np.nan_to_num(whole.clear_pu)
    low_pu, high_pu = pv_bounds_pu(clear_pu)
    pv = gated(
        Samples(
            name="PV on record", at_s=at_s, values=whole.pv_pu, usual=clear_pu, low=low_pu, high=high_pu, now_s=now_s
        ),
        PV,
    )
    hours_s = middles_s(whole.first // HOUR_QUARTERS + np.arange(at_s.size // HOUR_QUARTERS), HOUR_S)
    more_s = HOUR_S * np.arange(1.0, SHIFT_MAX_H + 1.0)
    around_s: FloatArray = np.concatenate([hours_s[0] - more_s[::-1], hours_s, hours_s[-1] + more_s])
    load_clock = _clock(
        "load on record", _between(whole.load_w, low_w, high_w), hours_s, climate.usual(around_s), now_s
    )
    pv_clock = _clock(
        "PV on record", _between(whole.pv_pu, low_pu, high_pu), hours_s, _every_day(hourly(whole.clear_pu)), now_s
    )
    kept = whole.believed(
        np.where(np.repeat(load_clock.codes == 0, HOUR_QUARTERS), load.values, np.nan),
        np.where(np.repeat(pv_clock.codes == 0, HOUR_QUARTERS), pv.values, np.nan),
    )
    return Belief(
        kept,
        (*load.refusals, *load_clock.refusals, *pv.refusals, *pv_clock.refusals),
        _lasting(load, load_clock),
        _lasting(pv, pv_clock),
    )


def _between(values: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Values that are possible at some time of day, if not at theirs; NaN for the others."""
    return np.where((values >= low.min()) & (values <= high.max()), values, np.nan)


def _clock(name: str, values: FloatArray, hours_s: FloatArray, around: FloatArray, now_s: float) -> Gated:
    """Hours of a record of quarters against their usual course."""
    hours = hourly(values)
    usual = around[SHIFT_MAX_H:-SHIFT_MAX_H]
    free = np.full(hours.size, np.inf)
    samples = Samples(
        name=name, at_s=hours_s, values=hours, usual=usual, low=-free, high=free, now_s=now_s, around=around
    )
    return gated(samples, CLOCK)


def _every_day(clear_pu: FloatArray) -> FloatArray:
    """Clear sky of a record's hours and `SHIFT_MAX_H` around; where it is not known, as on the record's mean day."""
    hour = np.arange(-SHIFT_MAX_H, clear_pu.size + SHIFT_MAX_H) % DAY
    known = np.isfinite(clear_pu)
    rows = hour[SHIFT_MAX_H:-SHIFT_MAX_H]
    count = np.bincount(rows[known], minlength=DAY)
    mean_pu = np.bincount(rows[known], weights=clear_pu[known], minlength=DAY) / np.maximum(count, 1)
    around: FloatArray = mean_pu[hour]
    around[SHIFT_MAX_H:-SHIFT_MAX_H][known] = clear_pu[known]
    return around


def _lasting(quarters: Gated, hours: Gated) -> tuple[Refusal, ...]:
    """Refusals of a standing meter or a wrong clock that hold to the end of the record."""
    codes = set(quarters.codes[-LASTING_H * HOUR_QUARTERS :]) | set(hours.codes[-LASTING_H:])
    lasting = {reason for code, reason in enumerate(Reason, start=1) if code in codes} & {Reason.STUCK, Reason.SHIFTED}
    return tuple(refusal for refusal in (*quarters.refusals, *hours.refusals) if refusal.reason in lasting)
