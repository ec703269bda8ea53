"""The process that has the decoders loaded and forks one disposable child per file.

Started by `client.py` as `python -I -c "…; main(fd)"`. Single-threaded. It ends when its control socket
does, that is when its caller ends, however that happens; the kernel kills its children with it.
"""

import array
import contextlib
import gc
import json
import os
import select
import socket
import sys
from dataclasses import asdict

from audiofoundation.audio.sandbox import confinement, media, seccomp
from audiofoundation.audio.sandbox.protocol import MAX_JSON_BYTES, STATUS, DecodeRequest

_NUM_DESCRIPTORS = 3
_REHEARSAL = DecodeRequest("wav", 10.0, 1e9, 1 << 20, 16000, 1, 10, 1 << 30, is_measured=True)


def main(control_fd: int) -> None:
    """Serve decode requests from the control socket until it closes."""
    control = socket.socket(fileno=control_fd)
    media.warm_up()
    has_network_namespace = confinement.leave_network()
    is_unprivileged = confinement.drop_root()
    confinement.forbid_new_privileges()
    gc.collect()
    gc.freeze()  # children share these pages; a collection would touch and so copy them
    report = confinement.Confinement(
        has_network_namespace, _rehearse_seccomp(), is_unprivileged, media.is_read_compiled()
    )
    control.send(json.dumps(asdict(report)).encode())
    _Zygote(control, has_seccomp=report.has_seccomp).serve()


def _rehearse_seccomp() -> bool:
    """Decode one second of silence in a fully confined child: does this kernel let it?"""
    if not seccomp.is_supported():
        return False
    seccomp.prepare()
    input_fd = os.memfd_create("rehearsal")
    os.write(input_fd, media.silent_wav())
    read_fd, write_fd = os.pipe()
    pid = _fork_child(_REHEARSAL, input_fd, write_fd, has_seccomp=True)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as result:
        is_done = media.is_complete(result.read())
    os.close(input_fd)
    return os.waitpid(pid, 0)[1] == 0 and is_done


class _Zygote:
    def __init__(self, control: socket.socket, *, has_seccomp: bool) -> None:
        self._control = control
        self._has_seccomp = has_seccomp
        self._epoll = select.epoll()
        self._children: dict[int, tuple[int, socket.socket]] = {}  # pidfd: pid, status socket

    def serve(self) -> None:
        control_fd = self._control.fileno()
        self._epoll.register(control_fd, select.EPOLLIN)
        while True:
            for fd, _ in self._epoll.poll():
                if fd != control_fd:
                    self._reap(fd)
                elif not self._accept():
                    return

    def _accept(self) -> bool:
        data, descriptors = _receive(self._control)
        if not data:
            return False
        if len(descriptors) != _NUM_DESCRIPTORS:
            for fd in descriptors:
                os.close(fd)
            return True
        input_fd, output_fd, status_fd = descriptors
        status = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, status_fd)
        try:
            pid = _fork_child(DecodeRequest.from_json(data), input_fd, output_fd, has_seccomp=self._has_seccomp)
        except OSError:
            status.close()  # no process to be had now: this is how the caller learns it
        else:
            self._watch(pid, status)
        finally:
            os.close(input_fd)
            os.close(output_fd)
        return True

    def _watch(self, pid: int, status: socket.socket) -> None:
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = (pid, status)
        self._epoll.register(pidfd, select.EPOLLIN)
        with contextlib.suppress(OSError):
            status.sendmsg([b"pidfd"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [pidfd]).tobytes())])

    def _reap(self, pidfd: int) -> None:
        pid, status = self._children.pop(pidfd)
        self._epoll.unregister(pidfd)
        os.close(pidfd)
        exit_code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.closing(status), contextlib.suppress(OSError):
            status.send(STATUS.pack(exit_code))


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    data, ancillary, _, _ = control.recvmsg(MAX_JSON_BYTES, socket.CMSG_SPACE(4 * _NUM_DESCRIPTORS))
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    return data, list(descriptors)


def _fork_child(request: DecodeRequest, input_fd: int, output_fd: int, *, has_seccomp: bool) -> int:
    zygote_pid = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        confinement.die_with_parent(zygote_pid)
        confinement.keep_two_descriptors(input_fd, output_fd)
        confinement.limit_resources(cpu_s=request.cpu_s, memory_bytes=request.memory_bytes)
        if has_seccomp:
            confinement.restrict_system_calls()
        media.decode_descriptor(request, confinement.INPUT_FD, confinement.OUTPUT_FD)
    except BaseException:  # a fork must never return into the loop of the zygote
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
