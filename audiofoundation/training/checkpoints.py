"""Saving and restoring a run: local file, then object, then row; reading walks back to the last good one."""

from dataclasses import dataclass
from pathlib import Path

import structlog

from audiofoundation.errors import CheckpointInvalid, ObjectCorrupt, ObjectNotFound, StorageUnavailable
from audiofoundation.identifiers import RunId, sha256_of_stream
from audiofoundation.storage.keys import checkpoint_key
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.training.ledger import RunLedger, SavedState, StoredObject
from audiofoundation.training.state_file import read_state, write_state
from audiofoundation.training.trainer import TrainState

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class CheckpointStore:
    """The checkpoints of one attempt at a run.

    Attributes:
        store: where the objects lie.
        ledger: the run's rows, fenced by the attempt.
        folder: a scratch folder of this attempt alone.
        recipe: identity of what is trained on what.
        saved_step: the step of the newest checkpoint of this attempt; -1 before the first.
    """

    store: ObjectStore
    ledger: RunLedger
    folder: Path
    recipe: str
    saved_step: int = -1

    def save(self, state: TrainState) -> None:
        """Save the state; a step that is saved already is not saved again.

        Raises:
            LeaseLost: another attempt has begun; the upload will never be looked at.
            NumericFailure: the state is not finite; nothing was saved.
            StorageUnavailable: nothing was saved.
        """
        if state.step == self.saved_step:
            return
        path = self.folder / f"state-{state.step:09d}.safetensors"
        write_state(state, path, recipe=self.recipe)
        stored = self._upload(path, state.step)
        path.unlink()
        dropped = self.ledger.register_checkpoint(state.step, stored, state.losses)
        self.saved_step = state.step
        _log.info("checkpoint_saved", step=state.step, size_bytes=stored.size_bytes)
        self._delete(dropped)

    def restore(self, state: TrainState) -> int | None:
        """Load the newest checkpoint that is whole into a fresh state; return its step, None without one.

        Raises:
            CheckpointInvalid: there are checkpoints, but none can be used.
            StorageUnavailable: the store did not answer.
        """
        saved = self.ledger.checkpoints()
        for candidate in saved:
            try:
                self._load(state, candidate)
            except (ObjectCorrupt, ObjectNotFound) as error:
                _log.error("checkpoint_unusable", step=candidate.step, key=candidate.stored.key, error=error.message)
                continue
            return candidate.step
        if saved:
            raise CheckpointInvalid(
                f"none of the {len(saved)} checkpoints of run {self.ledger.run_id} can be used; start a new run"
            )
        return None

    def collect_garbage(self) -> None:
        """Delete objects of killed attempts: uploaded, never registered."""
        known = {saved.stored.key for saved in self.ledger.checkpoints()}
        for key in list(self.store.list(checkpoint_prefix(self.ledger.run_id))):
            if key not in known:
                self.store.delete(key)

    def _load(self, state: TrainState, candidate: SavedState) -> None:
        path = self.folder / "restored.safetensors"
        self.store.get_to_file(candidate.stored.key, path, sha256=candidate.stored.sha256)
        try:
            read_state(state, path, recipe=self.recipe)
        finally:
            path.unlink()

    def _upload(self, path: Path, step: int) -> StoredObject:
        with path.open("rb") as stream:
            digest = sha256_of_stream(stream)
        key = checkpoint_key(self.ledger.run_id, step, self.ledger.attempt, digest)
        size_bytes = self.store.put_file(key, path).size_bytes
        return StoredObject(key, size_bytes, digest)

    def _delete(self, dropped: list[StoredObject]) -> None:
        for stored in dropped:
            try:
                self.store.delete(stored.key)
            except StorageUnavailable as error:
                _log.warning("old_checkpoint_not_deleted", key=stored.key, error=error.message)


def checkpoint_prefix(run_id: RunId) -> str:
    """Return what the keys of all checkpoints of a run begin with."""
    return f"runs/{run_id}/checkpoints/"
