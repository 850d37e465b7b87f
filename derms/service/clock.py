"""The clocks: the system's own, and one that follows an event loop's time."""

import asyncio
from datetime import UTC, datetime, timedelta


class SystemClock:
    """Real time; the only place that asks the system for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def monotonic_s(self) -> float:
        return self._loop.time()

    def utc(self) -> datetime:
        return datetime.now(UTC)


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
