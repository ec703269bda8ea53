"""Griffin-Lim: streaming gives the same samples whatever the pieces, and sounds like the recording."""

import numpy as np
import pytest

from audiofoundation.features.griffin_lim import GriffinLimVocoder, griffin_lim, mel_to_magnitude
from audiofoundation.features.mel import get_preset, log_mel, mel_filters
from tests.numerics.test_mel_presets import Wave, speech_like

CONFIG = get_preset("vocos24")


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


@pytest.mark.parametrize("pieces", [1, 2, 3, 4, 7, 24, 200])
def test_pieces_do_not_change_the_samples(pieces: int) -> None:
    mel = log_mel(speech_like(1.3, 24000), CONFIG)
    whole = GriffinLimVocoder(CONFIG).create_stream(seed=3)
    expected = np.concatenate([whole.push(mel), whole.finish()])
    stream = GriffinLimVocoder(CONFIG).create_stream(seed=3)
    parts = [stream.push(mel[start : start + pieces]) for start in range(0, len(mel), pieces)]
    np.testing.assert_array_equal(np.concatenate([*parts, stream.finish()]), expected)
    assert len(expected) == len(mel) * CONFIG.hop_length


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
