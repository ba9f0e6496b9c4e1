"""Rows in portions, only those that are new, none larger than a server takes at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Table, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.database import Database
from shared_models.errors import TooLarge

T = TypeVar("T")
Row = Mapping[str, Any]

AT_ONCE = 500
"""Values that one statement names: all databases take that many parameters."""
_ESCAPED = (b"\0", b"\n", b"\r", b"\x1a", b'"', b"'", b"\\")
_AROUND = 4096
"""More bytes than a statement has besides its long values."""


def portions(values: Iterable[T]) -> Iterator[list[T]]:
    """*values*, as many at a time as one statement names."""
    every = list(values)
    for start in range(0, len(every), AT_ONCE):
        yield every[start : start + AT_ONCE]


async def insert_new(connection: AsyncConnection, table: Table, rows: Sequence[Row]) -> None:
    """Inserts those of *rows* whose primary key is not there, the first of each; others stay as they are.

    In the order of their keys, as everybody does; one that is taken meanwhile breaks a constraint.
    """
    columns = list(table.primary_key)
    fresh: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        fresh.setdefault(tuple(row[column.name] for column in columns), row)
    first = columns[0]
    for names in portions(sorted({key[0] for key in fresh})):
        for known in await connection.execute(select(*columns).where(first.in_(names))):
            fresh.pop(tuple(known), None)
    if fresh:
        await connection.execute(insert(table), [fresh[key] for key in sorted(fresh)])


async def largest_statement(database: Database) -> float:
    """Bytes of a statement that the server takes: a MySQL server hangs up on a larger one. Else infinite."""
    if database.backend.scheme != "mysql":
        return math.inf
    query = text("SELECT @@max_allowed_packet")
    return float(await database.read(lambda connection: connection.scalar(query)) or 0)


def written(*values: bytes) -> int:
    """Bytes of a statement that stores *values*, at most, on a server that is sent them as escaped text."""
    return sum(len(value) + sum(map(value.count, _ESCAPED)) for value in values) + _AROUND


class Packets:
    """What the database takes in one statement."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._most = 0.0

    async def fitting(self, rows: Sequence[Row]) -> list[Row]:
        """Those of *rows* that can be stored."""
        if not self._most:
            self._most = await largest_statement(self._database)
        return [row for row in rows if self._most == math.inf or _written(row) <= self._most]

    @staticmethod
    def refuse(what: str, ids: Sequence[str]) -> None:
        """Raises TooLarge that names *what* has these *ids*, if there are any."""
        if ids:
            raise TooLarge(
                detail=f"{what} of {', '.join(ids)}: larger than the database takes (max_allowed_packet)"
            )


def _written(row: Row) -> int:
    values = [value.encode(errors="replace") if isinstance(value, str) else value for value in row.values()]
    return written(*[value for value in values if isinstance(value, bytes)])
