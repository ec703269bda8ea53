"""Counts of items equal the items themselves, whatever happens to them and in whatever order."""

import random
import threading
from collections import Counter
from pathlib import Path

import pytest
from alembic import command
from pydantic import SecretStr
from sqlalchemy import Engine, func, select, text

from audiofoundation.catalog.engine import create_catalog_engine, read_session, write_session
from audiofoundation.catalog.item_states import ItemChange, add_rows, change_items
from audiofoundation.catalog.migrations import alembic_config
from audiofoundation.catalog.tables import Collection, Item, ItemCount
from audiofoundation.settings import CatalogSettings
from tests.servers import process_context, wait_until

STATES = ("queued", "fetching", "stored", "rejected", "failed", "deferred")
CLASSES = (None, "fetch_failed", "license")
Counts = dict[tuple[str, str, str, str], int]


def row_of(collection: str, number: int, *, state: str = "queued", error_class: str | None = None) -> dict[str, object]:
    return {
        "id": f"{collection}-{number}",
        "collection_id": collection,
        "canonical": f"url:https://example.com/{number}",
        "kind": "url" if number % 2 else "youtube",
        "source": f"https://example.com/{number}",
        "state": state,
        "error_class": error_class,
        "created_at": 0.0,
        "updated_at": 0.0,
    }


def stored_counts(engine: Engine) -> Counts:
    with read_session(engine) as session:
        rows = session.scalars(select(ItemCount).where(ItemCount.num_items != 0)).all()
        return {(row.collection_id, row.kind, row.state, row.error_class): row.num_items for row in rows}


def real_counts(engine: Engine) -> Counts:
    key = (Item.collection_id, Item.kind, Item.state, func.coalesce(Item.error_class, ""))
    with read_session(engine) as session:
        return {(a, b, c, d): n for a, b, c, d, n in session.execute(select(*key, func.count()).group_by(*key))}


@pytest.fixture
def collections(engine: Engine) -> list[str]:
    with write_session(engine) as session:
        session.add_all([Collection(id=name, name=name) for name in ("a", "b")])
    return ["a", "b"]


class Interrupted(Exception):
    pass


def change_something(engine: Engine, collections: list[str], chance: random.Random, max_writes: int) -> None:
    """A transaction of some random writes; one in four breaks off at its end."""
    with write_session(engine) as session:
        for _ in range(chance.randint(1, max_writes)):
            collection, state, error_class = chance.choice(collections), chance.choice(STATES), chance.choice(CLASSES)
            numbers = chance.sample(range(40), chance.randrange(1, 8))
            if chance.random() < 0.4:
                rows = [row_of(collection, number, state=state, error_class=error_class) for number in numbers]
                add_rows(session, rows)
            else:
                wanted = chance.sample(STATES, chance.choice((1, len(STATES))))
                which = Item.id.in_([f"{collection}-{number}" for number in numbers]) & Item.state.in_(wanted)
                tombstone = "tombstoned" if chance.random() < 0.1 else state
                change_items(session, which, ItemChange(tombstone, error_class, columns={"title": state}))
        if chance.random() < 0.25:
            raise Interrupted


def change_often(engine: Engine, collections: list[str], *, seed: int, num_times: int, max_writes: int = 3) -> None:
    chance = random.Random(seed)
    for _ in range(num_times):
        try:
            change_something(engine, collections, chance, max_writes)
        except Interrupted:
            continue


def test_counts_equal_the_items_after_any_changes_and_rollbacks(engine: Engine, collections: list[str]) -> None:
    for seed in range(8):
        change_often(engine, collections, seed=seed, num_times=12)
        assert stored_counts(engine) == real_counts(engine)
    assert sum(real_counts(engine).values()) > 50


def test_counts_equal_the_items_after_changes_from_several_sides_at_once(
    engine: Engine, collections: list[str]
) -> None:
    failed: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            # One write each: who changes several items in several steps must do so in order of id itself.
            change_often(engine, collections, seed=seed, num_times=30, max_writes=1)
        except Exception as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert stored_counts(engine) == real_counts(engine)


def test_counts_equal_the_items_after_writers_were_killed(
    catalog_settings: CatalogSettings, engine: Engine, collections: list[str]
) -> None:
    context = process_context()
    writers = [context.Process(target=change_for_ever, args=(catalog_settings, collections, n)) for n in range(2)]
    for writer in writers:
        writer.start()
    wait_until(lambda: sum(real_counts(engine).values()) > 40, timeout_s=60, what="both write")
    for writer in writers:
        writer.kill()
        writer.join()
    # PostgreSQL may still end a commit that it had received.
    wait_until(lambda: stored_counts(engine) == real_counts(engine), timeout_s=20, what="counts equal the items")


def change_for_ever(settings: CatalogSettings, collections: list[str], seed: int) -> None:
    engine = create_catalog_engine(settings)
    while True:
        change_often(engine, collections, seed=seed, num_times=10, max_writes=1)
        seed += 2


def test_a_tombstone_is_never_overwritten(engine: Engine, collections: list[str]) -> None:
    with write_session(engine) as session:
        add_rows(session, [row_of(collections[0], 1)])
        assert change_items(session, Item.id == "a-1", ItemChange("tombstoned")) == ["a-1"]
    with write_session(engine) as session:
        assert change_items(session, Item.id == "a-1", ItemChange("queued")) == []
    assert stored_counts(engine) == {("a", "url", "tombstoned", ""): 1}


def test_what_was_there_is_neither_changed_nor_counted_again(engine: Engine, collections: list[str]) -> None:
    for _ in range(2):
        with write_session(engine) as session:
            added = add_rows(session, [row_of(collections[0], number) for number in range(3)])
    assert added == []
    assert Counter(stored_counts(engine)) == Counter(real_counts(engine))


def test_a_catalog_of_the_first_release_is_counted_when_it_is_migrated(tmp_path: Path) -> None:
    engine = create_catalog_engine(CatalogSettings(url=SecretStr(f"sqlite:///{tmp_path}/catalog.db")))
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0001")
        connection.execute(text("INSERT INTO collections VALUES ('a', 'a', 'crawled', 0, 0)"))
        old = "id, collection_id, canonical, kind, source, state, error_class, created_at, updated_at"
        values = ":id, :collection_id, :canonical, :kind, :source, :state, :error_class, :created_at, :updated_at"
        rows = [row_of("a", number, error_class=CLASSES[number % 3]) for number in range(9)]
        connection.execute(text(f"INSERT INTO items ({old}) VALUES ({values})"), rows)
        command.upgrade(alembic_config(connection), "0002")
        columns = "collection_id, kind, state, error_class, num_items"
        found = connection.execute(text(f"SELECT {columns} FROM item_counts")).all()
    engine.dispose()
    expected = Counter((row["kind"], row["error_class"] or "") for row in rows)
    assert {(row.kind, row.error_class): row.num_items for row in found} == expected
