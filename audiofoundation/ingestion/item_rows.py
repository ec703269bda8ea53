"""The rows of new items: what the list says of them, and the policy as far as that carries it."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from audiofoundation.identifiers import AssetId, ItemId, derive_id
from audiofoundation.ingestion.policy import Policy, PolicyScope, policy_for
from audiofoundation.ingestion.source import Source, SourceKind, SourceLine
from audiofoundation.ingestion.states import ItemRefused, ItemState


@dataclass(frozen=True, slots=True)
class KnownAsset:
    """Bytes that are stored already. `duration_s` is None where nobody measured it."""

    id: AssetId
    duration_s: float | None


@dataclass(frozen=True, slots=True)
class RowContext:
    """What the items of one request share.

    Attributes:
        collection_id: where they go.
        scope: which of them the policy judges.
        license_policy: AF_FETCH__LICENSE_POLICY.
        assets: stored bytes by hash.
        discovery_id: what found them; None when they were named themselves.
    """

    collection_id: str
    scope: PolicyScope
    license_policy: str
    assets: Mapping[str, KnownAsset]
    discovery_id: str | None = None


def item_id_of(collection_id: str, canonical: str) -> ItemId:
    """Return the id that this source always has in this collection."""
    return ItemId(derive_id("item", collection_id, canonical))


def item_rows(pairs: Iterable[tuple[Source, SourceLine]], context: RowContext) -> list[dict[str, object]]:
    """Return one row for each source."""
    now = time.time()
    return [_row(source, line, context, now) for source, line in pairs]


def _row(source: Source, line: SourceLine, context: RowContext, now: float) -> dict[str, object]:
    asset = context.assets.get(source.text) if source.kind is SourceKind.FILE else None
    duration_s = (asset.duration_s if asset else None) or line.duration_s
    policy = policy_for(source.kind, scope=context.scope, license_policy=context.license_policy)
    state, error_class, error = _judge(policy, line.license, duration_s)
    # Where the policy judges files too, their jobs listen to them first.
    if asset and state is ItemState.QUEUED and context.scope is not PolicyScope.ALL:
        state = ItemState.STORED
    return {
        "id": item_id_of(context.collection_id, source.canonical),
        "collection_id": context.collection_id,
        "canonical": source.canonical,
        "kind": source.kind.value,
        "source": line.title or source.text if source.kind is SourceKind.FILE else source.text,
        "state": state.value,
        "error_class": error_class,
        "error": error,
        "title": line.title,
        "channel": line.channel,
        "license": line.license,
        "duration_s": duration_s,
        "policy": policy.name if error_class else None,
        "asset_id": asset.id if asset else None,
        "discovery_id": context.discovery_id,
        "created_at": now,
        "updated_at": now,
    }


def _judge(
    policy: Policy, license_text: str | None, duration_s: float | None
) -> tuple[ItemState, str | None, str | None]:
    """Apply the policy as far as licence and duration are known."""
    try:
        policy.check_listed_license(license_text)
        policy.check_duration(duration_s)
    except ItemRefused as refusal:
        return refusal.state, refusal.refusal.value, refusal.message
    return ItemState.QUEUED, None, None
