"""The layout of readings: what is read, and columns that pysunspec2 decodes to the same values."""

from collections.abc import Mapping

import numpy as np
import pytest
import sunspec2.device
from hypothesis import given, settings
from hypothesis import strategies as st

from derms.domain.arrays import ByteArray, FloatArray
from derms.domain.telemetry import COLUMNS
from derms.errors import DeviceMismatch
from drivers.sunspec.scan import Chain, Place
from drivers.sunspec.telemetry import Span, SunSpecLayout, read_plan
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
            name: (2, 3) if "phase" in name else (2,) for name in COLUMNS
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
