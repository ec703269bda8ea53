"""The commands that need no platform, run as users run them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiofoundation.features.mel import get_preset, log_mel
from tests.infer_server import ORIGINALS, SPEECH
from tests.tiny_models import save_pretrained

CONFIG = get_preset("vocos24")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pretrained(tmp_path_factory.mktemp("cli") / "pretrained")


def run(pretrained: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {"AF_MODELS__PRETRAINED_DIR": str(pretrained), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, "-m", "audiofoundation.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )


def test_continue_writes_exactly_what_was_asked_and_repeats_itself(pretrained: Path, tmp_path: Path) -> None:
    first, again = tmp_path / "first.wav", tmp_path / "again.wav"

    done = run(pretrained, "continue", SPEECH, "-o", first, "--duration", "0.8", "--seed", "5", "--json")
    run(pretrained, "continue", SPEECH, "-o", again, "--duration", "0.8", "--seed", "5")

    assert done.returncode == 0, done.stderr
    samples, rate = soundfile.read(first)
    assert (samples.size, rate) == (19200, 24000)
    assert first.read_bytes() == again.read_bytes()
    result = json.loads(done.stdout)
    assert result["duration"] == 0.8
    assert result["model"].startswith("tiny@")


def test_continue_takes_a_model_file_and_includes_the_prompt(pretrained: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.flac"
    model = pretrained / "tiny" / "model.safetensors"

    done = run(pretrained, "continue", SPEECH, "-o", output, "--duration", "0.5", "--model", model, "--include-prompt")

    assert done.returncode == 0, done.stderr
    prompt_s = soundfile.info(SPEECH).duration
    assert soundfile.info(output).duration == pytest.approx(prompt_s + 0.5, abs=1e-3)


def test_classify_prints_json(pretrained: Path) -> None:
    done = run(pretrained, "classify", SPEECH, "--json")

    assert done.returncode == 0, done.stderr
    detections = json.loads(done.stdout)["detections"]
    assert {detection["label"] for detection in detections} == {"speech", "music", "other"}


@pytest.mark.parametrize("vocoder", ["griffinlim", "griffinlim-streaming", None])
def test_vocode_is_as_long_as_the_input_and_aligned_with_it(
    pretrained: Path, tmp_path: Path, vocoder: str | None
) -> None:
    output = tmp_path / "copy.wav"
    source = tmp_path / "source.wav"
    speech, _ = soundfile.read(ORIGINALS / "ünïcode näme 音声.ogg", dtype="float32")
    speech = speech[: 3 * 24000 + 77]
    soundfile.write(source, speech, 24000, subtype="FLOAT")

    chosen = ("--vocoder", vocoder) if vocoder else ()
    done = run(pretrained, "vocode", source, "-o", output, *chosen)

    assert done.returncode == 0, done.stderr
    copy, rate = soundfile.read(output, dtype="float32")
    assert (copy.size, rate) == (speech.size, 24000)
    shifts = {shift: _distance(speech, np.roll(copy, shift)) for shift in (-64, -16, 0, 16, 64)}
    assert min(shifts, key=lambda shift: shifts[shift]) == 0, shifts


def _distance(
    reference: np.ndarray[tuple[int], np.dtype[np.float32]], copy: np.ndarray[tuple[int], np.dtype[np.float32]]
) -> float:
    """How far apart two sounds' mels are; a shift of 16 samples already shows."""
    first, second = (np.maximum(log_mel(sound, CONFIG), -6) for sound in (reference, copy))
    return float(np.abs(first - second).mean())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("continue", ORIGINALS / "text_renamed.wav", "-o", "out.wav"), 1, "text"),
        (("continue", SPEECH, "-o", "out.xyz"), 1, ".flac"),
        (("vocode", SPEECH, "-o", "nowhere/out.wav"), 1, "nowhere"),
        (("continue", SPEECH, "-o", "out.wav", "--model", "nobody"), 1, "tiny"),
        (("continue", SPEECH, "-o", "out.wav", "--duration", "-1"), 1, "duration"),
        (("vocode", SPEECH, "-o", "out.wav", "--vocoder", "nobody"), 1, "nobody"),
        (("continue", "missing.wav", "-o", "out.wav"), 2, "missing.wav"),
    ],
)
def test_a_mistake_is_one_sentence(pretrained: Path, arguments: tuple[str | Path, ...], code: int, words: str) -> None:
    done = run(pretrained, *arguments)

    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("out.wav").exists()
