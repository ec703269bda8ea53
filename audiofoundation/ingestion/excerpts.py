"""A few seconds of every part of a recording, taken while all of it passes by."""

from audiofoundation.audio.waveform import Waveform

_MOST = 32


class Excerpts:
    """Keeps the beginnings of evenly spaced blocks, never more than 32, whatever the length.

    When there are too many, every second one goes and from then on only every second comes.
    """

    def __init__(self, *, excerpt_s: float = 4.0) -> None:
        self._excerpt_s = excerpt_s
        self._kept: list[Waveform] = []
        self._num_seen = 0
        self._stride = 1

    def add(self, block: Waveform) -> None:
        """Look at the next block of the recording."""
        if self._num_seen % self._stride == 0:
            length = round(self._excerpt_s * block.sample_rate_hz)
            self._kept.append(Waveform(block.samples[:, :length].copy(), block.sample_rate_hz))
            if len(self._kept) == _MOST:
                self._kept = self._kept[::2]
                self._stride *= 2
        self._num_seen += 1

    @property
    def waveforms(self) -> tuple[Waveform, ...]:
        """What was kept, in order."""
        return tuple(self._kept)
