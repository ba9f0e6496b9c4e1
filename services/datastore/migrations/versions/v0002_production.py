"""For servers: the queue's table, orders to clean up, locks, and an index for every listing of calls."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from alembic import op

from services.datastore.dialects import long_bytes, long_text, ordered
from services.datastore.migrations import steps

revision = "0002"
down_revision: str | None = "0001"

_AT_ONCE = 1000
# An entry of a B-tree of PostgreSQL has at most 2,704 bytes, and a path or a source up to 2,800. Hash
# indexes have no such bound, and an exclusion compares the values themselves. Listings and look-ups go by
# the first 500 characters (``seeking.START``).
_LONG_KEYS = (
    "ALTER TABLE routes DROP CONSTRAINT pk_routes",
    "ALTER TABLE routes ADD CONSTRAINT ex_routes_app_id_path "
    "EXCLUDE USING hash ((app_id || ' ' || path) WITH =)",
    "CREATE INDEX ix_routes_app_id_path_start ON routes (app_id, left(path, 500))",
    "ALTER TABLE triggers DROP CONSTRAINT uq_triggers_app_id_type_source",
    "ALTER TABLE triggers ADD CONSTRAINT ex_triggers_app_id_type_source "
    "EXCLUDE USING hash ((app_id || ' ' || type || ' ' || source) WITH =)",
    "CREATE INDEX ix_triggers_app_id_type_source_start ON triggers (app_id, type, left(source, 500))",
)
# A queue's rows come and go: cleaned up by their number, not by their part of the table's largest size.
_VACUUM = (
    "ALTER TABLE messages SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, "
    "autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000)"
)
_SHORT_KEYS = (
    "DROP INDEX ix_triggers_app_id_type_source_start",
    "ALTER TABLE triggers DROP CONSTRAINT ex_triggers_app_id_type_source",
    "ALTER TABLE triggers ADD CONSTRAINT uq_triggers_app_id_type_source UNIQUE (app_id, type, source)",
    "DROP INDEX ix_routes_app_id_path_start",
    "ALTER TABLE routes DROP CONSTRAINT ex_routes_app_id_path",
    "ALTER TABLE routes ADD CONSTRAINT pk_routes PRIMARY KEY (app_id, path)",
)


def upgrade() -> None:
    """Adds ``purges``, ``locks`` and ``messages``; calls can be listed by path and by state."""
    steps.create_table(
        "purges",
        sa.Column("id", ordered(26), nullable=False),
        sa.Column("app_id", ordered(26), nullable=False),
        sa.Column("fn_id", ordered(26), nullable=False),
        sa.Column("from_time", ordered(24), nullable=False),
        sa.Column("to_time", ordered(24), nullable=False),
        sa.Column("created_at", ordered(24), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_purges"),
    )
    steps.create_table(
        "locks",
        sa.Column("name", ordered(64), nullable=False),
        sa.Column("holder", ordered(255), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_locks"),
    )
    steps.create_table(
        "messages",
        sa.Column(
            "place",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("id", ordered(26), nullable=False),
        sa.Column("fn_id", ordered(26), nullable=False),
        sa.Column("rank", sa.BigInteger(), nullable=False),
        sa.Column("ready", sa.SmallInteger(), nullable=False),
        sa.Column("pushed", sa.Double(), nullable=False),
        sa.Column("free_at", sa.Double(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("token", ordered(64), nullable=False),
        sa.Column("call", long_text(), nullable=False),
        sa.Column("payload", long_bytes(), nullable=False),
        sa.PrimaryKeyConstraint("place", name="pk_messages"),
        sa.UniqueConstraint("id", name="uq_messages_id"),
    )
    steps.create_index("ix_messages_ready_rank_place", "messages", ["ready", "rank", "place"])
    steps.create_index("ix_messages_ready_free_at", "messages", ["ready", "free_at"])
    steps.create_index("ix_messages_fn_id_ready_pushed", "messages", ["fn_id", "ready", "pushed"])
    if op.get_context().dialect.name == "postgresql":
        for statement in (*_LONG_KEYS, _VACUUM):
            op.execute(statement)
    # The default stays: SQLite could drop it only with a copy of the table.
    steps.add_column("calls", sa.Column("path_hash", ordered(16), nullable=False, server_default=""))
    _hash_paths()
    steps.create_index("ix_calls_app_id_path_hash_id", "calls", ["app_id", "path_hash", "id"])
    steps.create_index("ix_calls_fn_id_status_id", "calls", ["fn_id", "status", "id"])
    steps.create_index("ix_calls_status_id", "calls", ["status", "id"])
    steps.drop_index("ix_calls_created_at", "calls")


def downgrade() -> None:
    """Drops what was added, and with it the messages of a queue."""
    steps.create_index("ix_calls_created_at", "calls", ["created_at"])
    steps.drop_index("ix_calls_status_id", "calls")
    steps.drop_index("ix_calls_fn_id_status_id", "calls")
    steps.drop_index("ix_calls_app_id_path_hash_id", "calls")
    steps.drop_column("calls", "path_hash")
    if op.get_context().dialect.name == "postgresql":
        for statement in _SHORT_KEYS:
            op.execute(statement)
    steps.drop_table("messages")
    steps.drop_table("locks")
    steps.drop_table("purges")


def _hash_paths() -> None:
    if op.get_context().as_sql:
        op.get_context().impl.static_output(
            "-- fn-node migrate fills calls.path_hash here: hex of blake2b(path, 8 bytes), '' for no path"
        )
        return
    connection = op.get_bind()
    calls = sa.table("calls", sa.column("path"), sa.column("path_hash"))
    # Few routes, many calls: one statement a path.
    paths = (
        sa.select(calls.c.path).where(calls.c.path != "", calls.c.path_hash == "").distinct().limit(_AT_ONCE)
    )
    while found := connection.scalars(paths).all():
        for path in found:
            hashed = hashlib.blake2b(path.encode(), digest_size=8).hexdigest()
            connection.execute(sa.update(calls).where(calls.c.path == path).values(path_hash=hashed))
