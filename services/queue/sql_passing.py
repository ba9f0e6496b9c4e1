"""What comes first in the SQL queue when functions are passed over: sought function by function.

Nothing of what the functions passed over have is read, however much of it stands in front.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, literal, select, tuple_, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.tables import messages

POSTGRESQL = "postgresql"
INDEX = "FORCE INDEX (ix_messages_fn_id_ready_rank_place_pushed)"
"""Of functions, by the name that MySQL and MariaDB are told."""
_AT_ONCE = 64
"""Functions that one statement names."""
_fn_id, _rank, _place = messages.c.fn_id, messages.c.rank, messages.c.place


async def functions(connection: AsyncConnection, without: Collection[str]) -> list[str]:
    """The ids of those that have something ready, but *without*."""
    if connection.dialect.name == POSTGRESQL:
        found = await connection.scalars(_ONE_BY_ONE, {"without": list(without)})
    else:
        found = await connection.scalars(_DISTINCT)
    return sorted(set(found).difference(without))


async def first_places(connection: AsyncConnection, fn_ids: Sequence[str], limit: int) -> list[int]:
    """The places of the first *limit* ready messages of these functions, in their order."""
    found: set[tuple[int, int]] = set()
    for start in range(0, len(fn_ids), _AT_ONCE):
        some = fn_ids[start : start + _AT_ONCE]
        # Few sizes: each is a statement that client and server prepare.
        size = 1 << (len(some) - 1).bit_length()
        named = {f"fn_{n}": some[min(n, len(some) - 1)] for n in range(size)}
        query = _first_of(size, connection.dialect.name)
        rows = await connection.execute(query, {**named, "most": limit})
        found.update((rank, place) for rank, place in rows)
    return [place for _, place in heapq.nsmallest(limit, found)]


def of_function(fn_id: Any, dialect: str, *, ready: bool) -> tuple[ColumnElement[bool], ...]:
    """That a message is of this function, and ready or not, as the function's own index has it."""
    row, wanted = tuple_(_fn_id, messages.c.ready), tuple_(fn_id, literal(int(ready)))
    if dialect != POSTGRESQL:
        return _fn_id == fn_id, messages.c.ready == int(ready)
    # A planner whose statistics are of an empty queue takes any index that begins with a column that is
    # given, and may read all that is ready. So only that of functions begins with one.
    return _fn_id == fn_id, row >= wanted if ready else row <= wanted


def _one_by_one() -> Select[Any]:
    # PostgreSQL has no way of its own to go from one value of an index to the next.
    first = select(_fn_id).order_by(_fn_id).limit(1).scalar_subquery()
    found = select(first.label("fn_id")).cte("found", recursive=True)
    after = select(_fn_id).where(_fn_id > found.c.fn_id).order_by(_fn_id).limit(1)
    found = found.union_all(
        select(after.correlate(found).scalar_subquery()).where(found.c.fn_id.is_not(None))
    )
    # As a value, not as EXISTS: that is a join, whose order a planner may turn round. And in the order of the
    # index: any one might as well be sought by reading the table.
    ready = select(literal(1)).where(*of_function(found.c.fn_id, POSTGRESQL, ready=True))
    ready = ready.order_by(messages.c.ready, _rank, _place).limit(1).correlate(found)
    passed_over = found.c.fn_id.in_(bindparam("without", expanding=True))
    return select(found.c.fn_id).where(~passed_over, ready.scalar_subquery() == 1)


@cache
def _first_of(size: int, dialect: str) -> Select[Any]:
    def first(name: str) -> Select[Any]:
        fn_id = bindparam(name, type_=_fn_id.type)
        query = select(_rank, _place).where(*of_function(fn_id, dialect, ready=True))
        return query.order_by(messages.c.ready, _rank, _place).limit(bindparam("most"))

    found = union_all(*[first(f"fn_{n}") for n in range(size)]).subquery("found")
    return select(found.c.rank, found.c.place).order_by(found.c.rank, found.c.place).limit(bindparam("most"))


_ONE_BY_ONE = _one_by_one()
_DISTINCT = select(_fn_id).where(messages.c.ready == 1).distinct()
