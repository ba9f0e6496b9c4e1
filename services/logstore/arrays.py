"""The usual steps on PostgreSQL, each in one statement of arrays that is a transaction by itself.

An array is a column of all rows. Rows are named in the order of their keys, and are met in it
(``raw.PLANS``): statements that want the same ones wait for each other, and do not lock each other out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import Integer, LargeBinary, Table

from services.datastore.bulk import Rows
from services.datastore.database import Database
from services.datastore.tables import logs, results
from services.logstore import kept
from services.logstore.records import ENDED, pieces_of, result_of
from services.logstore.results import OUTCOME
from shared_models import times
from shared_models.call import FINAL, Finished, LeasedCall, LeaseKey, Status

_MOST = 2**23
"""Bytes of logs and results in one statement, all of which are in memory at once, here and there."""
_NAMED = ("id", "token", "fn_id", "app_id")
"""What the end of a call must agree with, as ``results.judge`` says."""


def _rows(kinds: Iterable[str], first: int = 1) -> str:
    """Rows of arrays of these types, which are the values from *first* on."""
    return f"unnest({', '.join(f'${place}::{kind}[]' for place, kind in enumerate(kinds, first))})"


CLAIM = (
    f"UPDATE calls SET status = '{Status.QUEUED.value}', attempt = new.attempt, node = $4, "
    f"token = new.token, started_at = '{times.NEVER}' "
    f"FROM {_rows(('text', 'text', 'int'))} AS new (id, token, attempt) WHERE calls.id = new.id "
    f"AND calls.status NOT IN ({ENDED}) AND calls.attempt <= new.attempt RETURNING calls.id"
)
# Its index would have a planner look through all that is queued: no bare column.
START = (
    f"UPDATE calls SET status = '{Status.RUNNING.value}', started_at = new.started_at "
    f"FROM {_rows(['text'] * 3)} AS new (id, token, started_at) WHERE calls.id = new.id "
    f"AND calls.token = new.token AND calls.status || '' = '{Status.QUEUED.value}' "
    "RETURNING calls.id, calls.token"
)
_OF_END = (*_NAMED, *OUTCOME)
END = (
    f"UPDATE calls SET {', '.join(f'{name} = new.{name}' for name in OUTCOME)} "
    f"FROM {_rows(['text'] * len(_OF_END))} AS new ({', '.join(_OF_END)}) "
    f"WHERE {' AND '.join(f'calls.{name} = new.{name}' for name in _NAMED)} "
    f"AND calls.status NOT IN ({ENDED}) RETURNING calls.id"
)


async def insert(database: Database, rows: Rows) -> bool:
    """Inserts all of *rows*, in the order given; False, and none, when one of them cannot be."""
    some = [(table, of_it) for table, of_it in rows if of_it]
    if not some:
        return True
    if sum(len(row[2]) for table, of_it in some if table is logs for row in of_it) > _MOST:
        return False
    values = [column for _, of_it in some for column in columns_of(of_it)]
    return await database.at_once(_insertion(tuple(table for table, _ in some)), values) is not None


async def claim(database: Database, leased: Sequence[LeasedCall], node: str) -> Sequence[LeasedCall]:
    """Notes who holds *leased*, each call once; answers those that are to be judged."""
    rows = sorted((one.call.id, one.key.token, one.lease.attempt if one.lease else 1) for one in leased)
    values = [*columns_of(rows), _stored(node)]
    claimed = {row.id for row in await database.at_once(CLAIM, values, repeatable=True) or ()}
    return [one for one in leased if one.call.id not in claimed]


async def start(database: Database, starts: Sequence[tuple[LeaseKey, str]]) -> Sequence[tuple[LeaseKey, str]]:
    """Notes the *starts*, which are leases and times; answers those that are to be judged."""
    rows = sorted((key.id, key.token, started_at) for key, started_at in starts if key.token)
    if not rows:
        return starts
    found = await database.at_once(START, columns_of(rows), repeatable=True)
    started = {(row.id, row.token) for row in found or ()}
    return [one for one in starts if (one[0].id, one[0].token) not in started]


async def end(database: Database, batch: Sequence[Finished]) -> Sequence[Finished]:
    """Stores how the holders of calls ended them, with what is kept; answers those that are to be judged."""
    held = [one for one in batch if one.token and one.call.status in FINAL]
    twice = len({one.call.id for one in batch}) < len(batch)
    if not held or twice or sum(len(one.log) + len(one.body) for one in held) > _MOST:
        return batch
    held.sort(key=lambda one: one.call.id)
    pieces = [tuple(piece.values()) for one in held for piece in pieces_of(one.call.id, one.log)]
    answers = [tuple(row.values()) for one in held for row in kept.rows_of(one)]
    some = [(table, rows) for table, rows in ((logs, pieces), (results, answers)) if rows]
    values = [*columns_of(map(_end_of, held)), *(column for _, rows in some for column in columns_of(rows))]
    found = await database.at_once(_ending(tuple(table for table, _ in some)), values, repeatable=True)
    ended = {row.id for row in found or ()}
    return [one for one in batch if one.call.id not in ended]


def _end_of(one: Finished) -> tuple[str, ...]:
    result = result_of(one)
    result["stats"] = msgspec.json.encode(result["stats"]).decode()
    named = (one.call.id, one.token, one.call.fn_id, one.call.app_id)
    return (*named, *(str(result[name]) for name in OUTCOME))


def columns_of(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """The values of *rows* by column, as PostgreSQL stores them; nothing of no rows."""
    return [[_stored(value) for value in column] for column in zip(*rows, strict=True)]


def _stored(value: Any) -> Any:
    # PostgreSQL stores no NUL: see ``dialects.ordered``.
    return value.replace("\0", "\u2400") if isinstance(value, str) and "\0" in value else value


@cache
def _ending(tables: tuple[Table, ...]) -> str:
    """The statement that ends calls, and inserts rows of those that it has ended into all of *tables*."""
    parts, place = [f"ended AS ({END})"], len(_OF_END) + 1
    for table in tables:
        names = ", ".join(column.name for column in table.columns)
        kinds = [_kind(column.type) for column in table.columns]
        parts.append(
            f"into_{table.name} AS (INSERT INTO {table.name} ({names}) SELECT * FROM {_rows(kinds, place)} "
            f"AS new ({names}) WHERE call_id IN (SELECT id FROM ended))"
        )
        place += len(kinds)
    return f"WITH {', '.join(parts)} SELECT id FROM ended" if tables else END


@cache
def _insertion(tables: tuple[Table, ...]) -> str:
    """A statement that inserts rows into all of *tables*."""
    parts, place = [], 1
    for table in tables:
        names = ", ".join(column.name for column in table.columns)
        kinds = [_kind(column.type) for column in table.columns]
        parts.append(f"INSERT INTO {table.name} ({names}) SELECT * FROM {_rows(kinds, place)}")
        place += len(kinds)
    *before, last = parts
    some = ", ".join(f"part{number} AS ({part})" for number, part in enumerate(before))
    return f"WITH {some} {last}" if some else last


def _kind(type_: object) -> str:
    match type_:
        case Integer():
            return "int"
        case LargeBinary():
            return "bytea"
    return "text"
