"""A corpus: mel frames (and, for vocoders, samples) of many recordings, end to end in memory-mapped files.

Windows are a pure function of `(seed, step)`, so a resumed run, on any number of workers, sees the same data.

Shape letters: N samples, T frames, F bands, B batch.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiofoundation.errors import InvalidRequest

Float32 = NDArray[np.float32]
Float16 = NDArray[np.float16]
Int16 = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Recording:
    """Where one recording lies in the corpus, and what may be done with it.

    Attributes:
        label: `speech`, `music`, `other` … as the dataset says.
        split: `train`, `validation` or `test`.
        group: speaker or piece; splits never share one.
        is_generative: False for voices that may train recognition only.
        start_frame: first frame in the corpus.
        num_frames: frames; samples are `num_frames * hop`.
    """

    label: str
    split: str
    group: str
    is_generative: bool
    start_frame: int
    num_frames: int


_STATISTICS_STEP = 7
_QUIETEST = math.log(1e-5)
_MAX_LABELS = 10

Window = tuple[Recording, int]
"""A recording and the corpus frame where a window of it starts."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What a batch may depend on besides its windows, and where it is wanted."""

    seed: int
    step: int
    device: torch.device


@dataclass(frozen=True, slots=True)
class Corpus:
    """Mel frames float16 [T, F], samples int16 [T * hop] or None, and the recordings they belong to."""

    mel: Float16
    wave: Int16 | None
    recordings: tuple[Recording, ...]
    preset: str
    hop_length: int

    @classmethod
    def load(cls, folder: Path) -> "Corpus":
        """Open a corpus written by `save`; arrays are memory-mapped."""
        index = json.loads((folder / "index.json").read_text())
        wave = folder / "wave.npy"
        return cls(
            mel=np.load(folder / "mel.npy", mmap_mode="r"),
            wave=np.load(wave, mmap_mode="r") if wave.exists() else None,
            recordings=tuple(Recording(**row) for row in index["recordings"]),
            preset=index["preset"],
            hop_length=index["hop_length"],
        )

    def save(self, folder: Path) -> None:
        """Write `mel.npy`, `wave.npy` and `index.json` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "mel.npy", self.mel)
        if self.wave is not None:
            np.save(folder / "wave.npy", self.wave)
        write_index(folder, self.recordings, self.preset, self.hop_length)

    @property
    def has_wave(self) -> bool:
        """Whether there are samples beside the frames."""
        return self.wave is not None

    def select(self, *splits: str, is_generative: bool | None = None) -> Self:
        """Return the corpus restricted to some splits (and to voices that may be generated)."""
        kept = tuple(
            recording
            for recording in self.recordings
            if recording.split in splits and (is_generative is None or recording.is_generative == is_generative)
        )
        return replace(self, recordings=kept)

    def at(self, step: int) -> "Corpus":  # noqa: ARG002
        """Return what a step trains on: all of this, unless only a part is at hand at a time."""
        return self

    def close(self) -> None:
        """Stop what goes on behind a corpus that is read while it is trained on; else nothing does."""

    def mel_excerpt(self, recording: Recording, start: int, num_frames: int) -> Float32:
        """Return up to `num_frames` log-mel frames [T, F] of a recording from the corpus frame `start` on."""
        stop = min(start + num_frames, recording.start_frame + recording.num_frames)
        return self.mel[start:stop].astype(np.float32)

    def wave_excerpt(self, recording: Recording, start: int, num_frames: int) -> Float32:
        """Return the samples float32 [T * hop] in [-1, 1] of the same frames.

        Raises:
            InvalidRequest: the corpus has none.
        """
        if self.wave is None:
            raise InvalidRequest("this dataset holds no waveforms", param="dataset")
        stop = min(start + num_frames, recording.start_frame + recording.num_frames)
        return self.wave[start * self.hop_length : stop * self.hop_length].astype(np.float32) / np.float32(32768)

    def mel_windows(self, places: Sequence[Window], num_frames: int, draw: Draw) -> Tensor:
        """Return log-mels float32 [B, T, F] on the device; a recording that ends too soon is repeated."""
        windows = [repeated(self.mel_excerpt(*place, num_frames), num_frames) for place in places]
        return torch.from_numpy(np.stack(windows)).to(draw.device)

    def wave_windows(self, places: Sequence[Window], num_frames: int) -> Float32:
        """Return samples float32 [B, T * hop] in [-1, 1]. Raises InvalidRequest when the corpus has none."""
        return np.stack([self.wave_excerpt(*place, num_frames) for place in places])

    def statistics(self) -> tuple[Float32, Float32]:
        """Return mean and standard deviation per band, float32 [F], of the clamped log-mel.

        One recording is in memory at a time; every seventh frame of it counts.
        """
        count, total, squares = 0, np.zeros(()), np.zeros(())
        for recording in self.recordings:
            excerpt = self.mel_excerpt(recording, recording.start_frame, recording.num_frames)
            frames = np.maximum(excerpt[::_STATISTICS_STEP].astype(np.float64), _QUIETEST)
            count, total, squares = count + len(frames), total + frames.sum(0), squares + np.square(frames).sum(0)
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - np.square(mean), 0.0)) + 1e-3
        return mean.astype(np.float32), std.astype(np.float32)


def repeated(frames: Float32, num_frames: int) -> Float32:
    """Return the frames [t, F], which must be at least one, over and over until there are `num_frames`."""
    if len(frames) >= num_frames:
        return frames[:num_frames]
    return np.tile(frames, (-(-num_frames // len(frames)), 1))[:num_frames]


def write_index(folder: Path, recordings: Sequence[Recording], preset: str, hop_length: int) -> None:
    """Write the `index.json` that `Corpus.load` reads."""
    rows = [asdict(recording) for recording in recordings]
    index = {"preset": preset, "hop_length": hop_length, "recordings": rows}
    (folder / "index.json").write_text(json.dumps(index))


class WindowSampler:
    """Draws windows of `num_frames` frames; labels in the given proportions, recordings by length.

    Raises:
        InvalidRequest: no recording is long enough.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        num_frames: int,
        *,
        weights: Mapping[str, float] | None = None,
        align: int = 1,
    ) -> None:
        usable = [r for r in recordings if r.num_frames >= num_frames]
        if not usable:
            raise InvalidRequest(
                f"no recording of the dataset is {num_frames} frames long; ingest longer recordings "
                "or choose a shorter window",
                param="dataset",
            )
        self.recordings, self.num_frames, self.align = usable, num_frames, align
        counts = np.array([r.num_frames - num_frames + 1 for r in usable], np.float64)
        if weights:
            for label in {r.label for r in usable}:
                rows = np.array([r.label == label for r in usable])
                counts[rows] *= weights.get(label, 0.0) / counts[rows].sum()
        if not counts.sum() > 0:
            known = ", ".join(sorted({r.label for r in usable})[:_MAX_LABELS]) or "none"
            raise InvalidRequest(f"weights name no label of the recordings; they have: {known}", param="overrides")
        self._cumulative = np.cumsum(counts / counts.sum())

    def draw(self, seed: int, step: int, batch: int) -> list[Window]:
        """Return `batch` pairs of a recording and the corpus frame where its window starts."""
        rng = np.random.default_rng([seed, step])
        rows = np.minimum(np.searchsorted(self._cumulative, rng.random(batch)), len(self.recordings) - 1)
        picked = [self.recordings[row] for row in rows]
        places = rng.random(batch)
        room = [(r.num_frames - self.num_frames) // self.align for r in picked]
        starts = (
            r.start_frame + self.align * int(place * (n + 1)) for r, n, place in zip(picked, room, places, strict=True)
        )
        return list(zip(picked, starts, strict=True))


class StepWindows:
    """Draws the windows of each step from what the corpus gives that step to train on.

    Raises:
        InvalidRequest: no recording is long enough.
    """

    def __init__(self, corpus: Corpus, num_frames: int, *, weights: Mapping[str, float] | None = None) -> None:
        self._corpus, self._num_frames, self._weights = corpus, num_frames, weights
        self._first = self._latest = self._sampler(corpus)
        self._latest_of = corpus

    def draw(self, seed: int, step: int, batch: int) -> tuple[Corpus, list[Window]]:
        """Return the corpus of the step and `batch` windows in it."""
        corpus = self._corpus.at(step)
        if corpus is not self._latest_of:
            self._latest, self._latest_of = self._sampler_of(corpus), corpus
        return self._latest[0], self._latest[1].draw(seed, step, batch)

    def _sampler_of(self, corpus: Corpus) -> tuple[Corpus, WindowSampler]:
        """Return the corpus with a sampler; the first one, where this one's recordings are too short."""
        try:
            return self._sampler(corpus)
        except InvalidRequest:
            return self._first

    def _sampler(self, corpus: Corpus) -> tuple[Corpus, WindowSampler]:
        return corpus, WindowSampler(corpus.recordings, self._num_frames, weights=self._weights)
