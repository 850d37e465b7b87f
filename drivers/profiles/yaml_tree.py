"""YAML as a tree of texts with their lines, and nothing more: no tag, anchor or type is ever acted upon.

Bounded in bytes and depth; aliases are refused, so that a file cannot grow while it is read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from derms.errors import ConfigError, Problem

BYTES_MAX = 1 << 16
DEPTH_MAX = 12
PLAIN_TAG = "!"


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text as it stands in the file."""

    text: str
    quoted: bool
    line: int


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    nodes: "tuple[Node, ...]"
    line: int


@dataclass(frozen=True, slots=True)
class Mapped:
    """A table: keys in file order, each as often as it stands there."""

    pairs: "tuple[tuple[Scalar, Node], ...]"
    line: int


Node = Scalar | Items | Mapped


def read_tree(path: Path) -> Node:
    """The one document of a file; raises ConfigError for anything but bounded, plain YAML in UTF-8."""
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_MAX + 1)
        if len(data) > BYTES_MAX:
            raise _wrong(path, 1, f"the file has more than {BYTES_MAX} bytes", "keep it shorter")
        tree = _Builder(path, yaml.parse(data.decode("utf-8-sig"), Loader=yaml.SafeLoader)).document()
    except OSError as error:
        raise _wrong(path, 1, f"cannot be read ({error.strerror})", "give the path of a readable file") from error
    except UnicodeDecodeError as error:
        raise _wrong(path, data[: error.start].count(10) + 1, "is not UTF-8", "save it with encoding UTF-8") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise _wrong(path, line, f"is not YAML ({error.problem})", "write valid YAML") from error
    except yaml.YAMLError as error:
        raise _wrong(path, 1, f"is not YAML ({error})".splitlines()[0], "write valid YAML") from error
    return tree


def _wrong(path: Path, line: int, wrong: str, right: str) -> ConfigError:
    return ConfigError([Problem(path.name, f"line {line}", wrong, right)])


class _Builder:
    """Builds the tree from the parser's events."""

    def __init__(self, path: Path, events: Iterator[Any]) -> None:
        self._path = path
        self._events = events

    def document(self) -> Node:
        tree: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if tree is not None:
                    raise self._wrong(event, "a second document begins", "keep one document per file")
                tree = self._node(next(self._events), 1)
        if tree is None:
            raise _wrong(self._path, 1, "the file is empty", "copy TEMPLATE.yaml and fill it in")
        return tree

    def _node(self, event: Any, depth: int) -> Node:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self._wrong(event, "anchors and aliases are not read", "write the value out")
        if event.tag not in (None, PLAIN_TAG):
            raise self._wrong(event, f"the tag {event.tag} is not read", "leave it out")
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(event.value, event.style is not None, line)
        if depth > DEPTH_MAX:
            raise self._wrong(event, f"is nested deeper than {DEPTH_MAX}", "keep it flat")
        if isinstance(event, yaml.SequenceStartEvent):
            return Items(tuple(self._nodes(yaml.SequenceEndEvent, depth)), line)
        return Mapped(tuple(self._pairs(depth)), line)

    def _nodes(self, end: type[Any], depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self._events), end):
            yield self._node(event, depth + 1)

    def _pairs(self, depth: int) -> Iterator[tuple[Scalar, Node]]:
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key, Scalar):
                raise self._wrong(event, "a key is not a word", "write `key: value`")
            yield key, self._node(next(self._events), depth + 1)

    def _wrong(self, event: Any, wrong: str, right: str) -> ConfigError:
        return _wrong(self._path, event.start_mark.line + 1, wrong, right)
