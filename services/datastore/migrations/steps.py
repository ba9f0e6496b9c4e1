"""Steps of a revision that may be run again: MySQL and MariaDB keep what a revision did until it broke."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from services.datastore.dialects import table_options


def create_table(name: str, *columns: Any, left: bool = False) -> None:
    """Makes a table with the options that all have; *left*: it may be there since an earlier time."""
    if not _has(name):
        op.create_table(name, *columns, if_not_exists=left or None, **table_options(op.get_context().dialect))


def drop_table(name: str) -> None:
    """Drops a table with what is in it."""
    if _online() is None or _has(name):
        op.drop_table(name)


def drop_table_if_there(name: str) -> None:
    """Drops a table that not every database of this revision has."""
    op.drop_table(name, if_exists=True)


def has_partial_indexes() -> bool:
    """Whether this database has indexes of some rows alone, as SQLite and PostgreSQL do."""
    return op.get_context().dialect.name != "mysql"


def create_index(name: str, table: str, columns: list[str], rows: str = "") -> None:
    """Makes an index; where *rows* (SQL) is given, of those alone."""
    if name not in _indexes(table):
        where = sa.text(rows) if rows else None
        op.create_index(name, table, columns, postgresql_where=where, sqlite_where=where)


def drop_index(name: str, table: str) -> None:
    """Drops an index."""
    if _online() is None or name in _indexes(table):
        op.drop_index(name, table_name=table)


def add_column(table: str, column: sa.Column[Any]) -> None:
    """Adds a column."""
    if column.name not in _columns(table):
        op.add_column(table, column)


def drop_column(table: str, name: str) -> None:
    """Drops a column."""
    if _online() is None or name in _columns(table):
        op.drop_column(table, name)


def _online() -> sa.Connection | None:
    return None if op.get_context().as_sql else op.get_bind()


def _has(table: str) -> bool:
    connection = _online()
    return connection is not None and sa.inspect(connection).has_table(table)


def _indexes(table: str) -> set[str | None]:
    connection = _online()
    if connection is None or not _has(table):
        return set()
    return {index["name"] for index in sa.inspect(connection).get_indexes(table)}


def _columns(table: str) -> set[str]:
    connection = _online()
    if connection is None or not _has(table):
        return set()
    return {column["name"] for column in sa.inspect(connection).get_columns(table)}
