"""Waiting for a hint without being a Celery worker."""

import threading
import time

import pytest

from audiofoundation.identifiers import JobId
from audiofoundation.jobs.celery_app import CeleryPublisher
from audiofoundation.jobs.hints import HintLists
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.settings import QueueSettings

pytestmark = pytest.mark.slow


def test_hint_ends_the_wait(queue_settings: QueueSettings) -> None:
    publisher, lists = CeleryPublisher(queue_settings), HintLists(queue_settings)
    timer = threading.Timer(0.2, publisher.publish, (JobKind.TRAIN_RUN, JobId("j")))
    timer.start()
    started = time.monotonic()
    assert lists.wait(JobKind.TRAIN_RUN, timeout_s=30.0)
    assert time.monotonic() - started < 25.0
    assert lists.num_waiting(JobKind.TRAIN_RUN) == 0
    timer.join()
    publisher.close()
    lists.close()


def test_wait_ends_without_a_hint(queue_settings: QueueSettings) -> None:
    lists = HintLists(queue_settings)
    assert not lists.wait(JobKind.TRAIN_RUN, timeout_s=0.1)
    lists.close()
