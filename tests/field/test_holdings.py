"""What devices hold of ours, as values: which reading is a deviation, and how many corrections are too many."""

import math

import pytest

from derms.domain.dispatch import Command, Held, Quantity
from derms.field.holdings import HOUR_S, Corrections, Finding, Holding, Holdings, deviation

WRITTEN_S = 1000.0
HOLDING = Holding(
    Command(Quantity.P_SET, 5e3, 900.0), Held(4.99e3, 900.0, 900.0, 10.0), WRITTEN_S, WRITTEN_S, WRITTEN_S + 1800.0
)
REFRESHED = HOLDING.refreshed(WRITTEN_S + 280.0)


def held(value_w: float | None, left_s: float = math.nan) -> Held:
    return Held(value_w, 900.0, left_s, 10.0)


CASES = {
    "holds it": (HOLDING, held(4.99e3), 300.0, None),
    "rounds it by one step": (HOLDING, held(5e3), 300.0, None),
    "holds another value": (HOLDING, held(4.5e3), 300.0, Finding.OVERWRITTEN),
    "holds what is not one value": (HOLDING, held(math.nan), 300.0, Finding.OVERWRITTEN),
    "holds zero, which is not released": (HOLDING, held(0.0), 300.0, Finding.OVERWRITTEN),
    "has lost it": (HOLDING, held(None), 300.0, Finding.LOST),
    "has reverted as it should": (HOLDING, held(None), 901.0, None),
    "has reverted though refreshed": (REFRESHED, held(None), 901.0, Finding.REVERSION_LOST),
    "has reverted after the refresh ran out": (REFRESHED, held(None), 1181.0, None),
    "counts down": (HOLDING, held(4.99e3, 600.0), 300.0, None),
    "counts down coarsely": (HOLDING, held(4.99e3, 612.0), 300.0, None),
    "does not count down": (HOLDING, held(4.99e3, 900.0), 300.0, Finding.REVERSION_LOST),
    "counts down too fast": (HOLDING, held(4.99e3, 300.0), 300.0, Finding.REVERSION_LOST),
    "did not start again when refreshed": (REFRESHED, held(4.99e3, 600.0), 300.0, Finding.REVERSION_LOST),
    "started again when refreshed": (REFRESHED, held(4.99e3, 880.0), 300.0, None),
}


@pytest.mark.parametrize(("holding", "now_held", "since_s", "finding"), CASES.values(), ids=CASES.keys())
def test_a_device_is_compared_with_what_it_was_given(
    holding: Holding, now_held: Held, since_s: float, finding: Finding | None
) -> None:
    found = deviation(holding, now_held, WRITTEN_S + since_s)
    assert (None if found is None else found.finding) is finding
    if found is not None:
        assert found.corrects == (now_held.value_w != HOLDING.held.value_w)


def test_corrections_beyond_those_of_an_hour_hand_a_device_over_for_an_hour() -> None:
    corrections = Corrections(most_per_h=3)
    assert [corrections.made(7, at_s) for at_s in (0.0, 100.0, 200.0)] == [True] * 3
    assert corrections.handed_over == frozenset()
    assert not corrections.made(7, 300.0)
    assert corrections.handed_over == {7}
    assert corrections.ended(300.0 + HOUR_S - 1.0) == []
    assert corrections.ended(300.0 + HOUR_S) == [7]
    assert corrections.handed_over == frozenset()
    assert corrections.made(7, 300.0 + HOUR_S)


def test_corrections_of_more_than_an_hour_ago_do_not_count() -> None:
    corrections = Corrections(most_per_h=2)
    assert all(corrections.made(7, at_s) for at_s in (0.0, 1800.0, 3601.0, 5402.0, 7203.0))
    assert corrections.made(8, 7203.0)


def test_what_is_newly_held_is_told_once_and_not_when_it_is_gone_again() -> None:
    holdings = Holdings()
    first, second = (1, Quantity.P_SET), (2, Quantity.P_LIMIT)
    holdings[first], holdings[second] = HOLDING, HOLDING
    del holdings[second]
    assert holdings.news() == [(first, HOLDING)]
    assert holdings.news() == []
    holdings[first] = REFRESHED
    assert holdings.news() == [(first, REFRESHED)]
    assert dict(holdings) == {first: REFRESHED}
