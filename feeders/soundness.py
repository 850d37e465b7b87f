"""What is wrong with a circuit as a network: parts that nothing feeds, phases that are not there, loops, wrong kV."""

from collections.abc import Iterator
from math import sqrt

from derms.errors import Problem
from feeders.circuit import JOINING_KINDS, SHUNT_KINDS, CircuitText, Element, Terminal
from feeders.tracing import Trace, is_across

KV_OFF_MAX_FRAC = 0.1
"""2.4 kV on a base of 2.402 kV is well; 4.16 kV for 2.4 kV, or 0.24 kV for 0.208 kV, is a mistake."""
SHOWN_MAX = 8


def unsound(text: CircuitText, found: Trace, file: str) -> Iterator[Problem]:
    """Everything that an engine would solve without a word, and wrongly; `file` is the circuit's master file."""
    yield from _unfed_buses(text, found, file)
    for element in text.elements.values():
        if element.enabled and element.kind in (*JOINING_KINDS, *SHUNT_KINDS):
            yield from _missing_phases(element, found)
            yield from _wrong_kv(element, found)
    for loop in found.loops:
        right = 'open one of them, or list a switch among them with normal = "open"'
        yield Problem(file, "circuit", f"a loop of {shown(loop)}", right)


def shown(names: tuple[str, ...]) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return ", ".join(names[:SHOWN_MAX]) + more


def _unfed_buses(text: CircuitText, found: Trace, file: str) -> Iterator[Problem]:
    """Buses that nothing feeds, part by part; one that a single element names is most often a slip of the pen."""
    at_bus: dict[str, list[Element]] = {}
    for element in text.elements.values():
        for bus in {terminal.bus for terminal in element.terminals if element.enabled}:
            at_bus.setdefault(bus, []).append(element)
    left = set(text.buses - found.fed.keys())
    unnamed: list[str] = []
    while left:
        part = _joined(min(left), at_bus) & left
        left -= part
        lone = min((bus for bus in part if len(at_bus.get(bus, ())) == 1), default="")
        if lone:
            (element,) = at_bus[lone]
            others = tuple(sorted(part - {lone}))
            more = f", nor {'is' if len(others) == 1 else 'are'} {shown(others)}" if others else ""
            wrong = f"{element.full} is at bus {lone}, which is not connected to the source{more}"
            yield element.place.problem(wrong, "name a bus of the circuit, or join this one to it")
        else:
            unnamed += part
    if unnamed:
        count = "a bus is" if len(unnamed) == 1 else f"{len(unnamed)} buses are"
        wrong = f"{count} not connected to the source: {shown(tuple(sorted(unnamed)))}"
        yield Problem(file, "circuit", wrong, "join them by a line, a transformer or a switch that is normally closed")


def _joined(bus: str, at_bus: dict[str, list[Element]]) -> set[str]:
    """All buses that elements join to one, whether they are open or closed."""
    part, reached = {bus}, [bus]
    while reached:
        for element in at_bus.get(reached.pop(), ()):
            ends = {terminal.bus for terminal in element.terminals} - part if element.kind in JOINING_KINDS else set()
            part |= ends
            reached += ends
    return part


def _missing_phases(element: Element, found: Trace) -> Iterator[Problem]:
    """Phases that an element takes and its bus does not have; an open or idle end takes none."""
    joins = element.kind in JOINING_KINDS and len(element.terminals) > 1
    if joins and not element.closed:
        return
    for terminal in element.terminals:
        live = found.fed.get(terminal.bus)
        if live is None:
            continue
        positions = (node for i, node in enumerate(terminal.nodes) if i not in element.open_conductors)
        missing = sorted(set(positions) & {1, 2, 3} - live)
        if missing:
            phases = " and ".join(map(str, missing))
            wrong = f"{element.full} is on phase {phases} of bus {terminal.bus}, which has {_phases(live)}"
            yield element.place.problem(wrong, "put it on phases that its bus has")
            return


def _phases(live: set[int]) -> str:
    return " and ".join(str(node) for node in sorted(live & {1, 2, 3})) or "none"


def _wrong_kv(element: Element, found: Trace) -> Iterator[Problem]:
    for number, terminal in enumerate(element.terminals, 1):
        base_kv = found.base_kv.get(terminal.bus)
        if base_kv is None or terminal.kv is None:
            continue
        good = _good_kv(element, terminal, base_kv)
        if not any(abs(terminal.kv / kv - 1) <= KV_OFF_MAX_FRAC for kv in good):
            which = f", winding {number}," if len(element.terminals) > 1 else ""
            wrong = f"{element.full}{which} is rated {terminal.kv:g} kV at bus {terminal.bus}"
            base = f"of {base_kv * sqrt(3):.4g} kV between phases, {base_kv:.4g} kV to neutral"
            across = terminal.delta and element.phases == 1 and not is_across(terminal)
            right = f"give {good[0]:.4g} kV" + (", or connect it between two phases" if across else "")
            yield element.place.problem(f"{wrong} {base}", right)


def _good_kv(element: Element, terminal: Terminal, base_kv: float) -> tuple[float, ...]:
    if element.phases > 1:
        return (base_kv * sqrt(3),) if element.phases == 3 else (base_kv * sqrt(3), base_kv * 2)
    if is_across(terminal):  # two phases of three, or the two ends of a split-phase service
        return base_kv * sqrt(3), base_kv * 2
    return (base_kv,)
