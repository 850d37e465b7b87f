"""Authority: who may move each device, and what higher authorities leave to lower ones.

Everyone who wants something of devices makes a claim: bounds on their power, a wish, an owner and an end. A claim
narrows what is left to all claims below it; where nothing would be left, the nearest value that the higher one allows
is. The value of a device is the highest wish, inside what stands above it; without claims it is its own default.
Claims are a set: in which order they arrived does not matter. Active power in W, + = injection; times in s on the
monotonic clock. Columns of a claim have a row per device that it is about, those of the fleet a row per device.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum

import numpy as np

from derms.control.guards import PowerBounds
from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.domain.dispatch import Quantity
from derms.domain.refusal import Reason, Refused
from derms.domain.scope import Places, Scope

HOLD_MAX_S = 24 * 3600.0
"""Longest time that a value by hand, a substitute or a lock may stand."""


class Rank(IntEnum):
    """Authorities, the highest first."""

    PROTECTION = 0
    EMERGENCY = 1
    OPERATOR = 2
    PROGRAMME = 3
    """An event of a demand-response programme, or an instruction under a contract."""
    OPTIMIZER = 4
    SCHEDULE = 5
    DEFAULT = 6
    """What the device does by itself; nobody claims it."""

    @property
    def label(self) -> str:
        return "programme event" if self is Rank.PROGRAMME else self.name.lower().replace("default", "device default")


@dataclass(frozen=True, slots=True)
class Ticket:
    """Travels with every request: under which lease it was made, its place there, and until when it may be acted on."""

    token: int
    """Fencing token: greater with every lease."""
    seq: int
    """Counts the requests of one lease."""
    deadline_s: float

    @property
    def age_key(self) -> tuple[int, int]:
        """Greater for what was asked later."""
        return self.token, self.seq


@dataclass(frozen=True, slots=True)
class Fence:
    """The greatest fencing token seen: whoever comes with a smaller one has lost the lease without knowing it."""

    token: int = 0

    def after(self, ticket: Ticket) -> "Fence":
        return Fence(max(self.token, ticket.token))

    def refusal(self, ticket: Ticket, now_s: float) -> Reason | None:
        """Why a request may not be acted on; None when it may. To be asked last thing before the send."""
        if ticket.token < self.token:
            return Reason("token", f"token {ticket.token} is stale: the lease is at {self.token}")
        if not now_s < ticket.deadline_s:
            return Reason("deadline", f"its deadline passed {now_s - ticket.deadline_s:.1f} s ago")
        return None


@dataclass(frozen=True)
class Claim:
    """What one authority wants of some devices until a time; raises ValueError for what nobody can want."""

    rank: Rank
    owner: str
    """A person, a programme, `optimizer`."""
    subject: str
    """What it is about: a later claim of the same rank, owner and subject takes its place."""
    ticket: Ticket
    until_s: float
    rows: IntArray
    """Rows of the fleet, each once, shape (k,)."""
    low_w: FloatArray
    high_w: FloatArray
    """Bounds on power, shape (k,); infinite where it sets none. They bind every quantity."""
    wish_w: FloatArray
    """Shape (k,); NaN where it only sets bounds."""
    quantity: Quantity = Quantity.P_SET
    """What the wish is about."""

    def __post_init__(self) -> None:
        columns = (self.low_w, self.high_w, self.wish_w)
        if self.rank is Rank.DEFAULT or not math.isfinite(self.until_s):
            raise ValueError("a claim has a rank above the device's default, and an end")
        if any(column.shape != self.rows.shape for column in columns) or len(np.unique(self.rows)) != len(self.rows):
            raise ValueError("a claim has one value of each column for each device, and each device once")
        if not (self.low_w <= self.high_w).all() or np.isinf(self.wish_w).any():
            raise ValueError("a claim needs low <= high and finite wishes")

    @property
    def key(self) -> tuple[Rank, str, str]:
        return self.rank, self.owner, self.subject

    def among(self, rows: BoolArray) -> "Claim":
        """The same for those of its devices that are among some rows, shape (n,): modes and tags let no others pass."""
        kept = rows[self.rows]
        return replace(self, **{name: getattr(self, name)[kept] for name in ("rows", "low_w", "high_w", "wish_w")})


@dataclass(frozen=True)
class Claims:
    """The latest claim of each rank, owner and subject."""

    by_key: Mapping[tuple[Rank, str, str], Claim] = field(default_factory=dict)

    def joined(self, claims: Iterable[Claim]) -> "Claims":
        """With further claims; of two with the same key the later stays, whichever arrived first."""
        kept = dict(self.by_key)
        for claim in claims:
            if claim.key not in kept or kept[claim.key].ticket.age_key < claim.ticket.age_key:
                kept[claim.key] = claim
        return Claims(kept)

    def live(self, now_s: float) -> tuple[Claim, ...]:
        """Claims that have not expired, the highest rank first, inside a rank the latest first."""
        found = [claim for claim in self.by_key.values() if now_s < claim.until_s]
        return tuple(
            sorted(found, key=lambda claim: (claim.rank, *(-part for part in claim.ticket.age_key), claim.key))
        )

    def yielded(self, rank: Rank, rows: BoolArray) -> "Claims":
        """Where a rank gives up some rows, shape (n,), whoever of it claimed them: lower ranks have them again."""
        given_up = [claim for claim in self.by_key.values() if claim.rank is rank and rows[claim.rows].any()]
        return Claims({**self.by_key, **{claim.key: claim.among(~rows) for claim in given_up}})

    def pruned(self, now_s: float) -> "Claims":
        """Without those that have expired."""
        return Claims({claim.key: claim for claim in self.live(now_s)})


def _unbounded(count: int) -> PowerBounds:
    return PowerBounds(np.full(count, -np.inf), np.full(count, np.inf))


def _narrow(bounds: PowerBounds, claim: Claim, rows: IntArray, given: BoolArray) -> None:
    """Narrow bounds in place by those `given` of a claim's devices; where nothing is left, the nearest value is."""
    low_w, high_w = bounds.low_w[rows], bounds.high_w[rows]
    bounds.low_w[rows] = np.clip(claim.low_w[given], low_w, high_w)
    bounds.high_w[rows] = np.clip(claim.high_w[given], low_w, high_w)


def left_to(rank: Rank, claims: Claims, count: int, now_s: float) -> PowerBounds:
    """What all higher ranks leave to a rank, of each of `count` devices; never empty."""
    bounds = _unbounded(count)
    for claim in claims.live(now_s):
        if claim.rank < rank:
            _narrow(bounds, claim, claim.rows, np.ones(len(claim.rows), dtype=np.bool_))
    return bounds


NOBODY = -1
"""In place of the number of a claim."""


@dataclass(frozen=True)
class Ownership:
    """Who has each device, at what, until when, and who is next; columns of shape (n,)."""

    claims: tuple[Claim, ...]
    """Live claims in order; the columns below are their numbers."""
    value_w: FloatArray
    """NaN: nobody wants anything, and the device is left to, or handed back to, its default."""
    owner: IntArray
    """The claim whose wish counts; NOBODY for the device's default."""
    limited_by: IntArray
    """The claim that moved that wish, the highest of several; NOBODY where it is as wished."""
    until_s: FloatArray
    """When the owner's claim ends; infinite for the device's default."""
    next_owner: IntArray
    """The claim that counts when the owner's ends, if nothing else comes; NOBODY for the device's default."""

    def account(self, row: int) -> str:
        """For people: who has a device, who holds them back, who is next."""
        owner, limit, heir = (self.name(int(column[row])) for column in (self.owner, self.limited_by, self.next_owner))
        held_back = "" if self.limited_by[row] == NOBODY else f", limited by {limit}"
        if self.owner[row] == NOBODY:
            return owner + held_back
        return f"{owner} until {self.until_s[row]:.0f} s{held_back}; next: {heir}"

    def name(self, number: int) -> str:
        """The owner with a number in the columns, for people."""
        if number == NOBODY:
            return Rank.DEFAULT.label
        claim = self.claims[number]
        return claim.rank.label if claim.owner == claim.rank.label else f"{claim.rank.label} {claim.owner}"


def ownership(claims: Claims, quantity: Quantity, default_w: FloatArray, now_s: float) -> Ownership:
    """Who has each device for a quantity.

    Parameters
    ----------
    claims : Claims
    quantity : Quantity
        Whose wishes count; bounds of all claims do.
    default_w : FloatArray
        What each device gives by itself [W], shape (n,): its rating for a limit, mostly 0 for a setpoint. It counts
        where a claim bounds a device and nobody wishes anything; NaN where the device does not take the quantity.
    now_s : float
        Monotonic time [s].
    """
    live, count = claims.live(now_s), len(default_w)
    wishes = [np.isfinite(claim.wish_w) & (claim.quantity is quantity) for claim in live]
    owner, wish_w, until_s = np.full(count, len(live)), default_w.copy(), np.full(count, np.inf)
    for number, (claim, has) in reversed(list(enumerate(zip(live, wishes, strict=True)))):
        rows = claim.rows[has]
        owner[rows], wish_w[rows], until_s[rows] = number, claim.wish_w[has], claim.until_s
    next_owner, limited_by, bounds = np.full(count, NOBODY), np.full(count, NOBODY), _unbounded(count)
    for number, (claim, has) in reversed(list(enumerate(zip(live, wishes, strict=True)))):
        rows = claim.rows[has]
        rows = rows[(owner[rows] < number) & (until_s[rows] < claim.until_s)]
        next_owner[rows] = number
    for number, claim in enumerate(live):
        counts = owner[claim.rows] >= number
        rows = claim.rows[counts]
        _narrow(bounds, claim, rows, counts)
        clipped_w = np.clip(wish_w[rows], bounds.low_w[rows], bounds.high_w[rows])
        limited_by[rows[(limited_by[rows] == NOBODY) & (clipped_w != wish_w[rows]) & ~np.isnan(clipped_w)]] = number
    nobody = owner == len(live)
    bounded = np.isfinite(bounds.low_w) | np.isfinite(bounds.high_w)
    value_w = np.where(nobody & ~bounded, np.nan, np.clip(wish_w, bounds.low_w, bounds.high_w))
    return Ownership(live, value_w, np.where(nobody, NOBODY, owner), limited_by, until_s, next_owner)


@dataclass(frozen=True, slots=True)
class Lock:
    """While it lasts only its owner may command the devices under it by hand."""

    scope: Scope
    owner: str
    until_s: float


@dataclass(frozen=True, slots=True)
class Locks:
    """All locks; those that have expired count for nothing."""

    held: tuple[Lock, ...] = ()

    def live(self, now_s: float) -> tuple[Lock, ...]:
        return tuple(lock for lock in self.held if now_s < lock.until_s)

    def taken(self, lock: Lock, places: Places, now_s: float) -> "Locks | Refused":
        """With a lock more, or in the place of its owner's on the same scope; refused where others hold one over it."""
        reasons = self.reasons(lock.owner, lock.scope, places, now_s)
        if not places.under(lock.scope).any():
            reasons = (*reasons, Reason("scope", f"there is no {lock.scope}"))
        if not now_s < lock.until_s <= now_s + HOLD_MAX_S:
            text = f"a lock stands for more than 0 and at most {HOLD_MAX_S / 3600:.0f} h: take it again when it ends"
            reasons = (*reasons, Reason("expiry", text))
        if reasons:
            return Refused(reasons)
        others = tuple(held for held in self.live(now_s) if (held.owner, held.scope) != (lock.owner, lock.scope))
        return Locks((*others, lock))

    def given_back(self, owner: str, scope: Scope) -> "Locks":
        """Without the owner's lock on a scope."""
        return Locks(tuple(held for held in self.held if (held.owner, held.scope) != (owner, scope)))

    def reasons(self, author: str, scope: Scope, places: Places, now_s: float) -> tuple[Reason, ...]:
        """The locks of others over any device of a scope."""
        return tuple(
            Reason("lock", f"{lock.scope} is locked by {lock.owner} for another {lock.until_s - now_s:.0f} s")
            for lock in self.live(now_s)
            if lock.owner != author and places.overlap(lock.scope, scope)
        )
