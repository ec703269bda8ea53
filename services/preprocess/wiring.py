"""What the preprocess service is made of."""

from dataclasses import dataclass

from audiofoundation.catalog.engine import create_catalog_engine
from audiofoundation.jobs.celery_app import CeleryPublisher
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.settings import Settings


@dataclass(frozen=True, slots=True)
class Container:
    """The parts that routes use."""

    queue: JobQueue
    num_workers: int


def create_container(settings: Settings) -> Container:
    """Build the parts from settings; nothing is contacted yet."""
    return Container(
        queue=JobQueue(create_catalog_engine(settings.catalog), CeleryPublisher(settings.queue)),
        num_workers=settings.jobs.preprocess_concurrency,
    )
