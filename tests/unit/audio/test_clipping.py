"""Clipping shows after gain and lossy coding, and only where there is some."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiofoundation.audio.clipping import STEP_SAMPLES, Clipping, Float32, clipped_ratio
from audiofoundation.audio.decode import DecodeLimits, decode_blocks, decode_file
from audiofoundation.errors import DecodeFailed
from tests.data_plane import ORIGINALS, RECORDINGS

SECONDS = 4
# Mastered too loud and then stored as 16 bits: half a per cent of it lies at full scale.
CLIPPED = {"clipped.wav", "music-boomboxhead-ripper.flac"}


def chord(rate_hz: int) -> Float32:
    time_s = np.arange(SECONDS * rate_hz) / rate_hz
    noise = np.random.default_rng(0).standard_normal(time_s.size)
    return (np.sin(2 * np.pi * 220 * time_s) + 0.3 * np.sin(2 * np.pi * 1330 * time_s) + 0.1 * noise).astype(np.float32)


def write(path: Path, samples: Float32, rate_hz: int) -> Path:
    subtype = {".ogg": "VORBIS", ".opus": "OPUS", ".mp3": "MPEG_LAYER_III"}.get(path.suffix, "PCM_16")
    kind = {".opus": "OGG"}.get(path.suffix, path.suffix[1:].upper())
    soundfile.write(path, samples.T, rate_hz, format=kind, subtype=subtype)
    return path


def measured(path: Path, limits: DecodeLimits, *, rate_hz: int | None = 24_000) -> Clipping:
    with decode_blocks(
        path, limits=limits, target_rate_hz=rate_hz, max_channels=1, block_s=None, is_measured=True
    ) as blocks:
        assert sum(block.num_samples for block in blocks)
        return blocks.clipping


@pytest.mark.parametrize("level", [1.0, 0.5])
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg", ".opus"])
@pytest.mark.parametrize("rate_hz", [24_000, 44_100, 48_000])
def test_clipped_files_show_whatever_came_after(
    tmp_path: Path, limits: DecodeLimits, suffix: str, rate_hz: int, level: float
) -> None:
    if suffix == ".opus":
        rate_hz = 48_000
    clipped = np.clip(3 * chord(rate_hz), -1, 1)
    share = float((np.abs(clipped) == 1).mean())

    found = measured(write(tmp_path / f"x{suffix}", level * clipped[None], rate_hz), limits).ratio(0, SECONDS)

    is_lossy = suffix not in (".wav", ".flac")
    assert share > 0.7
    assert found == pytest.approx(share, abs=0.15 if is_lossy else 0.01)


@pytest.mark.parametrize(("suffix", "least"), [(".flac", 0.97), (".mp3", 0.5), (".ogg", 0.4)])
@pytest.mark.parametrize("name", ["music-librosa-lets-go-fishin.ogg", "speech-pmatthes-LJ001-0001.opus"])
def test_real_sound_cut_off_at_full_scale_shows_in_every_codec(
    tmp_path: Path, limits: DecodeLimits, name: str, suffix: str, least: float
) -> None:
    sound = soundfile.read(RECORDINGS / name, dtype="float32")[0]
    clipped = np.clip(np.resize(10 * sound / np.abs(sound).max(), SECONDS * 44_100), -1, 1)
    share = float((np.abs(clipped) == 1).mean())

    found = measured(write(tmp_path / f"x{suffix}", clipped[None], 44_100), limits).ratio(0, SECONDS)

    assert share > 0.15
    assert least * share < found < 1.02 * share


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".ogg", ".opus"])
def test_the_same_sound_without_it_shows_none(tmp_path: Path, limits: DecodeLimits, suffix: str) -> None:
    path = write(tmp_path / f"x{suffix}", 0.5 * chord(48_000)[None], 48_000)
    assert measured(path, limits).ratio(0, SECONDS) == 0


@pytest.mark.parametrize("path", sorted([*RECORDINGS.iterdir(), *ORIGINALS.iterdir()]), ids=lambda path: path.name)
def test_real_recordings_show_none(path: Path, limits: DecodeLimits) -> None:
    try:
        waveform = decode_file(path, limits=limits).waveform
    except DecodeFailed:
        return  # not one of the recordings
    found = clipped_ratio(waveform.samples)
    assert found > 2e-3 if path.name in CLIPPED else found < 1e-3


@pytest.mark.parametrize("rate_hz", [8000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("hz", [20.0, 100.0, 441.0, 1000.0, 1500.0, 2500.0])
def test_a_sine_is_not_clipped_though_it_dwells_at_its_peak(hz: float, rate_hz: int) -> None:
    sine = np.sin(2 * np.pi * hz * np.arange(2 * rate_hz) / rate_hz)
    for level in np.geomspace(0.01, 1.0, 15):
        assert clipped_ratio((level * sine[None]).astype(np.float32)) == 0


def test_one_channel_counts_though_they_are_mixed(tmp_path: Path, limits: DecodeLimits) -> None:
    clipped = np.clip(3 * chord(44_100), -1, 1)
    path = write(tmp_path / "x.wav", np.stack([0.3 * clipped[::-1], 0.2 * chord(44_100)]), 44_100)
    share = float((np.abs(clipped) == 1).mean())
    assert measured(path, limits).ratio(0, SECONDS) == pytest.approx(share / 2, abs=0.01)


def test_it_shows_where_it_is(tmp_path: Path, limits: DecodeLimits) -> None:
    loud = np.where(np.arange(SECONDS * 44_100) < 2 * 44_100, 3.0, 0.3) * chord(44_100)
    found = measured(write(tmp_path / "x.flac", np.clip(loud, -1, 1)[None], 44_100), limits)
    step_s = STEP_SAMPLES / 44_100
    assert found.ratio(0, 2 - step_s) > 0.7
    assert found.ratio(2 + step_s, SECONDS) == 0
    assert 0.3 < found.ratio(1, 3) < 0.45
    assert found.ratio(SECONDS + 1, SECONDS + 2) == 0


@pytest.mark.parametrize("num_samples", [0, 1, 3, 50])
def test_too_little_to_tell_shows_none(num_samples: int) -> None:
    assert clipped_ratio(np.ones((2, num_samples), np.float32)) == 0


def test_nothing_is_measured_unasked(tmp_path: Path, limits: DecodeLimits) -> None:
    path = write(tmp_path / "x.wav", np.clip(3 * chord(44_100), -1, 1)[None], 44_100)
    with decode_blocks(path, limits=limits) as blocks:
        list(blocks)
    assert not len(blocks.clipping.shares)


@pytest.mark.parametrize("subtype", ["ULAW", "PCM_U8"])
@pytest.mark.parametrize("peak", [0.05, 0.1, 0.3, 0.9])
def test_quiet_sound_in_few_bits_shows_none(tmp_path: Path, limits: DecodeLimits, subtype: str, peak: float) -> None:
    """Its levels lie far apart: a window at one of them holds much, and those between hold nothing."""
    for name in ("music-opensurge-speed.ogg", "music-beatgame-laundry-room.ogg", "music-lofi-happy-lofi-day.ogg"):
        sound = decode_file(RECORDINGS / name, limits=limits, target_rate_hz=22_050, is_mono=True).waveform.samples[0]
        path = tmp_path / "few-bits.wav"
        soundfile.write(path, sound / np.abs(sound).max() * peak, 22_050, subtype=subtype)
        with decode_blocks(path, limits=limits, is_measured=True) as blocks:
            for _ in blocks:
                pass
        starts = np.arange(0.0, len(sound) / 22_050 - 3.0, 3.0)
        assert max(blocks.clipping.ratio(start, start + 3.0) for start in starts) < 0.02
