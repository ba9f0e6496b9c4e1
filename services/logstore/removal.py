"""Records, logs and results that are removed: ids found by an index, rows deleted by primary key.

Rows that somebody else has in hand are waited for, not passed over: none found must mean that none is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.tables import calls, logs, results
from services.logstore.listing import records
from services.logstore.records import in_portions
from shared_models import ids, times
from shared_models.call import FINAL
from shared_models.interfaces import Purge

_ENDED = sorted(status.value for status in FINAL)


async def remove_calls(connection: AsyncConnection, purge: Purge, limit: int) -> int:
    """Ended calls of *purge*, at most *limit*; answers how many."""
    named: dict[str, Any] = {"fn_id": purge.fn_id, "app_id": purge.app_id}
    named["between"] = (purge.from_time, purge.to_time)
    if purge.fn_id:
        return await _remove_by_status(connection, limit, **named)
    return await _remove_ended(connection, limit, **named) if purge.app_id else 0  # none names nobody


async def expire_calls(connection: AsyncConnection, older_than: str, limit: int) -> int:
    """Ended calls whose ids are older than *older_than* (wire text), at most *limit*; answers how many."""
    return await _remove_ended(connection, limit, before=_bound(older_than))


async def expire_logs(connection: AsyncConnection, older_than: str, limit: int) -> int:
    """Logs and results of at most *limit* calls with ids older than *older_than* (wire text); of how many.

    Only calls that have ended have them, or had attempts that were repeated.
    """
    found: set[str] = set()
    for table in (logs, results):
        key = table.c.call_id
        query = select(key).where(key < _bound(older_than), table.c.piece <= 0).order_by(key)
        if len(found) < limit:
            found |= set(await _taken(connection, query, limit - len(found)))
    for table in (logs, results):
        await _delete(connection, table.c.call_id, sorted(found))
    return len(found)


async def _remove_ended(connection: AsyncConnection, limit: int, **named: Any) -> int:
    """Removes ended records that have what is *named*, by an index without a status: few have not ended."""
    ended = records(connection.dialect.name, [calls.c.id], **named).where(calls.c.status.in_(_ENDED))
    return await _remove(connection, ended, limit)


async def _remove_by_status(connection: AsyncConnection, limit: int, **named: Any) -> int:
    """Removes ended records of a function, by the index that has a call's status before its id."""
    removed = 0
    for status in _ENDED:
        if removed < limit:
            ended = records(connection.dialect.name, [calls.c.id], status=status, **named)
            removed += await _remove(connection, ended, limit - removed)
    return removed


async def _remove(connection: AsyncConnection, ended: Select[Any], limit: int) -> int:
    found = await _taken(connection, ended, limit)
    await _delete(connection, logs.c.call_id, found)
    await _delete(connection, results.c.call_id, found)
    await _delete(connection, calls.c.id, found)
    return len(found)


async def _taken(connection: AsyncConnection, query: Select[Any], limit: int) -> Sequence[str]:
    """The first *limit* ids of *query*, whose rows are ours until the transaction ends."""
    found = await connection.scalars(query.limit(limit).with_for_update())
    return found.all()


async def _delete(connection: AsyncConnection, key: Any, found: Sequence[str]) -> None:
    for portion in in_portions(found):
        await connection.execute(delete(key.table).where(key.in_(portion)))


def _bound(older_than: str) -> str:
    return ids.first_of(times.seconds_of(older_than))
