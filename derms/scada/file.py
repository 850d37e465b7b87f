"""The utility's system over files: a watched CSV or JSON to read, and the plan as a file that is always whole."""

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from derms.domain.scada import Publication, Sample, ScadaPoint
from derms.errors import ScadaError
from derms.scada.errand import Errand
from derms.scada.formats import from_csv, from_json
from derms.scada.publication import as_csv, as_json

BYTES_MAX = 10_000_000
"""Of a file or an answer: one that is longer is not read."""

WRITERS: Mapping[str, Callable[[Publication], bytes]] = {".csv": as_csv, ".json": as_json}
SUFFIXES = tuple(WRITERS)


class FileScada:
    """A ScadaLink over a file that somebody else writes; the time of the file is that of samples without their own."""

    def __init__(self, path: Path, points: Sequence[ScadaPoint], *, timeout_s: float) -> None:
        self._path = path
        self._wheres = tuple(point.where for point in points)
        self._errand = Errand(timeout_s)
        self._seen: _Stamp | None = None

    async def fetch(self) -> Sequence[Sample] | None:
        """Samples of the file where it has changed since it was last understood; raises ScadaError."""
        try:
            found = await self._errand(self._read)
        except ScadaError as error:
            raise ScadaError(f"{self._path}: {error}") from error
        if found is None:
            return None
        samples, self._seen = found  # only now: what a reading that was given up finds, nobody has got
        return samples

    def _read(self) -> tuple[Sequence[Sample], "_Stamp"] | None:
        try:
            with self._path.open("rb") as file:
                stamp = _stamp(os.fstat(file.fileno()))
                if stamp == self._seen:
                    return None
                data = file.read(BYTES_MAX + 1)
                torn = stamp != _stamp(os.fstat(file.fileno()))
        except OSError as error:
            raise ScadaError(f"{error.strerror or error}") from error
        if torn or len(data) > BYTES_MAX:
            raise ScadaError("it changed while it was read" if torn else f"it is longer than {BYTES_MAX} bytes")
        return self._parsed(data, datetime.fromtimestamp(stamp[1] / 1e9, UTC)), stamp

    def _parsed(self, data: bytes, written_at: datetime) -> list[Sample]:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ScadaError(f"it is not UTF-8: {error}") from error
        if self._path.suffix.lower() == ".json":
            return from_json(text, self._wheres, written_at=written_at)
        return from_csv(text, written_at=written_at)


_Stamp = tuple[int, int, int]
"""A version of a file: its number, time of change [ns] and size."""


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_ino, status.st_mtime_ns, status.st_size


class FileOutlet:
    """A PlanOutlet to a file: written beside it, made durable, and put in its place at once."""

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        self._path = path
        self._write = WRITERS[path.suffix.lower()]
        self._errand = Errand(timeout_s)

    async def send(self, publication: Publication) -> None:
        """Replace the file; raises ScadaError."""
        data = self._write(publication)
        try:
            await self._errand(lambda: self._replace(data))
        except (ScadaError, OSError) as error:
            raise ScadaError(f"{self._path}: {getattr(error, 'strerror', None) or error}") from error

    def _replace(self, data: bytes) -> None:
        beside = self._path.with_name(f".{self._path.name}.new")
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)
