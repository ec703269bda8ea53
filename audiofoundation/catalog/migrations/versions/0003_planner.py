"""Pacing per egress identity, breakers, probe measurements and policy decisions."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("items", sa.Column("recheck_at", sa.Float(), nullable=True))
    op.add_column("items", sa.Column("num_rechecks", sa.Integer(), server_default="0", nullable=False))
    _create_egress_lanes()
    _create_probes()
    _create_policy_decisions()


def _create_egress_lanes() -> None:
    op.create_table(
        "egress_lanes",
        sa.Column("name", sa.String(length=320), nullable=False),
        sa.Column("full_at", sa.Float(), nullable=False),
        sa.Column("resume_at", sa.Float(), nullable=False),
        sa.Column("is_tripped", sa.Boolean(), nullable=False),
        sa.Column("open_until", sa.Float(), nullable=False),
        sa.Column("mean_cost_s", sa.Float(), nullable=False),
        sa.Column("num_started", sa.BigInteger(), nullable=False),
        sa.Column("num_waiting", sa.BigInteger(), nullable=False),
        sa.Column("counted_at", sa.Float(), nullable=False),
        sa.Column("holders", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def _create_probes() -> None:
    op.create_table(
        "probes",
        sa.Column("item_id", sa.String(length=64), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("measurements", sa.JSON(), nullable=False),
        sa.Column("thresholds", sa.JSON(), nullable=False),
        sa.Column("probed_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"]),
        sa.PrimaryKeyConstraint("item_id"),
    )


def _create_policy_decisions() -> None:
    op.create_table(
        "policy_decisions",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("policy", sa.String(length=32), nullable=False),
        sa.Column("text_version", sa.String(length=32), nullable=False),
        sa.Column("decided_by", sa.String(length=128), nullable=False),
        sa.Column("owned_channels", sa.JSON(), nullable=False),
        sa.Column("decided_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
