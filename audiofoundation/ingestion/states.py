"""States of an item, and why one is not taken."""

from dataclasses import dataclass
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

    TAKEN_DOWN = "taken_down"
    LICENSE = "license"
    ROBOTS = "robots"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    LIVE = "live"
    RESTRICTED = "restricted"
    PERMANENT = "permanent"
    PRIVATE = "private"
    NOT_YET = "not_yet"
    INCOMPLETE = "incomplete"
    LOW_CENTROID = "low_centroid"
    LOW_CUTOFF = "low_cutoff"
    HUM = "hum"
    CLIPPED = "clipped"
    SILENT = "silent"
    NOISY = "noisy"
    WRONG_LABEL = "wrong_label"


_STATE_OF = {
    RefusalClass.TAKEN_DOWN: ItemState.TOMBSTONED,
    RefusalClass.PERMANENT: ItemState.FAILED,
    RefusalClass.PRIVATE: ItemState.FAILED,
    RefusalClass.INCOMPLETE: ItemState.FAILED,
    RefusalClass.NOT_YET: ItemState.DEFERRED,
}


@dataclass(frozen=True, slots=True)
class _Recheck:
    after_s: float
    max_rechecks: int


_DAY_S = 86_400.0
_RECHECKS = {
    RefusalClass.NOT_YET: _Recheck(_DAY_S, 14),
    RefusalClass.PRIVATE: _Recheck(30 * _DAY_S, 1),
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
        ready_at: when this may be over, in seconds since the epoch, if the source says so.
    """

    def __init__(self, refusal: RefusalClass, message: str, *, ready_at: float | None = None) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.ready_at = ready_at

    @property
    def state(self) -> ItemState:
        """The state in which the item ends."""
        return _STATE_OF.get(self.refusal, ItemState.REJECTED)

    def recheck_at(self, *, now: float, num_rechecks: int) -> float | None:
        """Return when the item is looked at again by itself; None when it is not.

        A live or announced video: a day after it is expected, and every day for two weeks. A private one: once,
        after 30 days. Everything else: when somebody asks again.
        """
        rule = _RECHECKS.get(self.refusal)
        if rule is None or num_rechecks >= rule.max_rechecks:
            return None
        return max(now, self.ready_at or now) + rule.after_s
