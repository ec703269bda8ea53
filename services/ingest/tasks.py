"""The jobs of the ingest service and the worker that runs them."""

from audiofoundation.catalog.engine import create_catalog_engine
from audiofoundation.ingestion.item_job import ItemIngest
from audiofoundation.jobs.kinds import QUEUE_OF, JobKind
from audiofoundation.jobs.runner import HandlerSpec
from audiofoundation.jobs.worker import run_worker
from audiofoundation.settings import Settings
from audiofoundation.storage.object_store import ObjectStore

_CONCURRENCY = 2


def work(settings: Settings) -> None:
    """Work until SIGTERM."""
    store = ObjectStore(settings.storage)
    store.ensure_bucket()
    ingest = ItemIngest(
        engine=create_catalog_engine(settings.catalog),
        store=store,
        settings=settings.fetch,
        jobs=settings.jobs,
        work_dir=settings.data_dir / "work" / "ingest",
    )
    run_worker(
        settings,
        queues=[QUEUE_OF[JobKind.INGEST_ITEM]],
        handlers={JobKind.INGEST_ITEM: HandlerSpec(ingest, ingest.on_failure)},
        concurrency=_CONCURRENCY,
    )
