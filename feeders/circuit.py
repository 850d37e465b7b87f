"""The elements of an OpenDSS circuit, read from its text without an engine.

OpenDSS accepts a misspelt name in silence; this is where it is caught. Voltages in kV, as the text gives them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from pathlib import Path

from derms.errors import Problem
from feeders.drafts import ALL, WINDINGS_DEFAULT, Draft, Drafts, count
from feeders.script import Place, read_script

WINDING_KINDS = ("transformer", "autotrans")
JOINING_KINDS = ("line", "reactor", "capacitor", *WINDING_KINDS)
"""Classes that pass power on from one bus to another, where they have two."""
SHUNT_KINDS = ("load", "generator", "pvsystem", "storage")
NEEDS = {"line": 2, "load": 1, "generator": 1, "pvsystem": 1, "storage": 1, "capacitor": 1, "reactor": 1}
"""Buses that must be given: OpenDSS invents one for each that is not."""
BUSLESS_KINDS = frozenset(
    (
        *("regcontrol", "capcontrol", "swtcontrol", "linecode", "linegeometry", "linespacing", "xfmrcode"),
        *("monitor", "energymeter", "sensor", "relay", "recloser", "fuse", "invcontrol", "expcontrol"),
    )
)
"""Classes whose `bus` names a place that must exist already, or none at all."""
KV_DEFAULT = {"vsource": 115.0, **dict.fromkeys(("load", "generator", "pvsystem", "storage", "capacitor"), 12.47)}
"""What OpenDSS takes [kV] when the text is silent."""
PHASES_DEFAULT = 3

REFERENCES: Mapping[tuple[str, str], str] = {
    ("regcontrol", "transformer"): "transformer",
    ("capcontrol", "capacitor"): "capacitor",
    ("capcontrol", "element"): "",
    ("swtcontrol", "switchedobj"): "",
    ("monitor", "element"): "",
    ("energymeter", "element"): "",
    ("line", "linecode"): "linecode",
    ("line", "geometry"): "linegeometry",
    ("line", "spacing"): "linespacing",
    ("transformer", "xfmrcode"): "xfmrcode",
}
"""Properties that name another element, and its class; empty where the full name is given."""


POSITIVE = ("length", "kv", "basekv", "kva")
"""Properties that have to be above 0; `kva` only of transformers."""
NOT_FINITE = re.compile(
    r"(?i)(?<![\w.])[+-]?(nan|inf|infinity|\d+(\.\d*)?e[+]?(309|3[1-9]\d|[4-9]\d\d|\d{4,}))(?![\w.])"
)
"""A number that a computer reads as NaN or as endless."""


@dataclass(frozen=True, slots=True)
class Terminal:
    """Where one end or winding of an element connects."""

    bus: str
    nodes: tuple[int, ...]
    """Of its conductors, in order; 0 is ground."""
    kv: float | None
    """As the text gives it; None where the text does not tell."""
    delta: bool

    @property
    def phases(self) -> frozenset[int]:
        """Phases 1..3 among its nodes."""
        return frozenset(self.nodes) & {1, 2, 3}


@dataclass(frozen=True)
class Element:
    """One element of the circuit."""

    kind: str
    name: str
    place: Place
    phases: int
    terminals: tuple[Terminal, ...]
    enabled: bool
    open_conductors: frozenset[int]
    """Positions, from 0, of conductors that are open at either end."""
    given: Mapping[str, str]
    """Its properties as the text gives them, by full name; those of a winding as `kv#2`."""

    @property
    def full(self) -> str:
        return f"{self.kind}.{self.name}"

    @property
    def closed(self) -> bool:
        """Whether it passes power on: enabled, and not open on all phases."""
        return self.enabled and len(self.open_conductors) < self.phases

    def number(self, name: str, default: float | None = None) -> float | None:
        """A property as a number; the default when it is not given, or is an expression."""
        return _number(self.given.get(name), default)


@dataclass
class CircuitText:
    """What a circuit's files define; all names lower case, buses without their phases."""

    elements: dict[str, Element] = field(default_factory=dict)
    """By full name (`line.l1`); the circuit's own source is `vsource.source`."""
    problems: list[Problem] = field(default_factory=list)
    """What is wrong with the text itself."""
    complete: bool = True
    """Whether all files could be read."""
    has_bases: bool = False
    """Whether the text gives voltage bases to buses."""
    digest: str = ""
    """SHA-256 over all files, see `Script.digest`."""

    @cached_property
    def buses(self) -> frozenset[str]:
        """Buses that an enabled element connects to."""
        enabled = (element for element in self.elements.values() if element.enabled)
        return frozenset(terminal.bus for element in enabled for terminal in element.terminals)

    def of(self, *kinds: str) -> Iterator[Element]:
        """Elements of some classes, in the order of the text."""
        return (element for element in self.elements.values() if element.kind in kinds)


def read(master: Path, folder: Path | None = None) -> CircuitText:
    """Read a circuit with everything that it redirects to, inside a folder (its own, when none is given)."""
    script = read_script(master, folder or master.parent)
    drafts = Drafts()
    for statement in script.statements:
        drafts.take(statement)
    drafts.operate_switch_controls()
    text = CircuitText(
        {name: _element(name, draft) for name, draft in drafts.elements.items()},
        [*script.problems, *drafts.problems],
        script.complete,
        drafts.has_bases,
        script.digest,
    )
    if script.complete:
        text.problems += [*_lacking(text, master), *_dangling(text, drafts), *_not_finite(text), *_not_positive(text)]
    return text


def _element(full: str, draft: Draft) -> Element:
    kind, _, name = full.partition(".")
    phases = count(draft.given.get("phases"), PHASES_DEFAULT)
    opened = {position for _, position in draft.opened}
    terminals = _windings(draft, phases) if kind in WINDING_KINDS else _ends(kind, draft, phases)
    return Element(
        kind,
        name,
        draft.place,
        phases,
        tuple(terminals),
        draft.given.get("enabled", "yes").lower()[:1] not in ("n", "f", "0"),
        frozenset(range(phases) if ALL in opened else opened),
        draft.given,
    )


def _ends(kind: str, draft: Draft, phases: int) -> Iterator[Terminal]:
    if kind not in BUSLESS_KINDS:
        kv = _number(draft.given.get("basekv" if kind == "vsource" else "kv"), KV_DEFAULT.get(kind))
        delta = _is_delta(draft.given.get("conn", ""))
        for bus in filter(None, map(draft.given.get, ("bus1", "bus2"))):
            yield _terminal(bus, phases, kv, delta)


def _windings(draft: Draft, phases: int) -> Iterator[Terminal]:
    for number in range(1, draft.windings + 1):
        kv = _number(draft.given.get(f"kv#{number}"))
        if bus := draft.given.get(f"bus#{number}"):
            yield _terminal(bus, phases, kv, _is_delta(draft.given.get(f"conn#{number}", "")))


def _terminal(text: str, phases: int, kv: float | None, delta: bool) -> Terminal:
    bus, *given = text.lower().split(".")
    nodes = [count(node, 0) for node in given]
    return Terminal(bus, (*nodes, *range(len(nodes) + 1, phases + 1)), kv, delta)


def _is_delta(text: str) -> bool:
    return text.lower().startswith(("d", "ll", "l-l"))


def _number(text: str | None, default: float | None = None) -> float | None:
    try:
        value = default if text is None else float(text)
    except ValueError:
        return None
    return value if value is None or isfinite(value) else None


def _lacking(text: CircuitText, master: Path) -> Iterator[Problem]:
    """What every circuit needs."""
    if "vsource.source" not in text.elements:
        yield Problem(master.name, "circuit", "no circuit is made", "begin with New Circuit.name bus1=... basekv=...")
    elif not text.has_bases:
        right = "add Set VoltageBases=[...] and CalcVoltageBases, or SetkVBase for each bus"
        yield Problem(master.name, "circuit", "no voltage bases are given", right)
    for element in text.elements.values():
        needed = NEEDS.get(element.kind, 0)
        if element.kind in WINDING_KINDS:
            needed = count(element.given.get("windings"), WINDINGS_DEFAULT)
        if len(element.terminals) < needed:
            wrong = f"{element.full} names {len(element.terminals)} of the {needed} buses it connects to"
            yield element.place.problem(wrong, "name them all")


def _not_finite(text: CircuitText) -> Iterator[Problem]:
    """Numbers that are none: the engine takes them, and everything is NaN from then on."""
    for element in text.elements.values():
        for name, value in element.given.items():
            if NOT_FINITE.search(value) and not name.startswith("bus"):
                wrong = f"{element.full}: {name.partition('#')[0]}={value} is no finite number"
                yield element.place.problem(wrong, "give a number")


def _not_positive(text: CircuitText) -> Iterator[Problem]:
    """Sizes below nothing: the engine takes them, and a line of -300 ft feeds power."""
    for element in text.elements.values():
        for name, value in element.given.items():
            plain, size = name.partition("#")[0], _number(value)
            if (
                size is not None
                and size <= 0.0
                and plain in POSITIVE
                and (plain != "kva" or element.kind in WINDING_KINDS)
            ):
                yield element.place.problem(f"{element.full}: {plain}={value} is not above 0", "give a number above 0")


def _dangling(text: CircuitText, drafts: Drafts) -> Iterator[Problem]:
    """Names that lead nowhere."""
    for element in text.elements.values():
        for (kind, name), target in REFERENCES.items():
            value = element.given.get(name, "").lower() if kind == element.kind else ""
            full = f"{target}.{value.removeprefix(target + '.')}" if target else value
            if value and full not in text.elements:
                yield element.place.problem(f"{element.full}: no {full} in the circuit", "name one that is defined")
        remote = element.given.get("bus", "").lower().partition(".")[0] if element.kind == "regcontrol" else ""
        if remote and remote not in text.buses:
            yield element.place.problem(f"{element.full}: no bus {remote!r}", "name a bus that an element connects to")
    for place, bus in drafts.buses_named:
        if bus not in text.buses:
            yield place.problem(f"no bus {bus!r} in the circuit", "name a bus that an element connects to")
