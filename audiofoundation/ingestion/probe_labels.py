"""Saying whether excerpts hold speech, music or something else, by the bundled classifier, without torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import structlog

from audiofoundation.audio.resample import resample
from audiofoundation.audio.waveform import Waveform
from audiofoundation.errors import CheckpointInvalid, MelMismatch
from audiofoundation.features.mel import Float32, log_mel
from audiofoundation.settings import ProbeSettings

if TYPE_CHECKING:
    from audiofoundation.models.classifier_numpy import NumpyClassifier

_MODEL = "classifier-tiny"
_TRAINING_LUFS = -23.0
_MAX_WINDOWS = 24  # half overlapping ones of 2 s; each takes 7 ms

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SoundLabel:
    """What a recording sounds like.

    Attributes:
        name: the likeliest label.
        probabilities: of every label that the classifier knows; they sum to one.
        model_version: the classifier that said so.
    """

    name: str
    probabilities: Mapping[str, float]
    model_version: str

    def measurements(self) -> dict[str, object]:
        """What is kept of it beside the other measures."""
        probabilities = {name: round(value, 4) for name, value in self.probabilities.items()}
        return {"label": self.name, "label_probabilities": probabilities, "label_model": self.model_version}


Labeller = Callable[[Sequence[Waveform]], SoundLabel]


def open_labeller(pretrained_dir: Path, settings: ProbeSettings) -> Labeller | None:
    """Load the classifier of a worker's probes; None where nothing is probed, or no label is asked for and none can be
    given, which is said in the log.

    Raises:
        CheckpointInvalid, MelMismatch: only some labels pass, and nothing can tell them.
    """
    if not settings.is_enabled:
        return None
    try:
        model = _load(pretrained_dir / _MODEL / "model.safetensors")
    except (CheckpointInvalid, MelMismatch) as error:
        if settings.allowed_labels:
            raise
        _log.warning("probe_has_no_classifier", reason=error.message, consequence="recordings get no label")
        return None
    return lambda excerpts: hear(excerpts, model)


def _load(path: Path) -> "NumpyClassifier":
    try:
        from audiofoundation.models.classifier_numpy import load_classifier
    except ImportError as error:
        raise CheckpointInvalid(f"{path} needs safetensors to be read: install audiofoundation[ingest]") from error
    return load_classifier(path)


def hear(excerpts: Sequence[Waveform], model: "NumpyClassifier") -> SoundLabel:
    """Label a recording by its excerpts: the mean over windows that are spread evenly over all of them.

    The level is brought to that of the training data for all excerpts together, as preprocessing does.
    """
    # Its filters come from scipy.signal, half a second of imports: only a process that listens pays for them.
    from audiofoundation.audio.loudness import normalize_loudness

    rate_hz = model.mel_config.sample_rate_hz
    parts = [resample(excerpt.to_mono(), rate_hz).samples for excerpt in excerpts]
    level = normalize_loudness(Waveform(np.concatenate(parts, axis=1), rate_hz), target_lufs=_TRAINING_LUFS)
    ends = np.cumsum([part.shape[1] for part in parts])
    mels = [log_mel(part, model.mel_config) for part in np.split(level.samples[0], ends[:-1])]
    windows = _windows(mels, model.window_frames)
    mean = np.mean([model.probabilities(window) for window in windows], axis=0)
    probabilities = {name: float(value) for name, value in zip(model.labels, mean, strict=True)}
    return SoundLabel(max(probabilities, key=probabilities.__getitem__), probabilities, model.version)


def _windows(mels: Sequence[Float32], size: int) -> list[Float32]:
    """Return windows [size, F], half overlapping; where no excerpt fills one, the longest is repeated."""
    starts = [(mel, start) for mel in mels for start in range(0, len(mel) - size + 1, size // 2)]
    if not starts:
        longest = max(mels, key=len)
        return [np.resize(longest, (size, longest.shape[1]))]
    chosen = np.linspace(0, len(starts) - 1, min(len(starts), _MAX_WINDOWS)).round().astype(int)
    return [starts[index][0][starts[index][1] : starts[index][1] + size] for index in chosen]
