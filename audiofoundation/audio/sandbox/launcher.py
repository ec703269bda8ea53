"""Starts this process's zygote, once, and again when it has died."""

import array
import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from audiofoundation.audio.sandbox.confinement import Confinement
from audiofoundation.audio.sandbox.protocol import MAX_JSON_BYTES, DecodeRequest
from audiofoundation.errors import InternalError
from audiofoundation.native import OFF

_START_S = 60.0
_FORK_S = 20.0
_EXIT_S = 2.0
_ROOT = Path(__file__).resolve().parents[3]
_CODE = "import sys; sys.path.insert(0, {root!r}); from audiofoundation.audio.sandbox.zygote import main; main({fd})"
# One thread each: a fork carries over one thread only. Of our own environment only the kernels' switch is passed on.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": os.defpath, "LC_ALL": "C.UTF-8"}


class ZygoteGone(Exception):
    """The zygote died while it was asked; the next question starts a new one."""


def _start_process(control_fd: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _CODE.format(root=str(_ROOT), fd=control_fd)],
        pass_fds=(control_fd,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**_ENVIRONMENT, OFF: os.environ.get(OFF, "1")},
        cwd="/",
        start_new_session=True,  # a Ctrl-C at the terminal is the caller's business
    )


class _Zygote:
    """A running zygote and the socket to it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = _start_process(theirs.fileno())
        except OSError as error:
            self._socket.close()
            raise InternalError(
                f"The decoder's process did not start ({error.strerror}): too many processes or too little memory?"
            ) from error
        finally:
            theirs.close()
        self._socket.settimeout(_START_S)
        self.confinement = self._read_report()

    def _read_report(self) -> Confinement:
        try:
            report = self._socket.recv(MAX_JSON_BYTES)
        except OSError:
            report = b""
        if not report:
            self.stop()
            raise InternalError(
                f"The decoder's process did not start (exit status {self._process.returncode}): "
                "run `audiofoundation doctor`."
            )
        return Confinement(**json.loads(report))

    def send(self, request: DecodeRequest, descriptors: tuple[int, int, int]) -> None:
        rights = array.array("i", descriptors).tobytes()
        try:
            self._socket.sendmsg([request.to_json()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except OSError as error:
            raise ZygoteGone("the decoder's parent process ended") from error

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # own and children's, user and system

    def stop(self) -> None:
        """End it by closing its socket, and collect it."""
        self._socket.close()
        try:
            self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """In a fork of the caller: the zygote is the parent's; only close our copy of the socket."""
        self._socket.close()
        self._process.returncode = 0


_lock = threading.Lock()
_zygote: _Zygote | None = None


@dataclass(frozen=True, slots=True)
class ForkedChild:
    """A decoding child: what it is killed by, and the socket on which its exit is told."""

    pidfd: int
    status: socket.socket


def fork_child(request: DecodeRequest, *, input_fd: int, output_fd: int) -> ForkedChild:
    """Have the zygote fork a child for this request; the caller closes what it gets and what it gave.

    Raises:
        ZygoteGone: ask again.
        InternalError: no zygote can be started on this machine.
    """
    zygote = _running()
    status, child_status = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with contextlib.closing(child_status):  # closed before we wait, so that a death is seen as one
            zygote.send(request, (input_fd, output_fd, child_status.fileno()))
        return ForkedChild(_receive_pidfd(status), status)
    except ZygoteGone:
        status.close()
        _discard(zygote)
        raise


def confinement() -> Confinement:
    """What walls this machine's kernel lets stand around a decoding child. Starts the zygote."""
    return _running().confinement


def sandbox_cpu_s() -> float:
    """CPU seconds that this process's zygote and its finished children have used; 0 without a zygote."""
    with _lock:
        return 0.0 if _zygote is None else _zygote.cpu_s()


def stop_zygote() -> None:
    """End this process's zygote, if there is one; the next decode starts another."""
    with _lock:
        _stop_locked()


def _running() -> _Zygote:
    global _zygote
    with _lock:
        if _zygote is None:
            _zygote = _Zygote()
        return _zygote


def _discard(dead: _Zygote) -> None:
    global _zygote
    with _lock:
        if _zygote is dead:
            _zygote = None
            dead.stop()


def _stop_locked() -> None:
    global _zygote
    if _zygote is not None:
        _zygote.stop()
        _zygote = None


def _receive_pidfd(status: socket.socket) -> int:
    status.settimeout(_FORK_S)
    try:
        data, ancillary, _, _ = status.recvmsg(64, socket.CMSG_SPACE(4))
    except OSError as error:
        raise ZygoteGone("the decoder's parent process does not answer") from error
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and data:
            return int.from_bytes(payload[:4], sys.byteorder)
    raise ZygoteGone("the decoder's parent process ended or could start no child")


def _after_fork() -> None:
    """A forked copy of this process must not talk to its parent's zygote."""
    global _zygote, _lock
    _lock = threading.Lock()
    if _zygote is not None:
        _zygote.forget()
        _zygote = None


os.register_at_fork(after_in_child=_after_fork)
atexit.register(stop_zygote)
