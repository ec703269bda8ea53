"""What the ingest service is made of."""

from dataclasses import dataclass
from pathlib import Path

from audiofoundation.catalog.engine import create_catalog_engine
from audiofoundation.jobs.celery_app import CeleryPublisher
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.settings import Settings
from audiofoundation.storage.object_store import ObjectStore


@dataclass(frozen=True, slots=True)
class Container:
    """The parts that routes use."""

    settings: Settings
    queue: JobQueue
    store: ObjectStore
    spool_dir: Path


def create_container(settings: Settings) -> Container:
    """Build the parts from settings; nothing is contacted yet."""
    return Container(
        settings=settings,
        queue=JobQueue(create_catalog_engine(settings.catalog), CeleryPublisher(settings.queue)),
        store=ObjectStore(settings.storage),
        spool_dir=settings.data_dir / "work" / "uploads",
    )
