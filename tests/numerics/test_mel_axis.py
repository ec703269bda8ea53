"""Ticks of a picture's frequency axis lie where a tone of that frequency is loudest."""

import numpy as np
import pytest

from audiofoundation.features.mel import get_preset, log_mel
from audiofoundation.features.mel_axis import frequency_ticks


@pytest.mark.parametrize("preset", ["vocos24", "whisper16", "hifigan22"])
def test_a_tone_is_loudest_in_the_band_at_its_tick(preset: str) -> None:
    config = get_preset(preset)
    places, names = frequency_ticks(config)
    assert names[:4] == ["100", "250", "500", "1 k"]
    assert places == sorted(places)
    seconds = np.arange(config.sample_rate_hz) / config.sample_rate_hz
    for place, name in zip(places, names, strict=True):
        hz = float(name.replace(" k", "e3"))
        mel = log_mel(np.sin(2 * np.pi * hz * seconds).astype(np.float32), config)
        loudest = mel[len(mel) // 2].argmax()
        assert abs(loudest + 0.5 - place) < 1.0
