"""Real Celery workers that tests may kill, started from one process that has the imports already."""

import multiprocessing
import os
import signal
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Protocol

from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.runner import HandlerSpec
from audiofoundation.settings import Settings

PRELOADED = ["audiofoundation.jobs.worker", "tests.unit.jobs.handlers", "celery.apps.worker", "celery.bin.worker"]


class CreateHandlers(Protocol):
    """Makes the handlers inside the worker; a module-level function, so that it can be named to it."""

    def __call__(self) -> Mapping[JobKind, HandlerSpec]: ...


def worker_context() -> ForkServerContext:
    """Return a way to start workers that share one import of Celery."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def start_worker(settings: Settings, create_handlers: CreateHandlers, *, concurrency: int) -> ForkServerProcess:
    """Start a worker process for the queue `maintenance`."""
    process = worker_context().Process(target=_work, args=(settings, create_handlers, concurrency))
    process.start()
    return process


def kill(pid: int) -> None:
    """SIGKILL, if it still runs."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def children_of(pid: int) -> list[int]:
    """Return the ids of the process's children."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def is_running(pid: int) -> bool:
    """Return whether the process runs (a zombie does not)."""
    path = Path(f"/proc/{pid}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


def _work(settings: Settings, create_handlers: CreateHandlers, concurrency: int) -> None:
    from audiofoundation.jobs.worker import run_worker

    handlers = create_handlers()
    run_worker(settings, queues=["maintenance"], handlers=handlers, concurrency=concurrency, service="test-worker")
