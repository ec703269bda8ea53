"""Where sound begins and ends, and how long recordings are cut."""

from collections.abc import Iterator

import numpy as np

from audiofoundation.audio.survey import survey
from audiofoundation.audio.waveform import Waveform

Levels = np.ndarray[tuple[int], np.dtype[np.float64]]

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
    if not waveform.num_samples:
        return np.zeros(0)
    with np.errstate(divide="ignore"):
        levels: Levels = 10 * np.log10(survey(waveform.samples, frame_samples).powers())
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
