"""From a recording to what the model continues: mono, at the model's rate and level, on its frame grid."""

import math
from dataclasses import dataclass

import numpy as np

from audiofoundation.audio.loudness import integrated_loudness
from audiofoundation.audio.resample import resample
from audiofoundation.audio.waveform import Waveform
from audiofoundation.features.mel import Float32, MelConfig, log_mel
from audiofoundation.inference.request import ContinuationRequest

CONTEXT_S = 10.0
_MIN_CONTEXT_S = 0.5
_MAX_GAIN_DB = 40.0
_SILENCE_RMS = 1e-5  # -100 dBFS: nothing that a level could be matched to


@dataclass(frozen=True, slots=True)
class PreparedPrompt:
    """A prompt ready for the model.

    Attributes:
        samples: float32 [N], what was selected, mono at the model's rate, at its own level; only the
            context's part of it unless the answer is to include the prompt.
        context: float32 [C], the end of it at the model's level, C a multiple of the patch; its last
            sample is the prompt's last sample.
        mel: float32 [C / hop, F], log-mel of the context; the frame that would follow is centred on the seam.
        gain: what the context was multiplied by.
    """

    samples: Float32
    context: Float32
    mel: Float32
    gain: float


def prepare_prompt(
    request: ContinuationRequest, config: MelConfig, *, patch_frames: int, loudness_lufs: float
) -> PreparedPrompt:
    """Select, convert and level the prompt.

    Raises:
        InvalidRequest: the part selected is empty.
    """
    samples = _select(request, config)
    kept = samples if request.include_prompt else samples[-round(CONTEXT_S * config.sample_rate_hz) :]
    context = _on_grid(kept[-round(CONTEXT_S * config.sample_rate_hz) :], config, patch_frames)
    context = context - context.mean(dtype=np.float64).astype(np.float32)
    gain = level_gain(context, config.sample_rate_hz, loudness_lufs)
    context = context * np.float32(gain)
    return PreparedPrompt(
        samples=kept,
        context=context,
        mel=log_mel(context, config)[: len(context) // config.hop_length],
        gain=gain,
    )


def _select(request: ContinuationRequest, config: MelConfig) -> Float32:
    """Return the selected part [N], mono at the preset's rate, at least one sample."""
    chosen, prompt = request.selected_range(), request.prompt
    start = chosen.start
    if not request.include_prompt:  # only the end is heard by the model: do not convert ten minutes for it
        start = max(start, chosen.stop - math.ceil((CONTEXT_S + 0.5) * prompt.sample_rate_hz))
    part = Waveform(prompt.samples[:, start : chosen.stop], prompt.sample_rate_hz).to_mono()
    samples = resample(part, config.sample_rate_hz).samples[0]
    return samples if samples.size else np.zeros(1, np.float32)


def _on_grid(samples: Float32, config: MelConfig, patch_frames: int) -> Float32:
    """Cut the beginning so that whole patches end on the last sample; mirror a short prompt backwards."""
    patch = patch_frames * config.hop_length
    least = math.ceil(_MIN_CONTEXT_S * config.sample_rate_hz / patch) * patch
    if samples.size >= least:
        return samples[samples.size % patch :]
    missing = least - samples.size
    return np.pad(samples, (missing, 0), mode="symmetric")


def level_gain(samples: Float32, sample_rate_hz: int, loudness_lufs: float) -> float:
    """Return the factor that brings mono samples [N] to the level a model was trained at; 1 for silence."""
    rms = math.sqrt(float(np.mean(np.square(samples, dtype=np.float64))))
    if rms < _SILENCE_RMS:
        return 1.0
    loudness = integrated_loudness(Waveform(samples[None, :], sample_rate_hz))
    if not math.isfinite(loudness):
        loudness = 20 * math.log10(rms) - 0.691
    gain_db = min(max(loudness_lufs - loudness, -_MAX_GAIN_DB), _MAX_GAIN_DB)
    return float(10 ** (gain_db / 20))
