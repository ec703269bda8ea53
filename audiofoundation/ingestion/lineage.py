"""Where a thing comes from and what came of it: source, item, asset, shard, dataset version, run, checkpoint, model.

A version holds an item when it names the item's shard in a generation before the item was removed from it. That
stays known after a takedown, so that models which learned from the item are found.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import Any

from sqlalchemy import Select, case, func, literal, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from audiofoundation.catalog.tables import (
    Asset,
    Checkpoint,
    Collection,
    DatasetItem,
    DatasetVersion,
    Item,
    Model,
    Run,
    Shard,
    VersionShard,
)
from audiofoundation.errors import NotFound
from audiofoundation.ingestion.item_rows import item_id_of
from audiofoundation.ingestion.source import SourceKind, SourceRejected, parse_source

_CHUNK = 500
MAX_NODES = 1000
_MAX_HINTS = 3
_MAX_ROWS = 20_000
_TOMBSTONED, _AFFECTED = "tombstoned", "affected"

Pair = tuple[str, str]


class NodeKind(StrEnum):
    """From the source on, in the order in which things are made."""

    SOURCE = "source"
    ITEM = "item"
    ASSET = "asset"
    SHARD = "shard"
    VERSION = "version"
    RUN = "run"
    CHECKPOINT = "checkpoint"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class Node:
    """One thing.

    Attributes:
        id: its id; of a version its manifest's hash.
        kind: what it is.
        label: for people: a title, a key, a name.
        state: its state; `tombstoned` and `deleted` things are gone, `affected` models learned from such.
    """

    id: str
    kind: NodeKind
    label: str
    state: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """A thing with all it comes from and all that came of it.

    Attributes:
        id: the thing's id.
        nodes: the thing and its relatives, in the order of `NodeKind`; at most MAX_NODES of each kind.
        edges: (made from, made) pairs of their ids.
        is_truncated: whether there are more.
    """

    id: str
    nodes: tuple[Node, ...]
    edges: tuple[Pair, ...]
    is_truncated: bool


# An item's shard is part of a version, and the item was in it then.
_HOLDS = or_(DatasetItem.removed_generation.is_(None), VersionShard.generation < DatasetItem.removed_generation)
_HELD = (
    select(Item.asset_id, DatasetItem.shard_id, VersionShard.manifest_sha256)
    .join(DatasetItem, DatasetItem.item_id == Item.id)
    .join(VersionShard, VersionShard.shard_id == DatasetItem.shard_id)
    .where(DatasetItem.num_segments > 0, _HOLDS)
)
_IN_SHARD = (
    select(Item.asset_id, DatasetItem.shard_id)
    .join(DatasetItem, DatasetItem.item_id == Item.id)
    .where(DatasetItem.num_segments > 0)
)
_OF_ITEM = select(Item.id, Item.asset_id).where(Item.asset_id.is_not(None))
_NAMED = select(VersionShard.shard_id, VersionShard.manifest_sha256)
_TRAINED_ON = select(Run.manifest_sha256, Run.id).where(Run.manifest_sha256.is_not(None))
_SAVED = select(Checkpoint.run_id, Checkpoint.id)
_MADE = select(Model.run_id, Model.id).where(Model.run_id.is_not(None))


def lineage_of(session: Session, name: str) -> Lineage:
    """Return the lineage of an item, asset, segment, shard, dataset, version, run, checkpoint, model or source.

    Args:
        session: the catalog.
        name: an id, a segment's key, a hash of a manifest or of a recording, a model's name, or a source.

    Raises:
        NotFound: nothing has this name.
    """
    kind, start = find_start(session, name)
    walk = _Walk(session)
    walk.add(kind, start)
    if kind in (NodeKind.ITEM, NodeKind.ASSET):
        walk.from_recordings(kind)
    elif kind is NodeKind.SHARD:
        walk.from_shards()
    else:
        walk.from_versions_or_later(kind)
    walk.to_runs_and_models()
    nodes, of_sources = describe(session, walk.ids)
    return Lineage(name, nodes, tuple(sorted({*walk.edges, *of_sources})), walk.is_truncated)


def runs_that_saw(session: Session, items: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the runs whose dataset versions held one of these items, and the models they made."""
    versions: set[str] = set()
    for part in chunks(items):
        versions.update(row.manifest_sha256 for row in session.execute(_HELD.where(DatasetItem.item_id.in_(part))))
    runs: set[str] = set()
    for part in chunks(sorted(versions)):
        runs.update(session.scalars(select(Run.id).where(Run.manifest_sha256.in_(part))))
    models: set[str] = set()
    for part in chunks(sorted(runs)):
        models.update(session.scalars(select(Model.id).where(Model.run_id.in_(part))))
    return tuple(sorted(runs)), tuple(sorted(models))


class _Walk:
    """Collects ids by kind and the pairs that connect them, both ways from where it starts."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.ids: dict[NodeKind, set[str]] = {kind: set() for kind in NodeKind}
        self.edges: set[Pair] = set()
        self.is_truncated = False

    def add(self, kind: NodeKind, found: Iterable[str]) -> None:
        """Take ids of a kind, up to the limit."""
        for name in found:
            if name in self.ids[kind]:
                continue
            if len(self.ids[kind]) >= MAX_NODES:
                self.is_truncated = True
                return
            self.ids[kind].add(name)

    def from_recordings(self, kind: NodeKind) -> None:
        """From items or assets to the shards and versions that hold them, and to the items of the assets."""
        if kind is NodeKind.ITEM:
            self._pairs(_OF_ITEM, Item.id, NodeKind.ITEM, (NodeKind.ITEM, NodeKind.ASSET))
        asking, column = (NodeKind.ITEM, Item.id) if kind is NodeKind.ITEM else (NodeKind.ASSET, Item.asset_id)
        self._pairs(_IN_SHARD, column, asking, (NodeKind.ASSET, NodeKind.SHARD))
        self._pairs(_HELD, column, asking, (NodeKind.ASSET, NodeKind.SHARD, NodeKind.VERSION))
        if kind is NodeKind.ASSET:
            self._pairs(_OF_ITEM, Item.asset_id, NodeKind.ASSET, (NodeKind.ITEM, NodeKind.ASSET))

    def from_shards(self) -> None:
        """From shards to the versions that name them and the recordings that are or were in them."""
        self._pairs(_NAMED, VersionShard.shard_id, NodeKind.SHARD, (NodeKind.SHARD, NodeKind.VERSION))
        self._pairs(_IN_SHARD, DatasetItem.shard_id, NodeKind.SHARD, (NodeKind.ASSET, NodeKind.SHARD))
        self._pairs(_OF_ITEM, Item.asset_id, NodeKind.ASSET, (NodeKind.ITEM, NodeKind.ASSET))

    def from_versions_or_later(self, kind: NodeKind) -> None:
        """From a version, or what came of one, back to the recordings that the version held."""
        if kind is NodeKind.CHECKPOINT:
            self._pairs(_SAVED, Checkpoint.id, kind, (NodeKind.RUN, NodeKind.CHECKPOINT))
        if kind is NodeKind.MODEL:
            self._pairs(_MADE, Model.id, kind, (NodeKind.RUN, NodeKind.MODEL))
        if kind is not NodeKind.VERSION:
            self._pairs(_TRAINED_ON, Run.id, NodeKind.RUN, (NodeKind.VERSION, NodeKind.RUN))
        version = VersionShard.manifest_sha256
        self._pairs(_NAMED, version, NodeKind.VERSION, (NodeKind.SHARD, NodeKind.VERSION))
        self._pairs(_HELD, version, NodeKind.VERSION, (NodeKind.ASSET, NodeKind.SHARD, NodeKind.VERSION))
        self._pairs(_OF_ITEM, Item.asset_id, NodeKind.ASSET, (NodeKind.ITEM, NodeKind.ASSET))

    def to_runs_and_models(self) -> None:
        """From the versions on; what was asked for alone of its kind stays alone."""
        if not self.ids[NodeKind.RUN]:
            self._pairs(_TRAINED_ON, Run.manifest_sha256, NodeKind.VERSION, (NodeKind.VERSION, NodeKind.RUN))
        if not self.ids[NodeKind.CHECKPOINT] and not self.ids[NodeKind.MODEL]:
            self._pairs(_SAVED, Checkpoint.run_id, NodeKind.RUN, (NodeKind.RUN, NodeKind.CHECKPOINT))
            self._pairs(_MADE, Model.run_id, NodeKind.RUN, (NodeKind.RUN, NodeKind.MODEL))

    def _pairs(
        self,
        statement: Select[*tuple[Any, ...]],
        column: InstrumentedAttribute[Any],
        asking: NodeKind,
        kinds: tuple[NodeKind, ...],
    ) -> None:
        """Ask for the rows whose column is among the ids of a kind; each row is a chain of those kinds."""
        for part in chunks(sorted(self.ids[asking])):
            rows = self._session.execute(statement.where(column.in_(part)).distinct().limit(_MAX_ROWS)).all()
            self.is_truncated |= len(rows) == _MAX_ROWS
            for row in rows:
                for kind, name in zip(kinds, row, strict=True):
                    self.add(kind, [name])
                named = list(zip(kinds, row, strict=True))
                for (kind, name), (next_kind, next_name) in pairwise(named):
                    if name in self.ids[kind] and next_name in self.ids[next_kind]:
                        self.edges.add((name, next_name))


def find_start(session: Session, name: str) -> tuple[NodeKind, list[str]]:
    """Return what a name means. Raises NotFound."""
    found = _by_id(session, name) or _by_hash(session, name) or _by_source(session, name)
    if found is None:
        how = "give an id, a source (URL, youtube:ID, sha256:HEX) or a segment's key"
        raise NotFound(f"nothing is called {name!r}; {how}{hint_of_files(session, name)}", param="id")
    return found


def hint_of_files(session: Session, name: str) -> str:
    """Return how items of files with this name are called, which are told apart by their bytes; else nothing."""
    ids = session.scalars(select(Item.id).where(Item.source == name, Item.kind == SourceKind.FILE).limit(_MAX_HINTS))
    found = ", ".join(ids)
    return f". Files of this name: {found}" if found else ""


def _by_id(session: Session, name: str) -> tuple[NodeKind, list[str]] | None:
    item_id, _, segment = name.rpartition("-")
    if item_id.startswith("item_") and segment.isdecimal():  # a segment's key
        name = item_id
    for kind, column in _ID_COLUMNS.items():
        if (found := session.scalar(select(column).where(column == name))) is not None:
            return kind, [found]
    versions = session.scalars(select(DatasetVersion.manifest_sha256).where(DatasetVersion.dataset_id == name)).all()
    if versions:
        return NodeKind.VERSION, list(versions)
    model = session.scalar(select(Model.id).where(Model.name == name))
    return None if model is None else (NodeKind.MODEL, [model])


def _by_hash(session: Session, name: str) -> tuple[NodeKind, list[str]] | None:
    found = session.scalar(select(Asset.id).where(Asset.sha256 == name.removeprefix("sha256:")))
    return None if found is None else (NodeKind.ASSET, [found])


def _by_source(session: Session, name: str) -> tuple[NodeKind, list[str]] | None:
    """Ids are made of collection and source, so that no index of sources is needed."""
    try:
        canonical = parse_source(name).canonical
    except SourceRejected:
        return None
    ids = [item_id_of(collection, canonical) for collection in session.scalars(select(Collection.id))]
    found = [each for part in chunks(ids) for each in session.scalars(select(Item.id).where(Item.id.in_(part)))]
    return (NodeKind.ITEM, found) if found else None


_ID_COLUMNS = {
    NodeKind.ITEM: Item.id,
    NodeKind.ASSET: Asset.id,
    NodeKind.SHARD: Shard.id,
    NodeKind.VERSION: DatasetVersion.manifest_sha256,
    NodeKind.RUN: Run.id,
    NodeKind.CHECKPOINT: Checkpoint.id,
    NodeKind.MODEL: Model.id,
}


def describe(session: Session, ids: Mapping[NodeKind, Set[str]]) -> tuple[tuple[Node, ...], set[Pair]]:
    """Return the nodes in order, sources first, and the edges from sources to items."""
    nodes: list[Node] = []
    of_sources: set[Pair] = set()
    for kind, statement in _DESCRIPTIONS.items():
        for part in chunks(sorted(ids[kind])):
            column = _ID_COLUMNS[kind]
            for name, label, state in session.execute(statement.where(column.in_(part)).order_by(column)):
                nodes.append(Node(name, kind, label or name, state))
    for part in chunks(sorted(ids[NodeKind.ITEM])):
        of_sources.update((row.canonical, row.id) for row in session.execute(_SOURCES.where(Item.id.in_(part))))
    affected = _affected(session, [node.id for node in nodes if node.kind is NodeKind.MODEL])
    nodes = [replace(node, state=_AFFECTED) if node.id in affected else node for node in nodes]
    sources = {label: Node(label, NodeKind.SOURCE, label, "") for label, _ in sorted(of_sources)}
    return (*sources.values(), *nodes), of_sources


def _affected(session: Session, models: Sequence[str]) -> set[str]:
    """Of these models, the ones that learned from a recording which was taken down since."""
    found: set[str] = set()
    for part in chunks(models):
        is_gone = DatasetItem.state == _TOMBSTONED
        statement = (
            select(Model.id)
            .join(Run, Run.id == Model.run_id)
            .join(VersionShard, VersionShard.manifest_sha256 == Run.manifest_sha256)
            .join(DatasetItem, DatasetItem.shard_id == VersionShard.shard_id)
            .where(Model.id.in_(part), is_gone, DatasetItem.num_segments > 0, _HOLDS)
        )
        found.update(session.scalars(statement.distinct()))
    return found


_SOURCES = select(Item.id, Item.canonical)
_GONE = case((Asset.tombstoned_at.is_not(None), _TOMBSTONED), else_="stored")
_DESCRIPTIONS: Mapping[NodeKind, Select[str, str, str]] = {
    NodeKind.ITEM: select(Item.id, func.coalesce(Item.title, Item.canonical), Item.state),
    NodeKind.ASSET: select(Asset.id, Asset.key, _GONE),
    NodeKind.SHARD: select(Shard.id, func.coalesce(Shard.key, ""), Shard.state),
    NodeKind.VERSION: select(
        DatasetVersion.manifest_sha256,
        DatasetVersion.dataset_id,
        case((DatasetVersion.deleted_at.is_not(None), "deleted"), else_="kept"),
    ),
    NodeKind.RUN: select(Run.id, Run.recipe, Run.state),
    NodeKind.CHECKPOINT: select(Checkpoint.id, Checkpoint.key, literal("saved")),
    NodeKind.MODEL: select(Model.id, Model.name, Model.state),
}


def chunks(values: Sequence[str]) -> list[Sequence[str]]:
    """Return the values in parts that one statement takes."""
    return [values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK)]
