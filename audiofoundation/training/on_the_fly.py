"""Training straight from a sample of the catalog's recordings: decoded once, mels computed on the device.

The recordings are those that the dataset's version holds, brought to the same level and trimmed alike, so a
window's mel is what the shards hold, and segments that a quality threshold left out of them are left out. Which ones
are taken depends on the version and the seed alone.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import structlog
from sqlalchemy import Engine, select

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.tables import Asset, Dataset, DatasetItem, Item, Shard
from audiofoundation.errors import AudioTooLong, DecodeFailed, InvalidRequest, ObjectCorrupt, ObjectNotFound
from audiofoundation.features.augment import AugmentConfig
from audiofoundation.features.mel import Float32
from audiofoundation.identifiers import Sha256
from audiofoundation.shards.manifest import DatasetManifest
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.training.wave_corpus import NamedWave, WaveCorpus, create_wave_corpus

# What is wrong with one recording; training goes on without it.
_ITEM_ERRORS = (DecodeFailed, AudioTooLong, ObjectCorrupt, ObjectNotFound)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Where batches come from.

    Attributes:
        data: `shards` joins the mels of the whole dataset on disk first; `stream` joins some shards at a time, for
            datasets larger than the disk; `on_the_fly` decodes original recordings and computes mels on the
            training device.
        pool_shards: `stream`: shards that are joined and trained on together; three times their size lies on disk.
        num_items: recordings that are kept in memory.
        max_item_s: longest part of a recording that is kept, at a random place: 96 kB per second at 24 kHz.
        augment_gain_db: training windows are made louder or softer by up to this.
        augment_noise: standard deviation, up to this, of white noise in them (1 is full scale).
        augment_polarity: half of them are negated.
        augment_mask_bands: up to so many neighbouring bands of a window are masked.
        augment_mask_frames: likewise neighbouring frames.
    """

    data: Literal["shards", "stream", "on_the_fly"] = "shards"
    pool_shards: int = 8
    num_items: int = 128
    max_item_s: float = 60.0
    augment_gain_db: float = 3.0
    augment_noise: float = 0.0003
    augment_polarity: bool = True
    augment_mask_bands: int = 0
    augment_mask_frames: int = 0

    @property
    def augment(self) -> AugmentConfig:
        return AugmentConfig(
            gain_db=self.augment_gain_db,
            noise=self.augment_noise,
            flips_polarity=self.augment_polarity,
            mask_bands=self.augment_mask_bands,
            mask_frames=self.augment_mask_frames,
        )


class RecordingReader(Protocol):
    """Decodes a recording to stretches of float32 samples [N] as the dataset with these options sees them."""

    def __call__(self, path: Path, config: Mapping[str, Any], *, work_dir: Path) -> list[Float32]: ...


@dataclass(frozen=True, slots=True)
class Source:
    """A recording of the catalog."""

    item_id: str
    name: str
    sha256: Sha256
    key: str


@dataclass(frozen=True, slots=True)
class OnTheFly:
    """Reads recordings of one dataset.

    Attributes:
        engine: the catalog.
        store: where original bytes lie.
        read: how they are decoded.
        label_of: the label of a recording, by its name.
        work_dir: an empty folder for what is being decoded.
    """

    engine: Engine
    store: ObjectStore
    read: RecordingReader
    label_of: Callable[[str], str]
    work_dir: Path

    def load(self, manifest: DatasetManifest, config: DataConfig, *, seed: int) -> WaveCorpus:
        """Return a sample of the dataset's recordings in memory.

        Raises:
            InvalidRequest: none of them can be read.
            MelMismatch: the dataset's preset has changed since.
            StorageUnavailable: try again.
        """
        mel = manifest.mel_config()
        with read_session(self.engine) as session:
            options = session.get_one(Dataset, manifest.dataset_id).config
        sources = pick(self._sources(manifest), config.num_items, seed)
        max_samples = max(1, round(config.max_item_s * mel.frame_rate_hz)) * mel.hop_length

        def read(source: Source) -> list[NamedWave]:
            stretches = self._read(source, options)
            start = excerpt_start(source, sum(map(len, stretches)) - max_samples, mel.hop_length, seed)
            kept = [part for part in excerpt(stretches, start, max_samples) if len(part) >= mel.hop_length]
            return [NamedWave(self.label_of(source.name), source.sha256, part.copy()) for part in kept]

        with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
            found = [named for named in threads.map(read, sources) if named]
        waves = [wave for named in found for wave in named]
        if not waves:
            raise InvalidRequest("none of the dataset's recordings can be read", param="dataset")
        _log.info("recordings_loaded", num_items=len(found), num_left_out=len(sources) - len(found))
        return create_wave_corpus(waves, mel, config.augment)

    def _sources(self, manifest: DatasetManifest) -> list[Source]:
        """Return the recordings of this version: those in the manifest's shards that gave segments."""
        held = {shard.index for shard in manifest.shards}
        rows = (
            select(Item.id, Item.title, Item.source, Asset.sha256, Asset.key, Shard.shard_index)
            .join(DatasetItem, DatasetItem.item_id == Item.id)
            .join(Shard, Shard.id == DatasetItem.shard_id)
            .join(Asset, Asset.id == Item.asset_id)
            .where(
                DatasetItem.dataset_id == manifest.dataset_id,
                DatasetItem.num_segments > 0,
                Asset.tombstoned_at.is_(None),
            )
        )
        with read_session(self.engine) as session:
            return [
                Source(item_id, title or source, Sha256(sha256), key)
                for item_id, title, source, sha256, key, shard_index in session.execute(rows)
                if shard_index in held
            ]

    def _read(self, source: Source, options: Mapping[str, Any]) -> list[Float32]:
        with tempfile.TemporaryDirectory(dir=self.work_dir) as folder:
            path = Path(folder) / "original"
            try:
                self.store.get_to_file(source.key, path, sha256=source.sha256)
                return self.read(path, options, work_dir=Path(folder))
            except _ITEM_ERRORS as error:
                _log.warning("recording_left_out", item_id=source.item_id, error=error.message)
                return []


def pick(sources: Sequence[Source], num_items: int, seed: int) -> list[Source]:
    """Return `num_items` of the sources at random: those with the least hash of seed and item."""
    return sorted(sources, key=lambda source: _hash(source, seed))[:num_items]


def excerpt_start(source: Source, num_spare: int, hop_length: int, seed: int) -> int:
    """Return the sample, a multiple of the hop, where the part of a recording that is kept begins."""
    rng = np.random.default_rng(int.from_bytes(_hash(source, seed)[:8], "big"))
    return hop_length * int(rng.integers(max(0, num_spare) // hop_length + 1))


def excerpt(stretches: Sequence[Float32], start: int, num_samples: int) -> Iterator[Float32]:
    """Yield what lies in samples [start, start + num_samples) of the stretches, counted through all of them."""
    stop, passed = start + num_samples, 0
    for stretch in stretches:
        yield stretch[max(0, start - passed) : max(0, stop - passed)]
        passed += len(stretch)


def _hash(source: Source, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{source.item_id}".encode()).digest()
