"""What a process gives up before it reads circuit text that is not the product's own.

A `.dss` file is a program: OpenDSS starts editors, loads libraries that a model names, reads and writes any file. Its
own switches stop only part of that, so the kernel has to:

- Landlock: one folder can be read, one scratch folder written, nothing else opened;
- seccomp: no processes, no sockets, no executable memory (a library in the readable folder is not loaded either);
- limits on memory, files and their size.

What stays: whether a file is there, its size and times can be asked for (Landlock does not rule over that, and
seccomp cannot tell paths apart), and the scratch folder can be filled for as long as a call lasts.

Both bind single threads and what these start, and for good. A process therefore imports all that it needs, has one
thread, and then confines itself.
"""

import ctypes
import os
import platform
import resource
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from derms.errors import ModelError
from derms.grid.seccomp import allow_only_listed_calls, hold_privileges_back

MEMORY_MAX_BYTES = 2 << 30
"""Of address space; the libraries alone take 0.4 GB."""
FILE_MAX_BYTES = 64 << 20
OPEN_FILES_MAX = 64

# <linux/landlock.h>; the numbers of the system calls are the same on all processors.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
ASK_VERSION, RULE_PATH_BENEATH = 1, 1
WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5
MAKE_DIR, MAKE_REG, TRUNCATE = 1 << 7, 1 << 8, 1 << 14
RIGHTS_BY_VERSION = (0, 13, 14, 15, 15, 16)
"""How many rights over files each version of Landlock knows: bits from 0 on; later versions know those of the last."""
READ = READ_FILE | READ_DIR
READ_AND_WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | TRUNCATE


def confine(readable: Path, scratch: Path) -> None:
    """Leave this process nothing but to compute, to read below one folder and to write below another.

    Raises ModelError, with the reason, where the system cannot do it: nothing foreign must be loaded then.
    """
    if platform.system() != "Linux":
        raise ModelError(f"circuit text from elsewhere is loaded on Linux only: {platform.system()} cannot confine it")
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise ModelError(f"a process with {threads} threads cannot be confined")
    _limit_resources()
    hold_privileges_back()
    _allow_only_folders({readable: READ, scratch: READ_AND_WRITE})
    allow_only_listed_calls()


def _limit_resources() -> None:
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY_MAX_BYTES),
        (resource.RLIMIT_FSIZE, FILE_MAX_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES_MAX),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def _allow_only_folders(rights: Mapping[Path, int]) -> None:
    """Deny every access to files that is not given for the folder above them (symbolic links count as their aim)."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(ASK_VERSION))
    if version < 1:
        raise ModelError(f"this kernel cannot keep a process to a folder (Landlock): {os.strerror(ctypes.get_errno())}")
    handled = (1 << RIGHTS_BY_VERSION[min(version, len(RIGHTS_BY_VERSION) - 1)]) - 1
    ruleset = _called(libc, CREATE_RULESET, struct.pack("=Q", handled), ctypes.c_size_t(8), ctypes.c_uint(0))
    for folder, allowed in rights.items():
        try:
            place = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            raise ModelError(f"no folder to keep a circuit to: {folder}: {error.strerror}") from error
        rule = struct.pack("=Qi", allowed & handled, place)
        _called(libc, ADD_RULE, ruleset, ctypes.c_int(RULE_PATH_BENEATH), rule, ctypes.c_uint(0))
        os.close(place)
    _called(libc, RESTRICT_SELF, ruleset, ctypes.c_uint(0))
    os.close(ruleset)


def _called(libc: ctypes.CDLL, number: int, *arguments: Any) -> int:
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise ModelError(f"this kernel cannot keep a process to a folder (Landlock): {os.strerror(ctypes.get_errno())}")
    return int(result)
