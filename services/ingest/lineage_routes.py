"""HTTP routes of lineage and takedown."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from audiofoundation.catalog.engine import read_session
from audiofoundation.ingestion.lineage import NodeKind, lineage_of
from audiofoundation.ingestion.takedown import Takedown, take_down
from audiofoundation.transport.plain_text import PLAIN_TEXT
from services.ingest.schemas import Text
from services.ingest.wiring import Container

Target = Annotated[str, Field(min_length=1, max_length=4096, pattern=PLAIN_TEXT)]
_NO_REASON = "taken down by the operator"


class TakedownIn(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    target: Target = Field(description="`item_…`, `asset_…`, a URL, `youtube:ID`, `sha256:HEX` or `channel:NAME`")
    reason: Text = Field(default=_NO_REASON, description="Kept with the tombstone")


class TakedownOut(BaseModel):
    items: list[str]
    assets: list[str]
    datasets: list[str] = Field(description="They get a version without the items")
    models: list[str] = Field(
        description="Trained on versions with the items; deleting them is the operator's to decide"
    )
    runs: list[str] = Field(description="Trained on such versions; those under way are cancelled")
    pending: int = Field(description="What is still to be removed; ask again to see it fall to 0")


class NodeOut(BaseModel):
    id: str
    kind: NodeKind
    label: str
    state: str


class LineageOut(BaseModel):
    id: str
    nodes: list[NodeOut] = Field(description="The thing, all it comes from and all that came of it, sources first")
    edges: list[tuple[str, str]] = Field(description="Pairs of ids: made from, made")
    truncated: bool = Field(description="Whether there are more than 1000 of a kind")


def create_router(container: Container) -> APIRouter:
    """Return the routes of lineage and takedown."""
    router = APIRouter(prefix="/v1", tags=["lineage"])

    @router.get("/lineage/{id:path}", summary="What a thing comes from and what came of it")
    def get_lineage(id_: Annotated[Target, Path(alias="id")]) -> LineageOut:
        with read_session(container.queue.engine) as session:
            found = lineage_of(session, id_)
        nodes = [NodeOut(**asdict(node)) for node in found.nodes]
        return LineageOut(id=found.id, nodes=nodes, edges=list(found.edges), truncated=found.is_truncated)

    @router.delete("/assets/{id}", summary="Take down an asset or item by its id; again to follow it")
    def delete_asset(
        id_: Annotated[Target, Path(alias="id")], reason: Annotated[Text, Query()] = _NO_REASON
    ) -> TakedownOut:
        return _take_down(container, id_, reason)

    @router.post("/takedowns", summary="Take down an item, asset, source or channel; again to follow it")
    def post_takedown(body: TakedownIn) -> TakedownOut:
        return _take_down(container, body.target, body.reason)

    return router


def _take_down(container: Container, target: str, reason: str) -> TakedownOut:
    with container.queue.unit_of_work() as unit:
        return _to_out(take_down(unit, target, reason=reason))


def _to_out(found: Takedown) -> TakedownOut:
    return TakedownOut(
        items=list(found.items),
        assets=list(found.assets),
        datasets=list(found.datasets),
        models=list(found.models),
        runs=list(found.runs),
        pending=found.num_pending,
    )
