"""Where sound begins and ends, and how long recordings are cut."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from audiofoundation.audio.waveform import Samples, Waveform

Levels = np.ndarray[tuple[int], np.dtype[np.float64]]
Energies = NDArray[np.float64]

_FRAME_S = 0.01
_SILENCE_DBFS = -70.0


def trim_silence(waveform: Waveform, *, threshold_db: float = 40.0, margin_s: float = 0.05) -> Waveform:
    """Cut what is quiet before the first and after the last sound.

    Args:
        waveform: what to trim.
        threshold_db: frames of 10 ms that lie this far below the loudest one are quiet, and so is
            everything under -70 dBFS.
        margin_s: kept before and after the sound.

    Returns:
        The middle part; no samples at all when everything is quiet.
    """
    frame = max(1, round(_FRAME_S * waveform.sample_rate_hz))
    levels = frame_levels_db(waveform, frame)
    if not len(levels):
        return waveform
    is_loud = np.flatnonzero(levels > max(float(levels.max()) - threshold_db, _SILENCE_DBFS))
    if not len(is_loud):
        return Waveform(waveform.samples[:, :0], waveform.sample_rate_hz)
    margin = round(margin_s * waveform.sample_rate_hz)
    start = max(0, int(is_loud[0]) * frame - margin)
    stop = min(waveform.num_samples, (int(is_loud[-1]) + 1) * frame + margin)
    return Waveform(waveform.samples[:, start:stop], waveform.sample_rate_hz)


def frame_levels_db(waveform: Waveform, frame_samples: int) -> Levels:
    """Level of each frame in dBFS (of the loudest channel; -inf for digital silence); the last may be short."""
    return levels_db(frame_energies(waveform.samples, frame_samples), waveform.num_samples, frame_samples)


def frame_energies(samples: Samples, frame_samples: int) -> Energies:
    """Sum of squares of each frame [channels, frames]; the last may be short."""
    num_channels, num_samples = samples.shape
    whole = num_samples - num_samples % frame_samples
    frames = samples[:, :whole].reshape(num_channels, -1, frame_samples)
    energies: Energies = np.einsum("cij,cij->ci", frames, frames).astype(np.float64)
    if whole == num_samples:
        return energies
    rest = samples[:, whole:]
    return np.concatenate([energies, np.einsum("ci,ci->c", rest, rest)[:, None]], axis=1)


def levels_db(energies: Energies, num_samples: int, frame_samples: int) -> Levels:
    """Level of each frame, as `frame_levels_db`, from its energies [channels, frames]."""
    lengths = np.full(energies.shape[1], frame_samples)
    lengths[-1:] -= energies.shape[1] * frame_samples - num_samples
    with np.errstate(divide="ignore"):
        levels: Levels = 10 * np.log10(energies.max(axis=0) / lengths)
    return levels


def segments(num_samples: int, *, segment_samples: int, min_samples: int) -> Iterator[range]:
    """Cut into consecutive parts of equal length.

    Args:
        num_samples: length of the whole.
        segment_samples: length of a part.
        min_samples: a shorter rest is left out.

    Yields:
        Ranges of sample indices.
    """
    if segment_samples < 1:
        raise ValueError("segment_samples must be positive")
    for start in range(0, num_samples, segment_samples):
        stop = min(start + segment_samples, num_samples)
        if stop - start >= min_samples:
            yield range(start, stop)
