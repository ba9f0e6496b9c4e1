"""Records and logs that are removed: portions of ids, found by an index, then deleted by primary key.

Rows that another node is about to remove, or has in hand otherwise, are passed over: the next portion
has them if they are still there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.tables import calls, logs
from services.logstore.listing import created, owned
from services.logstore.records import in_portions
from shared_models import ids, times
from shared_models.call import FINAL
from shared_models.interfaces import Purge

Conditions = Sequence[ColumnElement[bool]]
_ENDED = sorted(status.value for status in FINAL)


async def remove_calls(connection: AsyncConnection, purge: Purge, limit: int) -> int:
    """Ended calls of *purge*, at most *limit*; answers how many."""
    which = [*owned(purge.fn_id, purge.app_id), *created(purge.from_time, purge.to_time)]
    if purge.fn_id:
        return await _remove_by_status(connection, which, limit)
    if purge.app_id:
        # An app's calls are not indexed by status, and few of them have not ended.
        return await _remove(connection, [*which, calls.c.status.in_(_ENDED)], limit)
    return 0  # an order that names nobody


async def expire_calls(connection: AsyncConnection, older_than: str, limit: int) -> int:
    """Ended calls whose ids are older than *older_than* (wire text), at most *limit*; answers how many."""
    return await _remove_by_status(connection, [calls.c.id < _bound(older_than)], limit)


async def expire_logs(connection: AsyncConnection, older_than: str, limit: int) -> int:
    """Logs of at most *limit* calls whose ids are older than *older_than* (wire text); answers of how many.

    Only calls that have ended have one.
    """
    key = logs.c.call_id
    query = select(key).where(key < _bound(older_than), logs.c.piece == 0).order_by(key)
    found = await _taken(connection, query, limit)
    await _delete(connection, key, found)
    return len(found)


async def _remove_by_status(connection: AsyncConnection, which: Conditions, limit: int) -> int:
    """As ``_remove``, by the indexes that have a call's status before its id."""
    removed = 0
    for status in _ENDED:
        if removed < limit:
            removed += await _remove(connection, [calls.c.status == status, *which], limit - removed)
    return removed


async def _remove(connection: AsyncConnection, which: Conditions, limit: int) -> int:
    found = await _taken(connection, select(calls.c.id).where(*which).order_by(calls.c.id), limit)
    await _delete(connection, logs.c.call_id, found)
    await _delete(connection, calls.c.id, found)
    return len(found)


async def _taken(connection: AsyncConnection, query: Select[Any], limit: int) -> Sequence[str]:
    """The first *limit* ids of *query*, whose rows are ours until the transaction ends."""
    found = await connection.scalars(query.limit(limit).with_for_update(skip_locked=True))
    return found.all()


async def _delete(connection: AsyncConnection, key: Any, found: Sequence[str]) -> None:
    for portion in in_portions(found):
        await connection.execute(delete(key.table).where(key.in_(portion)))


def _bound(older_than: str) -> str:
    return ids.first_of(times.seconds_of(older_than))
