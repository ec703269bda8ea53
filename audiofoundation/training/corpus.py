"""A corpus: mel frames (and, for vocoders, samples) of many recordings, end to end in memory-mapped files.

Windows are a pure function of `(seed, step)`, so a resumed run, on any number of workers, sees the same data.

Shape letters: N samples, T frames, F bands, B batch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiofoundation.errors import InvalidRequest

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

    def select(self, *splits: str, is_generative: bool | None = None) -> "Corpus":
        """Return the corpus restricted to some splits (and to voices that may be generated)."""
        kept = tuple(
            recording
            for recording in self.recordings
            if recording.split in splits and (is_generative is None or recording.is_generative == is_generative)
        )
        return Corpus(self.mel, self.wave, kept, self.preset, self.hop_length)

    def statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return mean and standard deviation per band, float32 [F], of the clamped log-mel."""
        frames = np.concatenate(
            [self.mel[r.start_frame : r.start_frame + r.num_frames : 7] for r in self.recordings]
        ).astype(np.float32)
        np.maximum(frames, np.float32(np.log(1e-5)), out=frames)
        return frames.mean(0), frames.std(0) + np.float32(1e-3)


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
        self._cumulative = np.cumsum(counts / counts.sum())

    def draw(self, seed: int, step: int, batch: int) -> list[tuple[Recording, int]]:
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
