"""The runner of planted faults: what it calls caught, that faults are taken out again, and that copies are imported."""

from pathlib import Path

import pytest

from tests.mutants.fault import Fault
from tests.mutants.run import Copies, Verdict, by_file, copied, run_tests, strangers

CODE = "def doubled(x: int) -> int:\n    return 2 * x\n"
TESTS = "from code_here import doubled\n\n\ndef test_doubled() -> None:\n    assert doubled(3) == 6\n"


def _fault(new: str, *tests: str) -> Fault:
    return Fault("a fault", "code_here.py", "return 2 * x", new, tests or ("test_code_here.py",))


@pytest.fixture(name="copy")
def made_copy(tmp_path: Path) -> Path:
    (tmp_path / "code_here.py").write_text(CODE)
    (tmp_path / "test_code_here.py").write_text(TESTS)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("new", "verdict", "by"),
    [
        ("return 3 * x", Verdict.CAUGHT, "test_code_here.py::test_doubled"),
        ("return x + x", Verdict.SURVIVED, ""),
        ("return 2 * x\n\n\nraise SystemExit", Verdict.BROKEN, ""),
    ],
)
def test_caught_is_what_a_test_fails_for(copy: Path, new: str, verdict: Verdict, by: str) -> None:
    copies = Copies()
    copies.free.put(copy)
    finding = copies.mutated(_fault(new))
    assert (finding.verdict, finding.by) == (verdict, by)
    assert (copy / "code_here.py").read_text() == CODE
    assert copies.unmutated(("test_code_here.py",)).status == 0


@pytest.mark.slow
def test_a_run_that_takes_too_long_is_ended(copy: Path) -> None:
    (copy / "code_here.py").write_text(CODE.replace("return", "while True: pass\n    return"))
    assert run_tests(copy, ("test_code_here.py",), limit_s=3.0).status is None


def test_tests_of_one_file_run_together_before_anything_is_planted() -> None:
    faults = [_fault("a", "x.py::test_a"), _fault("b", "x.py::test_b", "y.py"), _fault("c", "y.py::test_c")]
    assert by_file(faults) == [("x.py::test_a", "x.py::test_b"), ("y.py",)]


def test_a_copy_from_which_nothing_is_imported_is_told(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copied(Path(__file__).parents[2], copy)
    assert strangers(copy) == []
    (copy / "derms" / "__init__.py").unlink()
    assert strangers(copy)
