"""Every odd file decodes to its true duration, channels and rate, or is refused in words."""

import io
from pathlib import Path
from typing import TypedDict

import numpy as np
import pytest
import soundfile

from audiofoundation.audio.decode import DecodeLimits, decode, decode_blocks, decode_file
from audiofoundation.audio.encode import AudioFormat, encode
from audiofoundation.audio.waveform import Waveform
from audiofoundation.errors import DecodeFailed


class OriginalRow(TypedDict):
    file: Path
    expect_decodes: bool | str
    duration: float | None
    sample_rate: int
    channels: int
    codec: str
    container: str


# Durations that the manifest took from a guess or a header; these were counted.
TRUE_DURATION_S = {"librivox_p001.aac": 9.009, "truncated.mp3": 4.390, "truncated.flac": 3.243}
NO_SAMPLES = {"one_sample.wav"}  # despite its name its data chunk is empty


def test_original_decodes_or_is_refused_in_words(original_row: OriginalRow, limits: DecodeLimits) -> None:
    file = original_row["file"]
    if not original_row["expect_decodes"] or file.name in NO_SAMPLES:
        with pytest.raises(DecodeFailed) as refusal:
            decode(file.read_bytes(), limits=limits)
        assert len(refusal.value.message) > 20
        return

    decoded = decode(file.read_bytes(), limits=limits)

    duration_s = TRUE_DURATION_S.get(file.name) or original_row["duration"]
    assert duration_s is not None
    assert decoded.info.duration_s == pytest.approx(duration_s, abs=max(0.03, 0.01 * duration_s))
    assert decoded.waveform.duration_s == pytest.approx(decoded.info.duration_s, abs=1e-6)
    assert decoded.info.sample_rate_hz == decoded.waveform.sample_rate_hz == original_row["sample_rate"]
    assert decoded.info.num_channels == decoded.waveform.num_channels == original_row["channels"]
    assert decoded.info.codec == original_row["codec"]
    assert decoded.info.container == original_row["container"]
    assert np.isfinite(decoded.waveform.samples).all()
    assert (np.abs(decoded.waveform.samples).max() > 0.01) == ("silent" not in file.name)


def test_flac_damaged_in_its_last_frame_gives_what_came_before(originals: Path, limits: DecodeLimits) -> None:
    decoded = decode_file(originals / "librivox_p001.flac", limits=limits)

    assert decoded.info.duration_s == pytest.approx(8.986, abs=0.001)
    assert decoded.damage is not None
    assert decoded.damage.startswith("8.986 of 8.995 s were decoded")


@pytest.mark.parametrize("name", ["truncated.flac"])
def test_truncated_file_says_how_much_is_missing(name: str, originals: Path, limits: DecodeLimits) -> None:
    decoded = decode_file(originals / name, limits=limits)

    assert decoded.damage is not None
    assert "of 7.030 s" in decoded.damage


def test_without_samples_as_much_is_known(recordings: Path, originals: Path, limits: DecodeLimits) -> None:
    for path in (next(recordings.glob("*.mp3")), originals / "librivox_p001.flac", originals / "truncated.flac"):
        decoded = decode_file(path, limits=limits)

        with decode_blocks(path, limits=limits, max_channels=0) as blocks:
            assert list(blocks) == []
            assert (blocks.info, blocks.damage) == (decoded.info, decoded.damage)


def test_whole_files_report_no_damage(recordings: Path, limits: DecodeLimits) -> None:
    files = sorted(path for path in recordings.iterdir() if path.suffix != ".jsonl")

    damaged = [path.name for path in files if decode_file(path, limits=limits).damage]

    assert len(files) >= 20
    assert damaged == []


@pytest.mark.parametrize("riff_size", [0, 0x7FFE0000, 0xFFFFFFFF, 882_044 * 2])
def test_a_wav_whose_outer_size_is_wrong_is_whole(tmp_path: Path, riff_size: int, limits: DecodeLimits) -> None:
    path = tmp_path / "whole.wav"
    soundfile.write(path, np.zeros(44_100 * 5), 44_100, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[4:8] = riff_size.to_bytes(4, "little")
    path.write_bytes(data)
    decoded = decode_file(path, limits=limits)
    assert (decoded.waveform.duration_s, decoded.damage) == (5.0, None)


@pytest.mark.parametrize("data_size", [None, 0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_truncated_wav_says_so_unless_it_was_streamed(
    tmp_path: Path, data_size: int | None, limits: DecodeLimits
) -> None:
    path = tmp_path / "cut.wav"
    soundfile.write(path, np.zeros(44_100 * 5), 44_100, subtype="PCM_16")
    data = bytearray(path.read_bytes()[:88_244])
    if data_size is not None:
        data[40:44] = data_size.to_bytes(4, "little")
    path.write_bytes(data)

    decoded = decode_file(path, limits=limits)

    assert decoded.waveform.duration_s == 1.0
    expected = "1.000 of 5.000 s were decoded: the file ends before its header says."
    assert decoded.damage == (expected if data_size is None else None)


def test_truncated_mp3_with_xing_header_says_so(recordings: Path, limits: DecodeLimits) -> None:
    data = next(recordings.glob("*.mp3")).read_bytes()
    assert b"Xing" in data[:4096] or b"Info" in data[:4096]

    decoded = decode(data[: len(data) // 3], limits=limits)

    assert decoded.damage is not None
    assert 4 < decoded.info.duration_s < 6.5


def test_samples_equal_an_independent_reader(recordings: Path, limits: DecodeLimits) -> None:
    path = next(recordings.glob("*.flac"))
    expected, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)

    decoded = decode_file(path, limits=limits)

    assert decoded.waveform.sample_rate_hz == rate_hz
    np.testing.assert_array_equal(decoded.waveform.samples, expected.T)


def test_single_sample_decodes(limits: DecodeLimits) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.array([0.5], np.float32), 48000, format="WAV")

    decoded = decode(buffer.getvalue(), limits=limits)

    assert decoded.waveform.samples.tolist() == [[0.5]]


def test_blocks_join_to_the_whole(recordings: Path, limits: DecodeLimits) -> None:
    path = next(recordings.glob("*.flac"))
    whole = decode_file(path, limits=limits, target_rate_hz=16000, is_mono=True)

    with decode_blocks(path, limits=limits, target_rate_hz=16000, max_channels=1, block_s=0.7) as stream:
        blocks = list(stream)

    assert {block.num_samples for block in blocks[:-1]} == {11200}
    np.testing.assert_array_equal(np.hstack([block.samples for block in blocks]), whole.waveform.samples)
    assert stream.info == whole.info


@pytest.mark.parametrize("name", ["music-boomboxhead-ripper.flac", "*.ogg", "*.mp3"])
def test_blocks_as_they_come_join_to_the_whole(name: str, recordings: Path, limits: DecodeLimits) -> None:
    path = next(recordings.rglob(name))
    whole = decode_file(path, limits=limits, target_rate_hz=96000)

    with decode_blocks(path, limits=limits, target_rate_hz=96000, block_s=None) as stream:
        blocks = list(stream)

    assert len(blocks) > 1
    np.testing.assert_array_equal(np.hstack([block.samples for block in blocks]), whole.waveform.samples)
    assert stream.info == whole.info


def test_mono_at_another_rate_equals_mixing_and_resampling_afterwards(recordings: Path, limits: DecodeLimits) -> None:
    from audiofoundation.audio.resample import resample

    path = next(recordings.glob("*.flac"))
    expected = resample(decode_file(path, limits=limits).waveform.to_mono(), 16000)

    decoded = decode_file(path, limits=limits, target_rate_hz=16000, is_mono=True)

    np.testing.assert_allclose(decoded.waveform.samples, expected.samples, atol=1e-6)


def test_streamed_wav_with_placeholder_length_is_neither_damaged_nor_too_long(limits: DecodeLimits) -> None:
    from audiofoundation.audio.encode import create_encoder

    encoder = create_encoder(AudioFormat.WAV, sample_rate_hz=24000, num_channels=1)
    data = encoder.push(np.full((1, 24000), 0.25, np.float32)) + encoder.finish()

    decoded = decode(data, limits=limits)

    assert decoded.waveform.num_samples == 24000
    assert decoded.damage is None


def test_values_that_are_no_numbers_become_silence_and_are_reported(limits: DecodeLimits) -> None:
    samples = np.full(4800, 0.5, np.float32)
    samples[100] = np.nan
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 48000, format="WAV", subtype="FLOAT")

    decoded = decode(buffer.getvalue(), limits=limits)

    assert decoded.waveform.samples[0, 100] == 0
    assert decoded.damage is not None


def test_flac_behind_an_id3_tag_decodes(limits: DecodeLimits) -> None:
    waveform = Waveform(np.full((1, 2400), 0.25, np.float32), 24000)
    tag = b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10)

    decoded = decode(tag + encode(waveform, AudioFormat.FLAC), limits=limits)

    assert decoded.waveform.num_samples == 2400


@pytest.mark.parametrize("name", ["six.flac", "six.wav"])  # the second does not name its channels
def test_of_surround_sound_the_sides_stay_apart(name: str, tmp_path: Path, limits: DecodeLimits) -> None:
    sides = np.random.default_rng(0).uniform(-0.5, 0.5, (6, 24_000)).astype(np.float32)  # FL FR FC LFE BL BR
    soundfile.write(tmp_path / name, sides.T, 24_000, subtype="PCM_24")

    with decode_blocks(tmp_path / name, limits=limits, max_channels=2) as stream:
        blocks = list(stream)

    assert stream.info is not None
    assert stream.info.num_channels == 6
    (found,) = blocks
    middle = (sides[2] + sides[3]) / 2
    expected = np.stack([sides[0] + sides[4] + middle, sides[1] + sides[5] + middle]) / 3
    np.testing.assert_allclose(found.samples, expected, atol=1e-6)


@pytest.mark.parametrize("num_channels", [1, 2])
def test_at_most_two_channels_leaves_one_and_two_alone(num_channels: int, tmp_path: Path, limits: DecodeLimits) -> None:
    sides = np.random.default_rng(0).uniform(-0.5, 0.5, (num_channels, 24_000)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", sides.T, 24_000, subtype="FLOAT")

    with decode_blocks(tmp_path / "a.wav", limits=limits, max_channels=2) as stream:
        np.testing.assert_array_equal(np.hstack([block.samples for block in stream]), sides)
