"""Tags: cards that people hang on a device, group or feeder, and what each of them forbids.

A tag is a permissive, not a rank: what it forbids it forbids to everyone, emergencies included. Tags stack, each is
taken off by itself, and none ever expires.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

import numpy as np

from derms.domain.arrays import BoolArray
from derms.domain.scope import Places, Scope


class Act(StrEnum):
    """What a tag may forbid.

    Stopping is no act here, nor is refreshing the value that a stop holds: no tag forbids them.
    """

    MANUAL = "manual control"
    AUTOMATIC = "automatic control"
    ALARM = "alarms"
    POLL = "polling"
    ENERGIZE = "energizing and exporting"
    """Letting a device in again, raising or releasing its limit, any setpoint above zero."""


class TagKind(StrEnum):
    """The cards there are."""

    CAUTION = "caution"
    CONTROL_INHIBIT = "control inhibit"
    AUTOMATIC_INHIBIT = "automatic-control inhibit"
    ALARM_INHIBIT = "alarm inhibit"
    SCAN_INHIBIT = "scan inhibit"
    CLEARANCE = "clearance"
    """People work on the line: nothing may energize it or export into it until the card is off."""


FORBIDS: Mapping[TagKind, frozenset[Act]] = {
    TagKind.CAUTION: frozenset(),
    TagKind.CONTROL_INHIBIT: frozenset({Act.MANUAL, Act.AUTOMATIC, Act.ENERGIZE}),
    TagKind.AUTOMATIC_INHIBIT: frozenset({Act.AUTOMATIC}),
    TagKind.ALARM_INHIBIT: frozenset({Act.ALARM}),
    # Without a poll nobody would see what a command does.
    TagKind.SCAN_INHIBIT: frozenset({Act.POLL, Act.MANUAL, Act.AUTOMATIC}),
    TagKind.CLEARANCE: frozenset({Act.MANUAL, Act.AUTOMATIC, Act.ENERGIZE}),
}
"""The one table of what each tag forbids."""


TEXT_MAX = 500
"""Characters of a tag's text."""


@dataclass(frozen=True, slots=True)
class Tag:
    """One card."""

    number: int
    kind: TagKind
    scope: Scope
    text: str
    author: str
    at: datetime

    def __str__(self) -> str:
        return (
            f"{self.kind} tag {self.number} on {self.scope}, {self.author} at {self.at:%Y-%m-%d %H:%M} UTC: {self.text}"
        )


@dataclass(frozen=True, slots=True)
class Board:
    """All cards that hang now, in the order in which they were hung."""

    tags: tuple[Tag, ...] = ()
    last: int = 0
    """Number of the latest card, whether it still hangs or not: numbers are never used twice."""

    def hung(self, kind: TagKind, scope: Scope, text: str, author: str, at: datetime) -> "Board":
        """With one card more; raises ValueError without a text or an author: nobody could act on it."""
        if not text.strip() or not author.strip():
            raise ValueError("a tag needs a text and an author")
        if not text.strip().isprintable() or len(text) > TEXT_MAX:
            raise ValueError(f"the text of a tag is one line of at most {TEXT_MAX} printable characters")
        tag = Tag(self.last + 1, kind, scope, text.strip(), author.strip(), at)
        return Board((*self.tags, tag), tag.number)

    def without(self, number: int) -> "Board":
        """With one card less; the same board where no such card hangs."""
        return replace(self, tags=tuple(tag for tag in self.tags if tag.number != number))

    def over(self, scope: Scope, places: Places) -> tuple[Tag, ...]:
        """Cards that hang over any device of a scope."""
        return tuple(tag for tag in self.tags if places.overlap(tag.scope, scope))

    def forbids(self, act: Act, places: Places) -> BoolArray:
        """Devices to which an act is forbidden, shape (n,)."""
        rows = np.zeros(len(places), dtype=np.bool_)
        for tag in self.tags:
            if act in FORBIDS[tag.kind]:
                rows |= places.under(tag.scope)
        return rows
