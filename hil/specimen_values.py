"""What the registers of a specimen hold when it is switched on: a value for every point of every model, in its unit.

A device of 10 kW and 20 kWh on 240 V and 60 Hz. Values come from the units in the models' definitions, and from the
tables below where a point means something more particular. Curves: one that is active and two to be written.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from drivers.sunspec.models import Model, Point, Value, definition, layout

P_RATED_W = 10_000.0
SPARE_CURVES = 2

_REPEATS: Mapping[int, Mapping[str, int]] = {
    160: {"module": 2},
    705: {"NCrv": 1 + SPARE_CURVES, "NPt": 4},
    706: {"NCrv": 1 + SPARE_CURVES, "NPt": 2},
    **{model: {"NCrvSet": 2, "NPt": 5} for model in range(707, 711)},
    711: {"NCtl": 1 + SPARE_CURVES},
    712: {"NCrv": 1 + SPARE_CURVES, "NPt": 6},
    714: {"NPrt": 2},
    803: {"NStr": 2},
    804: {"NMod": 2},
}

_BY_UNIT: Mapping[str, float] = {
    "a": 14.5,
    "v": 240.5,
    "w": 8000.0,
    "va": 8100.0,
    "var": 1200.0,
    "hz": 60.0,
    "wh": 1_234_500.0,
    "vah": 1_345_600.0,
    "varh": 123_400.0,
    "c": 41.0,
    "pct": 55.0,
    "pf": 0.98,
    "cos()": 0.98,
    "vnompct": 100.0,
    "ah": 400.0,
    "ohms": 500_000.0,
}
"""By the unit in the definition, in small letters; 0 for any other."""

_EXPONENTS: Mapping[str, int] = {
    **dict.fromkeys(("A_SF", "V_SF", "Tmp_SF", "DCA_SF", "DCV_SF", "ModTmp_SF", "AMax_SF", "InBatV_SF"), -1),
    **dict.fromkeys(("VRef_SF", "VMinMax_SF", "SoH_SF", "DoD_SF", "MaxRmpRte_SF", "WGra_SF", "WChaDisChaGra_SF"), -1),
    **dict.fromkeys(("Hz_SF", "PF_SF", "SoC_SF", "Pct_SF", "WMaxLimPct_SF", "WSetPct_SF", "VarSetPct_SF"), -2),
    **dict.fromkeys(("ChaState_SF", "InOutWRte_SF", "VArPct_SF", "MinRsvPct_SF", "ECPNomHz_SF", "Tms_SF"), -2),
    **dict.fromkeys(("OutPFSet_SF", "PFRtg_SF", "PFMin_SF", "DeptRef_SF", "CellV_SF", "K_SF"), -2),
    "Db_SF": -3,
    "Ris_SF": 3,
}
"""Exponent of a scale factor by its name; 0 for any other."""

_TEXTS = {"Mn": "Simulated", "Md": "Specimen", "Vr": "1.0", "Opt": "all models", "MnAlrmInfo": "none"}

_VALUES: Mapping[str, float] = {
    "1.DA": 1,
    **{
        f"{model}.{name}": value for model in (101, 102, 103, 111, 112, 113) for name, value in (("St", 4), ("Evt1", 0))
    },
    "120.DERTyp": 82,  # PV with storage
    "120.WRtg": P_RATED_W,
    "120.VARtg": P_RATED_W,
    "120.WHRtg": 20_000,
    "120.MaxChaRte": P_RATED_W,
    "120.MaxDisChaRte": P_RATED_W,
    "121.WMax": P_RATED_W,
    "121.VAMax": P_RATED_W,
    "121.VRefOfs": 0,
    "121.ECPNomHz": 60,
    "122.PVConn": 7,  # connected, available, operating
    "122.StorConn": 7,
    "122.ECPConn": 1,
    "123.Conn": 1,
    "123.WMaxLimPct": 100,
    "123.OutPFSet": 1,
    "124.WChaMax": P_RATED_W,
    "124.WChaGra": 100,
    "124.WDisChaGra": 100,
    "124.OutWRte": 100,
    "124.InWRte": 100,
    "124.MinRsvPct": 10,
    "124.ChaState": 55,
    "124.StorAval": 200,
    "124.InBatV": 400,
    "124.ChaSt": 3,  # discharging
    "124.ChaGriSet": 1,
    "701.St": 1,
    "701.InvSt": 3,  # running
    "701.ConnSt": 1,
    "701.DERMode": 1,
    "701.PF": 0.98,
    "701.ThrotPct": 0,
    **{f"702.{name}": P_RATED_W for name in ("WMaxRtg", "WMax", "VAMaxRtg", "VAMax", "WOvrExtRtg", "WUndExtRtg")},
    **{f"702.{name}": P_RATED_W for name in ("WMaxOvrExt", "WMaxUndExt", "WChaRteMaxRtg", "WChaRteMax")},
    **{f"702.{name}": P_RATED_W for name in ("WDisChaRteMaxRtg", "WDisChaRteMax", "VAChaRteMaxRtg", "VAChaRteMax")},
    **{f"702.{name}": P_RATED_W for name in ("VADisChaRteMaxRtg", "VADisChaRteMax")},
    **{f"702.Var{name}": 4400 for name in ("MaxInjRtg", "MaxAbsRtg", "MaxInj", "MaxAbs")},
    **{f"702.{name}": 240 for name in ("VNomRtg", "VNom")},
    **{f"702.{name}": 0.95 for name in ("WOvrExtRtgPF", "WUndExtRtgPF", "PFOvrExtRtg", "PFUndExtRtg")},
    **{f"702.{name}": 0.95 for name in ("WOvrExtPF", "WUndExtPF", "PFOvrExt", "PFUndExt")},
    "702.AMaxRtg": 42,
    "702.AMax": 42,
    "702.NorOpCatRtg": 1,
    "702.AbnOpCatRtg": 2,
    "702.CtrlModes": 0x3FFF,
    "702.IntIslandCatRtg": 1,
    "702.IntIslandCat": 1,
    "703.ES": 1,
    "703.ESVHi": 105,
    "703.ESVLo": 91.7,
    "703.ESHzHi": 60.1,
    "703.ESHzLo": 59.5,
    "703.ESDlyTms": 300,
    "703.ESRndTms": 100,
    "703.ESRmpTms": 60,
    "704.WMaxLimPct": 100,
    "704.WMaxLimPctRvrt": 100,
    "704.WSetMod": 1,
    "704.VarSetMod": 4,
    **{f"704.{name}": 0 for name in ("WSet", "WSetRvrt", "WSetPct", "WSetPctRvrt", "VarSet", "VarSetRvrt")},
    **{f"704.{name}": 0 for name in ("VarSetPct", "VarSetPctRvrt")},
    "704.WRmp": 100,
    "704.WRmpRef": 1,
    "704.VarRmp": 100,
    **{f"704.PFW{name}.PF": 1 for name in ("Inj", "InjRvrt", "Abs", "AbsRvrt")},
    **{f"{model}.Ena": 1 for model in range(707, 711)},
    **{f"{model}.AdptCrvRslt": 1 for model in (*range(705, 711), 712)},
    "711.AdptCtlRslt": 1,
    "713.WHRtg": 20_000,
    "713.WHAvail": 11_000,
    "713.SoH": 98,
    "713.Sta": 0,
    "715.OpCtl": 1,
    "802.WHRtg": 20_000,
    "802.WChaRteMax": P_RATED_W,
    "802.WDisChaRteMax": P_RATED_W,
    "802.SoCMax": 100,
    "802.SoCMin": 0,
    "802.SocRsvMax": 95,
    "802.SoCRsvMin": 10,
    "802.SoC": 55,
    "802.DoD": 45,
    "802.SoH": 98,
    "802.NCyc": 123,
    "802.Typ": 4,  # lithium-ion
    "802.State": 3,  # connected
    "802.SetOp": 1,
    "802.SetInvState": 3,
    "803.NStrCon": 2,
    "804.Idx": 1,
    **{f"{model}.{name}": 3.65 for model in (802, 803, 804) for name in ("CellVMax", "CellVMin", "CellVAvg")},
    **{f"803.string.StrCellV{name}": 3.65 for name in ("Max", "Min", "Avg")},
    **{f"804.lithium_ion_string_module.ModCellV{name}": 3.65 for name in ("Max", "Min", "Avg")},
}
"""By model and point without repeat counts, in the point's unit."""

_CURVES: Mapping[int, Mapping[str, tuple[float, ...]]] = {
    705: {"V": (92, 98, 102, 108), "Var": (44, 0, 0, -44)},
    706: {"V": (106, 110), "W": (100, 0)},
    707: {"V": (88, 88, 50, 50, 0), "Tms": (21, 2, 2, 0.16, 0.16)},
    708: {"V": (110, 110, 120, 120, 130), "Tms": (21, 13, 13, 0.16, 0.16)},
    709: {"Hz": (58.5, 58.5, 56.5, 56.5, 50), "Tms": (310, 300, 300, 0.16, 0.16)},
    710: {"Hz": (61.2, 61.2, 62, 62, 70), "Tms": (310, 300, 300, 0.16, 0.16)},
    712: {"W": (-100, -50, -20, 20, 50, 100), "Var": (44, 22, 0, 0, 0, -44)},
}
"""Points of every curve of a model, in SunSpec's percent, Hz and s."""
_OF_EACH_CURVE: Mapping[str, float] = {
    "705.DeptRef": 3,
    "705.Pri": 1,
    "705.VRef": 100,
    "705.VRefAuto": 100,
    "705.RspTms": 5,
    "706.RspTms": 10,
    "711.DbOf": 0.036,
    "711.DbUf": 0.036,
    "711.KOf": 0.05,
    "711.KUf": 0.05,
    "711.RspTms": 5,
    "712.DeptRef": 3,
    "712.Pri": 1,
}


def laid_out(model_id: int) -> Model:
    """A model with the repeats that a specimen has; KeyError for a model that is not known."""
    return layout(model_id, _REPEATS.get(model_id))


def exponents(model: Model) -> Mapping[str, int]:
    """Exponents of a model's scale factors by `model.point`."""
    return {
        f"{model.id}.{point.name}": _EXPONENTS.get(point.name, 0)
        for point in model.points.values()
        if point.type == "sunssf"
    }


def initial(model: Model, point: Point, serial: str) -> Value | None:
    """What a point holds at the start, unscaled; None for padding. ID, L and scale factors are not asked for."""
    if point.type == "string":
        return serial if point.name == "SN" else _TEXTS.get(point.name, point.name[: 2 * point.size])
    if point.type == "pad":
        return None
    value = _value(model, point)
    if point.type.startswith("float"):
        return value
    scale = model.scale_of(point)
    exponent = scale if isinstance(scale, int) else _EXPONENTS.get(scale.name, 0)
    return round(value / 10.0**exponent)


def _value(model: Model, point: Point) -> float:
    """In the point's unit."""
    raw = described(model.id, point.name)
    counted = _REPEATS.get(model.id, {}).get(point.name)
    if counted is not None:
        return counted
    if (model.id, point.name) == (160, "N"):
        return _REPEATS[160]["module"]
    of_curve = _of_curve(model.id, point.name)
    if of_curve is not None:
        return of_curve
    plain = f"{model.id}.{_without_repeats(point.name)}"
    if plain in _VALUES:
        return _VALUES[plain]
    if raw.get("symbols") and point.type.startswith("enum"):
        return float(raw["symbols"][0]["value"])
    return _BY_UNIT.get(str(raw.get("units", "")).lower(), 0.0)


_CURVE_POINT = re.compile(r"(Crv|Ctl)\[(\d+)\]\.(.*\.)?(?:Pt\[(\d+)\]\.)?(\w+)")


def _of_curve(model_id: int, name: str) -> float | None:
    """The value of a point that belongs to a curve; None for one that does not."""
    found = _CURVE_POINT.fullmatch(name)
    if found is None:
        return None
    _, curve, _, at, last = found.groups()
    if at is not None:
        return _CURVES[model_id][last][int(at)]
    if last == "ReadOnly":
        return 1 if curve == "0" or model_id in range(707, 711) else 0
    if last == "ActPt":
        return _REPEATS[model_id]["NPt"]
    return _OF_EACH_CURVE.get(f"{model_id}.{last}", 0.0)


def _without_repeats(name: str) -> str:
    return re.sub(r"\[\d+\]", "", name)


def described(model_id: int, name: str) -> Mapping[str, Any]:
    """The definition of a point, whichever repeat it is."""
    return _descriptions(model_id)[_without_repeats(name)]


@cache
def _descriptions(model_id: int) -> Mapping[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}

    def walk(group: Mapping[str, Any], prefix: str) -> None:
        for point in group["points"]:
            found[prefix + point["name"]] = point
        for child in group.get("groups", []):
            walk(child, f"{prefix}{child['name']}.")

    walk(definition(model_id)["group"], "")
    return found
