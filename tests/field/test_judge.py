"""Judging readings: what no device and no meter can show, in columns, with the reason in words."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derms.domain.arrays import FloatArray
from derms.domain.quality import Quality
from derms.domain.telemetry import COLUMNS, is_phase
from derms.field.checks import CHECKS, COMPARED, Evidence, Plates
from derms.field.judge import Judgement, weigh

PV: Mapping[str, Any] = {"p_w": 8e3, "q_var": 1e3, "v_v": 240.0, "f_hz": 60.0, "s_va": 8.1e3, "pf": 0.99}
BATTERY: Mapping[str, Any] = {**PV, "soc_frac": 0.5}
METER: Mapping[str, Any] = {
    **PV,
    "p_w": 1.5e6,
    "q_var": 3e5,
    "v_v": 2400.0,
    "s_va": 1.53e6,
    "p_phase_w": (4e5, 5e5, 6e5),
    "q_phase_var": (1e5, 1e5, 1e5),
    "v_phase_v": (2390.0, 2400.0, 2410.0),
}
ZEROS: Mapping[str, Any] = {name: np.zeros(np.shape(value)) for name, value in METER.items()}
INFINITE = float("inf")


def columns(rows: list[Mapping[str, Any]]) -> dict[str, FloatArray]:
    """The COLUMNS of some readings; what a reading does not say is NaN."""
    return {
        name: np.array([row.get(name, (np.nan,) * 3 if is_phase(name) else np.nan) for row in rows], dtype=np.float64)
        for name in COLUMNS
    }


def weighed(
    *rows: Mapping[str, Any],
    kind: str = "battery",
    rated_w: float = 10e3,
    nominal_v: float = 240.0,
    before: Mapping[str, Any] | None = None,
    dt_s: float = 10.0,
    still_s: float = 0.0,
    rescaled: bool = False,
    feeder_lives: bool = False,
) -> Judgement:
    """Readings of devices of one kind, all with the same plate."""
    count = len(rows)
    plates = Plates(
        is_pv=np.full(count, kind == "pv"),
        p_rated_w=np.full(count, rated_w),
        energy_wh=np.full(count, 20e3 if kind == "battery" else 0.0),
        s_rated_va=np.full(count, rated_w),
        v_nominal_v=np.full(count, nominal_v),
        is_meter=np.full(count, kind == "meter"),
    )
    past = columns([before or {}] * count)
    return weigh(
        Evidence(
            now=columns(list(rows)),
            before={name: past[name] for name in COMPARED},
            plates=plates,
            dt_s=np.full(count, dt_s),
            still_s=np.full(count, still_s),
            rescaled=np.full(count, rescaled),
            frozen_after_s=120.0,
            feeder_lives=lambda: feeder_lives,
        )
    )


def doubts(*rows: Mapping[str, Any], **given: Any) -> list[str]:
    """The reason of each reading in words; empty for a GOOD one."""
    found = weighed(*rows, **given)
    assert [Quality(q) is Quality.SUSPECT for q in found.quality] == [bool(d) for d in found.doubt]
    return [found.why(at) if found.doubt[at] else "" for at in range(len(rows))]


def metered(*rows: Mapping[str, Any], rated_w: float = 4e6, **given: Any) -> list[str]:
    return doubts(*rows, kind="meter", rated_w=rated_w, nominal_v=2400.0, **given)


def test_sound_devices_and_meters_are_believed() -> None:
    assert doubts(PV, kind="pv") == [""]
    assert doubts(BATTERY, {**BATTERY, "p_w": -8e3}) == ["", ""]
    assert metered(METER, {**METER, "p_w": -2e5}) == ["", ""]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"p_w": 12.1e3}, "12.1 kW, where 12 kW are the most that can be"),
        ({"p_w": -INFINITE}, "-inf kW, where 12 kW"),
        ({"q_var": 21e3}, "21 kvar, where 20 kvar are the most"),
        ({"soc_frac": 1.01}, "a state of charge of 101 %, outside of 0 to 100 %"),
        ({"soc_frac": -0.01}, "a state of charge of -1 %"),
        ({"v_v": 2400.0}, "2400 V with 8 kW, where 240 V are nominal"),
        ({"v_v": 60.0}, "60 V with 8 kW"),
        ({"v_v": -240.0}, "-240 V"),
        ({"v_v": 0.0}, "0 V with 8 kW"),
        ({"f_hz": 0.0}, "0 Hz, outside of 40 to 70 Hz"),
        ({"f_hz": 600.0}, "600 Hz"),
        ({"s_va": 810.0}, "8 kW and 1 kvar in 0.81 kVA"),
        ({"pf": 9.9}, "a power factor of 9.9, outside of -1 to 1"),
    ],
)
def test_what_a_battery_cannot_show_is_suspect_with_value_and_bound_in_words(
    wrong: Mapping[str, float], words: str
) -> None:
    good, bad = doubts(BATTERY, {**BATTERY, **wrong})
    assert good == ""
    assert words in bad


def test_pv_that_draws_power_has_its_sign_turned_and_a_battery_has_not() -> None:
    drawing = {**PV, "p_w": -600.0}
    assert "drawn by PV of 10 kW: is its sign turned" in doubts(drawing, kind="pv")[0]
    assert doubts(drawing, kind="battery") == [""]


@pytest.mark.parametrize("rated_w", [0.0, np.nan, 4e6])
@pytest.mark.parametrize(
    "wrong",
    [
        {"p_w": 1e30},
        {"p_w": INFINITE},
        {"q_var": -1e30},
        {"v_v": 1e30},
        {"p_phase_w": (4e5, 1e30, 6e5)},
        {"q_phase_var": (1e5, 1e5, INFINITE)},
        {"v_phase_v": (2390.0, 1e30, 2410.0)},
    ],
    ids=["power", "infinite", "reactive", "voltage", "phase power", "phase reactive", "phase voltage"],
)
def test_a_meter_is_bounded_with_and_without_a_rating(wrong: Mapping[str, Any], rated_w: float) -> None:
    good, bad = metered(METER, {**METER, **wrong}, rated_w=rated_w)
    assert (good, bool(bad)) == ("", True)


def test_the_phase_that_cannot_be_is_named() -> None:
    assert metered({**METER, "p_phase_w": (4e5, 9e6, 6e5)}) == [
        "phase b 9000 kW, where 4800 kW are the most that can be"
    ]


def test_a_meter_that_shows_zeros_is_believed_on_a_dead_feeder_and_not_beside_live_ones() -> None:
    assert metered(ZEROS) == [""]
    assert "0 V, while others on the feeder are under voltage" in metered(ZEROS, feeder_lives=True)[0]
    assert ["others" in why for why in metered(ZEROS, METER)] == [True, False]


def test_a_dead_bus_carries_no_power() -> None:
    assert "0 V with 1500 kW" in metered({**METER, "v_v": 0.0})[0]


def test_a_device_whose_own_contactor_is_open_may_show_zeros() -> None:
    assert doubts({**dict.fromkeys(BATTERY, 0.0), "soc_frac": 0.5}, feeder_lives=True) == [""]


@pytest.mark.parametrize(("nominal_v", "v_v"), [(480.0, 277.0), (277.0, 480.0), (240.0, 120.0), (np.nan, 7.2e3)])
def test_a_plate_may_count_phases_otherwise_than_the_measurement(nominal_v: float, v_v: float) -> None:
    assert doubts({**BATTERY, "v_v": v_v}, nominal_v=nominal_v) == [""]


def test_a_leap_of_a_meter_is_doubted_once_and_believed_when_it_is_told_again() -> None:
    tripped = {**METER, "p_w": 0.0, "q_var": 0.0}
    assert "0 kW, 10 s after 1500 kW" in metered(tripped, before=METER)[0]
    assert metered(tripped, before=tripped) == [""]


def test_clouds_and_long_silence_are_no_leaps() -> None:
    assert metered({**METER, "p_w": -4e5}, before={**METER, "p_w": 8e5}) == [""]
    assert metered({**METER, "p_w": 0.0, "q_var": 0.0}, before=METER, dt_s=600.0) == [""]
    assert doubts({**BATTERY, "p_w": -8e3}, before=BATTERY) == [""]


def test_a_state_of_charge_moves_no_further_than_power_carries_it() -> None:
    half = {**BATTERY, "soc_frac": 0.6}
    assert "60 %, 10 s after 50 %: at most 2.17 % can flow" in doubts(half, before=BATTERY)[0]
    assert doubts(half, before=BATTERY, dt_s=900.0) == [""]
    assert doubts(half, before=BATTERY, dt_s=INFINITE) == [""]


def test_a_decade_counts_against_a_reading_only_with_another_scale_factor() -> None:
    tenth = {**BATTERY, "p_w": 800.0, "q_var": 100.0}
    assert doubts(tenth, before=BATTERY) == [""]
    assert "0.8 kW and 240 V after 8 kW" in doubts(tenth, before=BATTERY, rescaled=True)[0]


def test_what_stands_still_says_for_how_long_and_the_first_reason_is_told() -> None:
    assert "nothing has changed for 130 s" in doubts(BATTERY, still_s=130.0)[0]
    assert "2400 V" in doubts({**BATTERY, "v_v": 2400.0}, still_s=130.0)[0]


def test_what_is_not_implemented_is_no_doubt() -> None:
    found = weighed({"soc_frac": 2.0}, still_s=500.0)
    assert (Quality(found.quality[0]), found.doubt[0]) == (Quality.NOT_IMPLEMENTED, 0)


@given(st.sets(st.sampled_from(sorted(METER))), st.sets(st.sampled_from(COMPARED)))
def test_what_is_not_there_is_never_implausible(absent: set[str], unknown: set[str]) -> None:
    told = {name: value for name, value in METER.items() if name not in absent}
    known = {name: METER[name] for name in COMPARED if name in METER and name not in unknown}
    assert metered(told, before=known) == [""]
    assert metered(told, before=known, rated_w=np.nan) == [""]


@given(p_w=st.floats(-10e3, 10e3), q_var=st.floats(-10e3, 10e3), step=st.sampled_from([1.0, 10.0, 1e3]))
def test_coarse_steps_of_true_values_are_never_taken_for_a_contradiction(p_w: float, q_var: float, step: float) -> None:
    s_va = float(np.hypot(p_w, q_var))
    coarse = {"p_w": p_w, "q_var": q_var, "s_va": step * np.trunc(s_va / step), "v_v": 240.0}
    cut = {**coarse, "p_w": step * np.trunc(p_w / step), "q_var": step * np.trunc(q_var / step)}
    assert doubts(coarse, cut) == ["", ""]


@given(st.dictionaries(st.sampled_from(sorted(METER)), st.floats(allow_nan=True, allow_infinity=True), max_size=6))
def test_a_good_reading_lies_within_every_bound_whatever_the_registers_say(said: dict[str, float]) -> None:
    row = {name: np.broadcast_to(said.get(name, np.asarray(value)), np.shape(value)) for name, value in METER.items()}
    found = weighed(row, kind="meter", rated_w=0.0, nominal_v=np.nan, before=METER, feeder_lives=True)
    now = found.evidence.now
    if Quality(found.quality[0]) is Quality.GOOD:
        for name in ("p_w", "q_var", "p_phase_w", "q_phase_var"):
            assert not (np.abs(now[name]) > 1e11).any()
        assert not (np.abs(now["v_v"]) > 1e6).any()
        assert not (now["v_v"] <= 0.0).any()
    elif found.doubt[0]:
        assert 0 < found.doubt[0] <= len(CHECKS)
        assert found.why(0)
