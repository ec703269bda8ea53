"""What clients send to the train service and what they get."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from audiofoundation.catalog.tables import Checkpoint
from audiofoundation.training.requests import RunView

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._:-]*$"
_MAX_OVERRIDES = 64
Scalar = Annotated[str, Field(max_length=500)] | bool | int | float


class RunIn(BaseModel):
    """A run to start, or with `resume` one to go on with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Annotated[str, Field(max_length=64, pattern=_NAME)] | None = Field(
        default=None, description="tiny, vocoder-tiny or classifier-tiny"
    )
    dataset: Annotated[str, Field(max_length=64, pattern=_NAME)] | None = Field(
        default=None, description="Id of a preprocessed dataset"
    )
    steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        default=None, description="Steps in all; the recipe's number when absent"
    )
    overrides: Annotated[dict[str, Scalar | list[Scalar]], Field(max_length=_MAX_OVERRIDES)] = Field(
        default_factory=dict, description="Settings of the recipe to change; `init` names a model to start from"
    )
    resume: Annotated[str, Field(max_length=64, pattern=_NAME)] | None = Field(
        default=None, description="A failed or cancelled run to go on with from its last checkpoint"
    )
    idempotency_key: Annotated[str, Field(min_length=8, max_length=100)] | None = Field(
        default=None, description="The same key again finds the same run"
    )


class RunError(BaseModel):
    code: str
    message: str


class RunOut(BaseModel):
    run: str
    recipe: str
    dataset: str
    state: str = Field(description="queued, running, done, failed or cancelled")
    step: int
    num_steps: int
    losses: dict[str, float | None] = Field(description="Running means by name; `validation/…` on held-out data")
    checkpoint: str | None = Field(description="Where the run would go on")
    model: str | None = Field(description="Name of the model that a done run made")
    overrides: dict[str, Any]
    attempt: int = Field(description="How many times a trainer has begun")
    is_cancel_requested: bool
    error: RunError | None
    created_at: float
    updated_at: float


class RunListOut(BaseModel):
    object: str = "list"
    data: list[RunOut]


class CheckpointOut(BaseModel):
    checkpoint: str
    step: int
    attempt: int
    size_bytes: int
    sha256: str
    losses: dict[str, float | None]
    created_at: float


class CheckpointListOut(BaseModel):
    object: str = "list"
    data: list[CheckpointOut]


class PromotedOut(BaseModel):
    run: str
    model: str
    state: str = "promoted"


def to_run_out(view: RunView) -> RunOut:
    """Return a run as clients see it."""
    run = view.run
    error = RunError(code=run.error_class or "internal", message=run.error) if run.error else None
    return RunOut(
        run=run.id,
        recipe=run.recipe,
        dataset=run.dataset_id,
        state=run.state,
        step=run.step,
        num_steps=run.num_steps,
        losses=run.losses,
        checkpoint=view.checkpoint_id,
        model=view.model,
        overrides=dict(view.overrides),
        attempt=run.attempt,
        is_cancel_requested=run.is_cancel_requested,
        error=error,
        created_at=run.created_at,
        updated_at=run.updated_at,
    )


def to_checkpoint_out(row: Checkpoint) -> CheckpointOut:
    """Return a checkpoint as clients see it."""
    return CheckpointOut(
        checkpoint=row.id,
        step=row.step,
        attempt=row.attempt,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        losses=row.losses,
        created_at=row.created_at,
    )
