"""What an error means in each protocol: three complete tables, and the one body that HTTP clients see."""

from collections.abc import Mapping
from typing import TypedDict

from audiofoundation.errors import AudioFoundationError, ErrorCode

HTTP_STATUS: Mapping[ErrorCode, int] = {
    ErrorCode.INVALID_REQUEST: 400,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.CONFLICT: 409,
    ErrorCode.PAYLOAD_TOO_LARGE: 413,
    ErrorCode.UNDECODABLE_AUDIO: 422,
    ErrorCode.AUDIO_TOO_LONG: 422,
    ErrorCode.UNSAFE_URL: 400,
    ErrorCode.FETCH_FAILED: 424,
    ErrorCode.MEL_MISMATCH: 409,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.OVERLOADED: 503,
    ErrorCode.MODEL_NOT_READY: 503,
    ErrorCode.STORAGE_UNAVAILABLE: 503,
    ErrorCode.OBJECT_CORRUPT: 500,
    ErrorCode.LEASE_LOST: 409,
    ErrorCode.CANCELLED: 499,  # as nginx has it: the client left
    ErrorCode.TIMEOUT: 504,
    ErrorCode.INTERNAL: 500,
}

# Numbers of google.rpc.Code, so that images without gRPC can read this table.
GRPC_STATUS: Mapping[ErrorCode, int] = {
    ErrorCode.INVALID_REQUEST: 3,  # INVALID_ARGUMENT
    ErrorCode.UNAUTHENTICATED: 16,  # UNAUTHENTICATED
    ErrorCode.FORBIDDEN: 7,  # PERMISSION_DENIED
    ErrorCode.NOT_FOUND: 5,  # NOT_FOUND
    ErrorCode.CONFLICT: 9,  # FAILED_PRECONDITION
    ErrorCode.PAYLOAD_TOO_LARGE: 3,  # INVALID_ARGUMENT: RESOURCE_EXHAUSTED would invite a retry
    ErrorCode.UNDECODABLE_AUDIO: 3,  # INVALID_ARGUMENT
    ErrorCode.AUDIO_TOO_LONG: 3,  # INVALID_ARGUMENT
    ErrorCode.UNSAFE_URL: 3,  # INVALID_ARGUMENT
    ErrorCode.FETCH_FAILED: 9,  # FAILED_PRECONDITION
    ErrorCode.MEL_MISMATCH: 9,  # FAILED_PRECONDITION
    ErrorCode.RATE_LIMITED: 8,  # RESOURCE_EXHAUSTED
    ErrorCode.OVERLOADED: 8,  # RESOURCE_EXHAUSTED
    ErrorCode.MODEL_NOT_READY: 14,  # UNAVAILABLE
    ErrorCode.STORAGE_UNAVAILABLE: 14,  # UNAVAILABLE
    ErrorCode.OBJECT_CORRUPT: 15,  # DATA_LOSS
    ErrorCode.LEASE_LOST: 10,  # ABORTED
    ErrorCode.CANCELLED: 1,  # CANCELLED
    ErrorCode.TIMEOUT: 4,  # DEADLINE_EXCEEDED
    ErrorCode.INTERNAL: 13,  # INTERNAL
}

# RFC 6455 section 7.4 and IANA's registry; 4000 upwards is for applications, here 4000 + the HTTP status.
WEBSOCKET_CLOSE: Mapping[ErrorCode, int] = {
    ErrorCode.INVALID_REQUEST: 1008,
    ErrorCode.UNAUTHENTICATED: 4401,
    ErrorCode.FORBIDDEN: 4403,
    ErrorCode.NOT_FOUND: 4404,
    ErrorCode.CONFLICT: 4409,
    ErrorCode.PAYLOAD_TOO_LARGE: 1009,
    ErrorCode.UNDECODABLE_AUDIO: 1007,
    ErrorCode.AUDIO_TOO_LONG: 1009,
    ErrorCode.UNSAFE_URL: 1008,
    ErrorCode.FETCH_FAILED: 4424,
    ErrorCode.MEL_MISMATCH: 4409,
    ErrorCode.RATE_LIMITED: 1013,
    ErrorCode.OVERLOADED: 1013,
    ErrorCode.MODEL_NOT_READY: 1013,
    ErrorCode.STORAGE_UNAVAILABLE: 1013,
    ErrorCode.OBJECT_CORRUPT: 1011,
    ErrorCode.LEASE_LOST: 4409,
    ErrorCode.CANCELLED: 1000,
    ErrorCode.TIMEOUT: 4504,
    ErrorCode.INTERNAL: 1011,
}


class ErrorDetail(TypedDict):
    """What a client sees of an error, in the shape of the OpenAI API."""

    message: str
    type: str
    param: str | None
    code: str
    request_id: str


class ErrorBody(TypedDict):
    error: ErrorDetail


def error_type(code: ErrorCode) -> str:
    """Return the coarse kind that clients branch on: whose fault it was, and whether to try again."""
    named = {
        ErrorCode.UNAUTHENTICATED: "authentication_error",
        ErrorCode.FORBIDDEN: "permission_error",
        ErrorCode.NOT_FOUND: "not_found_error",
        ErrorCode.RATE_LIMITED: "rate_limit_error",
    }
    return named.get(code, "invalid_request_error" if HTTP_STATUS[code] < 500 else "server_error")


def error_body(error: AudioFoundationError, request_id: str) -> ErrorBody:
    """Return the JSON body that every HTTP error has."""
    return {
        "error": {
            "message": error.message,
            "type": error_type(error.code),
            "param": error.param,
            "code": error.code.value,
            "request_id": request_id,
        }
    }


def error_headers(error: AudioFoundationError) -> dict[str, str]:
    """Return the headers that go with an error: how to authenticate, when to come back."""
    headers = {}
    if error.code is ErrorCode.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    elif HTTP_STATUS[error.code] in (429, 503):
        headers["Retry-After"] = "1"
    return headers
