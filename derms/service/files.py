"""Files that people wrote: read them whole, and keep every mistake with its place."""

import csv
import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from io import StringIO
from pathlib import Path

from derms.errors import ConfigError, Problem

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass
class Report:
    """The mistakes found in one file."""

    file: str
    problems: list[Problem] = field(default_factory=list)

    def add(self, where: str, wrong: str, right: str) -> None:
        self.problems.append(Problem(self.file, where, wrong, right))

    def error(self, where: str, wrong: str, right: str) -> ConfigError:
        """The mistakes so far and a last one, after which there is nothing more to look at."""
        self.add(where, wrong, right)
        return ConfigError(self.problems)


def in_order(problems: Sequence[Problem], *, first: str) -> list[Problem]:
    """Problems of the `first` file, then file by file as they came; in each by line or row, a whole file's first."""
    files = list(dict.fromkeys([first, *(problem.file for problem in problems)]))

    def place(problem: Problem) -> tuple[int, int]:
        found = re.match(r"(?:line|row) (\d+)", problem.where)
        return files.index(problem.file), int(found[1]) if found else 0

    return sorted(problems, key=place)


@dataclass(frozen=True)
class CsvTable:
    """A CSV file as a spreadsheet shows it: the header is row 1, blank rows are left out."""

    header: list[str]
    rows: list[tuple[int, list[str]]]
    """Row number and cells without surrounding blanks."""


def read_text(path: Path, *, row: str = "line") -> str:
    """The text of a UTF-8 file with or without BOM; raises ConfigError, counting places as `line` or `row`."""
    report = Report(str(path))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise report.error("file", f"cannot be read ({error.strerror})", "give the path of a readable file") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = f"{row} {data[: error.start].count(10) + 1}"
        wrong = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise report.error(place, wrong, "save the file with encoding UTF-8") from error


def read_csv(path: Path) -> CsvTable:
    """Header and rows of a comma-separated file; raises ConfigError when it cannot be read as such."""
    report = Report(str(path))
    source = StringIO(read_text(path, row="row"), newline="")
    try:
        cells = [[cell.strip() for cell in row] for row in csv.reader(source)]
    except csv.Error as error:
        raise report.error("file", f"is not CSV ({error})", "save it as comma-separated CSV") from error
    rows = [(number, row) for number, row in enumerate(cells, start=1) if any(row)]
    if not rows:
        raise report.error("row 1", "the file is empty", "begin with a header that names the columns")
    number, header = rows[0]
    if len(header) == 1 and ";" in header[0]:
        raise report.error(f"row {number}", "columns are separated by ';'", "separate them by ','")
    return CsvTable(header, rows[1:])


def parse_number(text: str) -> float | None:
    """The finite decimal number that a text is, else None (`1_000`, `12 kW`, `nan`, `inf`, `1e999`)."""
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a misspelt one most likely stands for."""
    by_lower = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """The nearest known word as a question, or another remedy when none is near."""
    near = nearest(word, known)
    return f"did you mean '{near}'?" if near else otherwise


def column_names(header: list[str], known: Collection[str], report: Report) -> list[str]:
    """Our names of a table's columns: one that is misspelt is reported and read as what it was meant to be."""
    names: list[str] = []
    for name in header:
        meant = name if name in known else nearest(name, set(known) - set(header) - set(names))
        if name not in known:
            right = f"did you mean '{meant}'?" if meant else "the columns are " + ", ".join(known)
            report.add(f"row 1, column {name}", f"unknown column '{name}'", right)
        elif name in names:
            report.add(f"row 1, column {name}", f"column '{name}' is there twice", "keep one of them")
        names.append(meant or name)
    return names
