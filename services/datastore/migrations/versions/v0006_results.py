"""For what functions answered to queued calls, where it is to be kept.

It only adds, and so nodes that know 0005 work on it. They remove no results: those of calls that they remove
go by their age. The table stays on the way back, also to 0004: nodes of this version work there meanwhile.
"""

from __future__ import annotations

import sqlalchemy as sa

from services.datastore.dialects import ordered
from services.datastore.migrations import steps

revision = "0006_from_0005"
down_revision: str | None = "0005"


def upgrade() -> None:
    """Adds ``results``."""
    steps.create_table(
        "results",
        sa.Column("call_id", ordered(26), nullable=False),
        sa.Column("piece", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("content_type", ordered(255), nullable=False),
        sa.Column("truncated", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(2**16), nullable=False),
        sa.PrimaryKeyConstraint("call_id", "piece", name="pk_results"),
        left=True,
    )


def downgrade() -> None:
    """Drops nothing: ``0004`` does, on the way to 0003."""
