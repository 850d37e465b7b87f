"""A decision can say why, with figures and prices, and can be made again to the last bit, also in another process."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derms.control.signs import SignChanges
from derms.domain.der import Device, DeviceKind, Endpoint, Fleet
from derms.domain.dispatch import (
    Applied,
    Clamped,
    CommandRecord,
    Dispatch,
    Failed,
    NotFollowing,
    Outcome,
    Quantity,
    Rejected,
)
from derms.domain.forecast import Forecast
from derms.domain.plan import Plan, PlanSource, Reason, Why
from derms.domain.quality import Quality
from derms.domain.settings import PlanWeights
from derms.domain.telemetry import TelemetrySnapshot
from derms.errors import ConfigError
from derms.historian.replay import pack, unpack
from derms.historian.store import Store, StoredDecision
from derms.optimize.fleet import FleetPlanner
from derms.optimize.portfolio import Days, Desk, Envelopes, Portfolio, Sites
from derms.optimize.share import Fairness
from derms.service.cli import main
from derms.service.decided import Decided
from derms.service.device_why import device_reasons
from derms.service.explain import as_text, explained, find
from derms.service.explain_text import usd
from derms.service.reasons import fleet_reasons
from derms.service.replay import replayed
from derms.service.words import kw
from derms.service.worth import at_rest, effects, usd_per_objective, widened, worths
from feeders.catalog import load
from hil.cli import write_files
from hil.world import World
from tests.optimize.territory import territory
from tests.service.test_service import Day, _day

AT = datetime(2026, 4, 15, 21, tzinfo=UTC)
ZONE = ZoneInfo("America/Los_Angeles")
FEEDERS = ("north", "south", "east", "west")
SHARED = 12
PRICE = 9.0


def portfolio_of(ders: int = 20, later: int = 0, congested: int = 3) -> Portfolio:
    return territory(ders=ders, feeders=len(FEEDERS), congested=congested, seed=1, shift_h=later / 12, noise=0.01)


def planner_for(portfolio: Portfolio, **options: Any) -> FleetPlanner:
    scale_w = float(portfolio.feeders.net_load_w.sum(axis=0).max())
    return FleetPlanner(PlanWeights(), scale_w=scale_w, shared_steps=SHARED, **options)


def snapshot_of(count: int) -> TelemetrySnapshot:
    """The second device is stale and the last is missing."""
    column, phases = np.full(count, np.nan), np.full((count, 3), np.nan)
    quality, age_s = np.zeros(count, dtype=np.uint8), np.linspace(1.0, 9.0, count)
    quality[[1, -1]] = [Quality.STALE, Quality.MISSING]
    age_s[[1, -1]] = [400.0, np.inf]
    return TelemetrySnapshot(
        at=AT,
        now_s=0.0,
        p_w=np.where(quality == Quality.GOOD, 1e3, np.nan),
        q_var=column,
        v_pu=column,
        soc_frac=np.full(count, 0.5),
        p_phase_w=phases,
        q_phase_var=phases,
        v_phase_pu=phases,
        quality=quality,
        age_s=age_s,
        p_rated_w=column,
        energy_wh=column,
    )


def dispatch_of(plan: Plan, power_w: np.ndarray[Any, Any], rows: np.ndarray[Any, Any], count: int) -> Dispatch:
    p_set_w = np.full((count, SHARED + 1), np.nan)
    p_set_w[rows] = np.column_stack([power_w[:, 0], power_w])
    return Dispatch(
        plan.id,
        plan.made_at,
        1800.0,
        300.0 * np.arange(SHARED + 1, dtype=np.float64),
        p_set_w,
        np.full_like(p_set_w, np.nan),
    )


def decided_of(
    portfolio: Portfolio,
    planner: FleetPlanner | None = None,
    *,
    number: int = 1,
    rows: np.ndarray[Any, Any] | None = None,
    count: int | None = None,
    **more: Any,
) -> tuple[Plan, dict[str, Any]]:
    """A decision as the brain hands it to the store: a plan, and its inputs by name."""
    planner = planner or planner_for(portfolio)
    before = planner.state()
    fleet_plan = planner.plan(portfolio)
    solution, count = fleet_plan.solution, count or len(portfolio.devices)
    rows = np.arange(count) if rows is None else rows
    at = AT + timedelta(minutes=5 * number)
    plan = Plan(
        id=number,
        made_at=at,
        start=at,
        hours=portfolio.hours,
        battery_w=solution.injected_w.sum(axis=0),
        curtail_w=solution.held_w.sum(axis=0),
        energy_wh=solution.stored_wh.sum(axis=0),
        net_load_w=solution.net_w,
        source=PlanSource.OPTIMIZER,
        reason="",
        solver="PIQP",
        iterations=solution.iterations,
        objective=solution.objective,
    )
    net_w, pv_w = portfolio.feeders.net_load_w.sum(axis=0), portfolio.feeders.pv_w.sum(axis=0)
    inputs: dict[str, Any] = {
        "snapshot": snapshot_of(count),
        "available": np.ones(count, dtype=np.bool_),
        "forecast": Forecast(
            at, at, portfolio.hours, net_w, pv_w, pv_w / pv_w.max(), "clear sky times what is seen now"
        ),
        "rejected": [],
        "portfolio": portfolio,
        "fleet_plan": fleet_plan,
        "planner_state": before,
        "store_rows": rows,
        "feeder_ids": FEEDERS,
        "dispatch": dispatch_of(plan, fleet_plan.shares.power_w, rows, count),
        "caps": np.ones(count),
    }
    return plan, {**inputs, **more}


def record(portfolio: Portfolio, planner: FleetPlanner | None = None, **more: Any) -> Decided:
    """The same as it comes back from the bytes of a store."""
    plan, inputs = unpack(pack(decided_of(portfolio, planner, **more)))
    names = tuple(f"bat{row:02}" for row in range(len(portfolio.devices)))
    return Decided.of(StoredDecision(plan.made_at, plan, inputs, names))


@pytest.fixture(scope="module")
def usual() -> Decided:
    return record(portfolio_of(later=3))


def ended(outcome: Outcome, device: str, number: int = 1) -> CommandRecord:
    at = AT + timedelta(minutes=5 * number, seconds=1)
    return CommandRecord(number, at, device, Quantity.P_SET, number, 5e3, 2e3, outcome, at + timedelta(seconds=40))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site file of a simulated fleet whose historian holds three decisions."""
    world = World(load("ieee123"), seed=1, start=AT, publish=False)
    path = write_files(world, "127.0.0.1", range(15020, 15085), tmp_path_factory.mktemp("site"))
    lines = path.with_name("fleet.csv").read_text().splitlines()[1:]
    rows = np.array([row for row, line in enumerate(lines) if DeviceKind.BATTERY in line])
    names = [line.partition(",")[0] for line in lines]
    fleet = Fleet(
        tuple(
            Device(id=name, kind=DeviceKind.PV, driver="sunspec", endpoint=Endpoint("h", 1), bus="150")
            for name in names
        )
    )
    store = Store(f"sqlite:///{path.parent / 'data' / 'historian.sqlite'}", fleet)
    planner = planner_for(portfolio_of())
    for number in (1, 2, 3):
        portfolio = portfolio_of(len(rows), number)
        plan, inputs = decided_of(portfolio, planner, number=number, rows=rows, count=len(names))
        store.decision(plan, **inputs, sign_changes=SignChanges(0.25, 1.5))
        store.outcome(ended(Clamped("state of charge", 5e3, 2e3), "bat01", number))
        store.outcome(ended(Applied(1e3), "bat02", number))
    store.close()
    return path


def ask(capsys: pytest.CaptureFixture[str], site: Path, *words: str) -> tuple[int, str, str]:
    """Exit status, output and errors of the command."""
    status = main([*words, "-c", str(site)])
    said = capsys.readouterr()
    return status, said.out, said.err


def strict(text: str) -> dict[str, Any]:
    """JSON as programs outside Python read it, without NaN."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    found: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return found


def test_a_decision_is_made_again_to_the_last_bit(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for which in ("1", "2", "last"):
        status, out, _ = ask(capsys, site, "replay", which)
        assert status == 0
        assert out.endswith("numbers, all the same to the last bit\n")
    status, out, _ = ask(capsys, site, "replay", "2", "--json")
    found = strict(out)
    assert (status, found["same"], found["plan_id"], found["differences"]) == (0, True, 2, [])
    assert found["numbers"] > 4000


@pytest.mark.slow
def test_it_is_made_again_in_another_process_too(site: Path) -> None:
    command = [sys.executable, "-m", "derms.service.cli", "replay", "last", "-c", str(site)]
    for seed in ("1", "2"):
        said = subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True)
        assert (said.returncode, said.stderr) == (0, "")


def test_a_number_that_differs_in_its_last_bit_is_named(usual: Decided) -> None:
    assert usual.fleet_plan is not None
    assert usual.dispatch is not None
    shares = usual.fleet_plan.shares
    power_w, p_set_w = shares.power_w.copy(), usual.dispatch.p_set_w.copy()
    power_w[3, 2] = np.nextafter(power_w[3, 2], np.inf)
    p_set_w[7, 5] += 1.0
    fleet_plan = replace(usual.fleet_plan, shares=replace(shares, power_w=power_w))
    dispatch = replace(usual.dispatch, p_set_w=p_set_w)
    found = replayed(replace(usual, fleet_plan=fleet_plan, dispatch=dispatch))
    assert not found.same
    share, setpoint = found.differences
    assert str(share).startswith("fleet_plan.shares.power_w: 1 of 240 differ, by ")
    assert 0.0 < share.most < 1e-9
    assert str(setpoint) == "dispatch.p_set_w: 1 of 240 differ, by 1 at most"


def test_a_replay_from_other_inputs_is_not_the_same_and_other_versions_are_named(usual: Decided) -> None:
    assert usual.portfolio is not None
    portfolio = replace(usual.portfolio, past_net_w=usual.portfolio.past_net_w * 1.5)
    found = replayed(replace(usual, portfolio=portfolio, made_with={"piqp": "0.0.1"}))
    assert not found.same
    assert "fleet_plan.solution.net_w" in {difference.where for difference in found.differences}
    assert found.other_versions[0].startswith("piqp 0.0.1, here ")


def test_setpoints_that_the_look_ahead_eased_are_made_again_too() -> None:
    portfolio, caps = portfolio_of(), np.where(np.arange(20) == 3, 0.4, 1.0)
    eased = record(portfolio, caps=caps)
    assert "dispatch.p_set_w" in {difference.where for difference in replayed(eased).differences}


def test_where_the_optimizer_had_no_plan_it_has_none_again(usual: Decided) -> None:
    assert usual.portfolio is not None
    feeders = usual.portfolio.feeders
    absurd = replace(usual.portfolio, feeders=replace(feeders, pv_w=-feeders.pv_w - 1.0))
    why = "optimizer: no plan: PV power below zero, or a step without length"
    without = replace(usual, portfolio=absurd, fleet_plan=None, rejected=[why])
    assert replayed(without).same
    assert not replayed(replace(without, rejected=["optimizer: no plan: PIQP is gone"])).same


def test_a_plan_that_was_refused_or_came_too_late_cannot_be_compared(usual: Decided) -> None:
    refused = replace(usual, fleet_plan=None, rejected=["optimizer: no plan: none in time"])
    found = replayed(refused)
    assert (found.same, found.undone) == (False, True)
    assert found.words.endswith("which was not used: optimizer: no plan: none in time")


def test_what_was_never_planned_by_the_optimizer_says_so(usual: Decided) -> None:
    plan = replace(usual.plan, source=PlanSource.RULES)
    found = replayed(replace(usual, plan=plan, portfolio=None, fleet_plan=None, planner_state=None))
    assert (found.same, found.words) == (False, "the record has no inputs of the optimizer; the plan is of rules")


DESKS: tuple[Desk, ...] = (
    Desk(),
    Desk(hold_w={2: 4e3}),
    Desk(emergency=True, hold_h=0.5),
    Desk(reserve_up_w=2e4, reserve_down_w=1e4),
    Desk(ramp_w_per_h=2e4),
)


def with_cars(portfolio: Portfolio, leave: int) -> Portfolio:
    """The first three stores have to be nearly full from a step on."""
    steps, cars = len(portfolio.hours), np.arange(3)
    due_wh = np.where(np.arange(steps) >= leave, 0.9, -np.inf) * portfolio.devices.stored_max_wh[cars, None]
    envelopes = Envelopes(device=cars, low_wh=due_wh, high_wh=np.full((3, steps), np.inf))
    return replace(portfolio, devices=replace(portfolio.devices, envelopes=envelopes))


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(0, len(DESKS) - 1), min_size=2, max_size=4), st.sampled_from([0, 2, 4]), st.booleans())
def test_a_planner_resumed_from_its_state_goes_on_as_the_one_that_never_stopped(
    desks: list[int], congested: int, cars: bool
) -> None:
    planner = planner_for(portfolio_of())
    for later, desk in enumerate(desks):
        portfolio = replace(portfolio_of(later=later, congested=congested), desk=DESKS[desk])
        portfolio = with_cars(portfolio, leave=30 + 20 * later) if cars else portfolio
        other = FleetPlanner.resumed(unpack(pack(planner.state())))
        assert pack(other.plan(portfolio)) == pack(planner.plan(portfolio))
        assert pack(other.state()) == pack(planner.state())


def test_a_shadow_price_is_what_a_little_more_room_wins(usual: Decided) -> None:
    portfolio, state = usual.portfolio, usual.planner_state
    assert portfolio is not None
    assert state is not None
    planner = FleetPlanner.resumed(state)
    planner.plan(portfolio)
    before = planner.plan(portfolio)
    dearest = worths(usual, PRICE)[0]
    feeder = usual.feeder_of(dearest.limit)
    assert (dearest.of, feeder is None) == ("of it", False)
    more_w = 20.0 * (np.arange(len(FEEDERS)) == feeder)
    limits = replace(portfolio.feeders, high_w=portfolio.feeders.high_w + more_w)
    won = before.solution.objective - planner.plan(replace(portfolio, feeders=limits)).solution.objective
    assert won / 0.02 == pytest.approx(dearest.per_kw, rel=0.1)
    assert dearest.usd_per_kw == pytest.approx(dearest.per_kw * usd_per_objective(state, PRICE))


def test_the_price_of_a_voltage_is_that_of_a_kw_of_the_store_that_moves_it_most(usual: Decided) -> None:
    portfolio, state = usual.portfolio, usual.planner_state
    assert portfolio is not None
    assert state is not None
    rows, planner = portfolio.rows, FleetPlanner.resumed(state)
    (dearest,) = (worth for worth in worths(usual, PRICE) if worth.limit in rows.names)
    row = rows.names.index(dearest.limit)
    a_watt = np.abs(rows.per_w.toarray()[row]).max()
    planner.plan(portfolio)
    before = planner.plan(portfolio)
    more = 2.0 * a_watt * (np.arange(len(rows)) == row)
    wider = replace(portfolio, rows=replace(rows, low=rows.low - more, high=rows.high + more))
    won = before.solution.objective - planner.plan(wider).solution.objective
    assert won / 0.002 == pytest.approx(dearest.per_kw, rel=0.2)


def test_a_kw_of_peak_is_worth_its_price_whatever_its_weight_and_nothing_without_one(usual: Decided) -> None:
    state = usual.planner_state
    assert state is not None
    for weight in (0.5, 1.0, 3.0):
        weighted = replace(state, weights=replace(state.weights, peak=weight))
        of_a_kw = weight * 1e3 / state.scale_w
        assert of_a_kw * usd_per_objective(weighted, PRICE) == pytest.approx(PRICE)
    assert np.isnan(usd_per_objective(replace(state, weights=replace(state.weights, peak=0.0)), PRICE))


def test_with_a_limit_wider_the_plan_is_better_and_what_changes_is_told(usual: Decided) -> None:
    found = list(effects(usual, PRICE))
    assert found
    assert all(effect.usd > -1e-3 and not effect.wrong for effect in found)
    assert {effect.limit for effect in found} <= {worth.limit for worth in worths(usual, PRICE)}
    assert found[0].wider == "5% more"
    assert found[0].usd > 0.1
    assert found[0].moved_w > 100.0


def test_a_peak_that_a_limit_holds_up_falls_with_more_room() -> None:
    """One feeder is all there is, and the reserve held takes half of what its stores could do."""
    portfolio = territory(ders=20, feeders=1, congested=0, seed=1)
    able_w = float(portfolio.devices.discharge_max_w.sum())
    (effect,) = effects(record(replace(portfolio, desk=Desk(reserve_up_w=0.8 * able_w))), PRICE)
    assert (effect.limit, effect.wider) == ("held reserve", "5% less held")
    assert effect.gives_more_w == pytest.approx(0.04 * able_w, rel=0.01)
    assert effect.peak_less_w > 0.01 * able_w
    assert effect.usd > 0.0


def test_what_is_done_now_is_worth_what_an_hour_of_rest_would_cost() -> None:
    """In the evening, when the peak is there, rest costs; at night there is time to do it all later."""
    night, evening = (at_rest(record(portfolio_of(later=later, congested=0)), PRICE) for later in (150, 66))
    assert night is not None
    assert evening is not None
    assert (evening.limit, evening.wider) == ("batteries", "at rest for the first 1 h")
    assert evening.peak_less_w < -10e3
    assert evening.usd < -50.0
    assert abs(night.peak_less_w) < 500.0
    assert evening.usd < 5.0 * night.usd < 0.0


def test_what_gives_way_has_no_price_but_a_penalty_which_is_no_money() -> None:
    """In the evening the congested feeders need their stores: at rest, they cannot keep their limits."""
    portfolio = portfolio_of(later=78)
    rest = at_rest(record(portfolio), PRICE)
    assert rest is not None
    assert np.isnan(rest.usd)
    assert set(rest.gives_way) & {"feeder 0 power", "feeder 2 power"}
    tight = record(_impossible(portfolio))
    assert tight.fleet_plan is not None
    gave_way = {slack.limit for slack in tight.fleet_plan.solution.slacks}
    priced = {worth.limit for worth in worths(tight, PRICE) if np.isfinite(worth.usd_per_kw)}
    assert gave_way
    assert not gave_way & priced


def test_every_limit_that_can_bind_can_be_wider_and_no_other_limit_moves() -> None:
    portfolio = replace(portfolio_of(), desk=replace(DESKS[3], ramp_w_per_h=1e4))
    feeder, row = widened(portfolio, "feeder 2 power"), widened(portfolio, portfolio.rows.names[5])
    assert feeder is not None
    assert row is not None
    ratio = feeder.portfolio.feeders.high_w / portfolio.feeders.high_w
    np.testing.assert_allclose(ratio, [1.0, 1.0, 1.05, 1.0])
    assert list(np.flatnonzero(row.portfolio.rows.high != portfolio.rows.high)) == [5]
    assert row.portfolio.rows.low[5] < portfolio.rows.low[5]
    reserve, ramp = widened(portfolio, "held reserve"), widened(portfolio, "fleet ramp")
    assert reserve is not None
    assert ramp is not None
    assert reserve.portfolio.desk.reserve_up_w == pytest.approx(0.95 * 2e4)
    assert ramp.portfolio.desk.ramp_w_per_h == pytest.approx(1.05 * 1e4)
    assert widened(portfolio, "the weather") is None


def codes(decided: Decided) -> dict[Why, str]:
    return {reason.why: reason.text for reason in fleet_reasons(decided, ZONE)}


def test_the_usual_plan_is_for_peak_and_ramp_within_limits_and_energy(usual: Decided) -> None:
    found = codes(usual)
    assert {Why.PEAK, Why.RAMP, Why.FEEDER_LIMIT, Why.NETWORK_ROW, Why.STATE_OF_CHARGE} <= found.keys()
    assert not {Why.DESK, Why.RESERVE, Why.EASED, Why.FALLBACK, Why.GAVE_WAY, Why.ENERGY_PRICE} & found.keys()
    assert "instead of" in found[Why.PEAK]
    assert "power of feeder" in found[Why.FEEDER_LIMIT]


def _priced(portfolio: Portfolio) -> Portfolio:
    return replace(portfolio, price=np.where(np.arange(len(portfolio.hours)) < 30, 0.1, 1.0))


def _impossible(portfolio: Portfolio) -> Portfolio:
    return replace(portfolio, feeders=replace(portfolio.feeders, high_w=0.5 * portfolio.feeders.high_w))


CAUSES: dict[Why, tuple[Callable[[Portfolio], Portfolio], dict[str, Any], str]] = {
    Why.DESK: (lambda p: replace(p, desk=DESKS[1]), {}, "4 kW held on feeder east for 60 min"),
    Why.RESERVE: (lambda p: replace(p, desk=DESKS[3]), {}, "20 kW up and 10 kW down are kept free"),
    Why.FLEET_RAMP: (lambda p: replace(p, desk=DESKS[4]), {}, "by 20 kW an hour at most"),
    Why.ENERGY_PRICE: (_priced, {}, "less at the prices given"),
    Why.GAVE_WAY: (_impossible, {}, "gave way by up to"),
    Why.EASED: (
        lambda p: p,
        {"caps": np.linspace(0.4, 1.0, 20)},
        "19 devices may do less than the rating, the least 40%",
    ),
}


@pytest.mark.parametrize("why", CAUSES)
def test_each_cause_has_its_code(why: Why) -> None:
    change, more, words = CAUSES[why]
    assert words in codes(record(change(portfolio_of()), **more))[why]


def test_a_reserve_beyond_the_batteries_that_are_there_gives_way_and_what_is_kept_is_told() -> None:
    portfolio = portfolio_of(congested=0)
    asked_w = 1.2 * float(portfolio.devices.discharge_max_w.sum())
    found = record(replace(portfolio, desk=Desk(reserve_up_w=asked_w, reserve_down_w=1e3)))
    told = codes(found)
    assert told[Why.GAVE_WAY].startswith("held reserve gave way by up to ")
    assert told[Why.RESERVE].startswith(f"asked {kw(asked_w)} up, kept {kw(asked_w / 1.2)}; asked 1 kW down, kept 1 kW")
    assert [worth.limit for worth in worths(found, PRICE) if np.isfinite(worth.usd_per_kw)] == []
    assert replayed(found).same


def test_what_comes_first_is_told_in_its_order_and_the_plan_is_made_again(usual: Decided) -> None:
    portfolio = portfolio_of(ders=8, congested=1)
    for first, text in (
        (("peak", "ramp_3h"), "peak first, then three-hour ramp, then the rest by weights"),
        (("ramp_3h",), "three-hour ramp first, then the rest by weights"),
    ):
        found = record(portfolio, planner_for(portfolio, first=first))
        assert codes(found)[Why.ORDER] == text
        assert replayed(found).same
    assert Why.ORDER not in codes(usual)


def test_every_peak_has_its_day() -> None:
    portfolio = portfolio_of()
    midnight = np.cumsum(portfolio.hours) > 10.0
    days = Days(day=midnight.astype(np.intp), peak_w=np.full(2, -np.inf), rise_w=np.full(2, -np.inf))
    found = fleet_reasons(record(replace(portfolio, days=days)), ZONE)
    assert [reason.text[:30] for reason in found if reason.why is Why.PEAK] == [
        "highest net load of Wed 15 Apr",
        "highest net load of Thu 16 Apr",
    ]


def test_a_plan_of_a_lower_rung_says_why_it_is_none_of_the_optimizer(usual: Decided) -> None:
    plan = replace(usual.plan, source=PlanSource.LAST_GOOD)
    lower = replace(usual, plan=plan, portfolio=None, fleet_plan=None, rejected=["optimizer: the solver is gone"])
    (reason,) = fleet_reasons(lower, ZONE)
    assert reason == Reason(Why.FALLBACK, "the plan is of last good plan: optimizer: the solver is gone")


def test_a_device_knows_its_zone_its_rule_and_its_setpoint(usual: Decided) -> None:
    found = device_reasons(usual, "bat03", [], ZONE)
    assert found.share is not None
    assert (found.share.feeder, found.quality, found.soc_frac) == ("north", "good", 0.5)
    assert found.share.zone_stores >= 1
    assert len(found.share.power_w) == SHARED
    assert found.p_set_w == found.share.power_w[0]
    assert found.share.rule.startswith("those that can go on longest give most")
    assert found.reasons[0].why is Why.ZONE
    with pytest.raises(KeyError):
        device_reasons(usual, "bat99", [], ZONE)


def test_a_setpoint_that_is_not_the_share_says_why(usual: Decided) -> None:
    assert usual.dispatch is not None
    row, p_set_w = 3, usual.dispatch.p_set_w.copy()
    p_set_w[row, :3] = [-2e3, -1e3, 1e3]
    eased = replace(
        usual, dispatch=replace(usual.dispatch, p_set_w=p_set_w), caps=np.where(np.arange(20) == row, 0.4, 1)
    )
    (easing, line) = device_reasons(eased, "bat03", [], ZONE).setpoint_why
    assert easing.startswith("-1 kW instead of its share of ")
    assert easing.endswith(": it was eased for the feeder's sake")
    assert line.endswith("and is -2 kW at the beginning")
    assert device_reasons(usual, "bat03", [], ZONE).setpoint_why == ()


def test_what_was_sent_is_told_with_what_the_plan_has_and_the_trim(usual: Decided) -> None:
    assert usual.dispatch is not None
    planned_w = float(usual.dispatch.p_set_w[3, 0])
    at = usual.plan.start
    sent = CommandRecord(1, at, "bat03", Quantity.P_SET, 1, planned_w - 1e3, planned_w - 1e3, Applied(0.0), at)
    (told,) = device_reasons(usual, "bat03", [sent], ZONE).sent
    assert told == (
        f"{kw(planned_w - 1e3)} at 14:05:00, when the plan has {kw(planned_w)}; the other -1 kW bring net load back to "
        "what the plan expects"
    )


def test_what_is_no_battery_has_one_reason(usual: Decided) -> None:
    assert usual.available is not None
    meter = replace(usual, store_rows=np.arange(20) + 1, available=usual.available & (np.arange(20) > 0))
    (reason,) = device_reasons(meter, "bat00", [], ZONE).reasons
    assert reason == Reason(Why.NOT_DISPATCHED, "it is no battery of the plan, and takes no commands")


@pytest.mark.parametrize(
    ("value", "words"), [(1170.4, "$1,170"), (-549.2, "$549"), (7.3, "$7.30"), (0.0042, "$0.0042")]
)
def test_money_has_no_exponent(value: float, words: str) -> None:
    assert usd(value) == words


def test_what_a_re_plan_costs_is_told_by_its_parts() -> None:
    decided = record(portfolio_of(later=66, congested=0))
    rest = at_rest(decided, PRICE)
    assert rest is not None
    assert rest.usd_peaks == pytest.approx(PRICE * rest.peak_less_w / 1e3, rel=1e-3)
    assert rest.usd_rises == pytest.approx(PRICE * rest.rise_less_w / 1e3, rel=1e-3, abs=0.1)
    told = as_text(explained(decided, [], ZONE, peak_price=PRICE), decided, ZONE)
    assert f"; costs {usd(rest.usd)}: peaks of all days cost {usd(rest.usd_peaks)}" in told
    assert "no limit binds" in told


def test_the_rule_by_which_a_zone_is_shared_is_told() -> None:
    planner = planner_for(portfolio_of(), fairness=Fairness.PRO_RATA)
    found = device_reasons(record(portfolio_of(), planner), "bat03", [], ZONE)
    assert found.share is not None
    assert found.share.rule == "all give the same share of what they can"


def whys(decided: Decided, der: str, *outcomes: CommandRecord) -> dict[Why, str]:
    return {reason.why: reason.text for reason in device_reasons(decided, der, outcomes, ZONE).reasons}


def test_a_device_at_its_own_limits_says_so() -> None:
    portfolio = portfolio_of()
    devices = portfolio.devices
    stored_wh, charge_w = devices.stored_wh.copy(), np.array(devices.charge_max_w)
    stored_wh[3] = devices.stored_max_wh[3] - 1.0
    charge_w[4] = 1500.0
    found = record(replace(portfolio, devices=replace(devices, stored_wh=stored_wh, charge_max_w=charge_w)))
    assert whys(found, "bat03")[Why.STATE_OF_CHARGE].startswith("full by Wed")
    assert whys(found, "bat04")[Why.POWER].startswith("at its own 1.5 kW in")


def test_a_device_that_its_site_holds_back_says_so() -> None:
    portfolio = portfolio_of()
    steps, alone = len(portfolio.hours), np.full(20, -1)
    sites = Sites(
        site=np.where(np.arange(20) == 4, 0, -1),
        load_w=np.full((1, steps), 3e3),
        pv_w=np.zeros((1, steps)),
        import_max_w=np.array([4e3]),
        export_max_w=np.array([1e3]),
        inverter=alone,
        inverter_pv_w=np.zeros((0, steps)),
        inverter_max_w=np.zeros(0),
        backup_wh=np.zeros(20),
        solar_only=np.zeros(20, dtype=np.bool_),
    )
    assert whys(record(replace(portfolio, sites=sites)), "bat04")[Why.SITE].startswith(
        "at what its site leaves it: 1 kW"
    )


def test_a_car_that_leaves_soon_says_that_its_energy_is_due_and_what_it_will_lack() -> None:
    portfolio = with_cars(portfolio_of(), leave=11)
    stored_wh = portfolio.devices.stored_wh.copy()
    stored_wh[1] = portfolio.devices.stored_min_wh[1]
    found = record(replace(portfolio, devices=replace(portfolio.devices, stored_wh=stored_wh)))
    assert whys(found, "bat00")[Why.DUE].startswith("down to what it needs in time for later by Wed")
    assert codes(found)[Why.GAVE_WAY].startswith("energy due of bat01 gave way by up to ")


def test_a_device_says_which_limits_of_its_feeder_bind(usual: Decided) -> None:
    assert usual.portfolio is not None
    names = usual.portfolio.rows.names
    (row,) = (names.index(worth.limit) for worth in worths(usual, PRICE) if worth.limit in names)
    on_it = usual.portfolio.devices.feeder == usual.portfolio.rows.feeder[row]
    der, other = (f"bat{int(np.flatnonzero(at)[0]):02}" for at in (on_it, ~on_it))
    assert "this device moves it by" in whys(usual, der)[Why.NETWORK_ROW]
    assert Why.NETWORK_ROW not in whys(usual, other)


def test_a_device_that_was_set_aside_says_why() -> None:
    portfolio = portfolio_of()
    stored_wh, able = portfolio.devices.stored_wh.copy(), np.arange(20) != 5
    stored_wh[4] = np.nan
    devices = replace(portfolio.devices, stored_wh=stored_wh, available=able)
    found = record(replace(portfolio, devices=devices), available=able)
    assert whys(found, "bat04")[Why.NOT_DISPATCHED] == "set aside: its numbers are missing or absurd"
    assert "takes no commands" in whys(found, "bat05")[Why.NOT_DISPATCHED]
    assert whys(found, "bat01")[Why.NOT_DISPATCHED] == "its values are stale, 400 s old"


@pytest.mark.parametrize(
    ("outcome", "why", "text"),
    [
        (Clamped("state of charge", 5e3, 2e3), Why.GUARD, "p_set: state of charge made 2 kW of 5 kW"),
        (Rejected("quality"), Why.GUARD, "p_set: quality refused 5 kW"),
        (NotFollowing(0.0), Why.NOT_FOLLOWING, "p_set: 0 kW were seen after 2 kW"),
        (Failed("no answer"), Why.NOT_FOLLOWING, "p_set: failed: no answer"),
    ],
)
def test_what_became_of_its_command_is_told(usual: Decided, outcome: Outcome, why: Why, text: str) -> None:
    assert whys(usual, "bat03", ended(outcome, "bat03"))[why] == text


def test_a_device_that_was_eased_says_so(usual: Decided) -> None:
    eased = replace(usual, caps=np.where(np.arange(20) == 3, 0.4, 1.0))
    assert whys(eased, "bat03")[Why.EASED].startswith("it may use 40% of its rating")
    assert Why.EASED not in whys(eased, "bat04")


def test_an_explanation_says_when_from_what_and_why(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ask(capsys, site, "explain", "last", "--der", "bat01")
    assert status == 0
    for words in (
        "plan 3, made 2026-04-15 14:15:00 PDT by: optimizer (PIQP, ",
        "devices: 63 good, 1 stale, 1 missing; oldest good value 9 s; 65 can be commanded",
        "forecast: clear sky times what is seen now, made 2026-04-15 14:15:00 PDT",
        "limits that bind, with the shadow price of a little more room, at $9 a kW of system peak",
        "planned again\n",
        "batteries, at rest for the first 1 h: ",
        "power of feeder east, 5% more: ",
        "verifier: nothing wrong",
        "for 10 min: up ",
        "energy reserve: ",
        "changes of sign in an hour: 0.25 of the fleet, 1.50 of the most restless device",
        "commands: 1 clamped, 1 applied",
        "device bat01: values",
        "guard: p_set: state of charge made 2 kW of 5 kW",
    ):
        assert words in out


def test_the_same_for_programs_is_strict_json(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ask(capsys, site, "explain", "2", "--json", "--der", "bat02")
    found = strict(out)
    assert (status, found["plan_id"], found["made_at"]) == (0, 2, "2026-04-15T21:10:00+00:00")
    assert found["inputs"]["devices"] == {"good": 63, "stale": 1, "missing": 1}
    assert {reason["why"] for reason in found["reasons"]} >= {"peak", "ramp", "feeder limit"}
    assert found["limits"][0]["usd_per_kw"] > 0.0
    assert found["device"]["der"] == "bat02"
    assert found["device"]["p_limit_w"] is None


def test_a_decision_can_be_named_by_a_time_local_or_not(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for when in ("2026-04-15T14:12", "2026-04-15T21:12Z"):
        assert strict(ask(capsys, site, "replay", when, "--json")[1])["plan_id"] == 2


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("explain", "9"), "decision '9': there is none like that; the last one is 3"),
        (("explain", "9" * 23), f"decision '{'9' * 23}': there is none like that; the last one is 3"),
        (("explain", "9" * 5000), "there is none like that; the last one is 3"),
        (("explain", "9999-12-31T23:59"), "is nothing that a decision can be named by"),
        (
            ("replay", "2020-01-01"),
            "none had been made by then; the first one was made 2026-04-15 14:05:00 PDT; the last one is 3",
        ),
        (("explain", "yesterday"), "give a plan's number, last, or a time such as 2026-04-15T14:05"),
        (("explain", "1", "--der", "bat77"), "no device 'bat77' was in the fleet then"),
    ],
)
def test_what_is_not_there_is_told_with_what_would_be(
    words: tuple[str, ...], wrong: str, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = ask(capsys, site, *words)
    assert (status, out) == (2, "")
    assert wrong in err


def test_without_records_or_with_damaged_ones_it_is_said_in_a_sentence(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "site.toml"
    for name in ("site.toml", "fleet.csv", "history.csv"):
        (tmp_path / name).write_bytes((site.parent / name).read_bytes())
    assert "there are no records" in ask(capsys, other, "explain", "last")[2]
    (tmp_path / "data").mkdir()
    records = tmp_path / "data" / "historian.sqlite"
    records.write_bytes((site.parent / "data" / "historian.sqlite").read_bytes())
    with sqlite3.connect(records) as raw:
        raw.execute("UPDATE decisions SET body = CAST(substr(body, 1, 900) AS BLOB)")
    status, _, err = ask(capsys, other, "replay", "last")
    assert (status, err.splitlines()[0]) == (
        2,
        f"{records}: decision 'last': cannot be read: decision 3, made 2026-04-15T21:15:00Z: a record is damaged: its "
        "check sum does not fit; put a backup of the file in its place, or give another decision",
    )
    records.write_bytes(b"no database" * 1000)
    for command in ("explain", "replay"):
        (problem,) = strict(ask(capsys, other, command, "2", "--json")[1])["problems"]
        assert (problem["file"], problem["where"]) == (str(records), "decision '2'")
        assert problem["right"].startswith("put a backup of the file in its place")


@pytest.mark.parametrize(
    ("word", "number", "note"),
    [
        ("2026-04-15T14:12", 2, ""),
        ("2026-04-15T18:00", 3, "nothing was decided in the hour before that time"),
        ("2030-01-01", 3, "that time is still to come: this is the last decision so far, made 2026-04-15 14:15:00 PDT"),
        (
            "2026-11-01T01:30",
            3,
            "clocks show 2026-11-01 01:30 twice: the first is meant, 01:30 PDT; add -08:00 for the",
        ),
        ("2027-03-14T02:30", 3, "clocks never show 2027-03-14 02:30, they are put forward: 03:30 PDT is meant"),
    ],
)
def test_how_a_time_was_taken_is_said_where_it_could_be_otherwise(
    word: str, number: int, note: str, site: Path
) -> None:
    now = datetime(2027, 6, 1, tzinfo=UTC)
    decided, outcomes = find(site.parent / "data", word, ZONE, now=now)
    assert decided.plan.id == number
    assert bool(decided.notes) == bool(note)
    assert any(said.startswith(note) for said in (*decided.notes, ""))
    told = as_text(explained(decided, outcomes, ZONE, peak_price=PRICE), decided, ZONE)
    assert told.startswith(note or "plan ")


def test_a_wrong_decision_and_a_wrong_device_are_told_together(site: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        find(site.parent / "data", "77", ZONE, der="batt01")
    assert [(problem.where, problem.right) for problem in caught.value.problems] == [
        ("decision '77'", "the last one is 3"),
        ("--der", "did you mean 'bat01'?"),
    ]
    with pytest.raises(ConfigError) as caught:
        find(site.parent / "data", "last", ZONE, der="batt01")
    assert [problem.file for problem in caught.value.problems] == ["command line"]


@pytest.mark.slow
def test_what_a_running_service_decided_is_explained_and_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario(day: Day) -> None:
        await asyncio.sleep(700.0)

    _day(scenario, tmp_path)
    site = tmp_path / "site.toml"
    for number in ("1", "2", "last"):
        status, out, _ = ask(capsys, site, "replay", number)
        assert status == 0
        assert out.endswith("all the same to the last bit\n")
    status, out, _ = ask(capsys, site, "explain", "last", "--der", "bat01", "--json")
    found = strict(out)
    assert (status, found["source"], found["findings"]) == (0, "optimizer", [])
    assert found["inputs"]["devices"] == {"good": 8}
    assert found["inputs"]["grid"].startswith("feeder suspect: load ")
    assert "peak" in {reason["why"] for reason in found["reasons"]}
    assert (found["device"]["share"]["feeder"], found["device"]["share"]["zone_stores"]) == ("ieee123", 3)
    assert found["device"]["p_set_w"] is not None
    assert found["sign_changes"].keys() == {"fleet_per_h", "device_per_h"}


def test_a_decision_of_65_devices_is_small() -> None:
    assert 10e3 < len(pack(decided_of(portfolio_of(65)))) < 60e3


@pytest.mark.slow
def test_a_decision_of_ten_thousand_devices_is_a_few_megabytes_and_is_made_again() -> None:
    portfolio = portfolio_of(10_000)
    assert len(pack(decided_of(portfolio))) < 3e6
    assert replayed(record(portfolio)).same
