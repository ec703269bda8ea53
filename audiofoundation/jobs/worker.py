"""The Celery worker as a process that dies cleanly: no orphans, no second retry brain."""

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence

# Celery reads this when its worker is imported: SIGTERM then lets running jobs end for a minute.
os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")

from billiard.process import current_process
from celery import signals

from audiofoundation.catalog.engine import create_catalog_engine
from audiofoundation.jobs.celery_app import CeleryPublisher, create_celery_app
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.jobs.runner import HandlerSpec
from audiofoundation.jobs.sweeper import SweeperThread
from audiofoundation.settings import Settings, TelemetrySettings
from audiofoundation.telemetry import configure_logging
from audiofoundation.telemetry.notify import notify_ready
from audiofoundation.telemetry.tracing import prepare_tracing, start_tracing, stop_tracing
from audiofoundation.telemetry.worker_metrics import serve_worker_metrics

_PARENT_CHECK_S = 1.0


def run_worker(
    settings: Settings,
    *,
    queues: Sequence[str],
    handlers: Mapping[JobKind, HandlerSpec],
    concurrency: int,
    service: str,
    metrics_port: int = 0,
) -> None:
    """Work on the queues until SIGTERM, or until the process that started this one is gone.

    Handlers run in forked children; what they hold must bear a fork (`ObjectStore` and the catalog's
    engine do). The sweeper runs in this process, and so do metrics where a port is given. Each child sends its own
    traces, in which it is called after the service.

    Raises:
        Conflict: the port of the metrics is taken.
    """
    configure_logging(settings.telemetry)
    _exit_with_parent()
    if metrics_port:
        folder = settings.data_dir / "work" / "metrics" / f"{queues[0]}-{metrics_port}"
        serve_worker_metrics(folder, host=settings.metrics.host, port=metrics_port, place=_place_in_pool)
    app = create_celery_app(settings, queues=queues, handlers=handlers)
    prepare_tracing(settings.telemetry)
    signals.worker_process_init.connect(_child_of(os.getpid(), settings.telemetry, service), weak=False)
    signals.worker_process_shutdown.connect(lambda **_: stop_tracing(), weak=False)  # a child's usual end
    signals.worker_ready.connect(lambda **_: notify_ready(), weak=False)
    queue = JobQueue(create_catalog_engine(settings.catalog), CeleryPublisher(settings.queue))
    sweeper = SweeperThread(queue, settings.jobs)
    sweeper.start()
    worker = app.Worker(
        pool="prefork",
        concurrency=concurrency,
        queues=list(queues),
        hostname=f"{queues[0]}-{os.getpid()}@audiofoundation",
        optimization="fair",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel=settings.telemetry.log_level,
        quiet=True,
    )
    # A failed acknowledgement must reach the event loop (see celery_request).
    worker.pool.callbacks_propagate = app.connection_for_read().connection_errors
    worker.start()
    sweeper.stop()


def _place_in_pool() -> str:
    """Name the worker or a child's place in its pool; only when a child has ended does another get its place."""
    return str(getattr(current_process(), "index", "worker"))


def _exit_with_parent() -> None:
    """Kill this process once its parent has gone; its children have a death signal of their own.

    PR_SET_PDEATHSIG would do it when the *thread* that started us ends, so the main process looks instead.
    """
    parent = os.getppid()
    never = threading.Event()

    def watch() -> None:
        while not never.wait(_PARENT_CHECK_S):
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _child_of(worker_pid: int, telemetry: TelemetrySettings, service: str) -> Callable[..., None]:
    """Return what a forked child does first. Celery 5.7 has then told the kernel to kill it with the worker.

    When Celery ends a child (SIGQUIT), it raises SystemExit there, and `run_job` gives the job back.
    """

    def prepare(**_: object) -> None:
        if os.getppid() != worker_pid:
            os._exit(1)  # the worker died before the kernel was told
        start_tracing(telemetry, service=service)

    return prepare
