"""A shard as AudioCraft reads it: a WAV file per sample with a side JSON, and a line per sample for `data.jsonl`.

Field names are those of its `AudioMeta` (the line) and `MusicInfo` (the side JSON), which ignore any others: ours add
where the sample came from.
"""

import json
import re
import wave
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from audiofoundation.errors import InvalidRequest, ShardCorrupt
from audiofoundation.shards.reader import read_shard
from audiofoundation.shards.sample import Int16, Sample

_SAFE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class RecordingLine(BaseModel):
    """What is used of a line of a dataset's manifest."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    item_id: str
    sha256: str
    shard: int
    source: str
    title: str | None
    channel: str | None
    license: str | None


def read_recordings(manifest: Path) -> Iterator[RecordingLine]:
    """Yield the lines of a manifest.

    Raises:
        InvalidRequest: a line is not one.
    """
    with manifest.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield RecordingLine.model_validate_json(line)
            except ValueError as error:
                raise InvalidRequest(f"Line {number} of {manifest.name} is no recording: {error}") from error


def unpack_shard(
    tar: Path, recordings: Mapping[str, RecordingLine], folder: Path, *, final: Path
) -> Iterator[dict[str, object]]:
    """Write every sample's audio and side JSON.

    Args:
        tar: the shard.
        recordings: line by item id; samples of other items are left out.
        folder: where to write.
        final: where the folder will lie in the end; lines name it, because AudioCraft opens paths as they stand.

    Yields:
        Each sample's line.

    Raises:
        InvalidRequest: the samples carry no audio.
        ShardCorrupt: the shard cannot be read.
    """
    for sample in read_shard(tar):
        if (recording := recordings.get(sample.meta.item_id)) is None:
            continue
        if sample.waveform is None:
            raise InvalidRequest("The dataset carries no audio: preprocess the collection with --with-waveform.")
        if not _SAFE_KEY.fullmatch(sample.key):
            raise ShardCorrupt(f"the sample {sample.key!r} of the shard {tar.name} has a key that is no file name")
        _write_wav(folder / f"{sample.key}.wav", sample.waveform, sample.meta.sample_rate_hz)
        info = json.dumps(_to_info(sample, recording), ensure_ascii=False)
        (folder / f"{sample.key}.json").write_text(info, encoding="utf-8")
        yield {
            "path": str(final / f"{sample.key}.wav"),
            "duration": sample.meta.duration_s,
            "sample_rate": sample.meta.sample_rate_hz,
            "amplitude": None,
            "weight": None,
            "info_path": None,
        }


def _to_info(sample: Sample, recording: RecordingLine) -> dict[str, object]:
    """Return the side JSON. A description is the one thing that AudioCraft must have: the title is all we know."""
    descriptors = sample.meta.descriptors
    tempo_bpm = None if descriptors is None else descriptors.tempo_bpm
    title = recording.title or ""
    return {
        "key": "",
        "artist": recording.channel or "",
        "sample_rate": sample.meta.sample_rate_hz,
        "file_extension": "wav",
        "description": title,
        "keywords": "",
        "duration": sample.meta.duration_s,
        "bpm": "" if tempo_bpm is None else round(tempo_bpm),
        "genre": "",
        "title": title,
        "name": sample.key,
        "instrument": "Mix",
        "moods": [],
        "item_id": recording.item_id,
        "source": recording.source,
        "license": recording.license,
        "original_sha256": recording.sha256,
        "offset_s": sample.meta.offset_s,
    }


def _write_wav(path: Path, samples: Int16, sample_rate_hz: int) -> None:
    """Write 16-bit samples [N] or [channels, N] as they are."""
    with path.open("wb") as file, wave.open(file, "wb") as sink:
        sink.setnchannels(1 if samples.ndim == 1 else len(samples))
        sink.setsampwidth(2)
        sink.setframerate(sample_rate_hz)
        sink.writeframes(samples.T.astype("<i2").tobytes())
