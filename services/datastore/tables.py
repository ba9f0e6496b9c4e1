"""The tables. A resource's table has the columns of its struct, under the same names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    TextClause,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from services.datastore.dialects import long_bytes, long_text, ordered
from shared_models.annotations import Annotations
from shared_models.call import Stat
from shared_models.config import Config, Headers
from shared_models.runner import RunnerReport

ID = 26
TIME = 24


class JSONText(TypeDecorator[Any]):
    """A value as JSON text. Annotation values keep the very text that they have."""

    impl = Text
    cache_ok = True

    def __init__(self, type_: Any) -> None:
        super().__init__()
        self.type_ = type_
        self._decoder = msgspec.json.Decoder(type_)

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The column's own type."""
        return dialect.type_descriptor(long_text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        """To the database."""
        return msgspec.json.encode(value).decode()

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """From the database: called for every value of a page, so nothing is around it."""
        return self._decoder.decode


def partial(name: str, *columns: str, rows: TextClause) -> Index:
    """An index of those *rows* alone, so that others cost nothing; of all on MySQL and MariaDB.

    A query goes by it only where it says *rows*, in these very words: a parameter tells a planner nothing.
    """
    return Index(name, *columns, postgresql_where=rows, sqlite_where=rows)


WITH_A_PATH = text("path_hash != ''")
NOT_ENDED = text("status IN ('queued', 'running')")
"""Rows of ``calls`` that have an index of their own."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)


def _times() -> list[Column[Any]]:
    return [Column(name, ordered(TIME), nullable=False) for name in ("created_at", "updated_at")]


def _text(name: str) -> Column[Any]:
    return Column(name, long_text(), nullable=False)


def _number(name: str) -> Column[Any]:
    return Column(name, BigInteger, nullable=False)


def _warm() -> Column[Any]:
    """Whether it wants warm containers (``wanted.said``): of the annotations, what is looked for."""
    return Column("warm", ordered(1), nullable=False, server_default="")


def _maps() -> list[Column[Any]]:
    return [
        Column("config", JSONText(Config), nullable=False),
        Column("annotations", JSONText(Annotations), nullable=False),
    ]


def _of(table: str) -> Column[Any]:
    return Column(f"{table[:-1]}_id", ordered(ID), ForeignKey(f"{table}.id"), nullable=False)


apps = Table(
    "apps",
    metadata,
    Column("id", ordered(ID), primary_key=True),
    Column("name", ordered(255), nullable=False, unique=True),
    *_maps(),
    Column("syslog_url", long_text()),
    Column("shape", ordered(32), nullable=False),
    *_times(),
    _warm(),
    Index("ix_apps_warm_id", "warm", "id"),
)

fns = Table(
    "fns",
    metadata,
    Column("id", ordered(ID), primary_key=True),
    Column("name", ordered(255), nullable=False),
    _of("apps"),
    _text("image"),
    _number("memory"),
    _number("timeout"),
    _number("idle_timeout"),
    *_maps(),
    Column("shape", ordered(32), nullable=False),
    *_times(),
    _warm(),
    UniqueConstraint("app_id", "name"),
    Index("ix_fns_warm_app_id_id", "warm", "app_id", "id"),
    Index("ix_fns_updated_at", "updated_at"),
)

triggers = Table(
    "triggers",
    metadata,
    Column("id", ordered(ID), primary_key=True),
    Column("name", ordered(255), nullable=False),
    _of("apps"),
    _of("fns"),
    Column("type", ordered(32), nullable=False),
    Column("source", ordered(700), nullable=False),
    Column("annotations", JSONText(Annotations), nullable=False),
    *_times(),
    UniqueConstraint("fn_id", "name"),
    UniqueConstraint("app_id", "type", "source"),
    Index("ix_triggers_app_id_name_id", "app_id", "name", "id"),
)

routes = Table(
    "routes",
    metadata,
    Column("app_id", ordered(ID), ForeignKey("apps.id"), primary_key=True),
    Column("path", ordered(700), primary_key=True),
    _text("image"),
    _number("memory"),
    Column("cpus", ordered(32), nullable=False),
    Column("headers", JSONText(Headers), nullable=False),
    Column("type", ordered(32), nullable=False),
    Column("format", ordered(32), nullable=False),
    _number("timeout"),
    _number("idle_timeout"),
    _number("tmpfs_size"),
    *_maps(),
    *_times(),
    _warm(),
    Index("ix_routes_warm_app_id", "warm", "app_id"),
    Index("ix_routes_updated_at", "updated_at"),
)

runners = Table(
    "runners",
    metadata,
    Column("id", ordered(255), primary_key=True),
    Column("report", JSONText(RunnerReport), nullable=False),
    Column("state", ordered(16), nullable=False),
    Column("seen_at", ordered(TIME), nullable=False),
)

# Calls outlive their app and function: no foreign keys. ``token`` is that of the lease which may
# speak for the call; ``recorded_at`` is by our clock, ``created_at`` by that of whoever took the call.
# ``path_hash`` stands for a path in an index, where the path itself may be too long.
calls = Table(
    "calls",
    metadata,
    Column("id", ordered(ID), primary_key=True),
    Column("status", ordered(16), nullable=False),
    Column("app_id", ordered(ID), nullable=False),
    Column("fn_id", ordered(ID), nullable=False),
    Column("trigger_id", ordered(ID), nullable=False),
    _text("path"),
    _text("image"),
    Column("type", ordered(16), nullable=False),
    Column("created_at", ordered(TIME), nullable=False),
    Column("started_at", ordered(TIME), nullable=False),
    Column("completed_at", ordered(TIME), nullable=False),
    _text("error"),
    Column("stats", JSONText(list[Stat]), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("node", ordered(255), nullable=False),
    Column("token", ordered(64), nullable=False),
    Column("recorded_at", ordered(TIME), nullable=False),
    Column("path_hash", ordered(16), nullable=False, server_default=""),
    Column("reason", ordered(32), nullable=False, server_default=""),
    Index("ix_calls_app_id_id", "app_id", "id"),
    partial("ix_calls_app_id_path_hash_id", "app_id", "path_hash", "id", rows=WITH_A_PATH),
    Index("ix_calls_fn_id_id", "fn_id", "id"),
    Index("ix_calls_fn_id_status_id", "fn_id", "status", "id"),
    partial("ix_calls_status_id", "status", "id", rows=NOT_ENDED),
    partial("ix_calls_status_recorded_at", "status", "recorded_at", rows=NOT_ENDED),
)

logs = Table(
    "logs",
    metadata,
    Column("call_id", ordered(ID), primary_key=True),
    Column("piece", Integer, primary_key=True),
    Column("body", LargeBinary(2**16), nullable=False),
)

# What functions answered to queued calls that have ended, where it is to be kept: at least one piece, which
# may be empty. Each has what is said of all.
results = Table(
    "results",
    metadata,
    Column("call_id", ordered(ID), primary_key=True),
    Column("piece", Integer, primary_key=True, autoincrement=False),
    Column("content_type", ordered(255), nullable=False),
    Column("truncated", Integer, nullable=False),
    Column("body", LargeBinary(2**16), nullable=False),
)

purges = Table(
    "purges",
    metadata,
    Column("id", ordered(ID), primary_key=True),
    Column("app_id", ordered(ID), nullable=False),
    Column("fn_id", ordered(ID), nullable=False),
    Column("from_time", ordered(TIME), nullable=False),
    Column("to_time", ordered(TIME), nullable=False),
    Column("created_at", ordered(TIME), nullable=False),
)

locks = Table(
    "locks",
    metadata,
    Column("name", ordered(64), primary_key=True),
    Column("holder", ordered(255), nullable=False),
    Column("until", Double, nullable=False),
)

# The queue on a server (an embedded one has a file of its own). Times in unix seconds. ``ready``: may be
# handed out now; the others are delayed or leased until ``free_at``. ``rank`` is the priority, the
# highest first.
messages = Table(
    "messages",
    metadata,
    Column("place", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", ordered(ID), nullable=False, unique=True),
    Column("fn_id", ordered(ID), nullable=False),
    Column("rank", BigInteger, nullable=False),
    Column("ready", SmallInteger, nullable=False),
    Column("pushed", Double, nullable=False),
    Column("free_at", Double, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("token", ordered(64), nullable=False),
    Column("call", long_text(), nullable=False),
    Column("payload", long_bytes(), nullable=False),
    Index("ix_messages_ready_rank_place", "ready", "rank", "place"),
    Index("ix_messages_ready_free_at", "ready", "free_at"),
    # Where a reserve passes over functions, it seeks the first ones of each other function.
    Index("ix_messages_fn_id_ready_rank_place_pushed", "fn_id", "ready", "rank", "place", "pushed"),
)

# ``call`` without its payload, which listings do not read. They outlive their function and app for a while.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("call_id", ordered(ID), primary_key=True),
    Column("fn_id", ordered(ID), nullable=False),
    Column("app_id", ordered(ID), nullable=False),
    Column("died_at", ordered(TIME), nullable=False),
    Column("redriven_as", ordered(ID), nullable=False),
    Column("call", long_text(), nullable=False),
    Column("payload", long_bytes(), nullable=False),
    Index("ix_dead_letters_fn_id_call_id", "fn_id", "call_id"),
    Index("ix_dead_letters_app_id_call_id", "app_id", "call_id"),
    Index("ix_dead_letters_died_at", "died_at"),
)

# ``key_hash`` stands for a client's key, which may be longer than what an index takes. ``until`` in unix
# seconds.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("fn_id", ordered(ID), primary_key=True),
    Column("key_hash", ordered(32), primary_key=True),
    Column("call_id", ordered(ID), nullable=False),
    Column("accepted", SmallInteger, nullable=False),
    Column("until", Double, nullable=False),
    Index("ix_idempotency_keys_until", "until"),
)

# Times in unix seconds. One that somebody is delivering is due when that lease runs out.
callbacks = Table(
    "callbacks",
    metadata,
    Column("call_id", ordered(ID), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("fn_id", ordered(ID), nullable=False),
    Column("app_id", ordered(ID), nullable=False),
    Column("status", ordered(16), primary_key=True),
    _text("url"),
    Column("body", long_bytes(), nullable=False),
    Column("tries", Integer, nullable=False),
    Column("created", Double, nullable=False),
    Column("due", Double, nullable=False),
    Index("ix_callbacks_due", "due"),
)
