"""Pages of a function's calls that nobody holds in the SQL queue, as short ranges of the function's index."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Select, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.tables import messages
from services.queue.sql_messages import call_of
from services.queue.sql_passing import INDEX, POSTGRESQL
from shared_models.interfaces import WaitingCall

_Place = tuple[int, int, int]
"""Ready, rank and place."""
_READY = (0, 1)
_START: _Place = (0, -(1 << 62), 0)
_fn_id, _ready, _rank, _place = messages.c.fn_id, messages.c.ready, messages.c.rank, messages.c.place
_ORDER = (_ready, _rank, _place)


async def waiting(
    connection: AsyncConnection, fn_id: str, after: str, limit: int, now: float
) -> list[WaitingCall]:
    """See ``MessageQueue.waiting``."""
    behind: _Place = msgspec.json.decode(after, type=_Place) if after else _START
    unheld = select(*_ORDER, messages.c.pushed, messages.c.attempt, messages.c.call)
    unheld = unheld.where(or_(messages.c.token == "", messages.c.free_at <= now))
    if connection.dialect.name == POSTGRESQL:
        rows = (await connection.execute(_seek(unheld, fn_id, behind).limit(limit))).all()
    else:
        rows = await _rank_by_rank(connection, unheld, fn_id, behind, limit)
    found: list[WaitingCall] = []
    for ready, rank, place, pushed, attempt, body in rows:
        try:
            call = call_of(body, b"", attempt)
        except msgspec.MsgspecError:
            continue  # those who are handed it out tell of it
        at = msgspec.json.encode((ready, rank, place)).decode()
        found.append(WaitingCall(call=call, age=now - float(pushed), place=at))
    return found


def _seek(query: Select[Any], fn_id: str, behind: _Place) -> Select[Any]:
    # As one row, since any index that begins with a column that is given looks good to a planner.
    query = query.where(_fn_id == fn_id, tuple_(_fn_id, *_ORDER) > tuple_(fn_id, *behind))
    return query.order_by(*_ORDER)


async def _rank_by_rank(
    connection: AsyncConnection, query: Select[Any], fn_id: str, behind: _Place, limit: int
) -> list[Any]:
    """MariaDB compares rows one by one: there each rank, of which there are few, is a range of its own."""
    rows: list[Any] = []
    ready, rank, place = behind
    query = query.with_hint(messages, INDEX, "mysql").order_by(_place)
    ranks = select(_rank).with_hint(messages, INDEX, "mysql").order_by(_rank).limit(1)
    for is_ready in _READY[ready:]:
        of_it = (_fn_id == fn_id, _ready == is_ready)
        while len(rows) < limit:
            here = query.where(*of_it, _rank == rank, _place > place).limit(limit - len(rows))
            rows += await connection.execute(here)
            place = 0
            if len(rows) < limit:
                found = await connection.scalar(ranks.where(*of_it, _rank > rank))
                if found is None:
                    break
                rank = found
        rank = _START[1]
    return rows
