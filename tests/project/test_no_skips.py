"""`--no-skips`: what is skipped fails, what is expected to fail does not."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SKIPPED_TEST = """
import pytest
def test_fine(): assert 1 + 1 == 2
@pytest.mark.skip(reason="no time")
def test_left_out(): assert False
@pytest.mark.xfail(reason="known", strict=True)
def test_known(): assert False
"""
SKIPPED_MODULE = """
import pytest
pytest.importorskip("a_package_that_is_not_there")
"""


def _pytest(folder: Path, *options: str, ci: str = "") -> tuple[int, str]:
    """Run pytest on a folder with the project's own conftest; returns exit status and output."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, "-c", os.devnull, "--rootdir", str(folder), *options, str(folder)],
        cwd=ROOT,
        env={**os.environ, "CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return run.returncode, run.stdout + run.stderr


def test_a_skipped_test_fails_where_no_skips_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "test_case.py").write_text(SKIPPED_TEST)
    status, said = _pytest(tmp_path, "--no-skips")
    assert status == 1
    assert "no test may be skipped here (Skipped: no time)" in said
    assert "1 passed, 1 xfailed, 1 error" in said


def test_a_skipped_module_fails_under_ci_and_a_developer_may_skip(tmp_path: Path) -> None:
    (tmp_path / "test_case.py").write_text(SKIPPED_MODULE)
    status, said = _pytest(tmp_path, ci="true")
    assert status == 2
    assert "no test may be skipped here" in said
    status, said = _pytest(tmp_path)
    assert status == 5
    assert "1 skipped" in said
