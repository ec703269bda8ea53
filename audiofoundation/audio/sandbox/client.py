"""The caller's side of the sandbox: starts the zygote, hands over bytes, reads the answer with distrust."""

import contextlib
import fcntl
import json
import os
import select
import signal
import struct
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from audiofoundation.audio.clipping import STEP_SAMPLES
from audiofoundation.audio.sandbox import protocol
from audiofoundation.audio.sandbox.formats import MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ
from audiofoundation.audio.sandbox.launcher import ForkedChild, ZygoteGone, fork_child
from audiofoundation.audio.sandbox.protocol import DecodeRequest, StreamEnd, StreamError, StreamInfo
from audiofoundation.audio.waveform import Samples
from audiofoundation.errors import DeadlineExceeded, DecodeFailed

_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031
_EXIT_WAIT_S = 5.0
_MAX_WORDS = 300
_Reply = TypeVar("_Reply", StreamInfo, StreamEnd, StreamError)


class ChildKilled(Exception):
    """The child ended without a verdict on its file: somebody killed it, or the zygote died."""


class SandboxedStream:
    """One decode in one child. Iterate once over the blocks; close (or leave the `with`) to kill the child.

    Args:
        input_fd: the bytes to decode; stays the caller's.
        request: what the child is to do.
        wall_s: how long to wait for the child in all, consumer's time not counted.

    Attributes:
        info: what the file was.
        end: set once the last block has been read.
        clipped_shares: float32 [steps], where they were asked for; complete once `end` is set.

    Raises:
        ChildKilled: retry; nothing is known about the file.
        DecodeFailed: the child crashed or broke the protocol.
        DeadlineExceeded: the time is used up.
    """

    def __init__(self, input_fd: int, request: DecodeRequest, *, wall_s: float) -> None:
        self._left_s = wall_s
        self._request = request
        self.end: StreamEnd | None = None
        self.error: StreamError | None = None
        self.clipped_shares = np.zeros(0, np.float32)
        self._child: ForkedChild | None = None
        self._data_fd, write_fd = os.pipe()
        try:
            _widen(self._data_fd)
            self._child = fork_child(request, input_fd=input_fd, output_fd=write_fd)
        except BaseException as error:
            self.close()
            if isinstance(error, ZygoteGone):
                raise ChildKilled(str(error)) from error
            raise
        finally:
            os.close(write_fd)

    def open(self) -> StreamInfo | None:
        """Read the first message; None when the child refused the file (see `error`)."""
        kind, payload = self._read_message()
        if kind == protocol.ERROR:
            self.error = _parse(StreamError, payload)
            return None
        if kind != protocol.INFO:
            raise _broken_protocol()
        info = _parse(StreamInfo, payload)
        _check(info, self._request)
        return info

    def blocks(self, info: StreamInfo) -> Iterator[Samples]:
        """Blocks float32 [channels, n] until `end` or `error` is set."""
        left_bytes = self._request.decoded_bytes
        while True:
            kind, payload = self._read_message()
            if kind == protocol.SAMPLES:
                left_bytes -= len(payload)
                is_whole = info.out_channels and not len(payload) % (4 * info.out_channels)
                if left_bytes < 0 or not payload or not is_whole:
                    raise _broken_protocol()
                yield np.frombuffer(payload, "<f4").reshape(-1, info.out_channels).T
            elif kind == protocol.CLIPPED:
                self._add_shares(payload)
            elif kind == protocol.DONE:
                self.end = _parse(StreamEnd, payload)
                return
            elif kind == protocol.ERROR:
                self.error = _parse(StreamError, payload)
                return
            else:
                raise _broken_protocol()

    def _add_shares(self, payload: memoryview) -> None:
        if not self._request.is_measured or not payload or len(payload) % 4:
            raise _broken_protocol()
        shares = np.concatenate([self.clipped_shares, np.frombuffer(payload, "<f4")])
        most = self._request.max_duration_s * MAX_RATE_HZ / STEP_SAMPLES + 2
        if len(shares) > most or not ((shares >= 0) & (shares <= 1)).all():
            raise _broken_protocol()
        self.clipped_shares = shares

    def close(self) -> None:
        """Kill the child if it still runs, and give back the descriptors."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._child.pidfd, signal.SIGKILL)
            os.close(self._child.pidfd)
            self._child.status.close()
            self._child = None
        if self._data_fd >= 0:
            os.close(self._data_fd)
            self._data_fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_message(self) -> tuple[bytes, memoryview]:
        kind, length = protocol.HEADER.unpack(self._read_exactly(protocol.HEADER.size))
        most = protocol.MAX_SAMPLE_BYTES if kind in (protocol.SAMPLES, protocol.CLIPPED) else protocol.MAX_JSON_BYTES
        if length > most:
            raise _broken_protocol()
        return kind, self._read_exactly(length)

    def _read_exactly(self, length: int) -> memoryview:
        data = view = np.empty(length, np.uint8).data  # unlike a bytearray not zeroed first
        while view:
            self._wait_readable()
            count = os.readv(self._data_fd, [view])
            if not count:
                raise self._why_it_ended()
            view = view[count:]
        return data

    def _wait_readable(self) -> None:
        poll = select.poll()
        poll.register(self._data_fd, select.POLLIN)
        start = time.monotonic()
        is_ready = poll.poll(max(0.0, self._left_s) * 1000)
        self._left_s -= time.monotonic() - start
        if not is_ready:
            raise DeadlineExceeded("The recording took too long to decode: try again or send a shorter one.")

    def _why_it_ended(self) -> Exception:
        """The pipe closed before the last message: ask the zygote how the child ended."""
        assert self._child is not None
        self._child.status.settimeout(_EXIT_WAIT_S)
        try:
            exit_code = int(protocol.STATUS.unpack(self._child.status.recv(protocol.STATUS.size))[0])
        except (OSError, struct.error):
            return ChildKilled("the decoder's parent process ended")
        if exit_code == -signal.SIGKILL:
            return ChildKilled("the decoder was killed")
        if exit_code == -signal.SIGXCPU:
            return DecodeFailed("The recording takes more computing to decode than is allowed.")
        return DecodeFailed("The decoder broke down on this file, which is damaged or made to do that.")


def _widen(fd: int) -> None:
    with contextlib.suppress(OSError):  # above the user's quota: smaller pipes are slower, nothing else
        fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_BYTES)


def _check(info: StreamInfo, request: DecodeRequest) -> None:
    is_plausible = (
        MIN_RATE_HZ <= info.sample_rate_hz <= MAX_RATE_HZ
        and 1 <= info.num_channels <= MAX_CHANNELS
        and info.out_rate_hz == (request.target_rate_hz or info.sample_rate_hz)
        and info.out_channels == request.channels_of(info.num_channels)
    )
    if not is_plausible:
        raise _broken_protocol()


def _parse(shape: type[_Reply], payload: memoryview) -> _Reply:
    try:
        fields = json.loads(bytes(payload))
        value = shape(**fields)
    except (ValueError, TypeError) as error:
        raise _broken_protocol() from error
    for name, kind in shape.__annotations__.items():
        found = getattr(value, name)
        if not isinstance(found, kind) or (isinstance(found, str) and not _is_presentable(found)):
            raise _broken_protocol()
    return value


def _is_presentable(words: str) -> bool:
    return len(words) <= _MAX_WORDS and words.isprintable()


def _broken_protocol() -> DecodeFailed:
    return DecodeFailed("The decoder gave no sensible answer for this file, which is damaged or made to do that.")
