import numpy as np
import pytest

from audiofoundation.audio.waveform import Samples, Waveform


def test_counts_and_duration() -> None:
    waveform = Waveform(np.zeros((2, 12000), np.float32), 24000)

    assert (waveform.num_channels, waveform.num_samples, waveform.duration_s) == (2, 12000, 0.5)


def test_mono_is_the_mean() -> None:
    mono = Waveform(np.array([[1.0, 0.0], [0.0, 0.5]], np.float32), 24000).to_mono()

    assert mono.samples.tolist() == [[0.5, 0.25]]
    assert mono.to_mono() is mono


@pytest.mark.parametrize(
    "samples", [np.zeros(10, np.float32), np.zeros((0, 10), np.float32), np.zeros((1, 10), np.float64)]
)
def test_malformed_arrays_are_refused(samples: Samples) -> None:
    with pytest.raises(ValueError, match="samples must be"):
        Waveform(samples, 24000)


def test_rate_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        Waveform(np.zeros((1, 1), np.float32), 0)
