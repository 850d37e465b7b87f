"""Point by point, encoding and decoding are inverse, pysunspec2 agrees, and rounding never asks for more."""

import math
import struct

import pytest
import sunspec2.mb
from hypothesis import given, settings
from hypothesis import strategies as st

from derms.errors import WriteForbidden
from drivers.sunspec.codec import STEP_NOISE, Image
from drivers.sunspec.models import Point, Value, decode_point, encode_point, number_format
from tests.drivers.oracles import BATTERY_1547, Points, model_bytes

NUMBERS = (
    *("int16", "uint16", "count", "acc16", "enum16", "bitfield16", "sunssf"),
    *("int32", "uint32", "acc32", "enum32", "bitfield32", "ipaddr", "float32"),
    *("int64", "uint64", "acc64", "bitfield64", "float64"),
)
"""Every type that holds a number; a pad holds nothing."""
UNKNOWN_TO_PYSUNSPEC2 = {"bitfield64"}


def point_of(point_type: str, size: int | None = None) -> Point:
    size = size or struct.calcsize(">" + number_format(point_type)) // 2
    return Point("P", point_type, 0, size, None, True, False)


def pysunspec2_value(point_type: str, data: bytes) -> Value | None:
    info = sunspec2.mb.point_type_info[point_type]
    value: Value = info.data_to(data)
    return value if info.is_impl(value) else None


@st.composite
def register_words(draw: st.DrawFn) -> tuple[str, bytes]:
    """A type and any bytes of its size, its sentinel more often than chance has it."""
    point_type = draw(st.sampled_from(NUMBERS))
    size = 2 * point_of(point_type).size
    absent = encode_point(point_of(point_type), None)
    return point_type, draw(st.one_of(st.just(absent), st.binary(min_size=size, max_size=size)))


@settings(max_examples=400, deadline=None)
@given(register_words())
def test_decoding_agrees_with_pysunspec2_for_any_bytes(case: tuple[str, bytes]) -> None:
    point_type, data = case
    ours = decode_point(point_of(point_type), data)
    if point_type not in UNKNOWN_TO_PYSUNSPEC2:
        assert ours == pysunspec2_value(point_type, data)


@settings(max_examples=400, deadline=None)
@given(register_words())
def test_encoding_is_the_inverse_of_decoding(case: tuple[str, bytes]) -> None:
    point_type, data = case
    point = point_of(point_type)
    value = decode_point(point, data)
    encoded = encode_point(point, value)
    assert decode_point(point, encoded) == value
    if value is not None:
        assert encoded == data


@pytest.mark.parametrize("point_type", NUMBERS)
def test_sentinel_of_every_type_is_not_implemented(point_type: str) -> None:
    point = point_of(point_type)
    assert decode_point(point, encode_point(point, None)) is None
    if point_type not in UNKNOWN_TO_PYSUNSPEC2:
        assert encode_point(point, None) == sunspec2.mb.create_unimpl_value(point_type)


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=16, max_size=16))
def test_text_from_a_device_is_printable_whatever_it_sends(data: bytes) -> None:
    text = decode_point(point_of("string", 8), data)
    assert text is None or (isinstance(text, str) and text.isprintable() and 0 < len(text) <= 16)


def test_text_with_control_characters_keeps_what_can_be_read() -> None:
    data = b"\x1b[31mAcme\r\n\x07 Ltd".ljust(32, b"\0")
    assert decode_point(point_of("string", 16), data) == "Acme Ltd"


def controls_704(**points: int | None) -> Image:
    values: Points = {**BATTERY_1547[704], **points}
    return Image(704, model_bytes(704, values))


@settings(max_examples=300, deadline=None)
@given(value=st.floats(-2e6, 2e6), exponent=st.integers(-3, 3))
def test_rounding_never_asks_for_more_than_was_asked(value: float, exponent: int) -> None:
    image = controls_704(WSet_SF=exponent)
    step = 10.0**exponent
    written = image.to_register("WSet", value) * step
    assert abs(written) <= abs(value) + STEP_NOISE * step
    assert abs(value) - abs(written) <= step
    assert written * value >= 0


@settings(max_examples=200, deadline=None)
@given(register=st.integers(-(2**31) + 1, 2**31 - 1), exponent=st.integers(-6, 6))
def test_what_a_register_can_hold_is_written_exactly(register: int, exponent: int) -> None:
    image = controls_704(WSet_SF=exponent, WSet=register)
    assert image.to_register("WSet", image.number("WSet")) == register


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WSet", 3e10),
        ("WSet", -3e10),
        ("WMaxLimPct", -1.0),
        ("WMaxLimPct", 655.35),
        ("WSet", math.nan),
        ("WSet", math.inf),
    ],
)
def test_value_outside_its_register_is_refused_with_a_sentence(name: str, value: float) -> None:
    with pytest.raises(WriteForbidden, match=f"{name} of model 704 cannot be written as"):
        controls_704().to_register(name, value)


@pytest.mark.parametrize("exponent", [-11, 11, -0x8000])
def test_scale_factor_out_of_range_makes_nothing_of_its_value(exponent: int) -> None:
    image = controls_704(WSet_SF=exponent)
    assert math.isnan(image.number("WSet"))
    with pytest.raises(WriteForbidden):
        image.to_register("WSet", 100.0)


def test_points_beyond_a_shorter_model_are_not_implemented() -> None:
    image = Image(704, model_bytes(704, BATTERY_1547[704])[: 2 * 56])
    assert image.number("WSet") == 0
    assert image.implements("WSet_SF")
    assert not image.implements("WSetPct_SF")


def test_sound_model_has_no_faults() -> None:
    assert controls_704(WSetPct=None, VarSet=None).faults() == []


@pytest.mark.parametrize("exponent", [-11, 11, 0x7FFF])
def test_scale_factor_out_of_range_is_a_fault_with_a_sentence(exponent: int) -> None:
    assert controls_704(WSet_SF=exponent).faults() == [f"WSet_SF of model 704 is {exponent}, not from -10 to 10"]


def test_values_without_their_scale_factor_are_a_fault_that_names_them() -> None:
    points = {name: value for name, value in BATTERY_1547[704].items() if name != "WSet_SF"}
    image = Image(704, model_bytes(704, points))
    assert image.faults() == ["WSet_SF of model 704 is not implemented, and WSet, WSetRvrt cannot be known"]
    assert math.isnan(image.number("WSet"))


def test_scale_factor_that_changed_while_it_was_read_makes_nothing_of_its_values() -> None:
    image = Image(704, model_bytes(704, BATTERY_1547[704]), unsteady={"WSet_SF"})
    assert math.isnan(image.number("WSet"))
    assert image.number("WMaxLimPct") == 100
    assert image.faults() == ["WSet_SF of model 704 changed while the model was read"]
    with pytest.raises(WriteForbidden):
        image.to_register("WSet", 100.0)


def test_sentinels_of_a_maker_count_for_their_type_alone() -> None:
    data = model_bytes(103, {"St": 0, "W": 0, "WH": 0xFFFF_FFFF, "W_SF": 0, "WH_SF": 0})
    image = Image(103, data, absent=(("enum16", 0), ("acc32", 0xFFFF_FFFF)))
    assert not image.implements("St")
    assert math.isnan(image.number("WH"))
    assert image.number("W") == 0
    assert Image(103, data).raw("St") == 0
