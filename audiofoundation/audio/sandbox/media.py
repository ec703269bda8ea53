"""What runs inside a decoding child: PyAV on one descriptor, samples out through another.

Nothing here trusts the file: the demuxer is named by the caller (from magic bytes, never from a name),
nested opens are refused, decoders are those of a list, and samples are counted as they come. Numbers in
headers end a decode early when they are too large; they never size a buffer.
"""

import contextlib
import io
import itertools
import os
import wave
from collections.abc import Iterator

import av
import av.logging
import numpy as np

from audiofoundation.audio.resample import StreamingResampler
from audiofoundation.audio.sandbox import protocol
from audiofoundation.audio.sandbox.formats import AUDIO_DECODERS, FULL_NAMES
from audiofoundation.audio.sandbox.frames import FrameGatherer
from audiofoundation.audio.sandbox.opening import (
    DescriptorFile,
    MediaRefused,
    check_layout,
    declared_duration_s,
    find_audio_stream,
    open_container,
)
from audiofoundation.audio.sandbox.protocol import DecodeRequest, StreamEnd, StreamError, StreamInfo
from audiofoundation.audio.waveform import Samples, mix_to_stereo
from audiofoundation.native import kernels

_BLOCK_VALUES = 1 << 15
_MIN_MISSING_S, _MIN_MISSING_RATIO = 0.1, 0.01
_FLUSH_BYTES = 1 << 18
_GUESSED = {3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_NUM_WARM_UPS = 20
_MIN_BOMB_S = 60.0  # a file that decodes to less than this is no bomb, whatever its ratio


def decode_descriptor(request: DecodeRequest, input_fd: int, output_fd: int) -> None:
    """Decode the file behind `input_fd` and write the messages of `protocol` to `output_fd`."""
    try:
        os.lseek(input_fd, 0, os.SEEK_SET)
        _Decode(request, output_fd).run(input_fd)
    except MediaRefused as refusal:
        _write(output_fd, protocol.pack(protocol.ERROR, StreamError(refusal.kind, str(refusal))))
    except (av.error.FFmpegError, ValueError, OverflowError, EOFError) as error:
        # PyAV raises ValueError for values that ffmpeg's headers cannot mean.
        message = _reason(error)
        _write(output_fd, protocol.pack(protocol.ERROR, StreamError("undecodable", message)))
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
        self._damage: str | None = None

    def run(self, input_fd: int) -> None:
        with open_container(DescriptorFile(input_fd), self._request.demuxer) as container:
            stream = find_audio_stream(container)
            declared_s = declared_duration_s(container, stream, input_fd)
            self._refuse_declared(declared_s)
            blocks = self._blocks(container, stream)
            first = next(blocks, None)
            if first is None:
                raise MediaRefused("undecodable", self._damage or "it holds no audio samples")
            rate_hz = self._rate_hz
            self._head = protocol.pack(protocol.INFO, self._info(stream, rate_hz))
            if self._request.max_channels == 0:
                self._flush()  # a caller starts a killed decode again only until the first message
                for _ in blocks:  # each is counted and checked as it comes
                    pass
            else:
                self._send_all(first, blocks, rate_hz)
            self._note_missing(declared_s, rate_hz)
        end = StreamEnd(self._num_source, self._damage)
        self._flush(protocol.pack(protocol.DONE, end))

    def _info(self, stream: "av.AudioStream", rate_hz: int) -> StreamInfo:
        return StreamInfo(
            container=FULL_NAMES.get(self._request.demuxer, self._request.demuxer),
            codec=stream.codec_context.codec.canonical_name,
            sample_rate_hz=rate_hz,
            num_channels=self._num_channels,
            out_rate_hz=self._request.target_rate_hz or rate_hz,
            out_channels=self._request.channels_of(self._num_channels),
        )

    def _send_all(self, first: Samples, blocks: Iterator[Samples], rate_hz: int) -> None:
        out_rate_hz = self._request.target_rate_hz or rate_hz
        if out_rate_hz == rate_hz:
            for block in itertools.chain((first,), blocks):
                self._send(np.array(self._mix(block).T, order="C"))  # a copy: the buffer of frames is used again
            return
        resampler = StreamingResampler(rate_hz, out_rate_hz, self._request.channels_of(self._num_channels))
        for block in itertools.chain((first,), blocks):
            self._send(np.ascontiguousarray(resampler.push(self._mix(block)).T))
        self._send(np.ascontiguousarray(resampler.push(self._mix(first[:, :0]), is_last=True).T))

    def _blocks(self, container: "av.container.InputContainer", stream: "av.AudioStream") -> Iterator[Samples]:
        """Blocks [channels, n] of about `_BLOCK_VALUES` values, counted and bounded; [1, n] where mono is asked for."""
        frames = self._frames(container.demux(stream))
        first = next(frames, None)
        if first is None:
            return
        gathering = self._start(first)
        for frame in itertools.chain((first,), frames):
            if not gathering.add(frame):
                self._damage = "the number of channels or the sample rate changes within the file"
                break
            if gathering.num_samples >= gathering.block_samples:
                yield self._taken(gathering)
        if gathering.num_samples:
            yield self._taken(gathering)

    def _start(self, first: "av.AudioFrame") -> FrameGatherer:
        check_layout(first.sample_rate, first.layout.nb_channels)
        self._rate_hz = first.sample_rate
        self._channel_names = _names_of(first.layout)
        self._num_channels = first.layout.nb_channels
        return FrameGatherer(first, _BLOCK_VALUES, is_mixed=self._request.max_channels == 1)

    def _frames(self, packets: "Iterator[av.Packet]") -> "Iterator[av.AudioFrame]":
        has_sound = False
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                if not isinstance(error, av.error.EOFError):
                    self._damage = _reason(error)
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except av.error.EOFError:
                return
            except av.error.FFmpegError as error:
                if not has_sound:
                    continue
                self._damage = _reason(error)
                return
            has_sound = has_sound or bool(frames)
            yield from frames

    def _taken(self, gathering: FrameGatherer) -> Samples:
        self._num_source += gathering.num_samples
        self._refuse_too_much(gathering.num_channels)
        samples = gathering.take()
        if gathering.has_nonsense:
            self._damage = self._damage or "it contains samples that are no numbers of a sound; they were made silent"
        return samples

    def _refuse_declared(self, declared_s: float | None) -> None:
        if declared_s is not None and declared_s > self._request.max_duration_s:
            raise MediaRefused("too_long", f"its header says {declared_s:.0f} s")

    def _refuse_too_much(self, num_channels: int) -> None:
        seconds = self._num_source / self._rate_hz
        if seconds > self._request.max_duration_s:
            raise MediaRefused("too_long", "there is more audio than that")
        if seconds > _MIN_BOMB_S and 2 * self._num_source * num_channels > self._request.expansion_bytes:
            raise MediaRefused("too_large", "it expands implausibly far when decoded")

    def _note_missing(self, declared_s: float | None, rate_hz: int) -> None:
        decoded_s = self._num_source / rate_hz
        missing_s = 0.0 if declared_s is None else declared_s - decoded_s
        if self._damage is None and missing_s > max(_MIN_MISSING_S, _MIN_MISSING_RATIO * decoded_s):
            self._damage = "the file ends before its header says"
        if self._damage is not None:
            expected = f" of {declared_s:.3f}" if missing_s > 0 else ""
            self._damage = f"{decoded_s:.3f}{expected} s were decoded: {self._damage}."

    def _mix(self, samples: Samples) -> Samples:
        return mix_to_stereo(samples, self._channel_names) if self._request.max_channels == 2 else samples

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
        if self._num_waiting_bytes >= _FLUSH_BYTES:
            self._flush()

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


def _names_of(layout: "av.AudioLayout") -> list[str]:
    """The channels' names; of a file that gives none, those that ffmpeg guesses from their number."""
    if layout.channels[0].name == "NONE" and layout.nb_channels in _GUESSED:
        layout = av.AudioLayout(_GUESSED[layout.nb_channels])
    return [channel.name for channel in layout.channels]


def _reason(error: Exception) -> str:
    if isinstance(error, av.error.InvalidDataError):
        return "the data is damaged or cut off"
    if isinstance(error, av.error.FFmpegError):
        return f"the decoder reports: {(error.strerror or 'an unknown error')[:80]}"
    return "its header makes no sense"


def _write(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


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
    av.logging.set_level(None)
    kernels()
    for name in AUDIO_DECODERS:  # the first one of a kind to be opened computes its tables: 2 ms for AAC
        with contextlib.suppress(av.error.FFmpegError, ValueError):  # some want a header first, some are not built in
            context = av.CodecContext.create(name, "r")
            context.thread_count = 1
            context.open()
    request = DecodeRequest("wav", 10.0, 1e9, 1 << 20, 16000, 1, 10, 1 << 30)
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
