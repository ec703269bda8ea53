"""A corpus from a dataset's shards: the segments of each recording joined again, split by hash.

Shards hold segments of a few seconds with their place in the recording. Neighbouring segments are joined
into one stretch, so that windows may be longer than a segment. Samples join exactly. Mel frames were
computed segment by segment, each with its own reflected edges, so the two frames beside a joint are only
nearly those of the whole recording; vocoders compute their mels from the samples and see no joint.
"""

import hashlib
import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import structlog

from audiofoundation.errors import InvalidRequest
from audiofoundation.features.mel import MelConfig
from audiofoundation.shards.cache import ShardCache
from audiofoundation.shards.dataset import ShardDataset
from audiofoundation.shards.manifest import DatasetManifest
from audiofoundation.shards.sample import Sample
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.training.array_file import ArrayFile
from audiofoundation.training.corpus import Corpus, Float16, Int16, Recording, write_index

TRAIN, VALIDATION = "train", "validation"
VALIDATION_SHARE = 0.1
_NUM_CACHED = 4

LabelOf = Callable[[str], str]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Joined segments: frames, samples (mono, as the frames are) when there are any, and whose they are."""

    group: str
    label: str
    mel: Float16
    wave: Int16 | None


def load_corpus(store: ObjectStore, manifest: DatasetManifest, *, label_of: LabelOf, cache_dir: Path) -> Corpus:
    """Return the dataset as a corpus; its shards are read one at a time, joined, and kept once per manifest.

    A shard that stays corrupt or is gone is left out, with an event in the log.

    Args:
        store: where the shards lie.
        manifest: which shards.
        label_of: the label of an item, by its id.
        cache_dir: a folder for this manifest; the corpus in it is memory-mapped.

    Raises:
        InvalidRequest: the dataset holds no usable segment.
        MelMismatch: its preset has changed since.
        ShardCorrupt: no shard can be read.
    """
    if not (cache_dir / "index.json").exists():
        _fill_cache(store, manifest, cache_dir)
    corpus = Corpus.load(cache_dir)
    labelled = tuple(replace(recording, label=label_of(recording.label)) for recording in corpus.recordings)
    return replace(corpus, recordings=labelled)


def _fill_cache(store: ObjectStore, manifest: DatasetManifest, cache_dir: Path) -> None:
    """Write the corpus in one step, and drop the oldest of those kept."""
    cache_dir.parent.mkdir(parents=True, exist_ok=True)
    # Killed trainers leave these; one supervisor owns the folder, so nobody else writes one now.
    for leftover in cache_dir.parent.glob(".*.part"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = cache_dir.with_name(f".{cache_dir.name}.part")
    # Each shard is read once: the cache holds one at a time.
    with closing(ShardDataset(ShardCache(store, partial / "shards", max_bytes=1), manifest)) as dataset:
        build_corpus(dataset.scan(), dataset.mel, partial)
    shutil.rmtree(partial / "shards")
    shutil.rmtree(cache_dir, ignore_errors=True)
    partial.replace(cache_dir)
    cached = sorted(cache_dir.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in cached[_NUM_CACHED:]:
        shutil.rmtree(old, ignore_errors=True)


def build_corpus(samples: Iterable[Sample], config: MelConfig, folder: Path) -> Corpus:
    """Write the corpus of the samples into a folder and return it; `label` is the item's id.

    One recording is in memory at a time. Samples of one item come together.

    Raises:
        InvalidRequest: no sample is usable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recordings: list[Recording] = []
    num_frames, has_wave = 0, True
    with (
        ArrayFile(folder / "mel.npy", np.float16, (config.num_bands,)) as mel,
        ArrayFile(folder / "wave.npy", np.int16) as wave,
    ):
        for stretch in _stretches(samples, config):
            if not len(stretch.mel):
                continue
            mel.append(stretch.mel)
            has_wave = has_wave and stretch.wave is not None
            if stretch.wave is not None and has_wave:
                wave.append(stretch.wave)
            recordings.append(_recording(stretch, num_frames))
            num_frames += len(stretch.mel)
    if not recordings:
        raise InvalidRequest("the dataset holds no usable segment; ingest and preprocess recordings", param="dataset")
    if not has_wave:
        (folder / "wave.npy").unlink()
    splits = split_groups({recording.group for recording in recordings})
    split = [replace(recording, split=splits[recording.group]) for recording in recordings]
    write_index(folder, split, config.name, config.hop_length)
    return Corpus.load(folder)


def _recording(stretch: _Stretch, start_frame: int) -> Recording:
    """Return the stretch's place; its split is known when all groups are."""
    return Recording(
        label=stretch.label,
        split=TRAIN,
        group=stretch.group,
        is_generative=True,
        start_frame=start_frame,
        num_frames=len(stretch.mel),
    )


def split_groups(groups: Iterable[str], *, validation_share: float = VALIDATION_SHARE) -> dict[str, str]:
    """Return the split of each group: by the hash of its name, so that it never changes as a dataset grows.

    There is always a group to train on, and one to validate with where there are at least two.
    """
    places = {group: int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) / 2**32 for group in groups}
    ordered = sorted(places, key=lambda group: (places[group], group))
    num_below = sum(place < validation_share for place in places.values())
    num_validation = min(max(num_below, 1), len(ordered) - 1)
    return {group: VALIDATION if rank < num_validation else TRAIN for rank, group in enumerate(ordered)}


def _stretches(samples: Iterable[Sample], config: MelConfig) -> Iterator[_Stretch]:
    """Yield runs of segments that follow each other without a gap."""
    for _, group in itertools.groupby(samples, key=lambda sample: sample.meta.item_id):
        segments = sorted((s for s in group if _is_sound(s)), key=lambda sample: sample.meta.segment_index)
        run: list[Sample] = []
        for segment in segments:
            if run and not _follows(run[-1], segment, config):
                yield _join(run, config)
                run = []
            run.append(segment)
        if run:
            yield _join(run, config)


def _is_sound(sample: Sample) -> bool:
    if np.isfinite(sample.mel_TF).all():
        return True
    _log.warning("segment_not_finite", key=sample.key)
    return False


def _follows(previous: Sample, sample: Sample, config: MelConfig) -> bool:
    """Whether a segment begins on the sample on which the one before it ends, on the grid of frames."""
    end_s = previous.meta.offset_s + previous.meta.num_samples / previous.meta.sample_rate_hz
    is_next = sample.meta.segment_index == previous.meta.segment_index + 1
    is_on_grid = previous.meta.num_samples % config.hop_length == 0
    return is_next and is_on_grid and abs(sample.meta.offset_s - end_s) * config.sample_rate_hz < 1.0


def _join(run: Sequence[Sample], config: MelConfig) -> _Stretch:
    """Return segments as one; the frame that a centred preset adds at each end is the next one's first."""
    counts = [min(len(sample.mel_TF), sample.meta.num_samples // config.hop_length) for sample in run]
    waves = [
        mono[: count * config.hop_length]
        for sample, count in zip(run, counts, strict=True)
        if (mono := sample.mono()) is not None
    ]
    return _Stretch(
        group=run[0].meta.asset_sha256,
        label=run[0].meta.item_id,
        mel=np.concatenate([sample.mel_TF[:count] for sample, count in zip(run, counts, strict=True)]),
        wave=np.concatenate(waves) if len(waves) == len(run) else None,
    )
