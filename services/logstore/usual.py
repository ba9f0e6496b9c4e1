"""The usual steps of calls, each in one statement: made, claimed by a lease, started, ended.

Nearly always the record is as it should be, so it is changed where it is, and only there. Which were not
is told, and then looked at and judged. In a SQLite file one statement for four is a quarter of the waits for
the interpreter, and on PostgreSQL a quarter of the round trips; MySQL judges all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial

from services import sqlite_rows
from services.datastore.database import Database
from services.datastore.tables import calls
from services.logstore import arrays
from services.logstore.fresh import never_seen, record_row, rows_of
from services.logstore.records import ENDED
from shared_models import times
from shared_models.call import Call, Finished, LeasedCall, LeaseKey, Status


async def make(database: Database, batch: Sequence[Call], now: str) -> bool:
    """Makes the records of *batch*; False, and none, when one of them may be there."""
    if not database.has_arrays or len({call.id for call in batch}) < len(batch):
        return False
    new = sorted(batch, key=lambda call: call.id)
    return await arrays.insert(database, [(calls, [record_row(call, "", now) for call in new])])


async def end(database: Database, batch: Sequence[Finished], now: str) -> Sequence[Finished]:
    """Stores how the calls of *batch* ended; answers those that are to be judged."""
    if never_seen(batch):
        insert = partial(arrays.insert, database) if database.has_arrays else database.insert_at_once
        return [] if await insert(rows_of(batch, now)) else batch
    return await arrays.end(database, batch) if database.has_arrays else batch


async def claim(database: Database, leased: Sequence[LeasedCall], node: str) -> Sequence[LeasedCall]:
    """Notes who holds *leased*, each call once; answers those that are to be judged."""
    if database.has_arrays:
        return await arrays.claim(database, leased, node)
    if not database.has_trips:
        return leased
    claimed: set[str] = set()
    for some, size in sqlite_rows.portions(leased):
        rows = [(one.call.id, one.key.token, one.lease.attempt if one.lease else 1, node) for one in some]
        found = await database.statement(_claims(size), sqlite_rows.flat(rows, size))
        claimed.update(call_id for (call_id,) in found)
    return [one for one in leased if one.call.id not in claimed]


async def start(database: Database, starts: Sequence[tuple[LeaseKey, str]]) -> Sequence[tuple[LeaseKey, str]]:
    """Notes the *starts*, which are leases and times; answers those that are to be judged."""
    if database.has_arrays:
        return await arrays.start(database, starts)
    if not database.has_trips:
        return starts
    started: set[tuple[str, str]] = set()
    for some, size in sqlite_rows.portions(starts):
        rows = [(key.id, key.token, started_at) for key, started_at in some]
        found = await database.statement(_starts(size), sqlite_rows.flat(rows, size))
        started.update((call_id, token) for call_id, token in found)
    return [one for one in starts if (one[0].id, one[0].token) not in started]


@cache
def _claims(size: int) -> str:
    return (
        f"UPDATE calls SET status = '{Status.QUEUED.value}', attempt = new.column3, node = new.column4, "
        f"token = new.column2, started_at = '{times.NEVER}' "
        f"FROM (VALUES {sqlite_rows.places('(?, ?, ?, ?)', size)}) AS new "
        f"WHERE id = new.column1 AND status NOT IN ({ENDED}) AND attempt <= new.column3 RETURNING id"
    )


@cache
def _starts(size: int) -> str:
    return (
        f"UPDATE calls SET status = '{Status.RUNNING.value}', started_at = new.column3 "
        f"FROM (VALUES {sqlite_rows.places('(?, ?, ?)', size)}) AS new "
        f"WHERE id = new.column1 AND token = new.column2 AND token != '' "
        f"AND status = '{Status.QUEUED.value}' RETURNING id, token"
    )
