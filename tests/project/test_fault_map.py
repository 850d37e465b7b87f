"""docs/faults.md: every fault of the catalogue stands there once, and what it says of itself is so."""

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.faults.page import NOT_YET, REASON, TEST, WAITS, Fault, faults, not_yet, waiting

ROOT = Path(__file__).parents[2]
NUMBERS = range(1, 57)
WORDS = ("accounts", "PostgreSQL", "screens", "second gateway")
"""What later issues bring."""
ABSENT: tuple[int, ...] = ()
"""Faults of which a part is not handled yet, once for each part; one that is becomes a test's name on the page."""
INVARIANTS = {f"I-{number}" for number in range(1, 26)}


@cache
def _tests(path: str) -> frozenset[str]:
    """Names of the tests of a file that are not skipped and not expected to fail."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf8"))
    marks = [ast.unparse(node.value) for node in tree.body if isinstance(node, ast.Assign) and _sets_marks(node)]
    if any(_is_left_out(mark) for mark in marks):
        return frozenset()
    return frozenset(
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and not any(_is_left_out(ast.unparse(mark)) for mark in node.decorator_list)
    )


def _sets_marks(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets)


def _is_left_out(mark: str) -> bool:
    return "mark.skip" in mark or "mark.xfail" in mark


def _is_sentence(text: str) -> bool:
    return text.endswith(".") and len(text.split()) >= 4


def test_each_fault_stands_on_the_page_once_and_in_order() -> None:
    assert [fault.number for fault in faults()] == list(NUMBERS)


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: str(fault.number))
def test_what_a_row_says_is_so(fault: Fault) -> None:
    assert fault.fault.endswith(".")
    assert fault.does.endswith(".")
    assert fault.shown
    for name in fault.texts(TEST):
        path, _, function = name.partition("::")
        assert function in _tests(path), name
    assert set(fault.texts(WAITS)) <= set(WORDS)
    assert all(_is_sentence(text) for text in (*fault.texts(REASON), *fault.texts(NOT_YET)))


def test_the_table_of_what_waits_is_what_the_rows_say() -> None:
    rows = waiting()
    assert tuple(row.what for row in rows) == WORDS
    for row in rows:
        assert row.faults == tuple(fault.number for fault in faults() if row.what in fault.texts(WAITS))
        assert set(row.invariants) <= INVARIANTS
        assert _is_sentence(row.missing)


def test_what_is_not_there_yet_is_known_and_said() -> None:
    for text in not_yet():
        print("not yet", text)
    assert tuple(int(text.partition(":")[0]) for text in not_yet()) == ABSENT
