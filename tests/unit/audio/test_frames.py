"""Frames to blocks: mixing on the way gives what mixing afterwards gives, and nonsense is silenced and reported."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from audiofoundation.audio.decode import DecodeLimits, decode_file
from audiofoundation.audio.sandbox.frames import FrameGatherer
from audiofoundation.audio.sandbox.launcher import stop_zygote
from audiofoundation.audio.waveform import Samples, mix_to_mono
from audiofoundation.native import OFF, is_compiled


def frames_of(samples: Samples, *, layout: str, size: int) -> list[av.AudioFrame]:
    parts = (samples[:, start : start + size] for start in range(0, samples.shape[1], size))
    frames = [av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="fltp", layout=layout) for part in parts]
    for frame in frames:
        frame.sample_rate = 48000
    return frames


def gathered(frames: list[av.AudioFrame], *, is_mixed: bool) -> tuple[Samples, FrameGatherer]:
    gathering = FrameGatherer(frames[0], 1000, is_mixed=is_mixed)
    blocks = []
    for frame in frames:
        assert gathering.add(frame)
        if gathering.num_samples >= gathering.block_samples:
            blocks.append(gathering.take().copy())
    blocks.append(gathering.take().copy())
    return np.concatenate(blocks, axis=1), gathering


@pytest.mark.parametrize(("layout", "num_channels"), [("mono", 1), ("stereo", 2), ("5.1", 6)])
def test_the_mean_is_that_of_the_channels(layout: str, num_channels: int) -> None:
    samples = np.random.default_rng(5).standard_normal((num_channels, 3000)).astype(np.float32)
    frames = frames_of(samples, layout=layout, size=301)

    mixed, gathering = gathered(frames, is_mixed=True)

    np.testing.assert_array_equal(mixed, mix_to_mono(samples))
    np.testing.assert_array_equal(gathered(frames, is_mixed=False)[0], samples)
    assert gathering.num_channels == num_channels
    assert not gathering.has_nonsense


@pytest.mark.parametrize("nonsense", [np.nan, np.inf, -np.inf, 1e20, -2e6])
def test_samples_that_are_no_sound_are_silenced_in_their_channel(nonsense: float) -> None:
    samples = np.random.default_rng(5).standard_normal((2, 900)).astype(np.float32)
    spoilt = samples.copy()
    spoilt[1, 500] = nonsense
    samples[1, 500] = 0.0

    mixed, gathering = gathered(frames_of(spoilt, layout="stereo", size=300), is_mixed=True)

    np.testing.assert_array_equal(mixed, mix_to_mono(samples))
    assert gathering.has_nonsense


def test_the_loudest_sound_is_kept() -> None:
    samples = np.full((2, 400), 1e6, np.float32)

    mixed, gathering = gathered(frames_of(samples, layout="stereo", size=200), is_mixed=True)

    np.testing.assert_array_equal(mixed, samples[:1])
    assert not gathering.has_nonsense


@pytest.fixture(params=["compiled", "numpy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "compiled" and not is_compiled():
        pytest.skip("the kernels are not compiled here")
    monkeypatch.setenv(OFF, "0" if request.param == "numpy" else "1")
    stop_zygote()  # the next one is started with that environment
    yield
    stop_zygote()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("codec", "fmt", "name"), [("aac", "fltp", "seven.m4a"), ("libopus", "flt", "seven.opus")])
def test_eight_channels_are_all_that_is_read(codec: str, fmt: str, name: str, tmp_path: Path) -> None:
    tone = 0.25 * np.sin(2 * np.pi * 440 * np.arange(48000) / 48000)
    gains = np.array([1, 1, 0, 0, 0.5, 0.5, 1, 1])
    samples = (gains[:, None] * tone).astype(np.float32)
    with av.open(tmp_path / name, "w") as out:
        stream = out.add_stream(codec, rate=48000, layout="7.1", bit_rate=512_000)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T).reshape(1, -1), format="flt", layout="7.1")
        frame.sample_rate = 48000
        resampler = av.AudioResampler(format=fmt, layout="7.1", rate=48000)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            out.mux(stream.encode(part))

    limits = DecodeLimits(max_duration_s=10, max_bytes=1 << 24)
    mono, whole = (decode_file(tmp_path / name, limits=limits, is_mono=is_mono) for is_mono in (True, False))

    assert mono.info.num_channels == whole.waveform.num_channels == 8
    np.testing.assert_allclose(mono.waveform.samples, mix_to_mono(whole.waveform.samples), atol=1e-6)
    assert np.abs(mono.waveform.samples[0, 8000:40000]).max() == pytest.approx(0.25 * gains.mean(), rel=0.05)
