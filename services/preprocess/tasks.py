"""The jobs of the preprocess service and the worker that runs them."""

from collections.abc import Mapping

from audiofoundation.catalog.engine import create_catalog_engine
from audiofoundation.jobs.kinds import QUEUE_OF, JobKind
from audiofoundation.jobs.runner import HandlerSpec
from audiofoundation.jobs.worker import run_worker
from audiofoundation.preprocessing.commit_job import DatasetCommit
from audiofoundation.preprocessing.custom import load_functions
from audiofoundation.preprocessing.rewrite_job import ShardRewrite
from audiofoundation.preprocessing.shard_job import ShardPreprocess
from audiofoundation.settings import Settings
from audiofoundation.shards.retired import drop_retired
from audiofoundation.storage.object_store import ObjectStore


def work(settings: Settings) -> None:
    """Work until SIGTERM.

    Raises:
        InvalidRequest: a custom feature cannot be loaded.
    """
    run_worker(
        settings,
        queues=[QUEUE_OF[JobKind.PREPROCESS_SHARD]],
        handlers=create_handlers(settings),
        concurrency=settings.jobs.preprocess_concurrency,
        service="preprocess-worker",
        metrics_port=settings.metrics.preprocess_worker_port,
    )


def create_handlers(settings: Settings) -> Mapping[JobKind, HandlerSpec]:
    """Return what the worker does, the most urgent first: what was taken down goes before anything is made.

    Raises:
        InvalidRequest: a custom feature cannot be loaded.
    """
    functions = load_functions(settings.preprocess.custom_features)
    engine = create_catalog_engine(settings.catalog)
    drop_retired(engine, settings.data_dir)
    store = ObjectStore(settings.storage)
    store.ensure_bucket()
    work_dir = settings.data_dir / "work" / "preprocess"
    rewrite = ShardRewrite(engine, store, work_dir)
    datasets = DatasetCommit(engine, store)
    shards = ShardPreprocess(engine, store, work_dir, functions)
    return {
        JobKind.PREPROCESS_REWRITE: HandlerSpec(rewrite, rewrite.on_failure),
        JobKind.PREPROCESS_COMMIT: HandlerSpec(datasets, datasets.on_failure),
        JobKind.PREPROCESS_SHARD: HandlerSpec(shards, shards.on_failure),
    }
