"""The command journal survives what happens to files, and never says what was not written."""

import errno
import math
import os
import threading
import zlib
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derms.domain.alarm import Event, Severity
from derms.domain.dispatch import (
    Applied,
    Clamped,
    Command,
    CommandRecord,
    Expired,
    Failed,
    NotFollowing,
    Outcome,
    Quantity,
    Rejected,
    Superseded,
    Unknown,
)
from derms.domain.records import Position, Records
from derms.errors import JournalError
from derms.field import journal as journals
from derms.field.disk import SystemDisk
from derms.field.journal import Conclusion, Header, Intent, Journal, Record, Told, read_records

AT = datetime(2026, 4, 15, 13, 0, 0, 250_000, tzinfo=UTC)
COMMAND = Command(Quantity.P_SET, -12_500.0, 930.0)
OUTCOMES: tuple[Outcome, ...] = (
    Applied(-12_480.5),
    Clamped("soc", -12_500.0, -3_000.0),
    NotFollowing(0.0),
    Rejected("device: busy"),
    Superseded(),
    Expired(),
    Failed("reset by peer"),
    Unknown("no answer — none at all"),
)


class NoSync(SystemDisk):
    """For where durability is not what is tested."""

    def sync(self, fd: int) -> None:
        """Nothing is made durable."""


class WithSync(SystemDisk):
    """Makes files durable in a way of its own."""

    def __init__(self, sync: Callable[[int], None]) -> None:
        self._sync = sync

    def sync(self, fd: int) -> None:
        self._sync(fd)


def intend(journal: Journal, device_id: str = "bat01", command: Command = COMMAND) -> int:
    return journal.intend(AT, 17.5, device_id, command, 3)


def conclude(journal: Journal, seq: int, outcome: Outcome = Applied(-12_480.5)) -> None:  # noqa: B008
    journal.outcome(AT + timedelta(seconds=20), 37.5, seq, outcome)


def records(path: Path) -> list[Record]:
    return [record for record, _, _ in read_records(path.read_bytes())]


def unfinished_after_restart(path: Path) -> list[int]:
    with closing(Journal.open(path)) as journal:
        return list(journal.unfinished)


@pytest.fixture(name="path")
def journal_path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "journal.log"


@pytest.fixture(name="written")
def written_bytes(path: Path) -> bytes:
    """The bytes of a journal with two intents that ended and one that did not."""
    journal = Journal.open(path, disk=NoSync())
    first, second = intend(journal), intend(journal, "pv01", Command(Quantity.P_LIMIT, None, 900.0))
    journal.commit()
    conclude(journal, second, Failed("reset"))
    conclude(journal, first)
    intend(journal, "bat02")
    journal.close()
    return path.read_bytes()


def test_what_was_committed_is_read_back_equal(path: Path) -> None:
    journal = Journal.open(path)
    expected: list[Record] = [Header(1)]
    for seq, outcome in enumerate(OUTCOMES, start=1):
        assert intend(journal) == seq
        conclude(journal, seq, outcome)
        expected += [Intent(seq, AT, 17.5, "bat01", COMMAND, 3, token=1)]
        expected += [Conclusion(seq, AT + timedelta(seconds=20), 37.5, outcome)]
    journal.close()
    assert records(path) == expected


@given(
    value_w=st.one_of(st.none(), st.floats(allow_nan=False)),
    reversion_s=st.floats(0, 1e6),
    device_id=st.text(max_size=20),
    why=st.text(max_size=40),
)
@settings(max_examples=25, deadline=None)
def test_any_command_and_reason_survive(
    tmp_path_factory: pytest.TempPathFactory, value_w: float | None, reversion_s: float, device_id: str, why: str
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.log"
    journal = Journal.open(path, disk=NoSync())
    command = Command(Quantity.P_LIMIT, value_w, reversion_s)
    conclude(journal, intend(journal, device_id, command), Unknown(why))
    journal.close()
    _, intent, conclusion = records(path)
    assert isinstance(intent, Intent)
    assert isinstance(conclusion, Conclusion)
    assert (intent.device_id, intent.command, conclusion.outcome) == (device_id, command, Unknown(why))


def test_an_unknown_effect_stays_unknown(path: Path) -> None:
    journal = Journal.open(path)
    conclude(journal, intend(journal), Applied(math.nan))
    journal.close()
    _, _, conclusion = records(path)
    assert isinstance(conclusion, Conclusion)
    assert isinstance(conclusion.outcome, Applied)
    assert math.isnan(conclusion.outcome.effect_w)


def test_an_intent_is_durable_only_after_its_commit(path: Path) -> None:
    journal = Journal.open(path)
    seq = intend(journal)
    assert not journal.is_durable(seq)
    assert records(path) == [Header(1)]
    journal.commit()
    assert journal.is_durable(seq)
    conclude(journal, seq)
    journal.commit()
    assert not journal.is_durable(seq)


def test_a_commit_of_many_records_is_one_sync(path: Path) -> None:
    synced: list[int] = []
    journal = Journal.open(path, disk=WithSync(synced.append))
    synced.clear()
    for _ in range(64):
        intend(journal)
    journal.commit()
    journal.commit()
    assert len(synced) == 1
    assert len(records(path)) == 65


def test_a_restart_finds_the_intents_without_outcome_and_goes_on_counting(path: Path, written: bytes) -> None:
    journal = Journal.open(path)
    assert journal.truncated_bytes == 0
    assert list(journal.unfinished) == [3]
    assert journal.unfinished[3].device_id == "bat02"
    assert intend(journal) == 4
    conclude(journal, 3, Unknown("the service stopped"))
    journal.close()
    assert unfinished_after_restart(path) == [4]


def test_a_second_outcome_and_one_without_intent_are_refused(path: Path) -> None:
    journal = Journal.open(path)
    seq = intend(journal)
    conclude(journal, seq)
    with pytest.raises(JournalError, match="command 1 has no intent, or an outcome already"):
        conclude(journal, seq, Failed("again"))
    with pytest.raises(JournalError, match="command 7"):
        conclude(journal, 7)
    journal.close()
    with closing(Journal.open(path)) as again, pytest.raises(JournalError, match="command 1"):
        conclude(again, seq)
    assert len(records(path)) == 3


def test_a_file_cut_at_any_byte_gives_the_records_before_the_cut(path: Path, written: bytes) -> None:
    ends = [end for _, end, _ in read_records(written)]
    every = [record for record, _, _ in read_records(written)]
    for cut in range(len(written) + 1):
        path.write_bytes(written[:cut])
        whole = sum(end <= cut for end in ends)
        assert records(path) == every[:whole]
        journal = Journal.open(path, disk=NoSync())
        assert journal.truncated_bytes == cut - ([0, *ends][whole])
        journal.close()
        assert records(path) == (every[:whole] or [Header(1)])


def test_a_flipped_bit_anywhere_rejects_its_record_and_all_after_it(written: bytes) -> None:
    every = [record for record, _, _ in read_records(written)]
    ends = [end for _, end, _ in read_records(written)]
    for position in range(len(written)):
        before = sum(end <= position for end in ends)
        for bit in range(8):
            flipped = bytearray(written)
            flipped[position] ^= 1 << bit
            assert [record for record, _, _ in read_records(bytes(flipped))] == every[:before]


def test_a_line_lost_doubled_or_swapped_is_noticed(written: bytes) -> None:
    lines = written.splitlines(keepends=True)
    first = [record for record, _, _ in read_records(lines[0] + lines[1])]
    for damaged in (
        [lines[0], lines[1], *lines[3:]],
        [lines[0], lines[1], lines[1], *lines[2:]],
        [lines[0], lines[1], lines[3], lines[2], *lines[4:]],
    ):
        assert [record for record, _, _ in read_records(b"".join(damaged))] == first


class FailingDisk(SystemDisk):
    """Stands for fdatasync: fails as often as told, after the bytes have reached the file."""

    def __init__(self) -> None:
        self.failures = 0

    def sync(self, fd: int) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_after_a_failed_sync_nothing_is_believed_until_it_is_written_again(path: Path) -> None:
    disk = FailingDisk()
    journal = Journal.open(path, disk=disk)
    before = intend(journal)
    journal.commit()
    disk.failures = 2
    seq = intend(journal)
    for _ in range(2):
        with pytest.raises(JournalError, match="Input/output error; 1 records not written"):
            journal.commit()
        assert not journal.is_durable(seq)
    conclude(journal, seq, Rejected("journal"))
    journal.commit()
    journal.close()
    assert [type(record) for record in records(path)] == [Header, Intent, Intent, Conclusion]
    assert unfinished_after_restart(path) == [before]


def test_a_full_disk_leaves_what_was_there_and_recovers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.open(path)
    intend(journal)
    journal.commit()
    good = path.read_bytes()
    real_pwrite = os.pwrite

    def full_after_ten_bytes(fd: int, data: bytes, offset: int) -> int:
        if offset > len(good):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_pwrite(fd, data[:10], offset)

    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", full_after_ten_bytes)
        seq = intend(journal)
        with pytest.raises(JournalError, match="No space left on device"):
            journal.commit()
    assert path.read_bytes()[: len(good)] == good
    assert len(records(path)) == 2
    journal.commit()
    assert journal.is_durable(seq)
    assert len(records(path)) == 3


def test_a_full_file_is_put_aside_and_the_unfinished_carried_over(path: Path) -> None:
    journal = Journal.open(path, max_bytes=2_000, disk=NoSync())
    kept = intend(journal, "slow")
    for _ in range(120):
        conclude(journal, intend(journal))
        journal.commit()
    journal.close()
    files = sorted(path.parent.glob("journal.log*"))
    assert len(files) == 9
    assert max(file.stat().st_size for file in files) < 2_600
    assert unfinished_after_restart(path) == [kept]
    numbers = [record.seq for file in files for record in records(file) if isinstance(record, Conclusion)]
    assert sorted(numbers) == list(range(min(numbers), 122))


def test_a_rotation_that_fails_keeps_the_old_file_in_use(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.open(path, max_bytes=100, disk=NoSync())
    intend(journal)
    journal.commit()

    def no_space(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "link", no_space)
        intend(journal)
        with pytest.raises(JournalError, match="No space left"):
            journal.commit()
    journal.commit()
    journal.close()
    assert unfinished_after_restart(path) == [1, 2]


def test_a_crash_between_the_steps_of_a_rotation_loses_nothing(path: Path, written: bytes) -> None:
    os.link(path, path.with_name("journal.log.00000001"))
    path.with_name("journal.log.new").write_bytes(written[:30])
    journal = Journal.open(path, max_bytes=100, disk=NoSync())
    conclude(journal, 3)
    journal.close()
    names = [file.name for file in sorted(path.parent.glob("journal.log*"))]
    assert names == ["journal.log", "journal.log.00000001", "journal.log.00000002"]
    assert unfinished_after_restart(path) == []


def test_a_journal_belongs_to_one_process(path: Path) -> None:
    journal = Journal.open(path)
    with pytest.raises(JournalError, match="in use by another process"):
        Journal.open(path)
    journal.close()
    Journal.open(path).close()


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match=r"File exists|Not a directory"):
        Journal.open(tmp_path / "file" / "journal.log")


def test_a_file_of_another_version_is_left_alone(path: Path, written: bytes) -> None:
    journal = Journal.open(path)
    journal.close()
    payload = b'{"kind":"HEADER","next_seq":1,"version":4}'
    other = b"%08x %s\n" % (zlib.crc32(payload), payload)
    path.write_bytes(other)
    with pytest.raises(JournalError, match="written by version 4, not 3"):
        Journal.open(path)
    assert path.read_bytes() == other


def test_more_can_be_entered_while_a_commit_is_under_way(path: Path) -> None:
    syncing, go_on = threading.Event(), threading.Event()

    def slow_sync(fd: int) -> None:
        syncing.set()
        go_on.wait(5)

    go_on.set()
    journal = Journal.open(path, disk=WithSync(slow_sync))
    syncing.clear()
    go_on.clear()
    first = intend(journal)
    commit = threading.Thread(target=journal.commit)
    commit.start()
    assert syncing.wait(5)
    second = intend(journal)
    go_on.set()
    commit.join()
    assert (journal.is_durable(first), journal.is_durable(second)) == (True, False)
    journal.commit()
    assert journal.is_durable(second)


def test_a_damaged_file_is_kept_beside_the_journal_and_a_torn_last_line_is_not(path: Path, written: bytes) -> None:
    path.write_bytes(written[:-3])
    Journal.open(path).close()
    assert list(path.parent.glob("*.damaged-*")) == []
    damaged = bytes([written[0] ^ 1]) + written[1:]
    path.write_bytes(damaged)
    Journal.open(path).close()
    (kept,) = path.parent.glob("*.damaged-*")
    assert kept.read_bytes() == damaged


def test_entries_have_one_place_each_whatever_happens_to_the_files(path: Path) -> None:
    event = Event(AT, Severity.WARNING, "gateway", "device-lost", "bat01 does not answer")
    journal = Journal.open(path, max_bytes=2_000, disk=NoSync(), origin="first")
    seen: list[object] = []
    position = Position()
    for number in range(20):
        conclude(journal, intend(journal))
        journal.tell(event)
        if number % 3 == 2:
            journal.commit()
            while True:
                found = journal.records(position.origin, position.place, 4)
                assert found.first == position.place
                seen, position = [*seen, *found.entries], found.until
                if not found.left:
                    break
        if number % 7 == 6:
            journal.close()
            journal = Journal.open(path, max_bytes=2_000, disk=NoSync(), origin="second")
    journal.commit()
    seen += journal.records(position.origin, position.place, 100).entries
    assert [type(entry) for entry in seen] == [CommandRecord, Event] * 20
    assert [entry.seq for entry in seen if isinstance(entry, CommandRecord)] == list(range(1, 21))
    assert all(entry == event for entry in seen if isinstance(entry, Event))


def test_what_is_not_durable_is_not_given_out_and_another_journal_starts_from_its_beginning(path: Path) -> None:
    journal = Journal.open(path, origin="first")
    conclude(journal, intend(journal))
    assert journal.records("", 0, 10) == Records("first", 0, (), left=0)
    journal.commit()
    assert len(journal.records("first", 0, 10).entries) == 1
    assert journal.records("first", 1, 10).entries == ()
    assert len(journal.records("another", 1, 10).entries) == 1
    assert len(journal.records("first", 9, 10).entries) == 1


def _full(_: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_waits_for_a_full_disk_is_bounded_and_what_was_dropped_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "PENDING_MOST", 40)
    path, disk = tmp_path / "journal.log", WithSync(lambda fd: None)
    with closing(Journal.open(path, disk=disk)) as journal:
        sent = intend(journal)
        journal.commit()
        disk._sync = _full
        conclude(journal, sent)
        under_way = intend(journal, "bat02")
        ended = []
        for number in range(200):
            ended.append(intend(journal, f"bat{number}"))
            conclude(journal, ended[-1], Rejected("journal"))
            journal.tell(Event(AT, Severity.INFO, "bat01", "news", str(number)))
            if number % 20 == 0:
                journal.tell(Event(AT, Severity.ALARM, "gateway", "alarm", str(number)))
                with pytest.raises(JournalError):
                    journal.commit()
            assert len(journal._pending) <= 40
        disk._sync = lambda fd: None
        journal.commit()
        written = records(path)[2:]
        assert journal.lost() == 2 + 200 * 3 + 10 - len(written)
        assert journal.lost() == 0
        told = [record.event for record in written if isinstance(record, Told)]
        assert [event.text for event in told if event.severity is Severity.ALARM] == [str(n) for n in range(0, 200, 20)]
        assert {record.seq for record in written if isinstance(record, Intent)} >= {under_way, ended[-1]}
        assert sent in {record.seq for record in written if isinstance(record, Conclusion)}
        assert list(journal.unfinished) == [under_way]
    assert unfinished_after_restart(path) == [under_way]


def test_a_commit_that_hangs_bounds_what_is_entered_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "PENDING_MOST", 40)
    begun, go_on = threading.Event(), threading.Event()

    def hang(_: int) -> None:
        begun.set()
        go_on.wait()

    disk = WithSync(lambda fd: None)
    with closing(Journal.open(tmp_path / "journal.log", disk=disk)) as journal:
        disk._sync = hang
        first = intend(journal)
        committing = threading.Thread(target=journal.commit)
        committing.start()
        begun.wait()
        conclude(journal, first)
        for number in range(100):
            journal.tell(Event(AT, Severity.INFO, "bat01", "news", str(number)))
        assert len(journal._pending) <= 40
        go_on.set()
        committing.join()
        journal.commit()
        assert journal.lost() > 0
        assert not journal.unfinished
