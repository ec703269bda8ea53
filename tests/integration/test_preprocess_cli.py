"""`audiofoundation preprocess` against the real service, from files to shards, and those who read these."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from audiofoundation.cli import create_cli
from audiofoundation.cli.output import CommandError
from audiofoundation.features.mel import get_preset, log_mel
from audiofoundation.identifiers import Sha256
from audiofoundation.preprocessing.levelled import read_levelled
from audiofoundation.preprocessing.report import figures
from audiofoundation.shards.cache import ShardCache
from audiofoundation.shards.dataset import ShardDataset
from audiofoundation.shards.manifest import DatasetManifest, load_manifest
from audiofoundation.shards.reader import read_dataset
from audiofoundation.shards.sample import Sample
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.training.assembly import create_objective
from audiofoundation.training.corpus import Draw
from audiofoundation.training.loading import ShardLoader
from audiofoundation.training.on_the_fly import DataConfig, OnTheFly
from audiofoundation.training.recipes import OverrideValue, resolve_recipe
from audiofoundation.training.shards_corpus import load_corpus
from audiofoundation.training.trainer import create_state, fit
from tests.data_plane import RECORDINGS, DataPlane, at_work, create_data_plane, data_plane_settings, two_sided

SIDES = (
    ("music-lofi-happy-lofi-day.ogg", "speech-pmatthes-LJ001-0001.opus"),
    ("speech-kerstin-de-rhasspy-0004.opus", "music-macleod-bossa-antigua.ogg"),
)
MONO = "speech-nathalie-nl-rhasspy-242.opus"
VOCODER: dict[str, OverrideValue] = {
    "width": 16,
    "hidden": 16,
    "num_layers": 1,
    "clip_frames": 16,
    "batch": 2,
    "precision": "fp32",
}


@pytest.fixture
def plane(
    sqlite_engine: Engine, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DataPlane]:
    """The services on a port, a worker, and a collection of two stereo files and a mono one."""
    plane = create_data_plane(sqlite_engine, store, data_plane_settings(tmp_path / "data"))
    plane.post("/v1/collections", {"name": "clips"})
    for number, (left, right) in enumerate(SIDES):
        path = two_sided(tmp_path / f"stereo-{number}.flac", RECORDINGS / left, RECORDINGS / right, rate_hz=44_100)
        plane.upload("clips", path.read_bytes(), name=path.name)
    plane.upload("clips", (RECORDINGS / MONO).read_bytes(), name=MONO)
    plane.run_jobs()
    with at_work(plane, monkeypatch):
        yield plane


def run(*arguments: str | Path) -> Result:
    done = CliRunner().invoke(create_cli(), [str(argument) for argument in arguments])
    if isinstance(done.exception, CommandError):
        raise done.exception
    return done


def preprocess(plane: DataPlane, *options: str) -> DatasetManifest:
    done = run("preprocess", "--collection", "clips", *options, "--wait", "--json")
    assert done.exit_code == 0, done.output
    # The worker's log lands on the same stdout here.
    dataset: dict[str, Any] = plane.get(f"/v1/datasets/{json.loads(done.stdout.splitlines()[-1])['dataset']}")
    return load_manifest(plane.store, dataset["manifest_key"], Sha256(dataset["manifest_sha256"]))


def samples_of(plane: DataPlane, manifest: DatasetManifest) -> list[Sample]:
    samples = list(read_dataset(plane.store, manifest))
    assert len({sample.meta.item_id for sample in samples}) == len(SIDES) + 1
    return samples


def stereo(plane: DataPlane) -> DatasetManifest:
    return preprocess(plane, "--with-waveform", "--channels", "2")


def test_with_rhythm_every_sample_tells_tempo_and_harmonic_ratio(plane: DataPlane) -> None:
    for sample in samples_of(plane, preprocess(plane)):
        assert sample.meta.descriptors is not None
        assert sample.meta.descriptors.tempo_bpm is sample.meta.descriptors.harmonic_ratio is None
    tempos: dict[str, float] = {}
    for sample in samples_of(plane, preprocess(plane, "--with-rhythm")):
        found = sample.meta.descriptors
        assert found is not None
        assert found.tempo_bpm is not None
        assert found.harmonic_ratio is not None
        assert 0 < found.harmonic_ratio < 1
        assert tempos.setdefault(sample.meta.item_id, found.tempo_bpm) == found.tempo_bpm, "it is the recording's"
    assert max(tempos.values()) > 30


def test_two_channels_arrive_in_shards_and_their_mix_is_what_mono_gives(plane: DataPlane) -> None:
    # At this level no peak forbids the gain, so that both datasets have the same.
    mono = samples_of(plane, preprocess(plane, "--with-waveform", "--target-lufs", "-35"))
    both = samples_of(plane, preprocess(plane, "--with-waveform", "--target-lufs", "-35", "--channels", "2"))
    correlations: dict[str, float] = {}
    for one, other in zip(both, mono, strict=True):
        assert (one.key, one.meta.offset_s, one.meta.num_samples) == (
            other.key,
            other.meta.offset_s,
            other.meta.num_samples,
        )
        assert (one.meta.num_channels, other.meta.num_channels) == (2, 1)
        assert one.waveform is not None
        assert other.waveform is not None
        assert one.waveform.shape == (2, one.meta.num_samples)
        mixed = one.mono()
        assert mixed is not None
        assert np.abs(mixed.astype(int) - other.waveform).max() <= 1
        # float16 keeps 11 bits: one unit at |x| < 16.
        np.testing.assert_allclose(one.mel_TF.astype(np.float32), other.mel_TF.astype(np.float32), atol=2**-7)
        left, right = one.waveform
        correlations.setdefault(one.meta.item_id, abs(float(np.corrcoef(left, right)[0, 1])))
    assert sorted(correlations.values())[:2] == pytest.approx([0.0, 0.0], abs=0.2), (
        "left and right are other recordings"
    )
    assert max(correlations.values()) == pytest.approx(1.0), "both sides of a mono recording are one"


@pytest.mark.usefixtures("plane")
def test_stereo_without_the_audio_is_refused_with_what_to_do() -> None:
    with pytest.raises(CommandError, match=r"mono mix.*--with-waveform"):
        run("preprocess", "--collection", "clips", "--channels", "2")


@pytest.mark.usefixtures("plane")
def test_a_dataset_without_a_segment_is_a_failure() -> None:
    done = run("preprocess", "--collection", "clips", "--min-segment-s", "60", "--segment-s", "60", "--wait")

    assert done.exit_code == 1
    assert "holds no segment" in done.output


def test_segments_under_a_threshold_are_left_out_and_counted(plane: DataPlane) -> None:
    before = samples_of(plane, preprocess(plane))
    levels = sorted(sample.meta.quality.rms_db for sample in before if sample.meta.quality is not None)
    arguments = ("preprocess", "--collection", "clips", f"--min-rms-dbfs={levels[1]}", "--wait")

    found = json.loads(run(*arguments, "--json").stdout.splitlines()[-1])
    assert found["segments_left_out"] == {"min_rms_dbfs": 1}
    assert found["segments"] == len(before) - 1 > 0
    (row,) = (line.split() for line in run(*arguments).stdout.splitlines() if "left out" in line)
    assert row == ["segment", "left", "out", "min_rms_dbfs", "1"]


@pytest.mark.usefixtures("plane")
def test_thresholds_that_nothing_meets_are_a_failure_in_words() -> None:
    done = run("preprocess", "--collection", "clips", "--min-rms-dbfs", "0", "--wait")

    assert done.exit_code == 1
    assert "miss a threshold" in done.output


def test_silence_at_the_ends_is_kept_where_it_is_not_to_be_trimmed(plane: DataPlane, tmp_path: Path) -> None:
    speech, rate_hz = soundfile.read(RECORDINGS / MONO, dtype="float32")
    soundfile.write(tmp_path / "late.flac", np.concatenate([np.zeros(2 * rate_hz), speech]), rate_hz)
    plane.upload("clips", (tmp_path / "late.flac").read_bytes(), name="late.flac")
    plane.run_jobs()
    late = next(item["id"] for item in plane.items("clips") if item["source"] == "late.flac")

    def first_offset_s(*options: str) -> float:
        samples = read_dataset(plane.store, preprocess(plane, *options))
        return min(sample.meta.offset_s for sample in samples if sample.meta.item_id == late)

    assert first_offset_s("--trim") == first_offset_s() > 1.5
    assert first_offset_s("--no-trim") == 0.0


@pytest.mark.parametrize("channels", [0, 3, "two", None])
def test_other_numbers_of_channels_are_refused(channels: object, plane: DataPlane) -> None:
    body = {"collection": "clips", "include_waveform": True, "channels": channels}
    assert plane.client.post("/v1/datasets", json=body).status_code == 422


def test_a_vocoder_trains_on_the_mono_mix_of_stereo_shards(plane: DataPlane, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    manifest = stereo(plane)
    corpus = load_corpus(plane.store, manifest, label_of=str, cache_dir=tmp_path / "cache" / "c")
    assert corpus.wave is not None
    assert corpus.wave.shape == (len(corpus.mel) * corpus.hop_length,)
    samples = samples_of(plane, manifest)
    mixes = [mix for mix in (sample.mono() for sample in samples) if mix is not None]
    np.testing.assert_array_equal(corpus.wave, np.concatenate(mixes))
    (longest,) = sorted(corpus.recordings, key=lambda recording: recording.num_frames)[-1:]
    again = log_mel(
        corpus.wave_excerpt(longest, longest.start_frame, longest.num_frames), get_preset(manifest.mel_preset)
    )
    kept = corpus.mel_excerpt(longest, longest.start_frame, longest.num_frames)
    # 16 bits are noise of about 2e-4 in a bin; of what lies far above it both mels are the same.
    is_loud = again[5 : len(kept) - 5] > np.log(0.2)
    assert is_loud.any()
    assert np.abs(again[5 : len(kept) - 5] - kept[5:-5])[is_loud].max() < 0.02

    recipe = resolve_recipe("vocoder-tiny", {**VOCODER, "evaluate_every": 0}, num_steps=3)
    state = create_state(create_objective(recipe, corpus), recipe.trainer)
    fit(state, recipe.trainer, save=lambda _: None, report=lambda _: None)
    assert np.isfinite(state.losses["model/total"])


def test_training_from_originals_hears_what_the_stereo_dataset_holds(plane: DataPlane, tmp_path: Path) -> None:
    manifest = stereo(plane)
    (tmp_path / "work").mkdir()
    source = OnTheFly(plane.queue.engine, plane.store, read_levelled, str, tmp_path / "work")
    corpus = replace(source.load(manifest, DataConfig(data="on_the_fly", max_item_s=600.0), seed=0), augment=None)
    by_group = {recording.group: recording for recording in corpus.recordings}
    frames_per_segment = round(manifest.segment_s * manifest.mel_config().frame_rate_hz)
    for sample in samples_of(plane, manifest):
        recording = by_group[sample.meta.asset_sha256]
        start = recording.start_frame + sample.meta.segment_index * frames_per_segment
        mel = corpus.mel_windows([(recording, start)], len(sample.mel_TF), Draw(0, 0, torch.device("cpu")))
        np.testing.assert_allclose(mel[0].numpy(), sample.mel_TF.astype(np.float32), atol=0.01)


def test_loaders_give_stereo_samples_whole(plane: DataPlane, tmp_path: Path) -> None:
    manifest = stereo(plane)
    dataset = ShardDataset(ShardCache(plane.store, tmp_path / "cache"), manifest)
    found = [sample for batch in ShardLoader(dataset, batch_size=2, num_epochs=1) for sample in batch]
    expected = {sample.key: sample.waveform for sample in samples_of(plane, manifest)}
    assert {sample.key for sample in found} == set(expected)
    for sample in found:
        np.testing.assert_array_equal(sample.waveform, expected[sample.key])


def test_audiocraft_gets_stereo_files(plane: DataPlane, tmp_path: Path) -> None:
    manifest = stereo(plane)
    assert (
        run("dataset", "export", manifest.dataset_id, "--out", tmp_path / "out", "--format", "audiocraft").exit_code
        == 0
    )
    expected = {sample.key: sample.waveform for sample in samples_of(plane, manifest)}
    files = list((tmp_path / "out" / "audio").glob("*.wav"))
    assert {path.stem for path in files} == set(expected)
    for path in files:
        sound, rate_hz = soundfile.read(path, dtype="int16")
        assert rate_hz == 24_000
        np.testing.assert_array_equal(sound.T, expected[path.stem])


def test_a_takedown_leaves_the_other_stereo_samples_as_they_were(plane: DataPlane) -> None:
    manifest = stereo(plane)
    gone = next(item for item in plane.items("clips") if item["source"] == "stereo-0.flac")
    kept = [sample for sample in samples_of(plane, manifest) if sample.meta.item_id != gone["id"]]
    assert run("takedown", str(gone["id"]), "--wait").exit_code == 0
    after: dict[str, Any] = plane.get(f"/v1/datasets/{manifest.dataset_id}")
    left = read_dataset(
        plane.store, load_manifest(plane.store, after["manifest_key"], Sha256(after["manifest_sha256"]))
    )
    for sample, was in zip(left, kept, strict=True):
        assert sample.meta == was.meta
        np.testing.assert_array_equal(sample.waveform, was.waveform)


def test_the_report_of_a_stereo_dataset_says_so(plane: DataPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_DPI", 40)
    page = plane.client.get(f"/v1/datasets/{stereo(plane).dataset_id}/report")
    assert page.status_code == 200
    assert "<th>audio beside the mel</th><td>stereo</td>" in page.text
