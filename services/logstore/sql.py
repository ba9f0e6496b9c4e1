"""The log store on a SQL database. Its contract is ``shared_models.interfaces.LogStore``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import and_, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.database import Database
from services.datastore.tables import calls, logs, results
from services.logstore import attempts, kept, listing, removal, usual
from services.logstore.changes import Changes, Known, change
from services.logstore.records import (
    PIECE,
    call_of,
    pieces_of,
    result_of,
)
from services.logstore.results import Start, judge, judge_start
from shared_models import errors, times
from shared_models.batches import Batches
from shared_models.call import FINAL, Call, Finished, LeasedCall, LeaseKey, Status
from shared_models.interfaces import CallFilter, KeptResult, LogStore, Purge


class SQLLogStore(LogStore):
    """Every change of a record is decided and written in one transaction, which holds the record's row."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        # One call at a time, and many at once: these come from enqueues and starts.
        self._inserts = Batches(self._insert_calls)
        self._starts = Batches(self._start_calls)

    def _now(self) -> str:
        return times.to_text(self._clock())

    async def insert_call(self, call: Call) -> bool:
        return await self._inserts.ask(
            msgspec.structs.replace(call, status=Status.QUEUED, attempt=0, node="", error="", reason="")
        )

    async def _insert_calls(self, batch: Sequence[Call]) -> list[bool]:
        if await usual.make(self._database, batch, self._now()):
            return [True] * len(batch)

        def decide(known: Known) -> tuple[list[bool], Changes]:
            fresh: dict[str, Call] = {}
            inserted = []
            for call in batch:
                inserted.append(call.id not in known and call.id not in fresh)
                if inserted[-1]:
                    fresh[call.id] = call
            return inserted, Changes(new=[(call, "") for call in fresh.values()])

        return await change(self._database, [call.id for call in batch], self._now(), decide)

    async def remove_call(self, call_id: str) -> None:
        untouched = and_(calls.c.id == call_id, calls.c.status == Status.QUEUED, calls.c.attempt == 0)

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(delete(calls).where(untouched))

        await self._database.transact(work)

    async def claim(self, leased: Sequence[LeasedCall], node: str) -> list[str]:
        def decide(known: Known) -> tuple[list[str], Changes]:
            refused, fresh, given = [], [], []
            for one in leased:
                attempt = one.lease.attempt if one.lease else 1
                row = known.get(one.call.id)
                if row is None:
                    call = msgspec.structs.replace(
                        one.call, status=Status.QUEUED, attempt=attempt, node=node, error="", reason=""
                    )
                    fresh.append((call, one.key.token))
                elif row["status"] in FINAL:
                    refused.append(one.call.id)
                elif row["attempt"] <= attempt:
                    # A claim that was held up until a later lease had claimed must not take it back.
                    # The runner that gets this stale lease is refused when it starts the call.
                    given.append(_waiting(one.key, attempt, node))
            return refused, Changes(new=fresh, changed=given)

        if leased := await usual.claim(self._database, leased, node):
            return await change(self._database, [one.call.id for one in leased], self._now(), decide)
        return []

    async def unclaim(self, keys: Sequence[LeaseKey], *, counted: bool = False, log: bytes = b"") -> None:
        def decide(known: Known) -> tuple[None, Changes]:
            given_back = []
            pieces: list[dict[str, Any]] = []
            for key in keys:
                row = known.get(key.id)
                if row is None or not key.token or row["token"] != key.token or row["status"] in FINAL:
                    continue
                attempt = row["attempt"] if counted else max(0, row["attempt"] - 1)
                given_back.append(_waiting(LeaseKey(key.id), attempt, ""))
                if counted and 1 <= attempt <= attempts.MOST:
                    pieces += pieces_of(key.id, log, attempts.first_piece(attempt))
            return None, Changes(changed=given_back, pieces=pieces)

        await change(self._database, [key.id for key in keys], self._now(), decide)

    async def start_call(self, key: LeaseKey, started_at: str) -> None:
        await self._starts.ask((key, started_at))

    async def _start_calls(self, batch: Sequence[tuple[LeaseKey, str]]) -> list[Exception | None]:
        left = await usual.start(self._database, batch)
        judged = iter(await self._judge_starts(left) if left else ())
        return [next(judged) if one in left else None for one in batch]

    async def _judge_starts(self, batch: Sequence[tuple[LeaseKey, str]]) -> list[Exception | None]:
        def decide(known: Known) -> tuple[list[Exception | None], Changes]:
            outcomes: list[Exception | None] = []
            started = []
            for key, started_at in batch:
                verdict = judge_start(key, known.get(key.id))
                outcomes.append(errors.LeaseLost() if verdict is Start.REFUSED else None)
                if verdict is Start.NEW:
                    # A start without a token takes the record over from the lease's token: from now
                    # on only a result without one is accepted, until the call is claimed again.
                    new = {"status": Status.RUNNING.value, "started_at": started_at, "token": key.token}
                    known[key.id].update(new)
                    started.append({"key": key.id, **new})
            return outcomes, Changes(changed=started)

        return await change(self._database, [key.id for key, _ in batch], self._now(), decide)

    async def finish_calls(self, batch: Sequence[Finished]) -> list[str]:
        now = self._now()
        if not (batch := await usual.end(self._database, batch, now)):
            return []

        def decide(known: Known) -> tuple[list[str], Changes]:
            verdict = judge(batch, known)
            return verdict.refused, Changes(
                new=[(one.call, one.token) for one in verdict.new],
                changed=[result_of(one) for one in verdict.ended],
                pieces=[
                    piece
                    for one in (*verdict.new, *verdict.ended)
                    for piece in pieces_of(one.call.id, one.log)
                ],
                kept=[row for one in verdict.ended for row in kept.rows_of(one)],
            )

        return await change(self._database, [one.call.id for one in batch], now, decide)

    async def call(self, call_id: str, *, fn_id: str = "", app_id: str = "") -> Call:
        query = listing.one(call_id, fn_id, app_id)
        found = await self._database.read(lambda connection: connection.execute(query))
        row = found.first()
        if row is None:
            raise errors.CallNotFound
        return call_of(row)

    async def calls(self, page: CallFilter) -> list[Call]:
        async def work(connection: AsyncConnection) -> list[Call]:
            rows = (await connection.execute(listing.page_of(page, connection.dialect.name))).all()
            return [call_of(row) for row in rows]

        return await self._database.read(work)

    async def log(self, call_id: str, *, fn_id: str = "", app_id: str = "") -> AsyncIterator[bytes]:
        try:
            call = await self.call(call_id, fn_id=fn_id, app_id=app_id)
        except errors.CallNotFound:
            raise errors.CallLogNotFound from None
        if not call.final:
            raise errors.CallLogNotFound
        return self._log_pieces(call)

    async def _log_pieces(self, call: Call) -> AsyncIterator[bytes]:
        # A connection per piece: a slow reader must not keep one from everybody else.
        piece, named, body = attempts.first_piece(1) - 1, 0, b""
        while True:
            before = body
            row = await self._database.read(partial(_next_piece, call_id=call.id, after=piece))
            if row is None:
                return
            piece, body = row
            attempt = attempts.attempt_of(piece) if piece < 0 else call.attempt
            if piece < 0 or named:
                if attempt != named:
                    yield attempts.line(attempt, before)
                named = attempt
            yield body
            if piece >= 0 and len(body) < PIECE:
                return

    async def result(self, call_id: str, *, fn_id: str = "", app_id: str = "") -> KeptResult:
        try:
            call = await self.call(call_id, fn_id=fn_id, app_id=app_id)
        except errors.CallNotFound:
            raise errors.CallResultNotFound from None
        first = await self._database.read(partial(_result_piece, call_id=call_id, piece=0))
        if first is None or not call.final:
            raise errors.CallResultNotFound
        pieces = self._result_pieces(call_id, first.body)
        return KeptResult(content_type=first.content_type, truncated=bool(first.truncated), body=pieces)

    async def _result_pieces(self, call_id: str, body: bytes) -> AsyncIterator[bytes]:
        number = 0
        while body:
            yield body
            if len(body) < PIECE:
                return
            number += 1
            row = await self._database.read(partial(_result_piece, call_id=call_id, piece=number))
            body = row.body if row else b""

    async def unqueued(self, older_than: str, limit: int) -> list[str]:
        query = listing.waiting(older_than, limit)
        return list(await self._database.read(lambda connection: connection.scalars(query)))

    async def remove_calls(self, purge: Purge, limit: int) -> int:
        return await self._database.transact(
            lambda connection: removal.remove_calls(connection, purge, limit)
        )

    async def expire_calls(self, older_than: str, limit: int) -> int:
        return await self._database.transact(
            lambda connection: removal.expire_calls(connection, older_than, limit)
        )

    async def expire_logs(self, older_than: str, limit: int) -> int:
        return await self._database.transact(
            lambda connection: removal.expire_logs(connection, older_than, limit)
        )


async def _next_piece(connection: AsyncConnection, call_id: str, after: int) -> Any:
    query = select(logs.c.piece, logs.c.body).where(logs.c.call_id == call_id, logs.c.piece > after)
    return (await connection.execute(query.order_by(logs.c.piece).limit(1))).first()


async def _result_piece(connection: AsyncConnection, call_id: str, piece: int) -> Any:
    query = select(results).where(results.c.call_id == call_id, results.c.piece == piece)
    return (await connection.execute(query)).first()


def _waiting(key: LeaseKey, attempt: int, node: str) -> dict[str, Any]:
    """The record of a call that waits for *node*, the holder of *key*, or for a lease."""
    return {
        "key": key.id,
        "status": Status.QUEUED.value,
        "attempt": attempt,
        "node": node,
        "token": key.token,
        "started_at": times.NEVER,
    }
