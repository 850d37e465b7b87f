"""What devices hold of ours, and how it is noticed that one does not any more.

A holding is a command that was written and read back. Compared with a later reading of the same registers it tells
a value that others overwrote, a command lost before its time (a reboot, a reversion in spite of our refreshing) and
a reversion timer that does not run as it must. Times are seconds on the monotonic clock.
"""

import math
from collections import UserDict, defaultdict, deque
from dataclasses import dataclass, field, replace
from enum import StrEnum

from derms.domain.dispatch import Command, Held, Quantity

Key = tuple[int, Quantity]
"""Row in the fleet, and what is set."""

TIMER_SLACK_S = 15.0
"""By how much a reversion timer may look wrong: time on the way, and devices that tell it coarsely."""
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Holding:
    """A command that a device was seen to hold."""

    command: Command
    held: Held
    written_s: float
    armed_s: float
    """When its reversion timer was last started."""
    valid_until_s: float
    """When the dispatch behind it ends: not refreshed any more after it."""

    @property
    def reversion_s(self) -> float:
        """Time for which the device holds it unrefreshed: a device may have armed less than it was told."""
        return min(self.command.reversion_s, self.held.reversion_s)

    def refresh_within_s(self, most_s: float) -> float:
        """Longest time without arming its timer anew."""
        return min(most_s, self.reversion_s / 3.0)

    def refreshed(self, armed_s: float) -> "Holding":
        return replace(self, armed_s=armed_s)

    def prolonged(self, until_s: float) -> "Holding":
        """The same for a later dispatch that wants nothing else."""
        return replace(self, valid_until_s=max(self.valid_until_s, until_s))


class Holdings(UserDict[Key, Holding]):
    """Holdings by key, and which of them are new."""

    def __init__(self) -> None:
        super().__init__()
        self._news: dict[Key, None] = {}

    def __setitem__(self, key: Key, holding: Holding) -> None:
        super().__setitem__(key, holding)
        self._news[key] = None

    def news(self) -> list[tuple[Key, Holding]]:
        """What was set since this was last asked, and is still there; in the order in which it was first set."""
        keys, self._news = self._news, {}
        return [(key, self[key]) for key in keys if key in self]


class Finding(StrEnum):
    """Ways in which a device does not hold what it was given; the words are those of events."""

    OVERWRITTEN = "command-overwritten"
    LOST = "command-lost"
    REVERSION_LOST = "reversion-lost"


@dataclass(frozen=True, slots=True)
class Deviation:
    """One finding, with a sentence for people."""

    finding: Finding
    text: str
    corrects: bool
    """Whether the command has to be written again."""


def deviation(holding: Holding, held: Held, now_s: float) -> Deviation | None:
    """How a device departs from a holding; None when it holds it, or when its own timer has rightly ended it."""
    reversion_s, value_w = holding.reversion_s, holding.held.value_w
    age_s = now_s - holding.armed_s
    assert value_w is not None
    if held.value_w is None:
        if age_s >= reversion_s - TIMER_SLACK_S:
            return None
        if holding.armed_s > holding.written_s:
            return Deviation(Finding.REVERSION_LOST, "has reverted, though its timer was refreshed", True)
        return Deviation(Finding.LOST, "does not hold its command any more, long before its time", True)
    if not abs(held.value_w - value_w) <= 1.001 * max(held.resolution_w, holding.held.resolution_w):
        text = f"was given {value_w / 1e3:.2f} kW and holds {held.value_w / 1e3:.2f} kW: another master wrote it"
        return Deviation(Finding.OVERWRITTEN, text, True)
    left_s, due_s = held.reversion_left_s, reversion_s - age_s
    if math.isfinite(left_s) and left_s < due_s - TIMER_SLACK_S:
        text = f"reverts in {left_s:.0f} s, and should not before {due_s:.0f} s"
        return Deviation(Finding.REVERSION_LOST, text, False)
    if math.isfinite(left_s) and left_s > due_s + TIMER_SLACK_S:
        text = f"shows {left_s:.0f} s to its reversion, and should show {due_s:.0f} s: it does not count down"
        return Deviation(Finding.REVERSION_LOST, text, False)
    return None


@dataclass(slots=True)
class Corrections:
    """How often each device's value was written again in the last hour, and which devices others have for now."""

    most_per_h: float
    _made_s: defaultdict[int, deque[float]] = field(default_factory=lambda: defaultdict(deque))
    _until_s: dict[int, float] = field(default_factory=dict)

    def made(self, row: int, now_s: float) -> bool:
        """Count a correction; False when it was one too many, and the device is handed over for an hour."""
        times_s = self._made_s[row]
        times_s.append(now_s)
        while times_s[0] < now_s - HOUR_S:
            times_s.popleft()
        if len(times_s) <= self.most_per_h:
            return True
        self._until_s[row] = now_s + HOUR_S
        times_s.clear()
        return False

    def ended(self, now_s: float) -> list[int]:
        """Rows whose hour is over; they are ours again."""
        rows = [row for row, until_s in self._until_s.items() if until_s <= now_s]
        for row in rows:
            del self._until_s[row]
        return rows

    @property
    def handed_over(self) -> frozenset[int]:
        """Rows that are left to another master."""
        return frozenset(self._until_s)
