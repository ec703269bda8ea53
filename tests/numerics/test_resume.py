"""A resumed run equals an uninterrupted one bit by bit on a CPU: weights, averages, optimizers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiofoundation.identifiers import ItemId
from audiofoundation.training.assembly import create_objective
from audiofoundation.training.corpus import Corpus
from audiofoundation.training.recipes import Recipe, resolve_recipe
from audiofoundation.training.shards_corpus import build_corpus
from audiofoundation.training.state_file import read_state, write_state
from audiofoundation.training.trainer import TrainState, create_state, fit
from tests.training_stage import PRESET, TINY, segments_of

NUM_STEPS, INTERRUPTED_AT = 8, 5
VOCODER = {
    "width": 16,
    "hidden": 16,
    "num_layers": 1,
    "clip_frames": 16,
    "batch": 1,
    "adversaries_from": 2,
    "evaluate_every": 3,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    names = ("speech-pmatthes-LJ001-0001.opus", "music-lofi-florist.mp3")
    samples = (sample for name in names for sample in segments_of(name, ItemId(name[:6])))
    return build_corpus(samples, PRESET, tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        pytest.param("tiny", {**TINY, "precision": "fp32", "evaluate_every": 3}, id="transformer-fp32"),
        pytest.param("tiny", {**TINY, "precision": "bf16", "evaluate_every": 0}, id="transformer-bf16"),
        pytest.param("vocoder-tiny", {**VOCODER, "precision": "fp32"}, id="vocoder-with-adversaries"),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bitwise(
    recipe: str, overrides: dict[str, str | int], corpus: Corpus, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    resolved = resolve_recipe(recipe, overrides, num_steps=NUM_STEPS)
    straight = train(fresh(resolved, corpus), resolved)

    interrupted = fresh(resolved, corpus)
    train(interrupted, resolved, should_stop=lambda: interrupted.step >= INTERRUPTED_AT)
    assert interrupted.step == INTERRUPTED_AT
    path = tmp_path / "state.safetensors"
    write_state(interrupted, path, recipe="test")
    torch.manual_seed(999)  # nothing may depend on where the generator stands
    resumed = fresh(resolved, corpus)
    read_state(resumed, path, recipe="test")
    train(resumed, resolved)

    expected, actual = flat(straight), flat(resumed)
    assert expected.keys() == actual.keys()
    different = [name for name, value in expected.items() if not torch.equal(value, actual[name])]
    assert not different
    assert straight.losses == resumed.losses
    # The comparison can fail: five steps are not eight.
    assert any(not torch.equal(value, flat(interrupted)[name]) for name, value in expected.items())


def fresh(recipe: Recipe, corpus: Corpus) -> TrainState:
    return create_state(create_objective(recipe, corpus), recipe.trainer)


def train(state: TrainState, recipe: Recipe, *, should_stop: Callable[[], bool] = lambda: False) -> TrainState:
    fit(state, recipe.trainer, save=lambda _: None, report=lambda _: None, should_stop=should_stop)
    return state


def flat(state: TrainState) -> dict[str, Tensor]:
    """Return every tensor of a state by its path."""
    found: dict[str, Tensor] = {}

    def visit(value: object, path: str) -> None:
        if isinstance(value, Tensor):
            found[path] = value
        elif isinstance(value, dict):
            for key, item in value.items():
                visit(item, f"{path}/{key}")
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                visit(item, f"{path}/{index}")

    visit(state.state_dict(), "")
    return found
