"""One step of many records: looked at, decided, and changed in one transaction that nobody gets between.

What is decided is the same everywhere (``Decide``). A SQLite file does all of it in one trip to one thread,
in statements of many rows (``services.sqlite_rows``); a server is told by SQLAlchemy.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from services import sqlite_rows
from services.datastore import bulk
from services.datastore.database import Database
from services.datastore.tables import calls, logs, results
from services.logstore.fresh import record_row
from services.logstore.records import KNOWN, insert_rows, load_rows, row_of, update_rows
from shared_models.call import Call

T = TypeVar("T")

Known = Mapping[str, dict[str, Any]]
"""Records by id, as far as decisions go by them (``records.KNOWN``)."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be written: *new* records with their tokens, *changed* ones, *pieces* of logs.

    Each of *changed* names its record as ``key``; all have the same columns. *pieces* are rows, and so are
    results that are *kept*.
    """

    new: Sequence[tuple[Call, str]] = ()
    changed: Sequence[Mapping[str, Any]] = ()
    pieces: Sequence[dict[str, Any]] = field(default=())
    kept: Sequence[dict[str, Any]] = field(default=())


Decide = Callable[[Known], tuple[T, Changes]]
"""Pure: it may be asked again when somebody was faster."""


async def change(database: Database, ids: Iterable[str], now: str, decide: Decide[T]) -> T:
    """What *decide* answers, given the records of *ids*, when what it wants changed is changed."""
    names = sorted(set(ids))
    if database.has_trips:
        return await database.trip(lambda file: _in_file(file, names, now, decide))

    async def work(connection: AsyncConnection) -> T:
        answer, changes = decide(await load_rows(connection, names))
        await insert_rows(connection, calls, [row_of(call, token, now) for call, token in changes.new])
        await update_rows(connection, changes.changed)
        await insert_rows(connection, logs, changes.pieces)
        await insert_rows(connection, results, changes.kept)
        return answer

    return await database.transact(work)


def _in_file(file: sqlite3.Connection, names: list[str], now: str, decide: Decide[T]) -> T:
    known: dict[str, dict[str, Any]] = {}
    for some, size in sqlite_rows.portions(names):
        for row in file.execute(_look(size), sqlite_rows.filled(some, size)).fetchall():
            known[row[0]] = dict(zip(KNOWN, row, strict=True))
    answer, changes = decide(known)
    if changes.new:
        new = sorted(changes.new, key=lambda one: one[0].id)
        bulk.insert(file, calls, [record_row(call, token, now) for call, token in new])
    if changes.changed:
        columns = tuple(changes.changed[0])
        rows = [[_stored(one[name]) for name in columns] for one in changes.changed]
        for part, size in sqlite_rows.portions(rows):
            file.execute(_update(columns, size), sqlite_rows.flat(part, size))
    if changes.pieces:
        bulk.insert(file, logs, [tuple(piece.values()) for piece in changes.pieces])
    if changes.kept:
        bulk.insert(file, results, [tuple(piece.values()) for piece in changes.kept])
    return answer


def _stored(value: Any) -> Any:
    return msgspec.json.encode(value).decode() if isinstance(value, list) else value


@cache
def _look(size: int) -> str:
    return f"SELECT {', '.join(KNOWN)} FROM calls WHERE id IN ({sqlite_rows.places('?', size)})"


@cache
def _update(columns: tuple[str, ...], size: int) -> str:
    """The first of *columns* is the key."""
    changes = ", ".join(f"{name} = new.column{number}" for number, name in enumerate(columns[1:], 2))
    rows = sqlite_rows.places(f"({sqlite_rows.places('?', len(columns))})", size)
    return f"UPDATE calls SET {changes} FROM (VALUES {rows}) AS new WHERE id = new.column1"
