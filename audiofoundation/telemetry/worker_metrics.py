"""A worker's figures over HTTP: its forked children count in shared files, and the worker itself answers.

This is prometheus_client's multiprocess mode, with one set of files for each place in the pool and not for each
process: children are replaced every few hundred jobs, and files by process id would only ever become more.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server, values
from prometheus_client.multiprocess import MultiProcessCollector

from audiofoundation.errors import Conflict

_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # read by prometheus_client whenever it opens a file


def serve_worker_metrics(folder: Path, *, host: str, port: int, place: Callable[[], str]) -> None:
    """Answer scrapes with what this process and the children that it will fork have counted, from zero.

    Call it before anything is counted; it holds until the process ends.

    Args:
        folder: for the counts of this worker alone; what an earlier one left there goes.
        host: the address to listen on.
        port: the port to listen on.
        place: tells the process that asks from all others that run at the same time.

    Raises:
        Conflict: the port cannot be had.
    """
    registry = CollectorRegistry()
    try:
        server, _ = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise Conflict(
            f"the worker's metrics cannot be served on {host}:{port} ({error.strerror}); choose another "
            "AF_METRICS__..._WORKER_PORT"
        ) from error
    # A child that lives on for a moment must not keep the port from the next worker.
    os.register_at_fork(after_in_child=server.socket.close)
    shutil.rmtree(folder, ignore_errors=True)  # not before: whoever has the port may use the folder
    folder.mkdir(parents=True, exist_ok=True)  # a child of the last worker may write once more
    os.environ[_FOLDER_VARIABLE] = str(folder)
    values.ValueClass = values.MultiProcessValue(place)  # type: ignore[no-untyped-call]
    MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
