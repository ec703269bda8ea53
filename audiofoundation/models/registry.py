"""The kinds of model there are, and the bundled ones."""

from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Protocol, cast

from torch import nn

from audiofoundation.errors import CheckpointInvalid
from audiofoundation.models.classifier import MelClassifier, MelClassifierConfig
from audiofoundation.models.mel_transformer import MelTransformer, MelTransformerConfig
from audiofoundation.models.vocoder import CausalVocos, CausalVocosConfig


class ModelKind(StrEnum):
    """An architecture that a model file can hold."""

    MEL_TRANSFORMER = "mel_transformer"
    CAUSAL_VOCOS = "causal_vocos"
    MEL_CLASSIFIER = "mel_classifier"


ModelConfig = MelTransformerConfig | CausalVocosConfig | MelClassifierConfig


class _Configured(Protocol):
    config: "ModelConfig"


@dataclass(frozen=True, slots=True)
class _Kind:
    module: type[nn.Module]
    config: type
    task: str


KINDS: dict[ModelKind, _Kind] = {
    ModelKind.MEL_TRANSFORMER: _Kind(MelTransformer, MelTransformerConfig, "continuation"),
    ModelKind.CAUSAL_VOCOS: _Kind(CausalVocos, CausalVocosConfig, "vocoder"),
    ModelKind.MEL_CLASSIFIER: _Kind(MelClassifier, MelClassifierConfig, "classification"),
}


def create_model(kind: ModelKind, config: dict[str, object]) -> nn.Module:
    """Return a fresh model of a kind from the fields of its configuration.

    Raises:
        CheckpointInvalid: a field is unknown or has the wrong kind of value.
    """
    entry = KINDS[kind]
    known = {field.name for field in fields(entry.config)}
    if unknown := sorted(set(config) - known):
        raise CheckpointInvalid(f"{kind} has no setting {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    try:
        return entry.module(entry.config(**values))
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointInvalid(f"{kind} cannot be built from its configuration: {error}") from error


def kind_of(module: nn.Module) -> tuple[ModelKind, "ModelConfig"]:
    """Return a module's kind and configuration.

    Raises:
        ValueError: the module is of no registered kind.
    """
    for kind, entry in KINDS.items():
        if isinstance(module, entry.module):
            return kind, cast(_Configured, module).config
    raise ValueError(f"{type(module).__name__} is of no registered kind")


def bundled_models(folder: Path) -> dict[str, Path]:
    """Return the model files shipped under `folder`, by name: `folder/NAME/model.safetensors`."""
    return {path.parent.name: path for path in sorted(folder.glob("*/model.safetensors"))}
