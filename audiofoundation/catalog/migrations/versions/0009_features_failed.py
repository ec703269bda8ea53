"""How many segments of a shard are without each custom feature."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("shards", sa.Column("features_failed", sa.JSON(), nullable=True))
