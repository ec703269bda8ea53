"""Waveforms to files, whole or as a stream, through the same encoders."""

from enum import StrEnum

from audiofoundation.audio.encoders.flac import FlacEncoder
from audiofoundation.audio.encoders.mp3 import Mp3Encoder
from audiofoundation.audio.encoders.ogg_opus import OggOpusEncoder
from audiofoundation.audio.encoders.pcm import PcmEncoder, WavEncoder
from audiofoundation.audio.encoders.stream_encoder import StreamEncoder
from audiofoundation.audio.waveform import Waveform
from audiofoundation.errors import InvalidRequest

__all__ = ["AudioFormat", "StreamEncoder", "create_encoder", "encode"]

_LOSSY_MAX_CHANNELS = 2
_MAX_CHANNELS = 8


class AudioFormat(StrEnum):
    """What we write: WAV, FLAC and PCM with 16 bits, MP3, and Opus in Ogg."""

    WAV = "wav"
    FLAC = "flac"
    MP3 = "mp3"
    OPUS = "opus"
    PCM = "pcm"

    @property
    def content_type(self) -> str:
        """The media type of a file in this format."""
        return _CONTENT_TYPES[self]


_CONTENT_TYPES = {
    AudioFormat.WAV: "audio/wav",
    AudioFormat.FLAC: "audio/flac",
    AudioFormat.MP3: "audio/mpeg",
    AudioFormat.OPUS: "audio/ogg",
    AudioFormat.PCM: "audio/pcm",
}


def create_encoder(
    fmt: AudioFormat, *, sample_rate_hz: int, num_channels: int, num_samples: int | None = None
) -> StreamEncoder:
    """An encoder for one file.

    Args:
        fmt: the file's format.
        sample_rate_hz: of the samples that will be pushed.
        num_channels: of the samples that will be pushed.
        num_samples: how many (per channel) will come, where that is known; headers then state it.
            Needed by readers that do not stream (libsndfile with FLAC) and for MP3's exact length.

    Raises:
        InvalidRequest: the format cannot hold that many channels.
    """
    most = _LOSSY_MAX_CHANNELS if fmt in {AudioFormat.MP3, AudioFormat.OPUS} else _MAX_CHANNELS
    if not 1 <= num_channels <= most:
        raise InvalidRequest(f"{fmt} holds 1 to {most} channels, not {num_channels}.", param="response_format")
    match fmt:
        case AudioFormat.WAV:
            return WavEncoder(sample_rate_hz=sample_rate_hz, num_channels=num_channels, num_samples=num_samples)
        case AudioFormat.FLAC:
            return FlacEncoder(sample_rate_hz=sample_rate_hz, num_channels=num_channels, num_samples=num_samples)
        case AudioFormat.MP3:
            return Mp3Encoder(sample_rate_hz=sample_rate_hz, num_channels=num_channels, num_samples=num_samples)
        case AudioFormat.OPUS:
            return OggOpusEncoder(sample_rate_hz=sample_rate_hz, num_channels=num_channels)
        case AudioFormat.PCM:
            return PcmEncoder()


def encode(waveform: Waveform, fmt: AudioFormat) -> bytes:
    """A whole file. Values beyond [-1, 1] are clipped."""
    encoder = create_encoder(
        fmt,
        sample_rate_hz=waveform.sample_rate_hz,
        num_channels=waveform.num_channels,
        num_samples=waveform.num_samples,
    )
    return encoder.push(waveform.samples) + encoder.finish()
