"""Who may write what: every writable point of every SunSpec model, walked in pysunspec2's own definitions."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sunspec2
import sunspec2.device

from drivers.sunspec.writable import Permission, permission

MODELS = sorted(int(path.stem.removeprefix("model_")) for path in Path(sunspec2.__file__).parent.rglob("model_*.json"))
SPOKEN_OF = {121, 123, 124, *range(702, 713), 715}
"""Models in which somebody may write, or in which it is said by name what nobody may."""

DISPATCH: Mapping[int, str] = {
    123: "Conn_WinTms Conn_RvrtTms Conn WMaxLimPct WMaxLimPct_WinTms WMaxLimPct_RvrtTms WMaxLimPct_RmpTms WMaxLim_Ena",
    124: "StorCtl_Mod OutWRte InWRte InOutWRte_WinTms InOutWRte_RvrtTms",
    703: "ES",
    704: "WMaxLimPctEna WMaxLimPct WMaxLimPctRvrt WMaxLimPctEnaRvrt WMaxLimPctRvrtTms WSetEna WSetMod WSet WSetRvrt"
    " WSetPct WSetPctRvrt WSetEnaRvrt WSetRvrtTms VarSetEna VarSetMod VarSetPri VarSet VarSetRvrt VarSetPct"
    " VarSetPctRvrt VarSetEnaRvrt VarSetRvrtTms",
    715: "ControllerHb OpCtl",
}
ENGINEER: Mapping[int, str] = {
    121: "WMax VAMax VArMaxQ1 VArMaxQ2 VArMaxQ3 VArMaxQ4",
    702: "WMax WMaxOvrExt WOvrExtPF WMaxUndExt WUndExtPF VAMax VarMaxInj VarMaxAbs WChaRteMax WDisChaRteMax"
    " VAChaRteMax VADisChaRteMax",
    703: "ESDlyTms ESRndTms ESRmpTms",
    705: "Ena AdptCrvReq RvrtTms RvrtCrv Crv.ActPt Crv.DeptRef Crv.Pri Crv.VRef Crv.VRefAutoEna Crv.VRefAutoTms"
    " Crv.RspTms Crv.Pt.V Crv.Pt.Var",
    706: "Ena AdptCrvReq RvrtTms RvrtCrv Crv.ActPt Crv.DeptRef Crv.RspTms Crv.Pt.V Crv.Pt.W",
    711: "Ena AdptCtlReq RvrtTms RvrtCtl Ctl.DbOf Ctl.DbUf Ctl.KOf Ctl.KUf Ctl.RspTms Ctl.PMin",
    712: "Ena AdptCrvReq RvrtTms RvrtCrv Crv.ActPt Crv.DeptRef Crv.Pri Crv.Pt.W Crv.Pt.Var",
}
_TRIP = "Ena AdptCrvReq " + " ".join(
    f"Crv.{zone}.{point}" for zone in ("MustTrip", "MayTrip", "MomCess") for point in ("ActPt", "Pt.Tms")
)
_TRIP_V, _TRIP_HZ = (
    _TRIP + "".join(f" Crv.{zone}.Pt.{what}" for zone in ("MustTrip", "MayTrip", "MomCess")) for what in ("V", "Hz")
)
FORBIDDEN: Mapping[int, str] = {
    121: "VRef VRefOfs VMax VMin WGra PFMinQ1 PFMinQ2 PFMinQ3 PFMinQ4 VArAct ClcTotVA MaxRmpRte ECPNomHz ConnPh",
    123: "OutPFSet OutPFSet_WinTms OutPFSet_RvrtTms OutPFSet_RmpTms OutPFSet_Ena VArWMaxPct VArMaxPct VArAvalPct"
    " VArPct_WinTms VArPct_RvrtTms VArPct_RmpTms VArPct_Mod VArPct_Ena",
    124: "WChaMax WChaGra WDisChaGra VAChaMax MinRsvPct InOutWRte_RmpTms ChaGriSet",
    702: "VNom VMax VMin AMax PFOvrExt PFUndExt IntIslandCat",
    703: "ESVHi ESVLo ESHzHi ESHzLo",
    704: "AntiIslEna WRmp WRmpRef VarRmp PFWInjEna PFWInjEnaRvrt PFWInjRvrtTms PFWAbsEna PFWAbsEnaRvrt PFWAbsRvrtTms"
    " PFWInj.PF PFWInj.Ext PFWInjRvrt.PF PFWInjRvrt.Ext PFWAbs.PF PFWAbs.Ext PFWAbsRvrt.PF PFWAbsRvrt.Ext",
    707: _TRIP_V,
    708: _TRIP_V,
    709: _TRIP_HZ,
    710: _TRIP_HZ,
    715: "AlarmReset",
}


def points(group: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, bool]]:
    """Name with its group path, and whether the model has it writable."""
    for point in group["points"]:
        yield path + point["name"], point.get("access") == "RW"
    for child in group.get("groups", []):
        yield from points(child, f"{path}{child['name']}.")


def walked(model_id: int) -> set[tuple[str, bool]]:
    return set(points(sunspec2.device.get_model_def(model_id)["group"]))


def as_ours(name: str, index: int) -> str:
    """A name as an image has it: repeating groups counted, the curve at an index."""
    for group in ("Crv", "Ctl"):
        name = name.replace(f"{group}.", f"{group}[{index}].")
    return name.replace("Pt.", "Pt[3].")


def said(table: Mapping[int, str], model_id: int) -> set[str]:
    return set(table.get(model_id, "").split())


@pytest.mark.parametrize("model_id", MODELS)
def test_every_writable_point_of_a_model_is_in_its_class_and_nothing_else_is_in_any(model_id: int) -> None:
    found = walked(model_id)
    writable = {name for name, may in found if may}
    dispatch, engineer = said(DISPATCH, model_id), said(ENGINEER, model_id)
    assert dispatch | engineer <= writable
    assert not dispatch & engineer
    if model_id in SPOKEN_OF:
        assert writable - dispatch - engineer == said(FORBIDDEN, model_id)
    for name, _ in found:
        expected = Permission.REFUSED
        if name in dispatch:
            expected = Permission.DISPATCH
        elif name in engineer:
            expected = Permission.ENGINEER
        assert permission(model_id, as_ours(name, 1)) is expected, name


@pytest.mark.parametrize(("model_id", "name"), [(705, "Crv[0].Pt[0].V"), (711, "Ctl[0].KOf"), (712, "Crv[0].ActPt")])
def test_the_active_curve_is_nobodys_to_write(model_id: int, name: str) -> None:
    assert permission(model_id, name) is Permission.REFUSED
    assert permission(model_id, name.replace("[0]", "[1]", 1)) is Permission.ENGINEER


def test_the_modbus_address_of_a_device_is_nobodys_to_write() -> None:
    assert ("DA", True) in walked(1)
    assert permission(1, "DA") is Permission.REFUSED


def test_what_the_models_do_not_define_is_refused() -> None:
    assert permission(64999, "WSet") is Permission.REFUSED
    assert permission(704, "Password") is Permission.REFUSED
