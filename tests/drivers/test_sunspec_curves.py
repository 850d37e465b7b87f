"""An engineer's acts on a device that adopts, fails or dawdles: curves, functions, settings, reactive power."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from derms.domain.drift import drift
from derms.errors import DeviceMismatch, WriteForbidden
from drivers.modbus.unit import Unit
from drivers.sunspec.curves import (
    LOOK_EVERY_S,
    LOOKS,
    Adoption,
    Curve,
    CurveResult,
    enable,
    write_curve,
    write_reactive,
    write_setting,
)
from drivers.sunspec.models import Value, encode_model, layout
from drivers.sunspec.scan import Chain, Place, find_chain, read_image
from drivers.sunspec.settings import settings_of
from tests.drivers.oracles import PV_1547, connection_to
from tests.drivers.picky import PickyDevice

VOLT_VAR: Curve = {
    "ActPt": 4,
    "DeptRef": 3,
    "Pri": 1,
    "RspTms": 10,
    "Pt[0].V": 92.0,
    "Pt[0].Var": 44.0,
    "Pt[1].V": 98.0,
    "Pt[1].Var": 0.0,
    "Pt[2].V": 102.0,
    "Pt[2].Var": 0.0,
    "Pt[3].V": 108.0,
    "Pt[3].Var": -44.0,
}
VOLT_WATT: Curve = {
    "ActPt": 2,
    "DeptRef": 0,
    "RspTms": 10,
    "Pt[0].V": 106.0,
    "Pt[0].W": 100.0,
    "Pt[1].V": 110.0,
    "Pt[1].W": 0.0,
}
DROOP: Curve = {"DbOf": 0.036, "DbUf": 0.036, "KOf": 0.05, "KUf": 0.05, "RspTms": 5.0}
WATT_VAR: Curve = {
    "ActPt": 2,
    "DeptRef": 3,
    "Pri": 1,
    "Pt[0].W": 50.0,
    "Pt[0].Var": 0.0,
    "Pt[1].W": 100.0,
    "Pt[1].Var": -44.0,
}
CURVES = {705: VOLT_VAR, 706: VOLT_WATT, 711: DROOP, 712: WATT_VAR}
SCALES = {"V_SF": -1, "DeptRef_SF": -1, "W_SF": -1, "Db_SF": -3, "K_SF": -2, "RspTms_SF": 0}


def model_with_curves(model_id: int) -> bytes:
    """A model with an active curve and two to write, all of them zero."""
    points = 4 if model_id == 705 else 2
    model = layout(model_id, {"NCrv": 3, "NCtl": 3, "NPt": points})
    values: dict[str, Value | None] = {
        name: SCALES.get(name, 0) for name in model.points if name not in ("ID", "L", "NPt", "NCrv", "NCtl")
    }
    group = "Ctl" if model_id == 711 else "Crv"
    values[f"{group}[0].ReadOnly"] = values[f"{group}[2].ReadOnly"] = 1
    return encode_model(model, values)


class Inverter(PickyDevice):
    """A device that adopts curves, in the way that a test wants it."""

    def __init__(self) -> None:
        super().__init__(PV_1547, repeats={model_id: model_with_curves(model_id) for model_id in CURVES})
        self.result = 1
        self.forgets: tuple[str, ...] = ()
        """Points that it does not take over into its active curve."""
        self.waited_s: list[float] = []
        self._asked: tuple[int, int] | None = None
        self.obeys = self._asked_to_adopt

    def _asked_to_adopt(self, model_id: int, offset: int) -> None:
        if model_id in CURVES and offset == 3:
            self._asked = (model_id, self.get(model_id, self._name(model_id, "Req")))
            self.put(model_id, self._name(model_id, "Rslt"), 0)

    async def wait(self, time_s: float) -> None:
        """Time passes: the second look finds the adoption done."""
        self.waited_s.append(time_s)
        if self._asked and self.result:
            model_id, index = self._asked
            group = "Ctl" if model_id == 711 else "Crv"
            for name in CURVES[model_id].keys() - set(self.forgets):
                if self.result == 1:
                    self.put(model_id, f"{group}[0].{name}", self.get(model_id, f"{group}[{index - 1}].{name}"))
            self.put(model_id, self._name(model_id, "Rslt"), self.result)

    @staticmethod
    def _name(model_id: int, what: str) -> str:
        return ("AdptCtl" if model_id == 711 else "AdptCrv") + what


Act = Callable[[Inverter, Unit, Chain], Awaitable[None]]


def with_inverter(act: Act) -> None:
    async def scenario() -> None:
        device = Inverter()
        async with device.listening() as port:
            unit = connection_to(port)
            await unit.connect()
            await act(device, unit, await find_chain(unit))
            unit.disconnect()

    asyncio.run(scenario())


def place_of(chain: Chain, model_id: int) -> Place:
    place = chain.find(model_id)
    assert place is not None
    return place


@pytest.mark.parametrize("model_id", CURVES)
def test_a_curve_is_written_adopted_and_found_active(model_id: int) -> None:
    async def act(device: Inverter, unit: Unit, chain: Chain) -> None:
        place = place_of(chain, model_id)
        result = await write_curve(unit, place, CURVES[model_id], 2, wait=device.wait)
        assert result == CurveResult(Adoption.ADOPTED)
        assert device.waited_s == [LOOK_EVERY_S]
        held = await read_image(unit, place)
        group = "Ctl" if model_id == 711 else "Crv"
        for name, number in CURVES[model_id].items():
            assert held.number(f"{group}[0].{name}") == pytest.approx(number)
        assert device.get(model_id, "Ena") == 0  # which is an act of its own

    with_inverter(act)


def test_a_curve_that_the_device_does_not_adopt_leaves_the_active_one_as_it_was() -> None:
    async def act(device: Inverter, unit: Unit, chain: Chain) -> None:
        device.result = 2
        place = place_of(chain, 705)
        assert await write_curve(unit, place, VOLT_VAR, 2, wait=device.wait) == CurveResult(Adoption.FAILED)
        assert device.get(705, "Crv[0].Pt[0].V") == 0

    with_inverter(act)


def test_a_device_that_never_ends_an_adoption_is_not_waited_for_for_ever() -> None:
    async def act(device: Inverter, unit: Unit, chain: Chain) -> None:
        device.result = 0
        result = await write_curve(unit, place_of(chain, 705), VOLT_VAR, 2, wait=device.wait)
        assert result == CurveResult(Adoption.UNANSWERED)
        assert device.waited_s == [LOOK_EVERY_S] * LOOKS

    with_inverter(act)


def test_an_active_curve_that_is_another_than_the_one_written_is_named_point_by_point() -> None:
    async def act(device: Inverter, unit: Unit, chain: Chain) -> None:
        device.forgets = ("Pt[3].Var",)
        result = await write_curve(unit, place_of(chain, 705), VOLT_VAR, 2, wait=device.wait)
        told = ("Crv[0].Pt[3].Var is 0, written as -44 to curve 2",)
        assert result == CurveResult(Adoption.DIFFERENT, told)

    with_inverter(act)


REFUSED: dict[str, tuple[Curve, int, str]] = {
    "the active curve": (VOLT_VAR, 1, "is the active one"),
    "no curve at all": (VOLT_VAR, 0, "is the active one"),
    "a curve that the device does not have": (VOLT_VAR, 4, "has no curve 4"),
    "a read-only curve": (VOLT_VAR, 3, "is read-only"),
    "a point that the model does not have": ({"Pt[7].V": 90.0}, 2, r"has no Pt\[7\]\.V"),
    "a point that is not the engineer's": ({"ReadOnly": 0.0}, 2, "ReadOnly of model 705 is not a point"),
    "a value beyond its register": ({"Pt[0].V": 1e6}, 2, "cannot be written"),
    "nothing": ({}, 2, "no values to write"),
}


@pytest.mark.parametrize(("curve", "index", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_curve_to_write_never_reaches_the_device(curve: Curve, index: int, why: str) -> None:
    async def act(device: Inverter, unit: Unit, chain: Chain) -> None:
        with pytest.raises(WriteForbidden, match=why):
            await write_curve(unit, place_of(chain, 705), curve, index, wait=device.wait)
        assert device.writes == []

    with_inverter(act)


def test_a_model_without_curves_is_told_apart() -> None:
    async def act(device: Inverter, unit: Unit, chain: Chain) -> None:
        with pytest.raises(DeviceMismatch):
            await write_curve(unit, place_of(chain, 704), VOLT_VAR, 2, wait=device.wait)
        assert device.writes == []

    with_inverter(act)


def test_a_function_is_enabled_and_disabled_by_an_act_of_its_own() -> None:
    async def act(device: Inverter, unit: Unit, chain: Chain) -> None:
        assert await enable(unit, chain, 712, True)
        assert device.get(712, "Ena") == 1
        assert await enable(unit, chain, 712, False)
        assert device.get(712, "Ena") == 0
        device.refuses = lambda model_id, offset, count: 0
        for forbidden in (704, 703, 707):
            with pytest.raises(WriteForbidden):
                await enable(unit, chain, forbidden, True)
        assert device.writes == [(712, 2, 1)] * 2

    with_inverter(act)


def test_constant_reactive_power_is_held_with_its_reversion_armed_and_let_go() -> None:
    async def act(device: Inverter, unit: Unit, chain: Chain) -> None:
        _implement_var_set(device)
        assert await write_reactive(unit, chain, -1200.0, 600.0) == -1200.0
        held = {name: device.get(704, name) for name in ("VarSetEna", "VarSetMod", "VarSetEnaRvrt", "VarSetRvrtTms")}
        assert held == {"VarSetEna": 1, "VarSetMod": 4, "VarSetEnaRvrt": 0, "VarSetRvrtTms": 600}
        assert device.writes == [(704, 35, 12)]
        assert await write_reactive(unit, chain, None, 0.0) is None
        assert device.writes[1:] == [(704, 35, 1)]

    with_inverter(act)


def test_constant_reactive_power_is_refused_while_volt_var_is_active_and_the_other_way_round() -> None:
    async def act(device: Inverter, unit: Unit, chain: Chain) -> None:
        _implement_var_set(device)
        assert await enable(unit, chain, 705, True)
        device.writes.clear()
        with pytest.raises(WriteForbidden, match=r"beside an enabled volt-var \(705\)"):
            await write_reactive(unit, chain, 500.0, 600.0)
        assert device.writes == []
        await enable(unit, chain, 705, False)
        assert await write_reactive(unit, chain, 500.0, 600.0) == 500.0
        device.writes.clear()
        with pytest.raises(WriteForbidden, match="beside an enabled constant reactive power"):
            await enable(unit, chain, 705, True)
        assert device.writes == []

    with_inverter(act)


def _implement_var_set(device: Inverter) -> None:
    for name in ("Ena", "Mod", "Pri", "", "Rvrt", "Pct", "PctRvrt", "EnaRvrt", "RvrtTms", "RvrtRem", "_SF", "Pct_SF"):
        device.put(704, f"VarSet{name}", 0)


def test_a_setting_is_written_in_its_own_unit_and_read_back() -> None:
    async def act(device: Inverter, unit: Unit, chain: Chain) -> None:
        assert await write_setting(unit, place_of(chain, 702), "WMax", 4000.0) == 4000.0
        assert device.writes == [(702, 26, 1)]
        for model_id, name in (
            (702, "VNom"),
            (703, "ESVHi"),
            (704, "AntiIslEna"),
            (704, "WMaxLimPct"),
            (702, "Nothing"),
        ):
            device.put(702, "VNom", 240)
            device.put(703, "ESVHi", 105)
            device.put(703, "V_SF", 0)
            with pytest.raises(WriteForbidden):
                await write_setting(unit, place_of(chain, model_id), name, 1.0)
        assert len(device.writes) == 1

    with_inverter(act)


def test_drift_of_the_active_curve_is_told_and_of_the_others_not() -> None:
    async def act(device: Inverter, unit: Unit, chain: Chain) -> None:
        await write_curve(unit, place_of(chain, 705), VOLT_VAR, 2, wait=device.wait)
        before = settings_of(await read_image(unit, place_of(chain, 705)))
        assert before["705.Crv[0].Pt[3].V"] == pytest.approx(108.0)
        device.put(705, "Crv[1].Pt[3].V", 1090)
        assert drift(before, settings_of(await read_image(unit, place_of(chain, 705)))) == []
        device.put(705, "Crv[0].Pt[3].V", 1100)
        device.put(705, "Ena", 1)
        assert drift(before, settings_of(await read_image(unit, place_of(chain, 705)))) == [
            "705.Crv[0].Pt[3].V was 108, is 110",
            "705.Ena was 0, is 1",
        ]
        device.put(705, "Crv[0].ActPt", 3)
        gone = drift(before, settings_of(await read_image(unit, place_of(chain, 705))))
        assert "705.Crv[0].Pt[3].V was 108, and is not there any more" in gone

    with_inverter(act)


def test_drift_tells_what_is_new_and_forgives_the_noise_of_floats() -> None:
    assert drift({"702.WMax": 0.1 + 0.2}, {"702.WMax": 0.3, "703.ES": 1.0}) == ["703.ES is new: 1"]
