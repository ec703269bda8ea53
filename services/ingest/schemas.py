"""What clients send to the ingest service and what they get."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from audiofoundation.ingestion.policy import PolicyScope
from audiofoundation.transport.plain_text import PLAIN_TEXT

Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=500, pattern=PLAIN_TEXT)]
MAX_SOURCES = 10_000


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CollectionIn(_Input):
    name: Name
    policy: PolicyScope | None = Field(
        default=None, description="Which sources the policy judges: `crawled` (default) or `all`, uploads too"
    )


class SourceIn(_Input):
    """A source with what the list itself says of it."""

    source: Annotated[str, Field(max_length=4096)]
    title: Text | None = None
    channel: Text | None = None
    license: Text | None = None
    duration_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class ItemsIn(_Input):
    sources: Annotated[
        list[Annotated[str, Field(max_length=4096)] | SourceIn],
        Field(
            max_length=MAX_SOURCES,
            description="URLs, `youtube:ID`, `sha256:HEX` of a file to upload; what names many of them: "
            "`ytsearchN:words`, YouTube playlists and channels, `feed:URL`, `list:URL`",
        ),
    ]
    plan: bool = Field(default=False, description="Write the catalog only; fetch nothing yet")


class LineRejected(BaseModel):
    """One line that became no item."""

    index: int = Field(description="Its place among the sources of the request, from 0")
    rejection: str
    message: str


class ItemsAdded(BaseModel):
    collection: str
    added: int
    duplicates: int
    rejected: dict[str, int] = Field(description="Lines that became no item, by class")
    examples: list[LineRejected] = Field(description="The first ten of those lines")
    missing: list[str] = Field(description="Hashes whose bytes have to be uploaded")
    discoveries: list[str] = Field(description="Searches, channels, feeds and lists that are being expanded")


class UploadStored(BaseModel):
    item: str
    sha256: str
    added: bool = Field(description="Whether the collection did not have the file before")


class CollectionOut(BaseModel):
    id: str
    name: str
    policy: str
    items: int
    states: dict[str, int]
    error_classes: dict[str, int]
    discoveries: dict[str, int] = Field(description="Searches, channels, feeds and lists, by state")
    eta_s: float = Field(description="Estimated seconds until nothing waits")


class CollectionEntryOut(BaseModel):
    id: str
    name: str
    policy: str
    items: int = Field(description="In whatever state")
    created_at: float


class CollectionPageOut(BaseModel):
    collections: list[CollectionEntryOut]
    next_cursor: str | None


class ItemOut(BaseModel):
    id: str
    source: str
    kind: str
    state: str
    error_class: str | None
    error: str | None
    title: str | None
    channel: str | None
    license: str | None
    duration_s: float | None
    policy: str | None = Field(description="Under which it was taken or refused")
    tool_version: str | None
    retrieved_at: float | None
    asset_id: str | None
    damage: str | None = Field(default=None, description="What of the recording does not decode; the rest is used")
    discovery_id: str | None = Field(description="The search, channel, feed or list that named it")
    created_at: float


class EntryRejected(BaseModel):
    """One line of a list or entry of a feed that became no item."""

    number: int | None = Field(description="Which line or entry it is, from 1; null where that is not known")
    rejection: str
    message: str


class DiscoveryOut(BaseModel):
    id: str
    kind: str
    address: str
    state: str
    is_plan: bool
    num_seen: int = Field(description="Entries read so far")
    num_added: int = Field(description="New items among them")
    num_duplicates: int = Field(description="Entries that name what the collection has, or what an earlier entry names")
    num_discoveries: int = Field(description="Searches, channels and feeds that a list names; they are expanded too")
    rejected: dict[str, int] = Field(description="Entries that became no item, by class")
    examples: list[EntryRejected] = Field(description="The first ten of those entries")
    note: str | None = Field(description="What to say of it when it is done and named nothing")
    tool_version: str | None
    error_class: str | None
    error: str | None
    updated_at: float


class DiscoveryPageOut(BaseModel):
    discoveries: list[DiscoveryOut]
    next_cursor: str | None


class ItemPageOut(BaseModel):
    items: list[ItemOut]
    next_cursor: str | None
