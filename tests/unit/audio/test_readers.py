"""The compiled reader and PyAV's give the same of every file, whole or damaged, and open nothing but that file."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiofoundation.audio.magic import recognise
from audiofoundation.audio.sandbox import libav, opening, pyav
from audiofoundation.audio.sandbox.opening import MediaRefused, Recording
from audiofoundation.audio.waveform import Samples, mix_to_mono
from audiofoundation.errors import DecodeFailed
from audiofoundation.native import compiled, is_compiled

READERS: tuple[type, ...] = (libav.LibavRecording, pyav.PyAvRecording)
NUM_SPOILT = 6
needs_compiled = pytest.mark.skipif(not is_compiled(), reason="the reader is not compiled here")


@pytest.fixture(params=READERS, ids=["compiled", "pyav"])
def reader(request: pytest.FixtureRequest) -> type:
    if request.param is libav.LibavRecording and not libav.is_usable():
        pytest.skip("the reader is not compiled here")
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
            assert ours[1] == theirs[1], seed


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


@pytest.mark.parametrize("demuxer", ["hls", "concat", "dash", "sdp", "image2", "lavfi"])
def test_demuxers_that_open_other_files_are_refused(demuxer: str, reader: type, open_file: int) -> None:
    with pytest.raises(MediaRefused, match="container"):
        reader(put(open_file, b"#EXTM3U"), demuxer, num_values=1000, is_mixed=False)


@needs_compiled
@pytest.mark.parametrize("scheme", ["", "file:", "concat:", "subfile,,start,0,end,9999,,:"])
def test_the_protocol_list_alone_keeps_other_files_closed(scheme: str, open_file: int, recordings: Path) -> None:
    """As if the demuxer were the attacker's choice and its list were down: what a playlist names is not opened."""
    native = compiled()
    assert native is not None
    assert libav.is_usable()
    secret = next(recordings.rglob("*.flac"))
    put(open_file, f"ffconcat version 1.0\nfile '{scheme}{secret}'\n".encode())
    walls = dict(opening.options("wav"))
    down = {"safe": "0", "format_whitelist": "concat,flac"}

    with pytest.raises(OSError, match="Invalid argument"):
        native.libav_open(open_file, "concat", tuple((walls | down).items()))

    os.lseek(open_file, 0, os.SEEK_SET)
    open_all = {"protocol_whitelist": "file,concat,subfile"}
    assert native.libav_open(open_file, "concat", tuple((walls | down | open_all).items()))[2] == "flac"


@needs_compiled
def test_what_it_is_asked_wrongly_is_refused(open_file: int, recordings: Path) -> None:
    native = compiled()
    assert native is not None
    assert libav.is_usable()
    data = next(recordings.rglob("*.flac")).read_bytes()
    block = np.empty(1000, np.float32)
    handle = native.libav_open(put(open_file, data), "flac", ())[0]

    with pytest.raises(ValueError, match="started"):
        native.libav_read(handle, block, True, 1.0)
    native.libav_start(handle)
    with pytest.raises(ValueError, match="started"):
        native.libav_start(handle)
    with pytest.raises(ValueError, match="no room"):
        native.libav_read(handle, block[:0], True, 1.0)
    with pytest.raises(ValueError, match="PyCapsule"):
        native.libav_read(object(), block, True, 1.0)
    with pytest.raises(OSError, match="Invalid argument"):
        native.libav_open(open_file, "no such demuxer", ())
    with pytest.raises(ImportError):
        native.libav_load("/nonexistent", "/nonexistent", "/nonexistent")


def with_libraries(paths: tuple[str, str, str] | None, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(libav, "_libraries", lambda: paths)
    libav.is_usable.cache_clear()
    try:
        return libav.is_usable()
    finally:
        libav.is_usable.cache_clear()


@needs_compiled
def test_other_libraries_than_the_known_ones_are_left_to_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    known = libav._libraries()
    assert known is not None
    assert with_libraries(known, monkeypatch)
    assert not with_libraries(None, monkeypatch)
    assert not with_libraries((known[2], known[1], known[0]), monkeypatch)
