"""The compiled reader and PyAV's give the same of every file, whole or damaged."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from audiofoundation.audio.clipping import STEP_SAMPLES
from audiofoundation.audio.magic import recognise
from audiofoundation.audio.sandbox import libav, opening, pyav
from audiofoundation.audio.sandbox.opening import MediaRefused, Recording
from audiofoundation.audio.waveform import Samples, mix_to_mono
from audiofoundation.errors import DecodeFailed
from audiofoundation.native import compiled

READERS: tuple[type, ...] = (libav.LibavRecording, pyav.PyAvRecording)
NUM_SPOILT = 6
needs_compiled = pytest.mark.skipif(compiled() is None, reason="the reader is not compiled here")


@pytest.fixture(params=READERS, ids=["compiled", "pyav"])
def reader(request: pytest.FixtureRequest) -> type:
    if request.param is libav.LibavRecording and compiled() is None:
        pytest.skip("the reader is not compiled here")
    assert request.param is pyav.PyAvRecording or libav.is_usable()  # which loads it
    found: type = request.param
    return found


@pytest.fixture
def open_file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "input", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def put(fd: int, data: bytes) -> int:
    os.ftruncate(fd, 0)
    os.pwrite(fd, data, 0)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def samples_of(recording: Recording) -> Samples:
    return np.concatenate([block.copy() for block in recording.blocks()], axis=1)


def everything(reader: type, fd: int, demuxer: str, *, is_mixed: bool) -> tuple[object, bytes]:
    """All that a reader tells of a file, and its samples' bytes."""
    os.lseek(fd, 0, os.SEEK_SET)
    try:
        with reader(fd, demuxer, num_values=1 << 15, is_mixed=is_mixed) as recording:
            blocks = [block.tobytes("F") for block in recording.blocks()]
            if not blocks:
                return recording.damage, b""
            form = (recording.codec, recording.sample_rate_hz, recording.num_channels, recording.channel_names())
            seconds = None if recording.declared_s is None else round(recording.declared_s, 6)
            return (form, seconds, recording.damage), b"".join(blocks)
    except MediaRefused as refusal:
        return (refusal.kind, str(refusal)), b""


def spoilt(data: bytes, seed: int) -> Iterator[bytes]:
    """The data cut off somewhere, and with some of its bytes changed, the first ones more often."""
    chance = random.Random(seed)
    for number in range(NUM_SPOILT):
        yield data[: chance.randrange(len(data))]
        changed = bytearray(data)
        for _ in range((1, 10, 200)[number % 3]):
            within = min(200, len(data)) if chance.random() < 0.3 else len(data)
            changed[chance.randrange(within)] = chance.randrange(256)
        yield bytes(changed)


@needs_compiled
def test_both_readers_give_the_same(original_row: dict[str, Path], open_file: int) -> None:
    assert libav.is_usable(), "the wheel of PyAV that is installed is not the one that libav.c knows"
    data = original_row["file"].read_bytes()
    try:
        demuxer = recognise(data[:65536]).demuxer
    except DecodeFailed:
        return  # no reader gets to see it

    for seed, version in enumerate([data, *spoilt(data, len(data))]):
        put(open_file, version)
        for is_mixed in (False, True):
            ours, theirs = (everything(reader, open_file, demuxer, is_mixed=is_mixed) for reader in READERS)
            assert ours[0] == theirs[0], seed
            if seed and has_stale_channels(ours[0]):
                assert len(ours[1]) == len(theirs[1]), seed
            else:
                assert ours[1] == theirs[1], seed


def has_stale_channels(told: object) -> bool:
    """Where a channel of AAC is damaged, libav leaves in it what its buffer held before."""
    return isinstance(told, tuple) and told[0][0] == "aac" and told[0][2] > 2


@needs_compiled
@pytest.mark.parametrize("num_channels", [1, 2, 6])
@pytest.mark.parametrize("smear", [0.0, 0.03])
def test_both_readers_measure_the_same_clipping(
    open_file: int, tmp_path: Path, num_channels: int, smear: float
) -> None:
    assert libav.is_usable()
    chance = np.random.default_rng(0)
    smooth = np.cumsum(chance.standard_normal((100_000, num_channels)), axis=0)
    smooth -= np.convolve(smooth[:, 0], np.ones(400) / 400, "same")[:, None]
    clipped = np.clip(0.2 * smooth, -1, 1) + smear * chance.standard_normal(smooth.shape)
    soundfile.write(tmp_path / "x.wav", clipped, 44_100, subtype="FLOAT")
    put(open_file, (tmp_path / "x.wav").read_bytes())

    found: list[list[float]] = []
    for reader in READERS:
        os.lseek(open_file, 0, os.SEEK_SET)
        with reader(open_file, "wav", num_values=1 << 15, is_mixed=True, is_measured=True) as recording:
            assert samples_of(recording).shape == (1, 100_000)
            found.append(recording.clipped_shares)

    assert len(found[0]) == len(found[1]) == -(-100_000 // STEP_SAMPLES)
    assert max(found[0]) > 0.1
    # Where a frame ends within three samples, ours sees one less in a thousand.
    assert found[0] == pytest.approx(found[1], abs=3e-3)


@needs_compiled
@pytest.mark.parametrize(("position", "value"), [(209, 86), (105, 230)])
def test_a_damaged_beginning_costs_no_more_than_itself(
    position: int, value: int, originals: Path, open_file: int
) -> None:
    """The decoder gives a frame of the first packet and then fails in it: PyAV drops that frame, we keep it."""
    assert libav.is_usable()
    data = bytearray((originals / "librivox_p001.aac").read_bytes())
    data[position] = value
    put(open_file, bytes(data))

    ours, theirs = (everything(reader, open_file, "aac", is_mixed=True) for reader in READERS)

    assert ours[0] == theirs[0]
    assert len(theirs[1]) > 4 * 390_000
    assert len(ours[1]) == len(theirs[1]) + 4 * 1024
    assert ours[1].endswith(theirs[1][4096:])


@pytest.mark.parametrize(
    ("container", "codec", "fmt"),
    [
        ("mov", "alac", "s32p"),
        ("mov", "alac", "s16p"),
        ("matroska", "wavpack", "fltp"),
        ("caf", "pcm_f64le", "dbl"),
        ("wav", "pcm_s64le", "s64"),
        ("voc", "pcm_u8", "u8"),
    ],
)
def test_sample_formats_of_other_containers(
    container: str, codec: str, fmt: str, reader: type, open_file: int, tmp_path: Path
) -> None:
    values = np.linspace(-0.75, 0.75, 9600, dtype=np.float32)
    tone = np.stack([values, -values])
    with av.open(tmp_path / "a", "w", format=container) as out:
        stream = out.add_stream(codec, rate=48000, layout="stereo", format=fmt)
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="stereo")
        frame.sample_rate = 48000
        size = stream.codec_context.frame_size or 4800
        for part in av.AudioResampler(format=fmt, layout="stereo", rate=48000, frame_size=size).resample(frame):
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))

    with reader(put(open_file, (tmp_path / "a").read_bytes()), container, num_values=1000, is_mixed=False) as found:
        samples = samples_of(found)

    assert found.codec == codec
    count = samples.shape[1]
    assert count > 4000
    np.testing.assert_allclose(samples, tone[:, :count], atol=2**-7 if fmt == "u8" else 2**-14)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("num_channels", [1, 2, 6])
def test_every_sample_format_keeps_full_scale(
    subtype: str, num_channels: int, reader: type, open_file: int, tmp_path: Path
) -> None:
    samples = np.random.default_rng(3).uniform(-0.9, 0.9, (num_channels, 5000)).astype(np.float32)
    samples[:, :2] = [-1.0, 0.5]
    soundfile.write(tmp_path / "a.wav", samples.T, 44100, subtype=subtype)
    put(open_file, (tmp_path / "a.wav").read_bytes())
    step = {"PCM_U8": 2**-7, "PCM_16": 2**-15, "PCM_24": 2**-23}.get(subtype, 2**-24)

    with reader(open_file, "wav", num_values=1000, is_mixed=False) as recording:
        whole = samples_of(recording)
        assert (recording.sample_rate_hz, recording.num_channels, recording.damage) == (44100, num_channels, None)
    os.lseek(open_file, 0, os.SEEK_SET)
    with reader(open_file, "wav", num_values=1000, is_mixed=True) as recording:
        mean = samples_of(recording)

    np.testing.assert_allclose(whole, samples, atol=step)
    np.testing.assert_array_equal(mean, mix_to_mono(whole))


@pytest.mark.parametrize("nonsense", [np.nan, np.inf, -np.inf, 1e20, -2e6])
@pytest.mark.parametrize("is_mixed", [False, True])
def test_samples_that_are_no_sound_are_silenced_in_their_channel(
    nonsense: float, is_mixed: bool, reader: type, open_file: int, tmp_path: Path
) -> None:
    samples = np.random.default_rng(5).standard_normal((2, 9000)).astype(np.float32)
    spoilt = samples.copy()
    spoilt[1, 5000] = nonsense
    samples[1, 5000] = 0.0
    soundfile.write(tmp_path / "a.wav", spoilt.T, 48000, subtype="FLOAT")

    with reader(put(open_file, (tmp_path / "a.wav").read_bytes()), "wav", num_values=999, is_mixed=is_mixed) as found:
        np.testing.assert_array_equal(samples_of(found), mix_to_mono(samples) if is_mixed else samples)
        assert found.damage == opening.NONSENSE


@needs_compiled
def test_what_it_is_asked_wrongly_is_refused(open_file: int, recordings: Path) -> None:
    native = compiled()
    assert native is not None
    assert libav.is_usable()
    data = next(recordings.rglob("*.flac")).read_bytes()
    block, none = np.empty(1000, np.float32), np.empty(0, np.float32)
    handle = native.libav_open(put(open_file, data), "flac", ())[0]

    with pytest.raises(ValueError, match="started"):
        native.libav_read(handle, block, True, 1.0, none)
    native.libav_start(handle)
    with pytest.raises(ValueError, match="started"):
        native.libav_start(handle)
    with pytest.raises(ValueError, match="no room"):
        native.libav_read(handle, block[:0], True, 1.0, none)
    with pytest.raises(ValueError, match="no room"):
        native.libav_read(handle, np.empty(STEP_SAMPLES + 1, np.float32), True, 1.0, np.empty(1, np.float32))
    with pytest.raises(ValueError, match="PyCapsule"):
        native.libav_read(object(), block, True, 1.0, none)
    with pytest.raises(OSError, match="Invalid argument"):
        native.libav_open(open_file, "no such demuxer", ())
    with pytest.raises(OSError, match="Invalid argument"):
        native.libav_open(put(open_file, data), "flac", (("no_such_wall", "none"),))


def tried(change: str) -> str:
    """What a process of its own finds, since libraries once loaded stay."""
    code = f"from audiofoundation.audio.sandbox import libav, media\n{change}\nprint(media._reader().__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


@needs_compiled
@pytest.mark.parametrize(
    "change",
    [
        "libav._libraries = lambda: None",
        "known = libav._libraries(); libav._libraries = lambda: known[::-1]",
        "libav._libraries = lambda: (b'/nonexistent\\xff',) * 3",
        "libav._MAJORS = (62, 62, 61)",
        "libav._KNOWN_CHANNELS = ('FL', 'FR', 'FC')",
        "libav._reads_what_is_known = lambda: __import__('os').abort()",
        "libav._reads_what_is_known = lambda: [][0]",
    ],
    ids=["none", "swapped", "no path", "another version", "other channels", "a crash", "a mistake"],
)
def test_what_is_not_known_is_left_to_pyav(change: str) -> None:
    assert tried(change) == "PyAvRecording"


@needs_compiled
def test_what_is_known_is_read_by_compiled_code() -> None:
    assert tried("pass") == "LibavRecording"
