"""What the preprocess service is made of."""

from dataclasses import dataclass

from audiofoundation.catalog.engine import create_catalog_engine
from audiofoundation.jobs.celery_app import CeleryPublisher
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.settings import ProbeSettings, Settings
from audiofoundation.storage.object_store import ObjectStore


@dataclass(frozen=True, slots=True)
class Container:
    """The parts that routes use."""

    queue: JobQueue
    store: ObjectStore
    num_workers: int
    min_centroid_hz: float = ProbeSettings().min_centroid_hz
    custom_features: tuple[str, ...] = ()


def create_container(settings: Settings) -> Container:
    """Build the parts from settings; nothing is contacted yet."""
    return Container(
        queue=JobQueue(create_catalog_engine(settings.catalog), CeleryPublisher(settings.queue)),
        store=ObjectStore(settings.storage),
        num_workers=settings.jobs.preprocess_concurrency,
        min_centroid_hz=settings.probe.min_centroid_hz,
        custom_features=settings.preprocess.feature_names,
    )
