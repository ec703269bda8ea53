"""What the trainer's loop calls: saving, and telling the catalog and TensorBoard how training goes."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from torch import nn

from audiofoundation.errors import StorageUnavailable
from audiofoundation.training.audition import audition
from audiofoundation.training.checkpoints import CheckpointStore
from audiofoundation.training.corpus import Corpus
from audiofoundation.training.event_log import EventLog
from audiofoundation.training.ledger import RunLedger
from audiofoundation.training.trainer import Progress, TrainerConfig, TrainState

PROGRESS_EVERY_S = 1.0
_SCALARS_EVERY = 10
_NUM_SMOOTHED = 20

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Saver:
    """Saves; while the store is away, training goes on and the next save tries again, except the last."""

    checkpoints: CheckpointStore
    num_steps: int

    def __call__(self, state: TrainState) -> None:
        try:
            self.checkpoints.save(state)
        except StorageUnavailable as error:
            if state.step >= self.num_steps:
                raise
            _log.warning("checkpoint_not_saved", step=state.step, error=error.message)


@dataclass(slots=True)
class Reporter:
    """Tells the catalog and TensorBoard how training goes."""

    ledger: RunLedger
    events: EventLog
    corpus: Corpus
    config: TrainerConfig
    ema: nn.Module
    stop: threading.Event
    losses: dict[str, float] = field(default_factory=dict)
    told_at: float = 0.0

    def __call__(self, progress: Progress) -> None:
        self._smooth(progress.losses)
        self.losses |= {f"validation/{name}": value for name, value in progress.metrics.items()}
        if progress.step % _SCALARS_EVERY == 0 or progress.metrics:
            rate = {"learning_rate": self.config.rate_at(progress.step - 1)}
            timing = {"seconds_per_step": progress.seconds_per_step}
            metrics = {f"validation/{name}": value for name, value in progress.metrics.items()}
            self.events.add_scalars(progress.step, {**progress.losses, **metrics, **rate, **timing})
        if self._is_evaluation(progress):
            self._play(progress.step)
        if time.monotonic() - self.told_at >= PROGRESS_EVERY_S:
            self._tell(progress.step)

    def finish(self, state: TrainState) -> None:
        """Write the last step."""
        self._smooth(state.losses)
        self._tell(state.step)

    def _smooth(self, losses: Mapping[str, float]) -> None:
        """Keep running means, since one step's loss says little."""
        for name, value in losses.items():
            before = self.losses.get(name, value)
            self.losses[name] = before + (value - before) / _NUM_SMOOTHED

    def _is_evaluation(self, progress: Progress) -> bool:
        every = self.config.evaluate_every
        return bool(every) and (progress.step % every == 0 or progress.step == progress.num_steps)

    def _play(self, step: int) -> None:
        if self.stop.is_set():
            return  # whoever asks us to leave does not wait for music
        for clip in audition(self.ema, self.corpus):
            self.events.add_audio(step, clip.tag, clip.samples, clip.sample_rate_hz)

    def _tell(self, step: int) -> None:
        try:
            if self.ledger.write_progress(step, self.losses):
                self.stop.set()
        except StorageUnavailable as error:
            _log.warning("progress_not_written", error=error.message)
        self.told_at = time.monotonic()
