"""What the SQL queue only reads: plain functions on one connection."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Sequence

import msgspec
from sqlalchemy import ColumnElement, case, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.rows import portions
from services.datastore.tables import messages
from services.queue import sizes, sql_passing
from services.queue.sql_messages import call_of
from shared_models import times
from shared_models.call import Call
from shared_models.interfaces import QueueDepth

log = logging.getLogger(__name__)


async def held(connection: AsyncConnection, ids: Sequence[str]) -> set[str]:
    """Those of the ids that are there."""
    found: set[str] = set()
    for some in portions(ids):
        query = select(messages.c.id).where(messages.c.id.in_(some))
        found.update(await connection.scalars(query))
    return found


async def look(connection: AsyncConnection, without: Collection[str]) -> tuple[bool, float]:
    """Whether other functions than *without* have something ready; when the next falls due, or infinity."""
    free_at = select(func.min(messages.c.free_at)).where(messages.c.ready == 0)
    if without:
        found: object = await sql_passing.functions(connection, without)
        soonest = await connection.scalar(free_at)
    else:
        ready = select(literal(1)).where(messages.c.ready == 1).limit(1).scalar_subquery()
        found, soonest = (await connection.execute(select(ready, free_at.scalar_subquery()))).one()
    return bool(found), math.inf if soonest is None else float(soonest)


async def find(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, Call]:
    """Those of the calls that are there, whole; one that cannot be read is told and left out."""
    found: dict[str, Call] = {}
    for names in portions(dict.fromkeys(ids)):
        query = select(messages.c.id, func.length(messages.c.payload))
        query = query.where(messages.c.id.in_(names))
        for some in sizes.portions([(name, size) for name, size in await connection.execute(query)]):
            whole = select(messages.c.id, messages.c.attempt, messages.c.call, messages.c.payload)
            for name, attempt, body, payload in await connection.execute(
                whole.where(messages.c.id.in_(some))
            ):
                try:
                    found[name] = call_of(body, payload, attempt)
                except msgspec.MsgspecError as exc:
                    log.error("a queued call cannot be read: %s", exc)
    return found


async def depths(connection: AsyncConnection, now: float, fn_id: str | None = None) -> list[QueueDepth]:
    """Per function, or of *fn_id* alone, from an index and what is not ready; payloads are not read."""

    def of_it(is_ready: bool) -> tuple[ColumnElement[bool], ...]:
        if fn_id is None:
            return (messages.c.ready == int(is_ready),)
        return sql_passing.of_function(literal(fn_id), connection.dialect.name, ready=is_ready)

    ready = select(messages.c.fn_id, func.count(), func.min(messages.c.pushed))
    ready = ready.where(*of_it(True)).group_by(messages.c.fn_id)
    held = case(((messages.c.token != "") & (messages.c.free_at > now), 1), else_=0)
    waits = case((held == 0, messages.c.pushed))
    others = select(messages.c.fn_id, func.count(), func.min(waits), func.sum(held))
    others = others.where(*of_it(False)).group_by(messages.c.fn_id)

    free, later = (await connection.execute(ready)).all(), (await connection.execute(others)).all()
    queued: dict[str, int] = {}
    leased: dict[str, int] = {}
    oldest: dict[str, float] = {}
    for fn_id, count, pushed, *more in [*free, *later]:
        of_those = int(more[0]) if more else 0
        leased[fn_id] = leased.get(fn_id, 0) + of_those
        queued[fn_id] = queued.get(fn_id, 0) + count - of_those
        if pushed is not None:
            oldest[fn_id] = min(pushed, oldest.get(fn_id, math.inf))
    return [
        QueueDepth(
            fn_id=fn_id,
            queued=queued[fn_id],
            leased=leased[fn_id],
            oldest=times.to_text(oldest[fn_id]) if fn_id in oldest else times.NEVER,
        )
        for fn_id in sorted(queued)
    ]
