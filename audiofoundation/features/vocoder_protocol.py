"""What every vocoder is to the engine: a maker of streams that turn mel frames into samples."""

from typing import Protocol

from audiofoundation.features.mel import Float32, MelConfig


class VocoderStream(Protocol):
    """The state of one stream. Frame t is centred on sample `t * hop_length`.

    After `finish`, the samples returned in all are `frames * hop_length`: the signal from the centre of
    the first frame to one hop past the centre of the last.
    """

    def push(self, mel: Float32) -> Float32:
        """Take log-mel frames [T, F] of the preset; return the float32 samples [n] that are final."""
        ...

    def finish(self) -> Float32:
        """Return the rest of the samples [n]; the stream takes no more frames."""
        ...


class Vocoder(Protocol):
    """A mel-to-waveform model for one preset. Stateless itself; safe to share between threads."""

    @property
    def name(self) -> str: ...

    @property
    def mel_config(self) -> MelConfig: ...

    def create_stream(self, *, seed: int = 0) -> VocoderStream:
        """Return a fresh stream; the same seed and frames always give the same samples."""
        ...
