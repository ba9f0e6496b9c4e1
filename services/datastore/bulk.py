"""Many new rows at once in a SQLite file, in statements of dozens."""

from __future__ import annotations

import functools
import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import Table

_PORTIONS = (64, 8, 1)
"""Rows of one statement: few numbers, so that prepared statements are found again."""

Row = tuple[Any, ...]
"""Values in the order of a table's columns, as the driver takes them."""
Rows = Sequence[tuple[Table, Sequence[Row]]]

Item = TypeVar("Item")


def insert(db: sqlite3.Connection, table: Table, rows: Sequence[Row]) -> None:
    """Inserts *rows*; raises sqlite3.IntegrityError when one of them is there."""
    for portion in in_portions(rows):
        db.execute(_statement(table, len(portion)), list(itertools.chain.from_iterable(portion)))


def in_portions(rows: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """*rows*, as many at a time as one statement takes: few different numbers."""
    start = 0
    for most in _PORTIONS:
        while len(rows) - start >= most:
            yield rows[start : start + most]
            start += most


@functools.cache
def _statement(table: Table, rows: int) -> str:
    names = [column.name for column in table.columns]
    row = f"({', '.join('?' * len(names))})"
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES {', '.join([row] * rows)}"
