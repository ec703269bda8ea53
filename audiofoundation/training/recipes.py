"""Recipes: named, complete descriptions of a training run, and how to change them.

A recipe plus a data set's manifest decides a run: the same two always give the same weights (on a CPU).
"""

import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from audiofoundation.errors import InvalidRequest
from audiofoundation.models.classifier import MelClassifierConfig
from audiofoundation.models.mel_transformer import MelTransformerConfig
from audiofoundation.models.registry import ModelConfig, ModelKind
from audiofoundation.models.vocoder import CausalVocosConfig
from audiofoundation.training.classification import ClassificationConfig
from audiofoundation.training.continuation import ContinuationConfig
from audiofoundation.training.on_the_fly import DataConfig
from audiofoundation.training.trainer import TrainerConfig
from audiofoundation.training.vocoding import VocodingConfig

PRETRAINED = "pretrained"
SAVE_EVERY_S = 30.0
# Starting from good weights, the full rate would first undo them.
_FINE_TUNING_RATE = 0.1
_STEPS_KEY = "num_steps"
_MAX_STEPS = 10_000_000
_MAY_BE_ZERO = frozenset(
    {
        "seed",
        "evaluate_every",
        "warmup_steps",
        "adversaries_from",
        "look_ahead_frames",
        "augment_mask_bands",
        "augment_mask_frames",
    }
)

ObjectiveConfig = ContinuationConfig | VocodingConfig | ClassificationConfig
OverrideValue = str | int | float | bool | list[Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to train and how.

    Attributes:
        name: what users call it.
        kind: the model's architecture.
        model: its sizes.
        objective: windows, noise, losses.
        trainer: optimizer, schedule, length.
        init: the model to start from: `pretrained` is the bundled one of this recipe's name; None starts anew.
        data: where batches come from.
    """

    name: str
    kind: ModelKind
    model: ModelConfig
    objective: ObjectiveConfig
    trainer: TrainerConfig
    init: str | None = None
    data: DataConfig = field(default_factory=DataConfig)

    @property
    def init_name(self) -> str | None:
        """Name of the model whose weights are loaded first."""
        return self.name if self.init == PRETRAINED else self.init


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "tiny",
            ModelKind.MEL_TRANSFORMER,
            MelTransformerConfig(dropout=0.05),
            ContinuationConfig(),
            TrainerConfig(num_steps=7000, learning_rate=1e-3, save_every_s=SAVE_EVERY_S),
        ),
        Recipe(
            "vocoder-tiny",
            ModelKind.CAUSAL_VOCOS,
            CausalVocosConfig(),
            VocodingConfig(adversaries_from=3000),
            TrainerConfig(
                num_steps=5000,
                learning_rate=5e-4,
                betas=(0.8, 0.9),
                weight_decay=0.01,
                clip_norm=10.0,
                decay=0.5,
                warmup_steps=100,
                save_every_s=SAVE_EVERY_S,
            ),
        ),
        Recipe(
            "classifier-tiny",
            ModelKind.MEL_CLASSIFIER,
            MelClassifierConfig(),
            ClassificationConfig(),
            TrainerConfig(
                num_steps=2000,
                learning_rate=2e-3,
                weight_decay=0.05,
                warmup_steps=100,
                precision="fp32",
                evaluate_every=250,
                save_every_s=SAVE_EVERY_S,
            ),
        ),
    )
}


def get_recipe(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        InvalidRequest: there is none.
    """
    if name not in RECIPES:
        raise InvalidRequest(f"no recipe is named {name!r}; choose one of {', '.join(RECIPES)}", param="recipe")
    return RECIPES[name]


def resolve_recipe(name: str, overrides: Mapping[str, OverrideValue], *, num_steps: int | None = None) -> Recipe:
    """Return a recipe with some of its settings changed.

    Args:
        name: of the recipe.
        overrides: settings by name; text is read as the setting's type (`0.8,0.9` for a pair).
        num_steps: steps in all; a shorter run warms up and evaluates sooner.

    Raises:
        InvalidRequest: no such recipe or setting, or a value that the setting cannot take.
    """
    recipe = get_recipe(name)
    parts: dict[str, ModelConfig | ObjectiveConfig | TrainerConfig | DataConfig] = {
        "model": recipe.model,
        "objective": recipe.objective,
        "trainer": _shortened(recipe.trainer, num_steps),
        "data": recipe.data,
    }
    owners = {field.name: (part, field) for part, config in parts.items() for field in fields(config)}
    changes: dict[str, dict[str, object]] = {part: {} for part in parts}
    for key, value in overrides.items():
        if key == "init":
            continue
        if key not in owners or key == _STEPS_KEY:
            raise _unknown(key, name, owners)
        part, field = owners[key]
        changes[part][key] = _read(field, value, type(parts[part]))
    init = _init_of(overrides)
    if init and "learning_rate" not in overrides:
        changes["trainer"]["learning_rate"] = recipe.trainer.learning_rate * _FINE_TUNING_RATE
    changed = {part: replace(config, **changes[part]) for part, config in parts.items()}  # type: ignore[arg-type]
    _check_sizes(changed["model"])
    changed_recipe = replace(recipe, init=init, **changed)  # type: ignore[arg-type]
    if changed_recipe.data.data == "stream" and isinstance(changed_recipe.objective, ClassificationConfig):
        raise InvalidRequest(
            f"{name} wants recordings of every label in each step and cannot train with data=stream; "
            "choose data=shards or data=on_the_fly",
            param="overrides",
        )
    return changed_recipe


def _check_sizes(model: object) -> None:
    """Refuse sizes that do not divide: later they would be a crash in the middle of a network."""
    if not isinstance(model, MelTransformerConfig):
        return
    for whole, part in (("width", "num_heads"), ("num_heads", "num_kv_heads")):
        if getattr(model, whole) % getattr(model, part):
            sizes = f"{whole}={getattr(model, whole)}, {part}={getattr(model, part)}"
            raise InvalidRequest(f"{whole} must be a multiple of {part}: {sizes}", param="overrides")
    if model.width // model.num_heads % 2:
        raise InvalidRequest(
            f"width / num_heads must be even, it is {model.width // model.num_heads}", param="overrides"
        )


def _shortened(trainer: TrainerConfig, num_steps: int | None) -> TrainerConfig:
    if num_steps is None:
        return trainer
    if not 1 <= num_steps <= _MAX_STEPS:
        raise InvalidRequest(f"steps must lie between 1 and {_MAX_STEPS}, not {num_steps}", param="steps")
    return replace(
        trainer,
        num_steps=num_steps,
        warmup_steps=min(trainer.warmup_steps, num_steps // 10),
        evaluate_every=min(trainer.evaluate_every, max(1, num_steps // 4)),
    )


def _init_of(overrides: Mapping[str, OverrideValue]) -> str | None:
    init = overrides.get("init")
    if init is None or init in ("", "none"):
        return None
    if not isinstance(init, str):
        raise InvalidRequest(f"init is a model's name or {PRETRAINED}, not {init!r}", param="overrides")
    return init


def _unknown(key: str, recipe: str, owners: Mapping[str, object]) -> InvalidRequest:
    if key in ("steps", _STEPS_KEY):
        return InvalidRequest("the number of steps has a field of its own (--steps)", param="steps")
    known = sorted({*owners, "init"} - {_STEPS_KEY})
    meant = [f"did you mean {name}? " for name in get_close_matches(key, known, n=1)]
    words = f"recipe {recipe} has no setting {key!r}; {''.join(meant)}it has: {', '.join(known)}"
    return InvalidRequest(words, param="overrides")


def _read(field: Field[object], value: OverrideValue, owner: type) -> object:
    """Return the value as the field's type, or say what the field takes."""
    kind = get_type_hints(owner)[field.name]
    plain = [part.strip() for part in value.split(",")] if _is_list(kind) and isinstance(value, str) else value
    if field.name == "weights" and isinstance(plain, list):
        plain = [part.split(":", 1) if isinstance(part, str) else part for part in plain]
    try:
        read: object = TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)).validate_python(plain)
    except ValidationError as error:
        why = error.errors()[0]["msg"].lower()
        raise InvalidRequest(f"{field.name}={value!r} cannot be used: {why}", param="overrides") from error
    _check(field.name, read)
    return read


def _is_list(kind: object) -> bool:
    return getattr(kind, "__origin__", None) is tuple


def _check(name: str, value: object) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and not math.isfinite(value):  # type: ignore[arg-type]
        raise InvalidRequest(f"{name} must be finite, not {value}", param="overrides")
    if is_number and value < 0:  # type: ignore[operator]
        raise InvalidRequest(f"{name} must not be negative, it is {value}", param="overrides")
    if isinstance(value, int) and value == 0 and not isinstance(value, bool) and name not in _MAY_BE_ZERO:
        raise InvalidRequest(f"{name} must be at least 1", param="overrides")
    if name == "precision" and value not in ("fp32", "bf16"):
        raise InvalidRequest(f"precision is fp32 or bf16, not {value!r}", param="overrides")
