"""Reading a file with the libraries of PyAV's wheel, called from compiled code (ADR 0011)."""

import importlib.util
import io
import os
import wave
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from audiofoundation.audio.clipping import STEP_SAMPLES
from audiofoundation.audio.sandbox import opening
from audiofoundation.audio.sandbox.formats import AUDIO_DECODERS
from audiofoundation.audio.sandbox.opening import MediaRefused
from audiofoundation.audio.waveform import Samples
from audiofoundation.native import compiled

_MAJORS = (62, 62, 60)  # of libavformat, libavcodec, libavutil: those that libav.h describes
_OVER, _CHANGED = 1, 2  # how `libav_read` says that there is no more
_NUM_KNOWN, _KNOWN_RATE_HZ, _KNOWN_CHANNELS = 3000, 11025, ("FL", "FR", "LFE")


class LibavRecording:
    """See `opening.Recording`."""

    def __init__(
        self, input_fd: int, demuxer: str, *, num_values: int, is_mixed: bool, is_measured: bool = False
    ) -> None:
        options = opening.options(demuxer)
        native = compiled()
        assert native is not None
        try:
            self._handle, *found = native.libav_open(input_fd, demuxer, options)
        except OSError as error:
            raise MediaRefused("undecodable", opening.reason(error.errno, error.strerror)) from error
        has_video, decoder, codec, stream_s, container_s, bit_rate = found
        opening.check_decoder(decoder, has_audio=codec is not None, has_video=has_video)
        self.codec = codec or ""
        seconds = container_s if stream_s != stream_s else stream_s
        self.declared_s = opening.declared_s(demuxer, seconds, bit_rate, input_fd)
        self.damage: str | None = None
        self._names: tuple[str, ...] = ()
        self.clipped_shares: list[float] = []
        self._native, self._num_values, self._is_mixed, self._is_measured = native, num_values, is_mixed, is_measured

    def __enter__(self) -> "LibavRecording":
        return self

    def __exit__(self, *error: object) -> None:
        self._handle = None

    def channel_names(self) -> tuple[str, ...]:
        return self._names

    def blocks(self) -> Iterator[Samples]:
        try:
            first = self._native.libav_start(self._handle)
        except OSError as error:
            raise MediaRefused("undecodable", opening.reason(error.errno, error.strerror)) from error
        if first is None:
            return
        self.sample_rate_hz, self.num_channels, self._names = first
        opening.check_layout(self.sample_rate_hz, self.num_channels)
        num_rows = 1 if self._is_mixed else self.num_channels
        unit = STEP_SAMPLES if self._is_measured else 1
        num_units = -(-self._num_values // (self.num_channels * unit))
        block = np.empty((num_rows, num_units * unit), np.float32)
        clipped = np.empty(num_units if self._is_measured else 0, np.float32)
        state = 0
        while not state:
            read = self._native.libav_read(self._handle, block, self._is_mixed, opening.LOUDEST, clipped)
            count, num_bad, state, words = read
            if num_bad:
                self.damage = self.damage or opening.NONSENSE
            if state not in (0, _OVER):
                self.damage = opening.CHANGED if state == _CHANGED else opening.reason(state, words)
            self.clipped_shares += clipped[: -(-count // STEP_SAMPLES)].tolist()
            if count:
                yield block[:, :count]

    @staticmethod
    def warm_up() -> None:
        native = compiled()
        assert native is not None
        for name in sorted(AUDIO_DECODERS):
            native.libav_warm_up(name)


def is_usable() -> bool:
    """Whether this reader was compiled and its libraries are those that it knows; then they are loaded.

    Reads a file to see: structures that are not what we think may crash the process.
    """
    return compiled() is not None and _is_known()


@lru_cache(maxsize=1)
def _is_known() -> bool:
    native, libraries = compiled(), _libraries()
    if native is None or libraries is None:
        return False
    try:
        native.libav_load(libraries, _MAJORS)
        return _reads_what_is_known()
    except (ImportError, MediaRefused, ValueError):
        return False


def _libraries() -> tuple[bytes, bytes, bytes] | None:
    """Paths of libavformat, libavcodec and libavutil in PyAV's wheel; None where it was installed in another way."""
    package = importlib.util.find_spec("av")
    if package is None or package.origin is None:
        return None
    folder = Path(package.origin).parent.with_name("av.libs")
    found = [sorted(folder.glob(f"{name}-*.so*")) for name in ("libavformat", "libavcodec", "libavutil")]
    if any(len(paths) != 1 for paths in found):
        return None
    av_format, av_codec, av_util = (os.fsencode(paths[0]) for paths in found)
    return av_format, av_codec, av_util


def _reads_what_is_known() -> bool:
    """Whether a small file comes out as it went in: libav's structures are where we think they are."""
    samples = np.arange(_NUM_KNOWN * len(_KNOWN_CHANNELS), dtype="<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(len(_KNOWN_CHANNELS))
        out.setsampwidth(2)
        out.setframerate(_KNOWN_RATE_HZ)
        out.writeframes(samples.tobytes())
    fd = os.memfd_create("known")
    try:
        os.write(fd, buffer.getvalue())
        os.lseek(fd, 0, os.SEEK_SET)
        with LibavRecording(fd, "wav", num_values=1 << 10, is_mixed=False) as known:
            found = np.concatenate([block.copy() for block in known.blocks()], axis=1)
            facts = (known.sample_rate_hz, known.channel_names(), known.declared_s, known.codec, known.damage)
    finally:
        os.close(fd)
    expected = (_KNOWN_RATE_HZ, _KNOWN_CHANNELS, _NUM_KNOWN / _KNOWN_RATE_HZ, "pcm_s16le", None)
    return facts == expected and np.array_equal(found.T.ravel(), samples / np.float32(1 << 15))
