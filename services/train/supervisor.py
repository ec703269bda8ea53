"""The run supervisor: `python -m services.train.supervisor`."""

import os
import signal
import subprocess
import sys
import threading

from audiofoundation.catalog.engine import create_catalog_engine
from audiofoundation.jobs.celery_app import CeleryPublisher
from audiofoundation.jobs.hints import HintLists
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.jobs.sweeper import SweeperThread
from audiofoundation.shards.retired import CopyKeeper
from audiofoundation.telemetry import configure_logging
from audiofoundation.telemetry.notify import NOTIFY_SOCKET, notify_ready
from audiofoundation.training.holding import HeldRun
from audiofoundation.training.supervisor import Supervisor
from services.train.settings import TrainSettings


def main() -> None:
    """Hold runs until SIGTERM."""
    settings = TrainSettings()
    configure_logging(settings.telemetry)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    queue = JobQueue(create_catalog_engine(settings.catalog), CeleryPublisher(settings.queue))
    sweeper = SweeperThread(queue, settings.jobs)
    sweeper.start()
    copies = CopyKeeper(queue.engine, settings.data_dir)
    copies.start()
    hints = HintLists(settings.queue)
    supervisor = Supervisor(queue, hints, start_trainer, options=settings.train.to_options(), jobs=settings.jobs)
    notify_ready()
    supervisor.run(stop)
    sweeper.stop()
    copies.stop()
    hints.close()


def start_trainer(held: HeldRun) -> "subprocess.Popen[bytes]":
    """Start the child of an attempt; it watches over its own death when we die (see `services.train.trainer`)."""
    command = [sys.executable, "-P", "-m", "services.train.trainer"]
    command += ["--run", held.run_id, "--attempt", str(held.attempt), "--parent", str(os.getpid())]
    env = {name: value for name, value in os.environ.items() if name != NOTIFY_SOCKET}
    return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
