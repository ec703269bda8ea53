"""States of runs and models, and what a trainer's exit code says."""

from enum import IntEnum, StrEnum


class RunState(StrEnum):
    """Where a run stands. A `running` run whose supervisor died stays so until the next one takes it over."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


OVER = frozenset({RunState.DONE, RunState.FAILED, RunState.CANCELLED})


class ModelState(StrEnum):
    """A `promoted` model is the default of its task; `retired` ones were."""

    CANDIDATE = "candidate"
    PROMOTED = "promoted"
    RETIRED = "retired"


class ExitCode(IntEnum):
    """How a trainer ended; any other code is a crash, which is tried again with back-off."""

    DONE = 0
    CONFIG = 64
    NUMERIC = 70
    PREEMPTED = 75
