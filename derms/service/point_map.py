"""The point map of the utility's system: a CSV with a row per point, read with every mistake in it.

In the file kW, kvar and kV or whatever the source has; inside W, var and V, net load and heads + = import.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeVar

from derms.domain.grid import FeederPackage, SwitchState
from derms.domain.scada import PointKind, RegisterPlace, ScadaPoint
from derms.service.files import Report, column_names, did_you_mean, parse_number, read_csv

SYSTEM_MAX_PEAKS = 100.0
"""Net load of the system beyond this many times the feeder's peak is another unit."""
HEAD_MAX_PEAKS = 3.0
"""The same for the feeder's own head."""
LIVE_MIN_PEAKS = 0.002
"""Total active power nearer to 0 is another unit, or nothing is connected."""
STEP_MAX_PEAKS = 1.0
"""Power that moves further at once is believed when it is told twice."""
TAP_MAX = 33.0
V_MIN_V, V_MAX_V = 1.0, 1e6

COLUMNS = {
    "id": "name of the point, unique",
    "kind": "one of " + ", ".join(PointKind),
    "element": "system for net load, the feeder's id for its head, else an element or bus of its circuit",
    "phase": "a, b or c; the total when empty",
    "where": "CSV: column or name of the point; JSON: pointer such as /load; modbus: unit/table/address/type",
    "scale": "the value times this, 1 when empty",
    "offset": "plus this, 0 when empty",
    "unit": "is in this unit: W, kW or MW; var, kvar or Mvar; V or kV; for a switch single or double bits",
    "invert": "yes when + is export there, or 1 is open",
    "low": "smallest value that can be, in the unit; known for the feeder when empty",
    "high": "greatest value that can be",
    "step": "largest change that is believed at its first telling, in the unit; for power the feeder's peak when empty",
    "normal": "open or closed: how the feeder's model has a switch; closed when empty",
}
NEEDED = ("id", "kind", "where")
UNITS: Mapping[PointKind, Mapping[str, float]] = {
    PointKind.NET_LOAD: {"W": 1.0, "kW": 1e3, "MW": 1e6},
    PointKind.HEAD_P: {"W": 1.0, "kW": 1e3, "MW": 1e6},
    PointKind.HEAD_Q: {"var": 1.0, "kvar": 1e3, "Mvar": 1e6},
    PointKind.VOLTAGE: {"V": 1.0, "kV": 1e3},
    PointKind.SWITCH: {"single": 1.0, "double": 1.0, "": 1.0},
    PointKind.TAP: {"": 1.0},
}
"""Units that a kind may have, and what they are in SI."""
HEADS = (PointKind.HEAD_P, PointKind.HEAD_Q)
CLASSES = {PointKind.SWITCH: ("line", "swtcontrol"), PointKind.TAP: ("regcontrol", "transformer")}
YES_OR_NO = {"": False, "no": False, "false": False, "0": False, "yes": True, "true": True, "1": True}
STATES = {"": SwitchState.CLOSED, "closed": SwitchState.CLOSED, "open": SwitchState.OPEN}
_ID = re.compile(r"[A-Za-z0-9_.-]+")

T = TypeVar("T")


class Places(Enum):
    """What the column `where` names."""

    NAMES = "column or name of the point"
    POINTERS = "JSON pointer"
    REGISTERS = "unit/table/address/type"


@dataclass(frozen=True)
class PointMap:
    """What was read, and what is wrong with it."""

    points: tuple[ScadaPoint, ...]
    """All points when nothing is wrong."""
    kinds: frozenset[PointKind]
    """Kinds of all rows that have one."""
    report: Report


def read_points(path: Path, *, places: Places, package: FeederPackage | None) -> PointMap:
    """Read the point map, whose points stand in such places, and find every mistake in it.

    Without a feeder package (when that is wrong itself) elements are not checked. Raises ConfigError only when the
    file is no CSV at all.
    """
    table, report = read_csv(path), Report(str(path))
    columns = _header(table.header, report)
    checker = _Checker(places, package, report)
    points = []
    for number, cells in table.rows:
        if len(cells) < len(columns) or any(cells[len(columns) :]):
            wrong = f"{len(cells)} cells under a header of {len(columns)}"
            report.add(f"row {number}", wrong, "give one cell per column, empty where there is nothing to say")
        else:
            points.append(checker.point(number, dict(zip(columns, cells, strict=False))))
    if not table.rows:
        report.add("row 2", "there is no point", "add a row per point")
    checker.check_heads()
    good = () if report.problems else tuple(point for point in points if point is not None)
    return PointMap(good, frozenset(checker.kinds), report)


def _header(header: list[str], report: Report) -> list[str]:
    """Names of the columns; those that are missing are reported."""
    names = column_names(header, COLUMNS, report)
    for name in NEEDED:
        if name not in names:
            report.add(f"row 1, column {name}", f"column '{name}' is missing", f"add it: {COLUMNS[name]}")
    return names


@dataclass
class _Row:
    """One row under check."""

    number: int
    cells: Mapping[str, str]
    report: Report
    bad: bool = False

    def wrong(self, column: str, wrong: str, right: str) -> None:
        self.bad = True
        self.report.add(f"row {self.number}, column {column}", wrong, right)

    def text(self, column: str) -> str:
        return self.cells.get(column, "")

    def choice(self, column: str, known: Mapping[str, T]) -> T | None:
        """What a word stands for; None after it has been reported."""
        word = self.text(column)
        if word not in known:
            given = ", ".join(name for name in known if name)
            otherwise = f"it is one of {given}" if given else "leave it empty"
            what = f"unknown {column} '{word}'" if word else "the cell is empty"
            self.wrong(column, what, did_you_mean(word, known, otherwise) if word else otherwise)
        return known.get(word)

    def value(self, column: str) -> float | None:
        """The number in a cell; None when it is empty, or has been reported."""
        cell = self.text(column)
        number = parse_number(cell) if cell else None
        if cell and number is None:
            self.wrong(column, f"'{cell}' is not a number", "give a number such as 0.1")
        return number


class _Checker:
    """The checks of rows, in file order: what stands in earlier rows may not stand in later ones."""

    def __init__(self, places: Places, package: FeederPackage | None, report: Report) -> None:
        self._places = places
        self._package = package
        self._report = report
        self._ids: dict[str, int] = {}
        self._told: dict[tuple[str, str, str], int] = {}
        self.kinds: set[PointKind] = set()

    def point(self, number: int, cells: Mapping[str, str]) -> ScadaPoint | None:
        """The point of a row, or None when it has a mistake; reports every mistake of the row."""
        row = _Row(number, cells, self._report)
        kind = row.choice("kind", {kind.value: kind for kind in PointKind})
        invert, normal = row.choice("invert", YES_OR_NO), row.choice("normal", STATES)
        scale, offset = row.value("scale"), row.value("offset")
        if scale == 0.0:
            row.wrong("scale", "0 makes every value the same", "give another factor")
        self._check_id(row)
        self._check_where(row)
        if kind is None:
            return None
        self.kinds.add(kind)
        element, phase = self._element(row, kind), self._phase(row, kind)
        self._check_told(row, kind, element, phase)
        unit = row.choice("unit", UNITS[kind]) or 1.0
        low, high, floor = self._bounds(row, kind, phase, unit)
        step = self._step(row, kind, unit)
        if row.bad:
            return None
        return ScadaPoint(
            id=row.text("id"),
            kind=kind,
            element=element,
            where=row.text("where"),
            phase=phase,
            scale=(1.0 if scale is None else scale) * unit,
            offset=(offset or 0.0) * unit,
            double=row.text("unit") == "double",
            invert=bool(invert),
            low=low,
            high=high,
            floor=floor,
            step=step,
            normal=SwitchState.CLOSED if normal is None else normal,
        )

    def check_heads(self) -> None:
        """A head is told as a total, or in all three phases."""
        for kind in HEADS:
            phases = {phase: row for (its_kind, _, phase), row in self._told.items() if its_kind == kind}
            if phases and phases.keys() not in ({""}, {"a", "b", "c"}):
                given = ", ".join(phase or "the total" for phase in phases)
                right = "tell the total alone, or phases a, b and c"
                self._report.add(f"row {min(phases.values())}, column phase", f"{kind} is told for {given}", right)

    def _check_told(self, row: _Row, kind: PointKind, element: str, phase: str) -> None:
        first = self._told.setdefault((kind, element, phase), row.number)
        if first != row.number:
            row.wrong("element", f"row {first} tells the same", "keep one of them")
        if row.text("normal") and kind is not PointKind.SWITCH:
            row.wrong("normal", f"a normal state for a {kind}", "leave it empty")

    def _check_id(self, row: _Row) -> None:
        name = row.text("id")
        first = self._ids.setdefault(name, row.number)
        if not name:
            row.wrong("id", "the cell is empty", f"give it: {COLUMNS['id']}")
        elif not _ID.fullmatch(name):
            row.wrong("id", f"'{name}' has characters that an id cannot have", "use letters, digits, _ . and -")
        elif first != row.number:
            row.wrong("id", f"'{name}' is already the id of row {first}", "give every point an id of its own")

    def _check_where(self, row: _Row) -> None:
        where = row.text("where")
        if not where:
            row.wrong("where", "the cell is empty", f"give it: {COLUMNS['where']}")
        elif self._places is Places.POINTERS and not where.startswith("/"):
            row.wrong("where", f"'{where}' is not a JSON pointer", f"write it like /{where}/value")
        elif self._places is Places.REGISTERS and RegisterPlace.parse(where) is None:
            right = "write it like 1/holding/100/float32 or 1/input/100/int16/200 with a register of quality"
            row.wrong("where", f"'{where}' is not a register", right)

    def _element(self, row: _Row, kind: PointKind) -> str:
        """The element in lower case; `system` and the feeder need not be written."""
        element, package = row.text("element").lower(), self._package
        if kind is PointKind.NET_LOAD:
            return self._expected(row, element or "system", {"system"}, "system")
        if package is None:
            return element
        if kind in HEADS:
            feeder = package.id.lower()
            return self._expected(row, element or feeder, {feeder, package.head_element.lower()}, f"feeder {feeder}")
        if kind is PointKind.VOLTAGE:
            return self._expected(row, element, package.buses, f"a bus of feeder {package.id}")
        classes = CLASSES[kind]
        known = {name for name in package.elements if name.partition(".")[0] in classes}
        return self._expected(row, element, known or {element}, f"a {' or '.join(classes)} of feeder {package.id}")

    def _expected(self, row: _Row, element: str, known: Collection[str], what: str) -> str:
        if not element:
            row.wrong("element", "the cell is empty", f"name {what}")
        elif element not in known:
            row.wrong("element", f"unknown element '{element}'", did_you_mean(element, known, f"name {what}"))
        return element

    def _phase(self, row: _Row, kind: PointKind) -> str:
        phase = row.text("phase").lower()
        if phase not in ("", "a", "b", "c"):
            row.wrong("phase", f"unknown phase '{phase}'", "give a, b or c, or nothing for the total")
        elif phase and kind in (PointKind.NET_LOAD, PointKind.SWITCH):
            row.wrong("phase", f"a {kind} of one phase", "tell the total")
        return phase

    def _bounds(self, row: _Row, kind: PointKind, phase: str, unit: float) -> tuple[float, float, float]:
        """Low, high and floor in SI: as the row has them, else as the feeder's peak suggests."""
        low, high = row.value("low"), row.value("high")
        if low is not None and high is not None and low >= high:
            row.wrong("low", f"{low:g} is not below high = {high:g}", "give the smaller value first")
        peak_w = self._package.peak_w if self._package else float("inf")
        widest = {PointKind.NET_LOAD: SYSTEM_MAX_PEAKS * peak_w, PointKind.TAP: TAP_MAX, PointKind.VOLTAGE: V_MAX_V}
        most = widest.get(kind, HEAD_MAX_PEAKS * peak_w)
        total = kind in (PointKind.NET_LOAD, PointKind.HEAD_P) and not phase and low is None and high is None
        return (
            low * unit if low is not None else V_MIN_V if kind is PointKind.VOLTAGE else -most,
            high * unit if high is not None else most,
            LIVE_MIN_PEAKS * peak_w if total else 0.0,
        )

    def _step(self, row: _Row, kind: PointKind, unit: float) -> float:
        """Largest change at once in SI: as the row has it, else the feeder's peak for power, none for the rest."""
        step = row.value("step")
        if step is not None and step <= 0.0:
            row.wrong("step", f"{step:g} is not greater than 0", "give the largest change, or leave it empty")
        if step is not None:
            return step * unit
        is_power = kind in (PointKind.NET_LOAD, *HEADS)
        return STEP_MAX_PEAKS * self._package.peak_w if is_power and self._package else math.inf


def describe_points() -> str:
    """The reference of the point map as Markdown: every column."""
    lines = ["| column | meaning |", "| --- | --- |", *(f"| `{name}` | {what} |" for name, what in COLUMNS.items())]
    return "\n".join([*lines, ""])
