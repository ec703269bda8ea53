"""Our rules around yt-dlp. Its downloader is real and runs against a loopback server; only what YouTube's
site would have answered is recorded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from yt_dlp import YoutubeDL
from yt_dlp.utils import DownloadError

from audiofoundation.errors import DeadlineExceeded, FetchFailed, LeaseLost, PayloadTooLarge
from audiofoundation.ingestion.licenses import YOUTUBE_CC
from audiofoundation.ingestion.policy import Policy
from audiofoundation.ingestion.source import SourceKind
from audiofoundation.ingestion.states import ItemRefused, RefusalClass
from audiofoundation.ingestion.youtube import (
    YoutubeSource,
    build_options,
    check_video,
    judge,
    to_video_info,
)
from audiofoundation.settings import FetchSettings
from tests.data_plane import FileServer, serving_files

VIDEO_ID = "dQw4w9WgXcQ"
URL = f"https://www.youtube.com/watch?v={VIDEO_ID}"
STRICT = Policy(kind=SourceKind.YOUTUBE)
SOUND = bytes(range(256)) * 2000
RECORDED: dict[str, Any] = {
    "id": VIDEO_ID,
    "title": "A field recording",
    "channel": "Someone",
    "license": YOUTUBE_CC,
    "duration": 123,
    "age_limit": 0,
    "live_status": "not_live",
    "extractor": "youtube",
    "extractor_key": "Youtube",
    "webpage_url": URL,
}


def no_progress(num_bytes: int) -> None:
    del num_bytes


def recorded_site(metadata: dict[str, Any]) -> Callable[[dict[str, Any]], YoutubeDL]:
    """yt-dlp as it is, except that the site's answer is the recorded one."""

    class Recorded(YoutubeDL):  # type: ignore[misc]  # yt-dlp is untyped
        def extract_info(self, url: str, download: bool = True) -> dict[str, Any]:
            assert url == URL
            found: dict[str, Any] = self.process_ie_result(dict(metadata), download=download)
            return found

    def create(options: dict[str, Any]) -> YoutubeDL:
        options = {**options, "sleep_interval": 0, "max_sleep_interval": 0, "sleep_interval_requests": 0}
        return Recorded(options)

    return create


def with_formats(server: FileServer) -> dict[str, Any]:
    def one(name: str, **fields: object) -> dict[str, object]:
        return {"format_id": name, "url": server.url(f"/{name}"), "vcodec": "none", "protocol": "http", **fields}

    formats = [
        one("low-opus", ext="webm", acodec="opus", abr=50),
        one("aac", ext="m4a", acodec="mp4a.40.2", abr=256),
        one("best-opus", ext="webm", acodec="opus", abr=130),
    ]
    return {**RECORDED, "formats": formats}


def test_the_options_hold_every_rule(tmp_path: Path) -> None:
    options = build_options(FetchSettings(max_bytes=1000, timeout_s=7.0), tmp_path)
    expected = {
        "allowed_extractors": ["^youtube$"],
        "enable_file_urls": False,
        "remote_components": [],
        "noplaylist": True,
        "ignoreerrors": False,
        "skip_unavailable_fragments": False,
        "format": "bestaudio[acodec=opus]/bestaudio[acodec^=mp4a]/bestaudio",
        "postprocessors": [],
        "max_filesize": 1000,
        "socket_timeout": 7.0,
        "retries": 3,
        "fragment_retries": 3,
        "extractor_retries": 3,
        "file_access_retries": 3,
        "external_downloader": {"m3u8": "native"},
        "match_filter": judge,
    }
    assert {name: options[name] for name in expected} == expected
    assert Path(options["cachedir"]).is_relative_to(tmp_path)
    assert "download_archive" not in options
    assert "cookiefile" not in options


def test_nothing_but_youtube_is_extracted(tmp_path: Path) -> None:
    with (
        serving_files(FileServer({"/a.mp3": SOUND})) as server,
        YoutubeDL(build_options(FetchSettings(), tmp_path)) as dl,
    ):
        for url in (server.url("/a.mp3"), "file:///etc/passwd", f"https://vimeo.com/{VIDEO_ID}"):
            with pytest.raises(DownloadError):
                dl.extract_info(url, download=True)
    assert server.asked == []


def test_metadata_comes_without_a_byte_of_sound(tmp_path: Path) -> None:
    with serving_files(FileServer({"/best-opus": SOUND})) as server:
        source = YoutubeSource(FetchSettings(), create=recorded_site(with_formats(server)))
        info = source.describe(URL, tmp_path / "job", attempt=1)
    assert (info.title, info.license, info.duration_s) == ("A field recording", YOUTUBE_CC, 123.0)
    assert server.asked == []


def test_the_best_opus_sound_is_downloaded_as_it_is(tmp_path: Path) -> None:
    seen: list[int] = []

    def note(num_bytes: int) -> None:
        seen.append(num_bytes)

    with serving_files(FileServer({"/best-opus": SOUND})) as server:
        source = YoutubeSource(FetchSettings(), create=recorded_site(with_formats(server)))
        path = source.download(URL, tmp_path / "job", attempt=1, heartbeat=note)
    assert path == tmp_path / "job" / f"{VIDEO_ID}.webm"
    assert path.read_bytes() == SOUND
    assert set(server.asked) == {"/best-opus"}
    assert seen[-1] == len(SOUND)


def test_parts_of_an_earlier_attempt_are_not_trusted(tmp_path: Path) -> None:
    job = tmp_path / "job"
    job.mkdir()
    (job / f"{VIDEO_ID}.webm.part").write_bytes(b"other bytes")
    with serving_files(FileServer({"/best-opus": SOUND})) as server:
        source = YoutubeSource(FetchSettings(), create=recorded_site(with_formats(server)))
        assert source.download(URL, job, attempt=1, heartbeat=no_progress).read_bytes() == SOUND


def test_a_lost_lease_stops_the_download(tmp_path: Path) -> None:
    def lost(num_bytes: int) -> None:
        raise LeaseLost(f"after {num_bytes} bytes")

    with serving_files(FileServer({"/best-opus": SOUND})) as server:
        source = YoutubeSource(FetchSettings(), create=recorded_site(with_formats(server)))
        with pytest.raises(LeaseLost):
            source.download(URL, tmp_path / "job", attempt=1, heartbeat=lost)


def test_bytes_and_time_are_limited(tmp_path: Path) -> None:
    hook = build_options(FetchSettings(max_bytes=1000), tmp_path)["progress_hooks"][0]
    hook({"downloaded_bytes": 1000})
    with pytest.raises(Exception, match="larger than") as refused:
        hook({"downloaded_bytes": 1001})
    assert isinstance(refused.value.cause, PayloadTooLarge)  # type: ignore[attr-defined]
    late = build_options(FetchSettings(), tmp_path, budget_s=0.0)["progress_hooks"][0]
    with pytest.raises(Exception, match="did not arrive") as refused:
        late({"downloaded_bytes": 1})
    assert isinstance(refused.value.cause, DeadlineExceeded)  # type: ignore[attr-defined]


def test_a_missing_file_is_an_error_of_the_source(tmp_path: Path) -> None:
    with serving_files(FileServer()) as server:
        source = YoutubeSource(FetchSettings(), create=recorded_site(with_formats(server)))
        with pytest.raises((FetchFailed, ItemRefused)):
            source.download(URL, tmp_path / "job", attempt=1, heartbeat=no_progress)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"license": None}, RefusalClass.LICENSE),
        ({"license": "Standard YouTube License"}, RefusalClass.LICENSE),
        ({"license": "Creative Commons BY-NC-ND"}, RefusalClass.LICENSE),
        ({"live_status": "is_upcoming"}, RefusalClass.NOT_YET),
        ({"live_status": "post_live"}, RefusalClass.NOT_YET),
        ({"is_live": True}, RefusalClass.NOT_YET),
        ({"age_limit": 18}, RefusalClass.RESTRICTED),
        ({"duration": 12}, RefusalClass.TOO_SHORT),
        ({"duration": 4000}, RefusalClass.TOO_LONG),
    ],
)
def test_the_policy_judges_metadata(change: dict[str, object], refusal: RefusalClass) -> None:
    check_video(to_video_info(RECORDED), STRICT)
    with pytest.raises(ItemRefused) as refused:
        check_video(to_video_info({**RECORDED, **change}), STRICT)
    assert refused.value.refusal is refusal


def test_strange_metadata_is_no_surprise() -> None:
    info = to_video_info({"id": 5, "title": ["x"], "duration": "long", "age_limit": "18", "license": ""})
    assert (info.video_id, info.title, info.duration_s, info.age_limit, info.license) == ("", None, None, 0, None)
    with pytest.raises(ItemRefused):
        check_video(info, STRICT)
    info = to_video_info({**RECORDED, "title": "a\x00\x9b31mb", "license": f"{RECORDED['license']}\x00"})
    assert (info.title, info.license) == ("a31mb", f"{RECORDED['license']}\ufffd")


@pytest.mark.parametrize(
    ("change", "is_taken"),
    [
        ({}, True),
        ({"is_live": True}, False),
        ({"live_status": "is_upcoming"}, False),
        ({"age_limit": 18}, False),
        ({"duration": 0.5}, False),
        ({"duration": 5 * 3600}, False),
        ({"duration": None}, True),
    ],
)
def test_the_downloader_judges_once_more(change: dict[str, object], is_taken: bool) -> None:
    assert (judge({**RECORDED, **change}) is None) == is_taken
