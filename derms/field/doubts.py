"""One event for each device whose values are not believed any more, and one when they are again.

What is doubted is told when every device has had its turn since the first, so that many with one reason are one event.
Belief is told when it has lasted: what goes to and fro stays doubted, once.
"""

from collections import defaultdict
from collections.abc import Sequence

from derms.domain.alarm import Severity
from derms.domain.der import Fleet
from derms.field.rollup import NAMED, Notice

FEW = 5
"""Devices with one reason in one window that are still told of one by one."""
TRUST_TURNS = 3.0
"""Turns for which values must have been believed until that is told."""


class Doubts:
    """Gathers doubts by fleet row; times in s, `turn_s` is the time within which every device is read once."""

    def __init__(self, fleet: Fleet, turn_s: float) -> None:
        self._ids = [device.id for device in fleet.devices]
        self._turn_s = turn_s
        self._new: dict[int, tuple[int, str]] = {}
        self._new_until_s = float("inf")
        self._over_s: dict[int, float] = {}
        """From when on values can be said to be believed again."""
        self.due_s = float("inf")
        """When `told` next has something to say; inf for never."""

    def raised(self, row: int, check: int, why: str, now_s: float) -> None:
        """The values of a device are not believed, by a check's number and its words."""
        if self._over_s.pop(row, None) is None:
            self._new[row] = check, why
            self._new_until_s = min(self._new_until_s, now_s + self._turn_s)
            self.due_s = min(self.due_s, self._new_until_s)

    def over(self, row: int, now_s: float) -> None:
        """The values of a device that were doubted are believed."""
        self._over_s[row] = lasted_s = now_s + TRUST_TURNS * self._turn_s
        self.due_s = min(self.due_s, lasted_s + self._turn_s)

    def told(self, now_s: float) -> list[Notice]:
        """What is to be told now."""
        notices = self._raised() if self._new_until_s <= now_s else []
        if self._over_until_s <= now_s:
            notices += self._over(now_s)
        self.due_s = min(self._new_until_s, self._over_until_s)
        return notices

    @property
    def _over_until_s(self) -> float:
        """A turn after the first that has lasted, so that the others have as well."""
        return min(self._over_s.values(), default=float("inf")) + self._turn_s

    def _over(self, now_s: float) -> list[Notice]:
        rows = sorted(row for row, lasted_s in self._over_s.items() if lasted_s <= now_s)
        for row in rows:
            del self._over_s[row]
        return self._notices(rows, dict.fromkeys(rows, "are believed again"), Severity.INFO, "values-good")

    def _raised(self) -> list[Notice]:
        new, self._new, self._new_until_s = self._new, {}, float("inf")
        by_check: defaultdict[int, list[int]] = defaultdict(list)
        for row, (check, _) in sorted(new.items()):
            by_check[check].append(row)
        reasons = {row: f"are not believed: {why}" for row, (_, why) in new.items()}
        groups = (self._notices(rows, reasons, Severity.WARNING, "values-suspect") for rows in by_check.values())
        return [notice for group in groups for notice in group]

    def _notices(self, rows: Sequence[int], what: dict[int, str], severity: Severity, kind: str) -> list[Notice]:
        """One for each device, or one for all of many."""
        ids = [self._ids[row] for row in rows]
        if len(rows) <= FEW:
            told = zip(rows, ids, strict=True)
            return [Notice(severity, id_, kind, f"the values of {id_} {what[row]}") for row, id_ in told]
        named = f"{', '.join(ids[:NAMED])} and {len(ids) - NAMED} more"
        text = f"the values of {len(ids)} devices ({named}), as of {ids[0]}, {what[rows[0]]}"
        return [Notice(severity, "gateway", kind, text)]
