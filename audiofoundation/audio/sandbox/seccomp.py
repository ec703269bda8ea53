"""A seccomp filter for a process that only computes, reads what it has open and writes to its pipe.

An allow-list: whatever is not on it fails with EPERM, so a decoder that is taken over can open no file,
reach no address, start no program and signal no process.
"""

import ctypes
import os
import platform
import struct
from functools import cache

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_LOAD_WORD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_RET_ALLOW, _RET_EPERM, _RET_KILL_PROCESS = 0x7FFF0000, 0x00050001, 0x80000000
_OFFSET_NR, _OFFSET_ARCH = 0, 4
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# name: (x86_64, aarch64); None where the architecture lacks the call.
_ALLOWED: dict[str, tuple[int | None, int]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "poll": (7, 73),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "writev": (20, 66),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "exit": (60, 93),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "getrandom": (318, 278),
    "rseq": (334, 293),
}


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def is_supported() -> bool:
    """Whether the table knows this machine's system calls."""
    return platform.machine() in _ARCHITECTURES


def prepare() -> None:
    """Build the filter and look up prctl, so that forks of this process find both: most of a millisecond each."""
    _filter()
    _ = libc().prctl


def install() -> None:
    """Confine the calling process for good.

    Raises:
        OSError: the kernel does not allow filters.
    """
    header, _ = _filter()
    prctl = libc().prctl
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    if prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(header), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@cache
def libc() -> ctypes.CDLL:
    """The C library; forks find the functions that were looked up before them."""
    return ctypes.CDLL(None, use_errno=True)


@cache
def _filter() -> "tuple[_SockFprog, ctypes.Array[ctypes.c_char]]":
    """The filter as the kernel takes it, and the memory that it points to."""
    program = _program(platform.machine())
    memory = ctypes.create_string_buffer(program, len(program))
    return _SockFprog(len(program) // 8, ctypes.addressof(memory)), memory


def _program(machine: str) -> bytes:
    column = 0 if machine == "x86_64" else 1
    numbers = [row[column] for row in _ALLOWED.values()]
    calls = [number for number in numbers if number is not None]
    lines = [
        _instruction(_LOAD_WORD, 0, 0, _OFFSET_ARCH),
        _instruction(_JUMP_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        _instruction(_RETURN, 0, 0, _RET_KILL_PROCESS),
        _instruction(_LOAD_WORD, 0, 0, _OFFSET_NR),
    ]
    for number in calls:
        lines.append(_instruction(_JUMP_EQUAL, 0, 1, number))
        lines.append(_instruction(_RETURN, 0, 0, _RET_ALLOW))
    lines.append(_instruction(_RETURN, 0, 0, _RET_EPERM))
    return b"".join(lines)


def _instruction(code: int, if_true: int, if_false: int, operand: int) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)
