"""What may stand in a profile's YAML file: kinds of rules, checked against the file's tree, and told as JSON Schema."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from derms.errors import Problem
from drivers.profiles.yaml_tree import Items, Mapped, Node, Scalar

NOTHING = object()
"""What a node that is wrong reads as; it has been reported."""
Path = tuple[str, ...]
Values = Mapping[str, Any]
"""A table as it was read."""

_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_HEX = re.compile(r"0[xX][0-9a-fA-F]{1,8}", re.ASCII)


@dataclass
class Findings:
    """The mistakes in one file, and the line of everything in it by path."""

    file: str
    problems: list[Problem] = field(default_factory=list)
    lines: dict[Path, int] = field(default_factory=dict)

    def wrong(self, path: Path, wrong: str, right: str) -> Any:
        """Report a mistake at the nearest line known."""
        known = (path[:length] for length in range(len(path), -1, -1))
        line = next((self.lines[part] for part in known if part in self.lines), 1)
        name = ".".join(path)
        self.problems.append(Problem(self.file, f"line {line}", f"{name}: {wrong}" if name else wrong, right))
        return NOTHING


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """What one value must be."""

    meaning: str
    needed: bool = False

    @property
    def right(self) -> str:
        """What would be right, as the end of a message."""
        raise NotImplementedError

    def read(self, node: Node, path: Path, found: Findings) -> Any:
        """The value of a node; NOTHING, reported, when it is wrong."""
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        """The rule as JSON Schema."""
        raise NotImplementedError

    def fits(self, node: Node) -> bool:
        """Whether a node has the form that the rule wants, right or wrong inside."""
        return isinstance(node, Scalar)


@dataclass(frozen=True, kw_only=True, slots=True)
class Number(Rule):
    low: float = -math.inf
    high: float = math.inf
    whole: bool = False

    @property
    def right(self) -> str:
        bounds = f" from {self.low:g} to {self.high:g}" * (self.low > -math.inf or self.high < math.inf)
        return f"give a {'whole ' * self.whole}number{bounds}"

    def read(self, node: Node, path: Path, found: Findings) -> Any:
        value = _number(node)
        if value is None or not self.low <= value <= self.high or (self.whole and not float(value).is_integer()):
            return found.wrong(path, _shown(node), self.right)
        return int(value) if self.whole else float(value)

    def schema(self) -> dict[str, Any]:
        bounds = {"minimum": self.low, "maximum": self.high}
        kept = {key: bound for key, bound in bounds.items() if math.isfinite(bound)}
        return {"type": "integer" if self.whole else "number", **kept, "description": self.meaning}


@dataclass(frozen=True, kw_only=True, slots=True)
class Flag(Rule):
    @property
    def right(self) -> str:
        return "give true or false"

    def read(self, node: Node, path: Path, found: Findings) -> Any:
        if isinstance(node, Scalar) and not node.quoted and node.text in ("true", "false"):
            return node.text == "true"
        return found.wrong(path, _shown(node), self.right)

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean", "description": self.meaning}


@dataclass(frozen=True, kw_only=True, slots=True)
class Word(Rule):
    choices: tuple[str, ...] = ()
    pattern: str = r".*\S.*"

    @property
    def right(self) -> str:
        return f"give {', '.join(self.choices)}" if self.choices else f"give a text: {self.meaning}"

    def read(self, node: Node, path: Path, found: Findings) -> Any:
        if not isinstance(node, Scalar):
            return found.wrong(path, _shown(node), self.right)
        if self.choices and node.text not in self.choices:
            return found.wrong(path, _shown(node), meant(node.text, self.choices) or self.right)
        if not re.fullmatch(self.pattern, node.text, re.ASCII | re.DOTALL):
            return found.wrong(path, _shown(node), self.right)
        return node.text

    def schema(self) -> dict[str, Any]:
        form = {"enum": list(self.choices)} if self.choices else {"type": "string", "pattern": f"^{self.pattern}$"}
        return {**form, "description": self.meaning}


@dataclass(frozen=True, kw_only=True, slots=True)
class Many(Rule):
    of: Rule
    low: int = 1
    high: int = 64

    @property
    def right(self) -> str:
        number = f"{self.low}" if self.low == self.high else f"{self.low} to {self.high}"
        return f"give a list of {number}: {self.of.right.removeprefix('give ')}"

    def read(self, node: Node, path: Path, found: Findings) -> Any:
        if not isinstance(node, Items) or not self.low <= len(node.nodes) <= self.high:
            return found.wrong(path, _shown(node), self.right)
        values = []
        for number, item in enumerate(node.nodes):
            at = (*path, str(number + 1))
            found.lines[at] = item.line
            values.append(self.of.read(item, at, found))
        return values

    def schema(self) -> dict[str, Any]:
        limits = {"minItems": self.low, "maxItems": self.high}
        return {"type": "array", "items": self.of.schema(), **limits, "description": self.meaning}

    def fits(self, node: Node) -> bool:
        return isinstance(node, Items)


@dataclass(frozen=True, kw_only=True, slots=True)
class Section(Rule):
    """A table with keys of its own; every needed one has to be there."""

    keys: Mapping[str, Rule]

    @property
    def right(self) -> str:
        return "give a table with " + ", ".join(self.keys)

    def read(self, node: Node, path: Path, found: Findings) -> Any:
        if not isinstance(node, Mapped):
            return found.wrong(path, _shown(node), self.right)
        values = _pairs(node, path, found, self.keys)
        for name, rule in self.keys.items():
            if rule.needed and name not in values:
                found.wrong((*path, name), "is missing", f"add it: {rule.meaning}")
        return values

    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {name: rule.schema() for name, rule in self.keys.items()},
            "required": [name for name, rule in self.keys.items() if rule.needed],
            "additionalProperties": False,
            "description": self.meaning,
        }

    def fits(self, node: Node) -> bool:
        return isinstance(node, Mapped)


@dataclass(frozen=True, kw_only=True, slots=True)
class Named(Rule):
    """A table in which every value is of one kind, by names out of `choices` or by any whole number or word."""

    of: Rule
    choices: tuple[str, ...] = ()
    numbers: bool = False
    """Names are whole numbers."""

    @property
    def right(self) -> str:
        return "give a table by " + (", ".join(self.choices) or ("number" if self.numbers else "name"))

    def read(self, node: Node, path: Path, found: Findings) -> Any:
        if not isinstance(node, Mapped):
            return found.wrong(path, _shown(node), self.right)
        names = self.choices or tuple(key.text for key, _ in node.pairs)
        values = _pairs(node, path, found, dict.fromkeys(names, self.of))
        if not self.numbers:
            return values
        return {_key(name, path, found): value for name, value in values.items()}

    def schema(self) -> dict[str, Any]:
        names: dict[str, Any] = {"enum": list(self.choices)}
        if not self.choices:
            names = {"pattern": "^-?[0-9]+$" if self.numbers else r"^\S.*$"}
        inside = {"propertyNames": names, "additionalProperties": self.of.schema()}
        return {"type": "object", **inside, "description": self.meaning}

    def fits(self, node: Node) -> bool:
        return isinstance(node, Mapped)


@dataclass(frozen=True, kw_only=True, slots=True)
class Either(Rule):
    """One of several rules, told apart by the form of the node."""

    of: tuple[Rule, ...]

    @property
    def right(self) -> str:
        return " or ".join(rule.right for rule in self.of)

    def read(self, node: Node, path: Path, found: Findings) -> Any:
        rule = next((rule for rule in self.of if rule.fits(node)), None)
        return found.wrong(path, _shown(node), self.right) if rule is None else rule.read(node, path, found)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [rule.schema() for rule in self.of], "description": self.meaning}

    def fits(self, node: Node) -> bool:
        return any(rule.fits(node) for rule in self.of)


def meant(word: str, known: Iterable[str]) -> str:
    """The known word that a misspelt one most likely stands for, as a question; empty for none."""
    near = get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else ""


def _pairs(node: Mapped, path: Path, found: Findings, rules: Mapping[str, Rule]) -> dict[str, Any]:
    """The values of a table, each key once and known; a misspelt key counts as there."""
    values: dict[str, Any] = {}
    for key, value in node.pairs:
        at = (*path, key.text)
        if key.text in values:
            found.lines[at] = key.line
            found.wrong(at, "stands here a second time", "keep one of them")
            continue
        found.lines[at] = key.line
        if key.text in rules:
            values[key.text] = rules[key.text].read(value, at, found)
        else:
            there = {other.text for other, _ in node.pairs}
            unused = [name for name in rules if name not in there]
            guess = get_close_matches(key.text.lower(), unused, n=1, cutoff=0.6)
            found.wrong(at, "unknown key", f"did you mean '{guess[0]}'?" if guess else "use " + ", ".join(rules))
            values.update(dict.fromkeys(guess, NOTHING))
    return values


def _key(name: str, path: Path, found: Findings) -> Any:
    if not re.fullmatch(r"-?(0|[1-9]\d{0,9})", name, re.ASCII):
        return found.wrong((*path, name), "is no whole number", "give the register value as the key")
    return int(name)


def _number(node: Node) -> float | int | None:
    """Decimal or 0x hexadecimal; what YAML would make of `010`, `1_000`, `1:30` or `yes` is no number."""
    if not isinstance(node, Scalar) or node.quoted:
        return None
    if _HEX.fullmatch(node.text):
        return int(node.text, 16)
    if not _NUMBER.fullmatch(node.text):
        return None
    value = float(node.text)
    return value if math.isfinite(value) else None


def _shown(node: Node) -> str:
    """What stands there, for a message."""
    match node:
        case Scalar(text=""):
            return "nothing stands here"
        case Scalar(text=text):
            return f"'{text[:60]}'"
        case Items(nodes=nodes):
            return f"a list of {len(nodes)}"
        case Mapped():
            return "a table"
