"""Stopping: what goes to which device, in which stages, how it is confirmed, and who may let go again."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derms.control.latch import (
    APPROVAL_S,
    Latch,
    Released,
    approve,
    break_glass,
    returning,
    spared,
    stop_bounds,
    stopped,
)
from derms.control.stop_report import NOT_ISOLATION, preview
from derms.control.stopping import (
    NOTHING,
    RESPONSE_S,
    WAYS,
    How,
    Means,
    ReadBack,
    Stoppable,
    after_w,
    change_w,
    confirmed,
    default_meets,
    due,
    ladders,
    let_in_now,
    means_of,
    needed,
    next_attempt,
    stages,
    tally,
    trying,
    value_w,
)
from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.dispatch import Capabilities, Ceasing, Quantity
from derms.domain.refusal import Refused
from derms.domain.scope import EVERYTHING, Places
from derms.domain.tags import Board, TagKind
from tests.control.areas import AT, DEVICES, F1, F2, PLACES, only

QUICKLY = settings(max_examples=40, deadline=None)
BATTERY = Capabilities(takes=frozenset(Quantity))
PV = Capabilities(takes=frozenset({Quantity.P_LIMIT}))
IEEE_1547 = replace(BATTERY, ceases=frozenset({Ceasing.PERMIT_SERVICE}))
COUNT = len(PLACES)
IS_BATTERY = np.array([device.startswith("bat") for device in DEVICES])
TOLERANCE_W = np.full(COUNT, 100.0)


def _devices(p_w: Sequence[float] = (10e3, -10e3, 20e3, 30e3, 0.0, 5e3), held: bool = True) -> Stoppable:
    """Batteries of 25 kW, of which the first permits service, and PV of 30 kW."""
    kinds = [IEEE_1547, BATTERY, PV, PV, BATTERY, PV]
    return Stoppable(
        can=means_of(kinds),
        low_w=np.where(IS_BATTERY, -25e3, 0.0),
        high_w=np.where(IS_BATTERY, 25e3, 30e3),
        held=np.full(COUNT, held),
        p_w=np.array(p_w, dtype=np.float64),
        default_w=np.where(IS_BATTERY, 0.0, np.nan),
    )


def _first(how: How, devices: Stoppable | None = None) -> dict[str, str]:
    """What is tried first at each device."""
    first = ladders(how, devices or _devices())[:, 0].tolist()
    return {device: "" if means == NOTHING else Means(means).name for device, means in zip(DEVICES, first, strict=True)}


def test_every_way_and_means_has_its_row() -> None:
    assert set(WAYS) == set(How)
    assert set(RESPONSE_S) == set(Means)


def test_cease_to_energize_asks_each_device_for_the_best_that_it_has() -> None:
    assert _first(How.CEASE) == {
        "bat0": "PERMIT_SERVICE",
        **dict.fromkeys(("bat1", "bat2"), "SETPOINT"),
        **dict.fromkeys(("pv0", "pv1", "pv2"), "LIMIT"),
    }
    walked = [Means(means).name for means in ladders(How.CEASE, _devices())[0] if means != NOTHING]
    assert walked == ["PERMIT_SERVICE", "SETPOINT", "LIMIT"]


def test_the_ladder_is_walked_in_the_order_703_715_123_then_zero() -> None:
    devices = replace(_devices(), can=np.ones((COUNT, len(Means)), dtype=np.bool_))
    assert ladders(How.CEASE, devices)[0].tolist() == [0, 1, 2, 3, 4]


def test_a_device_that_does_not_confirm_in_its_time_is_told_in_the_next_way_and_the_last_one_stays() -> None:
    steps, sent_s, done = ladders(How.CEASE, _devices()), np.zeros(COUNT), np.zeros(COUNT, dtype=np.bool_)
    attempt = np.zeros(COUNT, dtype=np.intp)
    assert next_attempt(steps, attempt, sent_s, done, 1.9).tolist() == [0] * COUNT
    assert next_attempt(steps, attempt, sent_s, done, 2.0).tolist() == [1, 0, 0, 0, 0, 0]
    assert next_attempt(steps, attempt, sent_s, done, 30.0).tolist() == [1, 1, 0, 0, 1, 0]
    assert next_attempt(steps, attempt, sent_s, ~done, 30.0).tolist() == [0] * COUNT
    assert trying(steps, attempt + 1).tolist() == [3, 4, NOTHING, NOTHING, 4, NOTHING]
    assert (next_attempt(steps, attempt + 2, sent_s, done, 1e6) == 2).all()
    assert (trying(steps, attempt + 9) == NOTHING).all()


def test_a_late_answer_to_an_earlier_way_still_confirms() -> None:
    sent = np.zeros((COUNT, len(Means)), dtype=np.bool_)
    sent[0, [Means.PERMIT_SERVICE, Means.SETPOINT]] = True
    seen = _seen(permitted=np.zeros(COUNT))
    assert np.flatnonzero(confirmed(How.CEASE, sent, _devices(), seen, TOLERANCE_W)).tolist() == [0]


def test_charging_is_ended_by_a_setpoint_never_by_a_limit_and_pv_has_nothing_to_do() -> None:
    assert _first(How.NO_CHARGE) == {
        **dict.fromkeys(DEVICES, ""),
        **dict.fromkeys(("bat0", "bat1", "bat2"), "SETPOINT"),
    }
    assert Means.LIMIT not in WAYS[How.NO_CHARGE].ladder


def test_what_holds_nothing_of_ours_is_neither_released_nor_frozen() -> None:
    for how in (How.RELEASE, How.FREEZE):
        assert needed(how, _devices()).all()
        assert not needed(how, _devices(held=False)).any()
        assert (ladders(how, _devices(held=False)) == NOTHING).all()


@pytest.mark.parametrize(
    ("how", "expected"),
    [(How.NO_EXPORT, [0.0, -10e3, 0.0]), (How.NO_CHARGE, [10e3, 0.0, 0.0]), (How.NO_FLOW, [0.0, 0.0, 0.0])],
)
def test_a_setpoint_leaves_the_direction_that_is_not_stopped(how: How, expected: list[float]) -> None:
    means = np.full(3, Means.SETPOINT, dtype=np.intp)
    np.testing.assert_array_equal(value_w(how, means, np.array([10e3, -10e3, math.nan])), expected)


KINDS = st.tuples(st.sampled_from([BATTERY, PV, IEEE_1547, Capabilities()]), st.floats(-25e3, 30e3) | st.just(math.nan))


@QUICKLY
@given(st.sampled_from(How), st.lists(KINDS, min_size=1, max_size=8))
def test_nothing_is_sent_that_a_device_does_not_take_and_no_value_breaks_the_way(
    how: How, kinds: list[tuple[Capabilities, float]]
) -> None:
    battery = np.array([kind is not PV for kind, _ in kinds])
    devices = Stoppable(
        can=means_of(kind for kind, _ in kinds),
        low_w=np.where(battery, -25e3, 0.0),
        high_w=np.full(len(kinds), 30e3),
        held=np.ones(len(kinds), dtype=np.bool_),
        p_w=np.array([p_w for _, p_w in kinds]),
        default_w=np.full(len(kinds), math.nan),
    )
    steps = ladders(how, devices)
    for row in range(len(kinds)):
        tried = [means for means in steps[row].tolist() if means != NOTHING]
        assert (
            tried == [means for means in WAYS[how].ladder if devices.can[row, means]] or not needed(how, devices)[row]
        )
        assert all(devices.can[row, means] for means in tried)
        assert steps[row].tolist() == tried + [NOTHING] * (steps.shape[1] - len(tried))
    value = value_w(how, steps[:, 0], devices.p_w)
    given_ = np.isfinite(value)
    assert (value[given_] >= WAYS[how].low_w).all()
    assert (value[given_] <= WAYS[how].high_w).all()


@QUICKLY
@given(st.lists(st.floats(0.0, 25e3), min_size=1, max_size=30), st.floats(1e3, 60e3))
def test_no_stage_moves_more_than_its_share_but_for_a_single_large_device(powers: list[float], stage_w: float) -> None:
    count = len(powers)
    devices = Stoppable(
        can=means_of([BATTERY] * count),
        low_w=np.full(count, -25e3),
        high_w=np.full(count, 25e3),
        held=np.ones(count, dtype=np.bool_),
        p_w=np.array(powers),
        default_w=np.zeros(count),
    )
    stage = stages(How.CEASE, devices, np.ones(count, dtype=np.bool_), stage_w=stage_w)
    assert sorted(set(stage.tolist())) == list(range(stage.max() + 1))
    for number in range(stage.max() + 1):
        moved = change_w(How.CEASE, devices)[stage == number]
        assert moved.sum() <= stage_w * (1.0 + 1e-9) or len(moved) == 1


def test_immediate_overrides_the_stages_at_any_moment() -> None:
    stage = stages(How.CEASE, _devices(), PLACES.under(EVERYTHING), stage_w=25e3)
    assert stage.tolist() == [0, 0, 1, 2, 3, 3]
    np.testing.assert_array_equal(due(stage, 9.9, every_s=10.0, immediate=False), stage == 0)
    np.testing.assert_array_equal(due(stage, 10.0, every_s=10.0, immediate=False), stage <= 1)
    assert due(stage, 0.0, every_s=10.0, immediate=True).all()


def test_only_devices_of_the_scope_are_stopped() -> None:
    stage = stages(How.CEASE, _devices(), PLACES.under(F2), stage_w=1e9)
    assert stage.tolist() == [NOTHING, NOTHING, NOTHING, 0, 0, NOTHING]
    assert not due(stage, 1e9, every_s=1.0, immediate=True)[0]


def test_the_preview_shows_the_net_load_after_it_and_says_that_it_is_no_isolation() -> None:
    shown = preview(
        How.NO_EXPORT,
        EVERYTHING,
        _devices((10e3, -10e3, 20e3, math.nan, 0.0, 5e3)),
        PLACES,
        net_load_w=3400e3,
        stage_w=20e3,
        every_s=5.0,
    )
    assert shown.after_w == 3400e3 + 35e3
    assert str(shown) == (
        "stop-export, all devices: no device injects; 6 devices; net load 3,400 kW now, 3,435 kW after it "
        f"(give or take 30 kW of 1 unknown); 4 stages in 15 s. {NOT_ISOLATION}"
    )


def test_a_release_goes_to_what_devices_do_by_themselves_and_nobody_knows_it_of_pv() -> None:
    after = after_w(How.RELEASE, _devices())
    np.testing.assert_array_equal(after[IS_BATTERY], [0.0, 0.0, 0.0])
    assert np.isnan(after[~IS_BATTERY]).all()
    np.testing.assert_array_equal(after_w(How.FREEZE, _devices()), _devices().p_w)


def _seen(**columns: FloatArray) -> ReadBack:
    nothing = {name: np.full(COUNT, math.nan) for name in ReadBack.__dataclass_fields__}
    return ReadBack(**(nothing | columns))


def _confirmed(how: How, means: Means, seen: ReadBack) -> BoolArray:
    sent = np.zeros((COUNT, len(Means)), dtype=np.bool_)
    sent[:, means] = True
    return confirmed(how, sent, _devices(), seen, TOLERANCE_W)


@pytest.mark.parametrize("how", list(How))
@pytest.mark.parametrize("means", list(Means))
def test_what_was_not_read_back_confirms_nothing(how: How, means: Means) -> None:
    assert not _confirmed(how, means, _seen()).any()
    assert not _confirmed(how, means, _seen(p_w=np.zeros(COUNT))).any()


@pytest.mark.parametrize(
    ("means", "column"),
    [(Means.PERMIT_SERVICE, "permitted"), (Means.OPERATION, "operating"), (Means.CONNECT, "connected")],
)
def test_a_device_that_reads_as_out_of_service_is_confirmed_unless_it_still_gives_power(
    means: Means, column: str
) -> None:
    out = _seen(**{column: np.zeros(COUNT)})
    assert _confirmed(How.CEASE, means, out).all()
    assert not _confirmed(How.CEASE, means, _seen(**{column: np.ones(COUNT)})).any()
    p_w = np.array([0.0, 100.0, 101.0, -101.0, math.nan, 5e3])
    np.testing.assert_array_equal(
        _confirmed(How.CEASE, means, replace(out, p_w=p_w)), [True, True, False, False, True, False]
    )


def test_a_limit_of_zero_never_confirms_that_a_battery_has_ceased_and_confirms_that_it_does_not_export() -> None:
    seen = _seen(p_limit_w=np.zeros(COUNT))
    np.testing.assert_array_equal(_confirmed(How.CEASE, Means.LIMIT, seen), ~IS_BATTERY)
    assert _confirmed(How.NO_EXPORT, Means.LIMIT, seen).all()
    assert not _confirmed(How.NO_EXPORT, Means.LIMIT, _seen(p_limit_w=np.full(COUNT, math.inf))).any()


def test_a_setpoint_that_is_disabled_confirms_a_release_and_no_stop() -> None:
    gone = _seen(p_set_w=np.full(COUNT, math.inf), p_limit_w=np.full(COUNT, math.inf))
    assert _confirmed(How.RELEASE, Means.RELEASE, gone).all()
    assert not _confirmed(How.NO_CHARGE, Means.SETPOINT, gone).any()
    assert not _confirmed(How.RELEASE, Means.RELEASE, _seen(p_set_w=np.full(COUNT, math.inf))).any()


def test_the_tally_of_430_devices() -> None:
    places = Places(tuple(f"d{n}" for n in range(430)), ("f1",) * 430, {})
    every, done = np.ones(430, dtype=np.bool_), np.arange(430) < 412
    left_s = np.full(430, math.nan)
    left_s[412:424] = np.linspace(3.0, 58.0, 12)
    found = tally(every, done, every, left_s, places)
    assert str(found) == (
        "412 of 430 confirmed, 12 reverting within 58 s, 6 unknown: d424, d425, d426, d427, d428, d429"
    )
    assert found.confirmed + found.reverting + len(found.unknown) == found.total


def test_a_silent_device_whose_default_is_to_export_counts_as_unknown_not_as_reverting() -> None:
    silent, left_s = np.zeros(COUNT, dtype=np.bool_), np.full(COUNT, 30.0)
    meets = default_meets(How.NO_EXPORT, _devices().default_w)
    np.testing.assert_array_equal(meets, IS_BATTERY)
    found = tally(np.ones(COUNT, dtype=np.bool_), silent, meets, left_s, PLACES)
    assert (found.reverting, found.unknown) == (3, ("pv0", "pv1", "pv2"))
    assert default_meets(How.RELEASE, _devices().default_w).all()


LATCH = Latch(7, How.CEASE, F1, "smith", 0.0)


def test_two_people_release_a_stop_the_second_from_anywhere() -> None:
    once = approve(LATCH, "smith", 10.0)
    assert isinstance(once, Latch)
    done = approve(once, "jones", 20.0, remote=True)
    assert isinstance(done, Released)
    assert str(done) == "stop 7 (cease, feeder f1) of smith released by smith and jones"


@pytest.mark.parametrize("second", ["smith", " Smith ", "", "  "])
def test_one_person_is_not_two(second: str) -> None:
    once = approve(LATCH, "smith", 10.0)
    assert isinstance(once, Latch)
    assert isinstance(approve(once, second, 20.0), Refused)


def test_the_first_of_the_two_is_in_the_control_room() -> None:
    refused = approve(LATCH, "smith", 10.0, remote=True)
    assert isinstance(refused, Refused)
    assert refused.reasons[0].by == "remote"


def test_a_first_approval_does_not_wait_for_ever() -> None:
    once = approve(LATCH, "smith", 10.0)
    assert isinstance(once, Latch)
    again = approve(once, "jones", 10.0 + APPROVAL_S)
    assert isinstance(again, Latch)
    assert again.first is not None
    assert again.first.person == "jones"


def test_breaking_the_glass_takes_a_name_and_a_reason_and_leaves_both() -> None:
    assert isinstance(break_glass(LATCH, "smith", " ", 10.0), Refused)
    assert isinstance(break_glass(LATCH, "", "alone on shift", 10.0), Refused)
    alone = break_glass(LATCH, "smith", "alone on shift, hospital feeder", 10.0)
    assert isinstance(alone, Released)
    assert str(alone).endswith("released by smith alone, glass broken: alone on shift, hospital feeder")


def test_what_a_released_stop_lets_in_is_not_under_another_stop_nor_under_a_tag() -> None:
    released = Released(LATCH, ("smith", "jones"), 10.0)
    board = Board().hung(TagKind.CLEARANCE, only("pv0"), "crew at pole 17", "lee", AT)
    left = [Latch(8, How.NO_EXPORT, only("bat0"), "lee", 0.0)]
    assert [DEVICES[row] for row in np.flatnonzero(returning(released, left, board, PLACES))] == ["bat1"]
    assert [DEVICES[row] for row in np.flatnonzero(stopped(left, PLACES))] == ["bat0"]


def test_stops_add_up() -> None:
    latches = [Latch(1, How.NO_EXPORT, F1, "smith", 0.0), Latch(2, How.NO_CHARGE, only("bat0"), "lee", 0.0)]
    bounds = stop_bounds(latches, PLACES)
    assert (bounds.low_w[0], bounds.high_w[0]) == (0.0, 0.0)
    assert (bounds.low_w[1], bounds.high_w[1]) == (-math.inf, 0.0)
    assert not bounds.empty.any()


def test_a_release_to_autonomous_undoes_no_other_stop_and_passes_no_clearance() -> None:
    latches = [Latch(1, How.CEASE, only("bat0"), "smith", 0.0), Latch(2, How.FREEZE, F2, "smith", 0.0)]
    board = Board().hung(TagKind.CLEARANCE, only("pv0"), "crew at pole 17", "lee", AT)
    left_alone = spared(How.RELEASE, latches, board, PLACES)
    assert [DEVICES[row] for row in np.flatnonzero(left_alone)] == ["bat0", "pv0"]
    for how in set(How) - {How.RELEASE}:
        assert not spared(how, latches, board, PLACES).any()


def test_devices_that_have_time_left_are_under_way_and_not_unknown() -> None:
    every, nobody = np.ones(COUNT, dtype=np.bool_), np.zeros(COUNT, dtype=np.bool_)
    waiting = np.arange(COUNT) < 4
    found = tally(every, np.arange(COUNT) == 0, nobody, np.full(COUNT, np.nan), PLACES, waiting=waiting)
    assert (found.confirmed, found.waiting, found.unknown) == (1, 3, DEVICES[4:])
    assert not found.settled
    assert str(found) == "1 of 6 confirmed, 3 under way, 2 unknown: bat2, pv2"


@pytest.mark.parametrize(("stage_w", "count"), [(0.0, 1), (30e3, 1), (60e3, 2), (1e9, 3)])
def test_those_who_wait_are_let_in_as_far_as_a_stage_goes_and_one_always(stage_w: float, count: int) -> None:
    waiting = np.array([False, True, False, True, False, True])
    rows = let_in_now(waiting, np.full(COUNT, 30e3), stage_w=stage_w)
    assert np.flatnonzero(rows).tolist() == [1, 3, 5][:count]


def test_a_preview_without_a_net_load_says_so() -> None:
    shown = preview(How.CEASE, F1, _devices(), PLACES, net_load_w=math.nan, stage_w=1e9, every_s=10.0)
    assert "net load not known" in str(shown)
    only_first = np.arange(COUNT) == 0
    assert (
        preview(
            How.CEASE, EVERYTHING, _devices(), PLACES, net_load_w=0.0, stage_w=1e9, every_s=1.0, among=only_first
        ).devices
        == 1
    )
