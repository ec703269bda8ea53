"""The compiled loops give what NumPy gives, at every vector width, and refuse what does not fit."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from audiofoundation.audio.decode import DecodeLimits, decode_file
from audiofoundation.audio.loudness import integrated_loudness
from audiofoundation.audio.survey import survey
from audiofoundation.audio.waveform import Waveform
from audiofoundation.features.descriptors import describe_briefly
from audiofoundation.features.mel import PRESETS, Float32, MelConfig, band_energies, log_mel, to_half
from audiofoundation.native import OFF, Kernels, _kernels, kernels, sparse
from audiofoundation.preprocessing.levels import LevelMeter

RECORDING = Path(__file__).parents[1] / "data" / "recordings" / "music-boomboxhead-ripper.flac"
RATE_HZ = 24000
WIDTHS = (8, 4)  # a machine without AVX2 does the first in the second's width

COMPILED_PRESETS = [it for it in PRESETS.values() if Kernels.has_transform(it.fft_size, it.hop_length)]

compiled = pytest.mark.skipif(_kernels is None, reason="the kernels are not compiled here")


@pytest.fixture(scope="module")
def music() -> Float32:
    limits = DecodeLimits(max_duration_s=60, max_bytes=1 << 28)
    samples: Float32 = decode_file(RECORDING, limits=limits, target_rate_hz=RATE_HZ, is_mono=True).waveform.samples[0]
    return samples


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    kernels.cache_clear()
    if _kernels is not None:
        _kernels.use_lanes(max(WIDTHS))


@pytest.fixture(params=WIDTHS)
def each_width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OFF, raising=False)
    compile_again(monkeypatch, request.param)


@pytest.fixture
def in_numpy(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Calls are made without the kernels, until `compile_again`."""
    monkeypatch.setenv(OFF, "0")
    kernels.cache_clear()
    return monkeypatch


def compile_again(patch: pytest.MonkeyPatch, width: int) -> None:
    patch.setenv(OFF, "1")
    kernels.cache_clear()
    assert kernels() is not None
    _kernels.use_lanes(width)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no compiler here")
def test_where_there_is_a_compiler_the_kernels_are_compiled() -> None:
    assert _kernels is not None, "install the package again and read what the compiler says: pip install -v -e ."


@compiled
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("num_frames", [1, 3, 4, 7, 8, 9, 300])
@pytest.mark.parametrize("config", COMPILED_PRESETS, ids=lambda config: config.name)
def test_mel(config: MelConfig, num_frames: int, width: int, music: Float32, in_numpy: pytest.MonkeyPatch) -> None:
    padded = music[: config.fft_size + (num_frames - 1) * config.hop_length + config.hop_length // 2]
    expected = band_energies(padded, config)

    compile_again(in_numpy, width)
    found = band_energies(padded, config)

    assert found.shape == expected.shape == (num_frames, config.num_bands)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6 * float(expected.max()))


@compiled
@pytest.mark.usefixtures("each_width")
def test_a_frame_is_the_same_to_the_bit_wherever_it_stands(music: Float32) -> None:
    config = PRESETS["vocos24"]
    whole = band_energies(music[: 1024 + 40 * 256], config)

    for first in (1, 5, 17, 40):
        np.testing.assert_array_equal(band_energies(music[first * 256 : 1024 + 40 * 256], config), whole[first:])


@compiled
@pytest.mark.usefixtures("each_width")
@pytest.mark.parametrize("samples", [np.zeros(5000, np.float32), np.full(5000, 0.5, np.float32)], ids=["silence", "dc"])
def test_mel_of_degenerate_sound_is_finite(samples: Float32) -> None:
    assert np.isfinite(log_mel(samples, PRESETS["vocos24"])).all()


@compiled
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("num_samples", [100, 2048, 6000, 72000, 240001])
def test_descriptors(num_samples: int, width: int, music: Float32, in_numpy: pytest.MonkeyPatch) -> None:
    expected, expected_power = describe_briefly(music[:num_samples], RATE_HZ)

    compile_again(in_numpy, width)
    found, power = describe_briefly(music[:num_samples], RATE_HZ)

    np.testing.assert_allclose(power, expected_power, rtol=1e-4, atol=1e-7 * float(expected_power.max()))
    assert found.spectral_centroid_hz == pytest.approx(expected.spectral_centroid_hz, rel=1e-4)
    assert found.spectral_bandwidth_hz == pytest.approx(expected.spectral_bandwidth_hz, rel=1e-4)
    assert found.spectral_rolloff_hz == pytest.approx(expected.spectral_rolloff_hz, abs=RATE_HZ / 2048)
    assert (found.zero_crossing_rate, found.rms) == pytest.approx((expected.zero_crossing_rate, expected.rms), rel=1e-5)
    np.testing.assert_allclose(found.mfcc_mean, expected.mfcc_mean, atol=1e-2)
    np.testing.assert_allclose(found.mfcc_std, expected.mfcc_std, atol=1e-2)


@compiled
@pytest.mark.usefixtures("each_width")
@pytest.mark.parametrize("block", [1, 777, 50000])
@pytest.mark.parametrize("seconds", [0.05, 0.35, 2.77])
def test_loudness(seconds: float, block: int, music: Float32) -> None:
    samples = music[: round(seconds * RATE_HZ)]
    if block == 1:
        samples = samples[:3000]
    meter = LevelMeter(RATE_HZ)
    for start in range(0, samples.size, block):
        meter.push(samples[None, start : start + block])

    assert meter.finish().loudness_lufs == pytest.approx(
        integrated_loudness(Waveform(samples[None], RATE_HZ)), abs=1e-6
    )


@compiled
@pytest.mark.usefixtures("each_width")
def test_loudness_beside_a_large_offset(music: Float32) -> None:
    samples = music * np.float32(0.01) + np.float32(0.9)
    meter = LevelMeter(RATE_HZ)
    meter.push(samples[None])

    assert meter.finish().loudness_lufs == pytest.approx(
        integrated_loudness(Waveform(samples[None], RATE_HZ)), abs=1e-6
    )


@compiled
@pytest.mark.usefixtures("each_width")
@pytest.mark.parametrize("num_frames", [1, 3, 8, 11])
@pytest.mark.parametrize("hop", [64, 256, 300])
def test_the_mean_power_is_that_of_the_frames_alone(hop: int, num_frames: int, music: Float32) -> None:
    samples, window = music[: 256 + (num_frames - 1) * hop + 20], np.hanning(256).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, 256)[::hop]
    expected = (np.abs(np.fft.rfft(frames * window)) ** 2).mean(axis=0)

    filters = sparse(np.ones((1, 129), np.float32))
    found = Kernels().describe(samples, hop, window, filters, rolloff_share=0.85, zero=0.0)

    assert len(frames) == len(found.shapes) == num_frames
    np.testing.assert_allclose(found.power, expected, rtol=1e-4, atol=1e-6 * expected.max())


@compiled
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize(("num_samples", "frame"), [(1, 1), (5, 480), (480, 480), (481, 480), (7200, 240), (999, 37)])
def test_survey(
    num_samples: int, frame: int, num_channels: int, width: int, music: Float32, in_numpy: pytest.MonkeyPatch
) -> None:
    samples = np.stack([music[70000 + start :][:num_samples] for start in range(num_channels)])
    expected = survey(samples, frame)

    compile_again(in_numpy, width)
    found = survey(samples, frame)

    assert (found.lowest, found.highest, found.peak) == (samples.min(), samples.max(), np.abs(samples).max())
    np.testing.assert_allclose(found.means, expected.means, atol=1e-7)
    np.testing.assert_allclose(found.energies, expected.energies, rtol=1e-5)
    np.testing.assert_allclose(found.powers(), expected.powers(), rtol=1e-5)
    assert found.powers()[-1] == pytest.approx(
        max(np.square(samples[:, (num_samples - 1) // frame * frame :]).mean(axis=1)), rel=1e-5
    )


@compiled
@pytest.mark.usefixtures("each_width")
def test_an_extreme_is_found_wherever_it_stands() -> None:
    for place in range(75):
        samples = np.full((1, 75), 0.25, np.float32)
        samples[0, place] = 0.5
        assert survey(samples, 50).highest == 0.5
        assert survey(-samples, 50).lowest == -0.5


@compiled
@pytest.mark.usefixtures("each_width")
def test_half_precision_is_that_of_numpy() -> None:
    special = [0.0, -0.0, np.inf, -np.inf, 65519.9, 65520.0, 1e9, 6e-8, 2.9e-8, 1e-30, 1.0 + 2**-11]
    values = np.concatenate([special, np.random.default_rng(1).normal(scale=30, size=4096)]).astype(np.float32)

    for count in (1, 7, 8, 11, values.size):
        with np.errstate(over="ignore"):
            expected, found = values[:count].astype(np.float16), to_half(values[:count])
        np.testing.assert_array_equal(found.view(np.uint16), expected.view(np.uint16))


@compiled
@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int16, np.int32, ">f4"])
def test_samples_of_another_type_are_converted_or_refused(dtype: str, music: Float32) -> None:
    config = PRESETS["vocos24"]
    samples = (music[:5000] * 1000).astype(dtype)

    np.testing.assert_array_equal(band_energies(samples, config), band_energies(samples.astype(np.float32), config))
    with pytest.raises(ValueError, match="expected float32"):
        Kernels().step_energies(samples, 100, 0, np.ones(5), np.ones(5))


@compiled
def test_what_does_not_fit_is_refused() -> None:
    native = Kernels()
    window, filters = np.ones(64, np.float32), sparse(np.ones((2, 33), np.float32))
    samples = np.zeros(640, np.float32)

    with pytest.raises(ValueError, match="do not fit"):
        native.band_energies(samples, 48, window, filters, power=1, epsilon=0.0)
    with pytest.raises(ValueError, match="filters do not fit"):
        native.band_energies(samples, 16, window, sparse(np.ones((2, 34), np.float32)), power=1, epsilon=0.0)
    with pytest.raises(ValueError, match="power"):
        native.band_energies(samples, 16, window, filters, power=3, epsilon=0.0)
    with pytest.raises(ValueError, match="fourth order"):
        native.step_energies(samples, 64, 0, np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="whole steps"):
        native.step_energies(samples, 100, 0, np.ones(5), np.ones(5))
    with pytest.raises(ValueError, match="no samples"):
        _kernels.survey(samples, 100, np.empty(6))
    with pytest.raises(ValueError, match="no samples"):
        _kernels.survey(samples, 0, np.empty(6))
    with pytest.raises(ValueError, match="another size"):
        _kernels.halve(samples, np.empty(639, np.float16))
    assert not Kernels.has_transform(400, 160)
