"""Judging samples: units, signs, switch states, quality words and bits, time, and what replaces what."""

import math
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derms.domain.grid import SwitchState
from derms.domain.quality import Quality
from derms.domain.scada import NOTHING, PointValue, Sample, ScadaPoint
from derms.scada.intake import Limits, QualityMap, Verdict, aged, judge, kept
from tests.scada.rig import LOAD, START, SW1

LIMITS = Limits(stale_after_s=60.0, ahead_max_s=10.0)


def verdict(point: ScadaPoint, *samples: Sample, qualities: QualityMap | None = None) -> Verdict:
    return judge(point, samples, qualities or QualityMap(), LIMITS, now=START, now_s=0.0)


def sample(value: float | str | None, quality: str = "", at: datetime | None = None) -> Sample:
    return Sample("load", value, quality, at)


def test_a_value_in_the_sources_unit_and_sign_becomes_si_with_import_positive() -> None:
    exporting = replace(LOAD, scale=1e6, offset=5e3, invert=True)
    assert verdict(exporting, sample("-2.5")).value.value == 2.495e6


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("n/a", "is not a value"),
        ("", "is not a value"),
        (None, "is not a value"),
        ("nan", "is not a value"),
        (math.nan, "is not a value"),
        ("inf", "is not a value"),
        (2_500_000.0, "is its unit wrong"),  # W in a column of kW
        (2.5, "is its unit wrong"),  # MW in a column of kW
        (0.0, "is its unit wrong"),
    ],
)
def test_what_is_no_value_or_cannot_be_true_is_refused_with_its_reason(value: float | str | None, reason: str) -> None:
    assert reason in verdict(LOAD, sample(value)).refused


@pytest.mark.parametrize(
    ("late_s", "reason"),
    [(0.0, ""), (59.0, ""), (-9.0, ""), (-3600.0, "60 min in the future"), (3600.0, "60 min old"), (-11.0, "11 s")],
)
def test_a_source_time_from_the_future_or_an_hour_ago_is_refused(late_s: float, reason: str) -> None:
    said = verdict(LOAD, sample(2500.0, at=START - timedelta(seconds=late_s))).refused
    assert reason in said if reason else said == ""


def test_of_several_values_the_newest_counts_whatever_the_order() -> None:
    old, new = sample(1000.0, at=START - timedelta(seconds=30)), sample(2000.0, at=START - timedelta(seconds=5))
    assert verdict(LOAD, new, old).value.value == verdict(LOAD, old, new).value.value == 2e6


def test_the_same_time_twice_is_fine_with_one_value_and_refused_with_two() -> None:
    assert verdict(LOAD, sample(1000.0), sample(1000.0)).refused == ""
    assert "2 times with different values" in verdict(LOAD, sample(1000.0), sample(2000.0)).refused


def test_a_point_that_is_not_delivered_is_said_so() -> None:
    assert "not in what the source delivers" in verdict(LOAD).refused


@pytest.mark.parametrize(
    ("value", "double", "invert", "state"),
    [
        ("closed", False, False, SwitchState.CLOSED),
        (" Open ", False, False, SwitchState.OPEN),
        ("closed", False, True, SwitchState.OPEN),
        ("true", False, False, SwitchState.CLOSED),
        (1.0, False, False, SwitchState.CLOSED),
        ("0", False, True, SwitchState.CLOSED),
        (0.0, True, False, SwitchState.INTERMEDIATE),
        (1.0, True, False, SwitchState.OPEN),
        ("2", True, False, SwitchState.CLOSED),
        (3.0, True, False, SwitchState.UNKNOWN),
        (0.0, True, True, SwitchState.INTERMEDIATE),
    ],
)
def test_switch_states_come_as_words_and_as_one_or_two_bits(
    value: float | str, double: bool, invert: bool, state: SwitchState
) -> None:
    assert verdict(replace(SW1, double=double, invert=invert), sample(value)).value.value == state


@pytest.mark.parametrize("value", [2.0, "ajar", 0.5, None, "-1", math.nan])
def test_what_is_no_switch_state_is_refused(value: float | str | None) -> None:
    assert "is not a value" in verdict(SW1, sample(value)).refused


OWN = QualityMap({"": Quality.GOOD, "sehr gut": Quality.GOOD}, {0: Quality.MISSING, 3: Quality.SUSPECT})


@pytest.mark.parametrize(
    ("word", "quality"),
    [
        ("", Quality.GOOD),
        ("Sehr Gut", Quality.GOOD),
        ("0", Quality.GOOD),
        ("8", Quality.SUSPECT),
        ("9", Quality.MISSING),
        ("16", None),
        ("17", None),
        ("perfect", None),
        ("-1", None),
    ],
)
def test_quality_words_and_bits_have_a_table_and_the_worst_bit_counts(word: str, quality: Quality | None) -> None:
    assert OWN(word) is quality


def test_an_unknown_quality_word_makes_the_value_suspect_and_is_named() -> None:
    found = verdict(LOAD, sample(2500.0, "perfect"))
    assert (found.value.quality, found.strange_word, found.refused) == (Quality.SUSPECT, "perfect", "")


def test_what_the_source_calls_invalid_needs_no_value_and_is_bad_at_once() -> None:
    before = verdict(LOAD, sample(2500.0)).value
    after = kept(before, verdict(LOAD, sample("---", "invalid")))
    assert (before.quality, after.quality) == (Quality.GOOD, Quality.MISSING)


def test_a_refused_value_never_replaces_a_good_one_and_nothing_good_comes_of_it_alone() -> None:
    good, refused = verdict(LOAD, sample(2500.0)).value, verdict(LOAD, sample(2_500_000.0))
    assert kept(good, refused) is good
    assert kept(NOTHING, refused).quality is Quality.SUSPECT


def test_an_older_value_never_replaces_a_newer_one() -> None:
    newer = verdict(LOAD, sample(2000.0, at=START)).value
    assert kept(newer, verdict(LOAD, sample(1000.0, at=START - timedelta(seconds=30)))) is newer


@given(
    value=st.floats(allow_nan=True, allow_infinity=True),
    late_s=st.floats(-1e6, 1e6),
    word=st.sampled_from(["", "good", "bad", "odd", "5"]),
)
def test_only_plausible_values_of_now_are_ever_good(value: float, late_s: float, word: str) -> None:
    found = verdict(LOAD, sample(value, word, START - timedelta(seconds=late_s)))
    known = kept(NOTHING, found)
    if known.quality is Quality.GOOD:
        assert word in ("", "good")
        assert LOAD.floor <= abs(known.value) <= LOAD.high
        assert -10.0 <= late_s <= 60.0


@pytest.mark.parametrize(("wall_s", "steady_s"), [(61.0, 61.0), (3600.0, 1.0), (-3600.0, 61.0)])
def test_a_value_grows_stale_by_either_clock(wall_s: float, steady_s: float) -> None:
    """By its own time, or by how long ago it came; a wall clock set back does not make it young again."""
    value = PointValue(2e6, Quality.GOOD, START, START, received_s=0.0)
    now = START + timedelta(seconds=wall_s)
    assert aged(value, LIMITS, now=now, now_s=steady_s).quality is Quality.STALE
    assert aged(value, LIMITS, now=START, now_s=1.0).quality is Quality.GOOD


@pytest.mark.parametrize(
    ("value", "late_s"), [(0.0, 0.0), (-9999.0, 0.0), (2500.0, 61.0)], ids=["zero", "filler", "stopped clock"]
)
def test_what_the_source_calls_bad_is_bad_at_once_whatever_else_is_wrong_with_it(value: float, late_s: float) -> None:
    good = verdict(LOAD, sample(2500.0)).value
    said = verdict(LOAD, sample(value, "bad", START - timedelta(seconds=late_s)))
    assert kept(good, said).quality is not Quality.GOOD
