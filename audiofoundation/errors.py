"""The error tree. Every error says in its message what was wrong and what to do.

An error carries a `code` (what a client sees, mapped to HTTP, gRPC and WebSocket codes in
`audiofoundation.transport.errors`) and `retryable` (whether the same call may succeed later).
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    """What happened, in a client's words. Each has a row in the three transport tables."""

    INVALID_REQUEST = "invalid_request"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    UNDECODABLE_AUDIO = "undecodable_audio"
    AUDIO_TOO_LONG = "audio_too_long"
    UNSAFE_URL = "unsafe_url"
    FETCH_FAILED = "fetch_failed"
    MEL_MISMATCH = "mel_mismatch"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    MODEL_NOT_READY = "model_not_ready"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    OBJECT_CORRUPT = "object_corrupt"
    LEASE_LOST = "lease_lost"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    INTERNAL = "internal"


class AudioFoundationError(Exception):
    """Root of all our errors.

    Attributes:
        code: what happened.
        retryable: whether the same call may succeed later.
        param: the request field that was wrong, when one was.
        retry_after_s: how long to wait before trying again, when known.
    """

    code: ErrorCode = ErrorCode.INTERNAL
    retryable: bool = False

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.retry_after_s = retry_after_s

    @property
    def message(self) -> str:
        return str(self)


class InvalidRequest(AudioFoundationError):
    """A field is missing, malformed or out of range."""

    code = ErrorCode.INVALID_REQUEST


class FeatureFailed(InvalidRequest):
    """A function that a user gave did not measure its feature.

    Attributes:
        feature: the feature's name.
    """

    def __init__(self, feature: str, what: str) -> None:
        super().__init__(f"the feature {feature!r} {what}")
        self.feature = feature


class Unauthenticated(AudioFoundationError):
    """No valid API key came with the request."""

    code = ErrorCode.UNAUTHENTICATED


class Forbidden(AudioFoundationError):
    """The API key does not allow this."""

    code = ErrorCode.FORBIDDEN


class NotFound(AudioFoundationError):
    """The thing named does not exist."""

    code = ErrorCode.NOT_FOUND


class AssetNotFound(NotFound):
    """No asset has this id."""


class ObjectNotFound(NotFound):
    """The object store has no object under this key."""


class ModelNotFound(NotFound):
    """No model has this name."""


class Conflict(AudioFoundationError):
    """The request contradicts the present state."""

    code = ErrorCode.CONFLICT


class PayloadTooLarge(AudioFoundationError):
    """The body exceeds the limit."""

    code = ErrorCode.PAYLOAD_TOO_LARGE


class DecodeFailed(AudioFoundationError):
    """The bytes are not audio that we decode."""

    code = ErrorCode.UNDECODABLE_AUDIO


class AudioTooLong(AudioFoundationError):
    """The audio is longer, or expands further, than the limit allows."""

    code = ErrorCode.AUDIO_TOO_LONG


class UnsafeUrl(AudioFoundationError):
    """The URL names an address or scheme that we do not fetch from."""

    code = ErrorCode.UNSAFE_URL


class FetchFailed(AudioFoundationError):
    """The other side did not give the bytes."""

    code = ErrorCode.FETCH_FAILED
    retryable = True


class FetchRefused(FetchFailed):
    """The other side said no for good: gone, private, or not licensed."""

    retryable = False


class MelMismatch(AudioFoundationError):
    """Two parts were made for different mel presets."""

    code = ErrorCode.MEL_MISMATCH


class RateLimited(AudioFoundationError):
    """The caller's quota is used up."""

    code = ErrorCode.RATE_LIMITED
    retryable = True


class Overloaded(AudioFoundationError):
    """We have no free capacity now."""

    code = ErrorCode.OVERLOADED
    retryable = True


class ModelNotReady(AudioFoundationError):
    """The model is not loaded."""

    code = ErrorCode.MODEL_NOT_READY
    retryable = True


class StorageUnavailable(AudioFoundationError):
    """The object store, the queue or the catalog did not answer."""

    code = ErrorCode.STORAGE_UNAVAILABLE
    retryable = True


class ObjectCorrupt(AudioFoundationError):
    """The bytes read are not the bytes written."""

    code = ErrorCode.OBJECT_CORRUPT


class ShardCorrupt(ObjectCorrupt):
    """A shard does not match its manifest."""


class CheckpointInvalid(ObjectCorrupt):
    """A checkpoint is malformed or does not match its checksum."""


class LeaseLost(AudioFoundationError):
    """Another worker holds the job now; nothing was written."""

    code = ErrorCode.LEASE_LOST


class Cancelled(AudioFoundationError):
    """The caller asked to stop."""

    code = ErrorCode.CANCELLED


class DeadlineExceeded(AudioFoundationError):
    """The work did not finish in the time allowed."""

    code = ErrorCode.TIMEOUT
    retryable = True


class InternalError(AudioFoundationError):
    """A defect of ours; the log has the details under the request id."""
