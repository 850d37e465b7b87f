"""A planted fault: a small replacement in one of our files, and the tests that have to notice it."""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Fault:
    """What is planted, where, and who has to catch it."""

    what: str
    """The mistake that it stands for."""
    file: str
    """Path from the root of the project."""
    old: str
    """Text that stands in the file exactly once."""
    new: str
    tests: tuple[str, ...]
    """Test files or `file::test`, the fastest that catch it."""

    def planted(self, source: str) -> str:
        """The text of the file with the fault in it."""
        return source.replace(self.old, self.new)


def mistakes(fault: Fault, root: Path) -> list[str]:
    """Everything by which a fault cannot be planted or looked for, as sentences; empty when it can."""
    place = root / fault.file
    if not place.is_file():
        return [f"there is no file {fault.file}"]
    source = place.read_text(encoding="utf8")
    found = [] if fault.tests else ["no test is named"]
    found += [wrong for test in fault.tests if (wrong := _missing(test, root))]
    if (count := source.count(fault.old)) != 1:
        return [*found, f"the old text stands {count} times in {fault.file}, not once"]
    try:
        changed = ast.dump(ast.parse(fault.planted(source))) != ast.dump(ast.parse(source))
    except SyntaxError as error:
        return [*found, f"the new text is no Python: {error}"]
    return found if changed else [*found, "the new text does what the old one did"]


def _missing(test: str, root: Path) -> str:
    """What is not there of a named test; empty for nothing."""
    file, _, name = test.partition("::")
    if not (root / file).is_file():
        return f"there is no file {file}"
    function = name.partition("[")[0]
    there = not name or f"def {function}(" in (root / file).read_text(encoding="utf8")
    return "" if there else f"{file} has no {name}"


def spread(faults: Sequence[Fault], count: int) -> list[Fault]:
    """So many of them, as far apart in their order as can be: always the same ones of the same table."""
    count = min(count, len(faults))
    return [faults[place * len(faults) // count] for place in range(count)]
