import pytest

from audiofoundation.errors import AudioFoundationError, DecodeFailed, ErrorCode, Overloaded, Unauthenticated
from audiofoundation.transport.errors import error_body, error_headers, error_type
from audiofoundation.transport.websocket import close_reason


def test_the_body_has_the_shape_that_openai_clients_read() -> None:
    error = DecodeFailed("This is text, not audio.", param="file")

    assert error_body(error, "req_1") == {
        "error": {
            "message": "This is text, not audio.",
            "type": "invalid_request_error",
            "param": "file",
            "code": "undecodable_audio",
            "request_id": "req_1",
        }
    }


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (ErrorCode.UNAUTHENTICATED, "authentication_error"),
        (ErrorCode.RATE_LIMITED, "rate_limit_error"),
        (ErrorCode.PAYLOAD_TOO_LARGE, "invalid_request_error"),
        (ErrorCode.OVERLOADED, "server_error"),
        (ErrorCode.INTERNAL, "server_error"),
    ],
)
def test_the_type_says_whose_fault_it_was(code: ErrorCode, kind: str) -> None:
    assert error_type(code) == kind


def test_headers_say_how_to_authenticate_and_when_to_come_back() -> None:
    assert error_headers(Unauthenticated("no")) == {"WWW-Authenticate": "Bearer"}
    assert error_headers(Overloaded("busy", retry_after_s=2.6)) == {"Retry-After": "3"}
    assert error_headers(Overloaded("busy")) == {"Retry-After": "1"}
    assert error_headers(DecodeFailed("no")) == {}


def test_a_close_reason_fits_its_frame_in_whole_characters() -> None:
    reason = close_reason(AudioFoundationError("ü" * 200))

    assert len(reason.encode()) <= 123
    assert set(reason) == {"ü"}
