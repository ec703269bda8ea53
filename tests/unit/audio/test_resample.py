import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiofoundation.audio.resample import StreamingResampler, output_length, resample
from audiofoundation.audio.waveform import Waveform

RATES = [8000, 11025, 16000, 22050, 24000, 44100, 48000, 96000]


@settings(max_examples=60, deadline=None)
@given(
    in_hz=st.sampled_from(RATES),
    out_hz=st.sampled_from(RATES),
    num_channels=st.integers(1, 3),
    blocks=st.lists(st.integers(0, 3000), min_size=1, max_size=8),
)
def test_streaming_equals_offline(in_hz: int, out_hz: int, num_channels: int, blocks: list[int]) -> None:
    samples = np.random.default_rng(0).standard_normal((num_channels, sum(blocks))).astype(np.float32)
    whole = resample(Waveform(samples, in_hz), out_hz)
    stream = StreamingResampler(in_hz, out_hz, num_channels)

    parts = np.split(samples, np.cumsum(blocks)[:-1], axis=1)
    streamed = [stream.push(part, is_last=part is parts[-1]) for part in parts]

    np.testing.assert_array_equal(np.hstack(streamed), whole.samples)
    assert whole.num_samples == output_length(sum(blocks), in_hz, out_hz)


def test_length_is_the_nearest_integer() -> None:
    assert [output_length(n, 48000, 24000) for n in (0, 1, 2, 3)] == [0, 1, 1, 2]
    assert output_length(44100, 44100, 24000) == 24000


@pytest.mark.parametrize(("in_hz", "out_hz"), [(44100, 24000), (24000, 16000), (16000, 48000)])
def test_tone_stays_the_tone(in_hz: int, out_hz: int) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(in_hz) / in_hz).astype(np.float32)
    expected = np.sin(2 * np.pi * 1000 * np.arange(out_hz) / out_hz)

    found = resample(Waveform(tone[None], in_hz), out_hz).samples[0]

    middle = slice(out_hz // 10, -out_hz // 10)  # the filter rings at the edges
    assert np.abs(found - expected)[middle].max() < 1e-4


def test_what_the_new_rate_cannot_hold_is_gone() -> None:
    tone = np.sin(2 * np.pi * 10000 * np.arange(48000) / 48000).astype(np.float32)

    found = resample(Waveform(tone[None], 48000), 16000).samples[0]

    assert np.abs(found[1600:-1600]).max() < 1e-4  # -80 dB: no alias at 6 kHz


def test_same_rate_costs_nothing() -> None:
    waveform = Waveform(np.zeros((1, 10), np.float32), 24000)

    assert resample(waveform, 24000) is waveform


def test_wrong_number_of_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="2 channels"):
        StreamingResampler(24000, 16000, 2).push(np.zeros((1, 10), np.float32))
