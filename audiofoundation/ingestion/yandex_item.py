"""One Yandex Music track as an item: the operator's decision first, then where its bytes lie, then the bytes."""

from pathlib import Path

from audiofoundation.ingestion.fetch import FetchBudget, fetch_to_file
from audiofoundation.ingestion.item_values import FetchedBytes, ItemToIngest, Provenance
from audiofoundation.ingestion.sources.yandex_music import YandexMusic
from audiofoundation.settings import FetchSettings
from audiofoundation.telemetry.tracing import span

_WALL_S = 700.0


def fetch_track(item: ItemToIngest, directory: Path, *, settings: FetchSettings) -> FetchedBytes:
    """Fetch the track with the user's own token.

    The library only finds the address; the bytes come through the guarded fetch like everybody's.

    Raises:
        ItemRefused: the operator has not decided to take what states no open licence, or the account may not.
        FetchRefused: no token is set, or Yandex does not accept it.
    """
    item.policy.check_license(item.license)
    music = YandexMusic(settings)
    with span("metadata"):
        address = music.address_of(item.canonical.partition(":")[2])
    path = directory / "track"
    with span("fetch") as step:
        result = fetch_to_file(address, path, settings=settings, budget=FetchBudget(wall_s=_WALL_S))
        step.set({"num_bytes": result.size_bytes})
    return FetchedBytes(path, result.sha256, Provenance(tool_version=music.tool_version))
