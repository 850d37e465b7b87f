"""The table of the fleet's latest values: a row per device, in ordinary memory or mapped by many processes.

Every writer owns rows of its own and a sequence counter: odd while it writes, one step further when it is done. A
reader copies what it wants and looks at the counters before and after; when they moved it copies again, so it never
keeps half of a write. That rests on stores becoming visible in the order in which they were made, which x86-64
processors guarantee; Python has no fences, so on a processor with weaker order (ARM) a torn read is unlikely but
possible. A writer that died in the middle of a write leaves its counter odd: its rows read as MISSING until the next
writer takes them over.

Times are monotonic seconds of the request; the clock (CLOCK_MONOTONIC) is one for all processes of a machine.
"""

import mmap
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np

from derms.domain.arrays import AnyArray, ByteArray, FloatArray, IntArray
from derms.domain.quality import Quality
from derms.domain.telemetry import COLUMNS, is_phase

MAGIC = 0x44455233
LINE_BYTES = 64
"""A cache line: counters of different writers do not share one."""
READ_TRIES = 100
"""Copies tried before a counter that is odd counts as that of a dead writer."""
SHARED = Path("/dev/shm")
"""Where Linux shows shared memory as files."""


@dataclass(frozen=True, slots=True)
class Values:
    """A consistent copy of the table: nothing in it changes any more."""

    columns: Mapping[str, FloatArray]
    """Shape (n,), those per phase (n, 3); NaN is missing."""
    quality: ByteArray
    """As judged when the value came, shape (n,): age is the reader's to judge."""
    time_s: FloatArray
    """Monotonic time of the request, shape (n,); -inf before the first answer."""


class TelemetryTable:
    """See the module's text. Make one with `local`, `shared` or `attach`."""

    def __init__(self, memory: memoryview, devices: int, writers: int, owner: SharedMemory | mmap.mmap | None) -> None:
        self._owner = owner
        self._head = np.frombuffer(memory, np.int64, LINE_BYTES // 8)
        self._sequence = np.frombuffer(memory, np.int64, writers * LINE_BYTES // 8, LINE_BYTES)[:: LINE_BYTES // 8]
        at = LINE_BYTES * (1 + writers)
        self._time_s: FloatArray = np.frombuffer(memory, np.float64, devices, at)
        at += 8 * devices
        self._columns: dict[str, FloatArray] = {}
        for name in COLUMNS:
            width = _width(name)
            flat = np.frombuffer(memory, np.float64, devices * width, at)
            self._columns[name] = flat.reshape(devices, width) if width > 1 else flat
            at += flat.nbytes
        self._quality: ByteArray = np.frombuffer(memory, np.uint8, devices, at)
        self._writer: ByteArray = np.frombuffer(memory, np.uint8, devices, at + devices)

    @classmethod
    def local(cls, devices: int) -> "TelemetryTable":
        """A table in this process's own memory, with one writer."""
        table = cls(memoryview(bytearray(_size(devices, 1))), devices, 1, None)
        table._clear(1)
        return table

    @classmethod
    def shared(cls, devices: int, writers: int) -> "TelemetryTable":
        """A table that other processes attach by its name; it lives until `unlink`, or the end of this process."""
        memory = SharedMemory(create=True, size=_size(devices, writers))
        assert memory.buf is not None, "it has just been mapped"
        table = cls(memory.buf, devices, writers, memory)
        table._clear(writers)
        return table

    @classmethod
    def attach(cls, name: str) -> "TelemetryTable":
        """Map a table that another process made; raises FileNotFoundError, or ValueError for another version of it.

        The file is mapped directly: SharedMemory of Python 3.11 would have this process's resource tracker unlink the
        table when the process ends, whoever else uses it.
        """
        with (SHARED / name).open("r+b") as file:
            mapped = mmap.mmap(file.fileno(), 0)
        magic, devices, writers, columns = np.frombuffer(mapped, np.int64, 4).tolist()
        if magic != MAGIC or columns != _fingerprint():
            raise ValueError(f"{name} is not a telemetry table of this version")
        return cls(memoryview(mapped), devices, writers, mapped)

    @property
    def name(self) -> str:
        """By which others attach; raises ValueError for a table that is not shared from here."""
        if not isinstance(self._owner, SharedMemory):
            raise ValueError("this process did not make a shared table")
        return self._owner.name

    @property
    def devices(self) -> int:
        return len(self._quality)

    def claim(self, writer: int, rows: Sequence[int] | IntArray) -> None:
        """Give rows to a writer, and end what its predecessor may have left in the middle."""
        self._writer[np.asarray(rows, dtype=np.intp)] = writer
        self._sequence[writer] += self._sequence[writer] % 2

    def write(
        self, writer: int, rows: IntArray, columns: Mapping[str, FloatArray], quality: ByteArray, time_s: FloatArray
    ) -> None:
        """Store values of rows that the writer owns, shape (k,) or (k, 3) each."""
        self._sequence[writer] += 1
        for name, column in self._columns.items():
            column[rows] = columns[name]
        self._quality[rows] = quality
        self._time_s[rows] = time_s
        self._sequence[writer] += 1

    def rows(self, rows: IntArray, names: Sequence[str]) -> tuple[dict[str, FloatArray], FloatArray]:
        """Some columns of some rows and their times, for the writer that owns them."""
        return {name: self._columns[name][rows] for name in names}, self._time_s[rows]

    def read(self) -> Values:
        """A consistent copy of everything."""
        for _ in range(READ_TRIES):
            before = self._sequence.copy()
            copy = self._copy()
            if not (before % 2).any() and (self._sequence == before).all():
                return copy
        unsettled = np.flatnonzero((before % 2 > 0) | (self._sequence != before))
        copy.quality[np.isin(self._writer, unsettled)] = Quality.MISSING
        return copy

    def close(self) -> None:
        """Unmap; the table lives on for others."""
        owner, self._owner = self._owner, None
        self._drop_views()
        if owner is not None:
            owner.close()

    def unlink(self) -> None:
        """Unmap and take away, by the process that made it; those who have attached keep their mapping."""
        owner = self._owner
        self.close()
        if isinstance(owner, SharedMemory):
            owner.unlink()

    def _clear(self, writers: int) -> None:
        self._head[:4] = MAGIC, self.devices, writers, _fingerprint()
        self._time_s[:] = -np.inf
        self._quality[:] = Quality.MISSING
        for column in self._columns.values():
            column[:] = np.nan

    def _copy(self) -> Values:
        columns = {name: column.copy() for name, column in self._columns.items()}
        return Values(columns, self._quality.copy(), self._time_s.copy())

    def _drop_views(self) -> None:
        """Let go of every array over the memory, which could not be unmapped under them."""
        nothing: AnyArray = np.zeros(0)
        self._head = self._sequence = self._time_s = nothing
        self._quality = self._writer = nothing.astype(np.uint8)
        self._columns = {}


def _width(name: str) -> int:
    return 3 if is_phase(name) else 1


def _size(devices: int, writers: int) -> int:
    values = 1 + sum(map(_width, COLUMNS))
    return LINE_BYTES * (1 + writers) + devices * (8 * values + 2)


def _fingerprint() -> int:
    """Of the columns: a process with other ones must not map the table."""
    return zlib.crc32(",".join(COLUMNS).encode())
