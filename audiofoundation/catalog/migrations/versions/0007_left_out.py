"""How many segments each quality threshold left out of a shard."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("shards", sa.Column("left_out", sa.JSON(), nullable=True))
