"""A process that waits for the platform's end and then ends whatever the platform left running.

Direct children die with the platform by PR_SET_PDEATHSIG. Their own children (pool workers, decoders,
trainers) do not, so this process, which holds the other end of a pipe, finds them by STACK_ID. It imports the
standard library only and is run by path, to be up in milliseconds.
"""

import os
import sys
import time
from pathlib import Path

_SWEEPS = 20


def _marked(stack_id: str) -> list[int]:
    mark = f"AF_STACK_ID={stack_id}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if mark in environment.split(b"\0"):
                found.append(int(entry.name))
    return found


def main() -> None:
    """Block until standard input ends, then kill the marked processes until none is left."""
    while sys.stdin.buffer.read(4096):
        pass
    stack_id = os.environ["AF_STACK_ID"]
    for _ in range(_SWEEPS):
        left = _marked(stack_id)
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, 9)
            except OSError:
                continue
        time.sleep(0.05)


if __name__ == "__main__":
    main()
