"""A recording of any kind becomes mono samples at one rate, trimmed, cut and as loud as they can be."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audiofoundation.audio.decode import DecodeLimits, decode_blocks
from audiofoundation.errors import InvalidRequest
from audiofoundation.features.descriptors import FRAME_LENGTH, HOP_LENGTH
from audiofoundation.features.mel import Float32

_AMPLITUDE_FLOOR = 1e-5  # librosa's: nothing counts as quieter than -100 dBFS
_SILENT_PEAK = 1e-4  # three steps of 16 bits
_CONSIDERED_S = 600.0
_LIMITS = DecodeLimits(max_duration_s=86_400, max_bytes=4 << 30, wall_s=600, cpu_s=300)


@dataclass(frozen=True, slots=True)
class Conditioning:
    """How recordings are prepared.

    Attributes:
        sample_rate_hz: of the result.
        max_duration_s: what follows is cut off, after trimming.
        trim_db: frames this far below the loudest one, at either end, are silence.
    """

    sample_rate_hz: int = 32_000
    max_duration_s: float = 30.0
    trim_db: float = 20.0

    def __post_init__(self) -> None:
        if not 8000 <= self.sample_rate_hz <= 192_000:
            raise ValueError(f"the sample rate must be between 8000 and 192000 Hz, not {self.sample_rate_hz}")
        if not 0.1 <= self.max_duration_s <= _CONSIDERED_S:
            raise ValueError(f"the longest sample must be 0.1 to {_CONSIDERED_S:g} s, not {self.max_duration_s:g}")
        if self.trim_db <= 0:
            raise ValueError(f"the trim threshold must be positive, not {self.trim_db:g}")


@dataclass(frozen=True, slots=True)
class Conditioned:
    """Prepared audio.

    Attributes:
        samples: float32 [N], peak 1.
        source_duration_s: how long the recording was, as far as it was read.
        damage: a sentence when something in the file did not decode; what came before it was used.
    """

    samples: Float32
    source_duration_s: float
    damage: str | None


def condition_file(path: Path, conditioning: Conditioning) -> Conditioned:
    """Decode a recording in the sandbox and prepare it. Of a long one the first ten minutes are looked at.

    Raises:
        InvalidRequest: it is silent, too short, or holds numbers that are none.
        DecodeFailed, AudioTooLong, PayloadTooLarge, DeadlineExceeded, Overloaded: as `audio.decode`.
    """
    samples, damage = _read(path, conditioning.sample_rate_hz)
    if not np.isfinite(samples).all():
        raise InvalidRequest("The recording holds samples that are no numbers.")
    if samples.size == 0 or float(np.abs(samples).max()) < _SILENT_PEAK:
        raise InvalidRequest("The recording is silent.")
    trimmed = samples[nonsilent_span(samples, top_db=conditioning.trim_db)]
    kept = trimmed[: round(conditioning.max_duration_s * conditioning.sample_rate_hz)]
    if kept.size < FRAME_LENGTH:  # descriptors of less would be those of the padding
        shortest_ms = 1000 * FRAME_LENGTH / conditioning.sample_rate_hz
        raise InvalidRequest(f"The recording's sound is shorter than one analysis window ({shortest_ms:.0f} ms).")
    peak = np.abs(kept).max()
    return Conditioned(kept / peak, samples.size / conditioning.sample_rate_hz, damage)


def nonsilent_span(samples: Float32, *, top_db: float) -> slice:
    """Return where sound begins and ends, by the definition of librosa 0.11's `effects.trim`.

    Frames of 2048 samples lie every 512, centred, with zeros beyond the ends; silent are those whose RMS is
    `top_db` or more below the loudest frame's.

    Args:
        samples: [N], N >= 1.
        top_db: positive.
    """
    padded = np.pad(samples.astype(np.float64) ** 2, FRAME_LENGTH // 2)
    energy = np.concatenate([[0.0], np.cumsum(padded)])
    starts = np.arange(0, padded.size - FRAME_LENGTH + 1, HOP_LENGTH)
    rms = np.sqrt(np.maximum(energy[starts + FRAME_LENGTH] - energy[starts], 0.0) / FRAME_LENGTH)
    level_db = 20 * np.log10(np.maximum(rms, _AMPLITUDE_FLOOR) / max(rms.max(), _AMPLITUDE_FLOOR))
    loud = np.flatnonzero(level_db > -top_db)
    return slice(int(loud[0]) * HOP_LENGTH, min(samples.size, (int(loud[-1]) + 1) * HOP_LENGTH))


def _read(path: Path, rate_hz: int) -> tuple[Float32, str | None]:
    blocks: list[Float32] = []
    num_samples = 0
    with decode_blocks(path, limits=_LIMITS, target_rate_hz=rate_hz, max_channels=1) as decoded:
        for block in decoded:
            blocks.append(block.samples[0])
            num_samples += block.num_samples
            if num_samples >= _CONSIDERED_S * rate_hz:
                break
    return np.concatenate([*blocks, np.zeros(0, np.float32)]), decoded.damage
