import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEADLINE_S = 20.0
PARENT = """
import os, sys, time
from audiofoundation.embedded.spawn import spawn
child = spawn([sys.executable, "-c", "import time; time.sleep(60)"], env=dict(os.environ), niceness=3)
print(child.pid, os.getpriority(os.PRIO_PROCESS, child.pid) - os.getpriority(os.PRIO_PROCESS, 0), flush=True)
time.sleep(60)
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_child_dies_with_its_parent_and_is_nicer() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, niceness = map(int, parent.stdout.readline().split())
        assert is_running(pid)
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + DEADLINE_S
    while is_running(pid):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.02)
    assert niceness == 3


GUARDED = """
import os, sys, time
from audiofoundation.embedded import guardian
from audiofoundation.embedded.spawn import spawn
import subprocess
guard = spawn([sys.executable, guardian.__file__], env=dict(os.environ), niceness=0, can_outlive_us=True)
middle = spawn(
    [sys.executable, "-c",
     "import subprocess, sys, time;"
     "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True);"
     "print(p.pid, flush=True); time.sleep(60)"],
    env=dict(os.environ), niceness=0)
print(middle.stdout.readline().decode().strip(), flush=True)
time.sleep(60)
"""


def test_the_guardian_ends_grandchildren_of_a_killed_platform() -> None:
    env = {**os.environ, "AF_STACK_ID": f"test-{os.getpid()}-{time.monotonic_ns()}"}
    with subprocess.Popen([sys.executable, "-c", GUARDED], stdout=subprocess.PIPE, text=True, env=env) as platform:
        assert platform.stdout is not None
        grandchild = int(platform.stdout.readline())
        assert is_running(grandchild)
        os.kill(platform.pid, signal.SIGKILL)
    deadline = time.monotonic() + DEADLINE_S
    while is_running(grandchild):
        if time.monotonic() > deadline:
            os.kill(grandchild, signal.SIGKILL)
            pytest.fail("the grandchild outlived the platform")
        time.sleep(0.02)
