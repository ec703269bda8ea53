"""The jobs of the preprocess service and the worker that runs them."""

from audiofoundation.catalog.engine import create_catalog_engine
from audiofoundation.jobs.kinds import QUEUE_OF, JobKind
from audiofoundation.jobs.runner import HandlerSpec
from audiofoundation.jobs.worker import run_worker
from audiofoundation.preprocessing.commit_job import DatasetCommit
from audiofoundation.preprocessing.shard_job import ShardPreprocess
from audiofoundation.settings import Settings
from audiofoundation.storage.object_store import ObjectStore


def work(settings: Settings) -> None:
    """Work until SIGTERM."""
    engine = create_catalog_engine(settings.catalog)
    store = ObjectStore(settings.storage)
    store.ensure_bucket()
    shards = ShardPreprocess(engine, store, settings.data_dir / "work" / "preprocess")
    datasets = DatasetCommit(engine, store)
    run_worker(
        settings,
        queues=[QUEUE_OF[JobKind.PREPROCESS_SHARD]],
        handlers={
            JobKind.PREPROCESS_SHARD: HandlerSpec(shards, shards.on_failure),
            JobKind.PREPROCESS_COMMIT: HandlerSpec(datasets, datasets.on_failure),
        },
        concurrency=settings.jobs.preprocess_concurrency,
    )
