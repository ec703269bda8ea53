"""Playlists, bombs and broken files: refused fast and in words; nothing of ours is read."""

import http.server
import io
import resource
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiofoundation.audio.decode import DecodeLimits, decode, decode_blocks, decode_file
from audiofoundation.audio.encode import AudioFormat, encode
from audiofoundation.audio.magic import recognise
from audiofoundation.audio.sandbox import client, media, protocol
from audiofoundation.audio.sandbox.formats import DEMUXERS
from audiofoundation.audio.waveform import Waveform
from audiofoundation.errors import AudioFoundationError, AudioTooLong, DecodeFailed, PayloadTooLarge

MONO = protocol.pack(protocol.INFO, protocol.StreamInfo("wav", "pcm", 24000, 1, 24000, 1))

TONE = Waveform(
    (0.3 * np.sin(np.arange(48000) * 0.05)).astype(np.float32)[None],
    24000,
)


@pytest.fixture(scope="module")
def visits() -> Iterator[tuple[str, list[str]]]:
    """A loopback server's address, and the paths that anybody asked it for."""
    paths: list[str] = []

    class Canary(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Canary)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/a.wav", paths
    server.shutdown()
    thread.join()
    server.server_close()


def hostile_texts(secret: Path, address: str) -> dict[str, str]:
    head = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n"
    return {
        "hls-file": f"{head}file://{secret}\n#EXT-X-ENDLIST\n",
        "hls-path": f"{head}{secret}\n#EXT-X-ENDLIST\n",
        "hls-http": f"{head}{address}\n#EXT-X-ENDLIST\n",
        "subfile": f"{head}subfile,,start,0,end,48000,,:{secret}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{secret}'\nfile '{address}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 49170 RTP/AVP 0\n",
        "dash": f'<?xml version="1.0"?><MPD type="static"><Period><BaseURL>{address}</BaseURL></Period></MPD>',
        "asx": f'<asx version="3.0"><entry><ref href="{address}"/></entry></asx>',
    }


@pytest.mark.parametrize("name", list(hostile_texts(Path("/x"), "")))
def test_playlist_is_refused_in_words(
    name: str, tmp_path: Path, visits: tuple[str, list[str]], limits: DecodeLimits
) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(encode(TONE, AudioFormat.WAV))
    text = hostile_texts(secret, visits[0])[name].encode()

    with pytest.raises(DecodeFailed, match="This is "):
        decode(text, limits=limits)

    assert visits[1] == []


@pytest.mark.parametrize("demuxer", ["hls", "concat", "sdp", "dash", *sorted(DEMUXERS)])
@pytest.mark.parametrize("name", ["hls-path", "concat"])
def test_playlist_behind_a_false_magic_reads_nothing(
    name: str,
    demuxer: str,
    tmp_path: Path,
    visits: tuple[str, list[str]],
    limits: DecodeLimits,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even with the first wall down, when the demuxer is the attacker's choice, the child gives nothing."""
    from audiofoundation.audio import decode as module
    from audiofoundation.audio.magic import Container

    secret = tmp_path / "secret.wav"
    secret.write_bytes(encode(TONE, AudioFormat.WAV))
    text = hostile_texts(secret, visits[0])[name].encode()
    monkeypatch.setattr(module, "recognise", lambda _: Container(demuxer, "a trap"))

    # MPEG audio demuxers look for frames in anything; what they may find in text is not the tone.
    try:
        decoded = decode(text, limits=limits)
    except DecodeFailed:
        pass
    else:
        assert decoded.waveform.num_samples < TONE.num_samples / 10

    assert visits[1] == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"just some words\n", "This is text"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        ("\ufeff<html>".encode(), "HTML"),
        ("text in UTF-16, as Windows writes it".encode("utf-16"), "This is text"),
        (b'{"a": 1}', "JSON"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        (b"PK\x03\x04\x14\x00", "ZIP"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "JPEG"),
        (b"MThd\x00\x00\x00\x06", "MIDI"),
        (bytes(1000), "unknown kind"),
        (bytes(range(1, 32)) * 20, "unknown kind"),
    ],
)
def test_refusal_says_what_the_bytes_are(data: bytes, words: str, limits: DecodeLimits) -> None:
    with pytest.raises(DecodeFailed, match=words):
        decode(data, limits=limits)


def silent_flac(hours: float) -> bytes:
    buffer = io.BytesIO()
    form = {"samplerate": 8000, "channels": 1, "subtype": "PCM_16", "compression_level": 0.0}
    with soundfile.SoundFile(buffer, "w", format="FLAC", **form) as out:
        for _ in range(round(60 * hours)):
            out.write(np.zeros(8000 * 60, np.int16))
    return buffer.getvalue()


def without_stated_length(flac: bytes) -> bytes:
    """The same FLAC with 0 (unknown) as its total number of samples."""
    fields = int.from_bytes(flac[8:42], "big") & ~(((1 << 36) - 1) << 128)
    return flac[:8] + fields.to_bytes(34, "big") + flac[42:]


@pytest.fixture(scope="module", params=[pytest.param(10, marks=pytest.mark.slow), 1], ids="{}h".format)
def bomb(request: pytest.FixtureRequest) -> bytes:
    """Hours of silence in a few hundred KiB each."""
    return silent_flac(request.param)


@pytest.mark.parametrize("is_length_stated", [True, False])
def test_bomb_is_refused_fast_with_flat_memory(is_length_stated: bool, bomb: bytes, limits: DecodeLimits) -> None:
    data = bomb if is_length_stated else without_stated_length(bomb)
    decode(encode(TONE, AudioFormat.WAV), limits=limits)  # the zygote runs
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    start = time.monotonic()
    with pytest.raises(AudioTooLong, match="600 s"):
        decode(data, limits=limits)

    assert time.monotonic() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 << 10


def test_implausible_expansion_is_refused_before_the_duration_limit() -> None:
    limits = DecodeLimits(max_duration_s=1e6, max_bytes=1 << 30, max_expansion=10)

    with pytest.raises(AudioTooLong, match="expands"):
        decode(silent_flac(0.1), limits=limits)


def test_short_silence_may_expand_as_it_likes() -> None:
    limits = DecodeLimits(max_duration_s=600, max_bytes=1 << 20, max_expansion=1)

    assert decode(silent_flac(1 / 60), limits=limits).info.duration_s == 60


def test_decoded_size_is_bounded() -> None:
    small = DecodeLimits(max_duration_s=600, max_bytes=1 << 20, max_expansion=1e6, memory_bytes=300 << 20)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros((48000 * 210, 8), np.int16), 48000, format="FLAC", subtype="PCM_16")

    with pytest.raises(AudioTooLong, match="memory"):
        decode(buffer.getvalue(), limits=small)


@pytest.mark.parametrize("value", [3e38, -1e30, float("inf"), float("nan")])
def test_numbers_beyond_any_sound_become_silence_and_are_told(value: float, limits: DecodeLimits) -> None:
    samples = np.full(24000, 0.25, np.float32)
    samples[12000] = value
    file = io.BytesIO()
    soundfile.write(file, samples, 24000, format="WAV", subtype="FLOAT")

    decoded = decode(file.getvalue(), limits=limits)

    assert decoded.damage is not None
    assert decoded.waveform.samples[0, 12000] == 0
    assert np.array_equal(np.delete(decoded.waveform.samples[0], 12000), np.delete(samples, 12000))


def test_a_float_file_over_full_scale_is_kept(limits: DecodeLimits) -> None:
    samples = np.full(24000, 30.0, np.float32)
    file = io.BytesIO()
    soundfile.write(file, samples, 24000, format="WAV", subtype="FLOAT")

    decoded = decode(file.getvalue(), limits=limits)

    assert decoded.damage is None
    assert np.array_equal(decoded.waveform.samples[0], samples)


def test_file_over_the_size_limit_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "big.wav"
    path.write_bytes(encode(TONE, AudioFormat.WAV))

    with pytest.raises(PayloadTooLarge):
        decode_file(path, limits=DecodeLimits(max_duration_s=600, max_bytes=1000))


@pytest.mark.parametrize("name", ["missing.wav", "."])
def test_path_without_a_file_is_refused_in_words(name: str, tmp_path: Path, limits: DecodeLimits) -> None:
    with pytest.raises(DecodeFailed, match="no file"):
        decode_file(tmp_path / name, limits=limits)


def test_duration_limit_counts_samples_not_headers() -> None:
    data = encode(Waveform(np.zeros((1, 24000 * 3), np.float32), 24000), AudioFormat.WAV)
    lying = data[:40] + struct.pack("<I", 100) + data[44:]

    assert decode(data, limits=DecodeLimits(max_duration_s=3, max_bytes=1 << 20)).info.duration_s == 3
    with pytest.raises(AudioTooLong):
        decode(data, limits=DecodeLimits(max_duration_s=2.9, max_bytes=1 << 20))
    assert decode(lying, limits=DecodeLimits(max_duration_s=3, max_bytes=1 << 20)).info.duration_s < 3


@pytest.mark.parametrize(("rate_hz", "num_channels"), [(1000, 1), (384000, 1), (24000, 9), (24000, 64)])
def test_rates_and_channels_out_of_bounds_are_refused(rate_hz: int, num_channels: int, limits: DecodeLimits) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros((1000, num_channels), np.int16), rate_hz, format="WAV")

    with pytest.raises(DecodeFailed, match=r"sample rate|channels"):
        decode(buffer.getvalue(), limits=limits)


@pytest.mark.parametrize("seed", range(6))
def test_broken_real_files_never_break_the_caller(seed: int, originals: Path) -> None:
    """Random truncations and flipped bits of real files: a waveform or a typed error, and in time."""
    limits = DecodeLimits(max_duration_s=60, max_bytes=1 << 20, wall_s=20, cpu_s=10)
    rng = np.random.default_rng(seed)
    files = sorted(path for path in originals.iterdir() if path.suffix != ".jsonl" and path.stat().st_size)
    messages: list[str] = []
    for path in files:
        data = bytearray(path.read_bytes())
        if rng.random() < 0.5:
            data = data[: int(rng.integers(1, len(data) + 1))]
        for position in rng.integers(0, len(data), int(rng.integers(1, 40))):
            data[position] ^= 1 << int(rng.integers(0, 8))
        try:
            decoded = decode(bytes(data), limits=limits, target_rate_hz=24000, is_mono=True)
        except AudioFoundationError as error:
            messages.append(error.message)
        else:
            assert decoded.waveform.num_samples > 0
            assert np.isfinite(decoded.waveform.samples).all()
    assert all(len(message) > 20 for message in messages)


def test_recognise_survives_random_bytes() -> None:
    rng = np.random.default_rng(0)
    messages: list[str] = []
    for _ in range(2000):
        head = rng.integers(0, 256, int(rng.integers(0, 40)), dtype=np.uint8).tobytes()
        try:
            assert recognise(head).demuxer in DEMUXERS
        except DecodeFailed as refusal:
            messages.append(refusal.message)
    assert all(len(message) > 20 for message in messages)


def test_long_files_stream_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    path.write_bytes(silent_flac(1))
    limits = DecodeLimits(max_duration_s=14400, max_bytes=1 << 30, max_expansion=1e6)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    seconds = sum(block.duration_s for block in decode_blocks(path, limits=limits))

    assert seconds == 3600
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 << 10


@pytest.mark.parametrize(
    "message",
    [
        protocol.HEADER.pack(protocol.SAMPLES, 1 << 31),
        protocol.HEADER.pack(b"?", 4) + b"abcd",
        protocol.HEADER.pack(protocol.INFO, 4) + b"null",
        protocol.HEADER.pack(protocol.DONE, 2) + b"{}",
        protocol.pack(protocol.INFO, protocol.StreamInfo("wav", "pcm", 24000, 2000, 24000, 2000)),
        protocol.pack(protocol.INFO, protocol.StreamInfo("wav", "\x1b[2J", 24000, 1, 24000, 1)),
        protocol.pack(protocol.INFO, protocol.StreamInfo("wav", "pcm", 10**9, 1, 10**9, 1)),
        MONO + protocol.HEADER.pack(protocol.SAMPLES, 0),
        MONO + protocol.HEADER.pack(protocol.SAMPLES, 3) + bytes(3),
    ],
)
def test_caller_believes_nothing_that_a_child_says(
    message: bytes, limits: DecodeLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = io.BytesIO(message)

    def read_exactly(_: client.SandboxedStream, length: int) -> bytearray:
        return bytearray(answers.read(length))

    monkeypatch.setattr(client.SandboxedStream, "_read_exactly", read_exactly)

    with pytest.raises(DecodeFailed, match="no sensible answer"):
        decode(media.silent_wav(), limits=limits)


@pytest.mark.parametrize(
    "shares", [b"", bytes(3), struct.pack("<f", 1.5), struct.pack("<f", float("nan")), bytes(80_000)]
)
@pytest.mark.parametrize("is_measured", [False, True])
def test_caller_believes_no_senseless_clipping(
    shares: bytes, is_measured: bool, limits: DecodeLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = protocol.pack(protocol.DONE, protocol.StreamEnd(1, None))
    answers = io.BytesIO(MONO + protocol.HEADER.pack(protocol.CLIPPED, len(shares)) + shares + end)
    monkeypatch.setattr(client.SandboxedStream, "_read_exactly", lambda _, length: memoryview(answers.read(length)))

    with pytest.raises(DecodeFailed, match="no sensible answer"):
        list(decode_blocks(media.silent_wav(), limits=limits, is_measured=is_measured))


def test_caller_is_not_swamped_with_scraps(limits: DecodeLimits, monkeypatch: pytest.MonkeyPatch) -> None:
    num_scraps = 3 * (1 << 16) + 5
    scrap = protocol.HEADER.pack(protocol.SAMPLES, 4) + struct.pack("<f", 0.5)
    answers = io.BytesIO(MONO + num_scraps * scrap + protocol.pack(protocol.DONE, protocol.StreamEnd(num_scraps, None)))
    monkeypatch.setattr(client.SandboxedStream, "_read_exactly", lambda _, length: memoryview(answers.read(length)))

    blocks = [block.samples for block in decode_blocks(media.silent_wav(), limits=limits, block_s=None)]

    assert [block.shape for block in blocks] == [(1, 1 << 16)] * 3 + [(1, 5)]
    assert all((block == 0.5).all() for block in blocks)


def test_caller_takes_no_samples_where_it_wants_none(limits: DecodeLimits, monkeypatch: pytest.MonkeyPatch) -> None:
    info = protocol.pack(protocol.INFO, protocol.StreamInfo("wav", "pcm", 24000, 1, 24000, 0))
    answers = io.BytesIO(info + protocol.HEADER.pack(protocol.SAMPLES, 4) + bytes(4))
    monkeypatch.setattr(client.SandboxedStream, "_read_exactly", lambda _, length: bytearray(answers.read(length)))

    with pytest.raises(DecodeFailed, match="no sensible answer"):
        next(decode_blocks(media.silent_wav(), limits=limits, max_channels=0))
