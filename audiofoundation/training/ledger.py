"""What a trainer writes in the catalog, fenced by the run's attempt.

Each start of a trainer takes the next attempt number. Progress, checkpoints and the finished model are
written only while the run's row still carries that number, in the same transaction as the check; a trainer
that was replaced, or whose run was cancelled, writes nothing and learns so.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Engine, delete, select, update
from sqlalchemy.orm import Session

from audiofoundation.catalog.engine import read_session, write_session
from audiofoundation.catalog.tables import Checkpoint, Model, Run
from audiofoundation.errors import AudioFoundationError, LeaseLost
from audiofoundation.identifiers import ModelId, RunId, Sha256, create_id, derive_id
from audiofoundation.models.checkpoint import ModelHeader
from audiofoundation.training.states import RunState

NUM_KEPT = 3


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An immutable object that lies in the store."""

    key: str
    size_bytes: int
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class SavedState:
    """A registered checkpoint: where a run can go on."""

    step: int
    attempt: int
    stored: StoredObject


@dataclass(frozen=True, slots=True)
class RunLedger:
    """The rows of one attempt at one run.

    Raises (every method that writes):
        LeaseLost: another attempt has begun, or the run is over; nothing was written.
        StorageUnavailable: the catalog did not answer.
    """

    engine: Engine
    run_id: RunId
    attempt: int

    def write_progress(self, step: int, losses: Mapping[str, float]) -> bool:
        """Write how far the run is; return whether it is asked to stop."""
        with write_session(self.engine) as session:
            self._write_held(session, step=step, losses=finite(losses))
            return bool(session.scalar(select(Run.is_cancel_requested).where(Run.id == self.run_id)))

    def note_error(self, error: AudioFoundationError) -> None:
        """Write why this attempt ends; the supervisor decides what becomes of the run."""
        with write_session(self.engine) as session:
            self._write_held(session, error_class=error.code.value, error=error.message)

    def checkpoints(self) -> list[SavedState]:
        """Return the run's checkpoints, the newest first."""
        newest = select(Checkpoint).where(Checkpoint.run_id == self.run_id)
        with read_session(self.engine) as session:
            rows = session.scalars(newest.order_by(Checkpoint.step.desc(), Checkpoint.attempt.desc()))
            return [_to_saved(row) for row in rows]

    def register_checkpoint(self, step: int, stored: StoredObject, losses: Mapping[str, float]) -> list[StoredObject]:
        """Make an uploaded state the newest; return the objects of those that are no longer kept."""
        with write_session(self.engine) as session:
            self._write_held(session, step=step, losses=finite(losses))
            session.add(
                Checkpoint(
                    id=create_id("ckpt"),
                    run_id=self.run_id,
                    step=step,
                    attempt=self.attempt,
                    key=stored.key,
                    size_bytes=stored.size_bytes,
                    sha256=stored.sha256,
                    losses=finite(losses),
                )
            )
            session.flush()
            rows = session.scalars(
                select(Checkpoint)
                .where(Checkpoint.run_id == self.run_id)
                .order_by(Checkpoint.created_at.desc(), Checkpoint.id.desc())
                .offset(NUM_KEPT)
            ).all()
            session.execute(delete(Checkpoint).where(Checkpoint.id.in_([row.id for row in rows])))
            return [_to_saved(row).stored for row in rows]

    def complete(self, header: ModelHeader, stored: StoredObject, losses: Mapping[str, float]) -> None:
        """Register the model and end the run as done, both or neither."""
        model_id = ModelId(derive_id("model", self.run_id))
        with write_session(self.engine) as session:
            run = session.get_one(Run, self.run_id)
            self._write_held(session, state=RunState.DONE, model_id=model_id, losses=finite(losses), error=None)
            session.add(
                Model(
                    id=model_id,
                    name=header.name,
                    task=header.task,
                    kind=header.kind.value,
                    run_id=self.run_id,
                    dataset_id=run.dataset_id,
                    mel_fingerprint=header.mel_fingerprint,
                    key=stored.key,
                    size_bytes=stored.size_bytes,
                    sha256=stored.sha256,
                    metrics=finite(losses),
                )
            )

    def _write_held(self, session: Session, **values: object) -> None:
        held = (
            update(Run)
            .where(Run.id == self.run_id, Run.attempt == self.attempt, Run.state == RunState.RUNNING)
            .values(**values)
            .returning(Run.id)
            .execution_options(synchronize_session=False)
        )
        if session.execute(held).one_or_none() is None:
            raise LeaseLost(f"Attempt {self.attempt} no longer holds run {self.run_id}; nothing was written.")


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return numbers that JSON can hold: what is not finite becomes None."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _to_saved(row: Checkpoint) -> SavedState:
    return SavedState(row.step, row.attempt, StoredObject(row.key, row.size_bytes, Sha256(row.sha256)))
