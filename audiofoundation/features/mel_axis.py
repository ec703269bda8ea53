"""The frequency axis of a mel spectrogram's picture: where in the bands some round frequencies lie."""

import numpy as np

from audiofoundation.features.mel import MelConfig, mel_filters

_ROUND_HZ = (100, 250, 500, 1000, 2000, 4000, 8000, 16000)


def frequency_ticks(config: MelConfig) -> tuple[list[float], list[str]]:
    """Return places on an axis from 0 to `num_bands`, one unit a band, and the frequencies there in Hz as text."""
    filters = mel_filters(config).astype(np.float64)
    bins_hz = np.arange(filters.shape[1]) * config.sample_rate_hz / config.fft_size
    # A band narrower than a bin may hold none: it takes the frequency of the one below.
    centres_hz = np.maximum.accumulate(filters @ bins_hz / np.maximum(filters.sum(1), np.finfo(np.float64).tiny))
    inside = [hz for hz in _ROUND_HZ if centres_hz[0] <= hz <= centres_hz[-1]]
    places = np.interp(inside, centres_hz, np.arange(config.num_bands) + 0.5)
    return places.tolist(), [f"{hz // 1000} k" if hz >= 1000 else str(hz) for hz in inside]
