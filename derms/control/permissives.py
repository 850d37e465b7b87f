"""Permissives: what must hold before a person's command goes out, checked when it is selected and when it is operated.

A refusal has every reason at once: why can't I. Powers in W, + = injection; times in s on the monotonic clock.
PERMISSIVES is the table of the checks; a new one is a function and a line there.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from derms.control.authority import HOLD_MAX_S, Claim, Claims, Locks, Rank, Ticket
from derms.control.guards import PowerBounds
from derms.domain.arrays import BoolArray, ByteArray, FloatArray
from derms.domain.dispatch import Quantity
from derms.domain.quality import Quality
from derms.domain.refusal import Reason, Refused
from derms.domain.scope import Places, Scope
from derms.domain.tags import FORBIDS, Act, Board, TagKind
from derms.domain.telemetry import TelemetrySnapshot

SELECT_S = 30.0
"""Within which a selection has to be operated."""

ACT_OF: Mapping[Rank, Act] = {
    Rank.OPERATOR: Act.MANUAL,
    Rank.PROGRAMME: Act.AUTOMATIC,
    Rank.OPTIMIZER: Act.AUTOMATIC,
    Rank.SCHEDULE: Act.AUTOMATIC,
}
"""What the commands of a rank are to tags; to protection and emergency they forbid energizing only."""


def barred(rank: Rank, board: Board, places: Places) -> BoolArray:
    """Devices that tags keep a rank from commanding, shape (n,)."""
    act = ACT_OF.get(rank)
    return np.zeros(len(places), dtype=np.bool_) if act is None else board.forbids(act, places)


def tag_bounds(board: Board, places: Places) -> PowerBounds:
    """What tags leave of each device's power, whoever commands it: no injection where energizing is forbidden."""
    nobody = board.forbids(Act.ENERGIZE, places)
    return PowerBounds(np.full(len(places), -np.inf), np.where(nobody, 0.0, np.inf))


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person wants."""

    author: str
    scope: Scope
    quantity: Quantity
    value_w: float | None
    """For each device; None gives up what people set by hand, and lower ranks have them again."""
    hold_s: float
    """For how long the value stands; not looked at for None."""

    @property
    def acts(self) -> frozenset[Act]:
        """What it is to tags; nobody knows what a device that is given up will do, so that counts as energizing."""
        energizes = self.value_w is None or not self.value_w <= 0.0
        return frozenset({Act.MANUAL, Act.ENERGIZE}) if energizes else frozenset({Act.MANUAL})


@dataclass(frozen=True)
class Facts:
    """How things stand now; columns of shape (n,)."""

    now_s: float
    places: Places
    takes: BoolArray
    """It takes the quantity that is asked about; a command for a feeder is for those that do."""
    board: Board
    locks: Locks
    closed: BoolArray
    """The mode of its feeder or of one of its groups lets no person command it."""
    stopped: BoolArray
    """A stop is latched over it."""
    local: BoolArray
    """It says that it is under local control."""
    handed_over: BoolArray
    """It is left to another master for now."""
    quality: ByteArray
    bounds: PowerBounds
    """What guards and higher authorities leave of its power."""

    def under(self, scope: Scope) -> BoolArray:
        """Devices that a command for a scope is for, shape (n,)."""
        rows: BoolArray = self.places.under(scope) & self.takes
        return rows


@dataclass(frozen=True, slots=True)
class Selection:
    """One command that is selected and not operated yet."""

    number: int
    asked: Asked
    until_s: float


@dataclass(frozen=True, slots=True)
class Selections:
    """All open selections: at most one for each author."""

    open: tuple[Selection, ...] = ()
    last: int = 0

    def live(self, now_s: float) -> tuple[Selection, ...]:
        return tuple(selection for selection in self.open if now_s < selection.until_s)


@dataclass(frozen=True, slots=True)
class Selected:
    """To be operated within its time."""

    selection: Selection
    notes: tuple[Reason, ...]
    """What to know before going on: caution tags, devices that will get another value than asked for."""


@dataclass(frozen=True, slots=True)
class Operated:
    """Goes out now."""

    asked: Asked
    notes: tuple[Reason, ...]


Permissive = Callable[[Asked, Facts, Selections], Iterable[Reason]]


def _clear(by: str, text: str, column: Callable[[Facts], BoolArray]) -> Permissive:
    """A permissive from a column: no device of the scope may have True there."""

    def check(asked: Asked, facts: Facts, others: Selections) -> Iterable[Reason]:
        rows = facts.under(asked.scope) & column(facts)
        return [Reason(by, f"{facts.places.named(rows)}: {text}")] if rows.any() else []

    return check


def request(asked: Asked, facts: Facts, others: Selections) -> Iterable[Reason]:
    """There is something to command, a number to command it with, and an end."""
    if not facts.places.under(asked.scope).any():
        yield Reason("request", f"there is no {asked.scope}")
    elif not facts.under(asked.scope).any():
        yield Reason("request", f"nothing under {asked.scope} takes a {asked.quantity}")
    if asked.value_w is not None and not math.isfinite(asked.value_w):
        yield Reason("request", "the value is not a number")
    if asked.value_w is not None and not 0.0 < asked.hold_s <= HOLD_MAX_S:
        yield Reason("request", f"a manual value stands for more than 0 and at most {HOLD_MAX_S / 3600:.0f} h")


def tags(asked: Asked, facts: Facts, others: Selections) -> Iterable[Reason]:
    """No tag over the scope forbids it."""
    hung = facts.board.over(asked.scope, facts.places)
    return [Reason("tag", str(tag)) for tag in hung if FORBIDS[tag.kind] & asked.acts]


def locks(asked: Asked, facts: Facts, others: Selections) -> Iterable[Reason]:
    """Nobody else has locked any of it."""
    return facts.locks.reasons(asked.author, asked.scope, facts.places, facts.now_s)


def selections(asked: Asked, facts: Facts, others: Selections) -> Iterable[Reason]:
    """Nobody else has selected any of it."""
    return [
        Reason("selection", f"{it.asked.scope} is selected by {it.asked.author} for another {left_s:.0f} s")
        for it in others.live(facts.now_s)
        if it.asked.author != asked.author and facts.places.overlap(it.asked.scope, asked.scope)
        for left_s in (it.until_s - facts.now_s,)
    ]


PERMISSIVES: tuple[Permissive, ...] = (
    request,
    tags,
    locks,
    selections,
    _clear("mode", "the mode lets no person command it", lambda facts: facts.closed),
    _clear("stop", "stopped, and the stop is not released", lambda facts: facts.stopped),
    _clear("local", "under local control", lambda facts: facts.local),
    _clear("another master", "left to another master", lambda facts: facts.handed_over),
    _clear("quality", "no good values: what a command does would not be seen", lambda f: f.quality != Quality.GOOD),
    _clear("bounds", "guards and higher authorities leave nothing", lambda facts: facts.bounds.empty),
)
"""All are asked, in this order."""


def why_not(asked: Asked, facts: Facts, others: Selections) -> tuple[Reason, ...]:
    """Everything that stands in the way of a command; empty when it may go out."""
    return tuple(reason for permissive in PERMISSIVES for reason in permissive(asked, facts, others))


def notes(asked: Asked, facts: Facts) -> tuple[Reason, ...]:
    """What does not stand in the way, and should be known before going on."""
    places, hung = facts.places, facts.board.over(asked.scope, facts.places)
    cautions = [Reason("tag", str(tag)) for tag in hung if tag.kind is TagKind.CAUTION]
    value_w = np.nan if asked.value_w is None else asked.value_w
    outside = facts.under(asked.scope) & ((facts.bounds.low_w > value_w) | (facts.bounds.high_w < value_w))
    text = f"{places.named(outside)}: will get another value, the nearest that guards and higher authorities leave"
    return (*cautions, Reason("bounds", text)) if outside.any() else tuple(cautions)


def select(
    open_: Selections, asked: Asked, facts: Facts, *, timeout_s: float = SELECT_S
) -> tuple[Selections, Selected | Refused]:
    """Select a command; an author's earlier selection is dropped, whatever becomes of this one."""
    others = tuple(selection for selection in open_.live(facts.now_s) if selection.asked.author != asked.author)
    reasons = why_not(asked, facts, open_)
    if reasons:
        return replace(open_, open=others), Refused(reasons)
    selection = Selection(open_.last + 1, asked, facts.now_s + timeout_s)
    return Selections((*others, selection), selection.number), Selected(selection, notes(asked, facts))


def operate(open_: Selections, number: int, author: str, facts: Facts) -> tuple[Selections, Operated | Refused]:
    """Operate a selection, once: all permissives are asked again, and whatever they say it is used up."""
    found = next((selection for selection in open_.open if selection.number == number), None)
    if found is None:
        reason = Reason("selection", f"there is no selection {number}: used, cancelled, or never made")
        return open_, Refused((reason,))
    if found.asked.author != author:
        return open_, Refused((Reason("selection", f"selection {number} is of {found.asked.author}"),))
    left = cancel(open_, number)
    late_s = facts.now_s - found.until_s
    late = () if late_s < 0.0 else (Reason("selection", f"it expired {late_s:.0f} s ago: select again"),)
    reasons = (*late, *why_not(found.asked, facts, left))
    return left, Refused(reasons) if reasons else Operated(found.asked, notes(found.asked, facts))


def cancel(open_: Selections, number: int) -> Selections:
    """Without a selection."""
    return replace(open_, open=tuple(selection for selection in open_.open if selection.number != number))


def claimed(claims: Claims, operated: Operated, facts: Facts, ticket: Ticket) -> Claims:
    """The claims after an operated command: with its value under its author's name, or without what people had set.

    A later value of the same author for the same scope takes its place.
    """
    asked, under = operated.asked, facts.under(operated.asked.scope)
    if asked.value_w is None:
        return claims.yielded(Rank.OPERATOR, under)
    rows = np.flatnonzero(under)
    free_w, value_w = np.full(len(rows), np.inf), np.full(len(rows), asked.value_w)
    manual = Claim(
        rank=Rank.OPERATOR,
        owner=asked.author,
        subject=f"{asked.quantity} of {asked.scope}",
        ticket=ticket,
        until_s=facts.now_s + asked.hold_s,
        rows=rows,
        low_w=-free_w,
        high_w=value_w if asked.quantity is Quantity.P_LIMIT else free_w,
        wish_w=value_w,
        quantity=asked.quantity,
    )
    return claims.joined([manual])


@dataclass(frozen=True, slots=True)
class Substitute:
    """A value that a person puts in the place of a measured one."""

    row: int
    column: str
    value: float
    author: str
    text: str
    until_s: float


def substituted(
    column: str, values: FloatArray, substitutes: Iterable[Substitute], now_s: float
) -> tuple[FloatArray, BoolArray]:
    """A column with its substitutes, and which rows are substituted, shape (n,) each; the latest in the list counts.

    They are for the estimate and for screens; guards look at what was measured.
    """
    shown, flagged = values.copy(), np.zeros(len(values), dtype=np.bool_)
    for substitute in substitutes:
        if substitute.column == column and now_s < substitute.until_s:
            shown[substitute.row], flagged[substitute.row] = substitute.value, True
    return shown, flagged


SUBSTITUTABLE = ("p_w", "q_var", "v_pu", "soc_frac")
"""Columns in which people may put a value in the place of a measured one."""


RANGES: Mapping[str, tuple[float, float]] = {
    "p_w": (-1e9, 1e9),
    "q_var": (-1e9, 1e9),
    "v_pu": (0.0, 2.0),
    "soc_frac": (0.0, 1.0),
}
"""What values in the place of measured ones may be."""
POWER_MAX_FRAC = 2.0
"""Of a DER's rating that a power in the place of a measured one may be."""


def against_substitute(substitute: Substitute, hold_s: float, p_rated_w: float) -> tuple[Reason, ...]:
    """Everything that stands in the way of a substitute that is to stand for a time, at a device of some rating."""
    reasons = []
    low, high = RANGES.get(substitute.column, (-math.inf, math.inf))
    if substitute.column in ("p_w", "q_var") and p_rated_w > 0.0:
        high = POWER_MAX_FRAC * p_rated_w
        low = -high
    if math.isfinite(substitute.value) and not low <= substitute.value <= high:
        reasons.append(Reason("range", f"{substitute.column} of this device is from {low:g} to {high:g}"))
    if substitute.column not in SUBSTITUTABLE or not math.isfinite(substitute.value):
        reasons.append(Reason("request", f"give a number for one of {', '.join(SUBSTITUTABLE)}"))
    if not 0.0 < hold_s <= HOLD_MAX_S:
        reasons.append(Reason("request", f"it stands for more than 0 and at most {HOLD_MAX_S / 3600:.0f} h"))
    if not substitute.text.strip():
        reasons.append(Reason("request", "say why"))
    return tuple(reasons)


def with_substitutes(
    snapshot: TelemetrySnapshot, substitutes: Sequence[Substitute]
) -> tuple[TelemetrySnapshot, BoolArray]:
    """A snapshot for estimate and screens with all that people have put in, and which rows those are, shape (n,).

    A row with a substitute counts as good.
    """
    shown = [substituted(name, getattr(snapshot, name), substitutes, snapshot.now_s) for name in SUBSTITUTABLE]
    rows = np.logical_or.reduce([flags for _, flags in shown])
    if not rows.any():
        return snapshot, rows
    (p_w, _), (q_var, _), (v_pu, _), (soc_frac, _) = shown
    quality = np.where(rows, np.uint8(Quality.GOOD), snapshot.quality)
    return replace(snapshot, p_w=p_w, q_var=q_var, v_pu=v_pu, soc_frac=soc_frac, quality=quality), rows
