"""Watches what the process runs on, once a minute: its memory, the two clocks, the room on the disk.

Each is an event when it goes wrong, and one when it is right again. Memory is each process's own; clocks and disk are
the same for all of a site, and the gateway's business.
"""

import asyncio
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from derms.domain.alarm import Event, Severity
from derms.ports import Clock
from derms.service.cadence import Job, every
from derms.service.surroundings import Surroundings

LOOK_EVERY_S = 60.0
SCARCE_FRAC, SCARCE_BYTES = 0.2, 10_000_000_000
"""Room under which it is scarce, whichever is less: four fifths of a small disk are taken, or a large one has less left
than what journal (0.6 GB at most) and database take in the days until somebody comes."""
ENOUGH_RATIO = 1.1
"""Of that, from which there is enough again."""
STEP_S = 2.0
"""Change between two looks of how far the clocks are apart; their rates alone make it less than 0.03 s."""
SETTLED_S = 3600.0
"""After the start, when caches are full: what is held then is what a process needs."""
GROWN_RATIO, GROWN_BYTES = 2.0, 500_000_000
"""Growth beyond that is an alarm, when it is both."""

Room = Callable[[], tuple[int, int]]
"""Free and all bytes of a disk."""


def room_of(folder: Path) -> tuple[int, int]:
    """Room on the disk of a folder."""
    usage = shutil.disk_usage(folder)
    return usage.free, usage.total


def resident_bytes() -> int:
    """Memory that this process has now."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Watching:
    """Looks, compares, tells; see the module's text."""

    source: str
    """Which process it is: `gateway`, `brain`."""
    clock: Clock
    on_event: Callable[[Event], None]
    room: Room | None = None
    """None leaves disk and clocks to another process."""
    memory_bytes: Callable[[], int] = resident_bytes
    _started_s: float = -1.0
    _apart_s: float | None = None
    """Wall clock less monotonic clock."""
    _usual_bytes: int = 0
    _grown: bool = False
    _scarce: bool = False

    async def look(self) -> None:
        """Job: look at everything; the disk comes last, for it may hang."""
        self._look_at_memory()
        if self.room is not None:
            self._look_at_clocks()
            self._look_at_room(*await asyncio.get_running_loop().run_in_executor(None, self.room))

    def _look_at_memory(self) -> None:
        now_s, held = self.clock.monotonic_s(), self.memory_bytes()
        if self._started_s < 0.0:
            self._started_s = now_s
        if now_s - self._started_s < SETTLED_S:
            return
        if not self._usual_bytes:
            self._usual_bytes = held
        grown = held > max(GROWN_RATIO * self._usual_bytes, self._usual_bytes + GROWN_BYTES)
        if grown is not self._grown:
            self._grown = grown
            text = f"the process holds {held / 1e6:.0f} MB of memory; it was {self._usual_bytes / 1e6:.0f} MB at first"
            self._tell("memory-grown" if grown else "memory-back", text, is_wrong=grown)

    def _look_at_clocks(self) -> None:
        apart_s, before_s = self.clock.utc().timestamp() - self.clock.monotonic_s(), self._apart_s
        self._apart_s = apart_s
        if before_s is not None and abs(apart_s - before_s) > STEP_S:
            text = f"the wall clock was set by {apart_s - before_s:+.1f} s: times of records and of plans jump by that"
            self._tell("clock-stepped", text, is_wrong=True)

    def _look_at_room(self, free: int, whole: int) -> None:
        least = min(SCARCE_FRAC * whole, SCARCE_BYTES)
        scarce = free < least * (ENOUGH_RATIO if self._scarce else 1.0)
        if scarce is not self._scarce:
            self._scarce = scarce
            text = f"{free / 1e9:.2f} GB of {whole / 1e9:.1f} GB are free on the disk of the storage folder"
            if scarce:
                text += "; when it is full, nothing new is commanded"
            self._tell("disk-low" if scarce else "disk-enough", text, is_wrong=scarce)

    def _tell(self, kind: str, text: str, *, is_wrong: bool) -> None:
        severity = Severity.ALARM if is_wrong else Severity.INFO
        self.on_event(Event(self.clock.utc(), severity, self.source, kind, text))


def watching(
    source: str, around: Surroundings, on_event: Callable[[Event], None], storage: Path | None = None
) -> tuple[Job, ...]:
    """The job of a process's cadence table, none where the surroundings are not watched; `storage` is the gateway's."""
    if not around.watched:
        return ()
    room = None if storage is None else lambda: room_of(storage)
    first = around.clock.utc() + timedelta(seconds=LOOK_EVERY_S)
    return (Job("watch", every(LOOK_EVERY_S, first=first), Watching(source, around.clock, on_event, room).look),)
