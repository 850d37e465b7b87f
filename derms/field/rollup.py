"""One event for one cause: devices that are lost together are told of together, and so is their return.

A loss is held until every device has had its turn since the first of them; then all devices of an endpoint are told as
the endpoint, a large share of the fleet as the fleet, and any other device by itself. A return of many is told when the
last of them is back, or each has been tried since the first.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from derms.domain.alarm import Severity
from derms.domain.der import Fleet

FLEET_SHARE = 0.2
FLEET_LEAST = 10
"""Lost in one window, this share of the fleet and no less than so many devices have one cause."""
NAMED = 3
"""Devices named in an event that stands for many."""


@dataclass(frozen=True, slots=True)
class Notice:
    """An event without its time."""

    severity: Severity
    source: str
    kind: str
    text: str


@dataclass(slots=True)
class _Group:
    """Devices whose loss was told as one."""

    kind: str
    name: str
    away: set[int]
    returned: set[int] = field(default_factory=set)
    until_s: float = float("inf")
    """When those that have returned are told of, whoever is still away."""


class _Loss(NamedTuple):
    why: str
    turned_away: bool


class Rollup:
    """Gathers losses and returns of devices by their fleet row; times in s."""

    def __init__(self, fleet: Fleet, *, lost_within_s: float, back_within_s: float) -> None:
        self._ids = [device.id for device in fleet.devices]
        self._endpoints = [f"{device.endpoint.host}:{device.endpoint.port}" for device in fleet.devices]
        self._sizes: defaultdict[str, int] = defaultdict(int)
        for endpoint in self._endpoints:
            self._sizes[endpoint] += 1
        self._lost_within_s = lost_within_s
        self._back_within_s = back_within_s
        self._waiting: dict[int, _Loss] = {}
        self._until_s = float("inf")
        self._groups: dict[int, _Group] = {}
        self._alone: set[int] = set()

    @property
    def due_s(self) -> float:
        """When `told` next has something to say; inf for never."""
        return min([self._until_s, *(group.until_s for group in self._groups.values())])

    def lost(self, row: int, why: str, now_s: float, *, turned_away: bool = False) -> None:
        """A device was lost; or it closes our connections at once, though it has answered before."""
        if not self._waiting:
            self._until_s = now_s + self._lost_within_s
        self._waiting[row] = _Loss(why, turned_away)

    def alone(self, row: int) -> None:
        """A device was lost and has been told of already; only its return is still to be."""
        self._alone.add(row)

    def back(self, row: int, now_s: float) -> list[Notice]:
        """A device is back; one whose loss nobody was told of yet has never been away."""
        if self._waiting.pop(row, None) is not None:
            if not self._waiting:
                self._until_s = float("inf")
            return []
        if row in self._alone:
            self._alone.discard(row)
            device = self._ids[row]
            return [Notice(Severity.INFO, device, "device-back", f"{device} answers again")]
        group = self._groups.pop(row)
        group.away.discard(row)
        group.returned.add(row)
        group.until_s = min(group.until_s, now_s + self._back_within_s)
        return [] if group.away else [self._returned(group)]

    def told(self, now_s: float) -> list[Notice]:
        """What is to be told now."""
        notices = []
        for group in {id(group): group for group in self._groups.values() if group.until_s <= now_s}.values():
            notices.append(self._returned(group))
            for row in group.away:
                del self._groups[row]
            self._alone |= group.away
        if self._until_s <= now_s:
            notices += self._lost()
        return notices

    def _lost(self) -> list[Notice]:
        waiting, self._waiting, self._until_s = self._waiting, {}, float("inf")
        rows = sorted(waiting)
        if len(rows) >= max(FLEET_LEAST, FLEET_SHARE * len(self._ids)):
            return [self._gathered(rows, waiting, "fleet", "gateway")]
        notices = []
        by_endpoint: defaultdict[str, list[int]] = defaultdict(list)
        for row in rows:
            by_endpoint[self._endpoints[row]].append(row)
        for endpoint, members in by_endpoint.items():
            if len(members) == self._sizes[endpoint] > 1:
                notices.append(self._gathered(members, waiting, "endpoint", endpoint))
                continue
            for row in members:
                self._alone.add(row)
                notices.append(self._single(row, waiting[row]))
        return notices

    def _single(self, row: int, loss: _Loss) -> Notice:
        device = self._ids[row]
        if loss.turned_away:
            text = f"{device} closes our connections at once, though it answered before: {loss.why}"
            cause = "does another master hold the only one that it takes"
            return Notice(Severity.ALARM, device, "other-master", f"{text}; {cause}?")
        return Notice(Severity.WARNING, device, "device-lost", f"{device} does not answer as it should: {loss.why}")

    def _gathered(self, rows: Sequence[int], why: Mapping[int, _Loss], kind: str, name: str) -> Notice:
        group = _Group(kind, name, set(rows))
        self._groups |= dict.fromkeys(rows, group)
        text = f"{kind} {name}: {len(rows)} devices were lost together ({self._some(rows)}), first: {why[rows[0]].why}"
        return Notice(Severity.ALARM, name, f"{kind}-lost", text)

    def _returned(self, group: _Group) -> Notice:
        still = f"; still lost: {self._some(sorted(group.away))}" if group.away else ""
        all_of = len(group.away) + len(group.returned)
        text = f"{group.kind} {group.name}: {len(group.returned)} of {all_of} devices answer again{still}"
        return Notice(Severity.INFO, group.name, f"{group.kind}-back", text)

    def _some(self, rows: Sequence[int]) -> str:
        more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
        return ", ".join(self._ids[row] for row in rows[:NAMED]) + more
