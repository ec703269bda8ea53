"""The walls around a decoding child, and what happens when parts of the sandbox are killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from audiofoundation.audio.decode import DecodeLimits, decode, decode_blocks, decode_file
from audiofoundation.audio.encode import AudioFormat, encode
from audiofoundation.audio.sandbox import launcher, seccomp
from audiofoundation.audio.waveform import Waveform
from audiofoundation.errors import Overloaded

TONE = encode(Waveform((0.3 * np.sin(np.arange(24000) * 0.05)).astype(np.float32)[None], 24000), AudioFormat.FLAC)
# A child cannot be done with it before it is read, and so can be killed in time.
MORE_THAN_A_PIPE_HOLDS = encode(Waveform(np.zeros((1, 24000 * 60), np.float32), 24000), AudioFormat.FLAC)


def zygote_pid() -> int:
    launcher.confinement()  # starts it
    assert launcher._zygote is not None
    return launcher._zygote._process.pid


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until_gone(pid: int, *, within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.01)
    pytest.fail(f"process {pid} still runs")


def test_zygote_has_no_privileges_and_an_environment_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AF_STORAGE__SECRET_KEY", "canary")
    launcher.stop_zygote()
    pid = zygote_pid()

    status = Path(f"/proc/{pid}/status").read_text()

    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status or launcher.confinement().has_network_namespace
    if os.geteuid() == 0:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"canary" not in environment
        assert launcher.confinement().is_unprivileged
        assert "Uid:\t65532" in status


def test_network_namespace_differs_where_the_kernel_allows_one() -> None:
    if not launcher.confinement().has_network_namespace:
        pytest.skip("this kernel or container allows no network namespace")
    if os.geteuid() != 0:
        pytest.skip("only root may look into the other namespace")

    assert Path(f"/proc/{zygote_pid()}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()


@pytest.mark.skipif(not seccomp.is_supported(), reason="no system call table for this machine")
@pytest.mark.parametrize(
    "attempt",
    [
        "open('/etc/passwd')",
        "open('/tmp/made-by-a-decoder', 'w')",
        "__import__('socket').socket()",
        "__import__('os').fork()",
        "__import__('os').execv('/bin/true', ['true'])",
        "__import__('os').kill(__import__('os').getppid(), 9)",
        "__import__('os').unlink('/tmp/made-by-a-decoder')",
        "__import__('os').listdir('/')",
    ],
)
def test_confined_process_may_not_reach_out(attempt: str) -> None:
    code = (
        "import os, socket, sys\n"
        "from audiofoundation.audio.sandbox import seccomp\n"
        "seccomp.install()\n"
        f"try:\n    {attempt}\n"
        "except PermissionError:\n    os._exit(42)\n"
        "os._exit(1)\n"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 42


def test_killed_zygote_is_replaced(limits: DecodeLimits) -> None:
    first = zygote_pid()
    os.kill(first, signal.SIGKILL)
    wait_until_gone(first)

    decoded = decode(TONE, limits=limits)

    assert decoded.waveform.num_samples == 24000
    assert zygote_pid() != first


def test_decodes_survive_a_zygote_that_is_killed_again_and_again(limits: DecodeLimits) -> None:
    results: list[int] = []
    num_overloaded: list[int] = []
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            try:
                results.append(decode(TONE, limits=limits).waveform.num_samples)
            except Overloaded:  # allowed when it hits one decode three times; nothing else is
                num_overloaded.append(1)

    with ThreadPoolExecutor(3) as pool:
        workers = [pool.submit(work) for _ in range(3)]
        for _ in range(5):
            os.kill(zygote_pid(), signal.SIGKILL)
            seen = len(results)
            deadline = time.monotonic() + 30
            while len(results) < seen + 3 and time.monotonic() < deadline:
                time.sleep(0.01)
        is_over.set()
        for worker in workers:
            worker.result(60)

    assert len(results) >= 15
    assert set(results) == {24000}
    assert len(num_overloaded) < len(results)


def test_killed_child_is_retried(limits: DecodeLimits, monkeypatch: pytest.MonkeyPatch) -> None:
    from audiofoundation.audio.sandbox import client

    asked = []
    fork_child = launcher.fork_child

    def fork_and_kill(*args: object, **kwargs: object) -> launcher.ForkedChild:
        child = fork_child(*args, **kwargs)  # type: ignore[arg-type]
        asked.append(child)
        if len(asked) < 3:
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        return child

    monkeypatch.setattr(client, "fork_child", fork_and_kill)

    assert decode(MORE_THAN_A_PIPE_HOLDS, limits=limits).waveform.num_samples == 60 * 24000
    assert len(asked) == 3


def test_child_that_is_always_killed_gives_a_retryable_error(
    limits: DecodeLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    from audiofoundation.audio.sandbox import client

    fork_child = launcher.fork_child

    def fork_and_kill(*args: object, **kwargs: object) -> launcher.ForkedChild:
        child = fork_child(*args, **kwargs)  # type: ignore[arg-type]
        signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        return child

    monkeypatch.setattr(client, "fork_child", fork_and_kill)

    with pytest.raises(Overloaded) as overloaded:
        decode(MORE_THAN_A_PIPE_HOLDS, limits=limits)
    assert overloaded.value.retryable


def test_abandoned_stream_leaves_no_child(limits: DecodeLimits) -> None:
    long = encode(Waveform(np.zeros((1, 24000 * 300), np.float32), 24000), AudioFormat.FLAC)
    stream = decode_blocks(long, limits=limits, block_s=1)
    next(stream)
    (child,) = children_of(zygote_pid())

    stream.close()

    wait_until_gone(child)


def test_zygote_and_child_die_with_a_killed_caller(tmp_path: Path) -> None:
    audio = tmp_path / "long.flac"
    audio.write_bytes(encode(Waveform(np.zeros((1, 24000 * 300), np.float32), 24000), AudioFormat.FLAC))
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from audiofoundation.audio.decode import DecodeLimits, decode_blocks\n"
        "from audiofoundation.audio.sandbox import launcher\n"
        f"stream = decode_blocks(Path({str(audio)!r}), limits=DecodeLimits(max_duration_s=600, max_bytes=1 << 30))\n"
        "next(stream)\nprint(launcher._zygote._process.pid, flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None
        zygote = int(caller.stdout.readline())
        (child,) = children_of(zygote)
        caller.kill()

    wait_until_gone(zygote)
    wait_until_gone(child)


def test_fork_of_the_caller_starts_a_zygote_of_its_own(limits: DecodeLimits) -> None:
    parents = zygote_pid()
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            has_all = decode(TONE, limits=limits).waveform.num_samples == 24000
            os.write(write_fd, f"{has_all} {zygote_pid()}".encode())
            launcher.stop_zygote()
        finally:
            os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as answer:
        is_whole, forks = answer.read().decode().split()
    os.waitpid(pid, 0)

    assert is_whole == "True"
    assert int(forks) != parents == zygote_pid()
    assert decode(TONE, limits=limits).waveform.num_samples == 24000


def test_many_threads_decode_at_once(originals: Path, limits: DecodeLimits) -> None:
    path = originals / "speech_8k.flac"
    expected = decode_file(path, limits=limits).waveform.samples

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: decode_file(path, limits=limits), range(24)))

    assert all(np.array_equal(result.waveform.samples, expected) for result in results)


def test_descriptors_do_not_leak(limits: DecodeLimits) -> None:
    decode(TONE, limits=limits)
    before = len(list(Path("/proc/self/fd").iterdir()))
    zygote_before = len(list(Path(f"/proc/{zygote_pid()}/fd").iterdir())) if os.geteuid() == 0 else 0

    for _ in range(10):
        decode(TONE, limits=limits)

    assert len(list(Path("/proc/self/fd").iterdir())) == before
    if os.geteuid() == 0:
        deadline = time.monotonic() + 5
        while (now := len(list(Path(f"/proc/{zygote_pid()}/fd").iterdir()))) > zygote_before:
            assert time.monotonic() < deadline, f"{now} descriptors, {zygote_before} before"
