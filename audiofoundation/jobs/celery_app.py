"""Celery as a pure function of settings: it carries ids, and nothing depends on it keeping them."""

from collections.abc import Mapping, Sequence

from celery import Celery
from kombu import Queue
from kombu.exceptions import OperationalError

from audiofoundation.catalog.engine import create_catalog_engine
from audiofoundation.errors import StorageUnavailable
from audiofoundation.identifiers import JobId
from audiofoundation.jobs.hints import HintLists
from audiofoundation.jobs.kinds import QUEUE_OF, JobKind
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.jobs.runner import HandlerSpec, run_job
from audiofoundation.settings import QueueSettings, Settings

RUN_JOB = "audiofoundation.run_job"
_REQUEST = "audiofoundation.jobs.celery_request:AcknowledgingRequest"  # by name: only workers import it
_VISIBILITY_TIMEOUT_S = 1800


def create_celery_app(settings: Settings, *, queues: Sequence[str], handlers: Mapping[JobKind, HandlerSpec]) -> Celery:
    """Return the app of a worker that serves these queues with these handlers."""
    queue = JobQueue(create_catalog_engine(settings.catalog), CeleryPublisher(settings.queue))
    app = _create_app(settings.queue)
    app.conf.update(task_queues=[Queue(name) for name in queues], task_default_queue=queues[0])

    def run(job_id: str) -> None:
        run_job(queue, JobId(job_id), handlers, settings.jobs)

    # A shared task would also enter every other app of the process.
    app.task(name=RUN_JOB, shared=False, Request=_REQUEST)(run)
    return app


class CeleryPublisher:
    """Publishes job ids to the queue of their kind."""

    def __init__(self, settings: QueueSettings) -> None:
        self._app = _create_app(settings)
        self._lists = HintLists(settings)

    def publish(self, kind: JobKind, job_id: JobId) -> None:
        """Send one hint. Raises StorageUnavailable when the queue server does not answer."""
        try:
            self._app.send_task(RUN_JOB, args=(job_id,), queue=QUEUE_OF[kind], retry=False)
        except OperationalError as error:
            raise StorageUnavailable(f"The queue server did not answer: {error}. Try again.") from error

    def num_waiting(self, kind: JobKind) -> int:
        """Return how many hints wait in the queue of this kind. Raises StorageUnavailable."""
        return self._lists.num_waiting(kind)

    def close(self) -> None:
        """Close the connections."""
        self._app.close()
        self._lists.close()


def _create_app(settings: QueueSettings) -> Celery:
    app = Celery("audiofoundation", broker=settings.url.get_secret_value(), set_as_current=False)
    app.conf.update(celery_settings(settings))
    return app


def celery_settings(settings: QueueSettings) -> dict[str, object]:
    """Return every Celery setting that we depend on, with the reason beside each odd one."""
    return {
        # Acknowledge after the work; who is killed before has a lease that the sweeper finds.
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        # The sweeper is the one retry authority: redelivery by the broker has no cap on attempts.
        "task_reject_on_worker_lost": False,
        "task_time_limit": 900,
        "task_soft_time_limit": 840,
        # At least twice the hard limit, in all three places: the shortest one wins.
        "visibility_timeout": _VISIBILITY_TIMEOUT_S,
        "broker_transport_options": {
            "visibility_timeout": _VISIBILITY_TIMEOUT_S,
            # kombu looks for abandoned messages every interval x throttle seconds: 10, not 100.
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_keepalive": True,
            "socket_connect_timeout": 5,
            "health_check_interval": 25,
            "global_keyprefix": settings.key_prefix,
        },
        "result_backend_transport_options": {"visibility_timeout": _VISIBILITY_TIMEOUT_S},
        # State is in the catalog.
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "result_backend": None,
        "worker_max_tasks_per_child": 200,
        # KiB. A cap below the size after the fork would end every child after one task.
        "worker_max_memory_per_child": 1_500_000,
        # A new child on a busy machine may need more than the default 4 s; it is killed when it does.
        "worker_proc_alive_timeout": 60,
        "worker_soft_shutdown_timeout": 60,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        # Nothing listens to remote control, and its queues outlive killed workers.
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }
