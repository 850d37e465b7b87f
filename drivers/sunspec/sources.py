"""Where every telemetry column comes from: which points of which SunSpec models, the first that a device has.

Signs as the models have them: inverter power (701, 101-103, 111-113) + = injection, meter power (201-204, 211-214)
+ = import. Model 802 tells the power of a battery without an inverter; it does not say its sign, discharge counts as +.
Source: SunSpec models 101-103, 111-113, 123, 124, 201-204, 211-214, 701, 704, 713, 715, 802.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

_INTEGER_INVERTERS = (103, 102, 101)
_FLOAT_INVERTERS = (113, 112, 111)
_OLDER_INVERTERS = (*_FLOAT_INVERTERS, *_INTEGER_INVERTERS)
_INTEGER_METERS = (203, 204, 202, 201)
_FLOAT_METERS = (213, 214, 212, 211)
BATTERY_BANK = 802
INVERTERS = (701, *_OLDER_INVERTERS, BATTERY_BANK)
METERS = (*_FLOAT_METERS, *_INTEGER_METERS)
MEASURING = (*INVERTERS[:-1], *METERS, BATTERY_BANK)
"""Models that measure power, the most telling first; one of them is read."""
BESIDE = ((704, 123), (713, BATTERY_BANK, 124), (715,))
"""Controls, state of charge, and who has control: of each row the first model that the device has is read with it."""

_PERCENT = 0.01
_ENABLED = 1
_STATES_701 = tuple(float(code) for code in range(8))
_STATES_103 = (math.nan, *_STATES_701)
"""Codes of 701 InvSt by the value of 103 St, which counts from 1 (its MPPT is 701's RUNNING)."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a column comes from: points of a model, one or one per phase."""

    models: tuple[int, ...]
    points: tuple[str, ...]
    factor: float = 1.0
    when: tuple[tuple[str, int], ...] = ()
    """Points that must hold a value, else there is none."""
    unless: tuple[tuple[str, int], ...] = ()
    """Points that must not hold a value; one that is not implemented does not."""
    codes: tuple[float, ...] = ()
    """Values by the code in the point; no other codes are known."""
    alone: bool = False
    """Counts only where the model is the one that measures, not beside another."""


_AC = (701, *_OLDER_INVERTERS, *METERS)
SOURCES: Mapping[str, tuple[Source, ...]] = {
    "p_w": (Source(_AC, ("W",)), Source((BATTERY_BANK,), ("W",), alone=True)),
    "q_var": (Source((701,), ("Var",)), Source(_OLDER_INVERTERS, ("VAr",)), Source(METERS, ("VAR",))),
    "v_v": (
        Source((701,), ("LNV",)),
        Source((701,), ("VL1",)),
        Source((701,), ("LLV",)),
        Source(_OLDER_INVERTERS, ("PhVphA",)),
        Source(METERS, ("PhV",)),
    ),
    "soc_frac": (Source((713, BATTERY_BANK), ("SoC",), _PERCENT), Source((124,), ("ChaState",), _PERCENT)),
    "p_phase_w": (Source(METERS, ("WphA", "WphB", "WphC")),),
    "q_phase_var": (Source(METERS, ("VARphA", "VARphB", "VARphC")),),
    "v_phase_v": (Source(METERS, ("PhVphA", "PhVphB", "PhVphC")),),
    "s_va": (Source(_AC, ("VA",)),),
    "i_a": (Source(_AC, ("A",)),),
    "f_hz": (Source(_AC, ("Hz",)),),
    "pf": (Source((701, *_FLOAT_METERS), ("PF",)), Source((*_OLDER_INVERTERS, *_INTEGER_METERS), ("PF",), _PERCENT)),
    "temp_c": (
        Source((701, *_OLDER_INVERTERS), ("TmpCab",)),
        Source((701, *_OLDER_INVERTERS), ("TmpSnk",)),
        Source((701, *_OLDER_INVERTERS), ("TmpOt",)),
    ),
    "state": (
        Source((701,), ("InvSt",), codes=_STATES_701),
        Source(_OLDER_INVERTERS, ("St",), codes=_STATES_103),
    ),
    "connected": (Source((701,), ("ConnSt",), codes=(0.0, 1.0)),),
    "local": (Source((715, BATTERY_BANK), ("LocRemCtl",), codes=(0.0, 1.0)),),
    "alarms": (
        Source((701,), ("Alrm",)),
        Source(_OLDER_INVERTERS, ("Evt1",)),
        Source((BATTERY_BANK,), ("Evt1",), alone=True),
        Source(_INTEGER_METERS, ("Evt",)),
    ),
    "injected_wh": (
        Source((701,), ("TotWhInj",)),
        Source(_OLDER_INVERTERS, ("WH",)),
        Source(METERS, ("TotWhExp",)),
    ),
    "absorbed_wh": (Source((701,), ("TotWhAbs",)), Source(METERS, ("TotWhImp",))),
    "p_limit_frac": (
        Source((704,), ("WMaxLimPct",), _PERCENT, when=(("WMaxLimPctEna", _ENABLED),)),
        Source((123,), ("WMaxLimPct",), _PERCENT, when=(("WMaxLim_Ena", _ENABLED),)),
    ),
    "limit_left_s": (Source((704,), ("WMaxLimPctRvrtRem",)),),
    "p_set_w": (Source((704,), ("WSet",), when=(("WSetEna", _ENABLED),), unless=(("WSetMod", 0),)),),
    "setpoint_left_s": (Source((704,), ("WSetRvrtRem",)),),
}
"""Sources of every column, the first that a device implements wins. The event bits of 211-214 (register 124) would
cost their poll a second request, and a setpoint in percent (704 WSetPct) needs a rating that no poll reads."""
