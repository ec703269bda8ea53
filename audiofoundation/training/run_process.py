"""The trainer: one process, one attempt at one run. Its exit code says how it ended.

It holds nothing that must survive: the run's rows say what to train, checkpoints where to go on. SIGTERM asks
it to save and leave; a `kill -9` at any moment costs the steps since the last checkpoint.
"""

import hashlib
import json
import shutil
import signal
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import structlog
import torch
from sqlalchemy import select

from audiofoundation.catalog.engine import create_catalog_engine, read_session
from audiofoundation.catalog.orphan_marks import forget_mark
from audiofoundation.catalog.tables import Item, Model
from audiofoundation.errors import (
    AudioFoundationError,
    InternalError,
    InvalidRequest,
    LeaseLost,
    StorageUnavailable,
)
from audiofoundation.identifiers import RunId, Sha256, sha256_of_stream
from audiofoundation.models.checkpoint import LoadedModel, load_model, save_model
from audiofoundation.models.registry import bundled_models
from audiofoundation.settings import Settings
from audiofoundation.shards.manifest import load_manifest
from audiofoundation.shards.retired import corpus_folder
from audiofoundation.storage.keys import model_key
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.training.assembly import create_objective, frames_per_step
from audiofoundation.training.checkpoints import CheckpointStore
from audiofoundation.training.corpus import Corpus
from audiofoundation.training.event_log import EventLog
from audiofoundation.training.labels import label_of
from audiofoundation.training.ledger import RunLedger, StoredObject
from audiofoundation.training.on_the_fly import OnTheFly, RecordingReader
from audiofoundation.training.recipes import Recipe
from audiofoundation.training.reporting import Reporter, Saver
from audiofoundation.training.requests import RunPlan, read_plan
from audiofoundation.training.shards_corpus import load_corpus
from audiofoundation.training.states import ExitCode
from audiofoundation.training.streaming import stream_corpus
from audiofoundation.training.trainer import NumericFailure, TrainState, create_state, fit

_log = structlog.get_logger(__name__)


def run_trainer(settings: Settings, run_id: RunId, attempt: int, read_recording: RecordingReader) -> ExitCode:
    """Train a run as one attempt until it is done, asked to stop, or in trouble; return how it ended.

    Errors that another try may cure are raised.
    """
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group: the supervisor decides
    torch.set_num_threads(settings.models.num_threads)
    structlog.contextvars.bind_contextvars(run_id=run_id, attempt=attempt)
    store = ObjectStore(settings.storage)
    ledger = RunLedger(create_catalog_engine(settings.catalog), run_id, attempt)
    try:
        return Attempt(settings, store, ledger, read_recording).train(stop)
    except LeaseLost as error:
        _log.warning("attempt_superseded", error=error.message)
        return ExitCode.PREEMPTED
    except NumericFailure as error:
        _log.error("training_diverged", error=error.message)
        ledger.note_error(error)
        return ExitCode.NUMERIC
    except AudioFoundationError as error:
        _log.error("training_failed", error_class=error.code, error=error.message, retryable=error.retryable)
        ledger.note_error(error)
        if error.retryable:
            raise
        return ExitCode.CONFIG
    except RuntimeError as error:
        # What torch calls out-of-memory, shapes that do not fit and the like: tried again, but told.
        ledger.note_error(InternalError(f"{type(error).__name__}: {error}"))
        raise


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a run."""

    settings: Settings
    store: ObjectStore
    ledger: RunLedger
    read_recording: RecordingReader

    def train(self, stop: threading.Event) -> ExitCode:
        """Restore, train, save; register the model when all steps are done."""
        with read_session(self.ledger.engine) as session:
            plan = read_plan(session, self.ledger.run_id)
        recipe = _on_device(plan.recipe, self.settings)
        folder = self._fresh_folder()
        corpus = self._load_corpus(plan, folder)
        try:
            return self._train_on(corpus, plan, recipe, folder, stop)
        finally:
            corpus.close()

    def _train_on(self, corpus: Corpus, plan: RunPlan, recipe: Recipe, folder: Path, stop: threading.Event) -> ExitCode:
        init = self._load_init(recipe)
        objective = create_objective(recipe, corpus, init=init)
        state = create_state(objective, recipe.trainer)
        checkpoints = CheckpointStore(self.store, self.ledger, folder, identity_of(plan))
        restored_step = checkpoints.restore(state)
        # Restored tensors come from the CPU; load_state_dict has copied them to where the model is.
        _log.info("training_started", recipe=recipe.name, first_step=state.step, num_steps=plan.num_steps)
        events = EventLog(self._run_folder / "tensorboard", first_step=restored_step or 0)
        reporter = Reporter(self.ledger, events, corpus, recipe.trainer, state.ema, stop)
        try:
            fit(
                state,
                recipe.trainer,
                save=Saver(checkpoints, recipe.trainer.num_steps),
                report=reporter,
                should_stop=stop.is_set,
            )
        finally:
            events.close()
        reporter.finish(state)
        if state.step < recipe.trainer.num_steps:
            return ExitCode.PREEMPTED
        self._publish(plan, recipe, state, reporter.losses, folder)
        self._tidy(checkpoints, folder)
        return ExitCode.DONE

    @property
    def _run_folder(self) -> Path:
        return self.settings.data_dir / "runs" / self.ledger.run_id

    def _fresh_folder(self) -> Path:
        """Return an empty scratch folder; what killed attempts left beside it goes."""
        work = self._run_folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        folder = work / str(self.ledger.attempt)
        folder.mkdir(parents=True)
        return folder

    def _load_corpus(self, plan: RunPlan, folder: Path) -> Corpus:
        manifest = load_manifest(self.store, plan.manifest_key, Sha256(plan.manifest_sha256))
        labels = getattr(plan.recipe.model, "labels", ())
        if plan.recipe.data.data == "on_the_fly":
            source = OnTheFly(
                self.ledger.engine, self.store, self.read_recording, lambda name: label_of(name, labels), folder
            )
            return source.load(manifest, plan.recipe.data, seed=plan.recipe.trainer.seed)
        if plan.recipe.data.data == "stream":
            return stream_corpus(
                self.store,
                manifest,
                folder / "pools",
                pool_shards=plan.recipe.data.pool_shards,
                frames_per_step=frames_per_step(plan.recipe),
                seed=plan.recipe.trainer.seed,
            )
        names = self._names(manifest.collection_id) if labels else {}
        cache = corpus_folder(self.settings.data_dir, plan.manifest_sha256)
        return load_corpus(
            self.store, manifest, label_of=lambda item_id: label_of(names.get(item_id, ""), labels), cache_dir=cache
        )

    def _names(self, collection_id: str) -> dict[str, str]:
        items = select(Item.id, Item.title, Item.source).where(Item.collection_id == collection_id)
        with read_session(self.ledger.engine) as session:
            return {item_id: title or source for item_id, title, source in session.execute(items)}

    def _load_init(self, recipe: Recipe) -> LoadedModel | None:
        """Return the model to start from: a bundled one, else a registered one."""
        name = recipe.init_name
        if name is None:
            return None
        bundled = bundled_models(self.settings.models.pretrained_dir)
        if name in bundled:
            return load_model(bundled[name])
        with read_session(self.ledger.engine) as session:
            row = session.scalars(select(Model).where(Model.name == name)).first()
        if row is None:
            raise InvalidRequest(f"init: there is no model {name!r}", param="init")
        path = self.settings.models.cache_dir / "models" / f"{row.sha256}.safetensors"
        if not path.exists():
            self.store.get_to_file(row.key, path, sha256=Sha256(row.sha256))
        return load_model(path, sha256=Sha256(row.sha256))

    def _publish(
        self, plan: RunPlan, recipe: Recipe, state: TrainState, losses: Mapping[str, float], folder: Path
    ) -> None:
        """Upload the averaged weights, then register them and end the run in one transaction."""
        name = model_name(recipe.name, self.ledger.run_id)
        path = folder / "model.safetensors"
        header = save_model(
            path,
            state.ema,
            name=name,
            step=state.step,
            run_id=self.ledger.run_id,
            dataset_version=plan.manifest_sha256,
        )
        with path.open("rb") as stream:
            digest = sha256_of_stream(stream)
        key = model_key(name, digest)
        forget_mark(self.ledger.engine, key)
        size_bytes = self.store.put_file(key, path).size_bytes
        self.ledger.complete(header, StoredObject(key, size_bytes, digest), losses)
        _log.info("model_registered", model=name, sha256=digest)

    def _tidy(self, checkpoints: CheckpointStore, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        try:
            checkpoints.collect_garbage()
        except StorageUnavailable as error:
            _log.warning("garbage_left", error=error.message)


def model_name(recipe: str, run_id: RunId) -> str:
    """Return the name of a run's model: the end of an id is its random part."""
    return f"{recipe}-{run_id[-8:]}"


def identity_of(plan: RunPlan) -> str:
    """Return what decides the next step besides the state: all settings and the version of the data."""
    recipe = asdict(plan.recipe)
    if plan.recipe.data.data == "shards":
        del recipe["data"]  # its other settings decide nothing then
    described = {"recipe": recipe, "manifest": plan.manifest_sha256}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _on_device(recipe: Recipe, settings: Settings) -> Recipe:
    """The machine's device, unless the run names one itself."""
    device = recipe.trainer.device
    if device == "cpu":
        device = settings.models.device
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InvalidRequest(f"this machine has no {device}: set device=cpu or AF_MODELS__DEVICE=cpu", param="device")
    return replace(recipe, trainer=replace(recipe.trainer, device=device))
