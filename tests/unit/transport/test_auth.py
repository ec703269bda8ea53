import pytest
from pydantic import SecretStr

from audiofoundation.errors import Unauthenticated
from audiofoundation.settings import ServingSettings
from audiofoundation.transport.auth import Authenticator, bearer_token

KEYS = Authenticator(ServingSettings(api_keys=(SecretStr("first-key"), SecretStr("second-key"))))


@pytest.mark.parametrize("key", ["first-key", "second-key"])
def test_each_known_key_is_accepted(key: str) -> None:
    KEYS.check(key)
    KEYS.check_header(f"Bearer {key}")


@pytest.mark.parametrize("key", [None, "", "first-ke", "first-key ", "FIRST-KEY", "first-key,second-key", "\udce4"])
def test_everything_else_is_refused(key: str | None) -> None:
    with pytest.raises(Unauthenticated):
        KEYS.check(key)


def test_without_configured_keys_nobody_may_call() -> None:
    with pytest.raises(Unauthenticated):
        Authenticator(ServingSettings()).check("")


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("BEARER  abc ", "abc"),
        ("Basic abc", None),
        ("Bearer ", None),
        ("abc", None),
        (None, None),
    ],
)
def test_tokens_are_found_in_headers(header: str | None, token: str | None) -> None:
    assert bearer_token(header) == token
