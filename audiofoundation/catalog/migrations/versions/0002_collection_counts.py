"""Count a collection's items by state and error class; keep what is being discovered; index pages and claims."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_item_counts()
    _create_discoveries()
    op.add_column("items", sa.Column("discovery_id", sa.String(length=64), nullable=True))
    op.drop_index("ix_items_state", table_name="items")
    op.create_index("ix_items_state", "items", ["collection_id", "state", "id"])
    op.drop_index("ix_jobs_state", table_name="jobs")
    op.create_index("ix_jobs_state", "jobs", ["state", "kind", "not_before", "id"])


def _create_item_counts() -> None:
    op.create_table(
        "item_counts",
        sa.Column("collection_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("error_class", sa.String(length=48), nullable=False),
        sa.Column("num_items", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("collection_id", "kind", "state", "error_class"),
    )
    op.execute(
        "INSERT INTO item_counts (collection_id, kind, state, error_class, num_items) "
        "SELECT collection_id, kind, state, coalesce(error_class, ''), count(*) FROM items "
        "GROUP BY collection_id, kind, state, coalesce(error_class, '')"
    )


def _create_discoveries() -> None:
    op.create_table(
        "discoveries",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("collection_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("is_plan", sa.Boolean(), nullable=False),
        sa.Column("num_seen", sa.Integer(), nullable=False),
        sa.Column("num_added", sa.Integer(), nullable=False),
        sa.Column("validators", sa.JSON(), nullable=False),
        sa.Column("tool_version", sa.String(length=64), nullable=True),
        sa.Column("error_class", sa.String(length=48), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_discoveries_state", "discoveries", ["collection_id", "state"])
