"""Clients' keys on a SQL database. Their contract is ``shared_models.call_interfaces.IdempotencyKeys``."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from sqlalchemy import ColumnElement, and_, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.database import Database
from services.datastore.rows import portions
from services.datastore.tables import idempotency_keys as keys
from shared_models.call_interfaces import IdempotencyKeys


class SQLIdempotencyKeys(IdempotencyKeys):
    """Of racing claims one inserts its row; the others break the primary key, run again and find it."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def claim(self, fn_id: str, key: str, call_id: str, ttl: float) -> tuple[str, bool]:
        hashed, now = _hash(key), self._clock()
        this = _is(fn_id, hashed)
        mine = {"fn_id": fn_id, "key_hash": hashed, "call_id": call_id, "accepted": 0, "until": now + ttl}

        async def work(connection: AsyncConnection) -> tuple[str, bool]:
            query = select(keys.c.call_id, keys.c.accepted, keys.c.until).where(this).with_for_update()
            held = (await connection.execute(query)).first()
            if held is not None and held.until > now:
                return str(held.call_id), bool(held.accepted)
            change = insert(keys) if held is None else update(keys).where(this)
            await connection.execute(change.values(mine))
            return call_id, False

        return await self._database.transact(work)

    async def accept(self, fn_id: str, key: str, call_id: str) -> None:
        this = and_(_is(fn_id, _hash(key)), keys.c.call_id == call_id)

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(update(keys).where(this).values(accepted=1))

        await self._database.transact(work)

    async def release(self, fn_id: str, key: str, call_id: str) -> None:
        this = and_(_is(fn_id, _hash(key)), keys.c.call_id == call_id, keys.c.accepted == 0)

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(delete(keys).where(this))

        await self._database.transact(work)

    async def expire(self, limit: int) -> int:
        ran_out = select(keys.c.fn_id, keys.c.key_hash).where(keys.c.until <= self._clock())
        # One that is being claimed again is left alone.
        ran_out = ran_out.order_by(keys.c.until).limit(limit).with_for_update(skip_locked=True)

        async def work(connection: AsyncConnection) -> int:
            hashes: dict[str, list[str]] = {}
            for fn_id, hashed in await connection.execute(ran_out):
                hashes.setdefault(fn_id, []).append(hashed)
            # By function: no planner misreads that, as some do pairs of columns.
            for fn_id, of_fn in hashes.items():
                for some in portions(of_fn):
                    those = and_(keys.c.fn_id == fn_id, keys.c.key_hash.in_(some))
                    await connection.execute(delete(keys).where(those))
            return sum(map(len, hashes.values()))

        return await self._database.transact(work)


def _hash(key: str) -> str:
    # What came as a header may hold bytes that are no text.
    return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _is(fn_id: str, hashed: str) -> ColumnElement[bool]:
    return and_(keys.c.fn_id == fn_id, keys.c.key_hash == hashed)
