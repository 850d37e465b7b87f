"""Every seed that has ever found something, run again: what was mended stays so."""

from pathlib import Path

import pytest

from tests.sim.run import LEAN, WIRE, run_seed

pytestmark = pytest.mark.slow

LINES = (Path(__file__).parent / "seeds.txt").read_text(encoding="utf8").splitlines()
ARCHIVE = [line.split(maxsplit=4) for line in LINES if line and not line.startswith("#")]
MENDED = [(int(seed), tier, float(hours)) for seed, tier, hours, state, _ in ARCHIVE if state == "mended"]


def test_each_line_says_what_was_found_and_how_it_stands() -> None:
    assert ARCHIVE
    assert {state for _, _, _, state, _ in ARCHIVE} <= {"mended", "open"}
    assert {tier for _, tier, _, _, _ in ARCHIVE} <= {"wire", "lean"}


@pytest.mark.parametrize(("seed", "tier", "hours"), MENDED)
def test_what_a_seed_has_found_is_mended(seed: int, tier: str, hours: float) -> None:
    found = run_seed(seed, hours=hours, tier=LEAN if tier == "lean" else WIRE)
    assert [str(violation) for violation in found.violations] == []
