"""Joining segments and splitting recordings."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from audiofoundation.errors import InvalidRequest
from audiofoundation.features.mel import log_mel
from audiofoundation.identifiers import ItemId
from audiofoundation.shards.sample import Sample
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.training.corpus import Corpus
from audiofoundation.training.shards_corpus import TRAIN, VALIDATION, build_corpus, load_corpus, split_groups
from tests.training_stage import PRESET, SEGMENT_FRAMES, recording, segments_of
from tests.unit.shards.stage import store_shards

NAME = "speech-pmatthes-LJ001-0001.opus"


def test_segments_of_a_recording_become_one_stretch_whose_samples_are_exact(tmp_path: Path) -> None:
    corpus = build_corpus(segments_of(NAME, ItemId("one")), PRESET, tmp_path)
    (only,) = corpus.recordings
    assert only.num_frames > 2 * SEGMENT_FRAMES
    assert corpus.wave is not None
    assert len(corpus.wave) == only.num_frames * PRESET.hop_length
    np.testing.assert_array_equal(corpus.wave, recording(NAME)[: len(corpus.wave)])


def test_of_stereo_segments_the_mono_mix_is_learnt(tmp_path: Path) -> None:
    def spread(sample: Sample) -> Sample:
        assert sample.waveform is not None
        sides = np.stack([sample.waveform // 2, sample.waveform - sample.waveform // 2]) * 2
        meta = sample.meta.model_copy(update={"num_channels": 2})
        return replace(sample, waveform=sides.clip(-32768, 32767).astype(np.int16), meta=meta)

    mono = build_corpus(segments_of(NAME, ItemId("one")), PRESET, tmp_path / "mono")
    stereo = build_corpus(map(spread, segments_of(NAME, ItemId("one"))), PRESET, tmp_path / "stereo")
    assert stereo.recordings == mono.recordings
    np.testing.assert_array_equal(stereo.wave, mono.wave)
    np.testing.assert_array_equal(stereo.mel, mono.mel)


def test_frames_away_from_a_joint_are_those_of_the_whole_recording(tmp_path: Path) -> None:
    corpus = build_corpus(segments_of(NAME, ItemId("one")), PRESET, tmp_path)
    assert corpus.wave is not None
    whole = log_mel(corpus.wave.astype(np.float32) / np.float32(32768), PRESET)[: len(corpus.mel)]
    distance = np.abs(corpus.mel.astype(np.float32) - whole).max(axis=1)
    frames = np.arange(len(distance))
    to_joint = np.abs(frames[:, None] - np.arange(0, len(distance) + 1, SEGMENT_FRAMES)[None]).min(axis=1)
    # Two frames of reflection on either side of a joint; elsewhere float16's rounding (3 digits of ~ 12).
    assert distance[to_joint > 2].max() < 0.01


def test_a_gap_between_segments_starts_a_new_stretch_of_the_same_group(tmp_path: Path) -> None:
    samples = segments_of(NAME, ItemId("one"))
    corpus = build_corpus([samples[0], *samples[2:]], PRESET, tmp_path)
    assert len(corpus.recordings) == 2
    assert len({(r.group, r.split) for r in corpus.recordings}) == 1
    assert corpus.recordings[1].start_frame == corpus.recordings[0].num_frames


def test_segments_come_in_any_order(tmp_path: Path) -> None:
    samples = segments_of(NAME, ItemId("one"))
    shuffled = build_corpus(samples[::-1], PRESET, tmp_path)
    np.testing.assert_array_equal(shuffled.mel, build_corpus(samples, PRESET, tmp_path / "ordered").mel)


def test_a_segment_that_is_not_finite_is_left_out(tmp_path: Path) -> None:
    samples = segments_of(NAME, ItemId("one"))
    spoilt = samples[1].mel_TF.copy()
    spoilt[3, 3] = np.nan
    corpus = build_corpus([samples[0], replace(samples[1], mel_TF=spoilt), *samples[2:]], PRESET, tmp_path)
    assert np.isfinite(corpus.mel).all()
    assert len(corpus.recordings) == 2


def test_one_recording_without_samples_makes_a_corpus_without_samples(tmp_path: Path) -> None:
    mixed: list[Sample] = [
        *segments_of(NAME, ItemId("one")),
        *segments_of("music-lofi-florist.mp3", ItemId("two"), with_waveform=False),
    ]
    assert build_corpus(mixed, PRESET, tmp_path).wave is None


def test_an_empty_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no usable segment"):
        build_corpus([], PRESET, tmp_path)


def test_a_saved_corpus_is_the_same(tmp_path: Path) -> None:
    corpus = build_corpus(segments_of(NAME, ItemId("one")), PRESET, tmp_path)
    corpus.save(tmp_path / "c")
    loaded = Corpus.load(tmp_path / "c")
    np.testing.assert_array_equal(loaded.mel, corpus.mel)
    assert loaded.recordings == corpus.recordings


def test_a_dataset_with_a_broken_shard_becomes_a_corpus_of_the_others(store: ObjectStore, tmp_path: Path) -> None:
    manifest = store_shards(store, tmp_path, sizes=(3, 2, 4))
    store.put_bytes(manifest.shards[1].key, b"y" * manifest.shards[1].size_bytes)
    with capture_logs() as logs:
        corpus = load_corpus(store, manifest, label_of=lambda item: item.upper(), cache_dir=tmp_path / "cache" / "c")
    assert [(r.label, r.num_frames) for r in corpus.recordings] == [("ITEM_0", 30), ("ITEM_2", 40)]
    assert [log["key"] for log in logs if log["event"] == "shard_quarantined"] == [manifest.shards[1].key]
    assert {path.name for path in (tmp_path / "cache" / "c").iterdir()} == {"index.json", "mel.npy"}


def test_splits_do_not_change_as_a_dataset_grows_and_are_never_without_training() -> None:
    few, many = ([str(n) for n in range(count)] for count in (60, 120))
    before, after = split_groups(few), split_groups(many)
    assert all(after[group] == split for group, split in before.items())
    share = sum(split == VALIDATION for split in after.values()) / len(after)
    assert 0.04 < share < 0.2
    assert split_groups(["a"]) == {"a": TRAIN}
    assert sorted(split_groups(["a", "b"]).values()) == [TRAIN, VALIDATION]
