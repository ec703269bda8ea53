import json
from collections.abc import Mapping, Sequence

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from tests.unit.transport.serving import AUTHORIZED, KEY


def opened(
    address: str,
    *,
    headers: Mapping[str, str] | None = None,
    subprotocols: Sequence[str] = (),
    origin: str | None = None,
    query: str = "",
) -> ClientConnection:
    return connect(
        address.replace("http", "ws", 1) + "/v1/echo" + query,
        additional_headers=headers,
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        origin=Origin(origin) if origin else None,
    )


def echoed(connection: ClientConnection) -> str:
    with connection:
        connection.send("hello")
        return str(connection.recv(timeout=5))


def test_a_key_in_the_header_opens(address: str) -> None:
    assert echoed(opened(address, headers=AUTHORIZED)) == "hello"


def test_a_key_offered_as_subprotocol_opens_and_is_not_echoed(address: str) -> None:
    connection = opened(address, subprotocols=["audiofoundation.v1", f"bearer.{KEY}"])

    assert connection.subprotocol == "audiofoundation.v1"
    assert echoed(connection) == "hello"


@pytest.mark.parametrize(
    ("headers", "subprotocols"),
    [
        ({}, []),
        ({"Authorization": "Bearer wrong"}, []),
        ({}, ["audiofoundation.v1", "bearer.wrong"]),
    ],
)
def test_without_a_valid_key_the_upgrade_is_answered_401(
    address: str, headers: dict[str, str], subprotocols: list[str]
) -> None:
    with pytest.raises(InvalidStatus) as caught:
        opened(address, headers=headers, subprotocols=subprotocols)

    assert caught.value.response.status_code == 401
    assert json.loads(caught.value.response.body or b"")["error"]["code"] == "unauthenticated"


def test_a_key_in_the_url_does_not_count(address: str) -> None:
    with pytest.raises(InvalidStatus):
        opened(address, query=f"?api_key={KEY}&token={KEY}")


def test_pages_of_foreign_origins_are_refused_even_with_the_key(address: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        opened(address, headers=AUTHORIZED, origin="https://evil.example")

    assert caught.value.response.status_code == 403


@pytest.mark.parametrize("is_own", [True, False])
def test_pages_of_our_own_and_of_allowed_origins_may_connect(address: str, is_own: bool) -> None:
    origin = address if is_own else "https://page.example"

    assert echoed(opened(address, headers=AUTHORIZED, origin=origin)) == "hello"


def test_an_error_after_the_upgrade_is_a_message_and_a_close_code(address: str) -> None:
    with opened(address, headers=AUTHORIZED) as connection:
        connection.send("fail")
        message = json.loads(connection.recv(timeout=5))
        with pytest.raises(ConnectionClosed) as caught:
            connection.recv(timeout=5)

    assert message == {"type": "error", "code": "undecodable_audio", "message": "This is text, not audio."}
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1007
