"""States of an item, and why one is not taken."""

from enum import StrEnum

from audiofoundation.errors import ErrorCode, FetchRefused


class ItemState(StrEnum):
    """How far an item got. All but `queued` and `fetching` are final until somebody asks again."""

    QUEUED = "queued"
    FETCHING = "fetching"
    STORED = "stored"
    REJECTED = "rejected"
    FAILED = "failed"
    DEFERRED = "deferred"
    TOMBSTONED = "tombstoned"


PENDING_STATES = frozenset({ItemState.QUEUED, ItemState.FETCHING})


class RefusalClass(StrEnum):
    """Why an item is not taken, though nothing went wrong."""

    LICENSE = "license"
    ROBOTS = "robots"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    LIVE = "live"
    RESTRICTED = "restricted"
    PERMANENT = "permanent"
    NOT_YET = "not_yet"
    INCOMPLETE = "incomplete"


_STATE_OF = {
    RefusalClass.PERMANENT: ItemState.FAILED,
    RefusalClass.INCOMPLETE: ItemState.FAILED,
    RefusalClass.NOT_YET: ItemState.DEFERRED,
}

# Failures that another try may not meet; a repeated `ingest` queues such items again.
RETRYABLE_CLASSES = frozenset(
    {
        ErrorCode.FETCH_FAILED.value,
        ErrorCode.STORAGE_UNAVAILABLE.value,
        ErrorCode.OBJECT_CORRUPT.value,
        ErrorCode.NOT_FOUND.value,  # uploaded bytes that are gone from the store
        ErrorCode.LEASE_LOST.value,
        ErrorCode.TIMEOUT.value,
        ErrorCode.INTERNAL.value,
        RefusalClass.INCOMPLETE.value,
        RefusalClass.NOT_YET.value,
    }
)

# Failures that are the platform's and not the recording's or its server's.
OUR_CLASSES = frozenset(
    {
        ErrorCode.STORAGE_UNAVAILABLE.value,
        ErrorCode.OBJECT_CORRUPT.value,
        ErrorCode.NOT_FOUND.value,  # uploaded bytes that are gone from the store
        ErrorCode.LEASE_LOST.value,
        ErrorCode.TIMEOUT.value,
        ErrorCode.INTERNAL.value,
    }
)


class ItemRefused(FetchRefused):
    """The item is not taken, for a reason that belongs to it and not to us.

    Attributes:
        refusal: the class that summaries count.
    """

    def __init__(self, refusal: RefusalClass, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal

    @property
    def state(self) -> ItemState:
        """The state in which the item ends."""
        return _STATE_OF.get(self.refusal, ItemState.REJECTED)
