"""The label of a probe: what is heard, by which settings, and what happens without a classifier."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import soundfile
from pydantic import ValidationError
from structlog.testing import capture_logs

from audiofoundation.audio.waveform import Waveform
from audiofoundation.errors import CheckpointInvalid
from audiofoundation.ingestion.probe import Stage, judge
from audiofoundation.ingestion.probe_labels import hear, open_labeller
from audiofoundation.ingestion.states import RefusalClass
from audiofoundation.models.classifier_numpy import load_classifier
from audiofoundation.settings import ModelSettings, ProbeSettings, Settings
from tests.data_plane import RECORDINGS

PRETRAINED = ModelSettings().pretrained_dir
MODEL = load_classifier(PRETRAINED / "classifier-tiny" / "model.safetensors")
SPEECH = "speech-pmatthes-LJ001-0001.opus"
MUSIC = "music-macleod-bossa-antigua.ogg"


def excerpt(name: str, *, gain: float = 1.0) -> Waveform:
    samples, rate_hz = soundfile.read(RECORDINGS / name, dtype="float32", always_2d=True)
    return Waveform(np.ascontiguousarray(samples.T) * np.float32(gain), rate_hz)


@pytest.mark.parametrize(("name", "label"), [(SPEECH, "speech"), (MUSIC, "music")])
def test_real_recordings_are_told_apart(name: str, label: str) -> None:
    found = hear([excerpt(name)], MODEL)
    assert found.name == label
    assert found.probabilities[label] > 0.8
    assert sum(found.probabilities.values()) == pytest.approx(1.0, abs=1e-5)
    assert found.model_version == MODEL.version


@pytest.mark.parametrize("name", [SPEECH, MUSIC])
def test_the_level_of_a_recording_does_not_matter(name: str) -> None:
    usual, quiet = (hear([excerpt(name, gain=gain)], MODEL).probabilities for gain in (1.0, 0.003))
    # Loudness leaves out what is under -70 LUFS, which is more of the quiet one.
    assert quiet == pytest.approx(usual, abs=0.01)


def test_every_excerpt_counts() -> None:
    music, speech = excerpt(MUSIC), excerpt(SPEECH)
    length = min(music.num_samples, speech.num_samples)
    half = [Waveform(part.samples[:1, :length], part.sample_rate_hz) for part in (music, speech)]
    found = hear(half, MODEL).probabilities
    assert found["speech"] == pytest.approx(0.5, abs=0.1)
    assert found["music"] == pytest.approx(0.5, abs=0.15)


def test_listening_needs_no_torch() -> None:
    code = (
        "import sys; from tests.unit.ingestion import test_probe_labels as there\n"
        "assert there.hear([there.excerpt(there.MUSIC)], there.MODEL).name == 'music'\n"
        "print([name for name in sys.modules if name.startswith('torch')])\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.parametrize("num_samples", [1, 300, 24_000])
def test_an_excerpt_shorter_than_a_window_is_repeated(num_samples: int) -> None:
    short = Waveform(excerpt(SPEECH).samples[:, 24_000 : 24_000 + num_samples], 24_000)
    probabilities = hear([short, Waveform(np.zeros((1, 0), np.float32), 24_000)], MODEL).probabilities
    assert sum(probabilities.values()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("text", "labels"), [("music", ("music",)), ("speech, music", ("speech", "music")), ("", ())])
def test_the_labels_that_pass_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, text: str, labels: tuple[str, ...]
) -> None:
    monkeypatch.setenv("AF_PROBE__ALLOWED_LABELS", text)
    assert Settings().probe.allowed_labels == labels


def test_a_label_that_nothing_can_have_is_refused() -> None:
    with pytest.raises(ValidationError, match="allowed_labels"):
        ProbeSettings.model_validate({"allowed_labels": "musik"})


def test_the_settings_know_the_labels_of_the_classifier() -> None:
    (labels, _) = get_args(get_args(ProbeSettings.__annotations__["allowed_labels"])[0])
    assert get_args(labels) == MODEL.labels


def test_without_a_setting_every_label_passes() -> None:
    labeller = open_labeller(PRETRAINED, ProbeSettings())
    verdict = judge([excerpt(SPEECH)], ProbeSettings(), stage=Stage.WHOLE, num_bytes=1, labeller=labeller)
    assert verdict.label is not None
    assert (verdict.label.name, verdict.refusals) == ("speech", {})


def test_a_label_that_does_not_pass_is_refused_in_words() -> None:
    settings = ProbeSettings(allowed_labels=("music", "other"))
    labeller = open_labeller(PRETRAINED, settings)
    verdict = judge([excerpt(SPEECH)], settings, stage=Stage.WHOLE, num_bytes=1, labeller=labeller)
    assert verdict.refusals == {
        RefusalClass.WRONG_LABEL: "it sounds like speech (95%), and AF_PROBE__ALLOWED_LABELS takes only music or other"
    }


def test_silence_gets_no_label() -> None:
    settings = ProbeSettings(allowed_labels=("music",))
    silence = Waveform(np.zeros((1, 48_000), np.float32), 24_000)
    verdict = judge([silence], settings, stage=Stage.WHOLE, num_bytes=1, labeller=open_labeller(PRETRAINED, settings))
    assert (verdict.label, list(verdict.refusals)) == (None, [RefusalClass.SILENT])


@pytest.mark.parametrize("content", [None, b"no safetensors"])
def test_without_a_classifier_probes_go_on_and_the_log_says_so_once(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "classifier-tiny" / "model.safetensors"
    if content is not None:
        path.parent.mkdir()
        path.write_bytes(content)
    settings = ProbeSettings()
    with capture_logs() as logs:
        labeller = open_labeller(tmp_path, settings)
        verdicts = [
            judge([excerpt(SPEECH)], settings, stage=Stage.WHOLE, num_bytes=1, labeller=labeller) for _ in range(2)
        ]
    assert [(verdict.label, verdict.refusals) for verdict in verdicts] == [(None, {})] * 2
    (log,) = logs
    assert (log["event"], log["log_level"]) == ("probe_has_no_classifier", "warning")
    assert str(path) in log["reason"]
    with pytest.raises(CheckpointInvalid, match=str(path)):  # what was asked for cannot be kept
        open_labeller(tmp_path, ProbeSettings(allowed_labels=("music",)))


def test_nothing_is_loaded_or_said_where_nothing_is_probed(tmp_path: Path) -> None:
    with capture_logs() as logs:
        assert open_labeller(tmp_path, ProbeSettings(is_enabled=False)) is None
    assert logs == []
