"""Models laid out: every point of every model as pysunspec2 has it, counts and lengths as devices send them."""

import math
import random
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sunspec2
import sunspec2.device
import sunspec2.mb

from drivers.sunspec.codec import Image
from drivers.sunspec.models import (
    SCALE_FACTOR,
    Model,
    Point,
    Value,
    counts_of,
    decode_point,
    encode_model,
    encode_point,
    is_numeric,
    layout,
    layout_of,
    repeated,
)

MODELS = (
    *(1, 101, 102, 103, 111, 112, 113, 120, 121, 122, 123, 124, 160),
    *(201, 202, 203, 204, 211, 212, 213, 214),
    *range(701, 716),
    *(802, 803, 804),
)
"""Every model that is read."""
REPEATS: Mapping[str, tuple[int, int]] = {
    "NCrv": (1, 4),
    "NPt": (1, 6),
    "NCtl": (1, 3),
    "NCrvSet": (1, 3),
    "NPrt": (1, 5),
    "NStr": (1, 6),
    "NMod": (1, 6),
    "module": (1, 5),
}
"""How often groups repeat in the maps of these tests, by count or, where the definition has none, group."""
FILLED = {160: "module"}


def laid_out_at_random(model_id: int, chance: random.Random) -> Model:
    names = (FILLED.get(model_id, name) if name == "0" else name for name in counts_of(model_id))
    return layout(model_id, {name: chance.randint(*REPEATS[name]) for name in names})


def registers_at_random(point: Point, chance: random.Random) -> bytes:
    """Any registers that a point may hold, its sentinel more often than chance has it."""
    if point.type == SCALE_FACTOR:
        return encode_point(point, chance.choice([*range(-10, 11), None]))
    if point.type == "string":
        length = chance.randint(0, 2 * point.size)
        return bytes(chance.choices(range(0x21, 0x7F), k=length)).ljust(2 * point.size, b"\0")
    if chance.random() < 0.2:
        return encode_point(point, None)
    if point.type == "float32":
        return struct.pack(">f", chance.choice([0.0, chance.uniform(-1e6, 1e6), chance.uniform(-1, 1)]))
    return chance.randbytes(2 * point.size)


def instance_at_random(model: Model, chance: random.Random) -> bytes:
    fixed: Mapping[str, Value] = {"ID": model.id, "L": model.length, **model.repeats}
    return b"".join(
        encode_point(point, fixed[point.name]) if point.name in fixed else registers_at_random(point, chance)
        for point in model.points.values()
    )


def oracle_points(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every point that pysunspec2 found, by our names."""
    for name, point in group.points.items():
        yield path + name, point
    for name, child in group.groups.items():
        children = enumerate(child) if isinstance(child, list) else [(None, child)]
        for number, each in children:
            yield from oracle_points(each, f"{path}{name}." if number is None else f"{path}{name}[{number}].")


def oracle_of(model_id: int, data: bytes) -> dict[str, Any]:
    return dict(oracle_points(sunspec2.device.Model(model_id, data=data, model_len=len(data) // 2 - 2)))


def scale_missing(image: Image, name: str) -> bool:
    scale = image.model.scale_of(image.model.points[name])
    return isinstance(scale, Point) and image.raw(scale.name) is None


@pytest.mark.parametrize("model_id", MODELS)
def test_every_point_of_any_instance_is_what_pysunspec2_reads(model_id: int) -> None:
    chance = random.Random(model_id)
    for _ in range(20):
        model = laid_out_at_random(model_id, chance)
        data = instance_at_random(model, chance)
        image, oracle = Image(model_id, data), oracle_of(model_id, data)
        assert image.model.points.keys() == oracle.keys()
        for name, point in oracle.items():
            own = image.model.points[name]
            if own.type == "pad":
                continue
            assert image.raw(name) == point.value, name
            if is_numeric(own.type) and point.value is not None:
                expected = math.nan if scale_missing(image, name) else point.cvalue
                assert image.number(name) == pytest.approx(expected, rel=1e-9, nan_ok=True), name


@pytest.mark.parametrize("model_id", MODELS)
def test_encoded_model_is_what_pysunspec2_reads_back_and_the_rest_is_not_implemented(model_id: int) -> None:
    chance = random.Random(model_id + 1000)
    model = laid_out_at_random(model_id, chance)
    image = Image(model_id, instance_at_random(model, chance))
    values = {name: image.raw(name) for name in model.points if chance.random() < 0.5}
    values = {name: value for name, value in values.items() if name not in ("ID", "L", *model.repeats)}
    data = encode_model(model, values)
    oracle = oracle_of(model_id, data)
    assert len(data) == 2 * model.size
    assert (oracle["ID"].value, oracle["L"].value) == (model_id, model.length)
    for name, point in oracle.items():
        if name not in ("ID", "L", *model.repeats) and model.points[name].type != "pad":
            assert point.value == values.get(name), name


def test_value_that_a_model_has_no_point_for_is_refused() -> None:
    with pytest.raises(KeyError, match="Wsp"):
        encode_model(layout(704), {"Wsp": 1})


def test_all_definitions_of_the_package_lay_out_with_the_scale_factors_they_name() -> None:
    paths = (Path(sunspec2.__file__).parent / "models" / "json").glob("model_*.json")
    for model_id in sorted(int(path.stem.removeprefix("model_")) for path in paths):
        model = layout(model_id, dict.fromkeys(counts_of(model_id), 2), registers=500)
        scales = [model.scale_of(point) for point in model.points.values() if point.sf is not None]
        assert all(isinstance(scale, int) or scale.type == SCALE_FACTOR for scale in scales)


VOLT_VAR = layout(705, {"NCrv": 3, "NPt": 4})


def test_curves_repeat_as_often_as_the_device_says() -> None:
    image = Image(705, encode_model(VOLT_VAR, {"Crv[2].Pt[3].V": 108, "V_SF": -1}))
    assert repeated(image.model, "Crv") == ("Crv[0].", "Crv[1].", "Crv[2].")
    assert image.number("Crv[2].Pt[3].V") == pytest.approx(10.8)
    assert "Crv[3].ActPt" not in image.model.points
    assert "Crv[0].Pt[4].V" not in image.model.points
    assert image.faults() == []


def test_trip_curves_nest_three_deep() -> None:
    model = layout(707, {"NCrvSet": 2, "NPt": 3})
    image = Image(707, encode_model(model, {"Crv[1].MomCess.Pt[2].Tms": 250, "Tms_SF": -2}))
    assert image.number("Crv[1].MomCess.Pt[2].Tms") == pytest.approx(2.5)


@pytest.mark.parametrize("repeats", [1, 2, 7])
def test_group_without_a_count_fills_the_length(repeats: int) -> None:
    data = encode_model(layout(160, {"module": repeats}), {"N": 99, f"module[{repeats - 1}].DCW": 12, "DCW_SF": 1})
    image = Image(160, data)
    assert len(repeated(image.model, "module")) == repeats
    assert image.number(f"module[{repeats - 1}].DCW") == 120


def test_count_that_the_length_contradicts_gives_the_strings_that_fit() -> None:
    three = encode_model(layout(803, {"NStr": 3}), {"NStr": 20, "string[2].StrSoC": 505, "SoC_SF": -1})
    image = Image(803, three)
    assert len(repeated(image.model, "string")) == 3
    assert image.number("string[2].StrSoC") == pytest.approx(50.5)
    assert [sentence for sentence in image.faults() if "string of model 803: 20 do not fit" in sentence]


def test_last_string_that_is_cut_off_gives_the_points_it_has() -> None:
    data = encode_model(layout(803, {"NStr": 2}), {"string[1].StrSoC": 505, "SoC_SF": -1})[: -2 * 16]
    image = Image(803, data)
    assert image.number("string[1].StrSoC") == pytest.approx(50.5)
    assert not image.implements("string[1].StrEvt1")
    assert image.faults()


def test_longer_instance_than_the_definition_is_read_as_far_as_it_is_known() -> None:
    data = encode_model(layout(803, {"NStr": 1}), {"string[0].StrSoC": 505, "SoC_SF": -1})
    image = Image(803, data + b"\x12\x34" * 40)
    assert len(repeated(image.model, "string")) == 1
    assert image.faults() == []


@pytest.mark.parametrize("count", [0, None])
def test_no_count_is_no_repeats(count: int | None) -> None:
    data = encode_model(VOLT_VAR, {"NCrv": count})
    assert repeated(Image(705, data).model, "Crv") == ()


def test_absurd_counts_are_bounded_by_the_length() -> None:
    values = {"NCrvSet": 0xFFFE, "NPt": 0xFFFE}
    data = encode_model(layout(707, {"NCrvSet": 1, "NPt": 1}), {**values})
    model = layout_of(707, data, len(data) // 2)
    assert len(model.points) < 30
    assert max(point.offset for point in model.points.values()) < len(data) // 2 + 5


def test_instance_cut_before_its_counts_has_no_repeats() -> None:
    image = Image(705, encode_model(VOLT_VAR, {"Ena": 1})[: 2 * 4])
    assert image.raw("Ena") == 1
    assert repeated(image.model, "Crv") == ()


def point_of_type(point_type: str, size: int) -> Point:
    return Point("P", point_type, 0, size, None, True, False)


SENTINELS = {
    **dict.fromkeys(("int16", "sunssf", "pad"), "8000"),
    **dict.fromkeys(("uint16", "enum16", "bitfield16", "count"), "ffff"),
    **dict.fromkeys(("uint32", "enum32", "bitfield32"), "ffffffff"),
    **dict.fromkeys(("uint64", "bitfield64"), "ffffffffffffffff"),
    "int32": "80000000",
    "int64": "8000000000000000",
    "acc16": "0000",
    "acc32": "00000000",
    "acc64": "0000000000000000",
    "ipaddr": "00000000",
    "ipv6addr": "00" * 16,
    "eui48": "0000ffffffffffff",
    "float32": "7fc00000",
    "float64": "7ff8000000000000",
    "string": "00" * 16,
}


@pytest.mark.parametrize(("point_type", "words"), SENTINELS.items())
def test_sentinel_is_not_implemented_and_is_what_goes_out_for_nothing(point_type: str, words: str) -> None:
    data = bytes.fromhex(words)
    point = point_of_type(point_type, len(data) // 2)
    assert decode_point(point, data) is None
    assert encode_point(point, None) == data


def test_every_type_of_the_models_has_a_sentinel_here() -> None:
    assert {point.type for model_id in MODELS for point in layout(model_id).points.values()} <= SENTINELS.keys()
    assert sunspec2.mb.point_type_info.keys() <= SENTINELS.keys()


@pytest.mark.parametrize("words", ["7fc00000", "ffc00000", "7f800001", "7fffffff", "ff812345"])
def test_any_nan_is_not_implemented(words: str) -> None:
    assert decode_point(point_of_type("float32", 2), bytes.fromhex(words)) is None


def test_float_that_is_infinite_is_no_number() -> None:
    image = Image(113, encode_model(layout(113), {"W": math.inf, "Hz": 50.0}))
    assert math.isnan(image.number("W"))
    assert image.number("Hz") == 50.0


@pytest.mark.parametrize(
    ("point_type", "size", "value"),
    [
        ("ipv6addr", 8, "2001:db8::7"),
        ("eui48", 4, "00:1A:2B:3C:4D:5E"),
        ("string", 8, "Größe 5"),
    ],
)
def test_text_and_addresses_come_back_as_they_went_out(point_type: str, size: int, value: str) -> None:
    point = point_of_type(point_type, size)
    data = encode_point(point, value)
    assert len(data) == 2 * size
    assert decode_point(point, data) == value


def test_mac_address_of_zeros_is_none() -> None:
    assert decode_point(point_of_type("eui48", 4), bytes(8)) is None


def test_text_too_long_for_its_registers_is_cut_at_a_whole_character() -> None:
    point = point_of_type("string", 2)
    assert decode_point(point, encode_point(point, "abcö")) == "abc"


MALICIOUS = {
    "terminal colours": (b"\x1b[31;1mAcme\x1b[0m", "Acme"),
    "terminal title": (b"\x1b]0;owned\x07Acme", "Acme"),
    "unfinished terminal sequence": (b"Acme\x1b[", "Acme["),
    "line ends for the log": (b"Acme\r\n2024 INFO all well", "Acme2024 INFO all well"),
    "right-to-left override": ("Acme\u202egpj.exe".encode(), "Acmegpj.exe"),
    "isolates and marks": ("\u2066Ac\u200fme\u2069\ufeff".encode(), "Acme"),
    "text after the end": (b"Acme\0<script>", "Acme"),
    "Latin-1": ("Grün".encode("latin-1"), "Grün"),
    "control characters alone": (b"\x01\x02\x1b", None),
}


@pytest.mark.parametrize(("data", "shown"), MALICIOUS.values(), ids=MALICIOUS.keys())
def test_text_from_a_device_is_harmless_to_show(data: bytes, shown: str | None) -> None:
    assert decode_point(point_of_type("string", 16), data.ljust(32, b"\0")) == shown
