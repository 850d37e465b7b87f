"""Authority: higher claims narrow lower ones, everything ends, and the order in which claims arrive changes nothing."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derms.control.authority import (
    HOLD_MAX_S,
    NOBODY,
    Claim,
    Claims,
    Fence,
    Lock,
    Locks,
    Rank,
    Ticket,
    left_to,
    ownership,
)
from derms.domain.dispatch import Quantity
from derms.domain.refusal import Refused
from derms.domain.scope import Level, Scope
from tests.control.areas import F1, F2, PLACES, VPP, only

QUICKLY = settings(max_examples=40, deadline=None)
COUNT = 4
NOW_S = 1000.0
DEFAULT_W = np.zeros(COUNT)
FREE = (-math.inf, math.inf)


def _claim(
    rank: Rank,
    *,
    owner: str = "",
    subject: str = "",
    seq: int = 1,
    until_s: float = NOW_S + 60.0,
    rows: Sequence[int] = range(COUNT),
    bounds_w: tuple[float, float] = FREE,
    wish_w: float = math.nan,
    quantity: Quantity = Quantity.P_SET,
) -> Claim:
    count = len(rows)
    return Claim(
        rank=rank,
        owner=owner or rank.label,
        subject=subject,
        ticket=Ticket(token=1, seq=seq, deadline_s=until_s),
        until_s=until_s,
        rows=np.array(rows, dtype=np.intp),
        low_w=np.full(count, bounds_w[0]),
        high_w=np.full(count, bounds_w[1]),
        wish_w=np.full(count, wish_w),
        quantity=quantity,
    )


def _claims(*claims: Claim) -> Claims:
    return Claims().joined(claims)


WATTS = st.integers(-5, 5).map(lambda kw: kw * 1e3)
BOUNDS = st.one_of(
    st.just(FREE),
    WATTS.map(lambda w: (-math.inf, w)),
    WATTS.map(lambda w: (w, math.inf)),
    st.tuples(WATTS, WATTS).map(lambda pair: (min(pair), max(pair))),
)


@st.composite
def any_claims(draw: st.DrawFn) -> list[Claim]:
    """Claims of all ranks, some expired, on some devices; each has a number of its own."""
    ranks = draw(st.lists(st.sampled_from([rank for rank in Rank if rank is not Rank.DEFAULT]), max_size=7))
    return [
        _claim(
            rank,
            owner=draw(st.sampled_from(["smith", "jones"])),
            subject=draw(st.sampled_from(["plan", "event"])),
            seq=seq,
            until_s=draw(st.sampled_from([NOW_S - 1.0, NOW_S, NOW_S + 1.0, NOW_S + 60.0, NOW_S + 90.0])),
            rows=sorted(draw(st.sets(st.integers(0, COUNT - 1)))),
            bounds_w=draw(BOUNDS),
            wish_w=draw(st.one_of(WATTS, st.just(math.nan))),
        )
        for seq, rank in enumerate(ranks)
    ]


def _ordered(claims: Sequence[Claim], row: int) -> list[tuple[Claim, float, float, float]]:
    """By the rules read aloud: the live claims on a device, the latest of each key, highest and latest first."""
    latest: dict[object, Claim] = {}
    for claim in sorted(claims, key=lambda claim: claim.ticket.seq):
        latest[claim.rank, claim.owner, claim.subject] = claim
    live = [claim for claim in latest.values() if claim.until_s > NOW_S and row in claim.rows]
    live.sort(key=lambda claim: (claim.rank, -claim.ticket.seq))
    at = [claim.rows.tolist().index(row) for claim in live]
    return [
        (claim, float(claim.low_w[k]), float(claim.high_w[k]), float(claim.wish_w[k]))
        for claim, k in zip(live, at, strict=True)
    ]


@QUICKLY
@given(any_claims())
def test_no_value_lies_outside_the_bounds_of_a_higher_authority(claims: list[Claim]) -> None:
    """Of authorities that contradict each other the higher ones hold, at the edge that is nearest to the lower's."""
    found = ownership(_claims(*claims), Quantity.P_SET, DEFAULT_W, NOW_S)
    for row in range(COUNT):
        low_w, high_w = FREE
        value_w, bounded = 0.0, False
        for _, low, high, wish in _ordered(claims, row):
            if max(low_w, low) <= min(high_w, high):
                low_w, high_w = max(low_w, low), min(high_w, high)
            else:
                low_w = high_w = low_w if high < low_w else high_w
            bounded = bounded or (low, high) != FREE
            if math.isfinite(wish):
                value_w, bounded = wish, True
                break
        expected_w = min(max(value_w, low_w), high_w) if bounded else math.nan
        np.testing.assert_array_equal(found.value_w[row], expected_w)


@QUICKLY
@given(any_claims())
def test_the_highest_wish_owns_the_device_and_the_next_that_outlives_it_follows(claims: list[Claim]) -> None:
    found = ownership(_claims(*claims), Quantity.P_SET, DEFAULT_W, NOW_S)
    for row in range(COUNT):
        wishers = [claim for claim, _, _, wish in _ordered(claims, row) if math.isfinite(wish)]
        if not wishers:
            assert found.owner[row] == NOBODY
            assert found.until_s[row] == math.inf
            continue
        assert found.claims[found.owner[row]] is wishers[0]
        assert found.until_s[row] == wishers[0].until_s
        heirs = [claim for claim in wishers[1:] if claim.until_s > wishers[0].until_s]
        number = found.next_owner[row]
        assert (None if number == NOBODY else found.claims[number]) is (heirs[0] if heirs else None)


@QUICKLY
@given(any_claims(), st.randoms(use_true_random=False))
def test_in_which_order_claims_arrive_and_how_often_changes_nothing(claims: list[Claim], chance: random.Random) -> None:
    shuffled = claims + claims[:2]
    chance.shuffle(shuffled)
    one = ownership(_claims(*claims), Quantity.P_SET, DEFAULT_W, NOW_S)
    other = ownership(Claims().joined(shuffled[:3]).joined(shuffled[3:]), Quantity.P_SET, DEFAULT_W, NOW_S)
    assert one.claims == other.claims
    for column in ("value_w", "owner", "limited_by", "until_s", "next_owner"):
        np.testing.assert_array_equal(getattr(one, column), getattr(other, column))


@QUICKLY
@given(any_claims())
def test_when_all_have_ended_every_device_is_left_to_its_default(claims: list[Claim]) -> None:
    later_s = max([claim.until_s for claim in claims], default=NOW_S)
    found = ownership(_claims(*claims), Quantity.P_SET, DEFAULT_W, later_s)
    assert np.isnan(found.value_w).all()
    assert (found.owner == NOBODY).all()
    assert _claims(*claims).pruned(later_s) == Claims()


@QUICKLY
@given(any_claims())
def test_what_is_left_to_a_rank_is_never_empty_and_shrinks_downwards(claims: list[Claim]) -> None:
    above = None
    for rank in Rank:
        bounds = left_to(rank, _claims(*claims), COUNT, NOW_S)
        assert not bounds.empty.any()
        if above is not None:
            assert (bounds.low_w >= above.low_w).all()
            assert (bounds.high_w <= above.high_w).all()
        above = bounds


def test_a_rank_is_not_bound_by_itself_nor_by_a_lower_one() -> None:
    claims = _claims(
        _claim(Rank.PROTECTION, bounds_w=(-9e3, 9e3)),
        _claim(Rank.OPERATOR, bounds_w=(-5e3, 5e3), wish_w=5e3),
        _claim(Rank.OPTIMIZER, bounds_w=(-1e3, 1e3), wish_w=1e3),
    )
    assert [left_to(rank, claims, COUNT, NOW_S).high_w[0] for rank in (Rank.OPERATOR, Rank.OPTIMIZER)] == [9e3, 5e3]
    assert ownership(claims, Quantity.P_SET, DEFAULT_W, NOW_S).value_w[0] == 5e3


def test_a_wish_for_a_limit_is_none_for_a_setpoint() -> None:
    claims = _claims(
        _claim(Rank.OPERATOR, wish_w=3e3, quantity=Quantity.P_LIMIT),
        _claim(Rank.OPTIMIZER, wish_w=8e3),
    )
    assert ownership(claims, Quantity.P_SET, DEFAULT_W, NOW_S).value_w[0] == 8e3
    assert ownership(claims, Quantity.P_LIMIT, DEFAULT_W, NOW_S).value_w[0] == 3e3


def test_an_operators_setpoint_is_cut_by_protection_and_the_account_says_so() -> None:
    claims = _claims(
        _claim(Rank.PROTECTION, bounds_w=(-1e9, 4e3), until_s=NOW_S + 300.0),
        _claim(Rank.OPERATOR, owner="smith", wish_w=9e3, rows=[0, 1], until_s=NOW_S + 30.0),
        _claim(Rank.OPTIMIZER, wish_w=-2e3, until_s=NOW_S + 60.0),
    )
    found = ownership(claims, Quantity.P_SET, DEFAULT_W, NOW_S)
    np.testing.assert_array_equal(found.value_w, [4e3, 4e3, -2e3, -2e3])
    assert found.account(0) == "operator smith until 1030 s, limited by protection; next: optimizer"
    assert found.account(2) == "optimizer until 1060 s; next: device default"
    later = ownership(claims, Quantity.P_SET, DEFAULT_W, NOW_S + 30.0)
    np.testing.assert_array_equal(later.value_w, np.full(COUNT, -2e3))


def test_a_device_that_is_only_bounded_is_held_at_the_nearest_value_to_what_it_does_by_itself() -> None:
    """A limit on 30 kW of sun that nobody commands: it has to be told, else it would give all it has."""
    claims = _claims(_claim(Rank.EMERGENCY, bounds_w=(-math.inf, 0.0), rows=[0]))
    found = ownership(claims, Quantity.P_LIMIT, np.full(COUNT, 30e3), NOW_S)
    np.testing.assert_array_equal(found.value_w, [0.0, math.nan, math.nan, math.nan])
    assert found.account(0) == "device default, limited by emergency"
    assert found.account(1) == "device default"


def test_a_limit_binds_the_setpoint_of_the_same_device() -> None:
    claims = _claims(
        _claim(Rank.PROGRAMME, bounds_w=(-math.inf, 3e3), wish_w=3e3, quantity=Quantity.P_LIMIT),
        _claim(Rank.OPTIMIZER, wish_w=8e3),
    )
    np.testing.assert_array_equal(ownership(claims, Quantity.P_SET, DEFAULT_W, NOW_S).value_w, np.full(COUNT, 3e3))


@pytest.mark.parametrize(
    ("higher", "lower", "edge_w"),
    [((-math.inf, 0.0), (5e3, 9e3), 0.0), ((5e3, 9e3), (-math.inf, 0.0), 5e3), ((1e3, 2e3), (3e3, 3e3), 2e3)],
)
def test_where_nothing_would_be_left_the_higher_one_holds_at_its_nearest_edge(
    higher: tuple[float, float], lower: tuple[float, float], edge_w: float
) -> None:
    claims = _claims(
        _claim(Rank.EMERGENCY, bounds_w=higher),
        _claim(Rank.OPERATOR, bounds_w=lower),
        _claim(Rank.OPTIMIZER, wish_w=-7e3),
    )
    np.testing.assert_array_equal(ownership(claims, Quantity.P_SET, DEFAULT_W, NOW_S).value_w, np.full(COUNT, edge_w))
    assert left_to(Rank.OPTIMIZER, claims, COUNT, NOW_S).low_w[0] == edge_w


def test_of_two_operators_the_later_command_counts_and_the_earlier_comes_back_after_it() -> None:
    claims = _claims(
        _claim(Rank.OPERATOR, owner="jones", wish_w=2e3, seq=8, until_s=NOW_S + 10.0),
        _claim(Rank.OPERATOR, owner="smith", wish_w=1e3, seq=7, until_s=NOW_S + 60.0),
    )
    assert ownership(claims, Quantity.P_SET, DEFAULT_W, NOW_S).value_w[0] == 2e3
    assert ownership(claims, Quantity.P_SET, DEFAULT_W, NOW_S + 10.0).value_w[0] == 1e3


def test_a_later_plan_takes_the_place_of_the_earlier_even_where_it_leaves_devices_out() -> None:
    old = _claim(Rank.OPTIMIZER, subject="plan", seq=41, wish_w=5e3)
    new = _claim(Rank.OPTIMIZER, subject="plan", seq=42, wish_w=4e3, rows=[0])
    found = ownership(_claims(new, old), Quantity.P_SET, DEFAULT_W, NOW_S)
    np.testing.assert_array_equal(found.value_w, [4e3, math.nan, math.nan, math.nan])


def test_what_operators_give_up_lower_ranks_have_again() -> None:
    claims = _claims(
        _claim(Rank.OPERATOR, owner="smith", wish_w=1e3),
        _claim(Rank.OPERATOR, owner="jones", wish_w=2e3, rows=[0], seq=2),
        _claim(Rank.OPTIMIZER, wish_w=-3e3),
    ).yielded(Rank.OPERATOR, np.array([True, True, False, False]))
    found = ownership(claims, Quantity.P_SET, DEFAULT_W, NOW_S)
    np.testing.assert_array_equal(found.value_w, [-3e3, -3e3, 1e3, 1e3])


def test_a_claim_keeps_only_the_devices_that_mode_and_tags_let_pass() -> None:
    claim = _claim(Rank.OPTIMIZER, wish_w=5e3).among(np.array([True, False, False, True]))
    found = ownership(_claims(claim), Quantity.P_SET, DEFAULT_W, NOW_S)
    np.testing.assert_array_equal(found.value_w, [5e3, math.nan, math.nan, 5e3])


@pytest.mark.parametrize(
    ("rank", "changes"),
    [
        (Rank.OPTIMIZER, {"bounds_w": (math.nan, 1.0)}),
        (Rank.OPTIMIZER, {"bounds_w": (2.0, 1.0)}),
        (Rank.OPTIMIZER, {"wish_w": math.inf}),
        (Rank.OPTIMIZER, {"until_s": math.inf}),
        (Rank.OPTIMIZER, {"until_s": math.nan}),
        (Rank.OPTIMIZER, {"rows": [1, 1]}),
        (Rank.DEFAULT, {}),
    ],
)
def test_a_claim_that_nobody_can_want_is_refused_at_the_door(rank: Rank, changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="claim"):
        _claim(rank, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("token", "deadline_s", "now_s", "by"),
    [
        (5, 10.0, 9.9, None),
        (6, 10.0, 9.9, None),
        (4, 10.0, 9.9, "token"),
        (5, 10.0, 10.0, "deadline"),
        (5, math.nan, 0.0, "deadline"),
        (4, 10.0, 20.0, "token"),
    ],
)
def test_a_request_of_an_old_lease_or_past_its_deadline_is_not_sent(
    token: int, deadline_s: float, now_s: float, by: str | None
) -> None:
    fence = Fence().after(Ticket(5, 1, 10.0)).after(Ticket(3, 9, 10.0))
    reason = fence.refusal(Ticket(token, 1, deadline_s), now_s)
    assert (None if reason is None else reason.by) == by


def _taken(locks: Locks, owner: str, scope: Scope, until_s: float = NOW_S + 60.0, now_s: float = NOW_S) -> Locks:
    taken = locks.taken(Lock(scope, owner, until_s), PLACES, now_s)
    assert isinstance(taken, Locks)
    return taken


def test_a_lock_keeps_others_out_of_everything_that_it_overlaps_until_it_ends() -> None:
    locks = _taken(Locks(), "smith", VPP)
    refused = locks.taken(Lock(F1, "jones", NOW_S + 9.0), PLACES, NOW_S)
    assert isinstance(refused, Refused)
    assert [reason.text for reason in refused.reasons] == ["group vpp is locked by smith for another 60 s"]
    assert _taken(locks, "jones", only("pv1")).live(NOW_S) != locks.live(NOW_S)
    assert locks.reasons("smith", F1, PLACES, NOW_S) == ()
    assert locks.reasons("jones", only("bat2"), PLACES, NOW_S) != ()
    assert locks.reasons("jones", only("bat2"), PLACES, NOW_S + 60.0) == ()
    assert _taken(locks, "jones", F1, NOW_S + 99.0, now_s=NOW_S + 60.0).live(NOW_S + 60.0)[0].owner == "jones"


def test_an_owner_prolongs_a_lock_by_taking_it_again_and_gives_it_back() -> None:
    locks = _taken(_taken(Locks(), "smith", F2), "smith", F2, NOW_S + 120.0)
    assert [lock.until_s for lock in locks.live(NOW_S)] == [NOW_S + 120.0]
    assert locks.given_back("jones", F2) == locks
    assert locks.given_back("smith", F2) == Locks()


@pytest.mark.parametrize("until_s", [NOW_S, NOW_S - 1.0, NOW_S + HOLD_MAX_S + 1.0, math.inf, math.nan])
def test_a_lock_without_an_end_or_with_one_too_far_or_on_nothing_is_refused_with_both_reasons(until_s: float) -> None:
    refused = Locks().taken(Lock(Scope(Level.GROUP, "nobody"), "smith", until_s), PLACES, NOW_S)
    assert isinstance(refused, Refused)
    assert [reason.by for reason in refused.reasons] == ["scope", "expiry"]
