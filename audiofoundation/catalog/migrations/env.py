"""What Alembic runs: always on the connection that `migrate` opened and locked."""

from alembic import context

from audiofoundation.catalog.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite cannot alter most columns in place: Alembic then copies the table.
    render_as_batch=True,
    transactional_ddl=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
