"""Tags: what each card forbids stands in one table, and cards stack."""

from collections.abc import Sequence

import pytest

from derms.domain.scope import EVERYTHING, Level, Scope
from derms.domain.tags import FORBIDS, Act, Board, TagKind
from tests.control.areas import AT, DEVICES, F1, F2, PLACES, VPP, only


def _board(*tags: tuple[TagKind, Scope]) -> Board:
    board = Board()
    for kind, scope in tags:
        board = board.hung(kind, scope, "crew at pole 17", "smith", AT)
    return board


def _forbidden(board: Board, act: Act) -> list[str]:
    return [device for device, no in zip(DEVICES, board.forbids(act, PLACES), strict=True) if no]


@pytest.mark.parametrize(
    ("scope", "under"),
    [
        (only("pv1"), ["pv1"]),
        (F1, ["bat0", "bat1", "pv0"]),
        (VPP, ["bat0", "bat2"]),
        (EVERYTHING, list(DEVICES)),
        (Scope(Level.FEEDER, "f9"), []),
        (only("sold"), []),
    ],
)
def test_a_clearance_keeps_everything_under_it_out_and_nothing_else(scope: Scope, under: Sequence[str]) -> None:
    board = _board((TagKind.CLEARANCE, scope))
    assert _forbidden(board, Act.ENERGIZE) == _forbidden(board, Act.MANUAL) == under
    assert _forbidden(board, Act.POLL) == []


def test_every_card_has_its_row_and_a_caution_forbids_nothing() -> None:
    assert set(FORBIDS) == set(TagKind)
    assert [kind for kind in TagKind if not FORBIDS[kind]] == [TagKind.CAUTION]
    # Each act is forbidden by some card, else it would be no use in the table.
    assert frozenset().union(*FORBIDS.values()) == set(Act)


@pytest.mark.parametrize("kind", list(TagKind))
def test_whatever_forbids_people_to_command_forbids_it_to_automatics_too(kind: TagKind) -> None:
    assert Act.MANUAL not in FORBIDS[kind] or Act.AUTOMATIC in FORBIDS[kind]


def test_a_device_not_polled_is_not_commanded() -> None:
    assert all({Act.MANUAL, Act.AUTOMATIC} <= acts for acts in FORBIDS.values() if Act.POLL in acts)


def test_cards_stack_and_each_is_taken_off_by_itself() -> None:
    board = _board((TagKind.CLEARANCE, F1), (TagKind.CLEARANCE, only("bat0")), (TagKind.AUTOMATIC_INHIBIT, VPP))
    assert _forbidden(board, Act.AUTOMATIC) == ["bat0", "bat1", "pv0", "bat2"]
    board = board.without(1)
    assert _forbidden(board, Act.ENERGIZE) == ["bat0"]
    assert _forbidden(board, Act.AUTOMATIC) == ["bat0", "bat2"]
    board = board.without(2).without(2).without(77)
    assert _forbidden(board, Act.ENERGIZE) == []
    assert [tag.number for tag in board.tags] == [3]


def test_the_number_of_a_card_that_is_off_is_never_given_to_another() -> None:
    board = _board((TagKind.CAUTION, F1), (TagKind.CAUTION, F2)).without(2)
    assert board.hung(TagKind.CAUTION, F1, "again", "jones", AT).tags[-1].number == 3


def test_the_cards_over_a_scope_are_those_that_hang_over_any_of_its_devices() -> None:
    board = _board((TagKind.CAUTION, F1), (TagKind.CAUTION, only("bat2")), (TagKind.CAUTION, only("pv2")))
    assert [tag.number for tag in board.over(VPP, PLACES)] == [1, 2]
    assert str(board.tags[0]) == "caution tag 1 on feeder f1, smith at 2026-04-15 19:00 UTC: crew at pole 17"


@pytest.mark.parametrize(("text", "author"), [("", "smith"), ("  ", "smith"), ("crew", " ")])
def test_a_card_without_text_or_author_is_not_hung(text: str, author: str) -> None:
    with pytest.raises(ValueError, match="text and an author"):
        Board().hung(TagKind.CAUTION, F1, text, author, AT)


@pytest.mark.parametrize(("level", "name"), [(Level.ALL, "f1"), (Level.FEEDER, ""), (Level.DEVICE, "")])
def test_a_scope_names_what_it_is_about_and_all_has_no_name(level: Level, name: str) -> None:
    with pytest.raises(ValueError, match="scope"):
        Scope(level, name)


def test_many_devices_are_counted_in_a_sentence_and_few_are_named() -> None:
    assert PLACES.named(PLACES.under(F2)) == "pv1, bat2"
    assert PLACES.named(PLACES.under(EVERYTHING)) == "bat0, bat1, pv0 and 3 more"
