"""Searches, playlists and channels through yt-dlp's own extraction, on recorded answers."""

from pathlib import Path

import pytest

from audiofoundation.errors import AudioFoundationError, FetchRefused, RateLimited
from audiofoundation.ingestion.source import SourceLine
from audiofoundation.ingestion.sources import youtube_listing
from audiofoundation.ingestion.sources.protocol import Page, Reading
from audiofoundation.ingestion.sources.youtube_listing import YoutubeListing, listing_options, to_line
from audiofoundation.settings import FetchSettings
from tests.unit.ingestion.recorded_youtube import CHANNEL, PLAYLIST, RecordedYoutube, video_id


def sessions(num_videos: int, *, status: int = 200) -> tuple[type[RecordedYoutube], list[RecordedYoutube]]:
    made: list[RecordedYoutube] = []

    class Session(RecordedYoutube):
        def __init__(self, options: dict[str, object]) -> None:
            super().__init__(options)
            made.append(self)

    Session.num_videos, Session.status = num_videos, status
    return Session, made


def read(address: str, tmp_path: Path, num_videos: int, *, start: int = 0) -> list[Page]:
    create, _ = sessions(num_videos)
    return list(YoutubeListing(FetchSettings(), create=create).pages(address, Reading(tmp_path, start=start)))


def lines_of(pages: list[Page]) -> list[SourceLine]:
    return [line for page in pages for line in page.lines]


@pytest.mark.parametrize("address", [CHANNEL, PLAYLIST])
def test_a_channel_and_a_playlist_are_listed_to_their_end(address: str, tmp_path: Path) -> None:
    lines = lines_of(read(address, tmp_path, 8))
    assert lines[0] == SourceLine(f"youtube:{video_id(0)}", title="Rain 0", channel="Someone", duration_s=90.0)
    assert [line.text for line in lines] == [f"youtube:{video_id(number)}" for number in range(8)]


def test_a_search_gives_as_many_as_were_asked_for(tmp_path: Path) -> None:
    lines = lines_of(read("ytsearch5:rain on a roof", tmp_path, 20))
    assert [line.text for line in lines] == [f"youtube:{video_id(number)}" for number in range(5)]


def test_a_listing_goes_on_where_it_stopped(tmp_path: Path) -> None:
    assert [line.title for line in lines_of(read(CHANNEL, tmp_path, 8, start=6))] == ["Rain 6", "Rain 7"]
    assert lines_of(read(CHANNEL, tmp_path, 0)) == []


def test_pages_come_while_the_rest_is_not_read_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(youtube_listing, "_ENTRIES_PER_PAGE", 3)
    create, made = sessions(30)
    pages = YoutubeListing(FetchSettings(), create=create).pages(CHANNEL, Reading(tmp_path))
    assert next(pages).num_entries == 3
    first = len(made[0].asked)
    assert next(pages).num_entries == 3
    assert len(made[0].asked) == first + 1
    pages.close()  # type: ignore[attr-defined]


def test_nothing_but_youtube_is_asked_and_no_video_is_opened(tmp_path: Path) -> None:
    create, made = sessions(8)
    list(YoutubeListing(FetchSettings(), create=create).pages(CHANNEL, Reading(tmp_path)))
    asked = made[0].asked
    assert all(url.startswith("https://www.youtube.com/") for url in asked)
    assert not any("watch" in url or "player" in url for url in asked)


@pytest.mark.parametrize(("status", "expected"), [(429, RateLimited), (404, AudioFoundationError)])
def test_refusals_are_ours_by_class(status: int, expected: type[Exception], tmp_path: Path) -> None:
    create, _ = sessions(8, status=status)
    with pytest.raises(expected):
        list(YoutubeListing(FetchSettings(), create=create).pages(CHANNEL, Reading(tmp_path)))


def test_other_sites_are_not_listed(tmp_path: Path) -> None:
    create, made = sessions(8)
    with pytest.raises(AudioFoundationError):
        list(YoutubeListing(FetchSettings(), create=create).pages("https://example.com/list", Reading(tmp_path)))
    assert made[0].asked == []
    options = listing_options(FetchSettings(), tmp_path, None)
    assert (options["enable_file_urls"], options["remote_components"]) == (False, [])
    assert "generic" not in str(options["allowed_extractors"])


def test_entries_that_name_no_video_are_left_out() -> None:
    video = {"_type": "url", "ie_key": "Youtube", "id": "x" * 11, "title": "a\x00b", "duration": 0}
    assert to_line(video) == SourceLine("youtube:" + "x" * 11, title="ab")
    assert to_line({**video, "ie_key": "YoutubeTab"}) is None
    assert to_line({**video, "id": None}) is None
    assert to_line({}) is None


def test_redirects_without_end_are_refused(tmp_path: Path) -> None:
    class Looping(RecordedYoutube):
        def extract_info(self, *args: object, **kwargs: object) -> dict[str, object]:
            del args, kwargs
            return {"_type": "url", "url": CHANNEL}

    with pytest.raises(FetchRefused, match="no list"):
        list(YoutubeListing(FetchSettings(), create=Looping).pages(CHANNEL, Reading(tmp_path)))
