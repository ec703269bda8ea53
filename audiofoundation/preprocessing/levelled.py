"""One recording as a dataset's mels see it: mono, at the preset's rate, levelled and trimmed, but whole."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audiofoundation.audio.waveform import mix_to_mono
from audiofoundation.features.mel import Float32
from audiofoundation.preprocessing.options import DatasetOptions
from audiofoundation.preprocessing.recording import decode_to_spool
from audiofoundation.preprocessing.spool import SampleSpool


def read_levelled(path: Path, config: Mapping[str, Any], *, work_dir: Path) -> Float32:
    """Return float32 samples [N] whose log-mel is that of the recording's segments in the dataset.

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
    return samples
