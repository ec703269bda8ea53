"""Dataset folders feed others' models: real transformers, tiny models made here, nothing downloaded."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, load_from_disk
from transformers import PreTrainedModel, Trainer, TrainingArguments, WhisperFeatureExtractor
from typer.testing import CliRunner

from audiofoundation.audio.waveform import Waveform
from audiofoundation.cli import create_cli
from audiofoundation.errors import InvalidRequest
from audiofoundation.interchange.collators import MusicgenCollator, WhisperCollator
from audiofoundation.interchange.musicgen import MusicgenTarget, delay
from audiofoundation.interchange.pipeline import AudioPreprocessingPipeline
from tests.tiny_transformers import (
    CODEBOOK_SIZE,
    NUM_CODEBOOKS,
    create_musicgen,
    create_tokenizer,
    create_whisper,
    save_musicgen,
)
from tests.unit.interchange.folders import ORIGINALS, create_folder

FILES = ("speech_8k.flac", "librivox_p001.ogg", "speech_bigendian.aiff", "big_buck_bunny_small.mp4")

Collator = WhisperCollator | MusicgenCollator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return save_musicgen(tmp_path_factory.mktemp("musicgen"))


@pytest.fixture(scope="module")
def out(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dataset")
    rows = [{"audio_file": name, "text": f"Recording number {i}" + " more" * i} for i, name in enumerate(FILES)]
    folder = create_folder(root / "in", rows, files={name: ORIGINALS / name for name in FILES})
    return AudioPreprocessingPipeline(model_name=model).build_dataset(folder, root / "out", num_plots=0).out


@pytest.fixture(scope="module")
def dataset(out: Path) -> Dataset:
    return load_from_disk(str(out / "processed_dataset"))


def losses(
    model: PreTrainedModel, rows: Dataset, collator: WhisperCollator | MusicgenCollator, folder: Path
) -> list[float]:
    """Train for two steps and return the loss of each."""
    arguments = TrainingArguments(
        str(folder),
        max_steps=2,
        per_device_train_batch_size=2,
        remove_unused_columns=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator)
    trainer.train()
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


def test_whisper_trains_on_it(dataset: Dataset, tmp_path: Path) -> None:
    found = losses(create_whisper(), dataset, WhisperCollator(create_tokenizer()), tmp_path)

    assert len(found) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in found)


def test_musicgen_trains_on_it(dataset: Dataset, tmp_path: Path) -> None:
    model = create_musicgen()
    for part in (model.text_encoder, model.audio_encoder):
        part.requires_grad_(requires_grad=False)  # as it is fine-tuned

    found = losses(model, dataset, MusicgenCollator(pad_token_id=0), tmp_path)

    assert len(found) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in found)


def test_whisper_features_are_the_extractors(dataset: Dataset) -> None:
    extractor = WhisperFeatureExtractor()
    for row in dataset:
        features = np.asarray(row["whisper_features"]["input_features"], np.float32)
        assert features.shape == (80, 3000)
        samples = np.asarray(row["processed_audio"], np.float32)
        # Every other sample of 32 kHz is 16 kHz, but for what lies above 8 kHz and folds.
        halved = extractor(samples[::2], sampling_rate=16_000, return_tensors="np").input_features[0]
        frames = slice(0, samples.size // 320)
        assert float(np.abs(features[:40, frames] - halved[:40, frames]).mean()) < 0.05


def test_wider_whisper_features_can_be_asked_for() -> None:
    sample = AudioPreprocessingPipeline(whisper_bands=128).process(ORIGINALS / FILES[0], "x")

    assert np.asarray(sample.columns["whisper_features"]["input_features"]).shape == (128, 3000)


def test_musicgen_features_are_the_models_own(dataset: Dataset, model: Path) -> None:
    tokenizer, encoder = create_tokenizer(), MusicgenTarget(model)
    for row in dataset:
        features = row["musicgen_features"]
        assert features["input_ids"] == tokenizer(row["text"])["input_ids"]
        assert features["attention_mask"] == [1] * len(features["input_ids"])
        labels = np.asarray(features["labels"])
        num_frames = math.ceil(len(row["processed_audio"]) / 640)
        assert labels.shape == (num_frames + NUM_CODEBOOKS - 1, NUM_CODEBOOKS)
        samples = np.asarray(row["processed_audio"], np.float32)
        again = encoder.encode(Waveform(samples[None], 32_000), row["text"])
        assert np.array_equal(labels, np.asarray(again["labels"]))
    assert len(np.unique(labels)) > 2, "the codes say nothing"


@pytest.mark.parametrize("num_channels", [1, 2])
def test_the_delay_is_transformers_own(num_channels: int) -> None:
    model = create_musicgen(num_channels)
    num_codebooks, num_frames = NUM_CODEBOOKS * num_channels, 9
    codes = np.random.default_rng(0).integers(0, CODEBOOK_SIZE, (num_codebooks, num_frames))

    labels = delay(codes, num_channels=num_channels, pad_token_id=CODEBOOK_SIZE)

    # Their sequence begins with the start token, and ends where the last codebook does.
    started = np.concatenate([np.full((num_codebooks, 1), CODEBOOK_SIZE), codes], axis=1)
    length = num_frames + NUM_CODEBOOKS
    _, pattern = model.decoder.build_delay_pattern_mask(
        torch.from_numpy(started), pad_token_id=CODEBOOK_SIZE, max_length=length
    )
    assert np.array_equal(labels, pattern.numpy()[:, 1:])


def test_a_stereo_model_gets_both_channels(tmp_path: Path) -> None:
    target = MusicgenTarget(save_musicgen(tmp_path, audio_channels=2))
    waveform = Waveform(np.random.default_rng(0).normal(0, 0.1, (1, 32_000)).astype(np.float32), 32_000)

    labels = np.asarray(target.encode(waveform, "x")["labels"])

    assert labels.shape == (50 + NUM_CODEBOOKS - 1, 2 * NUM_CODEBOOKS)
    assert np.array_equal(labels[:, ::2], labels[:, 1::2])


def test_the_command_writes_both_targets(model: Path, tmp_path: Path) -> None:
    rows = [{"audio_file": FILES[0], "text": "x"}]
    folder = create_folder(tmp_path / "in", rows, files={FILES[0]: ORIGINALS / FILES[0]})
    options = ["--target", "musicgen, whisper", "--musicgen-model", str(model), "--plots", "0", "--json"]

    done = CliRunner().invoke(create_cli(), ["dataset", "build", str(folder), "--out", str(tmp_path / "out"), *options])

    assert json.loads(done.stdout)["samples"] == 1
    features = load_from_disk(str(tmp_path / "out" / "processed_dataset")).features
    assert set(features["musicgen_features"]) == {"input_ids", "attention_mask", "labels"}
    assert set(features["whisper_features"]) == {"input_features"}


@pytest.mark.parametrize("config", [None, "{}", '{"model_type": "bert"}', "x"])
def test_a_folder_without_a_model_is_named(tmp_path: Path, config: str | None) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)

    with pytest.raises(InvalidRequest, match="no MusicGen model"):
        AudioPreprocessingPipeline(model_name=tmp_path)
