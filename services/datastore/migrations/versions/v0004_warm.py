"""For warm containers and images pulled ahead: who wants them, and what has changed lately."""

from __future__ import annotations

import sqlalchemy as sa

from services.datastore.dialects import ordered
from services.datastore.migrations import steps

revision = "0004"
down_revision: str | None = "0003"

_INDEXES = (
    ("ix_apps_warm_id", "apps", ["warm", "id"]),
    ("ix_fns_warm_app_id_id", "fns", ["warm", "app_id", "id"]),
    ("ix_fns_updated_at", "fns", ["updated_at"]),
    ("ix_routes_warm_app_id", "routes", ["warm", "app_id"]),
    ("ix_routes_updated_at", "routes", ["updated_at"]),
)


def upgrade() -> None:
    """Adds ``warm`` to apps, functions and routes, and indexes by it and by the time of the last change."""
    for table in ("apps", "fns", "routes"):
        # The default stays: SQLite could drop it only with a copy of the table. No row that is there says
        # anything of warm containers: the annotation was refused.
        steps.add_column(table, sa.Column("warm", ordered(1), nullable=False, server_default=""))
    for name, table, columns in _INDEXES:
        steps.create_index(name, table, columns)


def downgrade() -> None:
    """Drops what was added, and the results that 0006 has left."""
    steps.drop_table_if_there("results")
    for name, table, _ in reversed(_INDEXES):
        steps.drop_index(name, table)
    for table in ("routes", "fns", "apps"):
        steps.drop_column(table, "warm")
