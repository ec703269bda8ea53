"""Yandex Music by the user's own token: the one file that knows the library `yandex-music` and its errors."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from itertools import islice
from typing import Any

from audiofoundation.errors import FetchFailed, FetchRefused
from audiofoundation.ingestion.list_records import plain_text
from audiofoundation.ingestion.source import SourceLine
from audiofoundation.ingestion.sources.protocol import Page, Reading
from audiofoundation.ingestion.states import ItemRefused, RefusalClass
from audiofoundation.settings import FetchSettings

try:
    from yandex_music import Client
    from yandex_music.exceptions import NetworkError, NotFoundError, UnauthorizedError, YandexMusicError
except ImportError as error:
    raise FetchRefused("Yandex Music needs the library yandex-music; install audiofoundation[yandex]") from error

_TRACKS_PER_PAGE = 100
_TRACKS_AT_ONCE = 200


class YandexMusic:
    """Reads playlists, albums, artists and liked tracks, and finds where a track's bytes lie.

    Raises:
        FetchRefused: no token is set.
    """

    def __init__(self, settings: FetchSettings, *, base_url: str | None = None) -> None:
        if settings.yandex_token is None:
            raise FetchRefused("Yandex Music is read with your own token: set AF_FETCH__YANDEX_TOKEN")
        with redirect_stdout(io.StringIO()):  # it prints its licence
            self._client = Client(settings.yandex_token.get_secret_value(), base_url=base_url)
        self._client.request.set_timeout(settings.timeout_s)
        self.tool_version = f"yandex-music {version('yandex-music')}"

    def pages(self, address: str, reading: Reading) -> Iterator[Page]:
        """Yield the tracks behind `yandex:album/ID` and its like."""
        with _translated():
            tracks = islice(self._tracks(address.removeprefix("yandex:").split("/")), reading.start, None)
            while found := list(islice(tracks, _TRACKS_PER_PAGE)):
                yield Page(tuple(_to_line(track) for track in found), len(found))

    def address_of(self, track_id: str) -> str:
        """Return the https address of a track's best original; it is good for a minute.

        Raises:
            ItemRefused: the account may not hear the track.
        """
        with _translated():
            offers = [offer for offer in self._client.tracks_download_info(track_id) or () if not offer.preview]
            if not offers:
                raise ItemRefused(RefusalClass.RESTRICTED, "this account may not play the track in full")
            best = max(offers, key=lambda offer: offer.bitrate_in_kbps)
            address: str = best.get_direct_link()
            return address

    def _tracks(self, path: Sequence[str]) -> Iterator[Any]:
        match path:
            case ["liked"]:
                self._client.init()  # likes belong to the account, whose id the library asks for
                shorts = getattr(self._client.users_likes_tracks(), "tracks", None) or ()
                yield from self._in_full([short.track_id for short in shorts])
            case ["album", album_id]:
                album = self._client.albums_with_tracks(album_id)
                yield from (track for volume in getattr(album, "volumes", None) or () for track in volume)
            case ["artist", artist_id]:
                yield from self._of_artist(artist_id)
            case ["users", user, "playlists", kind]:
                yield from self._of_playlist(self._client.users_playlists(kind, user))
            case ["playlists", uuid]:
                yield from self._of_playlist(self._client.playlist(uuid))

    def _of_artist(self, artist_id: str) -> Iterator[Any]:
        page = 0
        while tracks := getattr(self._client.artists_tracks(artist_id, page, _TRACKS_PER_PAGE), "tracks", None):
            yield from tracks
            page += 1

    def _of_playlist(self, playlist: Any) -> Iterator[Any]:
        shorts = getattr(playlist, "tracks", None) or ()
        yield from (short.track for short in shorts if short.track is not None)
        yield from self._in_full([short.track_id for short in shorts if short.track is None])

    def _in_full(self, track_ids: Sequence[str]) -> Iterator[Any]:
        for start in range(0, len(track_ids), _TRACKS_AT_ONCE):
            yield from self._client.tracks(list(track_ids[start : start + _TRACKS_AT_ONCE])) or ()


def _to_line(track: Any) -> SourceLine:
    artists = ", ".join(str(artist.name) for artist in track.artists or () if artist.name)
    return SourceLine(
        f"yandex:{track.id}",
        title=plain_text(track.title),
        channel=plain_text(artists),
        duration_s=track.duration_ms / 1000 if isinstance(track.duration_ms, int) else None,
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except UnauthorizedError as error:
        raise FetchRefused("Yandex Music does not accept the token; renew AF_FETCH__YANDEX_TOKEN") from error
    except NotFoundError as error:
        raise ItemRefused(RefusalClass.PERMANENT, "Yandex Music knows nothing under this address") from error
    except NetworkError as error:
        raise FetchFailed(f"Yandex Music did not answer: {error}") from error
    except YandexMusicError as error:
        raise FetchRefused(f"Yandex Music refused: {type(error).__name__}: {error}") from error
