"""Dead letters on a SQL database. Their contract is ``shared_models.call_interfaces.DeadLetters``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Column, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.database import Database
from services.datastore.rows import Packets, insert_new, portions
from services.datastore.seeking import seek
from services.datastore.tables import dead_letters
from shared_models import times
from shared_models.call import Call
from shared_models.call_interfaces import DeadLetter, DeadLetterFilter, DeadLetters
from shared_models.errors import DeadLetterNotFound, Invalid

_decoder = msgspec.json.Decoder(Call)
_id = dead_letters.c.call_id
_SHOWN = (dead_letters.c.call, dead_letters.c.died_at, dead_letters.c.redriven_as)


class SQLDeadLetters(DeadLetters):
    """Call and payload are two columns: pages do not read payloads."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._packets = Packets(database)

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """Stores all that the database takes; raises TooLarge, afterwards, when that is not all."""
        rows = await self._packets.fitting([self._row(letter) for letter in letters])

        async def work(connection: AsyncConnection) -> None:
            await insert_new(connection, dead_letters, rows)

        if rows:
            await self._database.transact(work)
        stored = {row["call_id"] for row in rows}
        self._packets.refuse("dead letter", [one.call.id for one in letters if one.call.id not in stored])

    def _row(self, letter: DeadLetter) -> dict[str, Any]:
        call = letter.call
        try:
            body = msgspec.json.encode(msgspec.structs.replace(call, payload=b"")).decode()
        except UnicodeEncodeError as exc:
            raise Invalid(f"A value cannot be stored: {exc}") from exc
        died_at = times.to_text(self._clock()) if letter.died_at == times.NEVER else letter.died_at
        return {
            "call_id": call.id,
            "fn_id": call.fn_id,
            "app_id": call.app_id,
            "died_at": died_at,
            "redriven_as": letter.redriven_as,
            "call": body,
            "payload": call.payload,
        }

    async def get(self, call_id: str) -> DeadLetter:
        query = select(*_SHOWN, dead_letters.c.payload).where(_id == call_id)
        rows = await self._database.read(lambda connection: connection.execute(query))
        row = rows.mappings().first()
        if row is None:
            raise DeadLetterNotFound
        return _letter(row["call"], row["died_at"], row["redriven_as"], row["payload"])

    async def page(self, page: DeadLetterFilter) -> list[DeadLetter]:
        fixed = [(dead_letters.c.fn_id, page.fn_id)] if page.fn_id else []
        query = select(*_SHOWN).limit(page.limit)
        rows = await self._database.read(
            lambda connection: connection.execute(
                seek(query, connection.dialect.name, fixed, _id, below=page.before, newest_first=True)
            )
        )
        return [_letter(*row) for row in rows]

    async def redrive(self, call_id: str, new_id: str, instead_of: str = "") -> str:
        async def work(connection: AsyncConnection) -> str:
            query = select(dead_letters.c.redriven_as).where(_id == call_id).with_for_update()
            earlier = await connection.scalar(query)
            if earlier is None:
                raise DeadLetterNotFound
            if earlier and earlier != instead_of:
                return str(earlier)
            await connection.execute(update(dead_letters).where(_id == call_id).values(redriven_as=new_id))
            return new_id

        return await self._database.transact(work)

    async def remove(self, call_ids: Sequence[str]) -> int:
        return await self._database.transact(lambda connection: _delete(connection, sorted(set(call_ids))))

    async def purge(self, *, fn_id: str = "", app_id: str = "", older_than: str = "", limit: int) -> int:
        named: list[tuple[Column[Any], str]] = [
            (column, value)
            for column, value in ((dead_letters.c.fn_id, fn_id), (dead_letters.c.app_id, app_id))
            if value
        ]
        if not named and not older_than:
            return 0  # an order that names nobody

        async def work(connection: AsyncConnection) -> int:
            # Rows that somebody else has in hand are waited for: none found must mean that none is left.
            query = select(_id).limit(limit).with_for_update()
            if older_than:
                query = query.where(dead_letters.c.died_at < older_than)
            if named:
                query = seek(query, connection.dialect.name, named[:1], _id).where(
                    *[column == value for column, value in named[1:]]
                )
            else:
                query = query.order_by(dead_letters.c.died_at)
            return await _delete(connection, (await connection.scalars(query)).all())

        return await self._database.transact(work)

    async def count(self, fn_id: str = "") -> int:
        query = select(func.count()).select_from(dead_letters)
        if fn_id:
            query = query.where(dead_letters.c.fn_id == fn_id)
        found = await self._database.read(lambda connection: connection.execute(query))
        return int(found.scalar_one())


async def _delete(connection: AsyncConnection, call_ids: Sequence[str]) -> int:
    removed = 0
    for some in portions(call_ids):
        removed += (await connection.execute(delete(dead_letters).where(_id.in_(some)))).rowcount
    return removed


def _letter(body: str, died_at: str, redriven_as: str, payload: bytes = b"") -> DeadLetter:
    call = msgspec.structs.replace(_decoder.decode(body), payload=payload)
    return DeadLetter(call=call, died_at=died_at, redriven_as=redriven_as)
