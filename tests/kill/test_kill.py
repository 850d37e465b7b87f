"""Ten rounds of killing the gateway and the brain of a real control room; `make kill ROUNDS=100` makes more."""

import asyncio
from pathlib import Path

import pytest

from tests.kill.run import kill

ROUNDS = 10


@pytest.mark.slow
def test_nothing_is_lost_twice_or_late_whoever_is_killed(tmp_path: Path) -> None:
    assert asyncio.run(kill(ROUNDS, 1, tmp_path)) == {"kills": ROUNDS, "lost": 0, "twice": 0, "late": 0}
