"""A corpus of whole recordings in memory whose mels are computed, batch by batch, on the training device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import numpy as np
import torch
from torch import Tensor

from audiofoundation.features.augment import AugmentConfig, augment_wave, create_generator, mask_mel
from audiofoundation.features.mel import Float32, MelConfig, get_preset, log_mel, pad_reflect
from audiofoundation.features.mel_torch import TorchMel
from audiofoundation.training.corpus import Corpus, Draw, Float16, Recording, Window
from audiofoundation.training.shards_corpus import TRAIN, split_groups


@dataclass(frozen=True, slots=True)
class NamedWave:
    """The samples float32 [N] of a recording, levelled and trimmed, with its label and what splits keep together."""

    label: str
    group: str
    samples: Float32


@dataclass(frozen=True, slots=True)
class WaveCorpus(Corpus):
    """Recordings as float32 samples; `mel` and `wave` stay empty.

    Attributes:
        waves: the samples [N] of each recording, by its first corpus frame.
        augment: what is done to training batches; None leaves them as they are.
    """

    waves: Mapping[int, Float32]
    augment: AugmentConfig | None = None

    @property
    def has_wave(self) -> bool:
        return True

    def select(self, *splits: str, is_generative: bool | None = None) -> Self:
        """As the base; what is not for training is not augmented."""
        # `super()` without arguments does not work in dataclasses with slots.
        kept = super(WaveCorpus, self).select(*splits, is_generative=is_generative)
        return kept if TRAIN in splits else replace(kept, augment=None)

    def mel_excerpt(self, recording: Recording, start: int, num_frames: int) -> Float32:
        """As the base, from the samples; never augmented."""
        config = get_preset(self.preset)
        first = start - recording.start_frame
        last = min(first + num_frames, recording.num_frames)
        if first == 0 and last == recording.num_frames:
            return log_mel(self.waves[recording.start_frame], config)[:last]
        frames = _mel_of(config, torch.device("cpu")).frames(torch.from_numpy(self._seen(recording, first, last)[None]))
        return frames[0].numpy()

    def wave_excerpt(self, recording: Recording, start: int, num_frames: int) -> Float32:
        """As the base."""
        first = start - recording.start_frame
        last = min(first + num_frames, recording.num_frames)
        samples: Float32 = np.clip(self.waves[recording.start_frame], -1, 1)
        return samples[first * self.hop_length : last * self.hop_length]

    @torch.no_grad()
    def mel_windows(self, places: Sequence[Window], num_frames: int, draw: Draw) -> Tensor:
        """As the base: gathered here, augmented and transformed on the device, in float32 under any autocast."""
        offsets = [(recording, start - recording.start_frame) for recording, start in places]
        seen = [self._seen(recording, first, first + num_frames) for recording, first in offsets]
        wave_BN = torch.from_numpy(np.stack(seen)).to(draw.device)
        with torch.autocast(draw.device.type, enabled=False):
            if self.augment is None:
                mel_BTF = _mel_of(get_preset(self.preset), draw.device).frames(wave_BN)
            else:
                generator = create_generator(draw.seed, draw.step, draw.device)
                wave_BN = augment_wave(wave_BN, self.augment, generator)
                mel_BTF = _mel_of(get_preset(self.preset), draw.device).frames(wave_BN)
                mel_BTF = mask_mel(mel_BTF, self.augment, generator)
        for row, (recording, first) in enumerate(offsets):
            room = recording.num_frames - first
            if room < num_frames:
                mel_BTF[row] = mel_BTF[row, torch.arange(num_frames, device=draw.device) % room]
        return mel_BTF

    def _seen(self, recording: Recording, first: int, last: int) -> Float32:
        """Return the samples that frames [first, last) see: reflected at the recording's ends, as in shards."""
        config, samples = get_preset(self.preset), self.waves[recording.start_frame]
        low = first * config.hop_length - config.padding
        high = (last - 1) * config.hop_length + config.fft_size - config.padding
        core = samples[max(low, 0) : min(high, len(samples))]
        return pad_reflect(core, max(0, -low), max(0, high - len(samples)))


def create_wave_corpus(waves: Sequence[NamedWave], config: MelConfig, augment: AugmentConfig) -> WaveCorpus:
    """Return the corpus of recordings of at least one frame each, split by the hash of their groups."""
    splits = split_groups({wave.group for wave in waves})
    recordings, by_start, start = [], {}, 0
    for wave in waves:
        num_frames = len(wave.samples) // config.hop_length
        recordings.append(Recording(wave.label, splits[wave.group], wave.group, True, start, num_frames))
        by_start[start] = wave.samples
        start += num_frames
    none: Float16 = np.empty((0, config.num_bands), np.float16)
    return WaveCorpus(none, None, tuple(recordings), config.name, config.hop_length, by_start, augment)


@lru_cache(maxsize=4)
def _mel_of(config: MelConfig, device: torch.device) -> TorchMel:
    return TorchMel(config).to(device)
