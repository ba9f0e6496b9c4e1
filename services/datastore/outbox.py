"""Callbacks to be delivered, on SQL. Their contract is ``shared_models.call_interfaces.Outbox``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import and_, delete, func, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.database import Database
from services.datastore.rows import Packets, insert_new, portions
from services.datastore.tables import callbacks as table
from shared_models.call_interfaces import Callback, Outbox

_KEPT = [table.c[name] for name in Callback.__struct_fields__]


class SQLOutbox(Outbox):
    """A lease is a due time in the future: it ends by itself when its holder dies."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._packets = Packets(database)

    async def put(self, callbacks: Sequence[Callback]) -> None:
        """Stores all that the database takes; raises TooLarge, afterwards, when that is not all."""
        now = self._clock()
        rows = await self._packets.fitting([_row(one, now) for one in callbacks])

        async def work(connection: AsyncConnection) -> None:
            await insert_new(connection, table, rows)

        if rows:
            await self._database.transact(work)
        stored = {(row["call_id"], row["attempt"], row["status"]) for row in rows}
        self._packets.refuse("callback", [one.call_id for one in callbacks if _key(one) not in stored])

    async def due(self, limit: int, ttl: float) -> list[Callback]:
        now = self._clock()
        is_due = table.c.due <= now
        anything = select(literal(1)).where(is_due).limit(1)
        # Asked often, mostly in vain: without a transaction, which takes its turn with those that write.
        if await self._database.read(lambda connection: connection.scalar(anything)) is None:
            return []
        first = select(*_KEPT).where(is_due).order_by(table.c.due).limit(limit)
        first = first.with_for_update(skip_locked=True)

        async def work(connection: AsyncConnection) -> list[Callback]:
            rows = (await connection.execute(first)).mappings().all()
            found = [Callback(**row) for row in rows]
            lease = {"due": now + ttl, "tries": table.c.tries + 1}
            for those in _named(found):
                await connection.execute(update(table).where(those).values(lease))
            return [msgspec.structs.replace(one, tries=one.tries + 1) for one in found]

        return await self._database.transact(work)

    async def postpone(self, callback: Callback, delay: float, *, counted: bool = True) -> None:
        # Not that of somebody who has leased it since.
        mine = and_(
            table.c.call_id == callback.call_id,
            table.c.attempt == callback.attempt,
            table.c.status == callback.status,
            table.c.tries == callback.tries,
        )
        tries = callback.tries if counted else callback.tries - 1
        change = update(table).where(mine).values(due=self._clock() + delay, tries=tries)

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(change)

        await self._database.transact(work)

    async def remove(self, callbacks: Sequence[Callback]) -> None:
        async def work(connection: AsyncConnection) -> None:
            for those in _named(callbacks):
                await connection.execute(delete(table).where(those))

        if callbacks:
            await self._database.transact(work)

    async def count(self) -> int:
        query = select(func.count()).select_from(table)
        found = await self._database.read(lambda connection: connection.execute(query))
        return int(found.scalar_one())


def _row(callback: Callback, now: float) -> dict[str, Any]:
    row = {name: getattr(callback, name) for name in Callback.__struct_fields__}
    return {**row, "created": callback.created or now, "due": now}


def _named(some: Iterable[Callback]) -> Iterable[Any]:
    """Conditions that name *some*, by attempt and status, of which there are few."""
    ids: dict[tuple[int, str], set[str]] = {}
    for one in some:
        ids.setdefault((one.attempt, one.status), set()).add(one.call_id)
    for (attempt, status), of_both in ids.items():
        for names in portions(sorted(of_both)):
            yield and_(table.c.attempt == attempt, table.c.status == status, table.c.call_id.in_(names))


def _key(callback: Callback) -> tuple[str, int, str]:
    return callback.call_id, callback.attempt, callback.status
