"""Every mel preset equals its origin; streaming and torch equal offline NumPy."""

import numpy as np
import pytest
import torch
import torchaudio
from librosa.filters import mel as librosa_filters
from numpy.typing import NDArray
from transformers import WhisperFeatureExtractor
from vocos.feature_extractors import MelSpectrogramFeatures

from audiofoundation.errors import MelMismatch
from audiofoundation.features.mel import PRESETS, MelConfig, StreamingMel, get_preset, log_mel, mel_filters
from audiofoundation.features.mel_torch import TorchMel

Wave = NDArray[np.float32]


def speech_like(seconds: float, sample_rate_hz: int, seed: int = 0) -> Wave:
    """Harmonics with a moving pitch under a syllable-rate envelope, over a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * sample_rate_hz)) / sample_rate_hz
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * t)) / sample_rate_hz
    voiced = sum(np.sin(k * phase) / k for k in range(1, 30))
    wave = 0.1 * voiced * (0.55 + 0.45 * np.sin(2 * np.pi * 3 * t)) + 0.003 * rng.standard_normal(t.size)
    return np.asarray(wave, np.float32)


def test_vocos24_equals_vocos() -> None:
    wave = speech_like(5, 24000)
    theirs = MelSpectrogramFeatures()(torch.from_numpy(wave)[None])[0].T.numpy()
    ours = log_mel(wave, get_preset("vocos24"))
    assert ours.shape == theirs.shape
    # Two float32 transforms differ in their rounding; only the narrow lowest band shows it.
    difference = np.abs(ours - theirs)
    assert np.quantile(difference, 0.99) <= 1e-5
    assert difference.max() <= 1e-4


@pytest.mark.parametrize("name", ["hifigan22", "bigvgan24"])
def test_hifigan_family_equals_its_published_recipe(name: str) -> None:
    config = get_preset(name)
    wave = speech_like(3, config.sample_rate_hz)
    filters = librosa_filters(
        sr=config.sample_rate_hz, n_fft=1024, n_mels=config.num_bands, fmin=0, fmax=config.fmax_hz
    )
    padded = torch.nn.functional.pad(torch.from_numpy(wave)[None, None], (384, 384), mode="reflect")[0]
    spectrum = torch.stft(padded, 1024, 256, window=torch.hann_window(1024), center=False, return_complex=True)
    magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)[0]
    theirs = torch.log(torch.clamp(torch.from_numpy(filters) @ magnitude, min=1e-5)).T.numpy()
    np.testing.assert_allclose(log_mel(wave, config), theirs, atol=5e-5)


def test_whisper16_equals_transformers() -> None:
    wave = np.zeros(480_000, np.float32)
    wave[:80_000] = speech_like(5, 16000)
    theirs = WhisperFeatureExtractor()(wave, sampling_rate=16000, return_tensors="np").input_features[0].T
    np.testing.assert_allclose(log_mel(wave, get_preset("whisper16")), theirs, atol=1e-5)


@pytest.mark.parametrize("name", ["hifigan22", "bigvgan24", "whisper16"])
def test_slaney_filters_equal_librosa(name: str) -> None:
    config = get_preset(name)
    theirs = librosa_filters(
        sr=config.sample_rate_hz, n_fft=config.fft_size, n_mels=config.num_bands, fmax=config.fmax_hz
    )
    np.testing.assert_allclose(mel_filters(config), theirs, atol=1e-8)


def test_htk_filters_equal_torchaudio() -> None:
    theirs = torchaudio.functional.melscale_fbanks(513, 0.0, 12000.0, 100, 24000, None, "htk").T.numpy()
    # The band edges pass through a float32 power; torch's vectorised one may differ in the last bit.
    np.testing.assert_allclose(mel_filters(get_preset("vocos24")), theirs, atol=5e-6)


@pytest.mark.parametrize("name", ["vocos24", "hifigan22", "bigvgan24"])
@pytest.mark.parametrize("num_samples", [1, 300, 700, 24_000, 50_001])
def test_streaming_equals_offline(name: str, num_samples: int) -> None:
    config = get_preset(name)
    wave = speech_like(3, config.sample_rate_hz)[:num_samples]
    rng = np.random.default_rng(num_samples)
    stream, frames, start = StreamingMel(config), [], 0
    while start < num_samples:
        size = int(rng.integers(1, 3000))
        frames.append(stream.push(wave[start : start + size]))
        start += size
    streamed = np.concatenate([*frames, stream.finish()])
    np.testing.assert_allclose(streamed, log_mel(wave, config), atol=2e-6)
    assert len(streamed) == config.frames_for(num_samples)


@pytest.mark.parametrize("name", ["vocos24", "hifigan22", "bigvgan24"])
def test_torch_equals_numpy(name: str) -> None:
    config = get_preset(name)
    wave = speech_like(2, config.sample_rate_hz)
    theirs = TorchMel(config)(torch.from_numpy(wave)[None])[0].numpy()
    np.testing.assert_allclose(theirs, log_mel(wave, config), atol=2e-4)


def test_whisper_refuses_to_stream() -> None:
    with pytest.raises(ValueError, match="cannot stream"):
        StreamingMel(get_preset("whisper16"))


def test_fingerprints_differ_and_ignore_the_name() -> None:
    assert len({config.fingerprint for config in PRESETS.values()}) == len(PRESETS)
    config = get_preset("vocos24")
    fields = {name: getattr(config, name) for name in config.__dataclass_fields__}
    assert MelConfig(**{**fields, "name": "other"}).fingerprint == config.fingerprint
    assert MelConfig(**{**fields, "hop_length": 300}).fingerprint != config.fingerprint


def test_a_wrong_fingerprint_is_refused_in_words() -> None:
    with pytest.raises(MelMismatch, match="preprocess again"):
        get_preset("vocos24").require("0" * 16, what="shard 3")


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(MelMismatch, match="vocos24"):
        get_preset("vocos48")
