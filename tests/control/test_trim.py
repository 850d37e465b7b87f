"""Trim between plans: what a plan's forecast did not see is taken out, in time, without wobble, and within bounds."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derms.control.guards import PowerBounds
from derms.control.trim import Measured, TrimState, Turns, trimmed, with_leeway
from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.dispatch import Dispatch, Heads, Leeway, Quantity
from derms.domain.plan import Plan, PlanSource
from derms.domain.quality import Quality
from derms.domain.settings import DispatchSettings
from tests.control.values import NOON

COUNT, GROUPS = 200, 20
RATED_W = 25e3
FLEET_W = COUNT * RATED_W
GROSS_W = 20e6
"""Load without batteries that every plan here foresees."""
SETTINGS = DispatchSettings()
STEP_S, POLL_S, TURN_S = 5.0, 10.0, 15.0
BAND = SETTINGS.trim_deadband_frac
FOLLOW_S = 5.0
"""Time constant of the batteries."""


def plan_of(*, plan_id: int = 1, share: float = 0.2, gross_w: float = GROSS_W, count: int = COUNT) -> Dispatch:
    """A dispatch in which every battery gives the same, for an hour."""
    powers_w = np.full((count, 2), share * RATED_W)
    leeway = Leeway(np.full(2, gross_w) - powers_w.sum(axis=0), np.full(count, RATED_W))
    return Dispatch(plan_id, NOON, 3600.0, np.array([0.0, 3600.0]), powers_w, np.full((count, 2), np.nan), leeway)


def free(count: int = COUNT) -> PowerBounds:
    return PowerBounds(np.full(count, -RATED_W), np.full(count, RATED_W))


def turns_of(held_w: FloatArray, soon: BoolArray | None = None) -> Turns:
    return Turns(held_w, np.zeros(len(held_w), dtype=np.bool_) if soon is None else soon)


@dataclass
class Loop:
    """A fleet of first order that is written group by group, and a meter that tells what was a poll ago."""

    dispatch: Dispatch
    bounds: PowerBounds
    follows: float = 1.0
    """What batteries make of their setpoints."""
    distort: Callable[[float, Measured], Measured] = lambda now_s, measured: measured
    now_s: float = 0.0
    state: TrimState = field(default_factory=TrimState)

    def __post_init__(self) -> None:
        self.group = np.arange(COUNT) % GROUPS
        self.turn = 0
        self.held_w = self.dispatch.planned_w(Quantity.P_SET, 0.0)
        self.power_w = self.follows * self.held_w
        self.trimmed = self.dispatch
        self.told: list[tuple[float, float]] = []
        self.errors: list[float] = []
        """Of net load against the plan's, per unit of fleet power, at each step."""
        self.trims: list[float] = []
        self.writes = 0

    def run(self, seconds: float, extra: float) -> None:
        """Let it work while the load is off by this much of the fleet's power."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self._step(extra)

    def _step(self, extra: float) -> None:
        leeway = self.dispatch.leeway
        assert leeway is not None
        self.power_w += (self.follows * self.held_w - self.power_w) * -np.expm1(-STEP_S / FOLLOW_S)
        net_w = GROSS_W + extra * FLEET_W - float(self.power_w.sum())
        self.told.append((self.now_s, net_w + 1e-3 * self.now_s))
        self.errors.append((net_w - float(leeway.net_load_w[0])) / FLEET_W)
        if self.now_s % SETTINGS.trim_every_s == 0.0:
            at_s, told_w = next(x for x in reversed(self.told) if x[0] <= self.now_s - POLL_S or x is self.told[0])
            measured = self.distort(self.now_s, Measured(told_w, Quality.GOOD, at_s))
            soon = (self.group - self.turn) % GROUPS < 2
            self.trimmed, self.state = trimmed(
                self.dispatch,
                self.bounds,
                self.state,
                measured,
                self.now_s,
                turns=Turns(self.held_w, soon),
                settings=SETTINGS,
            )
            self.trims.append(self.state.trim_w / FLEET_W)
        if self.now_s % TURN_S == 0.0:
            rows = self.group == self.turn % GROUPS
            wanted_w = self.trimmed.wanted_w(Quantity.P_SET, self.now_s)
            self.held_w = np.where(rows, np.clip(wanted_w, self.bounds.low_w, self.bounds.high_w), self.held_w)
            self.turn += 1
            self.writes += int(rows.sum())
        self.now_s += STEP_S


@pytest.mark.parametrize("extra", [0.1, -0.1])
def test_a_step_of_load_is_taken_out_in_four_minutes_and_nothing_swings(extra: float) -> None:
    loop = Loop(plan_of(), free())
    loop.run(300.0, 0.0)
    assert loop.trims == pytest.approx([0.0] * 10)
    calm = len(loop.errors)
    loop.run(1200.0, extra)
    towards = np.sign(extra) * np.array(loop.errors[calm:])
    assert towards[0] == pytest.approx(0.1)
    assert (towards[round(240.0 / STEP_S) :] < 2.5 * BAND).all()
    assert towards.min() > -0.5 * BAND, "not beyond"
    grown = np.sign(extra) * np.diff(loop.trims[10:])
    assert grown.min() >= -1e-9, "never back and forth"
    assert loop.writes == 100 * COUNT // GROUPS, "one write per device and interval, as without"


def test_more_load_than_foreseen_is_met_by_discharging_and_less_by_charging() -> None:
    for extra_w in (2e5, -2e5):
        dispatch = plan_of(share=0.0)
        held_w = np.zeros(COUNT)
        measured = Measured(GROSS_W + extra_w, Quality.GOOD, 0.0)
        after, state = trimmed(dispatch, free(), TrimState(), measured, 0.0, turns=turns_of(held_w), settings=SETTINGS)
        wanted_w = after.wanted_w(Quantity.P_SET, 0.0)
        assert np.sign(state.trim_w) == np.sign(extra_w)
        assert (np.sign(wanted_w) == np.sign(extra_w)).all()
        assert wanted_w.sum() == pytest.approx(state.trim_w)
        assert (after.plan_id, after.valid_until_s) == (dispatch.plan_id, dispatch.valid_until_s)


def test_batteries_that_give_less_than_they_are_told_leave_no_error_behind() -> None:
    loop = Loop(plan_of(), free(), follows=0.85)
    loop.run(1500.0, 0.05)
    assert abs(loop.errors[-1]) < 2.5 * BAND
    assert loop.trims[-1] > 0.05


def test_a_saturated_fleet_winds_nothing_up() -> None:
    """Only 3 % are left, and 15 % would be needed for ten minutes: when they are not needed any more they are gone."""
    bounds = PowerBounds(np.full(COUNT, -RATED_W), np.full(COUNT, 0.23 * RATED_W))
    loop = Loop(plan_of(), bounds)
    loop.run(600.0, 0.15)
    assert loop.trims[-1] == pytest.approx(0.03)
    calm = len(loop.trims)
    loop.run(300.0, 0.0)
    assert max(loop.trims[calm + 6 :]) < 1.5 * BAND, "three minutes later"


def test_what_guards_take_from_the_plan_is_an_error_that_the_others_make_up() -> None:
    """Half of the fleet is at its reserve and gives nothing of the fifth that is planned."""
    empty = np.arange(COUNT) % 2 == 0
    bounds = PowerBounds(np.full(COUNT, -RATED_W), np.where(empty, 0.0, RATED_W))
    loop = Loop(plan_of(), bounds)
    loop.run(1500.0, 0.0)
    assert abs(loop.errors[-1]) < 2.5 * BAND
    assert loop.held_w[empty].max() == 0.0
    assert loop.held_w[~empty].mean() > 0.35 * RATED_W


def test_the_trim_goes_no_further_than_its_authority_and_no_faster_than_its_rate() -> None:
    loop = Loop(plan_of(), free())
    loop.run(900.0, 0.6)
    assert max(loop.trims) == pytest.approx(SETTINGS.trim_frac)
    per_trim = SETTINGS.trim_ramp_frac_per_min * SETTINGS.trim_every_s / 60.0
    assert np.diff(loop.trims).max() <= per_trim + 1e-9


def test_a_meter_that_freezes_moves_nothing_and_when_it_is_known_the_trim_ends_at_once() -> None:
    frozen: list[Measured] = []

    def freeze(now_s: float, measured: Measured) -> Measured:
        if now_s < 330.0:
            return measured
        frozen.append(frozen[0] if frozen else measured)
        quality = Quality.GOOD if now_s < 600.0 else Quality.SUSPECT
        return replace(frozen[0], at_s=measured.at_s, quality=quality)

    loop = Loop(plan_of(), free(), distort=freeze)
    loop.run(600.0, 0.1)
    still = loop.trims[12:]
    assert still
    assert np.ptp(still) == 0.0
    assert still[0] > 0.0
    loop.run(30.0, 0.1)
    assert loop.trimmed.trim is None
    assert loop.state == TrimState()
    loop.run(330.0, 0.1)
    np.testing.assert_allclose(loop.held_w, 0.2 * RATED_W)


@pytest.mark.parametrize(
    "measured",
    [
        *(Measured(GROSS_W, quality, 1000.0) for quality in Quality if quality is not Quality.GOOD),
        Measured(np.nan, Quality.GOOD, 1000.0),
        Measured(np.inf, Quality.GOOD, 1000.0),
        Measured(GROSS_W, Quality.GOOD, 900.0),
        Measured(GROSS_W, Quality.GOOD, np.nan),
    ],
)
def test_without_a_good_and_new_measurement_there_is_no_trim(measured: Measured) -> None:
    dispatch, turns = plan_of(), turns_of(np.zeros(COUNT))
    busy = TrimState(1, 970.0, 1e5, GROSS_W, GROSS_W - 1e5)
    after, state = trimmed(dispatch, free(), busy, measured, 1000.0, turns=turns, settings=SETTINGS)
    assert (after, state) == (dispatch, TrimState())


def test_a_plan_that_says_nothing_of_net_load_has_expired_or_commands_nobody_is_not_trimmed() -> None:
    measured = Measured(GROSS_W + 1e6, Quality.GOOD, 4000.0)
    silent = replace(plan_of(), leeway=None, valid_until_s=9e3)
    expired = plan_of()
    nobody = replace(plan_of(), p_set_w=np.full((COUNT, 2), np.nan), valid_until_s=9e3)
    for dispatch in (silent, expired, nobody):
        turns = turns_of(np.zeros(COUNT))
        after, state = trimmed(dispatch, free(), TrimState(), measured, 4000.0, turns=turns, settings=SETTINGS)
        assert after.trim is None
        assert state == TrimState()
    off = DispatchSettings(trim_frac=0.0)
    after, _ = trimmed(
        plan_of(), free(), TrimState(), replace(measured, at_s=0.0), 0.0, turns=turns_of(np.zeros(COUNT)), settings=off
    )
    assert after.trim is None


def test_a_trim_that_nobody_renews_ends_by_itself() -> None:
    loop = Loop(plan_of(), free())
    loop.run(310.0, 0.1)
    last_s = 300.0
    more_w = loop.trimmed.wanted_w(Quantity.P_SET, last_s + 80.0) - loop.dispatch.planned_w(Quantity.P_SET, last_s)
    assert more_w.sum() > 1e5
    np.testing.assert_array_equal(loop.trimmed.wanted_w(Quantity.P_SET, last_s + 91.0), 0.2 * RATED_W)
    assert np.isnan(loop.trimmed.wanted_w(Quantity.P_LIMIT, last_s)).all()


def test_a_new_plan_that_has_seen_the_error_takes_over_what_the_trim_did() -> None:
    loop = Loop(plan_of(), free())
    loop.run(900.0, 0.1)
    before, fleet_w = loop.trims[-1], float(loop.held_w.sum())
    loop.dispatch = plan_of(plan_id=2, share=0.3, gross_w=GROSS_W + 0.1 * FLEET_W)
    loop.run(30.0, 0.1)
    assert before > 0.08
    assert abs(loop.trims[-1]) < 0.015
    loop.run(300.0, 0.1)
    assert loop.held_w.sum() == pytest.approx(fleet_w, rel=0.1), "and the fleet goes on as before"


def test_under_a_new_plan_that_has_not_seen_the_error_the_trim_goes_on() -> None:
    loop = Loop(plan_of(), free())
    loop.run(900.0, 0.1)
    before = loop.trims[-1]
    loop.dispatch = plan_of(plan_id=2)
    loop.run(60.0, 0.1)
    assert loop.trims[-1] == pytest.approx(before, abs=0.01)


def test_those_whose_turn_comes_take_more_than_their_share_and_nobody_is_turned_around_for_it() -> None:
    """The plan wants 2 % of everybody less than they hold, and little is left of what is planned."""
    dispatch, held_w = plan_of(share=0.01), np.full(COUNT, 0.2 * RATED_W)
    soon = np.arange(COUNT) < 20
    measured = Measured(GROSS_W - float(held_w.sum()), Quality.GOOD, 0.0)
    after, state = trimmed(
        dispatch, free(), TrimState(), measured, 0.0, turns=turns_of(held_w, soon), settings=SETTINGS
    )
    wanted_w = after.wanted_w(Quantity.P_SET, 0.0)
    assert state.trim_w == 0.0
    np.testing.assert_allclose(wanted_w[~soon], 0.01 * RATED_W)
    np.testing.assert_allclose(wanted_w[soon], 0.0, atol=1e-6)


def test_nobody_is_moved_far_to_make_haste() -> None:
    """The whole fleet has 20 % less than it is planned to have, and one in twenty has a turn."""
    dispatch, held_w = plan_of(share=0.4), np.full(COUNT, 0.2 * RATED_W)
    soon = np.arange(COUNT) < 10
    measured = Measured(GROSS_W - float(held_w.sum()), Quality.GOOD, 0.0)
    turns = turns_of(held_w, soon)
    after, _ = trimmed(dispatch, free(), TrimState(), measured, 0.0, turns=turns, settings=SETTINGS)
    np.testing.assert_allclose(after.wanted_w(Quantity.P_SET, 0.0), np.where(soon, 0.55, 0.4) * RATED_W)


def test_batteries_that_the_feeder_does_not_bear_have_no_part_in_the_trim() -> None:
    dispatch = plan_of(share=0.2)
    assert dispatch.leeway is not None
    eased = np.arange(COUNT) % 2 == 0
    leeway = replace(dispatch.leeway, most_w=np.where(eased, 0.2, 1.0) * RATED_W)
    loop = Loop(replace(dispatch, leeway=leeway), free())
    loop.run(900.0, 0.1)
    assert loop.trimmed.trim is not None
    assert loop.trimmed.trim.offset_w[eased].max() <= 0.0
    assert loop.held_w[eased].max() <= 0.2 * RATED_W + 1e-6
    assert loop.held_w[~eased].mean() > 0.35 * RATED_W
    assert abs(loop.errors[-1]) < 2.5 * BAND


def test_the_heads_of_feeders_bound_the_trim_of_their_batteries() -> None:
    """The system takes more than planned; the first feeder gives all that it may already, the second has room."""
    dispatch = plan_of(share=0.0)
    assert dispatch.leeway is not None
    feeder = np.arange(COUNT) % 3 - 1
    leeway = replace(dispatch.leeway, heads=Heads(np.array([1.6e6, -np.inf]), np.array([np.inf, 3e6]), feeder))
    measured = Measured(GROSS_W + 3e5, Quality.GOOD, 0.0, np.array([1.5e6, 2.5e6]))
    after, state = trimmed(
        replace(dispatch, leeway=leeway),
        free(),
        TrimState(),
        measured,
        0.0,
        turns=turns_of(np.zeros(COUNT)),
        settings=SETTINGS,
    )
    wanted_w = after.wanted_w(Quantity.P_SET, 0.0)
    assert state.trim_w > 0.0
    assert (wanted_w[feeder == 0] == 0.0).all()
    assert (wanted_w[feeder != 0] > 0.0).all()
    unknown = replace(measured, heads_w=np.array([np.nan, np.nan]))
    after, _ = trimmed(
        replace(dispatch, leeway=leeway),
        free(),
        TrimState(),
        unknown,
        0.0,
        turns=turns_of(np.zeros(COUNT)),
        settings=SETTINGS,
    )
    assert (after.wanted_w(Quantity.P_SET, 0.0) > 0.0).all()


ANY_W = st.floats(-3e4, 3e4)
ROWS = st.lists(
    st.tuples(
        st.one_of(ANY_W, st.just(np.nan)),
        ANY_W,
        ANY_W,
        st.floats(0.0, RATED_W),
        st.one_of(ANY_W, st.just(np.nan)),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)
"""Planned, two bounds, the plan's greatest, held, has a turn."""


@settings(deadline=None)
@given(ROWS, st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_trim_never_carries_anybody_out_of_bounds_or_commands_who_was_not_commanded(
    rows: list[tuple[float, float, float, float, float, bool]], off_w: float, trim_w: float
) -> None:
    planned_w, one_w, other_w, most_w, held_w, soon = (np.array(column) for column in zip(*rows, strict=True))
    planned_w = np.clip(planned_w, -most_w, most_w)
    bounds = PowerBounds(one_w, other_w)
    leeway = Leeway(np.full(2, 1e7), most_w)
    nothing = np.full((len(rows), 2), np.nan)
    dispatch = Dispatch(1, NOON, 900.0, np.array([0.0, 900.0]), np.column_stack([planned_w] * 2), nothing, leeway)
    after, state = trimmed(
        dispatch,
        bounds,
        TrimState(1, 70.0, trim_w, 1e7, 0.0),
        Measured(1e7 + off_w, Quality.GOOD, 95.0),
        100.0,
        turns=Turns(held_w, soon),
        settings=SETTINGS,
    )
    wanted_w = after.wanted_w(Quantity.P_SET, 100.0)
    assert (np.isnan(wanted_w) == np.isnan(planned_w)).all()
    slack_w = 1e-6 * RATED_W
    moved = np.abs(wanted_w - planned_w) > slack_w
    assert (np.abs(wanted_w)[moved] <= most_w[moved] + slack_w).all()
    up, down = moved & (wanted_w > planned_w), moved & (wanted_w < planned_w)
    assert (wanted_w[up] <= bounds.high_w[up] + slack_w).all()
    assert (wanted_w[down] >= bounds.low_w[down] - slack_w).all()
    assert abs(state.trim_w) <= SETTINGS.trim_frac * most_w[np.isfinite(planned_w)].sum() + slack_w


def test_a_dispatch_expects_the_plans_net_load_on_the_line_between_the_middles_of_its_steps() -> None:
    dispatch = replace(
        plan_of(), times_s=np.array([0.0, 150.0, 450.0]), p_set_w=np.zeros((COUNT, 3)), p_limit_w=np.zeros((COUNT, 3))
    )
    hours = np.full(3, 1.0 / 12.0)
    nothing = np.zeros(3)
    plan = Plan(
        id=1,
        made_at=NOON,
        start=NOON,
        hours=hours,
        battery_w=nothing,
        curtail_w=nothing,
        energy_wh=nothing,
        net_load_w=np.array([1e6, 1.2e6, 9e6]),
        source=PlanSource.OPTIMIZER,
        reason="",
        solver="",
        iterations=0,
        objective=0.0,
    )
    leeway = with_leeway(dispatch, plan, np.full(COUNT, RATED_W)).leeway
    assert leeway is not None
    expected_w = [leeway.expected_w(dispatch.times_s, at_s) for at_s in (0.0, 150.0, 300.0)]
    assert expected_w == pytest.approx([0.9e6, 1e6, 1.1e6])
