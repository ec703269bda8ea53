"""The trainer of one attempt at one run: `python -m services.train.trainer --run ID --attempt N`."""

import argparse
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Train until done or told to stop; the exit code says how it ended (`ExitCode`)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="the run's id")
    parser.add_argument("--attempt", required=True, type=int, help="the fencing token that the supervisor took")
    parser.add_argument("--parent", type=int, help="process id of the supervisor, with which this process dies")
    options = parser.parse_args()
    if options.parent is not None:
        _die_with(options.parent)
    # Only now: loading torch takes seconds, in which the supervisor may die.
    from audiofoundation.identifiers import RunId
    from audiofoundation.preprocessing.levelled import read_levelled
    from audiofoundation.telemetry import configure_logging
    from audiofoundation.training.run_process import run_trainer
    from services.train.settings import TrainSettings

    settings = TrainSettings()
    configure_logging(settings.telemetry)
    sys.exit(int(run_trainer(settings, RunId(options.run), options.attempt, read_levelled)))


def _die_with(parent: int) -> None:
    """Be killed when the thread that started us ends: the supervisor's main thread."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    main()
