"""Select before operate: all reasons of a refusal at once, asked at select and again at operate."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derms.control.authority import HOLD_MAX_S, Claims, Lock, Locks, Rank, Ticket, ownership
from derms.control.guards import PowerBounds
from derms.control.permissives import (
    SELECT_S,
    Asked,
    Facts,
    Operated,
    Selected,
    Selections,
    Substitute,
    barred,
    cancel,
    claimed,
    operate,
    select,
    substituted,
    tag_bounds,
)
from derms.domain.arrays import BoolArray
from derms.domain.dispatch import Quantity
from derms.domain.quality import Quality
from derms.domain.refusal import Refused
from derms.domain.scope import EVERYTHING, Level, Scope
from derms.domain.tags import Act, Board, TagKind
from tests.control.areas import AT, F1, F2, PLACES, VPP, only

QUICKLY = settings(max_examples=40, deadline=None)
COUNT = len(PLACES)
NO = np.zeros(COUNT, dtype=np.bool_)
NOW_S = 500.0
CLEAR = Facts(
    now_s=NOW_S,
    places=PLACES,
    takes=~NO,
    board=Board(),
    locks=Locks(),
    closed=NO,
    stopped=NO,
    local=NO,
    handed_over=NO,
    quality=np.full(COUNT, Quality.GOOD, dtype=np.uint8),
    bounds=PowerBounds(np.full(COUNT, -25e3), np.full(COUNT, 25e3)),
)


def _asked(scope: Scope = F1, value_w: float | None = 5e3, *, author: str = "smith", hold_s: float = 600.0) -> Asked:
    return Asked(author, scope, Quantity.P_SET, value_w, hold_s)


def _hung(kind: TagKind, scope: Scope = F1) -> Board:
    return Board().hung(kind, scope, "crew at pole 17", "jones", AT)


def _rows(*devices: str) -> BoolArray:
    return np.isin(PLACES.devices, devices)


def _why(asked: Asked, facts: Facts, open_: Selections | None = None) -> list[str]:
    """The stable words of a refusal, in order; none when it is selected."""
    _, answer = select(open_ or Selections(), asked, facts)
    return [reason.by for reason in answer.reasons] if isinstance(answer, Refused) else []


def _selected(asked: Asked, facts: Facts = CLEAR, open_: Selections | None = None) -> tuple[Selections, int]:
    after, answer = select(open_ or Selections(), asked, facts)
    assert isinstance(answer, Selected)
    return after, answer.selection.number


def test_a_command_with_nothing_in_its_way_is_selected_then_operated_once() -> None:
    open_, number = _selected(_asked())
    open_, answer = operate(open_, number, "smith", replace(CLEAR, now_s=NOW_S + 5.0))
    assert answer == Operated(_asked(), ())
    open_, again = operate(open_, number, "smith", CLEAR)
    assert isinstance(again, Refused)
    assert "used, cancelled, or never made" in again.reasons[0].text


def test_a_refusal_has_every_reason_not_the_first() -> None:
    facts = replace(
        CLEAR,
        board=_hung(TagKind.CLEARANCE).hung(TagKind.CONTROL_INHIBIT, only("bat1"), "meter test", "lee", AT),
        locks=Locks((Lock(VPP, "jones", NOW_S + 90.0),)),
        closed=_rows("bat0", "pv1"),
        stopped=_rows("pv0"),
        local=_rows("bat1"),
        handed_over=_rows("bat1"),
        quality=np.where(_rows("bat0"), np.uint8(Quality.STALE), np.uint8(Quality.GOOD)),
        bounds=PowerBounds(np.full(COUNT, 1.0), np.full(COUNT, -1.0)),
    )
    open_, _ = _selected(_asked(only("pv0"), author="lee"))
    _, answer = select(open_, _asked(value_w=math.nan, hold_s=0.0), facts)
    assert isinstance(answer, Refused)
    assert [reason.by for reason in answer.reasons] == [
        *("request", "request", "tag", "tag", "lock", "selection", "mode", "stop", "local", "another master"),
        *("quality", "bounds"),
    ]
    texts = [reason.text for reason in answer.reasons]
    assert texts[2] == "clearance tag 1 on feeder f1, jones at 2026-04-15 19:00 UTC: crew at pole 17"
    assert texts[4] == "group vpp is locked by jones for another 90 s"
    assert texts[5] == "device pv0 is selected by lee for another 30 s"
    assert texts[6] == "bat0: the mode lets no person command it"
    assert texts[11] == "bat0, bat1, pv0: guards and higher authorities leave nothing"


@pytest.mark.parametrize(
    ("kind", "value_w", "refused"),
    [
        (TagKind.CAUTION, 5e3, False),
        (TagKind.CONTROL_INHIBIT, 5e3, True),
        (TagKind.CONTROL_INHIBIT, -5e3, True),
        (TagKind.AUTOMATIC_INHIBIT, 5e3, False),
        (TagKind.ALARM_INHIBIT, 5e3, False),
        (TagKind.SCAN_INHIBIT, -5e3, True),
        (TagKind.SCAN_INHIBIT, 5e3, True),
        (TagKind.CLEARANCE, 0.0, True),
        (TagKind.CLEARANCE, None, True),
    ],
)
def test_what_a_tag_does_to_a_persons_command(kind: TagKind, value_w: float | None, refused: bool) -> None:
    assert _why(_asked(value_w=value_w), replace(CLEAR, board=_hung(kind))) == ["tag"] * refused


@pytest.mark.parametrize(("value_w", "energizes"), [(5e3, True), (0.0, False), (-5e3, False), (None, True)])
def test_whatever_may_end_in_injection_is_energizing_to_tags(value_w: float | None, energizes: bool) -> None:
    assert (Act.ENERGIZE in _asked(value_w=value_w).acts) is energizes


@pytest.mark.parametrize("scope", [F2, only("pv2"), Scope(Level.DEVICE, "bat2")])
def test_what_stands_in_the_way_elsewhere_does_not_matter(scope: Scope) -> None:
    facts = replace(CLEAR, board=_hung(TagKind.CLEARANCE, F1), stopped=_rows("bat0", "bat1", "pv0"))
    assert _why(_asked(scope), facts) == []


def test_a_caution_and_a_value_that_will_be_moved_are_shown_and_do_not_refuse() -> None:
    facts = replace(CLEAR, board=_hung(TagKind.CAUTION, only("bat0")))
    _, answer = select(Selections(), _asked(F1, 30e3), facts)
    assert isinstance(answer, Selected)
    assert [note.by for note in answer.notes] == ["tag", "bounds"]
    assert answer.notes[1].text.startswith("bat0, bat1, pv0: will get another value")


@pytest.mark.parametrize(("late_s", "refused"), [(-0.001, False), (0.0, True), (100.0, True)])
def test_a_selection_ends(late_s: float, refused: bool) -> None:
    open_, number = _selected(_asked())
    open_, answer = operate(open_, number, "smith", replace(CLEAR, now_s=NOW_S + SELECT_S + late_s))
    assert isinstance(answer, Refused) is refused
    assert open_.open == ()


def test_a_permissive_that_is_lost_between_select_and_operate_refuses_and_the_selection_is_gone() -> None:
    open_, number = _selected(_asked())
    open_, answer = operate(open_, number, "smith", replace(CLEAR, board=_hung(TagKind.CLEARANCE)))
    assert isinstance(answer, Refused)
    assert [reason.by for reason in answer.reasons] == ["tag"]
    assert isinstance(operate(open_, number, "smith", CLEAR)[1], Refused)


def test_what_another_has_selected_is_not_selected_and_his_selection_not_operated() -> None:
    open_, number = _selected(_asked(VPP, author="jones"))
    assert _why(_asked(F1), CLEAR, open_) == ["selection"]
    assert _why(_asked(only("pv1")), CLEAR, open_) == []
    after, answer = operate(open_, number, "smith", CLEAR)
    assert isinstance(answer, Refused)
    assert after == open_
    assert isinstance(operate(open_, number, "jones", CLEAR)[1], Operated)
    assert _why(_asked(F1), replace(CLEAR, now_s=NOW_S + SELECT_S), open_) == []
    assert _why(_asked(F1), CLEAR, cancel(open_, number)) == []


def test_each_author_has_one_selection_the_latest() -> None:
    open_, first = _selected(_asked(F1))
    open_, second = _selected(_asked(EVERYTHING), open_=open_)
    assert [selection.number for selection in open_.open] == [second]
    assert isinstance(operate(open_, first, "smith", CLEAR)[1], Refused)


@pytest.mark.parametrize("hold_s", [0.0, -1.0, HOLD_MAX_S + 1.0, math.inf, math.nan])
def test_a_value_without_an_end_in_sight_is_refused(hold_s: float) -> None:
    assert _why(_asked(hold_s=hold_s), CLEAR) == ["request"]


def test_a_scope_that_nobody_knows_is_refused() -> None:
    assert _why(_asked(Scope(Level.GROUP, "no-such-group")), CLEAR) == ["request"]


@QUICKLY
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["select", "operate", "wait"]),
            st.sampled_from(["smith", "jones", "lee"]),
            st.sampled_from([F1, F2, VPP, only("bat0"), EVERYTHING]),
            st.integers(1, 6),
        ),
        max_size=30,
    )
)
def test_no_device_is_ever_selected_by_two_and_no_selection_operated_twice(
    steps: list[tuple[str, str, Scope, int]],
) -> None:
    open_, facts, used = Selections(), CLEAR, set[int]()
    for step, author, scope, number in steps:
        if step == "wait":
            facts = replace(facts, now_s=facts.now_s + 5.0 * number)
        elif step == "select":
            open_, _ = select(open_, _asked(scope, author=author), facts)
        else:
            open_, answer = operate(open_, number, author, facts)
            if isinstance(answer, Operated):
                assert number not in used
                assert answer.asked.author == author
                used.add(number)
        live = open_.live(facts.now_s)
        assert len({selection.asked.author for selection in live}) == len(live)
        assert sum((PLACES.under(selection.asked.scope) * 1.0 for selection in live), np.zeros(COUNT)).max() <= 1.0


def _claims_after(claims: Claims, asked: Asked, seq: int) -> Claims:
    return claimed(claims, Operated(asked, ()), CLEAR, Ticket(1, seq, NOW_S + 2.0))


def test_a_manual_value_bears_its_author_and_its_end_and_giving_up_takes_it_off_whoever_set_it() -> None:
    claims = _claims_after(Claims(), _asked(VPP, 5e3), 1)
    claims = _claims_after(claims, _asked(only("bat0"), 7e3, author="jones", hold_s=60.0), 2)
    found = ownership(claims, Quantity.P_SET, np.zeros(COUNT), NOW_S)
    np.testing.assert_array_equal(found.value_w, [7e3, math.nan, math.nan, math.nan, 5e3, math.nan])
    assert found.account(0) == "operator jones until 560 s; next: operator smith"
    assert found.account(4) == "operator smith until 1100 s; next: device default"
    claims = _claims_after(claims, _asked(F1, None, author="lee"), 3)
    after = ownership(claims, Quantity.P_SET, np.zeros(COUNT), NOW_S)
    np.testing.assert_array_equal(np.isnan(after.value_w), [True, True, True, True, False, True])


def test_a_manual_limit_binds_the_setpoints_of_lower_ranks() -> None:
    asked = Asked("smith", only("bat0"), Quantity.P_LIMIT, 3e3, 60.0)
    claims = _claims_after(Claims(), asked, 1)
    (claim,) = claims.live(NOW_S)
    assert (claim.high_w[0], claim.wish_w[0], claim.low_w[0]) == (3e3, 3e3, -math.inf)


def test_tags_bar_ranks_by_what_they_are_and_everyone_from_energizing() -> None:
    board = _hung(TagKind.AUTOMATIC_INHIBIT, F1).hung(TagKind.CLEARANCE, only("pv1"), "line down", "lee", AT)
    np.testing.assert_array_equal(barred(Rank.OPTIMIZER, board, PLACES), _rows("bat0", "bat1", "pv0", "pv1"))
    np.testing.assert_array_equal(barred(Rank.OPERATOR, board, PLACES), _rows("pv1"))
    assert not barred(Rank.EMERGENCY, board, PLACES).any()
    np.testing.assert_array_equal(tag_bounds(board, PLACES).high_w, np.where(_rows("pv1"), 0.0, math.inf))


def test_a_substituted_value_is_flagged_and_ends() -> None:
    substitutes = [
        Substitute(0, "soc_frac", 0.5, "smith", "meter on site", NOW_S + 60.0),
        Substitute(0, "soc_frac", 0.6, "jones", "read again", NOW_S + 30.0),
        Substitute(1, "p_w", 9e3, "smith", "other column", NOW_S + 60.0),
    ]
    measured = np.array([math.nan, 0.4])
    for now_s, expected in ((NOW_S, 0.6), (NOW_S + 30.0, 0.5), (NOW_S + 60.0, math.nan)):
        values, flagged = substituted("soc_frac", measured, substitutes, now_s)
        np.testing.assert_array_equal(values, [expected, 0.4])
        np.testing.assert_array_equal(flagged, [not math.isnan(expected), False])
    assert math.isnan(measured[0])
