"""The disk under journal and lease: what is said to be durable is so, and a fresh file before it takes its place."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from derms.domain.dispatch import Command, Quantity
from derms.field.disk import SYSTEM_DISK, SystemDisk
from derms.field.journal import Journal
from derms.field.lease import Lease

AT = datetime(2026, 4, 15, 13, 0, tzinfo=UTC)


def _intend(journal: Journal) -> None:
    journal.intend(AT, 17.5, "bat01", Command(Quantity.P_SET, 1e3, 930.0), 3)
    journal.commit()


def test_the_real_disk_has_the_system_make_the_file_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.fstat(fd).st_size))
    path = tmp_path / "journal.log"
    journal = Journal.open(path)
    before = len(synced)
    _intend(journal)
    assert synced[before:] == [path.stat().st_size]
    journal.close()


def test_what_the_system_takes_in_parts_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: take(fd, data[:7], offset))
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        SYSTEM_DISK.write(fd, b"what was there", 0)
        SYSTEM_DISK.write(fd, b"is written whole, from here on", 5)
    finally:
        os.close(fd)
    assert (tmp_path / "file").read_bytes() == b"what is written whole, from here on"


class _Watched(SystemDisk):
    """Notes which files were made durable while they stood in the journal's place, and which before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.before: set[int] = set()
        self.in_place: set[int] = set()

    def sync(self, fd: int) -> None:
        there = self._path.exists() and self._path.stat().st_ino == os.fstat(fd).st_ino
        (self.in_place if there else self.before).add(os.fstat(fd).st_ino)


def test_a_fresh_file_is_durable_before_it_takes_the_place_of_the_full_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    disk = _Watched(path)
    journal = Journal.open(path, max_bytes=100, disk=disk)
    first = path.stat().st_ino
    _intend(journal)
    _intend(journal)
    assert path.stat().st_ino != first
    assert path.stat().st_ino in disk.before & disk.in_place
    journal.close()


def test_the_token_of_a_lease_is_durable_before_anybody_has_it(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    disk = _Watched(path)
    lease = Lease.take(path, disk=disk)
    assert disk.in_place == {path.stat().st_ino}
    lease.give_back()
