import numpy as np
import pytest

from audiofoundation.audio.waveform import Samples, Waveform, mix_to_mono, mix_to_stereo


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


def test_of_many_channels_each_goes_to_its_side_and_the_others_half_to_both() -> None:
    samples = np.eye(6, dtype=np.float32)
    left, right = mix_to_stereo(samples, ["FL", "FR", "FC", "LFE", "SL", "SR"])

    np.testing.assert_allclose(left, np.array([2, 0, 1, 1, 2, 0]) / 6, rtol=1e-6)
    np.testing.assert_allclose(right, np.array([0, 2, 1, 1, 0, 2]) / 6, rtol=1e-6)


@pytest.mark.parametrize(
    "names", [["FL", "FR", "LFE"], ["FL", "FR", "BL", "BR"], ["NONE"] * 4, ["FL", "FR", "FC", "LFE", "BC", "SL", "SR"]]
)
def test_the_mean_of_the_stereo_mix_is_the_mono_mix(names: list[str]) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (len(names), 500)).astype(np.float32)
    stereo = mix_to_stereo(samples, names)

    assert stereo.shape == (2, 500)
    np.testing.assert_allclose(mix_to_mono(stereo), mix_to_mono(samples), atol=1e-6)


@pytest.mark.parametrize("names", [["FC"], ["FL", "FR"], ["NONE", "NONE"], ["FR", "FL"]])
def test_one_or_two_channels_stay_as_they_are(names: list[str]) -> None:
    samples = np.ones((len(names), 3), np.float32)

    assert mix_to_stereo(samples, names) is samples
