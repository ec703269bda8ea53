"""Settings of the train service: the shared blocks and one of its own."""

from pydantic import BaseModel, ConfigDict

from audiofoundation.settings import Settings
from audiofoundation.training.supervisor import SupervisorOptions


class TrainBlock(BaseModel):
    """How patiently the supervisor holds runs; `SupervisorOptions` says what each means."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lease_s: float = 60.0
    heartbeat_s: float = 10.0
    max_attempts: int = 5
    max_backoff_s: float = 60.0
    stop_grace_s: float = 18.0
    stall_s: float = 1800.0
    poll_s: float = 2.0

    def to_options(self) -> SupervisorOptions:
        """Return the supervisor's options."""
        return SupervisorOptions(**self.model_dump())


class TrainSettings(Settings):
    """All blocks and `AF_TRAIN__…`."""

    train: TrainBlock = TrainBlock()
