"""What of a discovery's entries was there already, what was rejected and why; the licence of what states none."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("num_duplicates", "num_discoveries"):
        op.add_column("discoveries", sa.Column(name, sa.Integer(), server_default="0", nullable=False))
    op.add_column("discoveries", sa.Column("rejected", sa.JSON(), server_default="{}", nullable=False))
    op.add_column("discoveries", sa.Column("examples", sa.JSON(), server_default="[]", nullable=False))
    op.add_column("discoveries", sa.Column("license", sa.Text(), nullable=True))
    op.add_column("discoveries", sa.Column("note", sa.Text(), nullable=True))
