"""How well a continuation joins its prompt, judged by the prompt's own movement.

Three jumps are measured at the seam and at every 32 ms step inside the prompt:

- flux: the largest change between neighbouring log-mel frames whose windows touch the point;
- level: the change of the mean log energy from the 0.1 s before to the 0.1 s after it;
- bands: the mean absolute change of the bands' mean log energies over the same spans, level removed.

With the median m and the 90th percentile q of a jump inside the prompt, the seam's jump d scores
`exp(-max(0, (d - q) / (q - m + e)))`, where e = 0.05 nats keeps a steady prompt from making every sound a jump. A
jump that one in ten points of the recording has scores 1. The seam score is the geometric mean of the three.
"""

from dataclasses import dataclass

import numpy as np

from audiofoundation.features.mel import Float32, MelConfig, log_mel

MEASURED_SAMPLES = 3072  # of the continuation, at 24 kHz: the 0.1 s after the seam and half a window
_SPAN_FRAMES = 9  # 0.1 s
_STEP_FRAMES = 3
_MIN_POINTS = 8
_EPSILON = 0.05
_FLOOR = np.float32(-4.0)  # about 80 dB under a full-scale tone: what lies below is not heard


@dataclass(frozen=True, slots=True)
class _Jumps:
    flux: float
    level: float
    bands: float


def seam_score(prompt: Float32, continuation: Float32, config: MelConfig) -> float | None:
    """Return a score in (0, 1]; 1 is as smooth as the recording itself.

    Args:
        prompt: the last seconds of the prompt, float32 [N] at the preset's rate.
        continuation: its first `MEASURED_SAMPLES` or more, float32 [M].
        config: the mel preset.

    Returns:
        None when the prompt is too short (under about 0.45 s) or the continuation under 0.1 s.
    """
    hop = config.hop_length
    prompt = prompt[len(prompt) % hop :]
    joined = np.concatenate([prompt, continuation[:MEASURED_SAMPLES]])
    mel = np.maximum(log_mel(joined, config), _FLOOR)
    seam = len(prompt) // hop
    half = config.fft_size // 2 // hop
    inside = range(_SPAN_FRAMES, seam - _SPAN_FRAMES - half, _STEP_FRAMES)
    if len(inside) < _MIN_POINTS or len(mel) < seam + _SPAN_FRAMES:
        return None
    at_seam = _jumps(mel, seam, half)
    reference = [_jumps(mel, frame, half) for frame in inside]
    scores = (
        _score(at_seam.flux, [jumps.flux for jumps in reference]),
        _score(at_seam.level, [jumps.level for jumps in reference]),
        _score(at_seam.bands, [jumps.bands for jumps in reference]),
    )
    return float(np.prod(scores) ** (1 / len(scores)))


def _jumps(mel: Float32, frame: int, half: int) -> _Jumps:
    near = mel[frame - half : frame + half + 1]
    before, after = mel[frame - _SPAN_FRAMES : frame], mel[frame : frame + _SPAN_FRAMES]
    change = after.mean(axis=0) - before.mean(axis=0)
    level = float(change.mean())
    return _Jumps(
        flux=float(np.abs(np.diff(near, axis=0)).mean(axis=1).max()),
        level=abs(level),
        bands=float(np.abs(change - level).mean()),
    )


def _score(jump: float, reference: list[float]) -> float:
    median, high = np.quantile(reference, [0.5, 0.9])
    return float(np.exp(-max(0.0, (jump - high) / (high - median + _EPSILON))))
