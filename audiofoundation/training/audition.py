"""What a model in training sounds like: a clip to listen to at every evaluation."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from audiofoundation.features.griffin_lim import GriffinLimVocoder
from audiofoundation.features.mel import get_preset, log_mel
from audiofoundation.features.vocoder_protocol import Vocoder
from audiofoundation.models.generation import MelContinuation
from audiofoundation.models.mel_transformer import MelTransformer
from audiofoundation.models.vocoder import CausalVocos, CausalVocosVocoder
from audiofoundation.training.corpus import Corpus, Recording
from audiofoundation.training.shards_corpus import VALIDATION

_PROMPT_S, _CONTINUATION_S, _COPY_S = 3.0, 3.0, 3.0


@dataclass(frozen=True, slots=True)
class Clip:
    """Mono samples float32 [N] in [-1, 1] with a name."""

    tag: str
    samples: NDArray[np.float32]
    sample_rate_hz: int


def audition(model: nn.Module, corpus: Corpus) -> list[Clip]:
    """Return what the model makes of one recording: its continuation (prompt first), or its copy beside it."""
    frame_rate_hz = get_preset(corpus.preset).frame_rate_hz
    if isinstance(model, MelTransformer):
        return _continue(_on_cpu(model), corpus, round(_PROMPT_S * frame_rate_hz))
    if isinstance(model, CausalVocos):
        return _copy(_on_cpu(model), corpus, round(_COPY_S * frame_rate_hz))
    return []


def _on_cpu(model: nn.Module) -> nn.Module:
    if next(model.parameters()).device.type == "cpu":
        return model
    import copy

    return copy.deepcopy(model).cpu()


def _continue(model: nn.Module, corpus: Corpus, num_frames: int) -> list[Clip]:
    assert isinstance(model, MelTransformer)
    config = get_preset(corpus.preset)
    recording = _longest(corpus)
    prompt = corpus.mel_excerpt(recording, recording.start_frame, num_frames)
    stream = MelContinuation(model, seed=0)
    stream.prefill(prompt)
    patches = round(_CONTINUATION_S * config.frame_rate_hz) // model.config.patch_frames
    frames = np.concatenate([prompt, *(stream.next_patch() for _ in range(patches))])
    return [Clip("continuation", _vocode(GriffinLimVocoder(config), frames), config.sample_rate_hz)]


def _copy(model: nn.Module, corpus: Corpus, num_frames: int) -> list[Clip]:
    assert isinstance(model, CausalVocos)
    config, recording = get_preset(corpus.preset), _longest(corpus)
    samples = corpus.wave_excerpt(recording, recording.start_frame, num_frames)
    mel = log_mel(samples, config)[: len(samples) // config.hop_length]
    copied = _vocode(CausalVocosVocoder(model, "in training"), mel)
    return [
        Clip("copy", copied[: len(samples)], config.sample_rate_hz),
        Clip("original", samples, config.sample_rate_hz),
    ]


def _longest(corpus: Corpus) -> Recording:
    """Return the longest held-out recording, else the longest of all."""
    held_out = [r for r in corpus.recordings if r.split == VALIDATION]
    return max(held_out or corpus.recordings, key=lambda r: r.num_frames)


@torch.inference_mode()
def _vocode(vocoder: Vocoder, mel: NDArray[np.float32]) -> NDArray[np.float32]:
    stream = vocoder.create_stream(seed=0)
    samples: NDArray[np.float32] = np.concatenate([stream.push(mel), stream.finish()])
    return samples
