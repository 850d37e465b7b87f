"""The lease: one holder at a time, a greater token each time, and nothing is sent without it."""

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from derms.errors import LeaseError
from derms.field.lease import Lease


def test_each_holder_has_a_greater_token_than_the_one_before(tmp_path: Path) -> None:
    tokens = []
    for _ in range(3):
        lease = Lease.take(tmp_path / "lease")
        tokens.append(lease.token)
        lease.give_back()
        assert not lease.held
    assert tokens == [1, 2, 3]


def _hold(path: Path, pipe: Connection) -> None:
    lease = Lease.take(path)
    pipe.send(lease.token)
    pipe.recv()


def test_the_lease_of_a_process_that_is_killed_is_free_at_once(tmp_path: Path) -> None:
    path, context = tmp_path / "lease", multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    holder = context.Process(target=_hold, args=(path, there))
    holder.start()
    assert here.recv() == 1
    with pytest.raises(LeaseError, match="in use by another process"):
        Lease.take(path)
    holder.kill()
    holder.join()
    assert Lease.take(path).token == 2


def test_what_may_not_be_sent_is_refused_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    lease = Lease.take(path)
    assert lease.refusal(1, 10.0, 9.9) is None
    late, stale = lease.refusal(1, 10.0, 10.0), lease.refusal(0, 10.0, 9.9)
    assert late is not None
    assert late.by == "deadline"
    assert stale is not None
    assert stale.by == "token"
    path.rename(tmp_path / "moved away")
    lost = lease.refusal(1, 10.0, 9.9)
    assert lost is not None
    assert lost.by == "lease"
    other = Lease.take(path)
    assert not lease.held
    assert other.held


def test_a_lease_that_holds_no_token_is_told_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    path.write_text("twelve")
    with pytest.raises(LeaseError, match="holds 'twelve', and should hold a token"):
        Lease.take(path)
    assert path.read_text() == "twelve"
