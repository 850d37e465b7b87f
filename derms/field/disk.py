"""The disk under the journal and the lease: what the system offers, and what a simulation puts in its place."""

import os
from typing import Protocol


class Disk(Protocol):
    """Writes at places of open files; every call raises OSError as the system does."""

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """Write all of it at an offset."""
        ...

    def truncate(self, fd: int, size: int) -> None: ...

    def sync(self, fd: int) -> None:
        """Make what was written to a file durable."""
        ...


class SystemDisk:
    """The real one."""

    def write(self, fd: int, data: bytes, offset: int) -> None:
        done = 0
        while done < len(data):  # the system may take less at a time, and says why not only the next time
            done += os.pwrite(fd, data[done:], offset + done)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        os.fdatasync(fd)


SYSTEM_DISK = SystemDisk()
