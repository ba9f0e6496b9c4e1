"""Brings a database to the schema of this version. The revisions are in ``migrations/versions``."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from shared_models.errors import StoreUnavailable

_FOLDER = Path(__file__).parent / "migrations"


def upgrade(connection: Connection) -> None:
    """Runs what is missing, inside the caller's writing transaction, so that nodes take turns.

    Raises StoreUnavailable when the database has a revision that this version does not know.
    """
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    current = set(MigrationContext.configure(connection).get_current_heads())
    if unknown := current - known:
        raise StoreUnavailable(
            f"The database has schema {', '.join(sorted(unknown))}, which this version does not know: "
            "it was written by a newer version of fn-hybrid; upgrade this node"
        )
    if current != set(scripts.get_heads()):
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
