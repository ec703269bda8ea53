"""Versions of datasets, tombstones, and objects on their way out."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("shards", sa.Column("generation", sa.Integer(), server_default="0", nullable=False))
    op.add_column("dataset_items", sa.Column("removed_generation", sa.Integer(), nullable=True))
    op.create_index("ix_dataset_items_item", "dataset_items", ["item_id"])
    op.add_column("runs", sa.Column("manifest_sha256", sa.String(length=64), nullable=True))
    op.create_index("ix_runs_manifest_sha256", "runs", ["manifest_sha256"])
    _create_versions()
    _create_leavings()
    _fill()


def _create_versions() -> None:
    op.create_table(
        "dataset_versions",
        sa.Column("manifest_sha256", sa.String(length=64), nullable=False),
        sa.Column("dataset_id", sa.String(length=64), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("num_items", sa.BigInteger(), nullable=False),
        sa.Column("num_samples", sa.BigInteger(), nullable=False),
        sa.Column("duration_s", sa.Float(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("deleted_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"]),
        sa.PrimaryKeyConstraint("manifest_sha256"),
    )
    op.create_index("ix_dataset_versions_dataset", "dataset_versions", ["dataset_id"])
    op.create_table(
        "version_shards",
        sa.Column("manifest_sha256", sa.String(length=64), nullable=False),
        sa.Column("shard_id", sa.String(length=64), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["manifest_sha256"], ["dataset_versions.manifest_sha256"]),
        sa.PrimaryKeyConstraint("manifest_sha256", "shard_id"),
    )
    op.create_index("ix_version_shards_shard", "version_shards", ["shard_id"])


def _create_leavings() -> None:
    op.create_table(
        "tombstones",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "doomed_objects",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.String(length=64), nullable=False),
        sa.Column("is_due", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("ix_doomed_objects_owner", "doomed_objects", ["owner_id"])
    op.create_table(
        "orphan_marks",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("marked_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )


def _fill() -> None:
    """Runs kept the hash of their manifest among their settings; of versions only each dataset's last is known."""
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    kept = "overrides ->> 'manifest_sha256'" if is_postgresql else "json_extract(overrides, '$.manifest_sha256')"
    op.execute(f"UPDATE runs SET manifest_sha256 = {kept}")
    op.execute(
        "INSERT INTO dataset_versions "
        "(manifest_sha256, dataset_id, key, num_items, num_samples, duration_s, created_at) "
        "SELECT manifest_sha256, id, manifest_key, "
        "(SELECT count(*) FROM dataset_items i WHERE i.dataset_id = d.id AND i.state = 'done'), "
        "(SELECT coalesce(sum(num_samples), 0) FROM shards s WHERE s.dataset_id = d.id AND s.key IS NOT NULL), "
        "(SELECT coalesce(sum(duration_s), 0) FROM shards s WHERE s.dataset_id = d.id AND s.key IS NOT NULL), "
        "updated_at FROM datasets d WHERE manifest_sha256 IS NOT NULL AND manifest_key IS NOT NULL"
    )
    op.execute(
        "INSERT INTO version_shards (manifest_sha256, shard_id, generation) "
        "SELECT d.manifest_sha256, s.id, 0 FROM shards s JOIN datasets d ON d.id = s.dataset_id "
        "WHERE d.manifest_sha256 IS NOT NULL AND d.manifest_key IS NOT NULL "
        "AND s.key IS NOT NULL AND s.state = 'committed'"
    )
