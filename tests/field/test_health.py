"""Device health as a state machine: every fact from every state, and the hysteresis between."""

from itertools import product

import pytest

from derms.domain.health import CRASHES_TO_QUARANTINE, Condition, Fact, Health

A, F, B, R, M, C = Fact.ANSWERED, Fact.FAILED, Fact.BUSY, Fact.REFUSED, Fact.MISMATCHED, Fact.CRASHED


def told(*facts: Fact, asleep: bool = False) -> list[Health]:
    condition, found = Condition(), []
    for fact in facts:
        condition = condition.after(fact, asleep=asleep)
        found.append(condition.health)
    return found


W, U, N, Q = Health.WORKING, Health.UNCERTAIN, Health.NOT_WORKING, Health.QUARANTINED


@pytest.mark.parametrize(
    ("facts", "healths"),
    [
        ((A, F, A), (W, U, W)),
        ((A, F, F, A, A), (W, U, N, U, W)),
        ((A, F, F, A, F, A, A), (W, U, N, U, N, U, W)),
        ((A, B, A), (W, U, W)),
        ((A, B, B), (W, U, N)),
        ((A, R, A, A), (W, N, U, W)),
        ((A, M, F, A, A), (W, Q, Q, U, W)),
        ((A, C, C, C), (W, U, U, Q)),
        ((A, C, C, A, C), (W, U, U, W, U)),
        ((A, C, F, C, C), (W, U, N, N, N)),
        ((F, F), (U, N)),
    ],
)
def test_health_follows_facts_with_hysteresis(facts: tuple[Fact, ...], healths: tuple[Health, ...]) -> None:
    assert told(*facts) == list(healths)


def test_silence_of_a_sleeping_device_is_expected_however_long() -> None:
    assert set(told(*[F] * 50, asleep=True)) == {Health.EXPECTED_SILENT}


def test_a_sleeping_device_that_refuses_or_is_another_is_no_less_of_an_alarm() -> None:
    assert told(R, asleep=True) == [N]
    assert told(M, asleep=True) == [Q]


def test_a_device_lost_by_day_is_not_excused_by_the_night() -> None:
    condition = Condition()
    for fact in (A, F, F):
        condition = condition.after(fact, asleep=False)
    assert condition.after(F, asleep=True).health is N


def test_lost_is_a_flag_that_turns_once_on_the_way_out_and_once_on_the_way_back() -> None:
    for facts in product(Fact, repeat=4):
        condition, flags = Condition(), [False]
        for fact in (A, *facts, A, A):
            condition = condition.after(fact, asleep=False)
            flags.append(condition.lost)
            assert condition.lost >= (condition.health in (N, Q))
            assert not (condition.lost and condition.health is W)
        assert not flags[-1]
        assert condition.health is W


def test_only_crashes_in_a_row_quarantine() -> None:
    assert told(*[C, A] * 10)[-2] is U
    assert told(*[C] * CRASHES_TO_QUARANTINE)[-1] is Q
