"""From a recipe and a corpus to an objective: windows that fit, weights to start from."""

from dataclasses import asdict, replace

import structlog
import torch
from torch import nn

from audiofoundation.errors import InvalidRequest, MelMismatch
from audiofoundation.models.checkpoint import LoadedModel
from audiofoundation.models.classifier import MelClassifier
from audiofoundation.models.mel_transformer import MelTransformer, MelTransformerConfig
from audiofoundation.models.registry import ModelConfig, create_model, kind_of
from audiofoundation.models.vocoder import CausalVocos
from audiofoundation.training.classification import ClassificationConfig, ClassificationObjective
from audiofoundation.training.continuation import ContinuationConfig, ContinuationObjective
from audiofoundation.training.corpus import Corpus, Recording
from audiofoundation.training.recipes import ObjectiveConfig, Recipe
from audiofoundation.training.shards_corpus import TRAIN, VALIDATION
from audiofoundation.training.trainer import Objective
from audiofoundation.training.vocoding import VocodingConfig, VocodingObjective

# A model needs some history to learn from; below this a window teaches nothing.
_MIN_WINDOW_PATCHES = 4
_MIN_CLIP_FRAMES = 16
# Windows are as long as wanted, or as at least this share of the material allows.
_USABLE_SHARE = 0.5

_log = structlog.get_logger(__name__)


def create_objective(recipe: Recipe, corpus: Corpus, *, init: LoadedModel | None = None) -> Objective:
    """Return the objective of a recipe on a corpus, the same for the same recipe, corpus and start.

    The windows shrink where the recordings are shorter; held-out recordings that are shorter still are not used.

    Raises:
        InvalidRequest: the corpus is too short or lacks what the objective needs.
        MelMismatch: the corpus or the start is of another preset.
    """
    if corpus.preset != recipe.model.preset:
        raise MelMismatch(f"the dataset has preset {corpus.preset}, the recipe {recipe.name} {recipe.model.preset}")
    torch.manual_seed(recipe.trainer.seed)
    model = create_model(recipe.kind, asdict(_model_config(recipe, init)))
    is_generative = None if isinstance(recipe.objective, ClassificationConfig) else True
    train = corpus.select(TRAIN, is_generative=is_generative)
    held_out = corpus.select(VALIDATION, is_generative=is_generative)
    config = _fitted(recipe, train)
    usable = held_out if _window_frames(recipe, config) <= _longest(held_out.recordings) else None
    if usable is None:
        _log.warning("validation_impossible", reason="no held-out recording is as long as a window")
    objective = _objective(model, train, usable, config, recipe.trainer.seed)
    if init is not None:
        # After the objective, which sets the statistics of the new data: the weights were learnt under the old.
        _load_weights(model, init)
    return objective


def _model_config(recipe: Recipe, init: LoadedModel | None) -> ModelConfig:
    """The sizes come from the weights to start from; what is no size (dropout) from the recipe."""
    if init is None:
        return recipe.model
    kind, config = kind_of(init.module)
    if kind != recipe.kind:
        raise InvalidRequest(f"init: {init.header.name} is a {kind}, the recipe {recipe.name} trains a {recipe.kind}")
    if isinstance(config, MelTransformerConfig) and isinstance(recipe.model, MelTransformerConfig):
        return replace(config, dropout=recipe.model.dropout)
    return config


def _load_weights(model: nn.Module, init: LoadedModel) -> None:
    model.load_state_dict(init.module.state_dict())
    _log.info("started_from", model=init.version)


def _objective(
    model: nn.Module, train: Corpus, held_out: Corpus | None, config: ObjectiveConfig, seed: int
) -> Objective:
    if isinstance(model, MelTransformer) and isinstance(config, ContinuationConfig):
        return ContinuationObjective(model, train, held_out, config, seed)
    if isinstance(model, CausalVocos) and isinstance(config, VocodingConfig):
        return VocodingObjective(model, train, held_out, config, seed)
    assert isinstance(model, MelClassifier)
    assert isinstance(config, ClassificationConfig)
    return ClassificationObjective(model, train, held_out, config, seed)


def _fitted(recipe: Recipe, train: Corpus) -> ObjectiveConfig:
    """Return the objective's settings with windows that the recordings can fill."""
    config = recipe.objective
    if isinstance(config, ContinuationConfig) and isinstance(recipe.model, MelTransformerConfig):
        patch = recipe.model.patch_frames
        patches = _fitting_length(train.recordings, config.window_patches * patch) // patch
        _require(patches >= _MIN_WINDOW_PATCHES, _MIN_WINDOW_PATCHES * patch, train)
        _note_window(config.window_patches * patch, patches * patch)
        return replace(config, window_patches=patches)
    if isinstance(config, VocodingConfig):
        frames = _fitting_length(train.recordings, config.clip_frames)
        _require(frames >= _MIN_CLIP_FRAMES, _MIN_CLIP_FRAMES, train)
        _note_window(config.clip_frames, frames)
        return replace(config, clip_frames=frames)
    return config


def frames_per_step(recipe: Recipe) -> int:
    """Return how many frames the windows of one step hold, where recordings are as long as wanted."""
    return recipe.objective.batch * _window_frames(recipe, recipe.objective)


def _window_frames(recipe: Recipe, config: ObjectiveConfig) -> int:
    if isinstance(config, ContinuationConfig) and isinstance(recipe.model, MelTransformerConfig):
        return config.window_patches * recipe.model.patch_frames
    return config.clip_frames if isinstance(config, VocodingConfig) else 1


def _fitting_length(recordings: tuple[Recording, ...], wanted: int) -> int:
    """Return the greatest length up to `wanted` that recordings with half of all frames reach."""
    lengths = sorted((r.num_frames for r in recordings), reverse=True)
    needed, covered = _USABLE_SHARE * sum(lengths), 0
    for length in lengths:
        covered += length
        if covered >= needed:
            return min(wanted, length)
    return 0


def _longest(recordings: tuple[Recording, ...]) -> int:
    return max((r.num_frames for r in recordings), default=0)


def _require(is_long_enough: bool, num_frames: int, train: Corpus) -> None:
    if not is_long_enough:
        raise InvalidRequest(
            f"the recordings are too short: a window needs {num_frames} frames, the longest recording to train "
            f"on has {_longest(train.recordings)}; ingest longer recordings",
            param="dataset",
        )


def _note_window(wanted: int, used: int) -> None:
    if used < wanted:
        _log.warning("window_shortened", wanted_frames=wanted, used_frames=used, reason="short recordings")
