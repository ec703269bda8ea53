"""The span that a job continues, or that handed it over among many others."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("traceparent", "trace_link"):
        op.add_column("jobs", sa.Column(name, sa.String(64), nullable=True))
