"""The page of faults, docs/faults.md, as values: what shows each fault, what waits, and what is not there yet."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"
WAITS, REASON, NOT_YET = "waits", "reason", "not yet"
TEST = "test"


@dataclass(frozen=True, slots=True)
class Shown:
    """One way in which a fault is shown: a test as `path::function`, a word, or a sentence."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Fault:
    """A row of the page."""

    number: int
    fault: str
    does: str
    shown: tuple[Shown, ...]

    def texts(self, kind: str) -> tuple[str, ...]:
        return tuple(shown.text for shown in self.shown if shown.kind == kind)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A row of the table of what waits for later."""

    what: str
    faults: tuple[int, ...]
    invariants: tuple[str, ...]
    missing: str


def faults() -> tuple[Fault, ...]:
    """Every row of the page, in its order."""
    return tuple(
        Fault(int(number), fault, does, tuple(_shown(part) for part in shown.split("<br>")))
        for number, fault, does, shown in _rows(4)
        if number.isdigit()
    )


def waiting() -> tuple[Waiting, ...]:
    """The table of what waits, in its order."""
    _, _, table = PAGE.read_text(encoding="utf8").partition("## What waits")
    return tuple(
        Waiting(what, tuple(map(int, re.findall(r"\d+", numbers))), tuple(re.findall(r"I-\d+", invariants)), missing)
        for what, numbers, invariants, missing in _cells(table, 4)
        if what != "for"
    )


def not_yet() -> tuple[str, ...]:
    """What the product should do and does not, each with the number of its fault."""
    return tuple(f"{fault.number}: {text}" for fault in faults() for text in fault.texts(NOT_YET))


def _rows(count: int) -> Iterator[list[str]]:
    yield from _cells(PAGE.read_text(encoding="utf8").partition("## What waits")[0], count)


def _cells(text: str, count: int) -> Iterator[list[str]]:
    """The cells of every row of tables, without the lines under their headers."""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if len(cells) != count:
                raise ValueError(f"{len(cells)} cells instead of {count}: {line}")
            yield cells


def _shown(part: str) -> Shown:
    part = part.strip()
    if part.startswith("`") and part.endswith("`"):
        return Shown(TEST, part.strip("`"))
    kind, colon, text = part.partition(": ")
    if not colon or kind not in (WAITS, REASON, NOT_YET):
        raise ValueError(f"'{part}' is neither a test nor one of {WAITS}, {REASON}, {NOT_YET}")
    return Shown(kind, text)
