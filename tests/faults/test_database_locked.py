"""Somebody else keeps the database locked: what is to be recorded waits, and is there once when the lock is gone."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from derms.domain.alarm import Event, Severity
from derms.domain.der import Fleet
from derms.errors import HistorianError
from derms.historian import store as historian_store
from derms.historian.store import Store

AT = datetime(2026, 4, 15, 7, 0, tzinfo=UTC)
QUICKLY = ("journal_mode = WAL", "busy_timeout = 20")
"""As the product has it, but for how long it waits for a lock."""


def _set_up_quickly(connection: sqlite3.Connection, record: object) -> None:
    for pragma in QUICKLY:
        connection.execute(f"PRAGMA {pragma}")


def test_what_a_lock_keeps_out_waits_and_is_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(historian_store, "_set_up_sqlite", _set_up_quickly)
    path = tmp_path / "historian.sqlite"
    store = Store(f"sqlite:///{path}", Fleet(()))
    told = [Event(AT, Severity.INFO, "gateway", str(number), "") for number in range(3)]
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        for event in told:
            store.event(event)
            with pytest.raises(HistorianError, match="database is locked"):
                store.flush()
        assert store.events(AT, AT + timedelta(seconds=1)) == []
        other.execute("rollback")
    store.flush()
    store.flush()
    assert store.events(AT, AT + timedelta(seconds=1)) == told
    store.close()
