"""Every reason not to believe a reading: the checks, and what they look at.

Columns have a row per reading, shape (k,) unless said otherwise; powers in W, DER + = injection, meters + = import.
NaN is never implausible: what is not there has a quality of its own. The bounds are those of plates and of physics,
with room for every way of counting phases; whether a value is a good one for the grid is not asked here. What moved too
far at once is doubted once: told a second time it is believed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray

PLAUSIBLE_FACTOR = 1.2
"""A device that reports more than this many times its rating is not believed."""
REACTIVE_FACTOR = 2.0
"""The same of reactive power and apparent rating, which people leave out of files where it is the larger one."""
GREATEST_W = 1e11
"""Of any system: what bounds a device that has no rating."""
BACKWARD_FRAC = 0.05
"""Of its nameplate: a PV inverter that draws more than this has its sign turned."""
LOW_PU, HIGH_PU = 0.4, 2.0
"""Voltage: line to neutral on a plate in line to line, and the other way round, are inside."""
GREATEST_V = 1e6
DEAD_PU = 0.1
"""Less is no voltage: what is left of it is induced."""
F_LOW_HZ, F_HIGH_HZ = 40.0, 70.0
"""No grid runs outside."""
APPARENT_FACTOR = 2.0
"""Neither active nor reactive power exceeds apparent power; twice it is what coarse steps cannot make of equal ones."""
PF_MOST = 1.05
LEAP_FRAC = 1.0 / 3.0
"""Of its rating: what a meter shows more of at once, and more than half of what it was, needs to be told twice."""
LEAP_FACTOR = 0.5
LEAP_WITHIN_S = 120.0
"""Between two readings; after a longer time nothing is a leap."""
COMPARED = ("p_w", "q_var", "v_v", "soc_frac")
"""Columns of which the reading before is looked at."""
SOC_MARGIN_FRAC = 0.02
"""What a state of charge may move beyond the energy that can have flowed: resolution and recalibration."""
SCALE_JUMP_DECADES = 0.9
"""A value that moves by about a power of ten together with a scale factor has met the wrong one."""
IDLE_FRAC = 0.01
"""Of its nameplate: a device that shows less is doing nothing."""


@dataclass(frozen=True, slots=True)
class Plates:
    """What bounds the values of some devices, shape (k,); NaN or 0 where there is no bound."""

    is_pv: BoolArray
    p_rated_w: FloatArray
    energy_wh: FloatArray
    s_rated_va: FloatArray
    v_nominal_v: FloatArray
    is_meter: BoolArray
    """Measures the grid, and has no contactor that would explain a voltage of 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Fresh readings, and what they are judged by."""

    now: Mapping[str, FloatArray]
    before: Mapping[str, FloatArray]
    """The columns COMPARED of the reading before each; NaN for none."""
    plates: Plates
    dt_s: FloatArray
    """Time between the two [s]; inf for none."""
    still_s: FloatArray
    """How long the measurements have not changed [s]."""
    rescaled: BoolArray
    """Whether a scale factor is another than before."""
    frozen_after_s: float
    feeder_lives: Callable[[], bool]
    """Whether any other device was seen under voltage lately; asked when a meter reads none."""


class Check(NamedTuple):
    """One reason not to believe a reading."""

    fails: Callable[[Evidence], BoolArray | None]
    """Readings for which it holds, shape (k,); None for none at all."""
    words: Callable[[Evidence, int], str]
    """The value and the bound of one of them."""


def _any(fails: BoolArray) -> BoolArray | None:
    """None where nothing fails, which is nearly always."""
    return fails if np.count_nonzero(fails) else None


def _most(plates: Plates) -> tuple[FloatArray, FloatArray]:
    """Greatest active [W] and reactive power [var] that are believed."""
    most_w = np.where(plates.p_rated_w > 0.0, PLAUSIBLE_FACTOR * plates.p_rated_w, GREATEST_W)
    return most_w, np.fmin(np.fmax(most_w, REACTIVE_FACTOR * plates.s_rated_va), GREATEST_W)


def _too_much(e: Evidence) -> BoolArray | None:
    """More power than there is, in sum or in a phase."""
    p_w, q_var, metered = np.abs(e.now["p_w"]), np.abs(e.now["q_var"]), np.count_nonzero(e.plates.is_meter)
    usual_w = PLAUSIBLE_FACTOR * e.plates.p_rated_w
    if not metered and np.count_nonzero(p_w <= usual_w) == len(p_w) and not np.count_nonzero(q_var > usual_w):
        return None
    most_w, most_var = _most(e.plates)
    beyond: BoolArray = (p_w > most_w) | (q_var > most_var)
    if metered:
        beyond |= (np.abs(e.now["p_phase_w"]) > most_w[:, None]).any(axis=1)
        beyond |= (np.abs(e.now["q_phase_var"]) > most_var[:, None]).any(axis=1)
    return _any(beyond)


def _too_much_words(e: Evidence, at: int) -> str:
    most_w, most_var = _most(e.plates)
    told = [("", name, float(e.now[name][at])) for name in ("p_w", "q_var")]
    for name in ("p_phase_w", "q_phase_var"):
        told += [(f"phase {phase} ", name, float(value)) for phase, value in zip("abc", e.now[name][at], strict=True)]
    found = []
    for phase, name, value in told:
        unit, most = ("kW", most_w[at]) if name.startswith("p") else ("kvar", most_var[at])
        if abs(value) > most:
            found.append(f"{phase}{_kilo(value)} {unit}, where {_kilo(most)} {unit} are the most that can be")
    return "; ".join(found)


def _backward(e: Evidence) -> BoolArray | None:
    """PV that draws power."""
    return _any(e.plates.is_pv & (e.now["p_w"] < -BACKWARD_FRAC * e.plates.p_rated_w))


def _backward_words(e: Evidence, at: int) -> str:
    return f"{_kilo(e.now['p_w'][at])} kW, drawn by PV of {_kilo(e.plates.p_rated_w[at])} kW: is its sign turned"


def _over_full(e: Evidence) -> BoolArray | None:
    """A state of charge outside 0..1."""
    soc_frac = e.now["soc_frac"]
    return _any((soc_frac < 0.0) | (soc_frac > 1.0))


def _over_full_words(e: Evidence, at: int) -> str:
    return f"a state of charge of {100.0 * e.now['soc_frac'][at]:.4g} %, outside of 0 to 100 %"


def _dead(e: Evidence) -> BoolArray:
    """No voltage, and no power that would contradict it: a dead bus, or a device whose own contactor is open."""
    p_w, v_v = e.now["p_w"], e.now["v_v"]
    least_w = np.where(e.plates.is_meter, 0.0, IDLE_FRAC * e.plates.p_rated_w)
    dead: BoolArray = (np.abs(v_v) <= dead_below_v(e.plates.v_nominal_v)) & ~(np.abs(p_w) > least_w)
    return dead


def dead_below_v(nominal_v: FloatArray) -> FloatArray:
    """Voltage up to which a bus is dead [V]; 0 where nominal is not known."""
    return np.fmax(DEAD_PU * nominal_v, 0.0)


def _no_such_voltage(e: Evidence) -> BoolArray | None:
    """Far from nominal, or none although power flows."""
    v_v, metered = e.now["v_v"], np.count_nonzero(e.plates.is_meter)
    low_v, high_v = LOW_PU * e.plates.v_nominal_v, HIGH_PU * e.plates.v_nominal_v
    if not metered and np.count_nonzero((v_v > low_v) & (v_v < high_v)) == len(v_v):
        return None
    low_v, high_v = np.fmax(low_v, 0.0), np.fmin(high_v, GREATEST_V)
    strange: BoolArray = (v_v <= low_v) | (v_v > high_v)
    if metered:
        strange |= (e.now["v_phase_v"] > high_v[:, None]).any(axis=1)
    return _any(strange & ~_dead(e)) if np.count_nonzero(strange) else None


def _no_such_voltage_words(e: Evidence, at: int) -> str:
    nominal_v = e.plates.v_nominal_v[at]
    known = f", where {nominal_v:.4g} V are nominal" if nominal_v > 0.0 else ""
    return f"{e.now['v_v'][at]:.4g} V with {_kilo(e.now['p_w'][at])} kW{known}"


def _no_such_frequency(e: Evidence) -> BoolArray | None:
    """No grid's frequency; 0 is right without voltage."""
    f_hz = e.now["f_hz"]
    strange: BoolArray = (f_hz < F_LOW_HZ) | (f_hz > F_HIGH_HZ)
    return _any(strange & ~((f_hz == 0.0) & _dead(e))) if np.count_nonzero(strange) else None


def _no_such_frequency_words(e: Evidence, at: int) -> str:
    return f"{e.now['f_hz'][at]:.4g} Hz, outside of {F_LOW_HZ:g} to {F_HIGH_HZ:g} Hz"


def _no_triangle(e: Evidence) -> BoolArray | None:
    """More active or reactive than apparent power; where that is 0 it is not told, or smaller than its step."""
    s_va = np.abs(e.now["s_va"])
    greater = np.fmax(np.abs(e.now["p_w"]), np.abs(e.now["q_var"])) / APPARENT_FACTOR >= s_va
    return _any(greater & (s_va > 0.0)) if np.count_nonzero(greater) else None


def _no_triangle_words(e: Evidence, at: int) -> str:
    p_w, q_var, s_va = (_kilo(e.now[name][at]) for name in ("p_w", "q_var", "s_va"))
    return f"{p_w} kW and {q_var} kvar in {s_va} kVA"


def _no_such_factor(e: Evidence) -> BoolArray | None:
    """A power factor beyond 1."""
    return _any(np.abs(e.now["pf"]) > PF_MOST)


def _no_such_factor_words(e: Evidence, at: int) -> str:
    return f"a power factor of {e.now['pf'][at]:.4g}, outside of -1 to 1"


def _blind(e: Evidence) -> BoolArray | None:
    """A meter that sees no voltage where others do: it has lost its measurements, or its part of the feeder is out."""
    dead = _any(e.plates.is_meter & _dead(e)) if np.count_nonzero(e.plates.is_meter) else None
    if dead is None:
        return None
    lives = np.count_nonzero(e.now["v_v"] > dead_below_v(e.plates.v_nominal_v)) or e.feeder_lives()
    return dead if lives else None


def _blind_words(e: Evidence, at: int) -> str:
    return f"{e.now['v_v'][at]:.4g} V, while others on the feeder are under voltage"


def _leapt(e: Evidence) -> BoolArray | None:
    """A meter whose power moved further than a feeder's load usually can."""
    if not np.count_nonzero(e.plates.is_meter):
        return None
    before_w, rated_w = e.before["p_w"], e.plates.p_rated_w
    most_w = np.fmax(LEAP_FRAC * rated_w, LEAP_FACTOR * np.abs(before_w))
    leapt = e.plates.is_meter & (np.abs(e.now["p_w"] - before_w) > most_w)
    return _any(leapt & (rated_w > 0.0) & (e.dt_s <= LEAP_WITHIN_S))


def _leapt_words(e: Evidence, at: int) -> str:
    moved = f"{_kilo(e.now['p_w'][at])} kW, {e.dt_s[at]:.3g} s after {_kilo(e.before['p_w'][at])} kW"
    return f"{moved}: a third of its {_kilo(e.plates.p_rated_w[at])} kW at once is believed when it is told twice"


def _soc_jumped(e: Evidence) -> BoolArray | None:
    """A state of charge that moved further than the nameplate can have moved it in the time."""
    moved_frac = np.abs(e.now["soc_frac"] - e.before["soc_frac"])
    return _any(moved_frac > _soc_most(e)) if np.count_nonzero(moved_frac > SOC_MARGIN_FRAC) else None


def _soc_most(e: Evidence) -> FloatArray:
    energy_wh = np.where(e.plates.energy_wh > 0.0, e.plates.energy_wh, np.nan)
    with np.errstate(invalid="ignore"):  # the first reading comes an infinite time after none
        most_frac: FloatArray = PLAUSIBLE_FACTOR * e.plates.p_rated_w * e.dt_s / 3600.0 / energy_wh + SOC_MARGIN_FRAC
    return most_frac


def _soc_jumped_words(e: Evidence, at: int) -> str:
    now, before, most = (100.0 * part[at] for part in (e.now["soc_frac"], e.before["soc_frac"], _soc_most(e)))
    return f"a state of charge of {now:.4g} %, {e.dt_s[at]:.3g} s after {before:.4g} %: at most {most:.3g} % can flow"


def _rescaled(e: Evidence) -> BoolArray | None:
    """A power or voltage that moved by about a power of ten or more together with a scale factor."""
    if not np.count_nonzero(e.rescaled):
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        decades = np.log10(np.abs([e.now[name] / e.before[name] for name in COMPARED[:3]]))
    return _any(e.rescaled & (np.abs(decades) > SCALE_JUMP_DECADES).any(axis=0))


def _rescaled_words(e: Evidence, at: int) -> str:
    values = [f"{_kilo(some['p_w'][at])} kW and {some['v_v'][at]:.4g} V" for some in (e.now, e.before)]
    return f"{values[0]} after {values[1]}, as its scale factors changed"


def _frozen(e: Evidence) -> BoolArray | None:
    """Measurements that stand still."""
    return _any(e.still_s > e.frozen_after_s)


def _frozen_words(e: Evidence, at: int) -> str:
    return f"nothing has changed for {e.still_s[at]:.0f} s, and something should within {e.frozen_after_s:.0f} s"


CHECKS: tuple[Check, ...] = (
    Check(_too_much, _too_much_words),
    Check(_backward, _backward_words),
    Check(_over_full, _over_full_words),
    Check(_no_such_voltage, _no_such_voltage_words),
    Check(_no_such_frequency, _no_such_frequency_words),
    Check(_no_triangle, _no_triangle_words),
    Check(_no_such_factor, _no_such_factor_words),
    Check(_blind, _blind_words),
    Check(_leapt, _leapt_words),
    Check(_soc_jumped, _soc_jumped_words),
    Check(_rescaled, _rescaled_words),
    Check(_frozen, _frozen_words),
)
"""Every reason not to believe a reading, the first that holds is told."""


def _kilo(value: float) -> str:
    return f"{value / 1e3:.4g}"
