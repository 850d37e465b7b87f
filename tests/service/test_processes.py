"""The supervisor of the processes: they are started in order, started again, ended when they hang, and stopped."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from derms.service.processes import Processes

CHILD = """
import os, signal, socket, sys, time
name, how, folder = sys.argv[1:]
def tell(words):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.sendto(words.encode(), "\\0" + os.environ["NOTIFY_SOCKET"][1:])
lives = os.path.join(folder, name)
with open(lives, "a") as file:
    file.write("x")
life = os.path.getsize(lives)
if how == "broken":
    print("cannot start", file=sys.stderr)
    sys.exit(3)
tell("READY=1")
print(name, "is at work", flush=True)
if how == "dies" and life == 1:
    sys.exit(7)
if how == "hangs" and life == 1:
    signal.signal(signal.SIGABRT, signal.SIG_IGN)
    time.sleep(600)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    tell("WATCHDOG=1")
    time.sleep(0.05)
"""


def supervised(folder: Path, how: dict[str, str], until: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run until a text was said as often as it stands here; status and all that was said."""

    def command(name: str) -> Sequence[str]:
        return (sys.executable, "-c", CHILD, name, how.get(name, "works"), str(folder))

    async def main() -> tuple[int, str]:
        stop, said = asyncio.Event(), ""
        watchdogs_s = {"gateway": 1.0, "brain": 1.0, "web": 30.0}
        processes = Processes(command, stop_s=20.0, watchdogs_s=watchdogs_s, kill_s=0.1)
        running = asyncio.ensure_future(processes.run(stop, "all is begun"))
        async with asyncio.timeout(60.0):
            while until and until not in said and not running.done():
                await asyncio.sleep(0.02)
                said += capsys.readouterr().out
        stop.set()
        status = await running
        return status, said + capsys.readouterr().out

    return asyncio.run(main())


def lives(folder: Path, name: str) -> int:
    path = folder / name
    return path.stat().st_size if path.exists() else 0


def test_the_gateway_comes_first_and_all_are_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = supervised(tmp_path, {}, "web is at work", capsys)
    assert status == 0
    lines = said.splitlines()
    assert lines.index("all is begun") < min(lines.index(f"{name} is at work") for name in ("brain", "web"))


def test_where_the_gateway_cannot_start_nothing_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = supervised(tmp_path, {"gateway": "broken"}, "nobody says this", capsys)
    assert (status, said) == (3, "")
    assert [lives(tmp_path, name) for name in ("gateway", "brain", "web")] == [1, 0, 0]


@pytest.mark.parametrize("name", ["gateway", "brain"])
def test_one_that_dies_is_started_again(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = f"{name} ended with status 7: it is started again in 1 s\n"
    status, said = supervised(tmp_path, {name: "dies"}, again, capsys)
    assert status in (0, 7)
    assert again in said


def test_one_that_shows_no_progress_is_killed_and_started_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = supervised(tmp_path, {"brain": "hangs"}, "started again in 1 s", capsys)
    assert status == 0
    assert "brain showed no progress for 1 s: it is killed" in said
    assert "brain ended with status -9" in said
