"""What we write, independent readers read, with the right length, rate and sound."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from audiofoundation.audio.decode import DecodeLimits, decode, decode_file
from audiofoundation.audio.encode import AudioFormat, create_encoder, encode
from audiofoundation.audio.encoders.ogg_opus import ogg_checksum
from audiofoundation.audio.encoders.stream_encoder import to_int16
from audiofoundation.audio.waveform import Samples, Waveform
from audiofoundation.errors import InvalidRequest

LIMITS = DecodeLimits(max_duration_s=600, max_bytes=100 << 20)
LOSSLESS = [AudioFormat.WAV, AudioFormat.FLAC]
LOSSY = [AudioFormat.MP3, AudioFormat.OPUS]


def chord(num_samples: int, rate_hz: int, num_channels: int = 1) -> Waveform:
    time_s = np.arange(num_samples) / rate_hz
    channels = [0.3 * np.sin(2 * np.pi * 330 * (n + 1) * time_s) for n in range(num_channels)]
    return Waveform(np.array(channels, np.float32), rate_hz)


def stream(waveform: Waveform, fmt: AudioFormat, *, block: int, is_length_known: bool) -> bytes:
    encoder = create_encoder(
        fmt,
        sample_rate_hz=waveform.sample_rate_hz,
        num_channels=waveform.num_channels,
        num_samples=waveform.num_samples if is_length_known else None,
    )
    starts = range(0, waveform.num_samples, block)
    return b"".join(encoder.push(waveform.samples[:, at : at + block]) for at in starts) + encoder.finish()


def correlation(left: Samples, right: Samples) -> float:
    return float(np.corrcoef(left, right)[0, 1])


@pytest.mark.parametrize("fmt", [*LOSSLESS, *LOSSY])
@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000, 44100, 48000, 96000])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_libsndfile_reads_the_length_and_the_sound(fmt: AudioFormat, rate_hz: int, num_channels: int) -> None:
    waveform = chord(rate_hz + 123, rate_hz, num_channels)

    samples, found_hz = soundfile.read(io.BytesIO(encode(waveform, fmt)), dtype="float32", always_2d=True)

    assert samples.shape[1] == num_channels
    assert len(samples) / found_hz == pytest.approx(waveform.duration_s, abs=1.5 / rate_hz)
    if found_hz == rate_hz:
        assert correlation(samples[:, 0], waveform.samples[0]) > 0.999


@pytest.mark.parametrize("fmt", [*LOSSLESS, *LOSSY])
@pytest.mark.parametrize("num_samples", [1, 575, 577, 2000, 24000 * 3 + 123])
def test_stream_equals_the_whole_and_decodes_to_its_length(fmt: AudioFormat, num_samples: int) -> None:
    waveform = chord(num_samples, 24000)
    whole = encode(waveform, fmt)

    streamed = stream(waveform, fmt, block=997, is_length_known=True)

    assert streamed == whole
    decoded = decode(whole, limits=LIMITS)
    assert decoded.damage is None
    if fmt is not AudioFormat.MP3 or num_samples > 1:  # a decoder's delay is longer than one sample
        assert decoded.info.duration_s * 24000 == pytest.approx(num_samples, abs=1)


@pytest.mark.parametrize("fmt", [AudioFormat.WAV, AudioFormat.FLAC, AudioFormat.OPUS])
def test_stream_of_unknown_length_decodes_to_its_length(fmt: AudioFormat) -> None:
    waveform = chord(50001, 24000)

    decoded = decode(stream(waveform, fmt, block=997, is_length_known=False), limits=LIMITS)

    assert decoded.info.duration_s == pytest.approx(waveform.duration_s, abs=1 / 24000)
    assert decoded.damage is None


def test_mp3_of_unknown_length_is_longer_by_delay_and_padding_only() -> None:
    waveform = chord(50001, 24000)

    decoded = decode(stream(waveform, AudioFormat.MP3, block=997, is_length_known=False), limits=LIMITS)

    assert 0 <= decoded.info.duration_s - waveform.duration_s < 0.1


def test_streamed_wav_of_unknown_length_is_read_by_libsndfile() -> None:
    waveform = chord(24000, 24000)

    samples, _ = soundfile.read(io.BytesIO(stream(waveform, AudioFormat.WAV, block=100, is_length_known=False)))

    assert len(samples) == 24000


def test_every_real_recording_is_read_back_from_our_opus_by_libsndfile(recordings: Path) -> None:
    for path in sorted(recordings.glob("*")):
        if path.suffix == ".jsonl":
            continue
        waveform = decode_file(path, limits=LIMITS).waveform
        samples, rate_hz = soundfile.read(io.BytesIO(encode(waveform, AudioFormat.OPUS)), always_2d=True)
        assert len(samples) / rate_hz == pytest.approx(waveform.duration_s, abs=1e-4), path.name
        peers = min(len(samples), waveform.num_samples)
        assert correlation(samples[:peers, 0], waveform.samples[0, :peers]) > 0.9, path.name


@settings(max_examples=25, deadline=None)
@given(
    fmt=st.sampled_from(LOSSLESS),
    rate_hz=st.sampled_from([8000, 22050, 24000, 44100]),
    num_channels=st.integers(1, 4),
    num_samples=st.integers(1, 9000),
    seed=st.integers(0, 1000),
)
def test_lossless_round_trip_gives_the_16_bit_samples(
    fmt: AudioFormat, rate_hz: int, num_channels: int, num_samples: int, seed: int
) -> None:
    values = np.random.default_rng(seed).integers(-32768, 32768, (num_channels, num_samples), dtype=np.int16)
    waveform = Waveform(values.astype(np.float32) / np.float32(32768), rate_hz)

    decoded = decode(encode(waveform, fmt), limits=LIMITS)

    assert decoded.waveform.sample_rate_hz == rate_hz
    np.testing.assert_array_equal(decoded.waveform.samples, waveform.samples)


@settings(max_examples=15, deadline=None)
@given(
    fmt=st.sampled_from(LOSSY),
    rate_hz=st.sampled_from([8000, 16000, 24000, 44100, 48000]),
    num_samples=st.integers(600, 30000),
    block=st.integers(1, 5000),
)
def test_lossy_round_trip_keeps_length_and_sound(fmt: AudioFormat, rate_hz: int, num_samples: int, block: int) -> None:
    waveform = chord(num_samples, rate_hz)

    decoded = decode(stream(waveform, fmt, block=block, is_length_known=True), limits=LIMITS, target_rate_hz=rate_hz)

    assert decoded.waveform.num_samples == pytest.approx(num_samples, abs=1)
    peers = min(decoded.waveform.num_samples, num_samples)
    assert correlation(decoded.waveform.samples[0, :peers], waveform.samples[0, :peers]) > 0.95


def test_int16_rounds_and_clips() -> None:
    samples = np.array([[0.0, 1.0, -1.0, 2.0, -2.0, 0.6 / 32768, -0.6 / 32768, np.nan, np.inf]], np.float32)

    assert to_int16(samples).tolist() == [[0, 32767, -32768, 32767, -32768, 1, -1, 0, 32767]]


def test_pcm_is_bare_interleaved_little_endian() -> None:
    waveform = Waveform(np.array([[0.5, 0.0], [-0.5, 1.0]], np.float32), 24000)

    assert encode(waveform, AudioFormat.PCM) == np.array([16384, -16384, 0, 32767], "<i2").tobytes()


@pytest.mark.parametrize("fmt", LOSSY)
def test_formats_refuse_channels_they_cannot_hold(fmt: AudioFormat) -> None:
    with pytest.raises(InvalidRequest, match="channels"):
        create_encoder(fmt, sample_rate_hz=24000, num_channels=3)


def test_opus_comes_out_while_samples_go_in() -> None:
    encoder = create_encoder(AudioFormat.OPUS, sample_rate_hz=24000, num_channels=1)

    sizes = [len(encoder.push(np.zeros((1, 2400), np.float32))) for _ in range(20)]

    assert sum(size > 0 for size in sizes[:5]) >= 2


def test_ogg_checksum_is_that_of_ogg() -> None:
    """A page of a file that libogg wrote carries its own proof."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(2400), 24000, format="OGG", subtype="VORBIS")
    page = buffer.getvalue()[: buffer.getvalue().index(b"OggS", 4)]

    assert ogg_checksum(page[:22] + bytes(4) + page[26:]) == int.from_bytes(page[22:26], "little")


@pytest.mark.parametrize("fmt", list(AudioFormat))
def test_content_types_are_audio(fmt: AudioFormat) -> None:
    assert fmt.content_type.startswith("audio/")
