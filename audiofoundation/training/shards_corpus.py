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
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import structlog

from audiofoundation.errors import InvalidRequest
from audiofoundation.features.mel import MelConfig
from audiofoundation.shards.manifest import DatasetManifest
from audiofoundation.shards.reader import read_dataset
from audiofoundation.shards.sample import Sample
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.training.corpus import Corpus, Float16, Int16, Recording

TRAIN, VALIDATION = "train", "validation"
VALIDATION_SHARE = 0.1
_NUM_CACHED = 4

LabelOf = Callable[[str], str]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Joined segments: frames, samples when there are any, and whose they are."""

    group: str
    label: str
    mel: Float16
    wave: Int16 | None


def load_corpus(store: ObjectStore, manifest: DatasetManifest, *, label_of: LabelOf, cache_dir: Path) -> Corpus:
    """Return the dataset as a corpus; shards are downloaded, verified, joined and kept once per manifest.

    Args:
        store: where the shards lie.
        manifest: which shards.
        label_of: the label of an item, by its id.
        cache_dir: a folder for this manifest; the corpus in it is memory-mapped.

    Raises:
        InvalidRequest: the dataset holds no usable segment.
        MelMismatch: its preset has changed since.
        ObjectCorrupt, ShardCorrupt: a shard is not what was written.
    """
    if not (cache_dir / "index.json").exists():
        _fill_cache(build_corpus(read_dataset(store, manifest), manifest.mel_config()), cache_dir)
    corpus = Corpus.load(cache_dir)
    labelled = tuple(replace(recording, label=label_of(recording.label)) for recording in corpus.recordings)
    return replace(corpus, recordings=labelled)


def _fill_cache(corpus: Corpus, cache_dir: Path) -> None:
    """Save the corpus in one step, and drop the oldest of those kept."""
    cache_dir.parent.mkdir(parents=True, exist_ok=True)
    # Killed trainers leave these; one supervisor owns the folder, so nobody else writes one now.
    for leftover in cache_dir.parent.glob(".*.part"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = cache_dir.with_name(f".{cache_dir.name}.part")
    corpus.save(partial)
    shutil.rmtree(cache_dir, ignore_errors=True)
    partial.replace(cache_dir)
    cached = sorted(cache_dir.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in cached[_NUM_CACHED:]:
        shutil.rmtree(old, ignore_errors=True)


def build_corpus(samples: Iterable[Sample], config: MelConfig) -> Corpus:
    """Return the corpus of the samples; `label` is the item's id.

    Raises:
        InvalidRequest: no sample is usable.
    """
    stretches = [stretch for stretch in _stretches(samples, config) if len(stretch.mel)]
    if not stretches:
        raise InvalidRequest("the dataset holds no usable segment; ingest and preprocess recordings", param="dataset")
    splits = split_groups({stretch.group for stretch in stretches})
    recordings, start = [], 0
    for stretch in stretches:
        length = len(stretch.mel)
        recordings.append(
            Recording(
                label=stretch.label,
                split=splits[stretch.group],
                group=stretch.group,
                is_generative=True,
                start_frame=start,
                num_frames=length,
            )
        )
        start += length
    waves = [stretch.wave for stretch in stretches if stretch.wave is not None]
    return Corpus(
        mel=np.concatenate([stretch.mel for stretch in stretches]),
        wave=np.concatenate(waves) if len(waves) == len(stretches) else None,
        recordings=tuple(recordings),
        preset=config.name,
        hop_length=config.hop_length,
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
        sample.waveform[: count * config.hop_length]
        for sample, count in zip(run, counts, strict=True)
        if sample.waveform is not None
    ]
    return _Stretch(
        group=run[0].meta.asset_sha256,
        label=run[0].meta.item_id,
        mel=np.concatenate([sample.mel_TF[:count] for sample, count in zip(run, counts, strict=True)]),
        wave=np.concatenate(waves) if len(waves) == len(run) else None,
    )
