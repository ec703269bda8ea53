"""The jobs of the ingest service and the worker that runs them, and the collector beside it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from audiofoundation.catalog.engine import create_catalog_engine
from audiofoundation.ingestion.collector import Collector
from audiofoundation.ingestion.collector_thread import collecting
from audiofoundation.ingestion.expand_job import DiscoveryExpand
from audiofoundation.ingestion.item_job import ItemIngest
from audiofoundation.ingestion.leftovers import remove_leftovers
from audiofoundation.ingestion.policy_record import record_policy
from audiofoundation.ingestion.probe_labels import open_labeller
from audiofoundation.ingestion.purge_job import Purge
from audiofoundation.jobs.celery_app import CeleryPublisher
from audiofoundation.jobs.kinds import QUEUE_OF, JobKind
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.jobs.runner import HandlerSpec
from audiofoundation.jobs.worker import run_worker
from audiofoundation.settings import Settings
from audiofoundation.shards.retired import drop_retired
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.telemetry import configure_logging

_CONCURRENCY = 2


def work(settings: Settings) -> None:
    """Work until SIGTERM."""
    configure_logging(settings.telemetry)  # also for what is said while the handlers are made
    handlers = create_handlers(settings)
    with _collecting(settings) if settings.collector.interval_s else nullcontext():
        run_worker(
            settings,
            queues=[QUEUE_OF[JobKind.INGEST_ITEM]],
            handlers=handlers,
            concurrency=_CONCURRENCY,
            service="ingest-worker",
            metrics_port=settings.metrics.ingest_worker_port,
        )


def _collecting(settings: Settings) -> AbstractContextManager[None]:
    engine = create_catalog_engine(settings.catalog)
    queue = JobQueue(engine, CeleryPublisher(settings.queue))
    collector = Collector(engine, ObjectStore(settings.storage))
    return collecting(queue, collector, interval_s=settings.collector.interval_s)


def create_handlers(settings: Settings) -> Mapping[JobKind, HandlerSpec]:
    """Return what the worker does, the most urgent first."""
    store = ObjectStore(settings.storage)
    store.ensure_bucket()
    engine = create_catalog_engine(settings.catalog)
    drop_retired(engine, settings.data_dir)
    record_policy(engine, settings.fetch)
    work_dir = settings.data_dir / "work" / "ingest"
    remove_leftovers(work_dir, engine)
    expand = DiscoveryExpand(
        queue=JobQueue(engine, CeleryPublisher(settings.queue)),
        settings=settings.fetch,
        jobs=settings.jobs,
        work_dir=settings.data_dir / "work" / "expand",
    )
    ingest = ItemIngest(
        engine=engine,
        store=store,
        settings=settings.fetch,
        jobs=settings.jobs,
        work_dir=work_dir,
        probe=settings.probe,
        labeller=open_labeller(settings.models.pretrained_dir, settings.probe),
    )
    purge = Purge(engine, store, settings.data_dir)
    # What was taken down goes first; what is still to be found comes before the million items that were.
    return {
        JobKind.PURGE: HandlerSpec(purge, purge.on_failure),
        JobKind.INGEST_EXPAND: HandlerSpec(expand, expand.on_failure),
        JobKind.INGEST_ITEM: HandlerSpec(ingest, ingest.on_failure),
    }
