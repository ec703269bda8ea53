"""Reading a file through PyAV: where `libav.py` cannot be used, that is without a compiler or with other libraries."""

import contextlib
import itertools
import os
from collections.abc import Iterator

import av
import av.logging

from audiofoundation.audio.clipping import ClippingMeter
from audiofoundation.audio.sandbox import opening
from audiofoundation.audio.sandbox.formats import AUDIO_DECODERS
from audiofoundation.audio.sandbox.frames import FrameGatherer
from audiofoundation.audio.sandbox.opening import MediaRefused
from audiofoundation.audio.waveform import Samples

_READ_BYTES = 1 << 18
_GUESSED = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}

# PyAV raises ValueError for values that ffmpeg's headers cannot mean.
_FAILURES = (av.error.FFmpegError, ValueError, OverflowError, EOFError)


class DescriptorFile:
    """A seekable file without a name, so that nothing can be guessed from one."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int) -> bytes:
        return os.read(self._fd, size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._fd, offset, whence)

    def tell(self) -> int:
        return os.lseek(self._fd, 0, os.SEEK_CUR)


class PyAvRecording:
    """See `opening.Recording`."""

    def __init__(
        self, input_fd: int, demuxer: str, *, num_values: int, is_mixed: bool, is_measured: bool = False
    ) -> None:
        options = dict(opening.options(demuxer))
        self._num_values, self._is_mixed = num_values, is_mixed
        self.damage: str | None = None
        self.clipped_shares: list[float] = []
        self._meter = ClippingMeter(self.clipped_shares) if is_measured else None
        try:
            self._container = _open(input_fd, demuxer, options)
            self._stream = _find_audio(self._container)
            self.codec = self._stream.codec_context.codec.canonical_name
            bit_rate = self._stream.codec_context.bit_rate or 0
            self.declared_s = opening.declared_s(demuxer, self._seconds(), bit_rate, input_fd)
        except _FAILURES as error:
            raise _refused(error) from error

    def __enter__(self) -> "PyAvRecording":
        return self

    def __exit__(self, *error: object) -> None:
        self._container.close()

    def channel_names(self) -> tuple[str, ...]:
        layout = self._layout
        if layout.channels[0].name == "NONE" and layout.nb_channels in _GUESSED:
            layout = av.AudioLayout(_GUESSED[layout.nb_channels])
        return tuple(channel.name for channel in layout.channels)

    def blocks(self) -> Iterator[Samples]:
        try:
            yield from self._blocks()
        except _FAILURES as error:
            raise _refused(error) from error

    @staticmethod
    def warm_up() -> None:
        av.logging.set_level(None)
        for name in AUDIO_DECODERS:
            with contextlib.suppress(av.error.FFmpegError, ValueError):  # wants a header first, or is not built in
                context = av.CodecContext.create(name, "r")
                context.thread_count = 1
                context.open()

    def _seconds(self) -> float:
        time_base = self._stream.time_base
        if self._stream.duration is not None and time_base is not None:
            return float(self._stream.duration * time_base.numerator / time_base.denominator)
        return float("nan") if self._container.duration is None else self._container.duration / av.time_base

    def _blocks(self) -> Iterator[Samples]:
        self._stream.codec_context.open(strict=False)
        frames = self._frames(self._container.demux(self._stream))
        first = next(frames, None)
        if first is None:
            return
        self.sample_rate_hz, self._layout = first.sample_rate, first.layout
        self.num_channels = first.layout.nb_channels
        opening.check_layout(self.sample_rate_hz, self.num_channels)
        gathering = FrameGatherer(first, self._num_values, is_mixed=self._is_mixed)
        for frame in itertools.chain((first,), frames):
            if not gathering.add(frame):
                self.damage = opening.CHANGED
                break
            if gathering.num_samples >= gathering.block_samples:
                yield self._taken(gathering)
        if gathering.num_samples:
            yield self._taken(gathering)
        if self._meter is not None:
            self._meter.finish()

    def _frames(self, packets: "Iterator[av.Packet]") -> "Iterator[av.AudioFrame]":
        has_sound = False
        while True:
            try:
                packet = next(packets, None)
            except IndexError:  # PyAV's own, for a stream that turns up later
                return
            except av.error.FFmpegError as error:
                if not isinstance(error, av.error.EOFError):
                    self.damage = _reason(error)
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
                self.damage = _reason(error)
                return
            has_sound = has_sound or bool(frames)
            yield from frames

    def _taken(self, gathering: FrameGatherer) -> Samples:
        samples = gathering.take(self._meter)
        if gathering.has_nonsense:
            self.damage = self.damage or opening.NONSENSE
        return samples


def _open(input_fd: int, demuxer: str, options: dict[str, str]) -> "av.container.InputContainer":
    return av.open(
        DescriptorFile(input_fd),
        mode="r",
        format=demuxer,
        container_options=options,
        metadata_errors="replace",
        buffer_size=_READ_BYTES,
        io_open=_refuse_open,
    )


def _refuse_open(*_: object) -> object:
    raise PermissionError("a media file may not open another")


def _find_audio(container: "av.container.InputContainer") -> "av.AudioStream":
    stream = container.streams.best("audio")
    has_decoder = stream is not None and stream.codec_context is not None
    decoder = stream.codec_context.codec.name if has_decoder else None
    opening.check_decoder(decoder, has_audio=stream is not None, has_video=bool(container.streams.video))
    stream.codec_context.thread_count = 1
    return stream


def _refused(error: Exception) -> MediaRefused:
    return MediaRefused("undecodable", _reason(error))


def _reason(error: Exception) -> str:
    if isinstance(error, av.error.FFmpegError):
        return opening.reason(-error.errno if isinstance(error, av.error.InvalidDataError) else None, error.strerror)
    return "its header makes no sense"
