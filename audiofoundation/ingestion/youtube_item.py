"""One YouTube video as an item."""

import time
from pathlib import Path

from sqlalchemy import Engine

from audiofoundation.identifiers import sha256_of_stream
from audiofoundation.ingestion.item_values import FetchedBytes, Provenance
from audiofoundation.ingestion.youtube import TOOL_VERSION, OpenVideo
from audiofoundation.jobs.lease import Claim, renew
from audiofoundation.settings import JobSettings

_RENEW_EVERY_S = 5.0


def to_fetched(video: OpenVideo, path: Path, *, is_probed: bool) -> FetchedBytes:
    """Return the file that was downloaded, with its hash and what YouTube says of it."""
    with path.open("rb") as file:
        digest = sha256_of_stream(file)
    info = video.info
    provenance = Provenance(TOOL_VERSION, info.title, info.channel, info.license, info.duration_s)
    return FetchedBytes(path, digest, provenance, is_probed)


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
