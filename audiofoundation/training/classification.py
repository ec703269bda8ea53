"""Objective of the classifier: cross-entropy on windows, every label equally often.

Shape letters: B batch, T frames, F bands, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from audiofoundation.errors import InvalidRequest
from audiofoundation.features.augment import AugmentConfig, mask_mel
from audiofoundation.models.classifier import MelClassifier
from audiofoundation.training.corpus import Corpus, Draw, Recording

DB_TO_NATURAL = float(np.log(10) / 20)
_EVALUATION_SEED = 99


@dataclass(frozen=True, slots=True)
class ClassificationConfig:
    """How the windows are drawn and spoilt.

    Attributes:
        batch: windows per step.
        gain_db: windows are made louder or softer by up to this.
        mask_bands: up to so many neighbouring bands of a window are replaced by its mean.
        mask_frames: likewise neighbouring frames.
        smoothing: share of a target that is spread over all labels.
        held_out_windows: windows in an evaluation.
    """

    batch: int = 32
    gain_db: float = 6.0
    mask_bands: int = 16
    mask_frames: int = 24
    smoothing: float = 0.05
    held_out_windows: int = 256


class ClassificationObjective:
    """Trains a `MelClassifier` on the recordings whose label it knows.

    Raises:
        InvalidRequest: fewer than two of its labels occur in the corpus.
    """

    def __init__(
        self,
        model: MelClassifier,
        train: Corpus,
        held_out: Corpus | None,
        config: ClassificationConfig,
        seed: int,
    ) -> None:
        self.model: nn.Module = model
        self.classifier, self.config, self.seed = model, config, seed
        self._masks = AugmentConfig(mask_bands=config.mask_bands, mask_frames=config.mask_frames)
        self.parts: Mapping[str, nn.Module] = {"model": model}
        labels, size = model.config.labels, model.config.window_frames
        self._train = LabelledWindows(train, labels, size)
        self._held_out = LabelledWindows(held_out, labels, size) if held_out else None
        if len(self._train.labels) < 2:
            found = ", ".join(sorted({recording.label for recording in train.recordings})) or "none"
            raise InvalidRequest(
                f"a classifier needs recordings of at least two of {', '.join(labels)}; the dataset "
                f"has: {found}. A label is a folder's name or the first word of a file's name; "
                "name yours with labels=…",
                param="dataset",
            )
        mean, std = train.statistics()
        model.mean_F.copy_(torch.from_numpy(mean))
        model.std_F.copy_(torch.from_numpy(std))

    def phases(self, step: int) -> Sequence[str]:  # noqa: ARG002
        return ("model",)

    def losses(self, phase: str, step: int) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the cross-entropy of a batch of windows."""
        device = self.classifier.mean_F.device
        mel_BTF, labels = self._train.draw(self.seed, step, self.config.batch, device)
        mel_BTF, labels_B = self._spoil(mel_BTF), labels.to(device)
        scores_BC = self.classifier(mel_BTF).float()
        loss = functional.cross_entropy(scores_BC, labels_B, label_smoothing=self.config.smoothing)
        accuracy = (scores_BC.argmax(1) == labels_B).float().mean()
        return {"total": loss, "accuracy": accuracy}

    def _spoil(self, mel_BTF: Tensor) -> Tensor:
        gain = (torch.rand(len(mel_BTF), 1, 1, device=mel_BTF.device) * 2 - 1) * self.config.gain_db * DB_TO_NATURAL
        mel_BTF = mel_BTF + gain
        return mask_mel(mel_BTF, self._masks, None)

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return accuracy on held-out windows and the rows of the confusion matrix, as shares of a true label."""
        if self._held_out is None or not self._held_out.labels or not isinstance(model, MelClassifier):
            return {}
        model.eval()
        confusion = self._confusion(model)
        totals = confusion.sum(1)
        shares = confusion / np.maximum(totals, 1)[:, None]
        present = totals > 0
        names = model.config.labels
        rows = {
            f"confusion/{names[true]}/{names[said]}": float(shares[true, said])
            for true in np.flatnonzero(present)
            for said in range(len(names))
        }
        return {"accuracy": float(np.diag(shares)[present].mean()), **rows}

    def _confusion(self, model: MelClassifier) -> NDArray[np.int64]:
        assert self._held_out is not None
        confusion = np.zeros((len(model.config.labels),) * 2, np.int64)
        for step in range(-(-self.config.held_out_windows // self.config.batch)):
            mel_BTF, labels_B = self._held_out.draw(_EVALUATION_SEED, step, self.config.batch, model.mean_F.device)
            said_B = model(mel_BTF).argmax(1).cpu()
            np.add.at(confusion, (labels_B.numpy(), said_B.numpy()), 1)
        return confusion


class LabelledWindows:
    """Draws windows: first a label, then a recording of it by length, then a place."""

    def __init__(self, corpus: Corpus, labels: Sequence[str], num_frames: int) -> None:
        self._corpus, self._num_frames = corpus, num_frames
        by_label = [[r for r in corpus.recordings if r.label == label and r.num_frames > 0] for label in labels]
        self._recordings = [recordings for recordings in by_label if recordings]
        self.labels = [index for index, recordings in enumerate(by_label) if recordings]

    def draw(self, seed: int, step: int, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return log-mels [B, T, F] on the device and label numbers [B]: a pure function of seed and step."""
        rng = np.random.default_rng([seed, step])
        rows = rng.integers(len(self.labels), size=batch)
        places = [self._place(self._recordings[row], rng) for row in rows]
        labels = torch.tensor([self.labels[row] for row in rows])
        draw = Draw(seed, step, device)
        return self._corpus.mel_windows(places, self._num_frames, draw), labels

    def _place(self, recordings: Sequence[Recording], rng: np.random.Generator) -> tuple[Recording, int]:
        """Return a recording and where its window starts; a short one is repeated, as it is when classified."""
        lengths = np.cumsum([r.num_frames for r in recordings])
        picked = recordings[int(np.searchsorted(lengths, rng.random() * lengths[-1], side="right"))]
        offset = int(rng.integers(max(0, picked.num_frames - self._num_frames) + 1))
        return picked, picked.start_frame + offset
