"""What keeps a reader from opening anything but the descriptor it was given: each wall alone, without the sandbox."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from audiofoundation.audio.sandbox import libav, opening, pyav
from audiofoundation.audio.sandbox.opening import MediaRefused
from audiofoundation.native import compiled

needs_compiled = pytest.mark.skipif(compiled() is None, reason="the reader is not compiled here")


@pytest.fixture
def open_file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "input", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("reader", [libav.LibavRecording, pyav.PyAvRecording])
@pytest.mark.parametrize("demuxer", ["hls", "concat", "dash", "sdp", "image2", "lavfi"])
def test_demuxers_that_open_other_files_are_refused(demuxer: str, reader: type, open_file: int) -> None:
    with pytest.raises(MediaRefused, match="container"):
        reader(open_file, demuxer, num_values=1000, is_mixed=False)


@needs_compiled
@pytest.mark.parametrize("scheme", ["", "file:", "concat:", "subfile,,start,0,end,9999,,:"])
def test_the_lists_alone_keep_other_files_closed(scheme: str, open_file: int, recordings: Path) -> None:
    """As if the demuxer were the attacker's choice: what a playlist names is not opened, for two reasons."""
    native = compiled()
    assert native is not None
    assert libav.is_usable()
    os.write(open_file, f"ffconcat version 1.0\nfile '{scheme}{next(recordings.rglob('*.flac'))}'\n".encode())
    walls = dict(opening.options("wav"))
    no_formats = {"format_whitelist": "concat,flac", "safe": "0"}
    no_protocols = {"protocol_whitelist": "file,concat,subfile"}

    for left in (walls | {"safe": "0"}, walls | no_protocols | {"safe": "0"}, walls | no_formats):
        os.lseek(open_file, 0, os.SEEK_SET)
        with pytest.raises(OSError, match="Invalid"):
            native.libav_open(open_file, "concat", tuple(left.items()))

    os.lseek(open_file, 0, os.SEEK_SET)
    assert native.libav_open(open_file, "concat", tuple((walls | no_formats | no_protocols).items()))[2] == "flac"


def write_tone(path: Path) -> None:
    samples = (9000 * np.sin(0.05 * np.arange(48000))).astype(np.int16)
    with av.open(path, "w", format="mov") as out:
        stream = out.add_stream("pcm_s16le", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 48000
        for part in (frame, None):
            out.mux(stream.encode(part))


def with_alias(movie: bytes, target: str) -> bytes:
    """The movie with an alias in its table of references: its samples lie in the file `target`."""
    path = target.encode() + bytes(len(target) % 2)
    volume, name = b"\1" + b"v".ljust(27, b"\0"), b"\1" + b"f".ljust(63, b"\0")
    alias = bytes(10) + volume + bytes(12) + name + bytes(16 + 4 + 16)
    alias += struct.pack(">HH", 2, len(path)) + path + struct.pack(">HH", 0xFFFF, 0)
    references = struct.pack(">III4sI", 0, 1, 12 + len(alias), b"alis", 0) + alias

    def rebuilt(boxes: bytes) -> bytes:
        out = b""
        while boxes:
            size, kind = struct.unpack_from(">I4s", boxes)
            inner, boxes = boxes[8:size], boxes[size:]
            if kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
                inner = rebuilt(inner)
            inner = references if kind == b"dref" else inner
            out += struct.pack(">I4s", 8 + len(inner), kind) + inner
        return out

    return rebuilt(movie)


@needs_compiled
def test_the_opener_alone_keeps_other_files_closed(open_file: int, tmp_path: Path) -> None:
    """A movie whose samples lie elsewhere, every other wall down: they are not read."""
    native = compiled()
    assert native is not None
    assert libav.is_usable()
    write_tone(tmp_path / "secret.mov")
    movie = with_alias((tmp_path / "secret.mov").read_bytes(), str(tmp_path / "secret.mov"))
    (tmp_path / "alias.mov").write_bytes(movie)
    os.write(open_file, movie)
    os.lseek(open_file, 0, os.SEEK_SET)
    down = {"enable_drefs": "1", "use_absolute_path": "1"}

    handle = native.libav_open(open_file, "mov", tuple(down.items()))[0]

    assert native.libav_start(handle) is None, "there is sound, though none lies in this file"
    with av.open(tmp_path / "alias.mov", options=down) as followed:
        assert sum(frame.samples for frame in followed.decode(audio=0)) == 48000  # the trap is one
