"""The layout of readings: what is read, and columns that pysunspec2 decodes to the same values."""

import math
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import sunspec2.device
from hypothesis import given, settings
from hypothesis import strategies as st

from derms.domain.arrays import ByteArray, FloatArray
from derms.domain.telemetry import COLUMNS, OPERATING_STATES, is_phase
from derms.errors import DeviceMismatch
from drivers.modbus.unit import Span
from drivers.sunspec.models import encode_model, layout
from drivers.sunspec.scan import Chain, Place
from drivers.sunspec.telemetry import SunSpecLayout, read_plan
from tests.drivers.oracles import BATTERY_1547, BATTERY_LEGACY, METER, PV_1547, Points, map_bytes, model_bytes

BASE = 40000


def chain_of(models: Mapping[int, Points], base: int = BASE) -> Chain:
    places: list[Place] = []
    address = base + 2
    for model_id, points in models.items():
        size = len(model_bytes(model_id, points)) // 2
        places.append(Place(model_id, address, size))
        address += size
    return Chain(tuple(places))


def reading(models: Mapping[int, Points], spans: tuple[Span, ...], base: int = BASE) -> ByteArray:
    image = map_bytes(models)
    parts = (image[2 * (span.address - base) : 2 * (span.address - base + span.count)] for span in spans)
    return np.frombuffer(b"".join(parts), dtype=np.uint8)


def decoded(*devices: Mapping[int, Points]) -> Mapping[str, FloatArray]:
    layouts = {read_plan(chain_of(models))[0] for models in devices}
    assert len(layouts) == 1
    raw = np.stack([reading(models, read_plan(chain_of(models))[1]) for models in devices])
    layout = layouts.pop()
    assert raw.shape[1] == layout.width
    return layout.decode(raw)


def changed(models: Mapping[int, Points], model_id: int, **points: int | None) -> Mapping[int, Points]:
    return {**models, model_id: {**models[model_id], **points}}


def test_battery_is_polled_in_two_reads() -> None:
    layout, spans = read_plan(chain_of(BATTERY_1547))
    at_701 = BASE + 70
    at_704 = at_701 + 155 + 52 + 19
    assert spans == (Span(at_701, 123), Span(at_704, 67 + 9))
    assert layout.width == 2 * (123 + 67 + 9)


def test_model_between_is_read_along_where_one_request_takes_all() -> None:
    places = (Place(701, 100, 155), Place(704, 300, 67), Place(705, 367, 37), Place(713, 404, 9))
    assert read_plan(Chain(places))[1] == (Span(100, 123), Span(300, 113))
    full = (*places[:2], Place(705, 367, 49), Place(713, 416, 9))
    assert read_plan(Chain(full))[1] == (Span(100, 123), Span(300, 125))
    more = (*places[:2], Place(705, 367, 50), Place(713, 417, 9))
    assert read_plan(Chain(more))[1] == (Span(100, 123), Span(300, 67), Span(417, 9))


def test_legacy_battery_is_polled_in_two_reads() -> None:
    _, spans = read_plan(chain_of(BATTERY_LEGACY))
    at_103 = BASE + 70
    assert spans == (Span(at_103, 52), Span(at_103 + 52 + 28 + 32 + 46, 52))


def test_meter_is_polled_in_one_read() -> None:
    assert read_plan(chain_of(METER))[1] == (Span(BASE + 70, 107),)


def test_device_that_measures_nothing_is_refused() -> None:
    with pytest.raises(DeviceMismatch, match="measuring"):
        read_plan(chain_of({1: METER[1]}))


def test_devices_of_one_structure_share_a_layout_wherever_their_maps_are() -> None:
    layout, spans = read_plan(chain_of(BATTERY_1547, 40000))
    other, other_spans = read_plan(chain_of(BATTERY_1547, 50000))
    assert layout == other
    assert hash(layout) == hash(other)
    assert spans != other_spans
    assert layout != read_plan(chain_of(PV_1547))[0]


def test_battery_reads_as_columns() -> None:
    columns = decoded(BATTERY_1547, changed(BATTERY_1547, 701, W=-1000, W_SF=1))
    np.testing.assert_allclose(columns["p_w"], [4321, -10000])
    np.testing.assert_allclose(columns["q_var"], [-550, -550])
    np.testing.assert_allclose(columns["v_v"], [240.3, 240.3])
    np.testing.assert_allclose(columns["soc_frac"], [0.555, 0.555])
    assert columns["p_phase_w"].shape == (2, 3)
    assert np.isnan(columns["p_phase_w"]).all()


def test_every_column_is_there_for_every_device() -> None:
    for models in (PV_1547, BATTERY_1547, BATTERY_LEGACY, METER):
        columns = decoded(models, models)
        assert tuple(columns) == COLUMNS
        assert {name: values.shape for name, values in columns.items()} == {
            name: (2, 3) if is_phase(name) else (2,) for name in COLUMNS
        }


def test_legacy_battery_reads_as_columns() -> None:
    columns = decoded(BATTERY_LEGACY)
    np.testing.assert_allclose(columns["p_w"], [-1200])
    np.testing.assert_allclose(columns["q_var"], [33])
    np.testing.assert_allclose(columns["v_v"], [239.8])
    np.testing.assert_allclose(columns["soc_frac"], [0.62])


def test_meter_reads_as_columns_with_import_positive() -> None:
    columns = decoded(METER)
    np.testing.assert_allclose(columns["p_w"], [3_000_000])
    np.testing.assert_allclose(columns["q_var"], [-3000])
    np.testing.assert_allclose(columns["v_v"], [2401])
    np.testing.assert_allclose(columns["p_phase_w"], [[1_500_000, 1_000_000, 500_000]])
    np.testing.assert_allclose(columns["q_phase_var"], [[-1000, -2000, np.nan]])
    np.testing.assert_allclose(columns["v_phase_v"], [[2400, 2410, 2393]])
    assert np.isnan(columns["soc_frac"]).all()


def test_voltage_is_the_first_that_each_device_implements() -> None:
    no_neutral = changed(BATTERY_1547, 701, LNV=None, VL1=1201)
    line_to_line = changed(BATTERY_1547, 701, LNV=None)
    nothing = changed(BATTERY_1547, 701, LNV=None, LLV=None)
    columns = decoded(BATTERY_1547, no_neutral, line_to_line, nothing)
    np.testing.assert_allclose(columns["v_v"], [240.3, 120.1, 416.2, np.nan])


def test_one_device_without_a_value_leaves_the_others_theirs() -> None:
    columns = decoded(changed(BATTERY_1547, 713, SoC=None), BATTERY_1547, changed(BATTERY_1547, 713, Pct_SF=None))
    np.testing.assert_allclose(columns["soc_frac"], [np.nan, 0.555, np.nan])


@pytest.mark.parametrize("exponent", [-11, 11, 0x7FFF, -0x7FFF])
def test_scale_factor_out_of_range_makes_its_values_missing(exponent: int) -> None:
    columns = decoded(changed(BATTERY_1547, 701, W_SF=exponent))
    assert np.isnan(columns["p_w"]).all()
    np.testing.assert_allclose(columns["q_var"], [-550])


def test_model_shorter_than_its_definition_gives_what_it_has() -> None:
    chain = Chain((Place(701, 100, 50), Place(713, 150, 9)))
    layout, spans = read_plan(chain)
    assert spans == (Span(100, 50), Span(150, 9))
    raw = np.frombuffer(model_bytes(701, PV_1547[701])[:100] + model_bytes(713, BATTERY_1547[713]), dtype=np.uint8)
    columns = layout.decode(raw[np.newaxis])
    assert np.isnan(columns["p_w"]).all()
    np.testing.assert_allclose(columns["soc_frac"], [0.555])


WORD = st.integers(0, 0xFFFF) | st.sampled_from([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFE, 0xFFFF])
SIGNED = WORD.map(lambda word: word - 0x10000 if word >= 0x8000 else word)
EXPONENT = st.integers(-10, 10)


@settings(max_examples=80, deadline=None)
@given(
    words=st.fixed_dictionaries({"W": SIGNED, "Var": SIGNED, "LNV": WORD, "W_SF": EXPONENT, "Var_SF": EXPONENT}),
    soc=st.fixed_dictionaries({"SoC": WORD, "Pct_SF": EXPONENT}),
)
def test_columns_equal_what_pysunspec2_decodes(words: Points, soc: Points) -> None:
    models = {**BATTERY_1547, 701: {"V_SF": -1, **words}, 713: soc}
    columns = decoded(models)
    oracle = sunspec2.device.Model(701, data=model_bytes(701, models[701]))
    storage = sunspec2.device.Model(713, data=model_bytes(713, models[713]))
    expected = {"p_w": oracle.W.cvalue, "q_var": oracle.Var.cvalue, "v_v": oracle.LNV.cvalue}
    percent = storage.SoC.cvalue
    expected["soc_frac"] = None if percent is None else percent / 100
    for name, value in expected.items():
        np.testing.assert_allclose(columns[name], [np.nan if value is None else value], rtol=1e-12)


def test_layout_of_nothing_decodes_to_no_rows() -> None:
    layout: SunSpecLayout = read_plan(chain_of(METER))[0]
    columns = layout.decode(np.empty((0, layout.width), dtype=np.uint8))
    assert {values.shape for values in columns.values()} == {(0,), (0, 3)}


def inverter_701(**points: int | None) -> Mapping[int, Points]:
    return changed(BATTERY_1547, 701, **points)


def test_inverter_tells_its_state_current_frequency_and_energy() -> None:
    columns = decoded(
        inverter_701(InvSt=4, ConnSt=1, Alrm=0b101, VA=500, VA_SF=1, A=-212, A_SF=-1, PF=-950, PF_SF=-3),
    )
    assert OPERATING_STATES[int(columns["state"][0])] == "throttled"
    expected = {"connected": 1, "alarms": 5, "s_va": 5000, "i_a": -21.2, "pf": -0.95, "f_hz": 60.012}
    assert {name: columns[name][0] for name in expected} == pytest.approx(expected)
    assert columns["injected_wh"][0] == 123456
    assert math.isnan(columns["absorbed_wh"][0])


def test_energy_counter_of_eight_bytes_is_read_to_the_last_digit_a_float_holds() -> None:
    columns = decoded(inverter_701(TotWhInj=2**52 + 1, TotWhAbs=2**40 + 7))
    assert columns["injected_wh"][0] == 2**52 + 1
    assert columns["absorbed_wh"][0] == 2**40 + 7


def test_temperature_is_the_cabinets_and_else_the_next_best() -> None:
    columns = decoded(
        inverter_701(TmpCab=415, TmpSnk=500, Tmp_SF=-1),
        inverter_701(TmpSnk=500, Tmp_SF=-1),
        inverter_701(TmpOt=-55, Tmp_SF=-1),
    )
    np.testing.assert_allclose(columns["temp_c"], [41.5, 50.0, -5.5])


@pytest.mark.parametrize(("code", "state"), [*enumerate(OPERATING_STATES), (8, None), (0x7F, None), (None, None)])
def test_operating_state_is_one_of_those_known(code: int | None, state: str | None) -> None:
    (found,) = decoded(inverter_701(InvSt=code))["state"]
    assert (None if math.isnan(found) else OPERATING_STATES[int(found)]) == state


@pytest.mark.parametrize("code", range(10))
def test_older_inverter_counts_its_states_from_one(code: int) -> None:
    (found,) = decoded(changed(BATTERY_LEGACY, 103, St=code))["state"]
    assert (found == code - 1) if 1 <= code <= 8 else math.isnan(found)


HELD_704 = {"WMaxLimPctEna": 1, "WMaxLimPct": 6550, "WMaxLimPctRvrtRem": 240, "WSetEna": 1, "WSetMod": 1, "WSet": -320}


def test_limit_and_setpoint_that_the_device_holds_are_columns() -> None:
    columns = decoded(changed(BATTERY_1547, 704, **HELD_704))
    expected = {"p_limit_frac": 0.655, "limit_left_s": 240, "p_set_w": -3200, "setpoint_left_s": 23}
    assert {name: columns[name][0] for name in expected} == pytest.approx(expected)


def test_limit_and_setpoint_count_only_while_they_are_enabled_and_in_watts() -> None:
    columns = decoded(
        changed(BATTERY_1547, 704, **{**HELD_704, "WMaxLimPctEna": 0, "WSetEna": 0}),
        changed(BATTERY_1547, 704, **{**HELD_704, "WMaxLimPctEna": None, "WSetEna": None}),
        changed(BATTERY_1547, 704, **{**HELD_704, "WSetMod": 0}),
        changed(BATTERY_1547, 704, **{**HELD_704, "WSetMod": None}),
    )
    np.testing.assert_allclose(columns["p_limit_frac"], [np.nan, np.nan, 0.655, 0.655])
    np.testing.assert_allclose(columns["p_set_w"], [np.nan, np.nan, np.nan, -3200])


def test_older_limit_is_a_column_without_the_time_that_is_left() -> None:
    columns = decoded(changed(BATTERY_LEGACY, 123, WMaxLimPct=60, WMaxLim_Ena=1), BATTERY_LEGACY)
    np.testing.assert_allclose(columns["p_limit_frac"], [0.6, np.nan])
    assert np.isnan(columns["limit_left_s"]).all()


FLOATS = {"W": 1234.5, "VA": 1300.0, "VAr": -408.25, "A": 5.5, "Hz": 49.98, "PF": 95.0, "PhVphA": 231.5, "WH": 3.5e6}


@pytest.mark.parametrize("model_id", [111, 112, 113])
def test_inverter_with_floats_reads_as_columns(model_id: int) -> None:
    columns = decoded({1: METER[1], model_id: {**FLOATS, "TmpCab": math.nan, "TmpSnk": 44.0, "St": 5}})
    expected = {"p_w": 1234.5, "s_va": 1300, "q_var": -408.25, "i_a": 5.5, "f_hz": 49.98, "pf": 0.95, "v_v": 231.5}
    expected |= {"injected_wh": 3.5e6, "temp_c": 44, "state": 4}
    assert {name: columns[name][0] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_float_that_is_infinite_is_missing() -> None:
    columns = decoded({1: METER[1], 113: {**FLOATS, "W": math.inf, "VA": -math.inf}})
    assert np.isnan([columns["p_w"][0], columns["s_va"][0]]).all()
    assert columns["q_var"][0] == -408.25


def test_meter_with_floats_is_polled_in_one_read_and_reads_as_columns() -> None:
    points: Points = {"W": 10.0, "WphA": 7.5, "WphB": 2.5, "PF": -0.5, "TotWhImp": 9e5, "TotWhExp": 1e3}
    models: Mapping[int, Points] = {1: METER[1], 213: points}
    assert [span.count for span in read_plan(chain_of(models))[1]] == [124]
    columns = decoded(models)
    np.testing.assert_allclose(columns["p_phase_w"], [[7.5, 2.5, np.nan]])
    expected = {"p_w": 10, "pf": -0.5, "absorbed_wh": 9e5, "injected_wh": 1e3}
    assert {name: columns[name][0] for name in expected} == pytest.approx(expected)


def test_split_phase_meter_has_the_phases_that_are_there() -> None:
    points: Points = {"W": 300, "WphA": 100, "WphB": 200, "W_SF": 0, "PhVphA": 1201, "PhVphB": 1203, "V_SF": -1}
    columns = decoded({1: METER[1], 202: points})
    np.testing.assert_allclose(columns["p_phase_w"], [[100, 200, np.nan]])
    np.testing.assert_allclose(columns["v_phase_v"], [[120.1, 120.3, np.nan]])


BANK: Points = {"SoC": 60, "SoC_SF": 0, "W": -150, "W_SF": 1, "Evt1": 2}


def test_battery_bank_measures_power_only_where_nothing_else_does() -> None:
    beside = decoded({1: METER[1], 103: {"W": None, "W_SF": 0, "VAr": 5, "VAr_SF": 0}, 802: BANK})
    assert np.isnan([beside["p_w"][0], beside["alarms"][0]]).all()
    assert beside["soc_frac"][0] == pytest.approx(0.6)
    alone = decoded({1: METER[1], 802: BANK})
    assert (alone["p_w"][0], alone["alarms"][0]) == (-1500, 2)
    assert alone["soc_frac"][0] == pytest.approx(0.6)
    assert len(read_plan(chain_of({1: METER[1], 802: BANK}))[1]) == 1


def test_newer_models_are_read_and_the_older_beside_them_not() -> None:
    both = {**BATTERY_1547, **{model_id: BATTERY_LEGACY[model_id] for model_id in (103, 123, 124)}}
    assert {part.model_id for part in read_plan(chain_of(both))[0].parts} == {701, 704, 713}


def test_sentinels_of_a_maker_make_values_missing() -> None:
    models = changed(BATTERY_LEGACY, 103, St=0, WH=0xFFFF_FFFF, WH_SF=0, Evt1=0)
    layout_of_maker, spans = read_plan(chain_of(models), absent=(("acc32", 0xFFFF_FFFF),))
    assert layout_of_maker != read_plan(chain_of(models))[0]
    raw = reading(models, spans)[np.newaxis]
    assert np.isnan(layout_of_maker.decode(raw)["injected_wh"][0])
    assert read_plan(chain_of(models))[0].decode(raw)["injected_wh"][0] == 0xFFFF_FFFF


@pytest.mark.parametrize("registers_max", [12, 50, 64, 100, 122])
@pytest.mark.parametrize("models", [BATTERY_1547, BATTERY_LEGACY, METER], ids=["1547", "legacy", "meter"])
def test_careful_link_polls_the_same_in_more_requests(models: Mapping[int, Points], registers_max: int) -> None:
    careful, spans = read_plan(chain_of(models), registers_max=registers_max)
    assert max(span.count for span in spans) <= registers_max
    columns, expected = careful.decode(reading(models, spans)[np.newaxis]), decoded(models)
    for name in COLUMNS:
        np.testing.assert_array_equal(columns[name], expected[name], err_msg=name)


def test_scale_factor_that_changes_between_two_requests_of_a_poll_makes_its_values_missing() -> None:
    careful, spans = read_plan(chain_of(BATTERY_1547), registers_max=64)
    before = reading(BATTERY_1547, spans)
    scale = layout(701).points["W_SF"]
    first, again = (at for part in careful.parts if part.model_id == 701 and (at := part.register(scale)) is not None)
    assert first < again
    after = before.copy()
    after[2 * again : 2 * again + 2] = [0, 1]
    columns = careful.decode(np.stack([before, after]))
    np.testing.assert_allclose(columns["p_w"], [4321, np.nan])
    np.testing.assert_allclose(columns["q_var"], [-550, -550])


def test_scale_factors_of_a_reading_are_told_apart_from_its_values() -> None:
    layout_1547, spans = read_plan(chain_of(BATTERY_1547))
    moved = [changed(BATTERY_1547, 701, W=7), changed(BATTERY_1547, 701, W_SF=1), changed(BATTERY_1547, 704, WSet=9)]
    rows = np.stack([reading(models, spans) for models in (BATTERY_1547, *moved)])
    scales = layout_1547.scales(rows)
    same = [bool((row == scales[0]).all()) for row in scales]
    assert same == [True, True, False, True]


SAME = {"p_w": "W", "s_va": "VA", "i_a": "A", "f_hz": "Hz", "pf": "PF"}
INVERTER = {**SAME, "q_var": "VAr", "v_v": "PhVphA", "alarms": "Evt1", "injected_wh": "WH"}
FLOAT_METER = {**SAME, "q_var": "VAR", "v_v": "PhV", "injected_wh": "TotWhExp", "absorbed_wh": "TotWhImp"}
MEASURING_POINTS: Mapping[int, Mapping[str, str]] = {
    701: {**SAME, "q_var": "Var", "alarms": "Alrm", "injected_wh": "TotWhInj", "absorbed_wh": "TotWhAbs"},
    **dict.fromkeys((101, 102, 103, 111, 112, 113), INVERTER),
    **{model_id: {**FLOAT_METER, "alarms": "Evt"} for model_id in (201, 202, 203, 204)},
    **dict.fromkeys((211, 212, 213, 214), FLOAT_METER),
    802: {"p_w": "W", "soc_frac": "SoC", "alarms": "Evt1"},
}
"""Columns of every measuring model, each with the point that it comes from."""


def factor_of(model_id: int, column: str) -> float:
    """Power factors of the older inverters and the integer meters, and states of charge, are percentages."""
    percent = (column == "pf" and model_id < 210) or column == "soc_frac"
    return 0.01 if percent else 1.0


def instance(model_id: int, chance: random.Random) -> bytes:
    """A model with any registers, scale factors in range, sentinels often."""
    model = layout(model_id)
    values: dict[str, int | float | None] = {}
    for point in model.points.values():
        if point.type == "sunssf":
            values[point.name] = chance.randint(-10, 10)
        elif point.type == "float32":
            values[point.name] = chance.choice([None, chance.uniform(-1e5, 1e5)])
        elif point.name not in ("ID", "L") and point.type != "string":
            bits = 16 * point.size
            signed = point.type in ("int16", "int32")
            word = chance.randrange(2**bits) - signed * 2 ** (bits - 1)
            values[point.name] = chance.choice([None, word, word])
    return encode_model(model, values)


@pytest.mark.parametrize("model_id", MEASURING_POINTS)
def test_columns_of_every_measuring_model_are_what_pysunspec2_decodes(model_id: int) -> None:
    chance = random.Random(model_id)
    model_layout, (span,) = read_plan(Chain((Place(model_id, BASE, layout(model_id).size),)))
    devices = [instance(model_id, chance) for _ in range(40)]
    raw = np.stack([np.frombuffer(data[: 2 * span.count], dtype=np.uint8) for data in devices])
    columns = model_layout.decode(raw)
    oracles: list[Any] = [sunspec2.device.Model(model_id, data=data) for data in devices]
    for name, point in MEASURING_POINTS[model_id].items():
        cvalues = [oracle.points[point].cvalue for oracle in oracles]
        expected = [np.nan if value is None else value * factor_of(model_id, name) for value in cvalues]
        np.testing.assert_allclose(columns[name], expected, rtol=1e-9, err_msg=name)
        assert np.isnan(columns[name]).any()
        assert np.isfinite(columns[name]).any()


@pytest.mark.parametrize(("word", "local"), [(0, 0.0), (1, 1.0), (2, math.nan), (None, math.nan)])
def test_who_has_control_of_a_device_is_read_with_every_poll(word: int | None, local: float) -> None:
    np.testing.assert_equal(decoded({**BATTERY_1547, 715: {"LocRemCtl": word}})["local"], [local])
    assert np.isnan(decoded(BATTERY_1547)["local"]).all()
