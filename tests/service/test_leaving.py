"""Processes that have to end: with threads that go on, with more to do than there is time, with nobody who listens."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from derms.service import serving, words

PATIENCE_S = 60.0
"""Far longer than anything here takes."""
BUSY = """\
import threading
from concurrent.futures import ThreadPoolExecutor
from derms.service.leaving import ends_within, leave_within
begun, never = threading.Event(), threading.Event()
def plan():
    begun.set()
    never.wait()
ThreadPoolExecutor(1, "engine").submit(plan)
begun.wait()
"""
"""A program with a plan under way that does not end."""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S)


def test_a_plan_under_way_does_not_hold_up_the_end_of_the_process() -> None:
    ended = run(f"{BUSY}\nprint('stopped', flush=True)\nleave_within(0.1, 3)")
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "stopped\n", "")


def test_a_process_that_can_end_by_itself_does_not_wait_to_be_ended() -> None:
    ended = run(f"from derms.service.leaving import leave_within\nleave_within({2 * PATIENCE_S}, 3)")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_an_end_that_takes_too_long_is_one_and_tells_what_every_thread_was_doing() -> None:
    ended = run(f"{BUSY}\nwith ends_within(0.1):\n    never.wait()")
    assert ended.returncode == 1
    assert "in plan" in ended.stderr
    assert 'File "<string>", line 12 in <module>' in ended.stderr


def test_an_end_in_time_is_not_disturbed_even_without_anybody_to_tell() -> None:
    program = f"import sys\nsys.stderr = None\n{BUSY}\nwith ends_within({PATIENCE_S}):\n    pass\nleave_within(0.1, 4)"
    assert run(program).returncode == 4


def test_whoever_does_not_listen_any_more_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    with os.fdopen(ours, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        words.say("an event")
        words.say("another")


def test_a_full_disk_costs_the_lines_that_it_does_not_take(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with Path("/dev/full").open("w", buffering=1) as full, (tmp_path / "log").open("w") as log:
        monkeypatch.setattr(sys, "stdout", full)
        words.say("an event")
        monkeypatch.setattr(sys, "stdout", log)
        words.say("another")
        os.dup2(log.fileno(), full.fileno())  # so that it can be closed
    assert "another\n" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(("error", "told"), [(socket.gaierror(-3, "later"), 0), (ConnectionResetError(), 1)])
def test_a_name_that_is_not_resolved_after_its_connection_was_given_up_is_nobodys_error(
    error: OSError, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        serving._nobodys(loop, {"message": "Future exception was never retrieved", "exception": error})

    asyncio.run(main())
    assert len(caplog.records) == told
