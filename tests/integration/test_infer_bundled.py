"""The model that ships with the software continues a real recording: it sounds, moves and keeps its level."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiofoundation.features.mel import get_preset, log_mel
from audiofoundation.settings import ModelSettings
from tests.infer_server import RECORDINGS

BUNDLED = ModelSettings().pretrained_dir / "tiny" / "model.safetensors"

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["music-boomboxhead-ripper.flac", "speech-pmatthes-LJ001-0001.opus"])
def test_the_bundled_model_gives_neither_silence_nor_a_held_tone(tmp_path: Path, name: str) -> None:
    assert BUNDLED.exists(), "the repository carries its model"
    output = tmp_path / "out.wav"

    subprocess.run(
        [sys.executable, "-m", "audiofoundation.cli", "continue", RECORDINGS / name, "-o", output, "--duration", "4",
         "--include-prompt"],
        check=True,
        capture_output=True,
        timeout=180,
    )  # fmt: skip

    samples, rate = soundfile.read(output, dtype="float32")
    prompt, made = samples[: -4 * rate], samples[-4 * rate :]
    level_db = 20 * np.log10(made.std() / prompt.std())
    assert abs(level_db) < 15
    config = get_preset("vocos24")
    flux = [np.abs(np.diff(np.maximum(log_mel(sound, config), -6), axis=0)).mean() for sound in (made, prompt)]
    assert 0.3 < flux[0] / flux[1] < 3
    assert np.mean(np.abs(made) > 0.99) < 1e-3
