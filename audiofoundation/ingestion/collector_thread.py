"""The collector by itself: every ingest worker looks for its turn, and in each interval one of them passes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import structlog
from sqlalchemy.exc import SQLAlchemyError

from audiofoundation.errors import AudioFoundationError, Cancelled, StorageUnavailable
from audiofoundation.ingestion.collector import Collector, resume_purges
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.jobs.role import come_again, take_turn

TURN = "collector.turn"
_LOOKS_IN_INTERVAL = 4
_MAX_PAUSE_S = 60.0
_TRY_AGAIN_S = 600.0
_STOP_S = 5.0

_log = structlog.get_logger(__name__)


class CollectorThread:
    """Passes every `interval_s`, unless another process does, until stopped."""

    def __init__(self, queue: JobQueue, collector: Collector, *, interval_s: float) -> None:
        self._queue = queue
        self._collector = replace(collector, sleep=self._rest)
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)

    def start(self) -> None:
        """Start looking; the first pass comes an interval after anybody has looked."""
        self._thread.start()

    def stop(self) -> None:
        """Stop before the next deletion. A listing in progress is not waited for: it dies with the process."""
        self._stopped.set()
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        while not self._stopped.wait(min(self._interval_s / _LOOKS_IN_INTERVAL, _MAX_PAUSE_S)):
            try:
                if take_turn(self._queue.engine, TURN, every_s=self._interval_s):
                    self._pass()
            except Cancelled:
                return
            except (AudioFoundationError, SQLAlchemyError) as error:  # of any kind: the next turn comes
                _log.warning("collector_not_run", error=str(error))

    def _pass(self) -> None:
        """Do what `gc --apply` does. Raises StorageUnavailable, Cancelled."""
        try:
            with self._queue.unit_of_work() as unit:
                num_resumed = resume_purges(unit)
            is_more = True
            while is_more:
                found = self._collector.collect(is_applied=True)
                is_more = found.is_more
                _log.info(
                    "collector_passed",
                    num_objects=found.num_objects,
                    num_orphans=len(found.orphans),
                    num_deleted=len(found.deleted),
                    num_purges_resumed=num_resumed,
                )
        except StorageUnavailable:
            come_again(self._queue.engine, TURN, in_s=min(self._interval_s, _TRY_AGAIN_S))
            raise
        except Cancelled:
            come_again(self._queue.engine, TURN, in_s=0.0)  # another worker, or this one when it is back
            raise
        except AudioFoundationError as error:  # one runs already, or too much would go
            _log.warning("collector_refused", error_class=error.code, error=error.message)

    def _rest(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise Cancelled("the worker stops")


@contextmanager
def collecting(queue: JobQueue, collector: Collector, *, interval_s: float) -> Iterator[None]:
    """Let the collector pass by itself until the block ends; never when the interval is 0."""
    thread = CollectorThread(queue, collector, interval_s=interval_s) if interval_s else None
    if thread is not None:
        thread.start()
    try:
        yield
    finally:
        if thread is not None:
            thread.stop()
