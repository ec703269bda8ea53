"""What the inference doors need, built once from the settings."""

import asyncio
from dataclasses import dataclass
from typing import Self

import structlog

from audiofoundation.audio.decode import DecodeLimits, prepare_decoder
from audiofoundation.catalog.engine import create_catalog_engine
from audiofoundation.errors import AudioFoundationError, InternalError
from audiofoundation.features.mel import get_preset
from audiofoundation.inference.admission import Admission
from audiofoundation.inference.classification import Classifier
from audiofoundation.inference.model_registry import CatalogRegistry
from audiofoundation.inference.model_store import CLASSIFICATION, CONTINUATION, ModelStore, ServableModel
from audiofoundation.inference.reading import RecordingReader
from audiofoundation.inference.sessions import OpenSessions
from audiofoundation.inference.streaming import ContinuationRunner
from audiofoundation.inference.threads import BoundedThreads
from audiofoundation.settings import FetchSettings, Settings
from audiofoundation.storage.object_store import ObjectStore

_PRESET = "vocos24"
_MAX_CLASSIFYING = 2
_MAX_FETCHING, _MAX_WAITING_TO_FETCH = 4, 16

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class InferContainer:
    """One engine per process and what surrounds it.

    Attributes:
        rate_hz: the rate that recordings are decoded to; models of another preset convert further.
        not_ready: why no work should come yet; None once it may.
        is_loading: whether that may still change by waiting.
    """

    models: ModelStore
    runner: ContinuationRunner
    reader: RecordingReader
    classifier: Classifier
    fetch: FetchSettings
    fetching: BoundedThreads
    sessions: OpenSessions
    max_prompt_bytes: int
    drain_s: float
    rate_hz: int = get_preset(_PRESET).sample_rate_hz
    not_ready: str | None = "the default models are being loaded"
    is_loading: bool = True

    @classmethod
    def create(cls, settings: Settings) -> Self:
        """Build everything; nothing is loaded or connected yet."""
        serving = settings.serving
        models = ModelStore(settings.models, _create_registry(settings))
        admission = Admission(max_running=serving.max_running, max_waiting=serving.max_waiting)
        limits = DecodeLimits(max_duration_s=serving.max_audio_s, max_bytes=serving.max_body_bytes)
        return cls(
            models=models,
            runner=ContinuationRunner(models, admission, max_generated_s=serving.max_generated_s),
            reader=RecordingReader(limits),
            classifier=Classifier(models, max_concurrent=_MAX_CLASSIFYING),
            fetch=settings.fetch,
            fetching=BoundedThreads("fetching", num_threads=_MAX_FETCHING, max_waiting=_MAX_WAITING_TO_FETCH),
            sessions=OpenSessions(most=serving.max_sessions, max_held_bytes=serving.max_held_bytes),
            max_prompt_bytes=serving.max_body_bytes,
            drain_s=serving.drain_s,
        )

    async def warm_up(self) -> None:
        """Load the default models, without which the process serves what requests name, and start the decoder."""
        try:
            await asyncio.gather(asyncio.to_thread(self._load_defaults), asyncio.to_thread(_start_decoder))
        except AudioFoundationError as error:
            _log.error("default_models_missing", error=error.message)
            self.not_ready = error.message
        else:
            self.not_ready = None
        finally:
            self.is_loading = False

    async def list_models(self, task: str | None) -> list[tuple[ServableModel, bool]]:
        """Return the models of a task, each with whether it is the task's default."""
        return await asyncio.to_thread(self.models.list_with_defaults, task)

    async def close(self) -> None:
        """Let streams finish for the drain time, then cancel them."""
        await asyncio.to_thread(self.runner.close, drain_s=self.drain_s)

    def _load_defaults(self) -> None:
        self.models.continuation_model(None)
        if self.models.list_models(CLASSIFICATION):
            self.models.classifier_model(None)
        _log.info("default_models_loaded", model=self.models.find(None, CONTINUATION).version)


def _start_decoder() -> None:
    """Best effort: the next recording starts it again, and says what is wrong if it cannot be."""
    try:
        prepare_decoder()
    except (InternalError, OSError) as error:
        _log.warning("decoder_not_started", error=str(error))


def _create_registry(settings: Settings) -> CatalogRegistry | None:
    """Return the registered models; a process without a catalog serves the bundled ones."""
    if not settings.catalog.url.get_secret_value():
        return None
    engine = create_catalog_engine(settings.catalog)
    return CatalogRegistry(engine, ObjectStore(settings.storage), settings.models.cache_dir)
