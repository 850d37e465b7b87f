"""Modes: promotions ask for what is missing, demotions never do, and doubt takes a feeder back to shadow."""

import math
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest

from derms.control.authority import Rank
from derms.control.modes import (
    MARKS,
    PASSES,
    PROMOTIONS,
    SCORECARD_AGE_S,
    Area,
    ControlMode,
    Evidence,
    Mark,
    Scorecard,
    changed,
    levels,
    passing,
    settled,
)
from derms.domain.mode import Mode
from derms.domain.refusal import Refused
from tests.control.areas import DEVICES, F1, F2, PLACES, VPP

OFF, SHADOW, ADVISE, AUTO = ControlMode
NOW_S = 1e6
CARD = Scorecard(
    taken_s=NOW_S - 60.0,
    shadow_h=200.0,
    plans=2400.0,
    verified_frac=0.999,
    forecast_error_frac=0.04,
    voltage_error_pu=0.004,
    seen_frac=0.98,
    clamped_frac=0.01,
    harm_node_min=0.0,
)
GOOD = Evidence(NOW_S, Mode.AUTO, topology="", model="", scorecard=CARD)
DOUBTFUL = replace(GOOD, topology="switch sw7 is not where the model has it", model="misfit 4.1 sigma")


def _area(mode: ControlMode) -> Area:
    return Area(F1, mode, 0.0, "smith")


def _why(start: ControlMode, to: ControlMode, evidence: Evidence) -> list[str]:
    answer = changed(_area(start), to, "jones", evidence)
    return [reason.by for reason in answer.reasons] if isinstance(answer, Refused) else []


@pytest.mark.parametrize("start", list(ControlMode))
@pytest.mark.parametrize("to", list(ControlMode))
def test_down_is_always_one_command_and_up_only_by_the_table(start: ControlMode, to: ControlMode) -> None:
    nothing = Evidence(NOW_S, Mode.OBSERVE, "unknown", "unknown")
    if to.level <= start.level:
        assert changed(_area(start), to, "jones", nothing, why="storm") == Area(F1, to, NOW_S, "jones", "storm")
    else:
        assert (_why(start, to, GOOD) == []) == ((start, to) in PROMOTIONS)


@pytest.mark.parametrize(
    ("start", "to", "why"),
    [
        (OFF, SHADOW, []),
        (OFF, AUTO, ["mode"]),
        (SHADOW, ADVISE, ["topology", "model"]),
        (SHADOW, AUTO, ["topology", "model", "scorecard"]),
        (ADVISE, AUTO, ["topology", "model", "scorecard"]),
    ],
)
def test_a_refused_promotion_names_everything_that_is_missing(
    start: ControlMode, to: ControlMode, why: list[str]
) -> None:
    assert _why(start, to, replace(DOUBTFUL, scorecard=None)) == why


def test_a_site_that_observes_has_no_mode_above_shadow() -> None:
    observing = replace(GOOD, site=Mode.OBSERVE)
    assert _why(OFF, SHADOW, observing) == []
    assert _why(SHADOW, AUTO, observing) == ["site"]
    assert settled(_area(AUTO), observing).mode is SHADOW


def test_every_figure_of_the_scorecard_has_a_mark() -> None:
    assert {mark.figure for mark in MARKS} == {field.name for field in fields(Scorecard)} - {"taken_s"}


@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: mark.figure)
@pytest.mark.parametrize("worse", [math.nan, 1e-3])
def test_one_figure_short_of_its_mark_or_unmeasured_keeps_a_feeder_from_auto(mark: Mark, worse: float) -> None:
    edge = mark.least if math.isfinite(mark.least) else mark.most
    assert _why(SHADOW, AUTO, replace(GOOD, scorecard=replace(CARD, **{mark.figure: edge}))) == []
    value = edge - worse if math.isfinite(mark.least) else edge + worse
    answer = changed(_area(SHADOW), AUTO, "jones", replace(GOOD, scorecard=replace(CARD, **{mark.figure: value})))
    assert isinstance(answer, Refused)
    assert [reason.text.partition(":")[0] for reason in answer.reasons] == [mark.what]


@pytest.mark.parametrize("taken_s", [NOW_S - SCORECARD_AGE_S - 1.0, NOW_S + 1.0, math.nan])
def test_an_old_scorecard_is_no_evidence(taken_s: float) -> None:
    assert _why(SHADOW, AUTO, replace(GOOD, scorecard=replace(CARD, taken_s=taken_s))) == ["scorecard"]


@pytest.mark.parametrize("mode", list(ControlMode))
def test_doubt_takes_a_feeder_back_to_shadow_and_never_up(mode: ControlMode) -> None:
    after = settled(_area(mode), DOUBTFUL)
    assert after.mode.level == min(mode.level, SHADOW.level)
    assert settled(_area(mode), GOOD) == _area(mode)
    if mode.level > SHADOW.level:
        assert (after.author, after.since_s) == ("topology", NOW_S)
        assert after.why == "switch sw7 is not where the model has it; misfit 4.1 sigma"
        assert settled(after, GOOD).mode is SHADOW


def test_a_device_is_in_the_lowest_mode_of_its_feeder_and_groups() -> None:
    areas = [Area(VPP, ADVISE, 0.0, "smith"), Area(F1, AUTO, 0.0, "smith"), Area(F2, OFF, 0.0, "smith")]
    found = dict(zip(DEVICES, (list(ControlMode)[level] for level in levels(areas, PLACES)), strict=True))
    assert found == {"bat0": ADVISE, "bat1": AUTO, "pv0": AUTO, "pv1": OFF, "bat2": OFF, "pv2": SHADOW}
    assert (levels([], PLACES) == SHADOW.level).all()


@pytest.mark.parametrize(
    ("rank", "approved", "reached"),
    [
        (Rank.PROTECTION, False, [OFF, SHADOW, ADVISE, AUTO]),
        (Rank.EMERGENCY, False, [OFF, SHADOW, ADVISE, AUTO]),
        (Rank.OPERATOR, False, [SHADOW, ADVISE, AUTO]),
        (Rank.PROGRAMME, False, [AUTO]),
        (Rank.OPTIMIZER, False, [AUTO]),
        (Rank.OPTIMIZER, True, [ADVISE, AUTO]),
        (Rank.SCHEDULE, False, [AUTO]),
        (Rank.SCHEDULE, True, [ADVISE, AUTO]),
    ],
)
def test_whose_commands_reach_devices_in_each_mode(rank: Rank, approved: bool, reached: list[ControlMode]) -> None:
    every = np.arange(len(ControlMode))
    passes = passing(rank, every, Mode.AUTO, approved=approved)
    assert [mode for mode, passed in zip(ControlMode, passes, strict=True) if passed] == reached
    assert not passing(rank, every, Mode.OBSERVE, approved=approved).any()


def test_a_higher_mode_lets_everyone_pass_whom_a_lower_one_lets() -> None:
    modes = list(ControlMode)
    assert all(PASSES[low] <= PASSES[high] for low, high in pairwise(modes))


def test_a_feeder_of_which_nothing_is_said_begins_where_it_is_told_and_a_device_on_none_in_shadow() -> None:
    nowhere = DEVICES.index("pv2")
    for start in ControlMode:
        found = levels((), PLACES, start)
        assert (np.delete(found, nowhere) == start.level).all()
        assert found[nowhere] == min(start.level, SHADOW.level)
    found = levels((_area(SHADOW),), PLACES, AUTO)
    assert [found[row] for row in range(len(DEVICES) - 1)] == [
        (SHADOW if feeder == "f1" else AUTO).level for feeder in PLACES.feeders[:-1]
    ]
