"""Statements of OpenDSS text carried out on paper: which elements there are, and what each was given.

Knows New, Edit, More and `~`, BatchEdit, Select, `like=`, codes and geometries, Open, Close, Enable, Disable,
`Line.l1.enabled=no`, Clear, and the commands that give voltage bases.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from derms.errors import Problem
from feeders.script import Place, Statement, Word
from feeders.vocabulary import OPTIONS, PROPERTIES, property_name, whole

ALL = -1
"""Among the positions of open conductors, which count from 0: every one."""
SOURCE = "vsource.source"
"""The element that New Circuit makes."""
WINDINGS_DEFAULT = 2
QUANTIFIERS_MAX = 2
_PATTERN = re.compile(r"\^?(?:[\w-]|\.[*+]?|\[[\w]+\])*\$?")
"""Of BatchEdit: what cannot take long to match, whatever the names are."""
COUNT_MAX = 1000
_PER_WINDING = {"bus": "bus", "conn": "conn", "kv": "kv", "kva": "kva", "tap": "tap", "%r": "%r"}
_ALL_WINDINGS = {"buses": "bus", "conns": "conn", "kvs": "kv", "kvas": "kva", "taps": "tap", "%rs": "%r"}


@dataclass
class Draft:
    """An element as far as the text has told."""

    kind: str
    place: Place
    given: dict[str, str] = field(default_factory=dict)
    opened: set[tuple[str, int]] = field(default_factory=set)
    """Terminal, as the text numbers it, and position of open conductors, from 0, or ALL."""
    winding: int = 1
    windings: int = WINDINGS_DEFAULT

    def operate(self, terminal: str, position: int, *, closed: bool) -> None:
        """Open or close a conductor, or all of them, at a terminal (the first when it is not told)."""
        at = terminal or "1"
        if closed:
            self.opened = {(end, which) for end, which in self.opened if end != at or position not in (ALL, which)}
        else:
            self.opened.add((at, position))


class Drafts:
    """All elements of a circuit in the making."""

    def __init__(self) -> None:
        self.elements: dict[str, Draft] = {}
        self.problems: list[Problem] = []
        self.buses_named: list[tuple[Place, str]] = []
        """Buses that commands name."""
        self.has_bases = False
        self._active: Draft | None = None
        self._bases_set = False

    def operate_switch_controls(self) -> None:
        """Open what switch controls hold open: by their state or their last action, else by what is normal."""
        for control in [draft for draft in self.elements.values() if draft.kind == "swtcontrol"]:
            switched = self.elements.get(control.given.get("switchedobj", "").lower())
            state = control.given.get("state", control.given.get("normal", "closed"))
            if switched is not None and state.lower().startswith("o"):
                switched.operate(control.given.get("switchedterm", "1"), ALL, closed=False)

    def take(self, statement: Statement) -> None:
        """Carry out one statement."""
        command, words, place = statement.command, statement.words, statement.place
        match command:
            case "clear" | "clearall":
                self.elements.clear()
                self._active = None
            case "new":
                self._new(words, place)
            case "edit" | "select" | "open" | "close" | "enable" | "disable":
                self._existing(command, words, place)
            case "more" | "m" | "~":
                self._edit(self._active, words, place)
            case "batchedit":
                self._batch(words, place)
            case "":
                self._assign(words, place)
            case _:
                self._bases(command, words, place)

    def _new(self, words: tuple[Word, ...], place: Place) -> None:
        full = _full_name(words)
        kind, _, name = full.partition(".")
        if not name:
            self.problems.append(place.problem("New without class and name", "write New Line.l1 ..., as an example"))
            self._active = None
            return
        if full in self.elements:
            first = self.elements[full].place
            wrong = f"{full} is defined already in {first.file}, line {first.line}"
            self.problems.append(place.problem(wrong, "give each element a name of its own"))
        self._active = self.elements[full] = Draft(kind, place)
        if full == SOURCE:
            self._active.given["bus1"] = "sourcebus"
        self._edit(self._active, words[1:], place)

    def _existing(self, command: str, words: tuple[Word, ...], place: Place) -> None:
        full = _full_name(words)
        draft = self.elements.get(full)
        if draft is None:
            self.problems.append(place.problem(f"no element {full!r} in the circuit", "name one that is defined"))
            self._active = None
            return
        self._active = draft
        if command == "edit":
            self._edit(draft, words[1:], place)
        elif command in ("enable", "disable"):
            draft.given["enabled"] = "yes" if command == "enable" else "no"
        elif command != "select":
            terminal, conductor, *_ = *(word.value for word in words[1:]), "", ""
            draft.operate(terminal, count(conductor, 0) - 1, closed=command == "close")

    def _batch(self, words: tuple[Word, ...], place: Place) -> None:
        kind, _, pattern = words[0].value.lower().partition(".") if words else ("", "", "")
        if not _PATTERN.fullmatch(pattern) or len(re.findall(r"[*+]", pattern)) > QUANTIFIERS_MAX:
            self.problems.append(place.problem(f"pattern {pattern!r} is not followed here", "write one as Load..*"))
            return
        wanted = re.compile(pattern)
        for full, draft in self.elements.items():
            if draft.kind == kind and wanted.search(full.partition(".")[2]):
                self._edit(draft, words[1:], place)

    def _assign(self, words: tuple[Word, ...], place: Place) -> None:
        """`Line.l1.enabled=no`, or `enabled=no` for the element before."""
        owner, _, name = words[0].name.rpartition(".")
        if owner:
            self._existing("edit", (Word("", owner), Word(name, words[0].value), *words[1:]), place)
        else:
            self._edit(self._active, words, place)

    def _bases(self, command: str, words: tuple[Word, ...], place: Place) -> None:
        if command == "set":
            self._bases_set |= any(whole(word.name, OPTIONS) == "voltagebases" for word in words)
        elif command == "calcvoltagebases":
            self.has_bases |= self._bases_set
        elif command == "setkvbase":
            self.has_bases = True
            self.buses_named += [(place, word.value.lower()) for word in words[:1] if word.name in ("", "bus")]

    def _edit(self, draft: Draft | None, words: Iterable[Word], place: Place) -> None:
        if draft is None:
            self.problems.append(place.problem("continues no element", "begin with New or Edit"))
            return
        order = PROPERTIES.get(draft.kind, ())
        next_position = 0
        for word in words:
            if word.name.startswith("~"):
                self.problems.append(place.problem(f"{word.name!r} is no property", "write a blank after ~"))
            name = property_name(draft.kind, word.name)
            if not name and next_position < len(order):
                name = order[next_position]
            if name in order:
                next_position = order.index(name) + 1
            self._give(draft, name, word.value)

    def _give(self, draft: Draft, name: str, value: str) -> None:
        if name == "like":
            self._copy(self.elements.get(f"{draft.kind}.{value.lower()}"), draft)
        elif name == "wdg":
            draft.winding = count(value, draft.winding)
        elif name == "windings":
            draft.windings = count(value, draft.windings)
            draft.given[name] = value
        elif name in _PER_WINDING and "windings" in PROPERTIES.get(draft.kind, ()):
            draft.given[f"{name}#{draft.winding}"] = value
        elif name in _ALL_WINDINGS and not set(value) & set("()[]{}'\""):  # no expressions inside
            for number, each in enumerate(re.split(r"[\s,]+", value), 1):
                draft.given[f"{_ALL_WINDINGS[name]}#{number}"] = each
        else:
            draft.given["state" if name == "action" and draft.kind == "swtcontrol" else name] = value
            self._from_code(draft, name, value.lower())

    def _from_code(self, draft: Draft, name: str, code: str) -> None:
        """Take over what a code or a geometry says of the phases, and a transformer's code of its windings."""
        found = self.elements.get(f"{'line' if name in ('geometry', 'spacing') else ''}{name}.{code}")
        if found is None:
            return
        if name == "xfmrcode":
            self._copy(found, draft)
        elif name in ("linecode", "spacing", "geometry"):
            reduced = found.given.get("reduce", "no").lower()[:1] in ("y", "t")
            counted = "nconds" if name == "geometry" and not reduced else "nphases"
            draft.given["phases"] = found.given.get(counted, found.given.get("nphases", "3"))

    @staticmethod
    def _copy(source: Draft | None, target: Draft) -> None:
        """What `like` copies: all but the buses, and whether it is enabled."""
        if source is not None:
            kept = {name: value for name, value in source.given.items() if not name.startswith(("bus", "enabled"))}
            target.given |= kept
            target.windings = source.windings


def count(text: str | None, default: int) -> int:
    """A number of phases, windings or conductors, or its number; the default for what cannot be one."""
    digits = (text or "").removesuffix(".0").lstrip("0")
    return int(digits) if digits.isdecimal() and len(digits) <= 4 and int(digits) <= COUNT_MAX else default


def _full_name(words: tuple[Word, ...]) -> str:
    full = words[0].value.lower() if words else ""
    return SOURCE if full.startswith("circuit.") else full
