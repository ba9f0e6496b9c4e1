"""For queued calls: why they failed, dead letters, clients' keys, callbacks, and functions passed over."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.datastore.dialects import long_bytes, long_text, ordered
from services.datastore.migrations import steps

revision = "0003"
down_revision: str | None = "0002"

# Its rows come and go, as those of the queue do.
_VACUUM = (
    "ALTER TABLE callbacks SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, "
    "autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000)"
)


def upgrade() -> None:
    """Adds ``dead_letters``, ``idempotency_keys``, ``callbacks`` and ``calls.reason``."""
    # The default stays: SQLite could drop it only with a copy of the table.
    steps.add_column("calls", sa.Column("reason", ordered(32), nullable=False, server_default=""))
    steps.create_table(
        "dead_letters",
        sa.Column("call_id", ordered(26), nullable=False),
        sa.Column("fn_id", ordered(26), nullable=False),
        sa.Column("app_id", ordered(26), nullable=False),
        sa.Column("died_at", ordered(24), nullable=False),
        sa.Column("redriven_as", ordered(26), nullable=False),
        sa.Column("call", long_text(), nullable=False),
        sa.Column("payload", long_bytes(), nullable=False),
        sa.PrimaryKeyConstraint("call_id", name="pk_dead_letters"),
    )
    steps.create_index("ix_dead_letters_fn_id_call_id", "dead_letters", ["fn_id", "call_id"])
    steps.create_index("ix_dead_letters_app_id_call_id", "dead_letters", ["app_id", "call_id"])
    steps.create_index("ix_dead_letters_died_at", "dead_letters", ["died_at"])
    steps.create_table(
        "idempotency_keys",
        sa.Column("fn_id", ordered(26), nullable=False),
        sa.Column("key_hash", ordered(32), nullable=False),
        sa.Column("call_id", ordered(26), nullable=False),
        sa.Column("accepted", sa.SmallInteger(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("fn_id", "key_hash", name="pk_idempotency_keys"),
    )
    steps.create_index("ix_idempotency_keys_until", "idempotency_keys", ["until"])
    steps.create_table(
        "callbacks",
        sa.Column("call_id", ordered(26), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("fn_id", ordered(26), nullable=False),
        sa.Column("app_id", ordered(26), nullable=False),
        sa.Column("status", ordered(16), nullable=False),
        sa.Column("url", long_text(), nullable=False),
        sa.Column("body", long_bytes(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("due", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("call_id", "attempt", "status", name="pk_callbacks"),
    )
    steps.create_index("ix_callbacks_due", "callbacks", ["due"])
    if op.get_context().dialect.name == "postgresql":
        op.execute(_VACUUM)
    by_function = ["fn_id", "ready", "rank", "place", "pushed"]
    steps.create_index("ix_messages_fn_id_ready_rank_place_pushed", "messages", by_function)
    steps.drop_index("ix_messages_fn_id_ready_pushed", "messages")


def downgrade() -> None:
    """Drops what was added, and with it dead letters and callbacks that are not yet delivered."""
    steps.create_index("ix_messages_fn_id_ready_pushed", "messages", ["fn_id", "ready", "pushed"])
    steps.drop_index("ix_messages_fn_id_ready_rank_place_pushed", "messages")
    steps.drop_table("callbacks")
    steps.drop_table("idempotency_keys")
    steps.drop_table("dead_letters")
    steps.drop_column("calls", "reason")
