"""A small dataset from the bundled recordings, in a real store and catalog, and a real supervisor on them."""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from audiofoundation.audio.decode import DecodeLimits, decode_file
from audiofoundation.catalog.engine import read_session, write_session
from audiofoundation.catalog.tables import Asset, Collection, Dataset, Item, Run
from audiofoundation.features.mel import get_preset, log_mel
from audiofoundation.identifiers import AssetId, CollectionId, DatasetId, ItemId, RunId, Sha256, derive_id, sha256_of
from audiofoundation.jobs.celery_app import CeleryPublisher
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.settings import Settings
from audiofoundation.shards.manifest import DatasetManifest, ShardRecord
from audiofoundation.shards.sample import Sample, SampleMeta, sample_key
from audiofoundation.shards.writer import ShardWriter
from audiofoundation.storage.keys import manifest_key, shard_key
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.training.recipes import OverrideValue
from audiofoundation.training.requests import RunRequest, RunView, create_run, get_run

RECORDINGS = Path(__file__).parent / "data" / "recordings"
SEGMENT_FRAMES = 281
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
PRESET = get_preset("vocos24")
NAMES = (
    "speech-kathleen-arctic-a0010-1592748378.opus",
    "speech-pmatthes-LJ001-0001.opus",
    "speech-nathalie-nl-rhasspy-242.opus",
    "speech-kerstin-de-rhasspy-0004.opus",
    "music-beatgame-laundry-room.ogg",
    "music-lofi-florist.mp3",
    "music-macleod-bossa-antigua.ogg",
)
TINY: Mapping[str, OverrideValue] = {
    "width": 32,
    "num_layers": 1,
    "num_heads": 2,
    "num_kv_heads": 1,
    "hidden": 32,
    "head_width": 32,
    "head_blocks": 1,
    "noise_width": 4,
    "window_patches": 12,
    "batch": 2,
}


@lru_cache
def recording(name: str, *, seconds: float = 8.0) -> NDArray[np.int16]:
    """Return the start of a bundled recording, mono int16 at the preset's rate."""
    limits = DecodeLimits(max_duration_s=600, max_bytes=1 << 24)
    decoded = decode_file(RECORDINGS / name, limits=limits, target_rate_hz=PRESET.sample_rate_hz, is_mono=True)
    samples = decoded.waveform.samples[0, : round(seconds * PRESET.sample_rate_hz)]
    return np.clip(np.rint(samples * 32767), -32768, 32767).astype(np.int16)


def segments_of(name: str, item_id: ItemId, *, with_waveform: bool = True) -> list[Sample]:
    """Return a recording as preprocessing cuts it."""
    wave, length = recording(name), SEGMENT_FRAMES * PRESET.hop_length
    samples = []
    for index, start in enumerate(range(0, len(wave) - PRESET.sample_rate_hz // 2, length)):
        piece = wave[start : start + length]
        meta = SampleMeta(
            item_id=item_id,
            asset_id=AssetId(f"asset_{name}"[:64]),
            asset_sha256=sha256_of(name.encode()),
            segment_index=index,
            offset_s=start / PRESET.sample_rate_hz,
            duration_s=len(piece) / PRESET.sample_rate_hz,
            num_samples=len(piece),
            sample_rate_hz=PRESET.sample_rate_hz,
            gain_db=0.0,
            loudness_lufs=None,
            mel_preset=PRESET.name,
            mel_fingerprint=PRESET.fingerprint,
        )
        mel = log_mel(piece.astype(np.float32) / np.float32(32768), PRESET).astype(np.float16)
        samples.append(Sample(sample_key(item_id, index), mel, meta, piece if with_waveform else None))
    return samples


def item_of(name: str) -> ItemId:
    """Return the id of a recording's item."""
    return ItemId(derive_id("item", name))


def store_dataset(
    engine: Engine, store: ObjectStore, *, names: tuple[str, ...] = NAMES, with_waveform: bool = True
) -> DatasetId:
    """Write one shard, the manifest and the rows that ingest and preprocess would have written."""
    dataset_id, collection_id = DatasetId("ds_test"), CollectionId("col_test")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard.tar"
        with ShardWriter(path) as writer:
            for name in names:
                for sample in segments_of(name, item_of(name), with_waveform=with_waveform):
                    writer.write(sample)
            summary = writer.finish()
        key = shard_key(dataset_id, 0, 1, summary.sha256)
        store.put_file(key, path)
    duration_s = summary.num_audio_samples / PRESET.sample_rate_hz
    record = ShardRecord(
        index=0,
        key=key,
        size_bytes=summary.size_bytes,
        sha256=summary.sha256,
        num_samples=summary.num_samples,
        duration_s=duration_s,
    )
    manifest = DatasetManifest(
        dataset_id=dataset_id,
        collection_id=collection_id,
        mel_preset=PRESET.name,
        mel_fingerprint=PRESET.fingerprint,
        segment_s=SEGMENT_FRAMES / PRESET.frame_rate_hz,
        has_waveform=with_waveform,
        num_items=len(names),
        num_samples=summary.num_samples,
        duration_s=duration_s,
        shards=(record,),
    )
    data = manifest.to_bytes()
    digest = sha256_of(data)
    store.put_bytes(manifest_key(dataset_id, digest), data)
    _add_rows(engine, manifest, digest, names)
    return dataset_id


def _add_rows(engine: Engine, manifest: DatasetManifest, digest: Sha256, names: tuple[str, ...]) -> None:
    """Write the rows of the collection, its items and the dataset."""
    with write_session(engine) as session:
        session.add(Collection(id=manifest.collection_id, name="test"))
        session.flush()
        for name in names:
            asset_id = f"asset_{name}"[:64]
            session.add(Asset(id=asset_id, sha256=sha256_of(name.encode()), key=name, size_bytes=1))
            session.flush()
            session.add(
                Item(
                    id=item_of(name),
                    collection_id=manifest.collection_id,
                    canonical=name,
                    kind="file",
                    source=name,
                    title=name,
                    asset_id=asset_id,
                    state="stored",
                )
            )
        session.add(
            Dataset(
                id=manifest.dataset_id,
                collection_id=manifest.collection_id,
                preset=PRESET.name,
                mel_fingerprint=PRESET.fingerprint,
                config={"include_waveform": manifest.has_waveform},
                state="ready",
                manifest_key=manifest_key(DatasetId(manifest.dataset_id), digest),
                manifest_sha256=digest,
            )
        )


@dataclass(frozen=True, slots=True)
class Stage:
    """A dataset and everything that training needs."""

    settings: Settings
    engine: Engine
    store: ObjectStore
    queue: JobQueue
    dataset_id: DatasetId

    @classmethod
    def create(cls, settings: Settings, engine: Engine, store: ObjectStore, *, with_waveform: bool = True) -> "Stage":
        """Store a dataset; the queue is real."""
        queue = JobQueue(engine, CeleryPublisher(settings.queue))
        return cls(settings, engine, store, queue, store_dataset(engine, store, with_waveform=with_waveform))

    def ask(self, recipe: str, num_steps: int, overrides: Mapping[str, OverrideValue]) -> RunId:
        """Ask for a run."""
        request = RunRequest(recipe, self.dataset_id, overrides, num_steps)
        with self.queue.unit_of_work() as unit:
            return create_run(unit, request, pretrained_dir=self.settings.models.pretrained_dir)

    def view(self, run_id: RunId) -> RunView:
        """Return the run as it is now."""
        with read_session(self.engine) as session:
            return get_run(session, run_id)

    def run(self, run_id: RunId) -> Run:
        """Return the run's row as it is now."""
        return self.view(run_id).run

    def wait(self, run_id: RunId, is_true: Callable[[Run], bool], *, timeout_s: float = 600.0) -> Run:
        """Look until something is true of the run."""
        deadline = time.monotonic() + timeout_s
        while True:
            row = self.run(run_id)
            if is_true(row):
                return row
            assert time.monotonic() < deadline, (
                f"not within {timeout_s} s: run is {row.state} at {row.step}: {row.error}"
            )
            time.sleep(0.05)

    @contextmanager
    def supervisor(self, **options: float) -> Iterator["subprocess.Popen[bytes]"]:
        """Run a real supervisor in a session of its own; on exit everything it started is gone."""
        process = self.start_supervisor(**options)
        try:
            yield process
        finally:
            kill_group(process)

    def start_supervisor(self, **options: float) -> "subprocess.Popen[bytes]":
        """Start a supervisor; the caller ends it with `kill_group`."""
        env = {**os.environ, **environment_of(self.settings)}
        env |= {f"AF_TRAIN__{name.upper()}": str(value) for name, value in {"poll_s": 0.5, **options}.items()}
        return subprocess.Popen(
            [sys.executable, "-m", "services.train.supervisor"],
            env=env,
            cwd=Path(__file__).parent.parent,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )


def kill_group(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL a process and all of its session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _die_with_parent() -> None:
    """A test run that is killed leaves no supervisor behind."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def trainers_of(supervisor: "subprocess.Popen[bytes]") -> list[int]:
    """Return the process ids of a supervisor's children."""
    text = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the environment that gives a child these settings."""
    return {
        "AF_DATA_DIR": str(settings.data_dir),
        "AF_STORAGE__ENDPOINT": settings.storage.endpoint,
        "AF_STORAGE__ACCESS_KEY": settings.storage.access_key.get_secret_value(),
        "AF_STORAGE__SECRET_KEY": settings.storage.secret_key.get_secret_value(),
        "AF_STORAGE__BUCKET": settings.storage.bucket,
        "AF_QUEUE__URL": settings.queue.url.get_secret_value(),
        "AF_QUEUE__KEY_PREFIX": settings.queue.key_prefix,
        "AF_CATALOG__URL": settings.catalog.url.get_secret_value(),
        "AF_MODELS__CACHE_DIR": str(settings.models.cache_dir),
        "OMP_NUM_THREADS": "1",
    }
