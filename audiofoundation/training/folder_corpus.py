"""A corpus straight from a folder of recordings with a manifest: how the bundled weights' data was made.

    python -m audiofoundation.training.folder_corpus DATA OUT --folder speech --folder music

`DATA/FOLDER/manifest.jsonl` has one row per recording: `path` (relative to DATA), `kind`, `split`, `source`,
`license` and, where known, `speaker`, `track` and `age`. Rows of one speaker or piece are joined end to end, so that
windows may cross from one utterance into the next of the same voice.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from pydantic import BaseModel, ConfigDict
from rich.progress import track

from audiofoundation.audio.decode import DecodeLimits, decode_file
from audiofoundation.audio.loudness import integrated_loudness
from audiofoundation.audio.segment import trim_silence
from audiofoundation.audio.waveform import Waveform
from audiofoundation.errors import DecodeFailed
from audiofoundation.features.mel import Float32, get_preset, log_mel
from audiofoundation.training.corpus import Corpus, Recording

TARGET_LUFS = -23.0
ADULT_AGE = 18
MIN_FRAMES = 40
_LABELS = {"speech": "speech", "music_track": "music", "sound": "other"}
_LIMITS = DecodeLimits(max_duration_s=4 * 3600, max_bytes=2 << 30)


class ManifestRow(BaseModel):
    """What we read of a manifest's row."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: str
    kind: str
    split: str
    source: str
    license: str
    speaker: str | None = None
    track: str | None = None
    age: int | None = None

    @property
    def group(self) -> str:
        """Speaker or piece, within its source."""
        return f"{self.source.split(':')[0]}/{self.speaker or self.track or ''}"

    @property
    def is_publishable(self) -> bool:
        """Whether weights trained on it may be published: not the Sampling+ licences."""
        return "sampling" not in self.license.lower()

    @property
    def is_generative(self) -> bool:
        """Whether it may train generation: no sounds, and no voice of a person under eighteen."""
        return self.kind != "sound" and (self.age is None or self.age >= ADULT_AGE)


@dataclass(frozen=True, slots=True)
class _Group:
    label: str
    split: str
    name: str
    is_generative: bool


def read_manifest(data: Path, folder: str) -> Iterator[ManifestRow]:
    """Yield the rows that have a file of their own and a licence that allows publishing."""
    for line in (data / folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        row = ManifestRow.model_validate_json(line)
        if row.kind in _LABELS and row.is_publishable:
            yield row


def build_corpus(data: Path, folders: list[str], *, preset: str = "vocos24") -> Corpus:
    """Decode, level and join the recordings of some folders, and compute their mel frames."""
    config = get_preset(preset)
    rows = [row for folder in folders for row in read_manifest(data, folder)]
    groups: dict[_Group, list[Float32]] = {}
    for row in track(rows, "reading recordings"):
        group = _Group(_LABELS[row.kind], row.split, row.group, row.is_generative)
        samples = _read(data / row.path, config.sample_rate_hz, is_speech=row.kind == "speech")
        if samples is not None:
            groups.setdefault(group, []).append(samples)
    mels, waves, recordings, position = [], [], [], 0
    for group, parts in track(groups.items(), "computing mels"):
        wave = np.concatenate(parts)
        num_frames = len(wave) // config.hop_length
        if num_frames < MIN_FRAMES:
            continue
        wave = wave[: num_frames * config.hop_length]
        mels.append(log_mel(wave, config)[:num_frames].astype(np.float16))
        waves.append(np.round(wave * 32767).astype(np.int16))
        recordings.append(Recording(group.label, group.split, group.name, group.is_generative, position, num_frames))
        position += num_frames
    return Corpus(np.concatenate(mels), np.concatenate(waves), tuple(recordings), preset, config.hop_length)


def _read(path: Path, sample_rate_hz: int, *, is_speech: bool) -> Float32 | None:
    """Return mono samples at the training level, or None for silence and what does not decode."""
    try:
        wave = decode_file(path, limits=_LIMITS, target_rate_hz=sample_rate_hz, is_mono=True).waveform
    except DecodeFailed as error:
        print(f"skipped {path.name}: {error}")
        return None
    if is_speech:
        wave = trim_silence(wave)
    loudness = integrated_loudness(wave)
    if not np.isfinite(loudness):
        return None
    gain = np.float32(10 ** ((TARGET_LUFS - loudness) / 20))
    return np.clip(Waveform(wave.samples * gain, sample_rate_hz).samples[0], -1, 1)


def main(
    data: Path,
    out: Path,
    folder: Annotated[list[str], typer.Option(help="folder of DATA with a manifest.jsonl; repeat for more")],
    preset: str = "vocos24",
) -> None:
    """Make a training corpus of DATA's recordings in OUT and print what it holds."""
    corpus = build_corpus(data, folder, preset=preset)
    corpus.save(out)
    hours: dict[str, float] = {}
    for recording in corpus.recordings:
        key = f"{recording.label} {recording.split}" + ("" if recording.is_generative else " (recognition only)")
        hours[key] = hours.get(key, 0.0) + recording.num_frames / get_preset(preset).frame_rate_hz / 3600
    print(json.dumps({key: round(value, 2) for key, value in sorted(hours.items())}, indent=2))


if __name__ == "__main__":
    typer.run(main)
