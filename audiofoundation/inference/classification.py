"""Say what a recording holds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from audiofoundation.audio.resample import resample
from audiofoundation.audio.waveform import Waveform
from audiofoundation.errors import InvalidRequest
from audiofoundation.features.mel import Float32, MelConfig, log_mel
from audiofoundation.inference.prompt import level_gain
from audiofoundation.inference.threads import BoundedThreads

_WINDOW_S = 10.0
_MAX_WINDOWS = 12
_MIN_S = 0.1


@dataclass(frozen=True, slots=True)
class ClassifierModel:
    """A loaded classifier; safe to share between threads.

    Attributes:
        version: `name@` and eight digits of the weights' SHA-256.
        mel_config: the preset it hears.
        labels: what it knows, in the order of its scores.
        loudness_lufs: the level of what it was trained on.
        scores: maps log-mel frames [T, F] to one score in [0, 1] per label.
    """

    version: str
    mel_config: MelConfig
    labels: Sequence[str]
    loudness_lufs: float
    scores: Callable[[Float32], Float32]


class ClassifierModels(Protocol):
    """Where classifiers come from."""

    def classifier_model(self, name: str | None) -> ClassifierModel:
        """Return the classifier of that name, loaded; None is the best one at hand."""
        ...


@dataclass(frozen=True, slots=True)
class Detection:
    """One label, its place in the model's list and its score in [0, 1]."""

    index: int
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Classification:
    """The detections, the likeliest first."""

    model_version: str
    detections: tuple[Detection, ...]


def classify(
    waveform: Waveform, model: ClassifierModel, *, top_k: int | None = None, threshold: float = 0.0
) -> Classification:
    """Return what the recording holds: the mean of the scores of its windows of 10 s, at most 12 of them.

    Raises:
        InvalidRequest: `top_k` or `threshold` is out of range, or the recording is too short to hear anything.
    """
    if top_k is not None and top_k < 1:
        raise InvalidRequest(f"top_k must be 1 or more, not {top_k}", param="top_k")
    if not 0 <= threshold <= 1:
        raise InvalidRequest(f"threshold must lie between 0 and 1, not {threshold}", param="threshold")
    if waveform.duration_s < _MIN_S:
        raise InvalidRequest(
            f"the recording lasts {waveform.duration_s * 1000:.0f} ms; at least {_MIN_S * 1000:.0f} ms are needed",
            param="file",
        )
    scores = np.mean([model.scores(log_mel(part, model.mel_config)) for part in _windows(waveform, model)], axis=0)
    found = [
        Detection(index, label, float(score))
        for index, (label, score) in enumerate(zip(model.labels, scores, strict=True))
        if score >= threshold
    ]
    found.sort(key=lambda detection: -detection.score)
    return Classification(model.version, tuple(found[:top_k]))


def _windows(waveform: Waveform, model: ClassifierModel) -> list[Float32]:
    """Return evenly spread windows [n] at the model's rate and level."""
    rate = model.mel_config.sample_rate_hz
    samples = resample(waveform.to_mono(), rate).samples[0]
    samples = samples * np.float32(level_gain(samples, rate, model.loudness_lufs))
    size = round(_WINDOW_S * rate)
    count = min(_MAX_WINDOWS, max(1, -(-samples.size // size)))
    starts = np.linspace(0, max(0, samples.size - size), count).astype(int)
    return [samples[start : start + size] for start in starts]


class Classifier:
    """Classifies outside the event loop, a few recordings at a time."""

    def __init__(self, models: ClassifierModels, *, max_concurrent: int, max_waiting: int = 32) -> None:
        self._models = models
        self._threads = BoundedThreads("classification", num_threads=max_concurrent, max_waiting=max_waiting)

    async def classify(
        self, waveform: Waveform, *, model: str | None, top_k: int | None, threshold: float
    ) -> Classification:
        """As the function `classify`, with the model of that name. Raises Overloaded when too many wait."""

        def work() -> Classification:
            loaded = self._models.classifier_model(model)
            return classify(waveform, loaded, top_k=top_k, threshold=threshold)

        return await self._threads.run(work)
