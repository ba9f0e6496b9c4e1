"""The tables. A resource's table has the columns of its struct, under the same names."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from services.datastore.dialects import long_text, ordered
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

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        """To the database."""
        return msgspec.json.encode(value).decode()

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """From the database."""
        return self._decoder.decode(value)


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)


def _times() -> list[Column[Any]]:
    return [Column(name, String(TIME), nullable=False) for name in ("created_at", "updated_at")]


def _text(name: str) -> Column[Any]:
    return Column(name, long_text(), nullable=False)


def _number(name: str) -> Column[Any]:
    return Column(name, BigInteger, nullable=False)


def _maps() -> list[Column[Any]]:
    return [
        Column("config", JSONText(Config), nullable=False),
        Column("annotations", JSONText(Annotations), nullable=False),
    ]


def _of(table: str) -> Column[Any]:
    return Column(f"{table[:-1]}_id", String(ID), ForeignKey(f"{table}.id"), nullable=False)


apps = Table(
    "apps",
    metadata,
    Column("id", String(ID), primary_key=True),
    Column("name", ordered(255), nullable=False, unique=True),
    *_maps(),
    Column("syslog_url", long_text()),
    Column("shape", String(32), nullable=False),
    *_times(),
)

fns = Table(
    "fns",
    metadata,
    Column("id", String(ID), primary_key=True),
    Column("name", ordered(255), nullable=False),
    _of("apps"),
    _text("image"),
    _number("memory"),
    _number("timeout"),
    _number("idle_timeout"),
    *_maps(),
    Column("shape", String(32), nullable=False),
    *_times(),
    UniqueConstraint("app_id", "name"),
)

triggers = Table(
    "triggers",
    metadata,
    Column("id", String(ID), primary_key=True),
    Column("name", ordered(255), nullable=False),
    _of("apps"),
    _of("fns"),
    Column("type", String(32), nullable=False),
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
    Column("app_id", String(ID), ForeignKey("apps.id"), primary_key=True),
    Column("path", ordered(700), primary_key=True),
    _text("image"),
    _number("memory"),
    Column("cpus", String(32), nullable=False),
    Column("headers", JSONText(Headers), nullable=False),
    Column("type", String(32), nullable=False),
    Column("format", String(32), nullable=False),
    _number("timeout"),
    _number("idle_timeout"),
    _number("tmpfs_size"),
    *_maps(),
    *_times(),
)

runners = Table(
    "runners",
    metadata,
    Column("id", ordered(255), primary_key=True),
    Column("report", JSONText(RunnerReport), nullable=False),
    Column("state", String(16), nullable=False),
    Column("seen_at", String(TIME), nullable=False),
)

# Calls outlive their app and function: no foreign keys. ``token`` is that of the lease which may
# speak for the call; ``recorded_at`` is by our clock, ``created_at`` by that of whoever took the call.
calls = Table(
    "calls",
    metadata,
    Column("id", String(ID), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("app_id", String(ID), nullable=False),
    Column("fn_id", String(ID), nullable=False),
    Column("trigger_id", String(ID), nullable=False),
    _text("path"),
    _text("image"),
    Column("type", String(16), nullable=False),
    Column("created_at", String(TIME), nullable=False),
    Column("started_at", String(TIME), nullable=False),
    Column("completed_at", String(TIME), nullable=False),
    _text("error"),
    Column("stats", JSONText(list[Stat]), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("node", String(255), nullable=False),
    Column("token", String(64), nullable=False),
    Column("recorded_at", String(TIME), nullable=False),
    Index("ix_calls_app_id_id", "app_id", "id"),
    Index("ix_calls_fn_id_id", "fn_id", "id"),
    Index("ix_calls_status_recorded_at", "status", "recorded_at"),
    Index("ix_calls_created_at", "created_at"),
)

logs = Table(
    "logs",
    metadata,
    Column("call_id", String(ID), primary_key=True),
    Column("piece", Integer, primary_key=True),
    Column("body", LargeBinary(2**16), nullable=False),
)
