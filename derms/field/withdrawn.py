"""Whose service was withdrawn by stops: remembered over a restart, so that what was shut out is let in again one day.

Kept in a file that is written anew and put in the place of the old one. It holds nothing up: a disk that fails or hangs
is told of, and tried again; what is remembered in memory counts meanwhile.
"""

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from derms.domain.alarm import Event, Severity
from derms.domain.arrays import BoolArray
from derms.domain.der import Fleet
from derms.domain.dispatch import Ceasing
from derms.field.disk import SYSTEM_DISK, Disk
from derms.ports import Clock

WAYS = tuple(Ceasing)
"""Columns."""


@dataclass(slots=True)
class Withdrawn:
    """Service that stops have withdrawn; see the module's text."""

    fleet: Fleet
    clock: Clock
    on_event: Callable[[Event], None]
    path: Path | None = None
    """None keeps nothing."""
    disk: Disk = SYSTEM_DISK
    by: BoolArray = field(init=False)
    """Whether it is withdrawn from each device in each way, shape (n, len(WAYS))."""
    remembers: bool = False
    """It knows of the time before the start."""
    _changed: bool = False
    _saving: asyncio.Future[None] | None = None
    _fails: bool = False

    def __post_init__(self) -> None:
        self.by = np.zeros((len(self.fleet), len(WAYS)), dtype=np.bool_)
        if self.path is not None and self.path.exists():
            self._load(self.path)

    def _load(self, path: Path) -> None:
        try:
            found = json.loads(path.read_text(encoding="utf8"))
            for device, ways in found.items():
                for way in ways:
                    if device in self.fleet.index:
                        self.by[self.fleet.index[device], WAYS.index(Ceasing(way))] = True
        except (OSError, ValueError, AttributeError, TypeError) as error:
            self._tell("withdrawn-lost", f"nobody knows whom stops have shut out before the start: {path}: {error}")
        else:
            self.remembers = True

    @property
    def rows(self) -> BoolArray:
        """Devices from which it is withdrawn in any way, shape (n,)."""
        return np.asarray(self.by.any(axis=1), dtype=np.bool_)

    def ways(self, row: int) -> list[Ceasing]:
        """Ways in which it is withdrawn from a device."""
        return [way for way, withdrawn in zip(WAYS, self.by[row].tolist(), strict=True) if withdrawn]

    def mark(self, row: int, way: Ceasing, *, withdrawn: bool) -> None:
        """Remember that service was withdrawn from a device, or given back."""
        column = WAYS.index(way)
        self._changed |= bool(self.by[row, column]) is not withdrawn
        self.by[row, column] = withdrawn

    def keep(self) -> None:
        """Begin to save what has changed, unless that is under way."""
        if self.path is None or not self._changed or self._saving is not None:
            return
        self._changed = False
        devices = self.fleet.devices
        kept = {devices[row].id: [way.value for way in self.ways(row)] for row in np.flatnonzero(self.rows).tolist()}
        loop = asyncio.get_running_loop()
        self._saving = loop.run_in_executor(None, self._save, self.path, json.dumps(kept).encode())
        self._saving.add_done_callback(self._saved)

    def _save(self, path: Path, data: bytes) -> None:
        new = path.with_name(f"{path.name}.new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            self.disk.truncate(fd, 0)
            self.disk.write(fd, data, 0)
            self.disk.sync(fd)
        finally:
            os.close(fd)
        new.replace(path)

    def _saved(self, saving: asyncio.Future[None]) -> None:
        self._saving = None
        error = None if saving.cancelled() else saving.exception()
        if error is None:
            self._fails = False
            return
        self._changed = True
        if not self._fails:
            self._fails = True
            self._tell("withdrawn-not-kept", f"whom stops have shut out is not kept for a restart: {error}")

    def _tell(self, kind: str, text: str) -> None:
        self.on_event(Event(self.clock.utc(), Severity.ALARM, "gateway", kind, text))
