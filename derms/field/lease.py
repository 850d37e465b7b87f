"""The lease on a site's devices: who has it may write, and each holder has a greater token than the one before.

Here it is a lock on a file that holds the last token. It ends with the process, or when somebody puts another file in
its place: both are asked about directly before each write.
"""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from derms.domain.refusal import Reason
from derms.errors import LeaseError
from derms.field.disk import SYSTEM_DISK, Disk

DIGITS = 20


@dataclass(slots=True)
class Lease:
    """A lease that is held; see the module's text."""

    token: int
    _path: Path
    _fd: int

    @classmethod
    def take(cls, path: Path, *, disk: Disk = SYSTEM_DISK) -> "Lease":
        """Take the lease with the next token; raises LeaseError while another process has it."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise LeaseError(f"{path}: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            token = _token(os.pread(fd, DIGITS, 0), path) + 1
            disk.write(fd, b"%0*d\n" % (DIGITS, token), 0)
            disk.sync(fd)
        except BlockingIOError as error:
            os.close(fd)
            raise LeaseError(f"{path}: in use by another process, which has the site's devices") from error
        except OSError as error:
            os.close(fd)
            raise LeaseError(f"{path}: {error.strerror}") from error
        except LeaseError:
            os.close(fd)
            raise
        return cls(token, path, fd)

    def refusal(self, token: int, deadline_s: float, now_s: float) -> Reason | None:
        """Why what was intended under a token may not be sent any more; None when it may."""
        if token != self.token:
            return Reason("token", f"made under token {token}, and the lease is at {self.token}")
        if not now_s < deadline_s:
            return Reason("deadline", f"its deadline passed {now_s - deadline_s:.1f} s ago")
        if not self.held:
            return Reason("lease", "the lease is lost: another gateway may have the devices")
        return None

    @property
    def held(self) -> bool:
        """Whether the file that is locked still is the one that everybody looks at."""
        if self._fd < 0:
            return False
        try:
            there = os.stat(self._path)
        except OSError:
            return False
        ours = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def give_back(self) -> None:
        """Let another process have it; nothing may be sent any more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _token(data: bytes, path: Path) -> int:
    text = data.decode("ascii", "replace").strip()
    if not text:
        return 0
    if not text.isdigit():
        raise LeaseError(f"{path}: holds '{text}', and should hold a token: a number of {DIGITS} digits")
    return int(text)
