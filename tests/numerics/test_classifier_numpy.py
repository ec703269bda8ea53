"""The classifier in NumPy gives the scores of the one in torch: who changes one must change the other."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiofoundation.features.mel import Float32, get_preset, log_mel
from audiofoundation.models.checkpoint import load_model, save_model
from audiofoundation.models.classifier import MelClassifier, MelClassifierConfig
from audiofoundation.models.classifier_numpy import NumpyClassifier, load_classifier
from audiofoundation.settings import ModelSettings
from tests.data_plane import RECORDINGS, recordings

BUNDLED = ModelSettings().pretrained_dir / "classifier-tiny" / "model.safetensors"
TOLERANCE = 1e-4  # float32 sums of 864 products in another order; scores lie between -10 and 10


@pytest.fixture(scope="module")
def ours() -> NumpyClassifier:
    return load_classifier(BUNDLED)


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    return load_model(BUNDLED).module


def mel_of(path: Path) -> Float32:
    samples, rate_hz = soundfile.read(path, dtype="float32")
    assert rate_hz == 24_000
    return log_mel(samples if samples.ndim == 1 else samples.mean(axis=1), get_preset("vocos24"))


def torch_logits(module: torch.nn.Module, mel: Float32) -> Float32:
    with torch.inference_mode():
        logits: Float32 = module(torch.from_numpy(mel)[None])[0].numpy()
    return logits


@pytest.mark.parametrize("path", recordings(100), ids=lambda path: path.name)
def test_real_recordings_get_the_scores_of_torch(ours: NumpyClassifier, theirs: torch.nn.Module, path: Path) -> None:
    mel = mel_of(path)
    for part in (mel[:188], mel[-188:], mel[: len(mel) // 2 * 2 - 1], mel[:16]):
        np.testing.assert_allclose(ours.logits(part), torch_logits(theirs, part), atol=TOLERANCE, rtol=0)


def test_digital_silence_gets_the_scores_of_torch(ours: NumpyClassifier, theirs: torch.nn.Module) -> None:
    mel = mel_of(RECORDINGS / "speech-pmatthes-LJ001-0001.opus")[:188].copy()
    mel[60:120] = np.log(1e-7)
    np.testing.assert_allclose(ours.logits(mel), torch_logits(theirs, mel), atol=TOLERANCE, rtol=0)


def test_other_sizes_and_statistics_get_the_scores_of_torch(tmp_path: Path) -> None:
    torch.manual_seed(3)
    config = MelClassifierConfig(labels=("a", "b", "c", "d"), preset="hifigan22", num_bands=80, width=5)
    module = MelClassifier(config).eval()
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) - (0.5 if tensor.ndim > 1 else 0.0) + 0.1)
    path = tmp_path / "model.safetensors"
    save_model(path, module, name="other")
    loaded = load_classifier(path)
    mel = np.random.default_rng(1).normal(-5, 3, (187, 80)).astype(np.float32)
    expected = torch_logits(module, mel)
    np.testing.assert_allclose(loaded.logits(mel), expected, atol=TOLERANCE * float(np.abs(expected).max()), rtol=0)
    np.testing.assert_allclose(loaded.probabilities(mel), torch.from_numpy(expected).softmax(-1).numpy(), atol=1e-3)
    assert (loaded.labels, loaded.mel_config.name, loaded.window_frames) == (config.labels, "hifigan22", 188)
    assert loaded.version == load_model(path).version
