"""What names many recordings is told from what names one."""

import pytest

from audiofoundation.ingestion.source import SourceRejected
from audiofoundation.ingestion.sources.addresses import parse_discovery
from audiofoundation.ingestion.sources.protocol import DiscoveryAddress, DiscoveryKind

K = DiscoveryKind


@pytest.mark.parametrize(
    ("line", "kind", "address"),
    [
        ("ytsearch50:rain  on a roof ", K.YOUTUBE_SEARCH, "ytsearch50:rain on a roof"),
        ("ytsearch:rain", K.YOUTUBE_SEARCH, "ytsearch1:rain"),
        ("https://www.youtube.com/@someone", K.YOUTUBE_CHANNEL, "https://www.youtube.com/@someone/videos"),
        ("https://m.youtube.com/@someone/streams?x=1", K.YOUTUBE_CHANNEL, "https://www.youtube.com/@someone/streams"),
        (
            "http://youtube.com/channel/UCabc/featured",
            K.YOUTUBE_CHANNEL,
            "https://www.youtube.com/channel/UCabc/videos",
        ),
        (
            "https://music.youtube.com/playlist?list=PL1_x-2&si=y",
            K.YOUTUBE_PLAYLIST,
            "https://www.youtube.com/playlist?list=PL1_x-2",
        ),
        ("https://x.org/podcast/feed.xml", K.FEED, "https://x.org/podcast/feed.xml"),
        ("https://x.org/podcast/rss/", K.FEED, "https://x.org/podcast/rss/"),
        ("https://feeds.x.org/ABC123", K.FEED, "https://feeds.x.org/ABC123"),
        ("feed:https://x.org/anything", K.FEED, "https://x.org/anything"),
        ("https://x.org/urls.csv.gz?v=1", K.LIST, "https://x.org/urls.csv.gz?v=1"),
        ("list:https://x.org/all", K.LIST, "https://x.org/all"),
        ("https://music.yandex.ru/album/123", K.YANDEX, "yandex:album/123"),
        ("https://music.yandex.com/users/me.x/playlists/3", K.YANDEX, "yandex:users/me.x/playlists/3"),
        ("https://music.yandex.ru/artist/5/tracks", K.YANDEX, "yandex:artist/5"),
        ("yandex:liked", K.YANDEX, "yandex:liked"),
    ],
)
def test_one_address_for_each_thing(line: str, kind: DiscoveryKind, address: str) -> None:
    found = parse_discovery(line)
    assert found == DiscoveryAddress(kind, address)
    assert found is not None
    again = found.address if kind not in (K.FEED, K.LIST, K.YANDEX) else f"{kind}:{found.address}"
    assert kind is K.YANDEX or parse_discovery(again) == found


@pytest.mark.parametrize(
    "line",
    [
        "https://www.youtube.com/watch?v=dQw4w9WgXcQ&list=RD123",
        "https://www.youtube.com/watch?v=short",
        "https://youtu.be/dQw4w9WgXcQ",
        "https://www.youtube.com/playlist",
        "https://www.youtube.com/@",
        "https://www.youtube.com/channel/",
        "https://x.org/a.mp3",
        "https://feeds.x.org/a.mp3",
        "https://music.yandex.ru/album/1/track/2",
        "https://evil.org/music.yandex.ru/album/1",
        "https://[broken",
        "nonsense",
        "",
        "youtube:dQw4w9WgXcQ",
        "sha256:" + "0" * 64,
    ],
)
def test_single_things_and_nothings_are_left_alone(line: str) -> None:
    assert parse_discovery(line) is None


@pytest.mark.parametrize(
    "line",
    [
        "ytsearch0:x",
        "ytsearch99999:x",
        "ytsearch5: ",
        "feed:ftp://x.org/a",
        "list:nonsense",
        "ytsearch5:a\x00b",
        "ytsearch5:\ud800",
        "https://www.youtube.com/@a\x7fb",
        "https://music.yandex.ru/users/a\x00/playlists/3",
        "feed:https://x.org/\udcff",
        "https://x.org/feed.xml?\ud800",
    ],
)
def test_what_is_meant_but_miswritten_is_refused(line: str) -> None:
    with pytest.raises(SourceRejected):
        parse_discovery(line)
