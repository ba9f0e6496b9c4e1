"""What comes first in the SQL queue when functions are passed over: sought function by function.

Nothing of what the functions passed over have is read, however much of it stands in front.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Select, bindparam, exists, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.tables import messages

_AT_ONCE = 64
"""Functions that one statement names."""
_fn_id, _rank, _place = messages.c.fn_id, messages.c.rank, messages.c.place


async def functions(connection: AsyncConnection, without: Collection[str]) -> list[str]:
    """The ids of those that have something ready, but *without*."""
    query = _ONE_BY_ONE if connection.dialect.name == "postgresql" else _DISTINCT
    return sorted(set(await connection.scalars(query)).difference(without))


async def first_places(connection: AsyncConnection, fn_ids: Sequence[str], limit: int) -> list[int]:
    """The places of the first *limit* ready messages of these functions, in their order."""
    found: set[tuple[int, int]] = set()
    for start in range(0, len(fn_ids), _AT_ONCE):
        some = fn_ids[start : start + _AT_ONCE]
        # Few sizes: each is a statement that client and server prepare.
        size = 1 << (len(some) - 1).bit_length()
        named = {f"fn_{n}": some[min(n, len(some) - 1)] for n in range(size)}
        rows = await connection.execute(_first_of(size), {**named, "most": limit})
        found.update((rank, place) for rank, place in rows)
    return [place for _, place in heapq.nsmallest(limit, found)]


def _one_by_one() -> Select[Any]:
    # PostgreSQL has no way of its own to go from one value of an index to the next.
    first = select(_fn_id).order_by(_fn_id).limit(1).scalar_subquery()
    found = select(first.label("fn_id")).cte("found", recursive=True)
    after = select(_fn_id).where(_fn_id > found.c.fn_id).order_by(_fn_id).limit(1)
    found = found.union_all(
        select(after.correlate(found).scalar_subquery()).where(found.c.fn_id.is_not(None))
    )
    ready = exists().where(_fn_id == found.c.fn_id, messages.c.ready == 1)
    return select(found.c.fn_id).where(found.c.fn_id.is_not(None), ready)


@cache
def _first_of(size: int) -> Select[Any]:
    def first(name: str) -> Select[Any]:
        query = select(_rank, _place).where(_fn_id == bindparam(name), messages.c.ready == 1)
        return query.order_by(_rank, _place).limit(bindparam("most"))

    found = union_all(*[first(f"fn_{n}") for n in range(size)]).subquery("found")
    return select(found.c.rank, found.c.place).order_by(found.c.rank, found.c.place).limit(bindparam("most"))


_ONE_BY_ONE = _one_by_one()
_DISTINCT = select(_fn_id).where(messages.c.ready == 1).distinct()
