from pathlib import Path

import numpy as np
import pytest

from audiofoundation.features.mel import Float32, get_preset, log_mel
from audiofoundation.preprocessing.segments import Segment, SegmentPlan, cut_segments
from audiofoundation.preprocessing.spool import SampleSpool

STREAMABLE = ("vocos24", "hifigan22", "bigvgan24")


def spool_with(samples: Float32, folder: Path, max_in_memory: int) -> SampleSpool:
    spool = SampleSpool(folder, max_in_memory=max_in_memory)
    channels = np.atleast_2d(samples)
    for start in range(0, channels.shape[1], 9_999):
        spool.append(channels[:, start : start + 9_999])
    return spool


def cut(
    spool: SampleSpool, preset: str, *, start: int = 0, stop: int | None = None, gain: float = 1.0
) -> list[Segment]:
    config = get_preset(preset)
    plan = SegmentPlan(config, 281, 47, start, spool.num_samples if stop is None else stop, gain)
    return list(cut_segments(spool, plan))


@pytest.fixture
def samples() -> Float32:
    return (0.1 * np.random.default_rng(1).standard_normal(24_000 * 10 + 1234)).astype(np.float32)


@pytest.mark.parametrize("max_in_memory", [10**9, 1000])
@pytest.mark.parametrize("preset", STREAMABLE)
def test_segments_join_to_the_mel_and_sound_of_the_whole(
    samples: Float32, preset: str, max_in_memory: int, tmp_path: Path
) -> None:
    with spool_with(samples, tmp_path, max_in_memory) as spool:
        segments = cut(spool, preset)
    config = get_preset(preset)
    whole = log_mel(samples, config)
    joined = np.concatenate([segment.mel_TF for segment in segments])
    num_frames = samples.size // config.hop_length
    # float16 keeps 11 bits: half a unit at |x| < 16 is 2^-8.
    np.testing.assert_allclose(joined, whole[:num_frames], atol=2**-8)
    sound = np.concatenate([segment.samples for segment in segments])
    np.testing.assert_array_equal(sound, samples[: num_frames * config.hop_length])
    assert [segment.start for segment in segments] == [i * 281 * config.hop_length for i in range(len(segments))]


def test_the_same_segments_come_from_memory_and_from_disk(samples: Float32, tmp_path: Path) -> None:
    with spool_with(samples, tmp_path, 10**9) as memory, spool_with(samples, tmp_path, 1000) as disk:
        pairs = list(zip(cut(memory, "vocos24"), cut(disk, "vocos24"), strict=True))
    for one, other in pairs:
        np.testing.assert_array_equal(one.mel_TF, other.mel_TF)
        np.testing.assert_array_equal(one.samples, other.samples)


@pytest.mark.parametrize("max_in_memory", [10**9, 1000])
def test_two_channels_are_cut_where_their_mix_is(samples: Float32, max_in_memory: int, tmp_path: Path) -> None:
    sides = np.stack([samples, np.roll(samples, 5000)])
    with spool_with(sides, tmp_path, max_in_memory) as spool, spool_with(sides.mean(0), tmp_path, 10**9) as mixed:
        assert spool.num_samples == samples.size
        pairs = list(zip(cut(spool, "vocos24", gain=0.5), cut(mixed, "vocos24", gain=0.5), strict=True))
    for one, mix in pairs:
        assert one.start == mix.start
        np.testing.assert_array_equal(one.channels, sides[:, one.start : one.start + one.samples.size] / 2)
        np.testing.assert_array_equal(one.samples, mix.samples)
        np.testing.assert_array_equal(one.mel_TF, mix.mel_TF)


def test_whisper_segments_are_scaled_one_by_one(samples: Float32, tmp_path: Path) -> None:
    with spool_with(samples, tmp_path, 10**9) as spool:
        first = cut(spool, "whisper16")[0]
    assert first.mel_TF.shape == (281, 80)
    assert np.isfinite(first.mel_TF).all()


def test_trimmed_ends_and_short_rests_are_left_out(samples: Float32, tmp_path: Path) -> None:
    hop = 256
    with spool_with(samples, tmp_path, 10**9) as spool:
        long_rest = cut(spool, "vocos24", start=1000, stop=1000 + (281 + 47) * hop)
        short_rest = cut(spool, "vocos24", start=1000, stop=1000 + (281 + 46) * hop + 255)
        too_short = cut(spool, "vocos24", start=1000, stop=1000 + 46 * hop)
        nothing = cut(spool, "vocos24", start=1000, stop=1000)
    assert [(s.start, len(s.mel_TF)) for s in long_rest] == [(1000, 281), (1000 + 281 * hop, 47)]
    assert [(s.start, len(s.mel_TF)) for s in short_rest] == [(1000, 281)]
    assert too_short == nothing == []


def test_gain_scales_sound_and_shifts_the_mel(samples: Float32, tmp_path: Path) -> None:
    with spool_with(samples, tmp_path, 10**9) as spool:
        plain, louder = cut(spool, "vocos24")[0], cut(spool, "vocos24", gain=2.0)[0]
    np.testing.assert_array_equal(louder.samples, plain.samples * 2)
    np.testing.assert_allclose(louder.mel_TF, plain.mel_TF + np.float16(np.log(2)), atol=2**-7)
