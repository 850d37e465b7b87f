"""The command journal: what was intended, durable before it goes on the wire, and the one outcome it had.

A file of lines, `crc payload`: the payload is JSON, the CRC-32 covers it and every line before it, so that no line
can be changed, lost or swapped unnoticed. The first line is a header with the next sequence number. Values in W,
+ = injection; `now_s` is the monotonic clock of the process that wrote.

Outcomes and events are entries of one stream, each with its place in it; the database takes them from there in order.
"""

import fcntl
import json
import math
import os
import threading
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import date, datetime
from itertools import islice
from operator import methodcaller
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from derms.domain.alarm import Event, Severity
from derms.domain.dispatch import Command, CommandRecord, Outcome, Quantity
from derms.domain.records import Entry, Records
from derms.domain.refusal import Reason
from derms.errors import JournalError
from derms.field.disk import SYSTEM_DISK, Disk
from derms.field.lease import Lease
from derms.field.tally import Tally, reaches_the_wire

VERSION = 3
READABLE = (1, 2, 3)
"""Versions that this one can go on with: 1 has no tally, 2 neither tokens nor events."""
MAX_BYTES = 64 << 20
KEPT_FILES = 8
"""Full files kept beside the current one."""
PENDING_MOST = 50_000
"""Records that wait while nothing can be written; beyond that the least of them are dropped, and counted."""
ENTRIES_KEPT = 100_000
"""Latest entries in memory for the database; what it has not taken by then is only in the files."""

_OUTCOMES = {kind.__name__: kind for kind in get_args(Outcome)}


@dataclass(frozen=True, slots=True)
class Header:
    """First record of a file: sequence numbers and places go on from here."""

    next_seq: int
    version: int = VERSION
    place: int = 0
    """Entries before this file."""
    origin: str = ""
    """Of the journal that it belongs to."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A command that may have gone to a device."""

    seq: int
    at: datetime
    now_s: float
    device_id: str
    command: Command
    plan_id: int
    token: int = 0
    """Fencing token of the lease under which it was made."""
    deadline_s: float = math.inf
    """Monotonic time after which it is not to be sent any more."""
    wanted_w: float | None = None
    """What the plan wanted; None for a release."""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The outcome of the intent with the same sequence number."""

    seq: int
    at: datetime
    now_s: float
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Written:
    """Writes of a day up to here, all intents before it in this file included."""

    day: date
    writes: tuple[tuple[str, Quantity, int], ...]


@dataclass(frozen=True, slots=True)
class Told:
    """An event of the gateway."""

    event: Event


Record = Header | Intent | Conclusion | Written | Told

_KINDS = {Header: "HEADER", Intent: "INTENT", Conclusion: "OUTCOME", Written: "WRITTEN", Told: "EVENT"}


def _pack(record: Record) -> bytes:
    fields = {"kind": _KINDS[type(record)], **asdict(record)}
    if isinstance(record, Conclusion):
        fields["outcome"]["name"] = type(record.outcome).__name__
    return json.dumps(fields, separators=(",", ":"), default=methodcaller("isoformat")).encode()


def _unpack(payload: bytes) -> Record:
    fields: dict[str, Any] = json.loads(payload)
    kind = fields.pop("kind")
    if kind == "HEADER":
        return Header(**fields)
    if kind == "WRITTEN":
        writes = tuple((device_id, Quantity(quantity), number) for device_id, quantity, number in fields["writes"])
        return Written(date.fromisoformat(fields["day"]), writes)
    if kind == "EVENT":
        told = fields["event"]
        at, severity = datetime.fromisoformat(told.pop("at")), Severity(told.pop("severity"))
        return Told(Event(at, severity, **told))
    fields["at"] = datetime.fromisoformat(fields["at"])
    if kind == "INTENT":
        command = fields.pop("command")
        return Intent(**fields, command=Command(**command | {"quantity": Quantity(command["quantity"])}))
    detail = fields.pop("outcome")
    return Conclusion(**fields, outcome=_OUTCOMES[detail.pop("name")](**detail))


def _frames(records: Iterable[Record], crc: int) -> tuple[bytes, int]:
    """The lines of records that follow a line with this CRC, and the CRC of the last one."""
    lines = []
    for record in records:
        payload = _pack(record)
        crc = zlib.crc32(payload, crc)
        lines.append(b"%08x %s\n" % (crc, payload))
    return b"".join(lines), crc


def read_records(data: bytes) -> Iterator[tuple[Record, int, int]]:
    """Each good record of a file with the offset of its end and its CRC; stops at the first line that is not good."""
    end = crc = 0
    while (newline := data.find(b"\n", end)) >= 0:
        head, payload = data[end : end + 9], data[end + 9 : newline]
        crc = zlib.crc32(payload, crc)
        if head != b"%08x " % crc:
            return
        end = newline + 1
        yield _unpack(payload), end, crc


def _apply(unfinished: dict[int, Intent], record: Record) -> None:
    """Follow the set of intents that have no outcome; exactly one outcome per intent."""
    match record:
        case Intent():
            unfinished[record.seq] = record
        case Conclusion():
            if unfinished.pop(record.seq, None) is None:
                raise JournalError(f"command {record.seq} has no intent, or an outcome already")
        case Header() | Written() | Told():
            pass


def _next_seq(record: Record) -> int:
    """Least sequence number that is free after a record."""
    match record:
        case Header(next_seq=next_seq):
            return next_seq
        case Intent(seq=seq) | Conclusion(seq=seq):
            return seq + 1
        case Written() | Told():
            return 1


def _record(intent: Intent, conclusion: Conclusion) -> CommandRecord:
    """A command with its end."""
    return CommandRecord(
        intent.seq,
        intent.at,
        intent.device_id,
        intent.command.quantity,
        intent.plan_id,
        math.nan if intent.wanted_w is None else intent.wanted_w,
        intent.command.value_w,
        conclusion.outcome,
        conclusion.at,
    )


_EVENT_RANKS = {Severity.INFO: 0, Severity.WARNING: 2, Severity.ALARM: 3}
_COMMAND_RANK = 1
"""Commands that have begun and ended while nothing could be written: values that were refused, and releases."""


def _shed(waiting: Sequence[Record], most: int) -> list[Record]:
    """So many of the records that wait, in their order: those of the least rank are dropped, the oldest first.

    Never dropped is a command of which a half is durable or has not ended yet.
    """
    begun: dict[int, int] = {}
    droppable: list[tuple[int, tuple[int, ...]]] = []
    for place, record in enumerate(waiting):
        match record:
            case Told(event=event):
                droppable.append((_EVENT_RANKS[event.severity], (place,)))
            case Intent(seq=seq):
                begun[seq] = place
            case Conclusion(seq=seq) if seq in begun:
                droppable.append((_COMMAND_RANK, (begun.pop(seq), place)))
            case _:
                pass
    dropped = set[int]()
    for _, places in sorted(droppable):
        if len(waiting) - len(dropped) <= most:
            break
        dropped.update(places)
    return [record for place, record in enumerate(waiting) if place not in dropped]


def _count(tally: Tally, record: Record) -> None:
    """Follow the tally of the day."""
    match record:
        case Intent() if reaches_the_wire(record.command):
            tally.add(record.at, (record.device_id, record.command.quantity))
        case Written():
            tally.day = record.day
            tally.writes = {(device_id, quantity): number for device_id, quantity, number in record.writes}
        case _:
            pass


class Journal:
    """One gateway's journal. Intents and outcomes gather in memory until `commit` makes them durable together.

    `commit` may run in a thread of its own while more is entered; all else belongs to one thread. What waits for a disk
    that takes nothing is bounded.
    """

    def __init__(self, path: Path, fd: int, lease: Lease, *, max_bytes: int, disk: Disk, origin: str) -> None:
        self.path = path
        self.truncated_bytes = 0
        """What was cut off at the end when the file was opened. More than a torn line: read every device back."""
        self.fresh = False
        """It was begun by this process."""
        self._fd = fd
        self._lease = lease
        self._max_bytes = max_bytes
        self._disk = disk
        self._origin = origin
        self._committing = threading.Lock()
        self._entering = threading.Lock()
        """Held for moments only: by whoever changes what is pending."""
        self._pending: list[Record] = []
        self._lost = 0
        self._unfinished: dict[int, Intent] = {}
        self._durable: dict[int, Intent] = {}
        self._tally = Tally()
        """Of what is durable."""
        self._place = 0
        """Durable entries so far."""
        self._entries: deque[Entry] = deque(maxlen=ENTRIES_KEPT)
        """The latest of them."""
        self._next_seq = 1
        self._size = 0
        self._crc = 0

    @classmethod
    def open(cls, path: Path, *, max_bytes: int = MAX_BYTES, disk: Disk = SYSTEM_DISK, origin: str = "") -> "Journal":
        """Open or create a journal with its lease: replay it, cut off a tail that is not good, keep others out.

        `origin` names a new one: its entries are not those of another. Raises JournalError, LeaseError.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = _open_locked(path)
            with ExitStack() as undo:
                undo.callback(os.close, fd)
                lease = Lease.take(path.with_suffix(".lease"), disk=disk)
                undo.callback(lease.give_back)
                journal = cls(path, fd, lease, max_bytes=max_bytes, disk=disk, origin=origin)
                journal._replay(path.read_bytes())
                undo.pop_all()
        except OSError as error:
            raise JournalError(f"{path}: {error.strerror}") from error
        return journal

    def _replay(self, data: bytes) -> None:
        for record, self._size, self._crc in read_records(data):
            if isinstance(record, Header) and record.version not in READABLE:
                raise JournalError(f"{self.path}: written by version {record.version}, not {VERSION}")
            self._enlist(record, self._unfinished)
            _apply(self._unfinished, record)
            _count(self._tally, record)
            self._next_seq = max(self._next_seq, _next_seq(record))
        self._durable = dict(self._unfinished)
        self.truncated_bytes = len(data) - self._size
        if b"\n" in data[self._size :]:  # more than a torn last line: keep the evidence
            self.path.with_name(f"{self.path.name}.damaged-{zlib.crc32(data):08x}").write_bytes(data)
        self._disk.truncate(self._fd, self._size)
        self.fresh = self._size == 0
        if self.fresh:
            self._pending.append(Header(self._next_seq, origin=self._origin))
            self.commit()
            _sync_directory(self.path.parent)

    def _enlist(self, record: Record, unfinished: Mapping[int, Intent]) -> None:
        """Give an entry its place in the stream; to be called before `_apply`."""
        match record:
            case Header(place=place, origin=origin):
                self._place, self._origin = place, origin
            case Conclusion(seq=seq) if seq in unfinished:
                self._place += 1
                self._entries.append(_record(unfinished[seq], record))
            case Told(event=event):
                self._place += 1
                self._entries.append(event)
            case _:
                pass

    @property
    def unfinished(self) -> Mapping[int, Intent]:
        """Intents without outcome by sequence number; after `open`, those of a service that stopped too early."""
        return MappingProxyType(self._unfinished)

    def tally(self) -> Tally:
        """Writes of the last day that the journal knows, as far as they are durable."""
        with self._committing:
            return self._tally.copy()

    @property
    def token(self) -> int:
        """Fencing token of the lease that this process holds with the journal: every intent carries it."""
        return self._lease.token

    def refusal(self, token: int, deadline_s: float, now_s: float) -> Reason | None:
        """Why what was intended under a token may not be sent any more; None when it may."""
        return self._lease.refusal(token, deadline_s, now_s)

    @property
    def pending(self) -> bool:
        """Whether something waits for a commit."""
        return bool(self._pending)

    def is_durable(self, seq: int) -> bool:
        """Whether an intent is on disk and still without outcome there: it may go on the wire."""
        return seq in self._durable

    def intend(
        self,
        at: datetime,
        now_s: float,
        device_id: str,
        command: Command,
        plan_id: int,
        *,
        deadline_s: float = math.inf,
        wanted_w: float | None = None,
    ) -> int:
        """Enter an intent, durable after the next `commit`; returns its sequence number."""
        seq = self._next_seq
        self._next_seq += 1
        self._enter(Intent(seq, at, now_s, device_id, command, plan_id, self.token, deadline_s, wanted_w))
        return seq

    def tell(self, event: Event) -> None:
        """Enter an event, durable after the next `commit`."""
        self._enter(Told(event))

    def records(self, origin: str, after: int, most: int) -> Records:
        """Durable entries behind a place in the stream of a journal, from the beginning for another one's."""
        with self._committing:
            first = self._place - len(self._entries)
            start = max(after if origin == self._origin and after <= self._place else 0, first)
            entries = tuple(islice(self._entries, start - first, start - first + most))
            return Records(self._origin, start, entries, left=self._place - start - len(entries))

    def outcome(self, at: datetime, now_s: float, seq: int, outcome: Outcome) -> None:
        """Enter the outcome of an intent; raises JournalError when it has one already or was never entered."""
        self._enter(Conclusion(seq, at, now_s, outcome))

    def _enter(self, record: Record) -> None:
        _apply(self._unfinished, record)
        with self._entering:
            self._pending.append(record)
            self._bound()

    def _bound(self) -> None:
        """Drop the least of what is pending where that is too much; a quarter, so that this is seldom."""
        before = len(self._pending)
        if before > PENDING_MOST:
            self._pending = _shed(self._pending, PENDING_MOST * 3 // 4)
            self._lost += before - len(self._pending)

    def _put_back(self, batch: list[Record]) -> None:
        with self._entering:
            self._pending[:0] = batch
            self._bound()

    def lost(self) -> int:
        """Records that were dropped while nothing could be written, since this was asked last."""
        with self._entering:
            lost, self._lost = self._lost, 0
            return lost

    def commit(self) -> None:
        """Make everything entered so far durable, in one write.

        Raises JournalError when that fails: then none of it counts as durable, and all of it is written again, over
        what the failed write left, by the next commit.
        """
        with self._committing, ExitStack() as undo:
            with self._entering:
                batch, self._pending = self._pending, []
            if not batch:
                return
            undo.callback(self._put_back, batch)
            try:
                if self._size > self._max_bytes:
                    self._rotate()
                data, crc = _frames(batch, self._crc)
                self._disk.truncate(self._fd, self._size)
                self._disk.write(self._fd, data, self._size)
                self._disk.sync(self._fd)
            except OSError as error:
                raise JournalError(f"{self.path}: {error.strerror}; {len(batch)} records not written") from error
            self._size += len(data)
            self._crc = crc
            for record in batch:
                self._enlist(record, self._durable)
                _apply(self._durable, record)
                _count(self._tally, record)
            undo.pop_all()

    def _rotate(self) -> None:
        """Go on in a new file that starts with the unfinished intents and the tally; the full one gets a number."""
        writes = tuple((*place, number) for place, number in self._tally.writes.items())
        written = Written(self._tally.day, writes)
        header = Header(self._next_seq, place=self._place, origin=self._origin)
        data, crc = _frames([header, *self._durable.values(), written], 0)
        kept = sorted(self.path.parent.glob(f"{self.path.name}.{'[0-9]' * 8}"))
        number = int(kept[-1].suffix[1:]) + 1 if kept else 1
        fresh = self.path.with_name(f"{self.path.name}.new")
        fresh.unlink(missing_ok=True)
        fd = _open_locked(fresh)
        try:
            self._disk.write(fd, data, 0)
            self._disk.sync(fd)
            os.link(self.path, self.path.with_name(f"{self.path.name}.{number:08d}"))
            fresh.replace(self.path)
        except OSError:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd, self._size, self._crc = fd, len(data), crc
        _sync_directory(self.path.parent)
        for old in kept[: 1 - KEPT_FILES]:
            old.unlink()

    def close(self) -> None:
        """Commit what is left, and let go of the file; raises JournalError when the commit fails."""
        try:
            self.commit()
        finally:
            os.close(self._fd)
            self._lease.give_back()


def _open_locked(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise JournalError(f"{path}: in use by another process") from error
    return fd


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
