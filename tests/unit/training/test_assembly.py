"""From recipes and small corpora to objectives."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from audiofoundation.errors import InvalidRequest, MelMismatch
from audiofoundation.identifiers import ItemId
from audiofoundation.models.checkpoint import load_model, save_model
from audiofoundation.models.classifier import MelClassifier, MelClassifierConfig
from audiofoundation.models.mel_transformer import MelTransformer
from audiofoundation.training.assembly import create_objective
from audiofoundation.training.classification import ClassificationObjective
from audiofoundation.training.continuation import ContinuationObjective
from audiofoundation.training.corpus import Corpus, Recording
from audiofoundation.training.labels import label_of
from audiofoundation.training.recipes import resolve_recipe
from audiofoundation.training.shards_corpus import TRAIN, build_corpus
from audiofoundation.training.trainer import create_state, fit, train_step
from tests.training_stage import NAMES, PRESET, TINY, segments_of


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    samples = (sample for name in NAMES for sample in segments_of(name, ItemId(name)))
    return build_corpus(samples, PRESET, tmp_path_factory.mktemp("corpus"))


def shortened(corpus: Corpus, num_frames: int) -> Corpus:
    return replace(corpus, recordings=tuple(replace(r, num_frames=num_frames) for r in corpus.recordings))


def test_windows_shrink_to_what_the_recordings_fill(corpus: Corpus) -> None:
    recipe = resolve_recipe("tiny", {**TINY, "window_patches": 145})
    objective = create_objective(recipe, shortened(corpus, 50))
    assert isinstance(objective, ContinuationObjective)
    assert objective.config.window_patches == 12
    train_step(create_state(objective, recipe.trainer), recipe.trainer)
    assert objective.evaluate(objective.model)


def test_one_long_recording_among_short_ones_does_not_hide_them(corpus: Corpus) -> None:
    first, *others = corpus.select(TRAIN).recordings
    lengths = (200, *(100 for _ in others))
    rows = (replace(r, num_frames=length) for r, length in zip((first, *others), lengths, strict=True))
    mixed = replace(corpus, recordings=tuple(rows))
    objective = create_objective(resolve_recipe("tiny", {**TINY, "window_patches": 145}), mixed)
    assert isinstance(objective, ContinuationObjective)
    assert objective.config.window_patches == 25
    assert len(objective._places._first[1].recordings) == 1 + len(others)


def test_recordings_too_short_for_any_window_are_refused(corpus: Corpus) -> None:
    with pytest.raises(InvalidRequest, match="too short"):
        create_objective(resolve_recipe("tiny", TINY), shortened(corpus, 7))


def test_a_corpus_of_one_recording_trains_without_validation(corpus: Corpus) -> None:
    (first, *_) = corpus.select(TRAIN).recordings
    objective = create_objective(resolve_recipe("tiny", TINY), replace(corpus, recordings=(first,)))
    assert objective.evaluate(objective.model) == {}


def test_another_preset_is_refused(corpus: Corpus) -> None:
    with pytest.raises(MelMismatch, match="hifigan22"):
        create_objective(resolve_recipe("tiny", TINY), replace(corpus, preset="hifigan22"))


def test_the_same_recipe_and_corpus_start_from_the_same_weights(corpus: Corpus) -> None:
    recipe = resolve_recipe("tiny", TINY)
    first = create_objective(recipe, corpus).model.state_dict()
    torch.rand(7)
    second = create_objective(recipe, corpus).model.state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_fine_tuning_starts_from_the_weights_and_the_statistics_of_the_model(corpus: Corpus, tmp_path: Path) -> None:
    recipe = resolve_recipe("tiny", TINY)
    origin = create_objective(resolve_recipe("tiny", {**TINY, "seed": 5}), corpus).model
    assert isinstance(origin, MelTransformer)
    origin.mean_F.add_(0.5)
    path = tmp_path / "origin.safetensors"
    save_model(path, origin, name="origin")
    # The sizes come from the weights, whatever the recipe says.
    plain = resolve_recipe("tiny", {"window_patches": 12, "batch": 2, "init": "origin"})
    tuned = create_objective(plain, corpus, init=load_model(path)).model
    assert all(torch.equal(value, origin.state_dict()[name]) for name, value in tuned.state_dict().items())
    assert all(parameter.requires_grad for parameter in tuned.parameters())
    other = create_objective(recipe, corpus).model
    assert not torch.equal(other.state_dict()["mean_F"], origin.state_dict()["mean_F"])


def test_fine_tuning_from_another_kind_of_model_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "classifier.safetensors"
    save_model(path, MelClassifier(MelClassifierConfig()), name="classifier")
    with pytest.raises(InvalidRequest, match="mel_classifier"):
        create_objective(resolve_recipe("tiny", TINY), corpus, init=load_model(path))


def test_a_real_loss_falls_on_real_recordings(corpus: Corpus) -> None:
    """On recordings held out too, where each window is scored before and after without the noise of a batch."""
    recipe = resolve_recipe("tiny", {**TINY, "batch": 8, "precision": "fp32"}, num_steps=240)
    objective, losses = create_objective(recipe, corpus), list[float]()
    untrained = objective.evaluate(objective.model)
    state = create_state(objective, recipe.trainer)
    fit(state, recipe.trainer, save=lambda _: None, report=lambda p: losses.append(p.losses["model/total"]))
    trained = objective.evaluate(objective.model)
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert trained["energy_score"] < 0.8 * untrained["energy_score"]
    assert trained["energy_score"] < 0.8 * trained["repeat_last"]


def labelled(corpus: Corpus) -> Corpus:
    """The recordings under the labels in their names, as a corpus from shards has them."""
    labels = ("speech", "music")

    def relabel(recording: Recording) -> Recording:
        return replace(recording, label=label_of(recording.label, labels), split=TRAIN)

    return replace(corpus, recordings=tuple(relabel(r) for r in corpus.recordings))


def test_the_classifier_learns_speech_from_music(corpus: Corpus) -> None:
    recipe = resolve_recipe("classifier-tiny", {"width": 4, "window_frames": 64, "batch": 8}, num_steps=60)
    held_out = labelled(corpus)
    objective = create_objective(recipe, held_out)
    assert isinstance(objective, ClassificationObjective)
    state = create_state(objective, recipe.trainer)
    fit(state, recipe.trainer, save=lambda _: None, report=lambda _: None)
    judged = ClassificationObjective(
        MelClassifier(objective.classifier.config), held_out, held_out, objective.config, seed=0
    ).evaluate(state.ema)
    assert judged["accuracy"] > 0.8
    assert judged["confusion/speech/speech"] + judged["confusion/speech/music"] == pytest.approx(1, abs=0.2)


def test_a_classifier_needs_two_labels(corpus: Corpus) -> None:
    with pytest.raises(InvalidRequest, match="at least two"):
        create_objective(resolve_recipe("classifier-tiny", {}), corpus)
