"""What the job of an item is given, and what it fetches."""

from dataclasses import dataclass
from pathlib import Path

from audiofoundation.identifiers import Sha256
from audiofoundation.ingestion.policy import Policy
from audiofoundation.ingestion.source import SourceKind


@dataclass(frozen=True, slots=True)
class ItemToIngest:
    """What the job needs to know of its item."""

    id: str
    kind: SourceKind
    source: str
    canonical: str
    license: str | None
    listed_s: float | None
    policy: Policy
    asset_sha256: Sha256 | None
    num_rechecks: int


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the bytes came from. None: the source said nothing."""

    tool_version: str
    title: str | None = None
    channel: str | None = None
    license: str | None = None
    advertised_s: float | None = None

    def columns(self) -> dict[str, str]:
        """What the item's row learns."""
        known = {"title": self.title, "channel": self.channel, "license": self.license}
        return {"tool_version": self.tool_version, **{name: text for name, text in known.items() if text}}


@dataclass(frozen=True, slots=True)
class FetchedBytes:
    """A local file with the original bytes, where they came from, and whether ranges of them were judged before."""

    path: Path
    sha256: Sha256
    provenance: Provenance
    is_probed: bool = False
