"""Recipes and their overrides."""

import pytest

from audiofoundation.errors import InvalidRequest
from audiofoundation.models.mel_transformer import MelTransformerConfig
from audiofoundation.training.recipes import RECIPES, resolve_recipe


def test_overrides_reach_the_part_that_owns_them_with_its_type() -> None:
    recipe = resolve_recipe("tiny", {"learning_rate": "5e-4", "batch": "4", "width": 128, "betas": "0.8, 0.9"})
    assert recipe.trainer.learning_rate == 5e-4
    assert recipe.objective.batch == 4
    assert isinstance(recipe.model, MelTransformerConfig)
    assert recipe.model.width == 128
    assert recipe.trainer.betas == (0.8, 0.9)


def test_lists_of_pairs_and_words_are_read_from_text() -> None:
    weighted = resolve_recipe("tiny", {"weights": "speech:0.6,music:0.4"})
    assert weighted.objective.weights == (("speech", 0.6), ("music", 0.4))  # type: ignore[union-attr]
    labelled = resolve_recipe("classifier-tiny", {"labels": "dog,cat"})
    assert labelled.model.labels == ("dog", "cat")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"learning_rat": "1"}, "did you mean learning_rate\\? it has: augment_gain_db.* batch"),
        ({"zzz": "1"}, "'zzz'; it has: augment_gain_db.* batch"),
        ({"learning_rate": "fast"}, "learning_rate='fast'"),
        ({"batch": "0"}, "at least 1"),
        ({"batch": "-1"}, "negative"),
        ({"learning_rate": "nan"}, "finite"),
        ({"positions": "spiral"}, "rope"),
        ({"precision": "fp8"}, "fp32 or bf16"),
        ({"num_steps": "3"}, "--steps"),
        ({"betas": "0.9"}, "betas"),
        ({"num_heads": "3"}, "width must be a multiple of num_heads"),
        ({"num_kv_heads": "3"}, "num_heads must be a multiple of num_kv_heads"),
        ({"width": "12"}, "must be even"),
    ],
)
def test_a_wrong_override_is_refused_in_words(overrides: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        resolve_recipe("tiny", overrides)


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match="tiny, vocoder-tiny, classifier-tiny"):
        resolve_recipe("huge", {})


def test_a_short_run_warms_up_and_evaluates_in_proportion() -> None:
    recipe = resolve_recipe("tiny", {}, num_steps=40)
    assert recipe.trainer.warmup_steps == 4
    assert recipe.trainer.evaluate_every == 10
    assert resolve_recipe("tiny", {}).trainer == RECIPES["tiny"].trainer


def test_fine_tuning_starts_at_a_lower_rate_unless_told() -> None:
    assert resolve_recipe("tiny", {"init": "pretrained"}).trainer.learning_rate == pytest.approx(1e-4)
    assert resolve_recipe("tiny", {"init": "pretrained"}).init_name == "tiny"
    told = resolve_recipe("tiny", {"init": "mine", "learning_rate": 3e-4})
    assert (told.init_name, told.trainer.learning_rate) == ("mine", 3e-4)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_setting_can_be_given_as_its_own_text(name: str) -> None:
    """What a recipe says of itself is accepted back: no setting is unreadable."""
    recipe = RECIPES[name]
    for part in (recipe.model, recipe.objective, recipe.trainer):
        for key in part.__dataclass_fields__:
            value = getattr(part, key)
            if key == "num_steps" or isinstance(value, tuple):
                continue
            changed = resolve_recipe(name, {key: str(value)})
            assert changed == recipe
