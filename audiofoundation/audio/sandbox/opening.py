"""Opening a hostile media file: what may be opened, which stream is decoded, what its header claims."""

import os

import av

from audiofoundation.audio.sandbox.formats import (
    AUDIO_DECODERS,
    DEMUXERS,
    MAX_CHANNELS,
    MAX_RATE_HZ,
    MIN_RATE_HZ,
    TRUSTED_DURATION,
)

_READ_BYTES = 1 << 18
_PROBE_BYTES, _PROBE_MICROSECONDS = 5_000_000, 5_000_000
# Their headers say everything, yet ffmpeg searches PCM for hidden DTS: 34 ms a file, 4 ms with this much.
_SHORT_PROBE, _SHORT_PROBE_BYTES = frozenset({"wav", "w64", "aiff", "au", "voc"}), 1 << 16
_WAV_PLACEHOLDER_BYTES = 0x7FFF0000  # streamed WAV states 2 or 4 GiB of samples
_XING_WITHIN_BYTES = 512


class MediaRefused(Exception):
    """This file is not decoded further; `kind` as in `StreamError`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


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


_OPTIONS = {
    "protocol_whitelist": "none",  # only the descriptor that we hand over; an empty list would mean all
    "format_whitelist": ",".join(sorted(DEMUXERS)),
    "codec_whitelist": ",".join(sorted(AUDIO_DECODERS)),
    "analyzeduration": str(_PROBE_MICROSECONDS),
}


def open_container(file: DescriptorFile, demuxer: str) -> "av.container.InputContainer":
    if demuxer not in DEMUXERS:
        raise MediaRefused("undecodable", "its container is not one that we read")
    probe_bytes = _SHORT_PROBE_BYTES if demuxer in _SHORT_PROBE else _PROBE_BYTES
    return av.open(
        file,
        mode="r",
        format=demuxer,
        container_options={**_OPTIONS, "probesize": str(probe_bytes)},
        metadata_errors="replace",
        buffer_size=_READ_BYTES,
        io_open=_refuse_open,
    )


def _refuse_open(*_: object) -> object:
    raise PermissionError("a media file may not open another")


def find_audio_stream(container: "av.container.InputContainer") -> "av.AudioStream":
    stream = container.streams.best("audio")
    if stream is None:
        what = "a video without a sound track" if container.streams.video else "no audio track"
        raise MediaRefused("undecodable", f"it holds {what}")
    context = stream.codec_context
    if context is None or context.codec.name not in AUDIO_DECODERS:
        name = "unknown" if context is None else context.codec.name
        raise MediaRefused("undecodable", f"its audio codec ({name[:32]}) is not one that we decode")
    context.thread_count = 1
    return stream


def declared_duration_s(
    container: "av.container.InputContainer", stream: "av.AudioStream", input_fd: int
) -> float | None:
    """How long the file says it is; None when it does not say, or when ffmpeg only guesses."""
    time_base = stream.time_base
    if stream.duration is not None and time_base is not None:
        seconds = stream.duration * time_base.numerator / time_base.denominator
    elif container.duration is not None:
        seconds = container.duration / av.time_base
    else:
        return None
    demuxer = container.format.name
    if demuxer == "wav":
        bit_rate = stream.codec_context.bit_rate or 0
        return seconds if 0 < seconds * bit_rate / 8 < _WAV_PLACEHOLDER_BYTES else None
    if demuxer == "mp3":
        return seconds if _has_xing_header(input_fd) else None
    return seconds if demuxer in TRUSTED_DURATION else None


def _has_xing_header(input_fd: int) -> bool:
    head = os.pread(input_fd, 10, 0)
    start = 0
    if head.startswith(b"ID3") and len(head) == 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    frame = os.pread(input_fd, _XING_WITHIN_BYTES, start)
    return any(mark in frame for mark in (b"Xing", b"Info", b"VBRI"))


def check_layout(rate_hz: int, num_channels: int) -> None:
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise MediaRefused(
            "undecodable", f"its sample rate of {rate_hz} Hz is outside {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz"
        )
    if not 1 <= num_channels <= MAX_CHANNELS:
        raise MediaRefused("undecodable", f"it has {num_channels} channels, more than {MAX_CHANNELS}")
