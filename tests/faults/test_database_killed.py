"""A process killed while it writes its records: what it was told is kept is there, and nothing is there by half."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from derms.domain.alarm import Event, Severity
from derms.domain.der import Fleet
from derms.historian.store import Store

ROOT = Path(__file__).parents[2]
AT = datetime(2026, 4, 15, 7, 0, tzinfo=UTC)
BATCH = 400
WRITER = """
import itertools, sys
from tests.faults.test_database_killed import Store, Fleet, batch
store = Store(sys.argv[1], Fleet(()))
for number in itertools.count(int(sys.argv[2])):
    for event in batch(number):
        store.event(event)
    store.flush()
    print(number, flush=True)
"""
"""Writes batch after batch, and says of each that it is kept."""


def batch(number: int) -> list[Event]:
    """Events that belong together."""
    return [Event(AT, Severity.INFO, str(number), str(place), "") for place in range(BATCH)]


def _killed_while_it_writes(url: str, first: int, until: int) -> int:
    """Kill a writer as soon as it has said this much; the last batch that it said it has kept."""
    command = [sys.executable, "-c", WRITER, url, str(first)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) >= until:
                break
        writer.kill()
        said = [until, *(int(line) for line in writer.stdout.read().split())]
    return said[-1]


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_writes_leaves_whole_batches_and_all_that_it_was_told_are_kept(
    tmp_path: Path,
) -> None:
    path = tmp_path / "historian.sqlite"
    url, kept = f"sqlite:///{path}", -1
    for _ in range(4):
        kept = _killed_while_it_writes(url, kept + 1, kept + 4)
        with closing(sqlite3.connect(path)) as raw:
            assert raw.execute("pragma integrity_check").fetchall() == [("ok",)]
            counts = dict(raw.execute("select source, count(*) from events group by source").fetchall())
        assert set(counts.values()) == {BATCH}
        there = sorted(int(number) for number in counts)
        assert there == list(range(len(there)))
        assert kept <= there[-1] <= kept + 1  # one may have been kept, and not yet been said to be
        kept = there[-1]
    store = Store(url, Fleet(()))
    assert len(store.events(AT, AT + timedelta(seconds=1))) == BATCH * (kept + 1)
    store.close()
