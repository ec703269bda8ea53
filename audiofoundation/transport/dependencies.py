"""Whether the servers that we depend on answer: for `/health` and `doctor`. One sentence when they do not."""

import socket
from urllib.parse import urlsplit

import redis
from sqlalchemy import text

from audiofoundation.catalog.engine import create_catalog_engine, read_session
from audiofoundation.errors import AudioFoundationError
from audiofoundation.settings import CatalogSettings, QueueSettings, StorageSettings
from audiofoundation.storage.object_store import ObjectStore

_TIMEOUT_S = 2.0


def check_storage(settings: StorageSettings) -> str | None:
    """Return what is wrong with the object store, None when it answers with our keys."""
    split = urlsplit(f"//{settings.endpoint}")
    try:  # the store itself would be patient for 20 s with a server that is away
        socket.create_connection(
            (split.hostname or "", split.port or (443 if settings.is_secure else 80)), _TIMEOUT_S
        ).close()
        ObjectStore(settings).exists("health")
    except (OSError, ValueError, AudioFoundationError) as error:
        return f"the object store at {settings.endpoint} cannot be used: {error}"
    return None


def check_queue(settings: QueueSettings) -> str | None:
    """Return what is wrong with the queue server, None when it answers."""
    url = settings.url.get_secret_value()
    where = urlsplit(url).netloc.rpartition("@")[2]
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=_TIMEOUT_S, socket_timeout=_TIMEOUT_S) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        return f"the queue server at {where} cannot be used: {error}"
    return None


def check_catalog(settings: CatalogSettings) -> str | None:
    """Return what is wrong with the catalog, None when it answers."""
    try:
        engine = create_catalog_engine(settings)
        try:
            with read_session(engine) as session:
                session.execute(text("SELECT 1"))
        finally:
            engine.dispose()
    except AudioFoundationError as error:
        return f"the catalog cannot be used: {error}"
    return None
