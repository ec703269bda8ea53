"""API keys."""

import hashlib
import hmac

from audiofoundation.errors import Unauthenticated
from audiofoundation.settings import ServingSettings

_SCHEME = "bearer "


class Authenticator:
    """Knows the digests of the keys that may call us. Without any key configured, nobody may."""

    def __init__(self, serving: ServingSettings) -> None:
        self._digests = tuple(_digest(key.get_secret_value()) for key in serving.api_keys)

    def check(self, token: str | None) -> None:
        """Accept a key that we know, in a time that does not depend on which one or how much of it is right.

        Raises:
            Unauthenticated: no key came, or not one of ours.
        """
        if not token:
            raise Unauthenticated("an API key is needed: send it as `Authorization: Bearer KEY`")
        digest = _digest(token)
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if not any(matches):
            raise Unauthenticated("this API key is not valid here; `audiofoundation up` writes the valid one")

    def check_header(self, authorization: str | None) -> None:
        """As `check`, for the value of an `Authorization` header."""
        self.check(bearer_token(authorization))


def bearer_token(authorization: str | None) -> str | None:
    """Return the token of an `Authorization: Bearer …` value, None when it is anything else."""
    if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
        return None
    return authorization[len(_SCHEME) :].strip() or None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
