"""The degraded ladder: down at once, up only after a while without a break, and overload costs polls only."""

import math
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derms.control.degraded import LADDER, POLLS, Position, Presence, Rung, Step, Work, position, shed

QUICKLY = settings(max_examples=40, deadline=None)
ALL = Presence(forecast_s=0.0, model_s=0.0, optimizer_s=0.0, database_s=0.0, brain_s=0.0, stopped=False)
TIMED = [step for step in LADDER if step.needs]


def _without(step: Step, away_s: float) -> Presence:
    return replace(ALL, **{step.needs: away_s})  # type: ignore[arg-type]


def test_every_rung_below_normal_has_its_step_in_order_and_its_text() -> None:
    assert [step.rung for step in LADDER] == list(Rung)[1:]
    assert len({step.text for step in LADDER}) == len(LADDER)
    assert {step.needs for step in TIMED} == {field.name for field in fields(Presence)} - {"stopped"}


@pytest.mark.parametrize("step", TIMED, ids=lambda step: step.rung.name)
def test_a_rung_is_entered_by_age_and_left_by_time_without_a_break(step: Step) -> None:
    here = position(None, _without(step, step.enter_s), 0.0)
    assert step.rung not in here.there_since_s
    here = position(here, _without(step, step.enter_s + 0.1), 10.0)
    assert (here.rung, here.since_s) == (step.rung, 10.0)
    here = position(here, ALL, 20.0)
    assert here.rung is step.rung
    here = position(here, ALL, 20.0 + step.leave_s - 0.1)
    here = position(here, _without(step, step.enter_s + 0.1), 20.0 + step.leave_s)
    here = position(here, ALL, 1000.0 + step.leave_s)
    here = position(here, ALL, 1000.0 + 2 * step.leave_s - 0.1)
    assert (here.rung, here.since_s, here.steps[0]) == (step.rung, 10.0, step)
    here = position(here, ALL, 1000.0 + 2 * step.leave_s)
    assert (here.rung, here.text) == (Rung.NORMAL, "All is there.")


def test_the_worst_of_what_is_missing_counts_and_all_of_it_is_told() -> None:
    here = position(None, replace(ALL, forecast_s=math.inf, database_s=60.0), 0.0)
    assert here.rung is Rung.NO_DATABASE
    assert here.text == f"{LADDER[3].text} {LADDER[0].text}"
    assert (here.setpoints, here.schedules) == (True, False)


def test_a_stop_of_everything_is_the_last_rung_and_ends_with_its_latch() -> None:
    here = position(None, replace(ALL, stopped=True, brain_s=math.inf), 0.0)
    assert (here.rung, here.setpoints) == (Rung.EMERGENCY, False)
    assert position(here, ALL, 1.0).rung is Rung.ISOLATED


@pytest.mark.parametrize("step", TIMED, ids=lambda step: step.rung.name)
def test_what_nobody_knows_counts_as_missing(step: Step) -> None:
    assert step.rung in position(None, _without(step, math.nan), 0.0).there_since_s


AWAY = st.sampled_from([0.0, 25.0, 200.0, 800.0, 1500.0, math.inf, math.nan])


@QUICKLY
@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 700.0),
            st.builds(Presence, AWAY, AWAY, AWAY, AWAY, AWAY, st.booleans()),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_it_never_stands_above_what_is_missing_now_and_never_climbs_too_soon(
    steps: list[tuple[float, Presence]],
) -> None:
    now_s, here, missing_s = 0.0, None, dict[Rung, float]()
    for dt_s, presence in steps:
        now_s += dt_s
        before, here = here, position(here, presence, now_s)
        for step in LADDER:
            if step.missing(presence):
                missing_s[step.rung] = now_s
                assert here.rung >= step.rung
            elif step.rung in here.there_since_s:
                assert now_s - missing_s[step.rung] < step.leave_s + 700.0
            elif step.rung in missing_s and before is not None and step.rung in before.there_since_s:
                assert now_s - missing_s[step.rung] >= step.leave_s
        assert here.rung is max(here.there_since_s, default=Rung.NORMAL)
        assert here.since_s <= now_s


def test_the_same_history_gives_the_same_position() -> None:
    def walked() -> Position:
        here = position(None, replace(ALL, model_s=math.inf), 0.0)
        return position(here, ALL, 100.0)

    assert walked() == walked()


LOADS = st.dictionaries(st.sampled_from(Work), st.integers(0, 10_000).map(float), max_size=5)


@QUICKLY
@given(LOADS, st.integers(0, 20_000).map(float))
def test_overload_sheds_polls_the_last_first_and_never_a_control(asked: dict[Work, float], capacity: float) -> None:
    passed = shed(asked, capacity)
    assert set(passed) == set(asked)
    for work, amount in asked.items():
        assert 0.0 <= passed[work] <= amount
        assert work in POLLS or passed[work] == amount
    spent = sum(passed.values())
    assert spent <= max(capacity, sum(amount for work, amount in asked.items() if work not in POLLS)) + 1e-6
    short = [work for work in POLLS if work in asked and passed[work] < asked[work]]
    if short:
        assert all(passed[work] == 0.0 for work in POLLS if work in asked and work > short[0])
        assert spent >= capacity - 1e-6


def test_beyond_the_capacity_controls_still_pass_whole() -> None:
    assert shed({Work.POLL: 50.0, Work.CONTROL: 80.0, Work.STOP: 40.0}, 100.0) == {
        Work.CONTROL: 80.0,
        Work.STOP: 40.0,
        Work.POLL: 0.0,
    }
