"""From a recording's samples to segments with their mel.

A segment's mel is a slice of the recording's own mel, so neighbouring segments join without a seam: frames
near a border see the sound beyond it, and only the recording's true ends are reflected. A segment of T
frames is T hops of sound, and its first frame is centred as the preset says.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audiofoundation.audio.waveform import mix_to_mono
from audiofoundation.features.mel import Float32, MelConfig, band_energies, compress, pad_reflect, to_half
from audiofoundation.preprocessing.spool import SampleSpool


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a recording.

    Attributes:
        index: number within the recording.
        start: first sample, counted from the recording's start at the preset's rate.
        channels: float32 [channels, T * hop], as they were decoded.
        samples: float32 [T * hop], their mono mix.
        mel_TF: float16 [T, F], the mix's.
    """

    index: int
    start: int
    channels: Float32
    samples: Float32
    mel_TF: NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """How a recording is cut.

    Attributes:
        config: the preset.
        segment_frames: frames of a full segment.
        min_frames: fewest frames of the last one.
        start: first sample that counts (silence before it is left out).
        stop: one past the last.
        gain: factor on every sample.
    """

    config: MelConfig
    segment_frames: int
    min_frames: int
    start: int
    stop: int
    gain: float = 1.0

    @property
    def num_frames(self) -> int:
        return (self.stop - self.start) // self.config.hop_length

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Yield each segment's frames [first, last)."""
        for first in range(0, self.num_frames, self.segment_frames):
            last = min(first + self.segment_frames, self.num_frames)
            if last - first >= self.min_frames:
                yield first, last


def cut_segments(spool: SampleSpool, plan: SegmentPlan) -> Iterator[Segment]:
    """Yield the segments of a recording in order."""
    hop = plan.config.hop_length
    for index, (first, last) in enumerate(plan.ranges()):
        padded = _with_context(spool, plan, first, last)
        mono = mix_to_mono(padded)[0]
        energies = band_energies(mono, plan.config)[: last - first]
        mel_TF = to_half(compress(energies, plan.config))
        offset = plan.config.padding
        own = slice(offset, offset + (last - first) * hop)
        yield Segment(index, plan.start + first * hop, padded[:, own], mono[own], mel_TF)


def _with_context(spool: SampleSpool, plan: SegmentPlan, first: int, last: int) -> Float32:
    """Return what frames [first, last) see of each channel, and the segment's own samples from `padding` on."""
    config = plan.config
    low = first * config.hop_length - config.padding
    high = max((last - 1) * config.hop_length + config.fft_size - config.padding, last * config.hop_length)
    length = plan.stop - plan.start
    core = spool.read(plan.start + max(low, 0), plan.start + min(high, length))
    if plan.gain != 1.0:
        core = core * np.float32(plan.gain)
    if low >= 0 and high <= length:
        return core
    return np.stack([pad_reflect(channel, max(0, -low), max(0, high - length)) for channel in core])
