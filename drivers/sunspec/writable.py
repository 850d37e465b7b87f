"""The table of every point that may ever be written, and by whom: what is not in it is refused.

Refused with it, though the models have them writable: anti-islanding (704 AntiIslEna), enter-service thresholds (703
ESV*, ESHz*), trip curves (707-710), voltages and currents that protection counts on (702, 121), the Modbus address.
Source: SunSpec models 121, 123, 124, 702-706, 711, 712, 715; curve 1 is the active one and read-only (705-712).
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import cache


class Permission(StrEnum):
    """Who may write a point."""

    DISPATCH = "dispatch"
    """Commands: limits, setpoints, their reversion, permit service, heartbeat."""
    ENGINEER = "engineer"
    """An engineer's explicit act: curves and settings."""
    REFUSED = "refused"


_D, _E = Permission.DISPATCH, Permission.ENGINEER
_CURVE = ("Ena", "AdptCrvReq", "RvrtTms", "RvrtCrv", "Crv[].ActPt", "Crv[].DeptRef")

_TABLE: Mapping[tuple[int, Permission], tuple[str, ...]] = {
    (121, _E): ("WMax", "VAMax", "VArMaxQ1", "VArMaxQ2", "VArMaxQ3", "VArMaxQ4"),
    (123, _D): (
        *("Conn_WinTms", "Conn_RvrtTms", "Conn"),
        *("WMaxLimPct", "WMaxLimPct_WinTms", "WMaxLimPct_RvrtTms", "WMaxLimPct_RmpTms", "WMaxLim_Ena"),
    ),
    (124, _D): ("StorCtl_Mod", "OutWRte", "InWRte", "InOutWRte_WinTms", "InOutWRte_RvrtTms"),
    (702, _E): (
        *("WMax", "WMaxOvrExt", "WOvrExtPF", "WMaxUndExt", "WUndExtPF", "VAMax", "VarMaxInj", "VarMaxAbs"),
        *("WChaRteMax", "WDisChaRteMax", "VAChaRteMax", "VADisChaRteMax"),
    ),
    (703, _D): ("ES",),
    (703, _E): ("ESDlyTms", "ESRndTms", "ESRmpTms"),
    (704, _D): (
        *("WMaxLimPctEna", "WMaxLimPct", "WMaxLimPctRvrt", "WMaxLimPctEnaRvrt", "WMaxLimPctRvrtTms"),
        *("WSetEna", "WSetMod", "WSet", "WSetRvrt", "WSetPct", "WSetPctRvrt", "WSetEnaRvrt", "WSetRvrtTms"),
        *("VarSetEna", "VarSetMod", "VarSetPri", "VarSet", "VarSetRvrt", "VarSetPct", "VarSetPctRvrt"),
        *("VarSetEnaRvrt", "VarSetRvrtTms"),
    ),
    (705, _E): (
        *(*_CURVE, "Crv[].Pri", "Crv[].VRef", "Crv[].VRefAutoEna", "Crv[].VRefAutoTms", "Crv[].RspTms"),
        *("Crv[].Pt[].V", "Crv[].Pt[].Var"),
    ),
    (706, _E): (*_CURVE, "Crv[].RspTms", "Crv[].Pt[].V", "Crv[].Pt[].W"),
    (711, _E): (
        *("Ena", "AdptCtlReq", "RvrtTms", "RvrtCtl"),
        *("Ctl[].DbOf", "Ctl[].DbUf", "Ctl[].KOf", "Ctl[].KUf", "Ctl[].RspTms", "Ctl[].PMin"),
    ),
    (712, _E): (*_CURVE, "Crv[].Pri", "Crv[].Pt[].W", "Crv[].Pt[].Var"),
    (715, _D): ("ControllerHb", "OpCtl"),
}

_PERMISSIONS = {(model_id, name): who for (model_id, who), names in _TABLE.items() for name in names}
_REPEAT = re.compile(r"\[\d+\]")
_ACTIVE = re.compile(r"(Crv|Ctl)\[0\]\.")


@cache
def permission(model_id: int, name: str) -> Permission:
    """Who may write a point; `name` has its group path, `Crv[1].Pt[0].V`, and the active curve `[0]` is refused."""
    if _ACTIVE.match(name):
        return Permission.REFUSED
    return _PERMISSIONS.get((model_id, _REPEAT.sub("[]", name)), Permission.REFUSED)
