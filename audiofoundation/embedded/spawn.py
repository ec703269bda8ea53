"""Starting a child that cannot outlive us."""

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded here, before any fork


def adopt_orphans() -> bool:
    """Make this process the parent of descendants whose own parent dies; return whether the system can."""
    return bool(_LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def spawn(
    argv: Sequence[str], *, env: Mapping[str, str], niceness: int, can_outlive_us: bool = False
) -> subprocess.Popen[bytes]:
    """Start `argv` in a session of its own, its stdout and stderr in one pipe.

    Call it from the main thread only: the kernel ties PR_SET_PDEATHSIG to the thread that forked. A child
    that can outlive us gets a pipe from us as its standard input, and sees it close when we are gone.

    Raises:
        OSError: the program cannot be started.
    """
    parent = os.getpid()

    def prepare() -> None:
        if not can_outlive_us:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:  # we died between fork and prctl
                os._exit(1)
        if niceness:
            os.nice(niceness)

    return subprocess.Popen(
        list(argv),
        env=dict(env),
        stdin=subprocess.PIPE if can_outlive_us else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=prepare,
    )
