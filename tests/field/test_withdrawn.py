"""Whom stops have shut out is kept for a restart, to the last device of a turn."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from derms.domain.alarm import Event
from derms.domain.der import Fleet
from derms.domain.dispatch import Ceasing
from derms.field.withdrawn import Withdrawn
from tests.field.scripted import device


class Still:
    """A clock that stands still."""

    def monotonic_s(self) -> float:
        return 100.0

    def utc(self) -> datetime:
        return datetime(2026, 4, 15, 19, 0, tzinfo=UTC)


def test_a_change_is_kept_though_the_next_mark_of_the_same_turn_changes_nothing(tmp_path: Path) -> None:
    fleet, events = Fleet((device("pv0"), device("pv1"))), list[Event]()
    path = tmp_path / "withdrawn"

    async def story() -> None:
        kept = Withdrawn(fleet, Still(), events.append, path)
        kept.mark(0, Ceasing.OPERATION, withdrawn=True)
        kept.mark(1, Ceasing.OPERATION, withdrawn=False)
        kept.keep()

    asyncio.run(story())  # it waits for what is being saved
    again = Withdrawn(fleet, Still(), events.append, path)
    assert again.remembers
    assert again.rows.tolist() == [True, False]
    assert events == []
