"""The file of what people have ordered: tags, locks, modes, stops, manual values. It is never silently empty.

It is written anew beside the old one, made durable, then put in its place; a check sum tells damage. The one before is
kept, for when the latest cannot be read. A restart finds the right time left of each: while the machine has not been
started again its monotonic clock goes on, and says how long nobody ran; after that the wall clock does.
"""

import os
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from derms.control.authority import Claim, Locks
from derms.control.latch import Latch
from derms.control.modes import Area, ControlMode
from derms.control.permissives import Substitute
from derms.domain.desk import DeskOrder
from derms.domain.packing import Packer
from derms.domain.tags import Board
from derms.errors import RecordError
from derms.field.disk import SYSTEM_DISK, Disk
from derms.ports import Clock

NEW, BEFORE = ".new", ".before"


@dataclass(frozen=True)
class Kept:
    """All that outlives the process; times in s on the monotonic clock."""

    board: Board = field(default_factory=Board)
    locks: Locks = field(default_factory=Locks)
    areas: tuple[Area, ...] = ()
    start: ControlMode = ControlMode.AUTO
    """Mode of a feeder of which nothing is said, as far as the site file allows it."""
    latches: tuple[Latch, ...] = ()
    last_latch: int = 0
    """Number of the latest stop, whether it still holds or not."""
    claims: tuple[Claim, ...] = ()
    substitutes: tuple[Substitute, ...] = ()
    desk: DeskOrder | None = None
    """What the dispatcher asked for last, whether it has ended or not."""
    seq: int = 0
    """Number of the latest command by hand."""

    def later(self, by_s: float) -> "Kept":
        """The same on a clock that shows so much more; it is the same clock where that is nothing."""
        if not by_s:
            return self
        claims = (
            replace(
                claim,
                until_s=claim.until_s + by_s,
                ticket=replace(claim.ticket, deadline_s=claim.ticket.deadline_s + by_s),
            )
            for claim in self.claims
        )
        return replace(
            self,
            locks=Locks(tuple(replace(lock, until_s=lock.until_s + by_s) for lock in self.locks.held)),
            areas=tuple(replace(area, since_s=area.since_s + by_s) for area in self.areas),
            latches=tuple(_latch_later(latch, by_s) for latch in self.latches),
            claims=tuple(claims),
            substitutes=tuple(replace(it, until_s=it.until_s + by_s) for it in self.substitutes),
            desk=None if self.desk is None else replace(self.desk, until_s=self.desk.until_s + by_s),
        )


def _latch_later(latch: Latch, by_s: float) -> Latch:
    first = None if latch.first is None else replace(latch.first, at_s=latch.first.at_s + by_s)
    return replace(latch, at_s=latch.at_s + by_s, first=first)


@dataclass(frozen=True)
class Saved:
    """What stands in the file: what is kept, and the time of day of a moment on the clock of its times."""

    kept: Kept
    devices: tuple[str, ...]
    """Ids by row when it was saved: rows of claims and substitutes are theirs."""
    utc: datetime
    monotonic_s: float
    boot: str = ""
    """Names what the monotonic clock is comparable within; empty where nobody knows."""

    def moved_s(self, clock: Clock, boot: str) -> float:
        """By how much more the clock of now shows for a moment than the one of its times.

        Inside a boot it is the same clock; one that shows less than it did is another, whatever its boot is called.
        """
        now_s = clock.monotonic_s()
        if boot and boot == self.boot and now_s >= self.monotonic_s:
            return 0.0
        return now_s - self.monotonic_s - (clock.utc() - self.utc).total_seconds()

    def on(self, devices: tuple[str, ...]) -> Kept:
        """What is kept, for devices in another order; what is about one that is not there any more is dropped."""
        if devices == self.devices:
            return self.kept
        row = {device: number for number, device in enumerate(devices)}
        now = np.array([row.get(device, -1) for device in self.devices], dtype=np.intp)
        claims = (claim.among(now >= 0) for claim in self.kept.claims)
        return replace(
            self.kept,
            claims=tuple(replace(claim, rows=now[claim.rows]) for claim in claims),
            substitutes=tuple(replace(it, row=int(now[it.row])) for it in self.kept.substitutes if now[it.row] >= 0),
        )


_PACKER = Packer(
    {
        "derms.control.authority": ("Claim", "Lock", "Locks", "Rank", "Ticket"),
        "derms.control.latch": ("Approval", "Latch"),
        "derms.control.modes": ("Area", "ControlMode"),
        "derms.control.permissives": ("Substitute",),
        "derms.control.stopping": ("How",),
        "derms.domain.desk": ("DeskOrder",),
        "derms.domain.dispatch": ("Quantity",),
        "derms.domain.scope": ("Level", "Scope"),
        "derms.domain.tags": ("Board", "Tag", "TagKind"),
        "derms.field.orders_file": ("Kept", "Saved"),
    }
)


@dataclass(frozen=True, slots=True)
class OrdersFile:
    """The file at a path."""

    path: Path
    clock: Clock
    disk: Disk = SYSTEM_DISK
    boot: str = ""
    """Of now, as in `Saved`."""

    @property
    def there(self) -> bool:
        """Whether anything was ever saved."""
        return self.path.exists() or self._beside(BEFORE).exists()

    def save(self, kept: Kept, devices: tuple[str, ...]) -> None:
        """Make it durable; raises OSError, and then the file is as it was."""
        data = _PACKER.pack(Saved(kept, devices, self.clock.utc(), self.clock.monotonic_s(), self.boot))
        new = self._beside(NEW)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            self.disk.truncate(fd, 0)
            self.disk.write(fd, data, 0)
            self.disk.sync(fd)
        finally:
            os.close(fd)
        if self.path.exists():
            before = self._beside(BEFORE)
            before.unlink(missing_ok=True)
            os.link(self.path, before)
        os.replace(new, self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.disk.sync(folder)
        finally:
            os.close(folder)

    def load(self, devices: tuple[str, ...], *, before: bool = False) -> Kept:
        """What was saved last, or `before` that, on the clock of now and for devices in this order.

        Raises OSError or RecordError when that cannot be known.
        """
        path = self._beside(BEFORE) if before else self.path
        saved = _PACKER.unpack(path.read_bytes())
        if not isinstance(saved, Saved):
            raise RecordError(f"{path}: holds something else")
        return saved.on(devices).later(saved.moved_s(self.clock, self.boot))

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(self.path.name + ending)
