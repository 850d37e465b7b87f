"""The latch of a stop: it holds until two people release it, and what it leaves of devices' power meanwhile.

Times in s on the monotonic clock; columns of shape (n,).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from derms.control.guards import PowerBounds
from derms.control.stopping import WAYS, How
from derms.domain.arrays import BoolArray
from derms.domain.refusal import Reason, Refused
from derms.domain.scope import Places, Scope
from derms.domain.tags import Act, Board

APPROVAL_S = 900.0
"""Within which the second person has to follow the first."""


@dataclass(frozen=True, slots=True)
class Approval:
    """The first of the two people who release a stop."""

    person: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Latch:
    """A stop that holds until two people release it."""

    number: int
    how: How
    scope: Scope
    author: str
    at_s: float
    first: Approval | None = None


@dataclass(frozen=True, slots=True)
class Released:
    """A stop that is released: the entry for the audit."""

    latch: Latch
    people: tuple[str, ...]
    at_s: float
    broken_glass: str = ""
    """Why one person did it alone; empty when two did."""

    def __str__(self) -> str:
        what = f"stop {self.latch.number} ({self.latch.how}, {self.latch.scope}) of {self.latch.author}"
        alone = f" alone, glass broken: {self.broken_glass}" if self.broken_glass else ""
        return f"{what} released by {' and '.join(self.people)}{alone}"


def approve(latch: Latch, person: str, now_s: float, *, remote: bool = False) -> Latch | Released | Refused:
    """One of the two steps of a release: the first by a person in the control room, the second by another, anywhere."""
    who = person.strip()
    if not who:
        return Refused((Reason("person", "a release names who does it"),))
    first = latch.first
    if first is None or not now_s < first.at_s + APPROVAL_S:
        if remote:
            return Refused((Reason("remote", "the first of the two is in the control room"),))
        return replace(latch, first=Approval(who, now_s))
    if first.person.casefold() == who.casefold():
        return Refused((Reason("person", f"{who} has approved already: it takes another person"),))
    return Released(latch, (first.person, who), now_s)


def break_glass(latch: Latch, person: str, why: str, now_s: float) -> Released | Refused:
    """Release a stop alone, for the lone night shift; it takes a name and a reason, and both stay in the audit."""
    if not person.strip() or not why.strip():
        return Refused((Reason("glass", "breaking the glass takes a name and a reason"),))
    return Released(latch, (person.strip(),), now_s, why.strip())


def stopped(latches: Iterable[Latch], places: Places) -> BoolArray:
    """Devices over which any stop is latched, shape (n,): nothing but stops and their refreshing goes to them."""
    rows = np.zeros(len(places), dtype=np.bool_)
    for latch in latches:
        rows |= places.under(latch.scope)
    return rows


def stop_bounds(latches: Iterable[Latch], places: Places) -> PowerBounds:
    """What all latched stops together leave of each device's power: the emergency's bounds, never empty."""
    bounds = PowerBounds(np.full(len(places), -np.inf), np.full(len(places), np.inf))
    for latch in latches:
        rows, way = places.under(latch.scope), WAYS[latch.how]
        bounds = bounds.narrowed(np.where(rows, way.low_w, -np.inf), np.where(rows, way.high_w, np.inf))
    return bounds


def returning(released: Released, left: Iterable[Latch], board: Board, places: Places) -> BoolArray:
    """Devices that a release lets in again: none over which another stop is latched, or that a tag keeps out."""
    rows: BoolArray = places.under(released.latch.scope) & ~stopped(left, places)
    return rows & ~board.forbids(Act.ENERGIZE, places)


def spared(how: How, latches: Iterable[Latch], board: Board, places: Places) -> BoolArray:
    """Devices that a stop leaves as they are: none is released that another stop holds, or that a tag keeps out."""
    if how is not How.RELEASE:
        return np.zeros(len(places), dtype=np.bool_)
    bounds = stop_bounds(latches, places)
    rows: BoolArray = np.isfinite(bounds.low_w) | np.isfinite(bounds.high_w)
    return rows | board.forbids(Act.ENERGIZE, places)
