"""Folders as users keep them."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

ORIGINALS = Path(__file__).parents[2] / "data" / "originals"
RATE_HZ = 16_000


def write_noise(path: Path, seconds: float, *, seed: int = 0, rate_hz: int = RATE_HZ, num_channels: int = 1) -> Path:
    """Write noise as 16-bit WAV; each seed gives another recording."""
    samples = np.random.default_rng(seed).normal(0.0, 0.1, (round(seconds * rate_hz), num_channels))
    soundfile.write(path, samples, rate_hz, subtype="PCM_16")
    return path


def create_folder(folder: Path, rows: Sequence[object], *, files: Mapping[str, Path] | None = None) -> Path:
    """Write `audio/` and `metadata.json`; files that rows name and nobody gives are noise of 0.3 s."""
    (folder / "audio").mkdir(parents=True)
    for name, path in (files or {}).items():
        shutil.copy(path, folder / "audio" / name)
    (folder / "metadata.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def noise_folder(folder: Path, count: int) -> Path:
    """Write a folder of short recordings, `0.wav` and so on."""
    rows = [{"audio_file": f"{i}.wav", "text": f"noise {i}", "style": "ab"[i % 2]} for i in range(count)]
    create_folder(folder, rows)
    for i in range(count):
        write_noise(folder / "audio" / f"{i}.wav", 0.3, seed=i)
    return folder
