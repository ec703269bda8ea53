"""Checkpoints in a real store: damage is walked back from, garbage goes."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from audiofoundation.catalog.engine import create_catalog_engine
from audiofoundation.errors import CheckpointInvalid
from audiofoundation.settings import CatalogSettings
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.training.checkpoints import CheckpointStore, checkpoint_prefix
from audiofoundation.training.holding import begin
from audiofoundation.training.ledger import RunLedger
from audiofoundation.training.trainer import train_step
from tests.unit.training.rows import SETTINGS, add_dataset, ask, claim, create_queue
from tests.unit.training.test_state_file import CONFIG, trained


@pytest.fixture
def checkpoints(sqlite_catalog: CatalogSettings, store: ObjectStore, tmp_path: Path) -> CheckpointStore:
    engine = create_catalog_engine(sqlite_catalog)
    folder = tmp_path / "scratch"
    folder.mkdir()
    return CheckpointStore(store, ledger(engine), folder, "recipe")


def ledger(engine: Engine) -> RunLedger:
    add_dataset(engine)
    queue = create_queue(engine)
    ask(queue)
    held = begin(queue, claim(queue), SETTINGS)
    assert held is not None
    return RunLedger(engine, held.run_id, held.attempt)


def keys(checkpoints: CheckpointStore) -> list[str]:
    return sorted(checkpoints.store.list(checkpoint_prefix(checkpoints.ledger.run_id)))


def test_a_run_goes_on_from_the_newest_and_only_the_last_are_kept(checkpoints: CheckpointStore) -> None:
    state = trained(0)
    assert checkpoints.restore(trained(0)) is None
    for _ in range(5):
        train_step(state, CONFIG)
        checkpoints.save(state)
        checkpoints.save(state)  # the same step again is nothing new
    assert len(keys(checkpoints)) == 3
    restored = trained(0)
    assert checkpoints.restore(restored) == 5
    assert restored.step == 5
    assert not list(checkpoints.folder.iterdir())


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_damage_is_walked_back_from(checkpoints: CheckpointStore, damage: str) -> None:
    state = trained(0)
    for _ in range(2):
        train_step(state, CONFIG)
        checkpoints.save(state)
    newest = checkpoints.ledger.checkpoints()[0].stored.key
    data = checkpoints.store.get_bytes(newest)
    if damage == "gone":
        checkpoints.store.delete(newest)
    else:
        spoilt = data[:-5] if damage == "cut" else data[:-5] + b"\0\1\2\3\4"
        checkpoints.store.put_bytes(newest, spoilt)
    assert checkpoints.restore(trained(0)) == 1


def test_a_run_without_any_sound_checkpoint_does_not_begin_anew_in_silence(checkpoints: CheckpointStore) -> None:
    checkpoints.save(trained(1))
    checkpoints.store.delete(checkpoints.ledger.checkpoints()[0].stored.key)
    with pytest.raises(CheckpointInvalid, match="start a new run"):
        checkpoints.restore(trained(0))


def test_uploads_that_were_never_registered_are_collected(checkpoints: CheckpointStore) -> None:
    checkpoints.save(trained(1))
    kept = keys(checkpoints)
    checkpoints.store.put_bytes(checkpoint_prefix(checkpoints.ledger.run_id) + "000000009/1-dead.safetensors", b"x")
    checkpoints.collect_garbage()
    assert keys(checkpoints) == kept
