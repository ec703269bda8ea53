"""Every error code has a meaning in each protocol, and every error has a code of its own tree."""

import inspect
from collections.abc import Mapping

import pytest

from audiofoundation import errors
from audiofoundation.errors import AudioFoundationError, ErrorCode
from audiofoundation.transport.errors import GRPC_STATUS, HTTP_STATUS, WEBSOCKET_CLOSE

TABLES = {"http": HTTP_STATUS, "grpc": GRPC_STATUS, "websocket": WEBSOCKET_CLOSE}
CLASSES = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, AudioFoundationError) and found is not AudioFoundationError
]


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_each_table_is_complete(table: Mapping[ErrorCode, int]) -> None:
    assert set(table) == set(ErrorCode)


def test_values_are_valid_in_their_protocol() -> None:
    assert all(400 <= status < 600 for status in HTTP_STATUS.values())
    assert all(1 <= status <= 16 for status in GRPC_STATUS.values())
    assert all(1000 <= code <= 1015 or 4000 <= code < 5000 for code in WEBSOCKET_CLOSE.values())
    # RFC 6455: these must never be sent.
    assert not {1004, 1005, 1006, 1015} & set(WEBSOCKET_CLOSE.values())


def test_a_callers_mistake_is_never_answered_as_ours() -> None:
    ours = {
        ErrorCode.OVERLOADED,
        ErrorCode.MODEL_NOT_READY,
        ErrorCode.STORAGE_UNAVAILABLE,
        ErrorCode.OBJECT_CORRUPT,
        ErrorCode.TIMEOUT,
        ErrorCode.INTERNAL,
    }
    assert {code for code, status in HTTP_STATUS.items() if status >= 500} == ours


def test_every_code_is_raised_by_some_class_and_every_class_is_explained() -> None:
    assert {found.code for found in CLASSES} == set(ErrorCode)
    assert [found.__name__ for found in CLASSES if not inspect.getdoc(found)] == []
