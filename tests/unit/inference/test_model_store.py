"""The store of models: names, defaults, and loading that holds nobody up."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from audiofoundation.errors import ModelNotFound
from audiofoundation.identifiers import Sha256
from audiofoundation.inference.model_store import CONTINUATION, ModelStore, ServableModel
from audiofoundation.models.checkpoint import load_model
from audiofoundation.settings import ModelSettings
from tests.tiny_models import save_pretrained

WAIT_S = 20.0


class Registry:
    """A registry whose object store does not answer until `gate` opens."""

    def __init__(self, models: list[ServableModel], files: Path) -> None:
        self.models, self.num_lists = models, 0
        self.gate, self.is_asked = threading.Event(), threading.Event()
        self._files = files

    def list_models(self) -> list[ServableModel]:
        self.num_lists += 1
        return self.models

    def fetch(self, model: ServableModel) -> Path:  # noqa: ARG002
        self.is_asked.set()
        assert self.gate.wait(WAIT_S)
        return self._files / "tiny" / "model.safetensors"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return save_pretrained(tmp_path / "pretrained")


@pytest.fixture
def registered(files: Path) -> ServableModel:
    sha256 = load_model(files / "tiny" / "model.safetensors").sha256
    return ServableModel("mine", CONTINUATION, "vocos24", sha256, created=1, key="models/mine")


def store(registry: Registry, pretrained: Path) -> ModelStore:
    return ModelStore(ModelSettings(pretrained_dir=pretrained), registry)


def test_models_that_are_loaded_serve_while_another_one_is_fetched(
    files: Path, registered: ServableModel, tmp_path: Path
) -> None:
    registry = Registry([replace(registered, sha256=Sha256("0" * 64))], tmp_path)
    models = store(registry, files)
    version = models.continuation_model("tiny").version
    fetching = threading.Thread(target=_expect_failure, args=(models,))
    fetching.start()
    try:
        assert registry.is_asked.wait(WAIT_S)
        served: list[str] = []
        serving = threading.Thread(target=lambda: served.append(models.continuation_model("tiny").version))
        serving.start()
        serving.join(WAIT_S / 2)
        assert served == [version]
    finally:
        registry.gate.set()
        fetching.join(WAIT_S)


def _expect_failure(models: ModelStore) -> None:
    with pytest.raises(FileNotFoundError):
        models.continuation_model("mine")


def test_the_default_is_the_promoted_model_else_the_bundled_one(
    files: Path, registered: ServableModel, tmp_path: Path
) -> None:
    registry = Registry([registered], tmp_path)
    models = store(registry, files)

    before = models.list_with_defaults(CONTINUATION)
    registry.models = [replace(registered, is_promoted=True)]
    after = models.list_with_defaults()

    assert {model.name: is_default for model, is_default in before} == {"tiny": True, "mine": False}
    assert {model.name: is_default for model, is_default in after} == {
        "tiny": False,
        "classifier-tiny": True,
        "mine": True,
    }
    assert models.find(None, CONTINUATION).name == "mine"
    assert registry.num_lists == 3  # one question each, however many models there are


def test_a_name_that_nobody_has_is_told_with_those_that_there_are(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="tiny"):
        store(Registry([], tmp_path), files).continuation_model("nobody")
