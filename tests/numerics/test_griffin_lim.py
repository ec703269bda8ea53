"""Griffin-Lim: streaming gives the same samples whatever the pieces, and sounds like the recording."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from audiofoundation.features.griffin_lim import (
    GriffinLimVocoder,
    _Iterations,
    _random_phase_frames,
    griffin_lim,
    mel_to_magnitude,
)
from audiofoundation.features.mel import get_preset, log_mel, mel_filters
from audiofoundation.native import OFF, _kernels, kernels
from tests.numerics.test_mel_presets import Wave, speech_like

CONFIG = get_preset("vocos24")
NUMPY, WIDTHS = 0, (8, 4)

compiled = pytest.mark.skipif(_kernels is None, reason="the kernels are not compiled here")


def choose_loops(patch: pytest.MonkeyPatch, lanes: int) -> None:
    patch.setenv(OFF, "0" if lanes == NUMPY else "1")
    kernels.cache_clear()
    if lanes != NUMPY:
        _kernels.use_lanes(lanes)


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    kernels.cache_clear()
    if _kernels is not None:
        _kernels.use_lanes(max(WIDTHS))


@pytest.fixture(params=[NUMPY, *(pytest.param(lanes, marks=compiled) for lanes in WIDTHS)])
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In NumPy, then compiled for vectors of each width."""
    choose_loops(monkeypatch, request.param)


def off_grid_convergence(reference: Wave, estimate: Wave) -> float:
    """Relative magnitude error at transform sizes that no preset uses."""
    parts = []
    for size, hop in ((480, 120), (1920, 480)):
        window = np.hanning(size).astype(np.float32)
        spectra = [
            np.abs(np.fft.rfft(np.lib.stride_tricks.sliding_window_view(x, size)[::hop] * window))
            for x in (reference, estimate)
        ]
        parts.append(np.linalg.norm(spectra[0] - spectra[1]) / np.linalg.norm(spectra[0]))
    return float(np.mean(parts))


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("pieces", [1, 2, 3, 4, 7, 24, 200])
def test_pieces_do_not_change_the_samples(pieces: int) -> None:
    mel = log_mel(speech_like(1.3, 24000), CONFIG)
    whole = GriffinLimVocoder(CONFIG).create_stream(seed=3)
    expected = np.concatenate([whole.push(mel), whole.finish()])
    stream = GriffinLimVocoder(CONFIG).create_stream(seed=3)
    parts = [stream.push(mel[start : start + pieces]) for start in range(0, len(mel), pieces)]
    np.testing.assert_array_equal(np.concatenate([*parts, stream.finish()]), expected)
    assert len(expected) == len(mel) * CONFIG.hop_length


@pytest.mark.usefixtures("loops")
def test_streaming_is_close_to_offline_and_both_to_the_recording() -> None:
    wave = speech_like(3, 24000)
    mel = log_mel(wave, CONFIG)
    offline = griffin_lim(mel, CONFIG)[: len(wave)]
    stream = GriffinLimVocoder(CONFIG).create_stream(seed=0)
    streamed = np.concatenate([stream.push(mel), stream.finish()])[: len(wave)]
    noise = np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32) * wave.std()
    offline_error, streamed_error = off_grid_convergence(wave, offline), off_grid_convergence(wave, streamed)
    assert offline_error < 0.45 < off_grid_convergence(wave, noise)
    assert streamed_error < 1.25 * offline_error


def test_samples_leave_while_frames_arrive() -> None:
    mel = log_mel(speech_like(1, 24000), CONFIG)
    stream = GriffinLimVocoder(CONFIG).create_stream(seed=0)
    assert len(stream.push(mel[:12])) > 0


def test_the_end_is_not_louder_than_the_rest() -> None:
    mel = log_mel(speech_like(1, 24000), CONFIG)
    stream = GriffinLimVocoder(CONFIG).create_stream(seed=0)
    samples = np.concatenate([stream.push(mel), stream.finish()])
    assert np.abs(samples[-512:]).max() <= 1.5 * np.abs(samples[:-512]).max()


@pytest.mark.parametrize("num_frames", [0, 1, 2, 5])
def test_few_frames_give_their_samples(num_frames: int) -> None:
    mel = log_mel(speech_like(1, 24000), CONFIG)[:num_frames]
    stream = GriffinLimVocoder(CONFIG).create_stream(seed=0)
    samples = np.concatenate([stream.push(mel), stream.finish()])
    assert len(samples) == num_frames * CONFIG.hop_length
    assert len(griffin_lim(mel, CONFIG)) == num_frames * CONFIG.hop_length
    assert np.isfinite(samples).all()


def test_magnitudes_give_the_mel_back() -> None:
    mel = log_mel(speech_like(1, 24000), CONFIG)
    back = np.log(np.maximum(mel_to_magnitude(mel, CONFIG) @ mel_filters(CONFIG).T, 1e-7))
    assert np.abs(back - mel)[mel > -6].mean() < 0.1


@compiled
@pytest.mark.parametrize("lanes", WIDTHS)
@pytest.mark.parametrize("level", [1e-9, 1, 1e12])
@pytest.mark.parametrize("sizes", [(1024, 256), (32, 8), (64, 64), (128, 64), (512, 64), (4096, 2048), (8, 1)])
@pytest.mark.parametrize("num_frames", [1, 3, 4, 8, 9, 12, 17])
def test_compiled_iterations_are_those_of_numpy(
    num_frames: int, sizes: tuple[int, int], level: float, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of them: the second goes on with what the first left. Later ones enlarge differences of rounding."""
    fft_size, hop_length = sizes
    config = replace(CONFIG, fft_size=fft_size, win_length=fft_size, hop_length=hop_length)
    rng = np.random.default_rng(num_frames)
    shape = (num_frames, config.fft_size // 2 + 1)
    magnitude = (np.abs(rng.standard_normal(shape)).astype(np.float32) + np.float32(0.1)) * np.float32(level)
    frames, previous = _random_phase_frames(magnitude, rng), _random_phase_frames(magnitude, rng)
    before = rng.standard_normal(config.fft_size - config.hop_length).astype(np.float32) * np.float32(level)
    weight = rng.uniform(0.5, 1.5, before.shape).astype(np.float32)
    given = frames.copy(), previous.copy()

    def iterate() -> list[np.ndarray]:
        loop = _Iterations(config, num_frames, before, weight, smallest_weight=1e-1)
        return list(loop.run(frames, previous, magnitude, 2))

    choose_loops(monkeypatch, NUMPY)
    expected = iterate()
    choose_loops(monkeypatch, lanes)
    found = iterate()

    np.testing.assert_array_equal((frames, previous), given)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-4 * level)
    # A phase is as exact as the sum that it comes from is large; of few bins one may come from next to nothing.
    share = 0.999 if fft_size >= 512 else 0.99
    assert np.quantile(np.abs(found[0] - expected[0]), share) < 1e-4 * level
    assert not np.array_equal(found[0], expected[0])  # it was computed in another way


@pytest.mark.usefixtures("loops")
def test_silence_stays_silent_and_no_level_becomes_senseless() -> None:
    mel = np.full((40, CONFIG.num_bands), -11.5, np.float32)
    assert np.abs(griffin_lim(mel, CONFIG)).max() < 1e-3
    mel[20:] = 80
    loud = griffin_lim(mel, CONFIG)
    assert np.isfinite(loud).all()
    assert np.abs(loud).max() > 1e9


@compiled
def test_iterations_over_what_does_not_fit_are_refused() -> None:
    def arguments() -> list[np.ndarray]:
        """Three frames of 64 samples, 16 apart: before, gain and the rest."""
        shapes = [(3, 66), (3, 66), (3, 33), (6, 16), (6, 16), (64,), (128,)]
        return [np.ones(shape, np.float32) for shape in shapes]

    _kernels.griffin_lim(16, 1, 0.5, *arguments())
    for index in range(7):
        for change in (-1, 1):
            arrays = arguments()
            arrays[index] = np.ones(arrays[index].size + change, np.float32)
            with pytest.raises(ValueError, match="do not fit"):
                _kernels.griffin_lim(16, 1, 0.5, *arrays)
    for hop, num_iterations in ((0, 1), (-16, 1), (24, 1), (48, 1), (32, 1), (8, 1), (128, 1), (16, -1)):
        with pytest.raises(ValueError, match="do not fit"):
            _kernels.griffin_lim(hop, num_iterations, 0.5, *arguments())
