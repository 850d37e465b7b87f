"""Who is being spoken to for stops: many devices at once, each once at a time, and none for too long."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from derms.domain.arrays import BoolArray
from derms.field.ending import end
from derms.field.reconcile import Reconciler
from derms.ports import DeviceDriver

AT_ONCE, AWAY_AT_ONCE = 2000, 256
"""Devices that are spoken to at the same time: all together, and those of them that are not connected."""
LONGEST_S = 30.0
"""For one device: then its connection is dropped, and its driver left to itself."""


@dataclass(slots=True)
class StopCalls:
    """Starts and bounds what is done at devices; see the module's text."""

    reconciler: Reconciler
    on_failed: Callable[[int, str], None]
    """Told of a device at which something went wrong that nobody expected, and why."""
    on_ended: Callable[[], None]
    _busy: dict[int, tuple[asyncio.Task[None], float, bool]] = field(default_factory=dict)
    """Who is spoken to, until when at most, and whether it was away when that began."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def busy(self) -> bool:
        return bool(self._busy)

    def start(self, rows: BoolArray, act: Callable[[int], Coroutine[Any, Any, None]], now_s: float) -> list[int]:
        """Speak to some devices, shape (n,), those first that are connected; the rows that found a place."""
        due = [row for row in np.flatnonzero(rows).tolist() if row not in self._busy]
        here = [row for row in due if self.driver(row).connected][: max(0, AT_ONCE - len(self._busy))]
        places = AWAY_AT_ONCE - sum(away for _, _, away in self._busy.values()) if due else 0
        away = [row for row in due if not self.driver(row).connected][: max(0, places)]
        for row in (*here, *away):
            task = asyncio.create_task(act(row), name=f"stop {row}")
            self._busy[row] = task, now_s + LONGEST_S, row in away
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, row))
        return [*here, *away]

    def _ended(self, row: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if row in self._busy and self._busy[row][0] is task:
            del self._busy[row]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.on_failed(row, f"its driver failed unexpectedly with {type(error).__name__}: {error}")
        self.on_ended()

    def break_off(self, now_s: float) -> None:
        """Let go of devices that take too long."""
        for row, (task, until_s, _) in list(self._busy.items()):
            if now_s >= until_s:
                del self._busy[row]
                task.cancel()
                self.driver(row).disconnect()
                self.on_failed(row, f"took more than {LONGEST_S:.0f} s")

    async def close(self) -> None:
        """Break off whatever is under way."""
        await end(self._tasks)

    def driver(self, row: int) -> DeviceDriver:
        return self.reconciler.drivers[self.reconciler.fleet.devices[row].id]
