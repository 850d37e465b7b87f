"""A disk that forgets: real files, of which only what was synced is sure to be there after a crash.

After a failed sync the system may have dropped what was to be written, and the next sync says nothing of it.
"""

import errno
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from derms.field.disk import SYSTEM_DISK
from tests.sim.loop import Life


class DiskFault(StrEnum):
    """Ways in which a disk fails."""

    FULL = "disk-full"
    """Writes end after some bytes."""
    SHORT = "disk-short-write"
    """Now and then."""
    NO_WRITE = "disk-eio-write"
    NO_SYNC = "disk-eio-sync"


@dataclass
class _File:
    """One file: what is durable of it, and what was done to it since."""

    name: str
    durable: bytearray
    since: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Writes by offset; None for a truncation there."""

    def settle(self) -> None:
        for offset, data in self.since:
            _apply(self.durable, offset, data)
        self.since.clear()


def _apply(image: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del image[offset:]
        return
    if len(image) < offset:
        image.extend(bytes(offset - len(image)))
    image[offset : offset + len(data)] = data


@dataclass
class SimDisk:
    """The disk of one machine; see derms.field.disk. Lives are told apart by whose calls they are."""

    chance: random.Random
    fault: DiskFault | None = None
    on_durable: Callable[[str, bytearray], None] = lambda name, content: None
    """Told of a file that has become durable: its name and all of it."""
    failed: Counter[str] = field(default_factory=Counter)
    _files: dict[tuple[int, int], _File] = field(default_factory=dict)

    def of(self, life: Life) -> "LifeDisk":
        """As one life sees it."""
        return LifeDisk(self, life)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        file = self._file(fd)
        kept = len(data)
        if self.fault is DiskFault.NO_WRITE:
            raise self._failure(errno.EIO)
        failing = self.fault is DiskFault.FULL or (self.fault is DiskFault.SHORT and self.chance.random() < 0.5)
        if failing:
            kept = self.chance.randrange(len(data) + 1)
        file.since.append((offset, data[:kept]))
        SYSTEM_DISK.write(fd, data[:kept], offset)
        if failing:
            raise self._failure(errno.ENOSPC)

    def truncate(self, fd: int, size: int) -> None:
        self._file(fd).since.append((size, None))
        SYSTEM_DISK.truncate(fd, size)

    def sync(self, fd: int) -> None:
        file = self._file(fd)
        if self.fault is DiskFault.NO_SYNC:
            if self.chance.random() < 0.5:
                file.since.clear()
            raise self._failure(errno.EIO)
        file.settle()
        self.on_durable(file.name, file.durable)

    def after_crash(self, folder: Path, fresh: Path) -> None:
        """Make a folder of what a crash leaves of another one."""
        fresh.mkdir(parents=True)
        for path in sorted(folder.iterdir()):
            file = self._files.pop(_key(path.stat()), None)
            if file is None:
                shutil.copyfile(path, fresh / path.name)
            else:
                (fresh / path.name).write_bytes(self._torn(file))

    def _torn(self, file: _File) -> bytes:
        """What is durable, and a random part of what was not synced, in any order, the last of it torn."""
        image = bytearray(file.durable)
        whole = self.chance.randrange(len(file.since) + 1)
        for number, (offset, data) in enumerate(file.since):
            if number < whole or self.chance.random() < 0.3:
                torn = data if data is None or number < whole else data[: self.chance.randrange(len(data) + 1)]
                _apply(image, offset, torn)
        return bytes(image)

    def _file(self, fd: int) -> _File:
        key = _key(os.fstat(fd))
        if key not in self._files:
            path = Path(f"/proc/self/fd/{fd}")
            content = b"" if path.is_dir() else path.read_bytes()  # names are durable at once
            self._files[key] = _File(path.readlink().name, bytearray(content))
        return self._files[key]

    def _failure(self, number: int) -> OSError:
        assert self.fault is not None
        self.failed[self.fault.value] += 1
        return OSError(number, os.strerror(number))


@dataclass(frozen=True)
class LifeDisk:
    """The disk as one life sees it: what a dead one does there has no effect."""

    disk: SimDisk
    life: Life

    def write(self, fd: int, data: bytes, offset: int) -> None:
        self.life.point("write")
        if self.life.alive:
            self.disk.write(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        if self.life.alive:
            self.disk.truncate(fd, size)

    def sync(self, fd: int) -> None:
        self.life.point("sync")
        if self.life.alive:
            self.disk.sync(fd)


def _key(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
