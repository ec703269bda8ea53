"""Models by name: those that came with the software and those that training registered.

A registered model is downloaded once, verified by its SHA-256 before it is opened, and kept in a cache folder.
The last few that were used stay loaded.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from audiofoundation.errors import ModelNotFound, StorageUnavailable
from audiofoundation.features.vocoder_protocol import Vocoder
from audiofoundation.identifiers import Sha256, sha256_of_stream
from audiofoundation.inference import loading
from audiofoundation.inference.classification import ClassifierModel
from audiofoundation.inference.engine import ContinuationModel
from audiofoundation.inference.vocoders import DEFAULT_VOCODER, WEIGHTLESS, create_weightless
from audiofoundation.models.checkpoint import LoadedModel, load_model, read_header
from audiofoundation.models.registry import bundled_models
from audiofoundation.settings import ModelSettings

CONTINUATION, CLASSIFICATION, VOCODER = "continuation", "classification", "vocoder"
_DEFAULT_NAME = "default"
_MAX_LOADED = 4

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServableModel:
    """A model that requests may name.

    Attributes:
        name: what requests call it.
        task: continuation, classification or vocoder.
        mel_preset: what goes in and comes out.
        sha256: of its file.
        created: seconds since the epoch; 0 for one that came with the software.
        is_promoted: whether an operator made it the one to use.
        path: its file, when it lies here already.
        key: of its object otherwise.
    """

    name: str
    task: str
    mel_preset: str
    sha256: Sha256
    created: int = 0
    is_promoted: bool = False
    path: Path | None = None
    key: str = ""

    @property
    def version(self) -> str:
        return f"{self.name}@{self.sha256[:8]}"


class ModelRegistry(Protocol):
    """The models that training registered, and their files."""

    def list_models(self) -> list[ServableModel]:
        """Return them, the newest first. Raises StorageUnavailable."""
        ...

    def fetch(self, model: ServableModel) -> Path:
        """Return the model's verified file. Raises StorageUnavailable, ObjectNotFound, ObjectCorrupt."""
        ...


class ModelStore:
    """Finds and loads models; safe to share between threads.

    Args:
        settings: where the bundled models lie and how many threads a model may use.
        registry: the registered models; None serves the bundled ones alone.
        allow_paths: whether a name may be a file's path. Only for commands, never for requests.
    """

    def __init__(
        self, settings: ModelSettings, registry: ModelRegistry | None = None, *, allow_paths: bool = False
    ) -> None:
        self._settings, self._registry, self._allow_paths = settings, registry, allow_paths
        self._bundled: tuple[ServableModel, ...] | None = None
        self._loaded: OrderedDict[Sha256, LoadedModel] = OrderedDict()
        self._lock, self._loading = threading.Lock(), threading.Lock()

    def list_models(self, task: str | None = None) -> list[ServableModel]:
        """Return every model that requests may name, of one task or all."""
        found = [*self._find_bundled(), *self._registered()]
        return [model for model in found if task in (None, model.task)]

    def find(self, name: str | None, task: str) -> ServableModel:
        """Return the model of that name; without a name the promoted one, else the bundled one.

        Raises:
            ModelNotFound: there is none.
        """
        if self._allow_paths and name and name.endswith(".safetensors"):
            return _from_file(Path(name))
        models = self.list_models(task)
        if name and name != _DEFAULT_NAME:
            models = [model for model in models if name in (model.name, model.version)]
        if models:
            return _best(models)
        names = [model.name for model in self.list_models(task)] + (list(WEIGHTLESS) if task == VOCODER else [])
        known = ", ".join(names) or "none"
        raise ModelNotFound(f"no {task} model is named {name or _DEFAULT_NAME!r}; there is: {known}", param="model")

    def list_with_defaults(self, task: str | None = None) -> list[tuple[ServableModel, bool]]:
        """Return `list_models`, each with whether a request of its task that names no model gets it."""
        models = self.list_models(task)
        best = {task: _best([model for model in models if model.task == task]) for task in {m.task for m in models}}
        return [(model, best[model.task] == model and not self._is_passed_over(model)) for model in models]

    @staticmethod
    def _is_passed_over(model: ServableModel) -> bool:
        """A vocoder is the default only where its name is: the weightless one is, until a trained one beats it."""
        return model.task == VOCODER and model.name != DEFAULT_VOCODER

    def continuation_model(self, name: str | None) -> ContinuationModel:
        """Return a model that continues audio, loaded, with its vocoder."""
        model = self.find(name, CONTINUATION)
        vocoder = self.vocoder(None, preset=model.mel_preset)
        return loading.to_continuation_model(self._load(model), model.version, vocoder)

    def classifier_model(self, name: str | None) -> ClassifierModel:
        """Return a model that classifies audio, loaded."""
        model = self.find(name, CLASSIFICATION)
        return loading.to_classifier_model(self._load(model), model.version)

    def vocoder(self, name: str | None, *, preset: str | None = None) -> Vocoder:
        """Return a vocoder by name; None is the best streaming one.

        Raises:
            ModelNotFound: there is none of that name.
            MelMismatch: it speaks another preset than the one given.
        """
        name = name or DEFAULT_VOCODER
        weightless = create_weightless(name, preset) if preset else create_weightless(name)
        if weightless is not None:
            return weightless
        model = self.find(name, VOCODER)
        vocoder = loading.to_vocoder(self._load(model), model.name)
        if preset is not None:
            loading.require_preset(vocoder, preset)
        return vocoder

    def _load(self, model: ServableModel) -> LoadedModel:
        if (found := self._find_loaded(model)) is not None:
            return found
        with self._loading:  # one at a time; meanwhile those that are loaded serve
            if (found := self._find_loaded(model)) is not None:
                return found
            loading.limit_threads(self._settings.num_threads)
            loaded = load_model(self._file_of(model), sha256=model.sha256)
            _log.info("model_loaded", version=model.version, task=model.task)
            with self._lock:
                self._loaded[model.sha256] = loaded
                while len(self._loaded) > _MAX_LOADED:
                    self._loaded.popitem(last=False)
            return loaded

    def _find_loaded(self, model: ServableModel) -> LoadedModel | None:
        with self._lock:
            if model.sha256 in self._loaded:
                self._loaded.move_to_end(model.sha256)
            return self._loaded.get(model.sha256)

    def _file_of(self, model: ServableModel) -> Path:
        if model.path is not None:
            return model.path
        assert self._registry is not None
        return self._registry.fetch(model)

    def _registered(self) -> list[ServableModel]:
        """Return the registered models; while the catalog does not answer, the bundled ones still serve."""
        if self._registry is None:
            return []
        try:
            return self._registry.list_models()
        except StorageUnavailable as error:
            _log.warning("registry_unavailable", error=error.message)
            return []

    def _find_bundled(self) -> tuple[ServableModel, ...]:
        if self._bundled is None:
            paths = bundled_models(self._settings.pretrained_dir)
            self._bundled = tuple(_from_file(path, name) for name, path in paths.items())
        return self._bundled


def _best(models: list[ServableModel]) -> ServableModel:
    """Return the newest promoted model, else a bundled one, else the newest."""
    return max(models, key=lambda model: (model.is_promoted, model.path is not None, model.created))


def _from_file(path: Path, name: str | None = None) -> ServableModel:
    header = read_header(path)
    with path.open("rb") as stream:
        sha256 = sha256_of_stream(stream)
    return ServableModel(name or header.name, header.task, header.preset, sha256, path=path)
