"""What runs inside a decoding child: ffmpeg's libraries on one descriptor, samples out through another.

Nothing here trusts the file: the demuxer is named by the caller (from magic bytes, never from a name),
nested opens are refused, decoders are those of a list, and samples are counted as they come. Numbers in
headers end a decode early when they are too large; they never size a buffer.
"""

import io
import itertools
import os
import wave
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from audiofoundation.audio.resample import StreamingResampler
from audiofoundation.audio.sandbox import libav, protocol
from audiofoundation.audio.sandbox.formats import FULL_NAMES
from audiofoundation.audio.sandbox.opening import MediaRefused, Recording, missing_of_wav_s
from audiofoundation.audio.sandbox.protocol import DecodeRequest, StreamEnd, StreamError, StreamInfo
from audiofoundation.audio.waveform import Samples, mix_to_stereo
from audiofoundation.native import kernels

_BLOCK_VALUES = 1 << 16
_MIN_MISSING_S, _MIN_MISSING_RATIO = 0.1, 0.01
_NUM_WARM_UPS = 20
_MIN_BOMB_S = 60.0  # a file that decodes to less than this is no bomb, whatever its ratio


def decode_descriptor(request: DecodeRequest, input_fd: int, output_fd: int) -> None:
    """Decode the file behind `input_fd` and write the messages of `protocol` to `output_fd`."""
    try:
        os.lseek(input_fd, 0, os.SEEK_SET)
        _Decode(request, output_fd).run(input_fd)
    except MediaRefused as refusal:
        _write(output_fd, protocol.pack(protocol.ERROR, StreamError(refusal.kind, str(refusal))))
    except MemoryError:
        message = "decoding it takes more memory than is allowed"
        _write(output_fd, protocol.pack(protocol.ERROR, StreamError("undecodable", message)))


class _Decode:
    """One file's decode: `run` writes INFO, SAMPLES…, DONE."""

    def __init__(self, request: DecodeRequest, output_fd: int) -> None:
        self._request = request
        self._output_fd = output_fd
        self._num_source = 0
        self._num_sent_bytes = 0
        self._head = b""
        self._waiting: list[memoryview] = []
        self._num_waiting_bytes = 0

    def run(self, input_fd: int) -> None:
        reader, demuxer, is_measured = _reader(), self._request.demuxer, self._request.is_measured
        is_mixed = self._request.max_channels == 1
        with reader(
            input_fd, demuxer, num_values=_BLOCK_VALUES, is_mixed=is_mixed, is_measured=is_measured
        ) as recording:
            self._refuse_declared(recording.declared_s)
            blocks = self._counted(recording)
            first = next(blocks, None)
            if first is None:
                raise MediaRefused("undecodable", recording.damage or "it holds no audio samples")
            self._head = protocol.pack(protocol.INFO, self._info(recording))
            if self._request.max_channels == 0:
                self._flush()  # a caller starts a killed decode again only until the first message
                for _ in blocks:  # each is counted and checked as it comes
                    pass
            else:
                self._send_all(first, blocks, recording)
            clipped = np.array(recording.clipped_shares, "<f4").tobytes()
            end = StreamEnd(self._num_source, self._damage_of(recording, input_fd))
        step = protocol.MAX_SAMPLE_BYTES
        parts = [clipped[start : start + step] for start in range(0, len(clipped), step)]
        messages = [protocol.HEADER.pack(protocol.CLIPPED, len(part)) + part for part in parts]
        self._flush(b"".join((*messages, protocol.pack(protocol.DONE, end))))

    def _info(self, recording: Recording) -> StreamInfo:
        return StreamInfo(
            container=FULL_NAMES.get(self._request.demuxer, self._request.demuxer),
            codec=recording.codec,
            sample_rate_hz=recording.sample_rate_hz,
            num_channels=recording.num_channels,
            out_rate_hz=self._request.target_rate_hz or recording.sample_rate_hz,
            out_channels=self._request.channels_of(recording.num_channels),
        )

    def _send_all(self, first: Samples, blocks: Iterator[Samples], recording: Recording) -> None:
        mixed = (self._mix(block, recording) for block in itertools.chain((first,), blocks))
        rate_hz, out_rate_hz = recording.sample_rate_hz, self._request.target_rate_hz
        if not out_rate_hz or out_rate_hz == rate_hz:
            for block in mixed:
                self._send(np.array(block.T, order="C"))  # a copy: the buffer of blocks is used again
            return
        num_channels = self._request.channels_of(recording.num_channels)
        resampler = StreamingResampler(rate_hz, out_rate_hz, num_channels)
        for block in mixed:
            self._send(np.ascontiguousarray(resampler.push(block).T))
        none = np.empty((num_channels, 0), np.float32)
        self._send(np.ascontiguousarray(resampler.push(none, is_last=True).T))

    def _counted(self, recording: Recording) -> Iterator[Samples]:
        """The recording's blocks, while they are no more than may be."""
        for block in recording.blocks():
            self._num_source += block.shape[1]
            self._refuse_too_much(recording)
            yield block

    def _refuse_declared(self, declared_s: float | None) -> None:
        if declared_s is not None and declared_s > self._request.max_duration_s:
            raise MediaRefused("too_long", f"its header says {declared_s:.0f} s")

    def _refuse_too_much(self, recording: Recording) -> None:
        seconds = self._num_source / recording.sample_rate_hz
        if seconds > self._request.max_duration_s:
            raise MediaRefused("too_long", "there is more audio than that")
        num_bytes = 2 * self._num_source * recording.num_channels
        if seconds > _MIN_BOMB_S and num_bytes > self._request.expansion_bytes:
            raise MediaRefused("too_large", "it expands implausibly far when decoded")

    def _damage_of(self, recording: Recording, input_fd: int) -> str | None:
        decoded_s = self._num_source / recording.sample_rate_hz
        declared_s, damage = recording.declared_s, recording.damage
        if self._request.demuxer == "wav" and (beyond_s := missing_of_wav_s(input_fd)):
            declared_s = decoded_s + beyond_s
        missing_s = 0.0 if declared_s is None else declared_s - decoded_s
        if damage is None and missing_s > max(_MIN_MISSING_S, _MIN_MISSING_RATIO * decoded_s):
            damage = "the file ends before its header says"
        if damage is None:
            return None
        expected = f" of {declared_s:.3f}" if missing_s > 0 else ""
        return f"{decoded_s:.3f}{expected} s were decoded: {damage}."

    def _mix(self, samples: Samples, recording: Recording) -> Samples:
        if self._request.max_channels != 2 or len(samples) <= 2:
            return samples
        return mix_to_stereo(samples, recording.channel_names())

    def _send(self, interleaved: Samples) -> None:
        """Send [n, channels], which must not change before it has been flushed."""
        if not interleaved.size:
            return
        data = interleaved.data.cast("B")
        self._num_sent_bytes += len(data)
        if self._num_sent_bytes > self._request.decoded_bytes:
            raise MediaRefused("too_large", "decoded it would take more memory than is allowed")
        step = protocol.MAX_SAMPLE_BYTES - protocol.MAX_SAMPLE_BYTES % (4 * interleaved.shape[1])
        for start in range(0, len(data), step):
            part = data[start : start + step]
            if self._num_waiting_bytes + len(part) > step:
                self._flush()
            self._waiting.append(part)
            self._num_waiting_bytes += len(part)

    def _flush(self, last: bytes = b"") -> None:
        """Write what waits, as one message: each message costs the reader more than copying does."""
        parts: list[bytes | memoryview] = [self._head]
        if self._waiting:
            parts += [protocol.HEADER.pack(protocol.SAMPLES, self._num_waiting_bytes), *self._waiting]
        parts.append(last)
        self._head, self._waiting, self._num_waiting_bytes = b"", [], 0
        num_written = os.writev(self._output_fd, parts)
        for part in parts:
            _write(self._output_fd, part[num_written:])
            num_written = max(0, num_written - len(part))


def _write(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@lru_cache(maxsize=1)
def _reader() -> type[Recording]:
    if is_read_compiled():
        return libav.LibavRecording
    from audiofoundation.audio.sandbox import pyav  # only here: its modules and libraries make every fork dearer

    return pyav.PyAvRecording


@lru_cache(maxsize=1)
def is_read_compiled() -> bool:
    """Whether files are read by compiled code. To be asked first in a process with one thread.

    A fork tries: should libav's structures not be what we think, it crashes instead of us.
    """
    if pid := os.fork():
        return os.waitpid(pid, 0)[1] == 0 and libav.is_usable()
    status = 1
    try:
        status = 0 if libav.is_usable() else 1
    finally:
        os._exit(status)


def silent_wav() -> bytes:
    """A short WAV of silence, to rehearse with."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(24000)
        out.writeframes(bytes(24000))
    return buffer.getvalue()


def warm_up() -> None:
    """Decode something harmless, so that children find every lazily loaded part in memory.

    Several times, until the interpreter has specialised the code: it does so in place, and each page that a child
    writes to is copied.
    """
    kernels()
    _reader().warm_up()
    request = DecodeRequest("wav", 10.0, 1e9, 1 << 20, 16000, 1, 10, 1 << 30, is_measured=True)
    input_fd = os.memfd_create("warm-up")
    output_fd = os.memfd_create("warm-up")
    os.write(input_fd, silent_wav())
    for _ in range(_NUM_WARM_UPS):
        os.lseek(output_fd, 0, os.SEEK_SET)
        decode_descriptor(request, input_fd, output_fd)
    os.close(input_fd)
    os.close(output_fd)


def is_complete(messages: bytes) -> bool:
    """Whether the messages end in DONE."""
    offset, kind = 0, b""
    while offset + protocol.HEADER.size <= len(messages):
        kind, length = protocol.HEADER.unpack_from(messages, offset)
        offset += protocol.HEADER.size + length
    return kind == protocol.DONE and offset == len(messages)
