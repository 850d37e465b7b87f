"""Faults in the command journal and the disk under it."""

from tests.mutants.fault import Fault

JOURNAL = "derms/field/journal.py"
DISK = "derms/field/disk.py"

_JOURNAL = ("tests/field/test_journal.py",)
_DISK = ("tests/field/test_disk.py",)

JOURNALLED: tuple[Fault, ...] = (
    Fault("fdatasync is left out", DISK, "        os.fdatasync(fd)\n", "        pass\n", _DISK),
    Fault(
        "what the system did not take of a write is left out",
        DISK,
        "            done += os.pwrite(fd, data[done:], offset + done)\n",
        "            done += os.pwrite(fd, data[done:], offset + done) or len(data)\n            break\n",
        _DISK,
    ),
    Fault(
        "a commit is not made durable",
        JOURNAL,
        "                self._disk.sync(self._fd)\n            except",
        "            except",
        _JOURNAL,
    ),
    Fault(
        "a rotated file takes the place of the old one before it is durable",
        JOURNAL,
        "            self._disk.sync(fd)\n            os.link",
        "            os.link",
        _DISK,
    ),
    Fault(
        "an intent counts as durable as soon as it is entered",
        JOURNAL,
        "return seq in self._durable",
        "return seq in self._unfinished",
        _JOURNAL,
    ),
    Fault(
        "a write of the journal that failed is taken for a good one",
        JOURNAL,
        'raise JournalError(f"{self.path}: {error.strerror}; {len(batch)} records not written") from error',
        "data, crc = str(error).encode(), self._crc",
        _JOURNAL,
    ),
    Fault("the CRC of a line is not checked", JOURNAL, 'if head != b"%08x " % crc:', "if len(head) < 9:", _JOURNAL),
    Fault(
        "a torn last line is taken for a record",
        JOURNAL,
        "self.truncated_bytes = len(data) - self._size",
        "self._size = len(data)",
        _JOURNAL,
    ),
    Fault(
        "a damaged file is cut off without a trace",
        JOURNAL,
        '        if b"\\n" in data[self._size :]:  # more',
        "        if False:  # more",
        _JOURNAL,
    ),
    Fault(
        "an intent may have two outcomes",
        JOURNAL,
        "            if unfinished.pop(record.seq, None) is None:\n",
        "            if unfinished.pop(record.seq, None) is None and not record.seq:\n",
        _JOURNAL,
    ),
    Fault(
        "sequence numbers begin anew after a restart",
        JOURNAL,
        "            self._next_seq = max(self._next_seq, _next_seq(record))\n",
        "",
        _JOURNAL,
    ),
    Fault(
        "two processes write one journal",
        JOURNAL,
        "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        _JOURNAL,
    ),
    Fault(
        "a rotation loses the intents without outcome",
        JOURNAL,
        "_frames([header, *self._durable.values(), written], 0)",
        "_frames([header, written], 0)",
        _JOURNAL,
    ),
)
