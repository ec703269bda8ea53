"""Bring the catalog to the newest schema, make the bucket and leave: run once before the services start."""

import sys

import structlog

from audiofoundation.catalog.engine import create_catalog_engine, migrate
from audiofoundation.errors import AudioFoundationError
from audiofoundation.settings import Settings
from audiofoundation.storage.object_store import ObjectStore

log = structlog.get_logger(__name__)


def prepare(settings: Settings) -> None:
    """Migrate the catalog and create the bucket that the settings name; both may already be as wanted.

    Raises:
        StorageUnavailable: a store did not answer or refused.
        InvalidRequest: the catalog's URL cannot be used.
    """
    migrate(create_catalog_engine(settings.catalog))
    log.info("catalog_migrated")
    ObjectStore(settings.storage).ensure_bucket()
    log.info("bucket_ready", bucket=settings.storage.bucket)


if __name__ == "__main__":
    try:
        prepare(Settings())
    except AudioFoundationError as error:
        sys.exit(f"error: {error}")
