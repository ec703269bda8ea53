"""Playlists and bombs through the whole of ingest: nothing of ours is read, nothing swells, items say why."""

import resource
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sqlalchemy import Engine

from audiofoundation.audio.encode import AudioFormat, encode
from audiofoundation.audio.waveform import Waveform
from audiofoundation.storage.object_store import ObjectStore
from tests.data_plane import DataPlane, FileServer, create_data_plane, data_plane_settings, serving_files

EXTENSIONS = ["m3u8", "m3u", "wav", "mp3", "ogg", "flac", "m4a", "webm", "txt", "ffconcat", "sdp", "mpd", "asx", "aac"]
NUM_NAMES = 3  # of each playlist; together every extension comes
MAX_GROWTH_KIB = 64 << 10


@pytest.fixture
def plane(sqlite_engine: Engine, store: ObjectStore, tmp_path: Path) -> DataPlane:
    plane = create_data_plane(sqlite_engine, store, data_plane_settings(tmp_path / "data"))
    plane.post("/v1/collections", {"name": "c"})
    return plane


def playlists(secret: Path, address: str) -> list[str]:
    """What makes ffmpeg read other files and servers when it may choose the format."""
    head = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n"
    tail = "\n#EXT-X-ENDLIST\n"
    return [
        *(
            head + target + tail
            for target in (
                f"file://{secret}",
                str(secret),
                address,
                f"subfile,,start,0,end,48000,,:{secret}",
                f"concat:{secret}|{address}",
                f"crypto:file://{secret}",
                f"async:file:{secret}",
                "data:audio/wav;base64,UklGRg==",
            )
        ),
        f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{address}"\n#EXTINF:9,\n{secret}{tail}',
        f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{address}\n",
        f'#EXTM3U\n#EXT-X-MAP:URI="{secret}"\n#EXTINF:9,\n{address}{tail}',
        f"ffconcat version 1.0\nfile '{secret}'\nfile '{address}'\n",
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\na=control:{address}\nm=audio 49170 RTP/AVP 0\n",
        f'<?xml version="1.0"?><MPD type="static"><Period><BaseURL>{address}</BaseURL></Period></MPD>',
        f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file://{secret}">]><MPD>&x;</MPD>',
        f'<asx version="3.0"><entry><ref href="{address}"/></entry></asx>',
        f"[playlist]\nFile1={address}\nNumberOfEntries=1\n",
    ]


def test_no_playlist_under_any_name_reads_anything(plane: DataPlane, tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    tone = 0.3 * np.sin(np.arange(48_000) * 0.05)
    secret.write_bytes(encode(Waveform(tone.astype(np.float32)[None], 24_000), AudioFormat.WAV))
    with serving_files(FileServer({"/secret.wav": secret.read_bytes()})) as server:
        texts = playlists(secret, server.url("/secret.wav"))
        for number, text in enumerate(texts):
            for turn in range(NUM_NAMES):
                extension = EXTENSIONS[(number * NUM_NAMES + turn) % len(EXTENSIONS)]
                body = (text + "\n" * turn).encode()  # or it would be the same recording
                server.files[f"/{number}.{extension}"] = body
                plane.upload("c", body, name=f"{number}.{extension}")
        crawled = list(server.files)[1::NUM_NAMES]
        sources = [{"source": server.url(path), "license": "cc0"} for path in crawled]
        plane.post("/v1/collections/c/items", {"sources": sources})
        plane.run_jobs()
        assert "/secret.wav" not in server.asked
        assert set(crawled) <= set(server.asked), "the playlists themselves were fetched"
    found = plane.get("/v1/collections/c")
    assert found["states"] == {"failed": found["items"]}
    assert found["error_classes"] == {"undecodable_audio": found["items"]}


@pytest.mark.slow
def test_a_bomb_of_ten_hours_is_an_item_that_failed_and_takes_no_memory(plane: DataPlane, tmp_path: Path) -> None:
    path = tmp_path / "bomb.flac"
    with soundfile.SoundFile(path, "w", samplerate=8000, channels=1, format="FLAC", subtype="PCM_16") as out:
        for _ in range(60 * 10):
            out.write(np.zeros(8000 * 60, np.int16))
    plane.upload("c", path.read_bytes())
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    plane.run_jobs()
    assert plane.get("/v1/collections/c")["error_classes"] == {"audio_too_long": 1}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < MAX_GROWTH_KIB
