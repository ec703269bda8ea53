"""One YouTube video as an item: policy on its metadata, then its sound."""

import time
from pathlib import Path

from sqlalchemy import Engine

from audiofoundation.identifiers import sha256_of_stream
from audiofoundation.ingestion.item_job import FetchedBytes, ItemToIngest, Provenance
from audiofoundation.ingestion.youtube import TOOL_VERSION, Heartbeat, YoutubeSource, check_video
from audiofoundation.jobs.lease import Claim, renew
from audiofoundation.settings import JobSettings

_RENEW_EVERY_S = 5.0


def fetch_video(
    item: ItemToIngest, directory: Path, *, source: YoutubeSource, attempt: int, heartbeat: Heartbeat
) -> FetchedBytes:
    """Fetch the sound of the item's video, if the policy lets us.

    Raises:
        ItemRefused: the policy or YouTube says no; no byte of the video was asked for in the first case.
        LeaseLost: another worker has the job; the download stops.
    """
    with source.open(item.source, directory / "video", attempt=attempt) as video:
        info = video.info
        check_video(info, item.policy)
        path = video.download(heartbeat)
    with path.open("rb") as file:
        digest = sha256_of_stream(file)
    provenance = Provenance(TOOL_VERSION, info.title, info.channel, info.license, info.duration_s)
    return FetchedBytes(path, digest, provenance)


class LeaseHeartbeat:
    """Renews the job's lease while bytes arrive, every few seconds at most."""

    def __init__(self, engine: Engine, claim: Claim, settings: JobSettings, *, every_s: float = _RENEW_EVERY_S) -> None:
        self._engine = engine
        self._claim = claim
        self._settings = settings
        self._every_s = every_s
        self._renewed_at = time.monotonic()

    def __call__(self, num_bytes: int) -> None:  # noqa: ARG002
        """Renew when it is time. Raises LeaseLost."""
        if time.monotonic() - self._renewed_at >= self._every_s:
            renew(self._engine, self._claim, settings=self._settings)
            self._renewed_at = time.monotonic()
