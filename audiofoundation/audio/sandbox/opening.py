"""Opening a hostile media file: what may be opened, which stream is decoded, what its header claims.

Two readers share this: `libav.py`, the usual one, and `pyav.py` where that cannot be used.
"""

import math
import os
from collections.abc import Iterator
from typing import Protocol, Self

from audiofoundation.audio.sandbox.formats import (
    AUDIO_DECODERS,
    DEMUXERS,
    MAX_CHANNELS,
    MAX_RATE_HZ,
    MIN_RATE_HZ,
    TRUSTED_DURATION,
)
from audiofoundation.audio.waveform import Samples

LOUDEST = 1e6  # 120 dB over full scale; the squares of 1e20, which a float file can hold, are infinite
NONSENSE = "it contains samples that are no numbers of a sound; they were made silent"
CHANGED = "the number of channels or the sample rate changes within the file"
INVALID_DATA = -1094995529  # libav's AVERROR_INVALIDDATA

_PROBE_BYTES, _PROBE_MICROSECONDS = 5_000_000, 5_000_000
# Their headers say everything, yet ffmpeg searches PCM for hidden DTS: 34 ms a file, 4 ms with this much.
_SHORT_PROBE, _SHORT_PROBE_BYTES = frozenset({"wav", "w64", "aiff", "au", "voc"}), 1 << 16
_MAX_WAV_CHUNKS = 64
_WAV_PLACEHOLDER_BYTES = 0x7FFF0000  # streamed WAV states 2 or 4 GiB of samples
_XING_WITHIN_BYTES = 512


class MediaRefused(Exception):
    """This file is not decoded further; `kind` as in `StreamError`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Recording(Protocol):
    """A file that has been opened: a context manager.

    Args:
        input_fd: stays the caller's.
        demuxer: ffmpeg's name of the container's format.
        num_values: values that fill a block.
        is_mixed: whether blocks are the mean of the channels.
        is_measured: whether clipping is measured, of all channels.

    Attributes:
        codec: its name.
        declared_s: how long the file says it is; None when it does not say, or when that is only a guess.
        sample_rate_hz, num_channels: known once the first block has been read.
        damage: what was wrong with what has been read, None while nothing was.
        clipped_shares: of the clipping's steps (`audiofoundation.audio.clipping`) that have been read; all of them
            once the last block has been.

    Raises:
        MediaRefused: it is not one that we read, on opening or while it is read.
    """

    codec: str
    declared_s: float | None
    sample_rate_hz: int
    num_channels: int
    damage: str | None
    clipped_shares: list[float]

    def __init__(
        self, input_fd: int, demuxer: str, *, num_values: int, is_mixed: bool, is_measured: bool = False
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...

    def channel_names(self) -> tuple[str, ...]:
        """ffmpeg's names of the channels; of a file that gives none, those it guesses from their number."""
        ...

    def blocks(self) -> Iterator[Samples]:
        """Blocks float32 [channels, n], or [1, n] where the mean is asked for; each holds until the next is read."""
        ...

    @staticmethod
    def warm_up() -> None:
        """Open every decoder once: the first one of a kind computes its tables, 2 ms for AAC, which forks then share.

        libav says nothing on standard error from then on.
        """
        ...


_OPTIONS = (
    ("protocol_whitelist", "none"),  # only the descriptor that we hand over; an empty list would mean all
    ("format_whitelist", ",".join(sorted(DEMUXERS))),
    ("codec_whitelist", ",".join(sorted(AUDIO_DECODERS))),
    ("analyzeduration", str(_PROBE_MICROSECONDS)),
)


def options(demuxer: str) -> tuple[tuple[str, str], ...]:
    """What ffmpeg is told when it opens a file with this demuxer."""
    if demuxer not in DEMUXERS:
        raise MediaRefused("undecodable", "its container is not one that we read")
    probe_bytes = _SHORT_PROBE_BYTES if demuxer in _SHORT_PROBE else _PROBE_BYTES
    return (*_OPTIONS, ("probesize", str(probe_bytes)))


def check_decoder(name: str | None, *, has_audio: bool, has_video: bool) -> None:
    """Refuse a file without audio, or whose audio only a decoder that is not on our list could read."""
    if not has_audio:
        what = "a video without a sound track" if has_video else "no audio track"
        raise MediaRefused("undecodable", f"it holds {what}")
    if name not in AUDIO_DECODERS:
        raise MediaRefused("undecodable", f"its audio codec ({(name or 'unknown')[:32]}) is not one that we decode")


def check_layout(rate_hz: int, num_channels: int) -> None:
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise MediaRefused(
            "undecodable", f"its sample rate of {rate_hz} Hz is outside {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz"
        )
    if not 1 <= num_channels <= MAX_CHANNELS:
        raise MediaRefused("undecodable", f"it has {num_channels} channels, more than {MAX_CHANNELS}")


def declared_s(demuxer: str, seconds: float, bit_rate: int, input_fd: int) -> float | None:
    """The header's duration (NaN where it has none), or None when it is missing or ffmpeg only guesses."""
    if math.isnan(seconds):
        return None
    if demuxer == "wav":
        return seconds if 0 < seconds * bit_rate / 8 < _WAV_PLACEHOLDER_BYTES else None
    if demuxer == "mp3":
        return seconds if _has_xing_header(input_fd) else None
    return seconds if demuxer in TRUSTED_DURATION else None


def missing_of_wav_s(input_fd: int) -> float:
    """How much of the sound that a WAV's data chunk announces lies beyond its end: ffmpeg takes what is there for all.

    Nothing where the chunk says what a stream says that was never finished, or is not found among the first ones.
    """
    if os.pread(input_fd, 4, 0) != b"RIFF":
        return 0.0
    num_bytes, bytes_per_s, place = os.fstat(input_fd).st_size, 0, 12
    for _ in range(_MAX_WAV_CHUNKS):
        head = os.pread(input_fd, 24, place)
        name, size = head[:4], int.from_bytes(head[4:8], "little")
        if name == b"fmt ":
            bytes_per_s = int.from_bytes(head[16:20], "little")
        if len(head) < 8 or name == b"data":
            missing = place + 8 + size - num_bytes if size < _WAV_PLACEHOLDER_BYTES else 0
            return max(0, missing) / bytes_per_s if bytes_per_s and name == b"data" else 0.0
        place += 8 + size + size % 2
    return 0.0


def _has_xing_header(input_fd: int) -> bool:
    head = os.pread(input_fd, 10, 0)
    start = 0
    if head.startswith(b"ID3") and len(head) == 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    frame = os.pread(input_fd, _XING_WITHIN_BYTES, start)
    return any(mark in frame for mark in (b"Xing", b"Info", b"VBRI"))


def reason(code: int | None, words: str | None) -> str:
    """Words for libav's error."""
    if code == INVALID_DATA:
        return "the data is damaged or cut off"
    return f"the decoder reports: {(words or 'an unknown error')[:80]}"
