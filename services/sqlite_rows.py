"""Statements of many rows for SQLite: few of them, and of few forms.

Whoever runs a statement in a thread gives the interpreter away for it, and waits for the node's event loop to
give it back: up to 5 ms, in which SQLite could write a thousand rows. So a statement takes up to 512 of them.
It has places for one of a few numbers of rows, so that prepared statements are found again; NULLs fill those
that are not needed, and a statement passes them over.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Rows that statements have places for. (A table of 64 columns reaches SQLite's limit of 32,766 values.)"""

Item = TypeVar("Item")


def portions(rows: Sequence[Item]) -> Iterator[tuple[Sequence[Item], int]]:
    """*rows*, as many at a time as one statement takes, and the size of that statement."""
    most = SIZES[-1]
    for start in range(0, len(rows), most):
        some = rows[start : start + most]
        yield some, next(size for size in SIZES if size >= len(some))


def places(row: str, size: int) -> str:
    """Of a statement: *row* for each of *size* rows."""
    return ", ".join([row] * size)


def filled(values: Sequence[object], size: int) -> list[object]:
    """*values*, one of each row, for a statement of *size* rows."""
    return [*values, *itertools.repeat(None, size - len(values))]


def flat(rows: Sequence[Sequence[object]], size: int) -> list[object]:
    """The values of *rows*, of which there is one at least, for a statement of *size* rows."""
    values = list(itertools.chain.from_iterable(rows))
    values.extend(itertools.repeat(None, (size - len(rows)) * len(rows[0])))
    return values


def insertion(table: str, columns: Iterable[str], size: int) -> str:
    """A statement that inserts *size* rows; the first of *columns* is NULL in none of them."""
    names = list(columns)
    row = f"({places('?', len(names))})"
    # In the order of the rows: keys that are given out by number follow it.
    return (
        f"INSERT INTO {table} ({', '.join(names)}) "
        f"SELECT * FROM (VALUES {places(row, size)}) WHERE column1 IS NOT NULL"
    )
