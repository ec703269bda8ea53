"""Which source reads which kind of address."""

from audiofoundation.ingestion.sources.feed import Feed
from audiofoundation.ingestion.sources.http_list import HttpList
from audiofoundation.ingestion.sources.protocol import YOUTUBE_KINDS, DiscoveryKind, MediaSource
from audiofoundation.settings import EgressIdentity, FetchSettings


def create_source(
    kind: DiscoveryKind, settings: FetchSettings, *, identity: EgressIdentity | None = None, attempt: int = 1
) -> MediaSource:
    """Return what reads this kind; yt-dlp and the Yandex library are imported only where they are needed."""
    if kind in YOUTUBE_KINDS:
        from audiofoundation.ingestion.sources.youtube_listing import YoutubeListing

        return YoutubeListing(settings, identity=identity, attempt=attempt)
    if kind is DiscoveryKind.YANDEX:
        from audiofoundation.ingestion.sources.yandex_music import YandexMusic

        return YandexMusic(settings)
    return Feed(settings) if kind is DiscoveryKind.FEED else HttpList(settings)
