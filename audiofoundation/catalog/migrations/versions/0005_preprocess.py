"""What preprocessing measures."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dataset_items", sa.Column("descriptors", sa.JSON(), nullable=True))
    op.add_column("shards", sa.Column("index_sha256", sa.String(length=64), nullable=True))
