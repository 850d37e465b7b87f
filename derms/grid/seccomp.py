"""The system calls left to a process that reads foreign circuit text: a seccomp filter, built by hand.

A list of what is allowed, not of what is forbidden: whatever is not in it (processes and threads, sockets, other
processes' memory, io_uring, limits, attributes of files) answers ENOSYS, as on a kernel that does not have it, which
the C library can deal with. Memory may be mapped, but never executable: no library is loaded any more. Which files may
be opened is not decided here: see `derms.grid.confine`.

Numbers are those of <asm/unistd_64.h> (x86-64) and <asm-generic/unistd.h> (aarch64).
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Mapping
from typing import Any

from derms.errors import ModelError

AUDIT_ARCH: Mapping[str, int] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""What the kernel calls the processors that there is a table for (<linux/audit.h>)."""

ALLOWED: Mapping[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "pread64": (17, 67),
    "close": (3, 57),
    "lseek": (8, 62),
    "flock": (73, 32),
    "ftruncate": (77, 46),
    "open": (2, None),
    "openat": (257, 56),
    "getdents64": (217, 61),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getcwd": (79, 17),
    "brk": (12, 214),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "futex": (202, 98),
    "sched_yield": (24, 124),
    "rseq": (334, 293),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "setitimer": (38, 103),
    "restart_syscall": (219, 128),
    "gettimeofday": (96, 169),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "getrandom": (318, 278),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
"""Numbers on x86-64 and on aarch64, None where it does not exist."""
ALLOWED_WITHOUT_EXEC: Mapping[str, tuple[int, int]] = {"mmap": (9, 222), "mprotect": (10, 226)}
"""Those whose third argument must not ask for executable memory."""

PROT_EXEC = 4

INSTRUCTION = "=HBBI"
# Instructions of classic BPF (<linux/bpf_common.h>) and offsets in struct seccomp_data (<linux/seccomp.h>).
LOAD, JUMP_IF_EQUAL, JUMP_IF_BITS, RETURN = 0x20, 0x15, 0x45, 0x06
NUMBER_AT, ARCH_AT, THIRD_ARGUMENT_AT = 0, 4, 32
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    """struct sock_fprog (<linux/filter.h>)."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def filter_program(machine: str) -> bytes:
    """The filter for a processor as `platform.machine()` names it; raises ModelError where there is no table for it."""
    if machine not in AUDIT_ARCH:
        raise ModelError(f"no table of system calls for {machine!r}, only for {', '.join(AUDIT_ARCH)}")
    column = list(AUDIT_ARCH).index(machine)
    program = [
        _instruction(LOAD, ARCH_AT),
        _instruction(JUMP_IF_EQUAL, AUDIT_ARCH[machine], then=1),
        _instruction(RETURN, KILL),
        _instruction(LOAD, NUMBER_AT),
    ]
    for numbers in ALLOWED.values():
        number = numbers[column]
        if number is not None:
            program += [_instruction(JUMP_IF_EQUAL, number, otherwise=1), _instruction(RETURN, ALLOW)]
    for numbers in ALLOWED_WITHOUT_EXEC.values():
        program += [
            _instruction(JUMP_IF_EQUAL, numbers[column], otherwise=4),
            _instruction(LOAD, THIRD_ARGUMENT_AT),
            _instruction(JUMP_IF_BITS, PROT_EXEC, otherwise=1),
            _instruction(RETURN, ERRNO | errno.EPERM),
            _instruction(RETURN, ALLOW),
        ]
    program.append(_instruction(RETURN, ERRNO | errno.ENOSYS))
    return b"".join(program)


def hold_privileges_back() -> None:
    """No program that this process starts gains rights: the kernel asks for that before a process confines itself."""
    _prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), "this kernel does not hold privileges back")


def allow_only_listed_calls() -> None:
    """Put the filter over this thread, for good; privileges are held back before.

    Raises ModelError where the kernel does not take it.
    """
    code = filter_program(platform.machine())
    program = _Program(len(code) // struct.calcsize(INSTRUCTION), code)
    mode = ctypes.c_ulong(SECCOMP_MODE_FILTER)
    _prctl(PR_SET_SECCOMP, mode, "this kernel takes no filter of system calls (seccomp)", ctypes.byref(program))


def _prctl(option: int, argument: ctypes.c_ulong, failure: str, pointer: Any = None) -> None:
    zero = ctypes.c_ulong(0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, argument, zero if pointer is None else pointer, zero, zero) != 0:
        raise ModelError(f"{failure}: {os.strerror(ctypes.get_errno())}")


def _instruction(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack(INSTRUCTION, code, then, otherwise, value)
