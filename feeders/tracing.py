"""A circuit followed from its sources, by its text: what is fed, on which phases, at what voltage, and where it loops.

Base voltages in kV to neutral. No power flow: which element joins which buses is all that counts.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from math import sqrt

from feeders.circuit import JOINING_KINDS, WINDING_KINDS, CircuitText, Element, Terminal

Pair = tuple[str, str]


@dataclass
class Trace:
    """What the sources reach with the switches as they are given."""

    fed: dict[str, set[int]] = field(default_factory=dict)
    """Live nodes of every bus that is reached, nearest first."""
    base_kv: dict[str, float] = field(default_factory=dict)
    """Base voltage to neutral of fed buses [kV], where the text tells."""
    up: dict[str, str] = field(default_factory=dict)
    """The bus that each bus is fed from."""
    joins: dict[Pair, list[Element]] = field(default_factory=dict)
    """Closed elements between two buses, by the buses in alphabetical order."""
    loops: list[tuple[str, ...]] = field(default_factory=list)
    """Full names of the elements of each loop."""

    def between(self, bus: str, other: str) -> list[Element]:
        """Closed elements that join two buses."""
        return self.joins.get((min(bus, other), max(bus, other)), [])

    def upstream(self, bus: str) -> Iterator[Element]:
        """Elements on the way from a bus to its source, nearest first."""
        while bus in self.up:
            bus, below = self.up[bus], bus
            yield from self.between(bus, below)


def trace(text: CircuitText, closed: Mapping[str, bool]) -> Trace:
    """Follow a circuit from its sources.

    Parameters
    ----------
    closed
        Switches, by full name in lower case, that stand otherwise than the text says, or are known to stand so.
    """
    found = Trace()
    ends: dict[str, list[tuple[Element, Terminal, Terminal]]] = {}
    for element in text.of(*JOINING_KINDS):
        if element.enabled and closed.get(element.full, element.closed):
            for first, other in _sides(element):
                found.joins.setdefault((min(first.bus, other.bus), max(first.bus, other.bus)), []).append(element)
                ends.setdefault(first.bus, []).append((element, first, other))
                ends.setdefault(other.bus, []).append((element, other, first))
    reached = deque[str]()
    for source in text.of("vsource"):
        for terminal in source.terminals[: source.enabled]:
            _reach(found, reached, terminal.bus, set(terminal.nodes) - {0}, to_neutral_kv(source, terminal))
    while reached:
        bus = reached.popleft()
        for element, here, there in ends.get(bus, ()):
            winds = element.kind in WINDING_KINDS
            if winds and found.up.get(bus) == there.bus:
                continue  # a winding makes nothing live on the side that it is fed from
            live = _passed(element, here, there, found.fed[bus], closed)
            base_kv = to_neutral_kv(element, there) if winds else found.base_kv.get(bus)
            if live and there.bus not in found.fed:
                found.up[there.bus] = bus
            _reach(found, reached, there.bus, live, base_kv)
    found.loops = _loops(found.joins)
    return found


def to_neutral_kv(element: Element, terminal: Terminal) -> float | None:
    """Voltage to neutral of a bus at which an element has its rated voltage [kV].

    OpenDSS rates elements on two or three phases, and those between two phases, line to line; others to neutral.
    """
    if terminal.kv is None or terminal.kv <= 0:
        return None
    return terminal.kv / sqrt(3) if element.phases > 1 or is_across(terminal) else terminal.kv


def is_across(terminal: Terminal) -> bool:
    """Whether a single-phase terminal lies between two phases."""
    return len(terminal.nodes) > 1 and 0 not in terminal.nodes[:2]


def _sides(element: Element) -> Iterator[tuple[Terminal, Terminal]]:
    """The first terminal with each other one at another bus, each bus once."""
    first, *others = element.terminals or (None,)
    seen: set[str] = set()
    for other in others:
        if first is not None and other.bus != first.bus and other.bus not in seen:
            seen.add(other.bus)
            yield first, other


def _reach(found: Trace, reached: deque[str], bus: str, live: set[int], base_kv: float | None) -> None:
    known = found.fed.setdefault(bus, set()) if live else set()
    if live - known:
        known |= live
        reached.append(bus)
    if base_kv is not None and known:
        found.base_kv.setdefault(bus, base_kv)


def _passed(element: Element, here: Terminal, there: Terminal, live: set[int], closed: Mapping[str, bool]) -> set[int]:
    """Nodes that are live behind an element because of those that are live before it."""
    if element.kind in WINDING_KINDS:
        sides = [terminal for terminal in element.terminals if terminal.bus == there.bus]
        return {node for terminal in sides for node in terminal.nodes} - {0} if live & here.phases else set()
    open_conductors = frozenset[int]() if element.full in closed else element.open_conductors
    joined = list(zip(here.nodes, there.nodes, strict=False))[: element.phases]
    return {b for position, (a, b) in enumerate(joined) if a in live and position not in open_conductors} - {0}


def _loops(joins: Mapping[Pair, list[Element]]) -> list[tuple[str, ...]]:
    loops = [names for elements in joins.values() if (names := _side_by_side(elements))]
    known: set[frozenset[str]] = set()
    for phase in (1, 2, 3):
        tree: dict[str, list[str]] = {}
        group: dict[str, str] = {}
        for (a, b), elements in joins.items():
            if not any(phase in terminal.phases for element in elements for terminal in element.terminals):
                continue
            if _root(group, a) != _root(group, b):
                group[_root(group, a)] = _root(group, b)
                tree.setdefault(a, []).append(b)
                tree.setdefault(b, []).append(a)
                continue
            way = _way(tree, a, b)
            steps = [(a, b), *pairwise(way)]
            names = tuple(e.full for x, y in steps for e in joins[min(x, y), max(x, y)])
            if frozenset(names) not in known:
                known.add(frozenset(names))
                loops.append(names)
    return loops


def _side_by_side(elements: list[Element]) -> tuple[str, ...]:
    """Elements between the same two buses of which one would do: two on one phase, or across the same phases."""
    claimed = [(element.full, claim) for element in elements for claim in _claims(element)]
    doubled = {
        name
        for (first, one), (second, other) in combinations(claimed, 2)
        if first != second and one == other
        for name in (first, second)
    }
    alone = {phase: name for name, claim in claimed if len(claim) == 1 for phase in claim}
    for name, claim in claimed:
        if len(claim) == 2 and claim <= alone.keys() - {phase for phase, owner in alone.items() if owner == name}:
            doubled |= {name, *(alone[phase] for phase in claim)}
    return tuple(element.full for element in elements if element.full in doubled)


def _claims(element: Element) -> set[frozenset[int]]:
    """Phases, or pairs of phases, on which an element joins its buses: one for each of its windings or conductors."""
    first = element.terminals[0]
    wound = element.kind in WINDING_KINDS
    if wound and element.phases == 1:
        return {first.phases}
    if wound and element.phases == 3 and all(terminal.delta for terminal in element.terminals):
        return {frozenset(pair) for pair in combinations((1, 2, 3), 2)}
    return {frozenset({phase}) for phase in first.phases}


def _root(group: dict[str, str], bus: str) -> str:
    while bus in group:
        above = group[bus]
        if above in group:
            group[bus] = group[above]
        bus = above
    return bus


def _way(tree: Mapping[str, list[str]], start: str, end: str) -> list[str]:
    """Buses from one end to the other along a tree that joins them."""
    before = {start: start}
    reached = deque([start])
    while end not in before:
        bus = reached.popleft()
        for other in tree[bus]:
            if other not in before:
                before[other] = bus
                reached.append(other)
    way = [end]
    while way[-1] != start:
        way.append(before[way[-1]])
    return way
