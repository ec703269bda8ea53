"""The exact Celery settings: each was chosen for a fault that was seen."""

import os
import subprocess
import sys

import pytest
from pydantic import SecretStr

from audiofoundation.errors import StorageUnavailable
from audiofoundation.identifiers import JobId
from audiofoundation.jobs.celery_app import RUN_JOB, CeleryPublisher, celery_settings, create_celery_app
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.settings import CatalogSettings, QueueSettings, Settings
from tests.servers import free_port

EXPECTED: dict[str, object] = {
    "task_acks_late": True,
    "worker_prefetch_multiplier": 1,
    "task_reject_on_worker_lost": False,
    "task_time_limit": 900,
    "task_soft_time_limit": 840,
    "visibility_timeout": 1800,
    "broker_transport_options": {
        "visibility_timeout": 1800,
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "socket_keepalive": True,
        "socket_connect_timeout": 5,
        "health_check_interval": 25,
        "global_keyprefix": "af:",
    },
    "result_backend_transport_options": {"visibility_timeout": 1800},
    "task_ignore_result": True,
    "task_store_errors_even_if_ignored": False,
    "result_backend": None,
    "worker_max_tasks_per_child": 200,
    "worker_max_memory_per_child": 1_500_000,
    "worker_proc_alive_timeout": 60,
    "worker_soft_shutdown_timeout": 60,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "worker_cancel_long_running_tasks_on_connection_loss": True,
    "task_serializer": "json",
    "result_serializer": "json",
    "accept_content": ["json"],
    "worker_enable_remote_control": False,
    "worker_send_task_events": False,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
}


def test_settings_are_exactly_these() -> None:
    assert celery_settings(QueueSettings()) == EXPECTED


def test_worker_app_carries_every_setting(sqlite_catalog: CatalogSettings) -> None:
    app = create_celery_app(Settings(catalog=sqlite_catalog), queues=["ingest"], handlers={})
    assert {name: app.conf[name] for name in EXPECTED} == EXPECTED
    assert [queue.name for queue in app.conf.task_queues] == ["ingest"]


def test_worker_knows_one_task_and_nobody_retries_but_us(sqlite_catalog: CatalogSettings) -> None:
    app = create_celery_app(Settings(catalog=sqlite_catalog), queues=["ingest"], handlers={})
    ours = [task for name, task in app.tasks.items() if not name.startswith("celery.")]
    assert [task.name for task in ours] == [RUN_JOB]
    assert not hasattr(ours[0], "autoretry_for")


def test_visibility_is_twice_the_hard_limit_in_all_three_places() -> None:
    settings = EXPECTED
    limits = [
        settings["visibility_timeout"],
        *(options["visibility_timeout"] for options in settings.values() if isinstance(options, dict)),
    ]
    assert limits == [1800] * 3
    assert settings["task_time_limit"] == 900


def test_publisher_without_a_server_says_so_soon() -> None:
    publisher = CeleryPublisher(QueueSettings(url=SecretStr(f"redis://127.0.0.1:{free_port()}/0")))
    with pytest.raises(StorageUnavailable, match="did not answer"):
        publisher.publish(JobKind.NOOP, JobId("j"))
    with pytest.raises(StorageUnavailable, match="did not answer"):
        publisher.num_waiting(JobKind.NOOP)
    publisher.close()


@pytest.mark.slow
def test_published_hints_wait_in_the_queue_of_their_kind(queue_settings: QueueSettings) -> None:
    publisher = CeleryPublisher(queue_settings)
    publisher.publish(JobKind.INGEST_ITEM, JobId("a"))
    publisher.publish(JobKind.INGEST_ITEM, JobId("b"))
    publisher.publish(JobKind.NOOP, JobId("c"))
    assert publisher.num_waiting(JobKind.INGEST_ITEM) == 2
    assert publisher.num_waiting(JobKind.PREPROCESS_SHARD) == 0
    publisher.close()


def test_worker_remaps_sigterm_before_celery_reads_it() -> None:
    code = "import audiofoundation.jobs.worker, os; print(os.environ['REMAP_SIGTERM'])"
    environment = {name: value for name, value in os.environ.items() if name != "REMAP_SIGTERM"}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "SIGQUIT"
