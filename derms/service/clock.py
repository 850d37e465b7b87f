"""The clocks: the system's own, and one that follows an event loop's time."""

import asyncio
from datetime import UTC, datetime, timedelta


def utc_now() -> datetime:
    """What the system's wall clock shows, for commands that have no loop; nothing else asks it."""
    return datetime.now(UTC)


class SystemClock:
    """Real time, as the system and a loop tell it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def monotonic_s(self) -> float:
        return self._loop.time()

    def utc(self) -> datetime:
        return utc_now()


class LoopClock:
    """Wall clock derived from a loop's time: simulated or paced runs that start at a chosen moment."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start: datetime) -> None:
        self._loop = loop
        self._start = start
        self._start_s = loop.time()

    def monotonic_s(self) -> float:
        return self._loop.time()

    def utc(self) -> datetime:
        return self._start + timedelta(seconds=self._loop.time() - self._start_s)
