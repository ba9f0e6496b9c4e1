"""The first schema: apps, functions, triggers, routes, runners, calls and their logs."""

from __future__ import annotations

import sqlalchemy as sa

from services.datastore.dialects import long_text, ordered
from services.datastore.migrations import steps

revision = "0001"
down_revision: str | None = None


def upgrade() -> None:
    """Makes all tables."""
    steps.create_table(
        "apps",
        sa.Column("id", ordered(26), nullable=False),
        sa.Column("name", ordered(255), nullable=False),
        sa.Column("config", long_text(), nullable=False),
        sa.Column("annotations", long_text(), nullable=False),
        sa.Column("syslog_url", long_text(), nullable=True),
        sa.Column("shape", ordered(32), nullable=False),
        sa.Column("created_at", ordered(24), nullable=False),
        sa.Column("updated_at", ordered(24), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_apps"),
        sa.UniqueConstraint("name", name="uq_apps_name"),
    )
    steps.create_table(
        "calls",
        sa.Column("id", ordered(26), nullable=False),
        sa.Column("status", ordered(16), nullable=False),
        sa.Column("app_id", ordered(26), nullable=False),
        sa.Column("fn_id", ordered(26), nullable=False),
        sa.Column("trigger_id", ordered(26), nullable=False),
        sa.Column("path", long_text(), nullable=False),
        sa.Column("image", long_text(), nullable=False),
        sa.Column("type", ordered(16), nullable=False),
        sa.Column("created_at", ordered(24), nullable=False),
        sa.Column("started_at", ordered(24), nullable=False),
        sa.Column("completed_at", ordered(24), nullable=False),
        sa.Column("error", long_text(), nullable=False),
        sa.Column("stats", long_text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("node", ordered(255), nullable=False),
        sa.Column("token", ordered(64), nullable=False),
        sa.Column("recorded_at", ordered(24), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_calls"),
    )
    steps.create_index("ix_calls_app_id_id", "calls", ["app_id", "id"])
    steps.create_index("ix_calls_created_at", "calls", ["created_at"])
    steps.create_index("ix_calls_fn_id_id", "calls", ["fn_id", "id"])
    steps.create_index("ix_calls_status_recorded_at", "calls", ["status", "recorded_at"])
    steps.create_table(
        "logs",
        sa.Column("call_id", ordered(26), nullable=False),
        sa.Column("piece", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(length=65536), nullable=False),
        sa.PrimaryKeyConstraint("call_id", "piece", name="pk_logs"),
    )
    steps.create_table(
        "runners",
        sa.Column("id", ordered(255), nullable=False),
        sa.Column("report", long_text(), nullable=False),
        sa.Column("state", ordered(16), nullable=False),
        sa.Column("seen_at", ordered(24), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_runners"),
    )
    steps.create_table(
        "fns",
        sa.Column("id", ordered(26), nullable=False),
        sa.Column("name", ordered(255), nullable=False),
        sa.Column("app_id", ordered(26), nullable=False),
        sa.Column("image", long_text(), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
        sa.Column("timeout", sa.BigInteger(), nullable=False),
        sa.Column("idle_timeout", sa.BigInteger(), nullable=False),
        sa.Column("config", long_text(), nullable=False),
        sa.Column("annotations", long_text(), nullable=False),
        sa.Column("shape", ordered(32), nullable=False),
        sa.Column("created_at", ordered(24), nullable=False),
        sa.Column("updated_at", ordered(24), nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name="fk_fns_app_id"),
        sa.PrimaryKeyConstraint("id", name="pk_fns"),
        sa.UniqueConstraint("app_id", "name", name="uq_fns_app_id_name"),
    )
    steps.create_table(
        "routes",
        sa.Column("app_id", ordered(26), nullable=False),
        sa.Column("path", ordered(700), nullable=False),
        sa.Column("image", long_text(), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
        sa.Column("cpus", ordered(32), nullable=False),
        sa.Column("headers", long_text(), nullable=False),
        sa.Column("type", ordered(32), nullable=False),
        sa.Column("format", ordered(32), nullable=False),
        sa.Column("timeout", sa.BigInteger(), nullable=False),
        sa.Column("idle_timeout", sa.BigInteger(), nullable=False),
        sa.Column("tmpfs_size", sa.BigInteger(), nullable=False),
        sa.Column("config", long_text(), nullable=False),
        sa.Column("annotations", long_text(), nullable=False),
        sa.Column("created_at", ordered(24), nullable=False),
        sa.Column("updated_at", ordered(24), nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name="fk_routes_app_id"),
        sa.PrimaryKeyConstraint("app_id", "path", name="pk_routes"),
    )
    steps.create_table(
        "triggers",
        sa.Column("id", ordered(26), nullable=False),
        sa.Column("name", ordered(255), nullable=False),
        sa.Column("app_id", ordered(26), nullable=False),
        sa.Column("fn_id", ordered(26), nullable=False),
        sa.Column("type", ordered(32), nullable=False),
        sa.Column("source", ordered(700), nullable=False),
        sa.Column("annotations", long_text(), nullable=False),
        sa.Column("created_at", ordered(24), nullable=False),
        sa.Column("updated_at", ordered(24), nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name="fk_triggers_app_id"),
        sa.ForeignKeyConstraint(["fn_id"], ["fns.id"], name="fk_triggers_fn_id"),
        sa.PrimaryKeyConstraint("id", name="pk_triggers"),
        sa.UniqueConstraint("app_id", "type", "source", name="uq_triggers_app_id_type_source"),
        sa.UniqueConstraint("fn_id", "name", name="uq_triggers_fn_id_name"),
    )
    steps.create_index("ix_triggers_app_id_name_id", "triggers", ["app_id", "name", "id"])


def downgrade() -> None:
    """Drops all tables with what is in them."""
    steps.drop_index("ix_triggers_app_id_name_id", "triggers")
    steps.drop_table("triggers")
    steps.drop_table("routes")
    steps.drop_table("fns")
    steps.drop_table("runners")
    steps.drop_table("logs")
    steps.drop_index("ix_calls_status_recorded_at", "calls")
    steps.drop_index("ix_calls_fn_id_id", "calls")
    steps.drop_index("ix_calls_created_at", "calls")
    steps.drop_index("ix_calls_app_id_id", "calls")
    steps.drop_table("calls")
    steps.drop_table("apps")
