"""Controls as pure functions: what a command changes, and in which requests it goes out."""

import math

import pytest

from derms.domain.dispatch import Command, Quantity
from derms.errors import WriteForbidden
from drivers.sunspec.codec import Image
from drivers.sunspec.control import Change, controls, rearmed, smallest, writes
from drivers.sunspec.writable import Permission
from tests.drivers.oracles import BATTERY_1547, BATTERY_LEGACY, PV_1547, model_bytes


def image_of(model_id: int, **points: int) -> Image:
    held = {**PV_1547, **BATTERY_LEGACY, **BATTERY_1547}[model_id]
    return Image(model_id, model_bytes(model_id, {**held, **points}))


def test_only_listed_points_can_be_put_into_a_write() -> None:
    image = image_of(704, WRmp=50, AntiIslEna=1)
    for name in ("WRmp", "AntiIslEna", "WMaxLimPctRvrtRem"):
        with pytest.raises(WriteForbidden, match=f"{name} of model 704 is not a point that dispatch may write"):
            writes(image, Change(value={name: 1}), value_first=False)
    with pytest.raises(WriteForbidden, match="WMaxLimPct of model 704 is not a point that engineer may write"):
        writes(image, Change(value={"WMaxLimPct": 1}), value_first=False, who=Permission.ENGINEER)


def test_a_block_ends_where_a_point_stands_that_may_not_be_written() -> None:
    image = image_of(704)
    change = Change(value={"WMaxLimPct": 60}, enable={"WSetEna": 1})
    requests = writes(image, change, value_first=False)
    assert [(write.offset, len(write.data) // 2) for write in requests] == [(15, 1), (22, 1)]


def test_what_enables_goes_out_last_wherever_it_stands() -> None:
    image = image_of(124)
    change = Change(value={"OutWRte": 5}, reversion={"InOutWRte_RvrtTms": 9}, enable={"StorCtl_Mod": 3})
    for value_first in (False, True):
        assert writes(image, change, value_first=value_first)[-1].names == ("StorCtl_Mod",)


def test_points_that_a_device_lacks_are_left_out_when_it_takes_them_one_by_one() -> None:
    image = Image(704, model_bytes(704, {"WSetEna": 0, "WSet": 0, "WSet_SF": 0, "WSetRvrtTms": 0}))
    change = Change({"WSetMod": 1, "WSet": 5}, {"WSetRvrt": 0, "WSetRvrtTms": 60}, {"WSetEna": 1}, needs=("WSet",))
    requests = writes(image, change, value_first=True)
    assert [write.names for write in requests] == [("WSet",), ("WSetRvrtTms",), ("WSetEna",)]


def test_nothing_to_change_is_no_request() -> None:
    assert writes(image_of(704), Change(), value_first=False) == []
    assert writes(image_of(704), Change(), value_first=True) == []


def test_a_timer_that_a_device_lacks_cannot_be_refreshed() -> None:
    image = Image(704, model_bytes(704, {**BATTERY_1547[704], "WSetEna": 1, "WSetRvrtTms": None}))
    images = {704: image, 713: image_of(713), 702: image_of(702)}
    control = controls(images)[Quantity.P_SET]
    with pytest.raises(WriteForbidden):
        writes(image, rearmed(control, image, Quantity.P_SET, 60.0, whole=False), value_first=False)


@pytest.mark.parametrize("held_w", [0.0, 1230.0, -4990.0])
def test_what_is_written_again_as_held_is_the_same_registers(held_w: float) -> None:
    images = {model_id: image_of(model_id) for model_id in (120, 121, 123, 124)}
    control = controls(images)[Quantity.P_SET]
    given = Command(Quantity.P_SET, held_w * 0.8, 600.0)
    written = control.change(images[124], given)
    names = {**written.value, **written.reversion, **written.enable}
    held = image_of(124, **names)
    assert rearmed(control, held, Quantity.P_SET, 600.0, whole=True) == written


def test_the_smallest_power_is_that_of_those_that_are_known() -> None:
    assert smallest(5000.0, math.nan, 4000.0, 0.0) == 4000.0
    assert math.isnan(smallest(math.nan, 0.0))
