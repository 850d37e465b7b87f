"""What is wanted of devices now: plans and people as claims, and what authority makes of them.

Powers in W, + = injection; times in s on the monotonic clock; columns of shape (n,).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from derms.control.authority import NOBODY, Claim, Claims, Rank, Ticket, ownership
from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.domain.der import Fleet
from derms.domain.dispatch import Dispatch, Quantity
from derms.field.laid import Laid

OPTIMIZER = "optimizer"


@dataclass(slots=True)
class Plans:
    """The dispatch that is offered, and the one that a person has approved for where that is asked."""

    latest: Dispatch | None = None
    approved: Dispatch | None = None

    def adopt(self, dispatch: Dispatch) -> None:
        """Take a newer one; the same plan with another trim stays approved."""
        self.latest = dispatch
        if self.approved is not None and self.approved.plan_id == dispatch.plan_id:
            self.approved = dispatch

    def approve(self, plan_id: int, now_s: float) -> bool:
        """Approve the plan that is offered; false where that is another one, or over."""
        latest = self.latest
        if latest is None or latest.plan_id != plan_id or latest.valid_until_s < now_s:
            return False
        self.approved = latest
        return True

    def expire(self, now_s: float) -> bool:
        """Drop what is over; whether the offered one is."""
        if self.approved is not None and self.approved.valid_until_s < now_s:
            self.approved = None
        if self.latest is None or not self.latest.valid_until_s < now_s:
            return False
        self.latest = None
        return True

    def claims(self, laid: Laid, now_s: float) -> list[Claim]:
        """What they want, where modes and tags let it pass."""
        return [
            _claim(dispatch, quantity, f"{quantity} of the plan that is {how}", rows, now_s)
            for how, dispatch, rows in self._followed(laid)
            for quantity in Quantity
        ]

    def followed(self, laid: Laid) -> BoolArray:
        """Devices that follow a plan now, shape (n,), also where it wants nothing of them."""
        rows = np.zeros(len(laid.places), dtype=np.bool_)
        for _, _, passing in self._followed(laid):
            rows |= passing
        return rows

    def _followed(self, laid: Laid) -> Iterator[tuple[str, Dispatch, BoolArray]]:
        rows = laid.passing(Rank.OPTIMIZER)
        if self.latest is not None:
            yield "offered", self.latest, rows
        if self.approved is not None:
            yield "approved", self.approved, laid.passing(Rank.OPTIMIZER, approved=True) & ~rows


def _claim(dispatch: Dispatch, quantity: Quantity, subject: str, passing: BoolArray, now_s: float) -> Claim:
    wanted_w = dispatch.wanted_w(quantity, now_s)  # what is not finite is no wish: the device is let go
    rows = np.flatnonzero(np.isfinite(wanted_w) & passing)
    free_w = np.full(len(rows), np.inf)
    return Claim(
        rank=Rank.OPTIMIZER,
        owner=OPTIMIZER,
        subject=subject,
        ticket=Ticket(0, dispatch.plan_id, dispatch.valid_until_s),
        until_s=dispatch.valid_until_s,
        rows=rows,
        low_w=-free_w,
        high_w=free_w,
        wish_w=wanted_w[rows],
        quantity=quantity,
    )


@dataclass(frozen=True)
class Wants:
    """What is wanted of each device for one quantity."""

    value_w: FloatArray
    """NaN: nothing, and the device is left to itself."""
    wish_w: FloatArray
    """The same before higher authorities have moved it."""
    limited_by: tuple[str, ...]
    """Who moved it; empty where nobody did."""
    until_s: FloatArray
    plan_id: IntArray
    """0 for what is no plan's."""
    open: BoolArray
    """The mode lets the one pass who wants it, or nobody wants anything."""
    authors: Mapping[str, BoolArray]
    """Devices that each person has by hand."""


def defaults_w(fleet: Fleet, quantity: Quantity) -> FloatArray:
    """What devices give by themselves where a claim only bounds them; NaN where they do not take the quantity."""
    if quantity is Quantity.P_SET:
        return np.where(fleet.is_battery, 0.0, np.nan)
    return np.where(fleet.is_pv, fleet.p_rated_w, np.nan)


def wants(claims: Claims, quantity: Quantity, fleet: Fleet, laid: Laid, now_s: float) -> Wants:
    """What authority makes of claims."""
    owned = ownership(claims, quantity, defaults_w(fleet, quantity), now_s)
    count = len(fleet)
    wish_w, until_s, plan_id = owned.value_w.copy(), owned.until_s.copy(), np.zeros(count, dtype=np.intp)
    open_, authors = np.ones(count, dtype=np.bool_), dict[str, BoolArray]()
    passing = {
        rank: laid.passing(rank) | laid.passing(rank, approved=True) for rank in {it.rank for it in owned.claims}
    }
    for number, claim in enumerate(owned.claims):
        rows = owned.owner == number
        has = rows[claim.rows]
        wish_w[claim.rows[has]] = claim.wish_w[has]
        open_[rows] = passing[claim.rank][rows]
        bounded = claim.rows[(owned.owner[claim.rows] == NOBODY) & np.isfinite(owned.value_w[claim.rows])]
        until_s[bounded] = np.minimum(until_s[bounded], claim.until_s)
        if claim.rank is Rank.OPTIMIZER:
            plan_id[rows] = claim.ticket.seq
        elif claim.rank is Rank.OPERATOR and rows.any():
            authors[claim.owner] = authors.get(claim.owner, np.zeros(count, dtype=np.bool_)) | rows
    limited_by = np.full(count, "", dtype=object)
    for number in np.unique(owned.limited_by[owned.limited_by != NOBODY]):
        claim = owned.claims[number]
        limited_by[owned.limited_by == number] = f"{claim.rank.label} {claim.owner}"
    return Wants(owned.value_w, wish_w, tuple(limited_by), until_s, plan_id, open_, authors)
