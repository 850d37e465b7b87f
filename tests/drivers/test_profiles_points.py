"""Points, layouts and controls of plain maps: numbers in and out of registers, pure."""

import math
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pymodbus.client.mixin import ModbusClientMixin

from derms.domain.arrays import FloatArray
from derms.domain.dispatch import Command, Held, Quantity
from derms.domain.telemetry import COLUMNS
from derms.errors import WriteForbidden
from drivers.modbus.unit import Span, Table
from drivers.profiles.control import Per, RegisterControl, Registers, Switch, Write
from drivers.profiles.layout import read_plan, spans_of, without_holes
from drivers.profiles.loader import packaged
from drivers.profiles.point import ORDERS, TYPES, Point, Text
from drivers.profiles.profile import Measured, Profile, Reads, Speaks

_TYPES = [kind for kind in ModbusClientMixin.DATATYPE if kind.name.lower() in TYPES]


@pytest.mark.parametrize("kind", _TYPES, ids=lambda kind: kind.name)
@pytest.mark.parametrize("order", ["ABCD", "CDAB"])
@given(data=st.data())
def test_registers_read_as_pymodbus_reads_them(
    kind: ModbusClientMixin.DATATYPE, order: str, data: st.DataObject
) -> None:
    point = Point(0, kind.name.lower(), order)
    raw = data.draw(st.binary(min_size=2 * point.size, max_size=2 * point.size))
    words = list(struct.unpack(f">{point.size}H", raw))
    theirs = ModbusClientMixin.convert_from_registers(words, kind, word_order="big" if order == "ABCD" else "little")
    ours = point.raw(raw)
    assert ours == theirs or (math.isnan(ours) and math.isnan(float(theirs)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("order", "data"), [(order, order.encode()) for order in ORDERS])
def test_the_four_byte_orders_are_what_their_names_say(order: str, data: bytes) -> None:
    point = Point(0, "uint32", order)
    assert point.raw(data) == int.from_bytes(b"ABCD", "big")
    assert point.pack(int.from_bytes(b"ABCD", "big")) == data


@given(
    kind=st.sampled_from(["int16", "uint16", "int32", "uint32"]),
    order=st.sampled_from(ORDERS),
    scale=st.sampled_from([1.0, 0.1, 10.0, -1.0, -690.0]),
    number=st.floats(-2e4, 2e4),
)
def test_what_is_written_is_read_back_within_a_step_and_never_more(
    kind: str, order: str, scale: float, number: float
) -> None:
    point = Point(0, kind, order, scale=scale)
    low, high = (0, 2**16) if kind[0] == "u" else (-(2**15), 2**15)
    assume(low < number / scale < high - 1)
    back = point.number(point.registers(number))
    assert abs(back) <= abs(number) * (1 + 1e-9) + abs(scale) * 1e-5
    assert abs(back - number) < abs(scale) * (1 + 1e-5)


@pytest.mark.parametrize("number", [70000.0, -1.0, math.nan, math.inf, -math.inf])
def test_a_number_that_does_not_fit_is_never_cut_to_fit(number: float) -> None:
    with pytest.raises(WriteForbidden, match="does not fit"):
        Point(5, "uint16").registers(number)


def test_a_number_that_would_read_as_no_value_is_not_written() -> None:
    with pytest.raises(WriteForbidden, match="no value"):
        Point(5, "uint16", absent=(0xFFFF,)).registers(65535.0)
    with pytest.raises(WriteForbidden, match="no value"):
        Point(5, "float32").registers(math.nan)
    with pytest.raises(WriteForbidden, match="does not fit"):
        Point(5, "float32").registers(1e300)


def test_a_text_ends_at_its_first_nul_and_loses_what_cannot_be_printed() -> None:
    assert Text(0, 4).text(b"SN-\x1b7\0xx") == "SN-7"


def decoded(profile: Profile, *readings: bytes) -> dict[str, FloatArray]:
    layout, _ = read_plan(profile)
    raw = np.stack([np.frombuffer(reading, dtype=np.uint8) for reading in readings])
    return {name: values for name, values in layout.decode(raw).items() if np.isfinite(values).any()}


def made(*telemetry: Measured, **changes: object) -> Profile:
    profile = replace(packaged()["meter"], telemetry=telemetry)
    return replace(profile, speaks=Speaks.REGISTERS, **changes)  # type: ignore[arg-type]


def test_many_readings_become_columns_at_once() -> None:
    profile = made(
        Measured("p_w", (Point(10, "int32", "CDAB", scale=-10.0),)),
        Measured("v_v", (Point(12, scale=0.1, absent=(0xFFFF,)),)),
        Measured("state", (Point(13, codes=((0, 7), (5, 3))),)),
        Measured("temp_c", (Point(14, "int16", scale=0.1, offset=-40.0),)),
    )
    one = struct.pack(">HHHHh", 0xFFFE, 0xFFFF, 2305, 5, 650)
    two = struct.pack(">HHHHh", 3, 0, 0xFFFF, 4, -10)
    columns = decoded(profile, one, two)
    np.testing.assert_allclose(columns["p_w"], [20.0, -30.0])
    np.testing.assert_allclose(columns["v_v"], [230.5, np.nan])
    np.testing.assert_allclose(columns["state"], [3.0, np.nan])
    np.testing.assert_allclose(columns["temp_c"], [25.0, -41.0])


def test_every_column_is_there_with_its_shape() -> None:
    layout, _ = read_plan(packaged()["meter"])
    columns = layout.decode(np.zeros((3, layout.width), dtype=np.uint8))
    assert {name: values.shape for name, values in columns.items()} == {
        name: (3, 3) if "phase" in name else (3,) for name in COLUMNS
    }
    assert layout.scales(np.zeros((3, layout.width), dtype=np.uint8)).shape == (3, 0)


def test_float_that_is_no_number_is_missing() -> None:
    profile = made(Measured("p_w", (Point(0, "float32"),)))
    columns = decoded(profile, *(struct.pack(">f", number) for number in (5, np.nan, np.inf, -np.inf)))
    np.testing.assert_array_equal(columns["p_w"], [5.0, np.nan, np.nan, np.nan])


@given(data=st.data())
def test_columns_agree_with_points_read_one_by_one(data: st.DataObject) -> None:
    profile = packaged()[data.draw(st.sampled_from(["site-battery", "meter", "ev-charger", "load-switch"]))]
    layout, spans = read_plan(profile)
    raw = data.draw(st.binary(min_size=layout.width, max_size=layout.width))
    words: dict[tuple[Table, int], bytes] = {}
    at = 0
    for span in spans:
        for word in range(span.count):
            words[span.table, span.address + word] = raw[at : at + 2]
            at += 2
    columns = layout.decode(np.frombuffer(raw, dtype=np.uint8)[None])
    for measured in profile.telemetry:
        for lane, point in enumerate(measured.points):
            number = point.number(b"".join(words[point.table, point.address + i] for i in range(point.size)))
            np.testing.assert_allclose(columns[measured.column].reshape(-1)[lane], number, rtol=1e-12)


def test_layouts_of_one_profile_are_equal_and_hash_alike() -> None:
    first, second = (read_plan(made(Measured("p_w", (Point(7, "int32"),))))[0] for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != read_plan(made(Measured("p_w", (Point(7, "uint32"),))))[0]


def test_neighbours_are_read_together_and_holes_only_as_far_as_they_may() -> None:
    points = [Point(0, "float32"), Point(2, "float32"), Point(20), Point(200), Point(300, table=Table.INPUT)]
    far = (Span(200, 1), Span(300, 1, Table.INPUT))
    assert spans_of(points, Reads(hole_max=16)) == (Span(0, 21), *far)
    assert spans_of(points, Reads(hole_max=15)) == (Span(0, 4), Span(20, 1), *far)
    assert spans_of(points, Reads(16, count_max=20))[:2] == (Span(0, 4), Span(20, 1))


def test_the_meter_is_read_in_one_request_of_what_it_allows() -> None:
    profile = packaged()["meter"]
    layout, spans = read_plan(profile)
    assert spans == (Span(0, 76, Table.INPUT),)
    assert layout.width == 152
    parts = without_holes(spans[0], profile)
    assert [(part.address, part.count) for part in parts][:2] == [(0, 6), (12, 6)]


def test_the_charger_with_holes_is_read_point_by_point() -> None:
    spans = read_plan(packaged()["ev-charger"])[1]
    assert [(span.address, span.count) for span in spans[:4]] == [(1000, 1), (1014, 1), (1020, 2), (1036, 2)]


def test_what_controls_hold_is_read_last_and_is_no_measurement() -> None:
    layout, spans = read_plan(packaged()["site-battery"])
    assert [(span.address, span.count) for span in spans] == [(200, 19), (301, 6)]
    raw = bytes(range(layout.width % 251)) + bytes(layout.width - layout.width % 251)
    assert layout.measured(raw) == raw[:38]


CONTROL = RegisterControl(
    value=Point(301, "int32", scale=-1.0), enable=Switch(303), timer=Point(300), left=Point(304), low=-8e3, high=8e3
)


def registers(control: RegisterControl, **raw: int) -> Registers:
    """Registers of a control: value, enable, timer, left as the device counts; 0 where not given."""
    points = {"value": control.shown, "timer": control.timer, "left": control.left}
    points["enable"] = control.enable.point if control.enable else None
    found: dict[tuple[Table, int], bytes] = {}
    for name, point in points.items():
        if point is not None:
            data = point.pack(raw.get(name, 0))
            found |= {(point.table, point.address + i): data[2 * i : 2 * i + 2] for i in range(point.size)}
    return found


def told(value_w: float | None, reversion_s: float = 600.0) -> Command:
    return Command(Quantity.P_SET, value_w, reversion_s)


def test_timer_value_and_enable_go_out_in_one_request_where_they_are_neighbours() -> None:
    found = CONTROL.writes(registers(CONTROL), told(2500.7), 10e3)
    assert found == [Write(300, struct.pack(">HiH", 600, -2500, 1))]


def test_what_already_stands_there_is_not_written_again_but_the_value_is() -> None:
    armed = registers(CONTROL, value=-2500, enable=1, timer=600)
    assert CONTROL.writes(armed, told(2500.0), 10e3) == [Write(301, struct.pack(">i", -2500))]
    assert CONTROL.writes(armed, told(2500.0, 700.0), 10e3) == [Write(300, struct.pack(">Hi", 700, -2500))]


def test_zero_everything_and_release_are_three_things() -> None:
    free, zero, whole = (
        CONTROL.held_by(registers(CONTROL, enable=on, value=value, timer=600, left=17), 10e3)
        for on, value in ((0, -5), (1, 0), (1, -8000))
    )
    assert free.value_w is None
    assert zero == Held(0.0, 600.0, 17.0, 1.0)
    assert whole.value_w == 8000.0
    assert CONTROL.writes(registers(CONTROL, enable=1), told(None), 10e3) == [Write(303, b"\0\0")]


def test_value_beyond_what_the_device_takes_is_refused_and_zero_never() -> None:
    low = replace(CONTROL, low=2e3)
    with pytest.raises(WriteForbidden, match="is not from -8000 to 8000"):
        CONTROL.writes(registers(CONTROL), told(8001.0), 10e3)
    with pytest.raises(WriteForbidden, match="is not from 2000"):
        low.writes(registers(low), told(1999.0), 10e3)
    assert low.writes(registers(low, timer=600, enable=1), told(0.0), 10e3) == [Write(301, bytes(4))]


def test_per_cent_of_the_rating_go_no_further_than_all_of_it() -> None:
    control = RegisterControl(Point(8, scale=0.1), Per.PERCENT, enable=Switch(9))
    assert control.writes(registers(control), told(2500.0), 10e3)[0].data == struct.pack(">HH", 250, 1)
    assert control.writes(registers(control), told(12e3), 10e3)[0].data == struct.pack(">HH", 1000, 1)
    held = control.held_by(registers(control, value=250, enable=1), 10e3)
    assert (held.value_w, held.resolution_w) == (2500.0, 10.0)
    assert math.isnan(held.reversion_s)
    with pytest.raises(WriteForbidden, match="cannot be told"):
        control.writes(registers(control), told(2500.0), math.nan)


def test_time_above_zero_never_arms_as_zero() -> None:
    slow = replace(CONTROL, timer=Point(300, scale=60.0))
    assert slow.writes(registers(slow), told(1.0, 5.0), 10e3)[0].data[:2] == b"\0\1"
    for reversion_s in (-1.0, math.nan):
        with pytest.raises(WriteForbidden, match="cannot be armed"):
            slow.writes(registers(slow), told(1.0, reversion_s), 10e3)


def test_limit_that_is_held_shows_in_the_columns_while_it_is_in_force() -> None:
    control = RegisterControl(Point(8, scale=0.1), Per.PERCENT, enable=Switch(9), left=Point(10))
    profile = made(Measured("p_w", (Point(0),)), controls={Quantity.P_LIMIT: control})
    on, off = (struct.pack(">HHHH", 77, 250, state, 30) for state in (1, 0))
    columns = decoded(profile, on, off)
    np.testing.assert_allclose(columns["p_limit_frac"], [0.25, np.nan])
    np.testing.assert_allclose(columns["limit_left_s"], [30.0, np.nan])


def test_a_map_tells_local_control_by_its_own_codes() -> None:
    profile = made(Measured("p_w", (Point(0),)), Measured("local", (Point(1, codes=((3, 1), (4, 0))),)))
    columns = decoded(profile, *(struct.pack(">HH", 77, word) for word in (3, 4, 5)))
    np.testing.assert_equal(columns["local"], [1.0, 0.0, np.nan])
