"""Secrets of the embedded servers, generated once and kept in the data directory."""

import json
import secrets
from pathlib import Path

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from audiofoundation.embedded.private_file import write_private
from audiofoundation.errors import Conflict


class Credentials(BaseModel):
    """What the embedded servers and the API ask of their clients."""

    model_config = ConfigDict(frozen=True)

    api_key: SecretStr
    queue_password: SecretStr
    storage_access_key: SecretStr
    storage_secret_key: SecretStr


def load_credentials(path: Path) -> Credentials:
    """Return the credentials in `path`; generate them, 256 random bits each, the first time.

    Raises:
        Conflict: the file exists and is not ours.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return _generate(path)
    try:
        credentials = Credentials.model_validate_json(text)
    except ValidationError as error:
        raise Conflict(f"{path} is damaged; restore it from a backup, or remove it to generate new keys") from error
    path.chmod(0o600)
    return credentials


def _generate(path: Path) -> Credentials:
    words = {
        "api_key": f"af_{secrets.token_urlsafe(32)}",
        "queue_password": secrets.token_urlsafe(32),
        "storage_access_key": secrets.token_hex(10),
        "storage_secret_key": secrets.token_hex(32),
    }
    write_private(path, json.dumps(words, indent=2) + "\n")
    return Credentials.model_validate(words)
