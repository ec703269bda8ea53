"""What listing a dataset's recordings costs."""

from sqlite3 import Connection

import pytest
from sqlalchemy import Engine, event, insert

from audiofoundation.catalog.engine import write_session
from audiofoundation.catalog.tables import Asset, Collection, Dataset, DatasetItem, Item, Shard
from audiofoundation.preprocessing.recordings import iterate_recordings

TIMES = {"created_at": 0.0, "updated_at": 0.0}


@pytest.mark.parametrize("items_per_shard", [50, 100_000])
def test_listing_costs_in_proportion_to_the_dataset(sqlite_engine: Engine, items_per_shard: int) -> None:
    """Counted in steps of SQLite's machine: a page that sorted all that was left took their square."""
    steps = [steps_of_listing(sqlite_engine, f"ds_{size}", size, items_per_shard) for size in (2000, 8000)]

    assert steps[1] < 6 * steps[0]


def steps_of_listing(engine: Engine, name: str, num_items: int, items_per_shard: int) -> int:
    """Return hundreds of steps that it takes to list so many recordings; they come in order and are all there."""
    add_dataset(engine, name, num_items, items_per_shard)
    steps = list[int]()

    def count(connection: Connection, *_: object) -> None:
        connection.set_progress_handler(lambda: steps.append(1), 100)

    event.listen(engine, "checkout", count)
    found = [(each.shard_index, each.item_id) for each in iterate_recordings(engine, name)]
    event.remove(engine, "checkout", count)
    assert len(found) == num_items
    assert found == sorted(found)
    return len(steps)


def add_dataset(engine: Engine, name: str, num_items: int, items_per_shard: int) -> None:
    ids = [f"{name}-{number:06d}" for number in range(num_items)]
    sound = {"size_bytes": 1, "container": "wav", "codec": "pcm", "sample_rate_hz": 24000, "num_channels": 1}
    assets = [{"id": each, "sha256": each, "key": each, "duration_s": 1.0, **sound, **TIMES} for each in ids]
    stored = {"collection_id": name, "kind": "url", "source": "s", "state": "stored", **TIMES}
    items = [{"id": each, "canonical": each, "asset_id": each, **stored} for each in ids]
    done = {"dataset_id": name, "state": "done", "num_segments": 1, "duration_s": 1.0, **TIMES}
    num_shards = -(-num_items // items_per_shard)
    members = [{"item_id": each, "shard_id": f"{name}.{at % num_shards}", **done} for at, each in enumerate(ids)]
    shards = [{"id": f"{name}.{at}", "dataset_id": name, "shard_index": at} for at in range(num_shards)]
    with write_session(engine) as session:
        session.add(Collection(id=name, name=name, policy="crawled"))
        session.flush()
        session.add(Dataset(id=name, collection_id=name, preset="p", mel_fingerprint="f", config={}))
        session.flush()
        session.execute(insert(Shard), [{**shard, "state": "committed"} for shard in shards])
        session.execute(insert(Asset), assets)
        session.execute(insert(Item), items)
        session.execute(insert(DatasetItem), members)
