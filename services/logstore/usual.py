"""The usual steps of queued calls, each in one statement: a lease is claimed, and its call is started.

Nearly always the record is as it should be, so it is changed where it is, and only there. Which were not
is told, and then looked at and judged. In a SQLite file one statement for four is a quarter of the waits for
the interpreter; other databases judge all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from services import sqlite_rows
from services.datastore.database import Database
from shared_models import times
from shared_models.call import FINAL, LeasedCall, LeaseKey, Status

_FINAL = ", ".join(f"'{status.value}'" for status in sorted(FINAL))


async def claim(database: Database, leased: Sequence[LeasedCall], node: str) -> Sequence[LeasedCall]:
    """Notes who holds *leased*, each call once; answers those that are to be judged."""
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
        f"WHERE id = new.column1 AND status NOT IN ({_FINAL}) AND attempt <= new.column3 RETURNING id"
    )


@cache
def _starts(size: int) -> str:
    return (
        f"UPDATE calls SET status = '{Status.RUNNING.value}', started_at = new.column3 "
        f"FROM (VALUES {sqlite_rows.places('(?, ?, ?)', size)}) AS new "
        f"WHERE id = new.column1 AND token = new.column2 AND token != '' "
        f"AND status = '{Status.QUEUED.value}' RETURNING id, token"
    )
