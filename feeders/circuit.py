"""The names in an OpenDSS circuit, read from its text without an engine: buses, and elements with their buses.

Knows what circuit files need to be checked against a manifest: New, continuation lines, Redirect and Compile, comments,
`bus=`, `bus1=`, `bus2=`, `buses=`. OpenDSS accepts a misspelt name in silence; this is where it is caught.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from derms.errors import ConfigError, Problem

_ELEMENT = re.compile(r"""^(?:object\s*=\s*)?["']?(?P<name>[a-z_]\w*\.[^\s"']+)["']?""", re.IGNORECASE)
_BUS = re.compile(r"""\bbus[12]?\s*=\s*["']?(?P<bus>[^\s"',()\[\]]+)""", re.IGNORECASE)
_BUSES = re.compile(r"""\bbuses\s*=\s*[(\["'{](?P<buses>[^)\]"'}]*)""", re.IGNORECASE)
_COMMENT = re.compile(r"!.*|//.*")
_CONTROLS = ("regcontrol", "capcontrol", "linecode", "xfmrcode", "monitor", "energymeter")
"""Classes whose `bus` names a place that must exist already, or none at all."""


@dataclass
class CircuitText:
    """What a circuit's files define; all names lower case, buses without their phases."""

    elements: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Buses of every element, by full name (`line.l1`), in the order of its terminals."""

    @cached_property
    def buses(self) -> frozenset[str]:
        """Buses that an element connects to."""
        return frozenset(bus for buses in self.elements.values() for bus in buses)


def read(master: Path) -> CircuitText:
    """Read a circuit with everything that it redirects to.

    Raises
    ------
    ConfigError
        A file is missing, or files redirect to each other in a circle.
    """
    circuit = CircuitText()
    element = ""
    for command, rest in _commands(master, ()):
        if command == "new" and (match := _ELEMENT.match(rest)):
            element = match["name"].lower()
            circuit.elements[element] = ()
        elif command not in ("~", "more"):
            element = ""
        if element and element.partition(".")[0] not in _CONTROLS:
            circuit.elements[element] += tuple(_buses(rest))
    return circuit


def _commands(path: Path, parents: tuple[Path, ...]) -> Iterator[tuple[str, str]]:
    if path in parents:
        raise ConfigError([Problem(path.name, "redirect", "redirects to itself", "break the circle")])
    try:
        text = path.read_text(encoding="utf8", errors="replace")
    except OSError as error:
        raise ConfigError(
            [Problem(path.name, "file", error.strerror or "cannot be read", "give a readable file")]
        ) from error
    for line in text.splitlines():
        command, _, rest = _COMMENT.sub("", line).strip().replace("~", "~ ", 1).partition(" ")
        command, rest = command.lower(), rest.strip()
        if command in ("redirect", "compile"):
            yield from _commands(path.parent / rest.strip("\"'()[]").replace("\\", "/"), (*parents, path))
        elif command:
            yield command, rest


def _buses(text: str) -> Iterator[str]:
    for match in _BUSES.finditer(text):
        yield from (_without_phases(bus) for bus in re.split(r"[\s,]+", match["buses"].strip()))
    yield from (_without_phases(match["bus"]) for match in _BUS.finditer(text))


def _without_phases(bus: str) -> str:
    return bus.partition(".")[0].lower()
