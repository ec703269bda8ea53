"""The history of the catalog's tables. `audiofoundation.catalog.engine.migrate` runs it."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

_SCRIPTS = Path(__file__).resolve().parent


def upgrade(connection: Connection) -> None:
    """Run every missing revision in the connection's transaction."""
    command.upgrade(alembic_config(connection), "head")


def alembic_config(connection: Connection) -> Config:
    """Return Alembic's configuration: the scripts of this package, run on the given connection."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
