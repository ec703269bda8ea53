"""Untrusted media to waveforms, through the sandbox (`audiofoundation.audio.sandbox`).

Whole recordings come as one `Waveform`; long ones as blocks with bounded memory. Several threads and
forked processes may decode at the same time.
"""

import contextlib
import math
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from audiofoundation.audio.clipping import STEP_SAMPLES, UNCLIPPED, Clipping
from audiofoundation.audio.magic import HEAD_BYTES, Container, recognise
from audiofoundation.audio.sandbox.client import ChildKilled, SandboxedStream
from audiofoundation.audio.sandbox.launcher import confinement
from audiofoundation.audio.sandbox.protocol import DecodeRequest, MaxChannels, StreamError, StreamInfo
from audiofoundation.audio.waveform import Samples, Waveform
from audiofoundation.errors import AudioTooLong, DecodeFailed, Overloaded, PayloadTooLarge

_NUM_TRIES = 3
_Form = tuple[int | None, MaxChannels, bool]  # rate, channels, whether clipping is measured
_LEAST_VALUES = 1 << 16  # of a block taken as it comes, but the last
_PCM_BYTES = 2  # expansion is counted in 16-bit samples
_places = threading.BoundedSemaphore(max(4, 2 * (os.cpu_count() or 1)))


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What one recording may cost.

    Attributes:
        max_duration_s: longer audio is refused as soon as that much has been decoded.
        max_bytes: of the encoded file.
        max_expansion: decoded (as 16-bit samples) over encoded bytes, for audio over a minute.
        wall_s: time to wait for the decoder.
        cpu_s: its CPU time.
        memory_bytes: its address space; also the most that `decode` gives back.
    """

    max_duration_s: float
    max_bytes: int
    max_expansion: float = 2000
    wall_s: float = 120
    cpu_s: float = 60
    memory_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """The source as it was found, before any mixing or resampling; names are ffmpeg's."""

    container: str
    codec: str
    sample_rate_hz: int
    num_channels: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded recording. `damage` is a sentence when something in it did not decode; what came before
    is the waveform."""

    waveform: Waveform
    info: AudioInfo
    damage: str | None


def prepare_decoder() -> None:
    """Start the process that forks decoders, which the first recording would otherwise wait for.

    Raises:
        InternalError: it does not start on this machine.
    """
    confinement()


def decode(data: bytes, *, limits: DecodeLimits, target_rate_hz: int | None = None, is_mono: bool = False) -> Decoded:
    """Decode a whole file.

    Args:
        data: the file.
        limits: what it may cost.
        target_rate_hz: resample to this; None keeps the file's rate.
        is_mono: give the mean of the channels.

    Raises:
        DecodeFailed: it is not audio, or too damaged for a single sample; the message says which.
        AudioTooLong: it lasts longer, or expands further, than allowed.
        PayloadTooLarge: the file is larger than allowed.
        DeadlineExceeded, Overloaded: try again.
    """
    with _as_descriptor(data, limits) as source, _places:
        return _retrying(source, limits, target_rate_hz, 1 if is_mono else None)


def decode_file(
    path: Path, *, limits: DecodeLimits, target_rate_hz: int | None = None, is_mono: bool = False
) -> Decoded:
    """As `decode`, for a file on disk, which is not read into this process."""
    with _open_file(path, limits) as source, _places:
        return _retrying(source, limits, target_rate_hz, 1 if is_mono else None)


def decode_blocks(
    source: Path | bytes,
    *,
    limits: DecodeLimits,
    target_rate_hz: int | None = None,
    max_channels: MaxChannels = None,
    block_s: float | None = 10.0,
    is_measured: bool = False,
) -> "DecodedBlocks":
    """Decode piece by piece with bounded memory; other arguments and errors as `decode`.

    Args:
        max_channels: 1 gives the mean of the channels, 2 left and right of more than two (`mix_to_stereo`), None all,
            0 no samples: what the file is and whether all of it decodes is known all the same.
        block_s: length of a block; None takes them as they come, of up to a mebibyte, which costs least.
        is_measured: measure clipping, of all channels at the recording's own rate.

    Returns:
        An iterator over waveforms of `block_s` seconds (the last is shorter). Errors may come midway.
    """
    opened = _open_file(source, limits) if isinstance(source, Path) else _as_descriptor(source, limits)
    return DecodedBlocks(opened, limits, (target_rate_hz, max_channels, is_measured), block_s)


class DecodedBlocks(Iterator[Waveform]):
    """A decode in progress. `info.duration_s`, `damage` and `clipping` are known when the blocks are used up."""

    def __init__(
        self,
        source: "contextlib.AbstractContextManager[_Source]",
        limits: DecodeLimits,
        form: "_Form",
        block_s: float | None,
    ) -> None:
        self.info: AudioInfo | None = None
        self.damage: str | None = None
        self.clipping = UNCLIPPED
        self._blocks = self._generate(source, limits, form, block_s)

    def _generate(
        self,
        opening: "contextlib.AbstractContextManager[_Source]",
        limits: DecodeLimits,
        form: "_Form",
        block_s: float | None,
    ) -> Iterator[Waveform]:
        with opening as source:
            request = _request(source, limits, *form, decoded_bytes=1 << 62)
            stream, info = _open_retrying(source, request, limits)
            with stream:
                blocks = stream.blocks(info)
                for samples in _gather(blocks) if block_s is None else _regroup(blocks, block_s, info.out_rate_hz):
                    yield Waveform(samples, info.out_rate_hz)
                self.info, self.damage = _conclude(stream, info, source, limits)
                self.clipping = Clipping(STEP_SAMPLES / info.sample_rate_hz, stream.clipped_shares)

    def __next__(self) -> Waveform:
        return next(self._blocks)

    def close(self) -> None:
        """Stop decoding; no more blocks come."""
        self._blocks.close()  # type: ignore[attr-defined]  # it is a generator

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _Source:
    fd: int
    num_bytes: int
    container: Container


@contextlib.contextmanager
def _as_descriptor(data: bytes, limits: DecodeLimits) -> Iterator[_Source]:
    _check_size(len(data), limits)
    container = recognise(data[:HEAD_BYTES])
    fd = os.memfd_create("media", os.MFD_CLOEXEC)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        yield _Source(fd, len(data), container)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _open_file(path: Path, limits: DecodeLimits) -> Iterator[_Source]:
    try:
        if not path.is_file():  # opening a pipe would wait for its writer
            raise DecodeFailed("The path names no file that exists: name a recording.")
        file = path.open("rb")
    except OSError as error:
        raise DecodeFailed(f"The file cannot be read: {error.strerror}.") from error
    with file:
        num_bytes = os.fstat(file.fileno()).st_size
        _check_size(num_bytes, limits)
        yield _Source(file.fileno(), num_bytes, recognise(file.read(HEAD_BYTES)))


def _check_size(num_bytes: int, limits: DecodeLimits) -> None:
    if num_bytes > limits.max_bytes:
        raise PayloadTooLarge(f"The file has {num_bytes} bytes; at most {limits.max_bytes} are allowed.")


def _retrying(source: _Source, limits: DecodeLimits, target_rate_hz: int | None, max_channels: MaxChannels) -> Decoded:
    request = _request(source, limits, target_rate_hz, max_channels, decoded_bytes=limits.memory_bytes)
    for _ in range(_NUM_TRIES):
        try:
            return _decode_once(source, request, limits)
        except ChildKilled as killed:
            last = killed
    raise Overloaded("The decoder was stopped from outside several times: try again.") from last


def _decode_once(source: _Source, request: DecodeRequest, limits: DecodeLimits) -> Decoded:
    with SandboxedStream(source.fd, request, wall_s=limits.wall_s) as stream:
        info = stream.open()
        if info is None:
            raise _refusal(stream.error, source, limits)
        samples = _join(list(stream.blocks(info)), info.out_channels)
        audio_info, damage = _conclude(stream, info, source, limits)
    return Decoded(Waveform(samples, info.out_rate_hz), audio_info, damage)


def _open_retrying(source: _Source, request: DecodeRequest, limits: DecodeLimits) -> tuple[SandboxedStream, StreamInfo]:
    for _ in range(_NUM_TRIES):
        stream = None
        try:
            stream = SandboxedStream(source.fd, request, wall_s=limits.wall_s)
            info = stream.open()
            if info is None:
                raise _refusal(stream.error, source, limits)
        except ChildKilled as killed:
            last = killed
            if stream is not None:
                stream.close()
        except BaseException:
            if stream is not None:
                stream.close()
            raise
        else:
            return stream, info
    raise Overloaded("The decoder was stopped from outside several times: try again.") from last


def _request(
    source: _Source,
    limits: DecodeLimits,
    target_rate_hz: int | None,
    max_channels: MaxChannels,
    is_measured: bool = False,
    *,
    decoded_bytes: int,
) -> DecodeRequest:
    return DecodeRequest(
        demuxer=source.container.demuxer,
        max_duration_s=limits.max_duration_s,
        expansion_bytes=limits.max_expansion * source.num_bytes,
        decoded_bytes=decoded_bytes,
        target_rate_hz=target_rate_hz,
        max_channels=max_channels,
        cpu_s=max(1, math.ceil(limits.cpu_s)),
        memory_bytes=limits.memory_bytes,
        is_measured=is_measured,
    )


def _conclude(
    stream: SandboxedStream, info: StreamInfo, source: _Source, limits: DecodeLimits
) -> tuple[AudioInfo, str | None]:
    if stream.end is None:
        raise _refusal(stream.error, source, limits)
    duration_s = stream.end.num_source_samples / info.sample_rate_hz
    found = AudioInfo(info.container, info.codec, info.sample_rate_hz, info.num_channels, duration_s)
    return found, stream.end.damage


def _refusal(error: StreamError | None, source: _Source, limits: DecodeLimits) -> AudioTooLong | DecodeFailed:
    reason = error.message if error is not None else "it holds no audio"
    if error is not None and error.kind == "too_long":
        return AudioTooLong(f"The recording is longer than {limits.max_duration_s:g} s ({reason}): send a shorter one.")
    if error is not None and error.kind == "too_large":
        return AudioTooLong(f"The recording is refused: {reason}. Send a shorter one.")
    return DecodeFailed(f"The file begins like {source.container.label}, but no audio could be read from it: {reason}.")


def _join(blocks: list[Samples], num_channels: int) -> Samples:
    """One array [channels, n]; each block is let go as soon as it has been copied."""
    joined = np.empty((num_channels, sum(block.shape[1] for block in blocks)), np.float32)
    start = 0
    blocks.reverse()
    while blocks:
        block = blocks.pop()
        joined[:, start : start + block.shape[1]] = block
        start += block.shape[1]
    return joined


def _gather(blocks: Iterator[Samples]) -> Iterator[Samples]:
    """Blocks as they come, small ones joined: nobody is to be swamped with them by a decoder that went astray."""
    pending: list[Samples] = []
    num_values = 0
    for block in blocks:
        pending.append(block)
        num_values += block.size
        if num_values >= _LEAST_VALUES:
            yield block if len(pending) == 1 else _join(pending, block.shape[0])
            pending, num_values = [], 0
    if pending:
        yield _join(pending, pending[0].shape[0])


def _regroup(blocks: Iterator[Samples], block_s: float, rate_hz: int) -> Iterator[Samples]:
    """Blocks of exactly `block_s` seconds, the last one shorter."""
    block_samples = max(1, round(block_s * rate_hz))
    pending: list[Samples] = []
    num_pending = 0
    for block in blocks:
        pending.append(block)
        num_pending += block.shape[1]
        if num_pending < block_samples:
            continue
        joined = _join(pending, block.shape[0])
        num_whole = num_pending - num_pending % block_samples
        for start in range(0, num_whole, block_samples):
            yield joined[:, start : start + block_samples]
        pending, num_pending = [joined[:, num_whole:]], num_pending - num_whole
    if num_pending:
        yield _join(pending, pending[0].shape[0])
