"""The table of planted faults: each can be planted as the code stands now, and its tests are there."""

from itertools import pairwise
from pathlib import Path

import pytest

from tests.mutants.fault import Fault, mistakes, spread
from tests.mutants.table import FAULTS

ROOT = Path(__file__).parents[2]
LEAST = 45


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_planted_fault_can_be_planted_and_looked_for(fault: Fault) -> None:
    assert mistakes(fault, ROOT) == [], f"{fault.file}: its line in tests/mutants/ has to follow the code"


def test_there_are_enough_and_no_two_are_the_same() -> None:
    assert len({(fault.file, fault.old, fault.new) for fault in FAULTS}) == len(FAULTS) >= LEAST
    assert len({fault.what for fault in FAULTS}) == len(FAULTS)


def test_a_sample_is_spread_over_the_table_and_always_the_same() -> None:
    assert spread(FAULTS, len(FAULTS) + 1) == list(FAULTS)
    sample = spread(FAULTS, 10)
    places = [FAULTS.index(fault) for fault in sample]
    assert len(places) == 10
    assert max(after - before for before, after in pairwise(places)) <= len(FAULTS) // 10 + 1


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ("x = 2", "x = 3", "stands 0 times"),
        ("1", "2", "stands 2 times"),
        ("y = 1", "y = ", "is no Python"),
        ("y = 1", "y = 1  # as before", "does what the old one did"),
        ("y = 1", "y = 2", ""),
    ],
)
def test_a_fault_that_cannot_be_planted_is_told(tmp_path: Path, old: str, new: str, wrong: str) -> None:
    (tmp_path / "code.py").write_text("x = 1\ny = 1\n")
    (tmp_path / "test_code.py").write_text("def test_x() -> None: ...\n")
    told = mistakes(Fault("a fault", "code.py", old, new, ("test_code.py::test_x",)), tmp_path)
    assert (len(told) == 1 and wrong in told[0]) if wrong else told == []


def test_tests_that_are_not_there_are_told(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("y = 1\n")
    (tmp_path / "test_code.py").write_text("def test_x() -> None: ...\n")
    told = mistakes(Fault("a fault", "code.py", "1", "2", ("test_code.py::test_y", "test_gone.py")), tmp_path)
    assert told == ["test_code.py has no test_y", "there is no file test_gone.py"]
