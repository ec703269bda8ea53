"""What a decoding process gives up before it sees a foreign byte.

Every step that a kernel may refuse to an ordinary process is best effort and reported
(`Confinement`); resource limits always hold.
"""

import gc
import os
import resource
import signal
from dataclasses import dataclass

from audiofoundation.audio.sandbox import seccomp

_CLONE_NEWNET, _CLONE_NEWUSER, _CLONE_NEWIPC = 0x40000000, 0x10000000, 0x08000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 1, 38, 4
_UNPRIVILEGED_ID = 65532
_MAX_FILES = 16
INPUT_FD, OUTPUT_FD = 3, 4
_FIRST_FREE_FD = 5


@dataclass(frozen=True, slots=True)
class Confinement:
    """Which of the kernel's best-effort walls stand around a decoding child, and what reads files in it.

    Attributes:
        has_network_namespace: it lies in a network namespace without any interface that is up.
        has_seccomp: it may make only the system calls that computing needs.
        is_unprivileged: it does not run as root.
        is_read_compiled: compiled code reads files, not PyAV.
    """

    has_network_namespace: bool
    has_seccomp: bool
    is_unprivileged: bool
    is_read_compiled: bool


def leave_network() -> bool:
    """Move this single-threaded process into an empty network namespace; False where that is refused.

    Root needs no user namespace for it; everybody else gets one in the same call.
    """
    flags = _CLONE_NEWNET | _CLONE_NEWIPC
    if os.geteuid() != 0:
        flags |= _CLONE_NEWUSER
    return bool(seccomp.libc().unshare(flags) == 0)


def drop_root() -> bool:
    """Become an ordinary user without groups; False where the process is root and may not."""
    if os.geteuid() != 0:
        return True
    try:
        os.setgroups([])
        os.setresgid(_UNPRIVILEGED_ID, _UNPRIVILEGED_ID, _UNPRIVILEGED_ID)
        os.setresuid(_UNPRIVILEGED_ID, _UNPRIVILEGED_ID, _UNPRIVILEGED_ID)
    except PermissionError:
        return False
    return True


def forbid_new_privileges() -> None:
    seccomp.libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    seccomp.libc().prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends."""
    seccomp.libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def keep_two_descriptors(input_fd: int, output_fd: int) -> None:
    """Close everything but the bytes (then descriptor 3), the pipe (4) and /dev/null (0 to 2)."""
    high_input, high_output = os.dup(input_fd), os.dup(output_fd)
    os.dup2(high_input, INPUT_FD)
    os.dup2(high_output, OUTPUT_FD)
    os.closerange(_FIRST_FREE_FD, os.sysconf("SC_OPEN_MAX"))


def limit_resources(*, cpu_s: int, memory_bytes: int) -> None:
    """Bound CPU seconds, address space, open files; allow no file to be written, no process, no core."""
    for kind, soft, hard in (
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),
        (resource.RLIMIT_AS, memory_bytes, memory_bytes),
        (resource.RLIMIT_NOFILE, _MAX_FILES, _MAX_FILES),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_NPROC, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        resource.setrlimit(kind, (soft, hard))


def restrict_system_calls() -> None:
    """Install the seccomp filter; the garbage collector stays off, as the process soon ends anyway."""
    gc.disable()
    seccomp.install()
