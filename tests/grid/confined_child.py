"""A process that makes attempts to escape, each in a fork of its own, confined or not; the tests of confinement use it.

It imports the engine's libraries once. A line of JSON on its input asks for an attempt, a line on its output tells what
came of each step: None where it went through, else the error.
"""

import ctypes
import json
import mmap
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derms.errors import ModelError
from derms.grid import confine, seccomp
from derms.grid.dss import DSSException, altdss

SECONDS_MAX = 20
SHELL_RAN = 7
NO_SUCH_CALL = 9999
PTRACE_SEIZE, CLONE_NEWUSER = 0x4206, 0x10000000
LIBC = ctypes.CDLL(None, use_errno=True)
BYTES = ctypes.c_char * mmap.PAGESIZE


@dataclass(frozen=True)
class Attempt:
    """What is tried, from where."""

    package: str
    """The folder that may be read."""
    scratch: str
    outside: str
    confined: bool
    script: list[str]
    """Commands of OpenDSS."""
    call: str = ""
    """One of CALLS, after the script."""
    lacking: str = ""
    """What the kernel is made to lack: `landlock`, `seccomp`; or `one thread`."""


def checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def fork(_: Attempt) -> None:
    if os.fork() == 0:
        os._exit(0)


def thread(_: Attempt) -> None:
    threading.Thread(target=int).start()


def spawn(_: Attempt) -> None:
    os.posix_spawn("/bin/true", ["true"], {})


def become_a_shell(_: Attempt) -> None:
    os.execv("/bin/sh", ["sh", "-c", f"exit {SHELL_RAN}"])


def executable_memory(_: Attempt) -> None:
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


def memory_made_executable(_: Attempt) -> None:
    page = BYTES.from_buffer(mmap.mmap(-1, mmap.PAGESIZE))
    checked(LIBC.mprotect(ctypes.byref(page), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC))


def truncated_while_read(attempt: Attempt) -> None:
    os.close(os.open(f"{attempt.package}/circuit.dss", os.O_RDONLY | os.O_TRUNC))


def looser_limit(_: Attempt) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))


def large_file(attempt: Attempt) -> None:
    with Path(attempt.scratch, "large").open("wb") as file:
        file.truncate(confine.FILE_MAX_BYTES + 1)


CALLS: Mapping[str, Callable[[Attempt], Any]] = {
    "fork": fork,
    "thread": thread,
    "spawn": spawn,
    "execve": become_a_shell,
    "tcp socket": lambda _: socket.socket(),
    "unix socket": lambda _: socket.socket(socket.AF_UNIX),
    "executable memory": executable_memory,
    "memory made executable": memory_made_executable,
    "executable file in memory": lambda _: os.memfd_create("program"),
    "signal to another process": lambda _: os.kill(os.getppid(), 0),
    "looser limit": looser_limit,
    "read outside": lambda at: Path(at.outside, "secret.csv").read_bytes(),
    "list outside": lambda at: os.listdir(at.outside),
    "read own memory as a file": lambda _: os.open("/proc/self/mem", os.O_RDONLY),
    "write outside": lambda at: Path(at.outside, "new").write_bytes(b"x"),
    "write in the package": lambda at: Path(at.package, "new").write_bytes(b"x"),
    "truncate in the package": lambda at: os.truncate(f"{at.package}/circuit.dss", 0),
    "truncate while reading": truncated_while_read,
    "remove from the package": lambda at: os.unlink(f"{at.package}/circuit.dss"),
    "move out": lambda at: os.rename(f"{at.scratch}/own.csv", f"{at.outside}/own.csv"),
    "symbolic link": lambda at: os.symlink(at.outside, f"{at.scratch}/out"),
    "hard link": lambda at: os.link(f"{at.outside}/secret.csv", f"{at.scratch}/secret.csv"),
    "mode of a file": lambda at: os.chmod(f"{at.scratch}/own.csv", 0o777),
    "large file": large_file,
    "pipe with a name": lambda at: os.mkfifo(f"{at.scratch}/pipe"),
    "trace another process": lambda _: checked(LIBC.ptrace(PTRACE_SEIZE, os.getppid(), None, None)),
    "namespace": lambda _: checked(LIBC.unshare(CLONE_NEWUSER)),
    "io_uring": lambda _: checked(LIBC.syscall(425, 1, BYTES())),
}
NOT_EVERYWHERE = ("trace another process", "namespace", "io_uring")
"""What a system may forbid to all."""


def steps(attempt: Attempt) -> Iterator[str | None]:
    """The outcome of every step: of confinement, of each line of the script, of the call."""
    if attempt.lacking == "landlock":
        confine.CREATE_RULESET = NO_SUCH_CALL
    if attempt.lacking == "seccomp":
        seccomp.PR_SET_SECCOMP = NO_SUCH_CALL
    if attempt.lacking == "one thread":
        threading.Thread(target=signal.pause, daemon=True).start()
    if attempt.confined:
        try:
            confine.confine(Path(attempt.package), Path(attempt.scratch))
        except ModelError as error:
            yield str(error)
            return
    dss = altdss.NewContext()
    dss.Settings.AllowDOScmd = True  # and an editor is allowed at first: the kernel alone has to hold
    for line in attempt.script:
        try:
            dss(line)
        except DSSException as error:
            yield str(error)
        else:
            yield None
    if attempt.call:
        try:
            CALLS[attempt.call](attempt)
        except (OSError, RuntimeError) as error:
            yield str(error)
        else:
            yield None


def carry_out(attempt: Attempt, answers: int) -> None:
    signal.alarm(SECONDS_MAX)
    os.chdir(attempt.scratch)
    found = list(steps(attempt))
    try:
        while not attempt.confined:
            os.wait()  # for editors and shells that the attempt started
    except ChildProcessError:
        pass
    os.write(answers, json.dumps(found).encode() + b"\n")


def main() -> None:
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what started programs print is no answer
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            carry_out(Attempt(**json.loads(line)), answers)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status != 0:
            os.write(answers, json.dumps({"ended": os.waitstatus_to_exitcode(status)}).encode() + b"\n")


if __name__ == "__main__":
    main()
