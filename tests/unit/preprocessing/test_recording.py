"""From files of one, two and six channels to samples, through the real decoder."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from audiofoundation.audio.decode import DecodeLimits, decode_file
from audiofoundation.features.mel import Float32
from audiofoundation.identifiers import AssetId, ItemId, Sha256
from audiofoundation.preprocessing import recording, spool
from audiofoundation.preprocessing.levelled import read_levelled
from audiofoundation.preprocessing.options import DatasetOptions
from audiofoundation.preprocessing.recording import RecordingToCut, cut_recording
from audiofoundation.preprocessing.thresholds import QualityThresholds
from audiofoundation.shards.sample import Sample
from tests.data_plane import RECORDINGS, two_sided

MUSIC = RECORDINGS / "music-lofi-happy-lofi-day.ogg"
SPEECH = RECORDINGS / "speech-pmatthes-LJ001-0001.opus"
NAME = RecordingToCut(ItemId("item_1"), AssetId("asset_1"), Sha256("0" * 64), "raw/1")
QUIET_LUFS, LOUD_LUFS = -35.0, -5.0  # one that no peak forbids, and one that they do
CEILING = 10 ** (-1 / 20)


@pytest.fixture
def stereo(tmp_path: Path) -> Path:
    """Music on the left, speech on the right, at another rate than the preset's."""
    return two_sided(tmp_path / "sides.flac", MUSIC, SPEECH, rate_hz=44_100)


def cut(path: Path, options: DatasetOptions) -> list[Sample]:
    samples = list(cut_recording(path, NAME, options, work_dir=path.parent))
    assert samples
    return samples


def sound(samples: list[Sample]) -> NDArray[np.int16]:
    """Return the waveforms of samples, joined."""
    parts = [sample.waveform for sample in samples if sample.waveform is not None]
    assert len(parts) == len(samples)
    return np.concatenate(parts, axis=-1)


def decoded(path: Path) -> Float32:
    return decode_file(
        path, limits=DecodeLimits(max_duration_s=60, max_bytes=1 << 24), target_rate_hz=24_000
    ).waveform.samples


def test_both_sides_are_kept_as_they_were(stereo: Path) -> None:
    samples = cut(stereo, DatasetOptions(include_waveform=True, channels=2, target_lufs=QUIET_LUFS))
    whole, found = decoded(stereo), sound(samples)
    start = round(samples[0].meta.offset_s * 24_000)
    gain = 10 ** (samples[0].meta.gain_db / 20)
    assert [sample.meta.num_channels for sample in samples] == [2] * len(samples)
    assert found.dtype == np.int16
    # Half a step of rounding, and what float32 knows of the gain.
    expected = whole[:, start : start + found.shape[1]] * (gain * 32767)
    assert np.abs(found - expected).max() < 0.51


def test_mel_cuts_and_measures_are_those_of_the_mono_mix(stereo: Path) -> None:
    mono = cut(stereo, DatasetOptions(include_waveform=True, has_rhythm=True, target_lufs=QUIET_LUFS))
    both = cut(stereo, DatasetOptions(include_waveform=True, has_rhythm=True, target_lufs=QUIET_LUFS, channels=2))
    for one, other in zip(both, mono, strict=True):
        assert (one.key, one.meta.offset_s, one.meta.num_samples) == (
            other.key,
            other.meta.offset_s,
            other.meta.num_samples,
        )
        assert one.meta.gain_db == pytest.approx(other.meta.gain_db, abs=1e-4)
        assert one.meta.loudness_lufs == pytest.approx(other.meta.loudness_lufs, abs=1e-4)
        assert one.meta.descriptors is not None
        assert other.meta.descriptors is not None
        # Six digits are kept; mixing after the rate is changed instead of before moves the last.
        assert one.meta.descriptors.mfcc_mean == pytest.approx(other.meta.descriptors.mfcc_mean, rel=1e-3, abs=1e-3)
        assert one.meta.descriptors.tempo_bpm == other.meta.descriptors.tempo_bpm
        assert one.meta.descriptors.harmonic_ratio == pytest.approx(other.meta.descriptors.harmonic_ratio, rel=1e-3)
        # float16 keeps 11 bits: one unit at |x| < 16.
        np.testing.assert_allclose(one.mel_TF.astype(np.float32), other.mel_TF.astype(np.float32), atol=2**-7)
        mixed = one.mono()
        assert mixed is not None
        assert other.waveform is not None
        assert np.abs(mixed.astype(int) - other.waveform).max() <= 1


def test_the_louder_side_stays_under_the_ceiling_and_the_mel_has_the_same_gain(stereo: Path) -> None:
    options = DatasetOptions(include_waveform=True, channels=2, target_lufs=LOUD_LUFS)
    both, mono = cut(stereo, options), cut(stereo, DatasetOptions(target_lufs=LOUD_LUFS))
    assert np.abs(sound(both) / 32767).max() == pytest.approx(CEILING, abs=1e-3)
    assert both[0].meta.gain_db < mono[0].meta.gain_db, "here the peak of the music alone decides"
    shift = (both[0].meta.gain_db - mono[0].meta.gain_db) * np.log(10) / 20
    inner = both[0].mel_TF[5:].astype(np.float32) - mono[0].mel_TF[5:].astype(np.float32)
    assert np.median(inner) == pytest.approx(shift, abs=0.01)


def test_of_a_mono_recording_both_sides_are_what_mono_gives() -> None:
    mono = cut(SPEECH, DatasetOptions(include_waveform=True))
    both = cut(SPEECH, DatasetOptions(include_waveform=True, channels=2))
    np.testing.assert_array_equal(sound(both), np.stack([sound(mono)] * 2))
    for one, other in zip(both, mono, strict=True):
        np.testing.assert_array_equal(one.mel_TF, other.mel_TF)
        assert one.meta == other.meta.model_copy(update={"num_channels": 2})


def test_of_surround_sound_both_sides_mix_to_the_mean_of_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "six.wav", 0.1 * rng.standard_normal((48_000, 6)), 24_000, subtype="PCM_24")
    options = {"include_waveform": True, "target_lufs": None}
    mono = cut(tmp_path / "six.wav", DatasetOptions(**options))  # type: ignore[arg-type]
    both = cut(tmp_path / "six.wav", DatasetOptions(**options, channels=2))  # type: ignore[arg-type]
    left, right = sound(both).astype(int)
    assert np.abs((left + right) / 2 - sound(mono)).max() <= 1
    # FL, BL and half of FC and LFE on the left: of both sides' variance, 0.5 / 2.5 is common to them.
    assert np.corrcoef(left, right)[0, 1] == pytest.approx(0.2, abs=0.03)


def test_long_stereo_goes_to_a_file_and_comes_out_the_same(stereo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = DatasetOptions(include_waveform=True, channels=2, has_rhythm=True)
    expected = cut(stereo, options)
    made: list[spool.SampleSpool] = []

    def create(directory: Path) -> spool.SampleSpool:
        made.append(spool.SampleSpool(directory, max_in_memory=24_000))
        return made[-1]

    monkeypatch.setattr(recording, "SampleSpool", create)
    found = []
    for sample in cut_recording(stereo, NAME, options, work_dir=stereo.parent):
        assert made[0]._file is not None
        found.append(sample)
    np.testing.assert_array_equal(sound(found), sound(expected))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.mel_TF, other.mel_TF)
        assert one.meta == other.meta


@pytest.mark.parametrize("target_lufs", [QUIET_LUFS, LOUD_LUFS])
def test_training_straight_from_originals_hears_the_mix_that_shards_hold(target_lufs: float, stereo: Path) -> None:
    options = DatasetOptions(include_waveform=True, channels=2, target_lufs=target_lufs)
    (levelled,) = read_levelled(stereo, options.to_config(), work_dir=stereo.parent)
    mixed = [sample.mono() for sample in cut(stereo, options)]
    joined = np.concatenate([part for part in mixed if part is not None])
    assert levelled.ndim == 1
    # Each side is rounded to 16 bits, and their mean again.
    assert np.abs(levelled[: joined.size] * 32767 - joined).max() <= 1.01


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
def test_clipping_is_the_originals_whatever_gain_and_rate(suffix: str, tmp_path: Path) -> None:
    music = np.resize(soundfile.read(MUSIC, dtype="float32")[0], 12 * 44_100)
    path = tmp_path / f"x.{suffix}"
    soundfile.write(path, np.clip(music * np.where(np.arange(music.size) < 6 * 44_100, 0.3, 10), -1, 1), 44_100)
    thresholds = QualityThresholds(max_clipped_ratio=0.05)

    found = [
        [
            sample.meta.quality.clipped_ratio
            for sample in cut(path, DatasetOptions(target_lufs=lufs))
            if sample.meta.quality
        ]
        for lufs in (-23.0, None)
    ]
    (kept,) = read_levelled(path, DatasetOptions(thresholds=thresholds).to_config(), work_dir=tmp_path)

    assert found[0] == pytest.approx(found[1])
    assert found[0][0] == 0
    assert found[0][-1] > 0.15
    assert kept.size / 24_000 == pytest.approx(6, abs=0.1)


@pytest.mark.parametrize("num_missed", [1, 2, 3])
def test_training_straight_from_originals_leaves_out_what_a_threshold_leaves_out(num_missed: int) -> None:
    plain = DatasetOptions(include_waveform=True, segment_s=0.5, target_lufs=QUIET_LUFS)
    levels = sorted(sample.meta.quality.rms_db for sample in cut(MUSIC, plain) if sample.meta.quality is not None)
    least = (levels[num_missed - 1] + levels[num_missed]) / 2
    options = replace(plain, thresholds=QualityThresholds(min_rms_dbfs=least))
    kept = [sample for sample in cut(MUSIC, plain) if sample.meta.quality and sample.meta.quality.rms_db >= least]
    assert len(kept) == len(levels) - num_missed

    stretches = read_levelled(MUSIC, options.to_config(), work_dir=MUSIC.parent)

    gaps = sum(b.meta.segment_index != a.meta.segment_index + 1 for a, b in pairwise(kept))
    assert len(stretches) == 1 + gaps
    assert np.abs(np.concatenate(stretches) * 32767 - sound(kept)).max() <= 0.51
