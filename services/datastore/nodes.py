"""What nodes keep for themselves on a SQL database: the registry of runners, orders to clean up, locks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import and_, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.parts import Part, row_of
from services.datastore.tables import locks, purges, runners
from shared_models import errors, times
from shared_models.ids import new_id
from shared_models.interfaces import Purge
from shared_models.runner import HEARTBEAT, Runner, RunnerReport, RunnerState

LOST_AFTER = 3 * HEARTBEAT
"""Seconds without a heartbeat after which a runner is shown as lost, ..."""
FORGOTTEN_AFTER = 24 * 3600.0
"""... and after which it is not shown any more."""


class Nodes(Part):
    """Those verbs of the datastore that nodes use among themselves."""

    async def put_runner(self, report: RunnerReport) -> RunnerState:
        now = self._clock()
        seen_at = times.to_text(now)

        async def work(connection: AsyncConnection) -> RunnerState:
            state = await connection.scalar(select(runners.c.state).where(runners.c.id == report.id))
            # One that is told now to go on does not drain any more, whatever it still says of itself.
            drains = report.drains and state == RunnerState.DRAINING
            seen = {"report": msgspec.structs.replace(report, drains=drains), "seen_at": seen_at}
            if state is not None:
                await connection.execute(update(runners).where(runners.c.id == report.id).values(seen))
                return RunnerState(state)
            forgotten = times.to_text(now - FORGOTTEN_AFTER)
            await connection.execute(delete(runners).where(runners.c.seen_at < forgotten))
            new = {"id": report.id, "state": RunnerState.ACTIVE.value, **seen}
            await connection.execute(insert(runners).values(new))
            return RunnerState.ACTIVE

        return await self._database.transact(work)

    async def runners(self) -> list[Runner]:
        now = self._clock()
        lost, forgotten = times.to_text(now - LOST_AFTER), times.to_text(now - FORGOTTEN_AFTER)
        query = select(runners).where(runners.c.seen_at >= forgotten).order_by(runners.c.id)
        rows = await self._database.read(lambda connection: connection.execute(query))
        return [_runner(row, lost) for row in rows.mappings()]

    async def set_runner_state(self, runner_id: str, state: RunnerState) -> Runner:
        now = self._clock()
        lost, forgotten = times.to_text(now - LOST_AFTER), times.to_text(now - FORGOTTEN_AFTER)
        this = and_(runners.c.id == runner_id, runners.c.seen_at >= forgotten)

        async def work(connection: AsyncConnection) -> Runner:
            row = (await connection.execute(select(runners).where(this).with_for_update())).mappings().first()
            if row is None:
                raise errors.RunnerNotFound
            await connection.execute(update(runners).where(this).values(state=state.value))
            return _runner({**row, "state": state}, lost)

        return await self._database.transact(work)

    # -- cleaning up ---------------------------------------------------------------------------

    def _ordered(self, purge: Purge) -> Purge:
        return msgspec.structs.replace(purge, id=new_id(), created_at=self._now())

    async def insert_purge(self, purge: Purge) -> Purge:
        new = self._ordered(purge)

        async def work(connection: AsyncConnection) -> Purge:
            await connection.execute(insert(purges).values(row_of(new)))
            return new

        return await self._database.transact(work)

    async def purges(self, limit: int) -> list[Purge]:
        query = select(purges).order_by(purges.c.id).limit(limit)
        rows = await self._database.read(lambda connection: connection.execute(query))
        return [Purge(**row) for row in rows.mappings()]

    async def remove_purge(self, purge_id: str) -> None:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(delete(purges).where(purges.c.id == purge_id))

        await self._database.transact(work)

    async def hold(self, name: str, holder: str, ttl: float) -> bool:
        now = self._clock()
        this = locks.c.name == name

        async def work(connection: AsyncConnection) -> bool:
            query = select(locks).where(this).with_for_update()
            held = (await connection.execute(query)).mappings().first()
            if held is not None and held["holder"] != holder and held["until"] > now:
                return False
            mine = {"name": name, "holder": holder, "until": now + ttl}
            change = update(locks).where(this) if held is not None else insert(locks)
            await connection.execute(change.values(mine))
            return True

        return await self._database.transact(work)


def _runner(row: Mapping[Any, Any], lost: str) -> Runner:
    """The runner as it is shown: one that was not seen since *lost* (wire text) is that."""
    state = RunnerState.LOST if row["seen_at"] < lost else RunnerState(row["state"])
    return Runner(report=row["report"], state=state, seen_at=row["seen_at"])
