"""Many new rows at once in a SQLite file."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Table

from services import sqlite_rows

Row = tuple[Any, ...]
"""Values in the order of a table's columns, as the driver takes them."""
Rows = Sequence[tuple[Table, Sequence[Row]]]


def insert(db: sqlite3.Connection, table: Table, rows: Sequence[Row]) -> None:
    """Inserts *rows*; raises sqlite3.IntegrityError when one of them is there."""
    for text, values in insertions(table, rows):
        db.execute(text, values)


def insertions(table: Table, rows: Sequence[Row]) -> Iterator[tuple[str, list[object]]]:
    """The statements that insert *rows*, with their values."""
    for some, size in sqlite_rows.portions(rows):
        yield _insertion(table, size), sqlite_rows.flat(some, size)


@functools.cache
def _insertion(table: Table, size: int) -> str:
    return sqlite_rows.insertion(table.name, (column.name for column in table.columns), size)
