"""The process that makes shards: `python -m services.preprocess.worker`."""

import os
import sys

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    """Work until SIGTERM, with one thread per process: the processes are what runs in parallel."""
    for name in _THREAD_VARIABLES:
        os.environ.setdefault(name, "1")
    # NumPy reads these variables when it loads.
    from audiofoundation.errors import InvalidRequest
    from audiofoundation.settings import Settings
    from services.preprocess.tasks import work

    try:
        work(Settings())
    except InvalidRequest as error:
        sys.exit(f"error: {error.message}")


if __name__ == "__main__":
    main()
