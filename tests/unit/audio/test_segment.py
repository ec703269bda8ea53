import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from audiofoundation.audio.segment import segments, trim_silence
from audiofoundation.audio.waveform import Waveform

RATE_HZ = 24000


def with_silence(before_s: float, sound_s: float, after_s: float) -> Waveform:
    lengths = [round(seconds * RATE_HZ) for seconds in (before_s, sound_s, after_s)]
    sound = 0.5 * np.sin(np.arange(lengths[1]) * 0.1)
    return Waveform(
        np.concatenate([np.zeros(lengths[0]), sound, np.zeros(lengths[2])]).astype(np.float32)[None], RATE_HZ
    )


def test_silence_at_both_ends_is_cut_but_for_the_margin() -> None:
    trimmed = trim_silence(with_silence(1, 2, 0.5), margin_s=0.1)

    assert abs(trimmed.duration_s - 2.2) < 0.021
    assert np.abs(trimmed.samples[0, 3000:-3000]).max() > 0.49


def test_silence_within_the_sound_stays() -> None:
    parts = [with_silence(0, 1, 1).samples, with_silence(0, 1, 0).samples]

    assert trim_silence(Waveform(np.hstack(parts), RATE_HZ)).duration_s == 3


def test_quiet_noise_below_the_threshold_counts_as_silence() -> None:
    waveform = with_silence(1, 1, 1)
    noise = 1e-3 * np.random.default_rng(0).standard_normal(waveform.samples.shape).astype(np.float32)

    assert trim_silence(Waveform(waveform.samples + noise, RATE_HZ), margin_s=0).duration_s < 1.03


def test_sound_in_one_channel_counts() -> None:
    sound = with_silence(1, 1, 1).samples

    assert 1 < trim_silence(Waveform(np.vstack([0 * sound, sound]), RATE_HZ)).duration_s < 1.2


def test_only_silence_leaves_nothing() -> None:
    assert trim_silence(Waveform(np.zeros((2, 999), np.float32), RATE_HZ)).samples.shape == (2, 0)
    assert trim_silence(Waveform(np.zeros((2, 0), np.float32), RATE_HZ)).samples.shape == (2, 0)


@given(st.integers(0, 5000), st.integers(1, 700), st.integers(1, 700))
def test_segments_tile_the_recording(num_samples: int, segment_samples: int, min_samples: int) -> None:
    cut = list(segments(num_samples, segment_samples=segment_samples, min_samples=min_samples))

    assert [part.start for part in cut] == [n * segment_samples for n in range(len(cut))]
    assert all(len(part) == segment_samples for part in cut[:-1])
    assert all(min_samples <= len(part) <= segment_samples for part in cut)
    left_out = num_samples - sum(map(len, cut))
    assert left_out < min_samples or min_samples > segment_samples
