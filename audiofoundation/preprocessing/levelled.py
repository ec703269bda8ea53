"""One recording as a dataset's mels see it: mono, at the preset's rate, levelled and trimmed, but not cut."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audiofoundation.audio.clipping import Clipping
from audiofoundation.audio.waveform import mix_to_mono
from audiofoundation.features.mel import Float32
from audiofoundation.preprocessing.options import DatasetOptions
from audiofoundation.preprocessing.recording import decode_to_spool, measure_segment
from audiofoundation.preprocessing.segments import SegmentPlan
from audiofoundation.preprocessing.spool import SampleSpool


def read_levelled(path: Path, config: Mapping[str, Any], *, work_dir: Path) -> list[Float32]:
    """Return float32 samples [N] whose log-mel is that of the recording's segments in the dataset.

    They are one stretch, or as many as are left between the segments that miss one of the dataset's thresholds. Where
    a stretch ends because of that, the mels of the shards see the sound beyond.

    Args:
        path: the original bytes.
        config: the dataset's options, as the catalog keeps them.
        work_dir: where the sound of a long recording lies meanwhile.

    Raises:
        DecodeFailed, AudioTooLong, PayloadTooLarge: the recording cannot be read.
        Overloaded: try again.
    """
    options = DatasetOptions.from_config(dict(config))
    with SampleSpool(work_dir) as spool:
        levels = decode_to_spool(path, options, spool)
        start, stop = (levels.first_sound, levels.last_sound) if options.is_trimmed else (0, spool.num_samples)
        gain = np.float32(levels.gain_to(options.target_lufs))
        samples: Float32 = mix_to_mono(spool.read(start, stop))[0] * gain
    return _kept(samples, start, options, levels.clipping) if options.thresholds.to_config() else [samples]


def _kept(samples: Float32, begin: int, options: DatasetOptions, clipping: Clipping) -> list[Float32]:
    """Return the neighbouring segments that meet the thresholds, joined; `begin` is where samples begin."""
    config, bounds = options.mel, list[tuple[int, int]]()
    plan = SegmentPlan(config, options.segment_frames, options.min_frames, 0, len(samples))
    for first, last in plan.ranges():
        start, stop = first * config.hop_length, last * config.hop_length
        quality, _ = measure_segment(samples[start:stop], begin + start, config.sample_rate_hz, clipping)
        if options.thresholds.first_missed(quality) is not None:
            continue
        if bounds and bounds[-1][1] == start:
            start = bounds.pop()[0]
        bounds.append((start, stop))
    return [samples[start:stop] for start, stop in bounds]
