"""The first schema: apps, functions, triggers, routes, runners, calls and their logs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None


def upgrade() -> None:
    """Makes all tables."""
    op.create_table(
        "apps",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("annotations", sa.Text(), nullable=False),
        sa.Column("syslog_url", sa.Text(), nullable=True),
        sa.Column("shape", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.String(length=24), nullable=False),
        sa.Column("updated_at", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_apps"),
        sa.UniqueConstraint("name", name="uq_apps_name"),
    )
    op.create_table(
        "calls",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("app_id", sa.String(length=26), nullable=False),
        sa.Column("fn_id", sa.String(length=26), nullable=False),
        sa.Column("trigger_id", sa.String(length=26), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.String(length=24), nullable=False),
        sa.Column("started_at", sa.String(length=24), nullable=False),
        sa.Column("completed_at", sa.String(length=24), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("stats", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("node", sa.String(length=255), nullable=False),
        sa.Column("token", sa.String(length=64), nullable=False),
        sa.Column("recorded_at", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_calls"),
    )
    op.create_index("ix_calls_app_id_id", "calls", ["app_id", "id"], unique=False)
    op.create_index("ix_calls_created_at", "calls", ["created_at"], unique=False)
    op.create_index("ix_calls_fn_id_id", "calls", ["fn_id", "id"], unique=False)
    op.create_index("ix_calls_status_recorded_at", "calls", ["status", "recorded_at"], unique=False)
    op.create_table(
        "logs",
        sa.Column("call_id", sa.String(length=26), nullable=False),
        sa.Column("piece", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(length=65536), nullable=False),
        sa.PrimaryKeyConstraint("call_id", "piece", name="pk_logs"),
    )
    op.create_table(
        "runners",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("report", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("seen_at", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_runners"),
    )
    op.create_table(
        "fns",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("app_id", sa.String(length=26), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
        sa.Column("timeout", sa.BigInteger(), nullable=False),
        sa.Column("idle_timeout", sa.BigInteger(), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("annotations", sa.Text(), nullable=False),
        sa.Column("shape", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.String(length=24), nullable=False),
        sa.Column("updated_at", sa.String(length=24), nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name="fk_fns_app_id"),
        sa.PrimaryKeyConstraint("id", name="pk_fns"),
        sa.UniqueConstraint("app_id", "name", name="uq_fns_app_id_name"),
    )
    op.create_table(
        "routes",
        sa.Column("app_id", sa.String(length=26), nullable=False),
        sa.Column("path", sa.String(length=700), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
        sa.Column("cpus", sa.String(length=32), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("format", sa.String(length=32), nullable=False),
        sa.Column("timeout", sa.BigInteger(), nullable=False),
        sa.Column("idle_timeout", sa.BigInteger(), nullable=False),
        sa.Column("tmpfs_size", sa.BigInteger(), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("annotations", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(length=24), nullable=False),
        sa.Column("updated_at", sa.String(length=24), nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name="fk_routes_app_id"),
        sa.PrimaryKeyConstraint("app_id", "path", name="pk_routes"),
    )
    op.create_table(
        "triggers",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("app_id", sa.String(length=26), nullable=False),
        sa.Column("fn_id", sa.String(length=26), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("source", sa.String(length=700), nullable=False),
        sa.Column("annotations", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(length=24), nullable=False),
        sa.Column("updated_at", sa.String(length=24), nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name="fk_triggers_app_id"),
        sa.ForeignKeyConstraint(["fn_id"], ["fns.id"], name="fk_triggers_fn_id"),
        sa.PrimaryKeyConstraint("id", name="pk_triggers"),
        sa.UniqueConstraint("app_id", "type", "source", name="uq_triggers_app_id_type_source"),
        sa.UniqueConstraint("fn_id", "name", name="uq_triggers_fn_id_name"),
    )
    op.create_index("ix_triggers_app_id_name_id", "triggers", ["app_id", "name", "id"], unique=False)


def downgrade() -> None:
    """Drops all tables with what is in them."""
    op.drop_index("ix_triggers_app_id_name_id", table_name="triggers")
    op.drop_table("triggers")
    op.drop_table("routes")
    op.drop_table("fns")
    op.drop_table("runners")
    op.drop_table("logs")
    op.drop_index("ix_calls_status_recorded_at", table_name="calls")
    op.drop_index("ix_calls_fn_id_id", table_name="calls")
    op.drop_index("ix_calls_created_at", table_name="calls")
    op.drop_index("ix_calls_app_id_id", table_name="calls")
    op.drop_table("calls")
    op.drop_table("apps")
