"""Rules that are broken on purpose, each in one way, as they were or might be: the model must notice."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from typing import Any

import msgspec
from sqlalchemy import select, update

from services.data_access import DirectDataAccess
from services.datastore.tables import calls
from services.logstore.sql import SQLLogStore
from services.queue.memory import MemoryQueue
from services.stores import Stores
from shared_models.call import FINAL, Call, Finished, LeasedCall, LeaseKey, Status
from shared_models.interfaces import DataAccess
from tests.model.history import Crashed
from tests.model.queues import Opener
from tests.model.runner import RunnerLife

Clock = Callable[[], float]


def queue(kind: type[MemoryQueue]) -> Opener:
    """How the model opens a queue of this *kind*."""
    return lambda database, clock: nullcontext(kind(clock))


class DeletesBeforeTheRun(DirectDataAccess):
    """As Fn's queue was used: a message is gone as soon as somebody has it."""

    async def dequeue(
        self, node: str, limit: int, wait: float, without: Collection[str] = ()
    ) -> list[LeasedCall]:
        leased = await super().dequeue(node, limit, wait, without)
        await self._queue.delete([one.key for one in leased])
        return leased

    async def start(self, leased: LeasedCall) -> None:
        await self._logstore.start_call(leased.key, leased.call.started_at)


class TakesResultsOfAnybody(SQLLogStore):
    """No guard: whoever hands in a result of a call that has not ended is believed."""

    async def finish_calls(self, batch: Sequence[Finished]) -> list[str]:
        query = select(calls.c.id, calls.c.token).where(calls.c.id.in_([one.call.id for one in batch]))
        found = await self._database.read(lambda connection: connection.execute(query))
        tokens = {row.id: row.token for row in found}
        return await super().finish_calls(
            [msgspec.structs.replace(one, token=tokens.get(one.call.id, one.token)) for one in batch]
        )


class ForgetsThatCallsHaveEnded(SQLLogStore):
    """A message that outlived its call runs it again, and the second result replaces the first."""

    async def claim(self, leased: Sequence[LeasedCall], node: str) -> list[str]:
        ended = calls.c.id.in_([one.call.id for one in leased]) & calls.c.status.in_(FINAL)
        again = update(calls).where(ended).values(status=Status.QUEUED.value)
        await self._database.transact(lambda connection: connection.execute(again))
        return await super().claim(leased, node)


class _PushesLater:
    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._tasks: set[asyncio.Task[None]] = set()

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._queue, verb)

    async def push(self, call: Call) -> bool:
        async def later() -> None:
            await asyncio.sleep(1.0)
            try:
                await self._queue.push(call)
            except Crashed:
                return

        task = asyncio.get_running_loop().create_task(later())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True


def answers_before_the_push(stores: Stores, clock: Clock) -> DataAccess:
    """202 while the message is still on its way to the queue."""
    queue: Any = _PushesLater(stores.queue)
    return DirectDataAccess(dataclasses.replace(stores, queue=queue), clock=clock)


class _AnyKeyIsNew:
    def __init__(self, keys: Any) -> None:
        self._keys = keys

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._keys, verb)

    async def claim(self, fn_id: str, key: str, call_id: str, ttl: float) -> tuple[str, bool]:
        await self._keys.claim(fn_id, key, call_id, ttl)
        return call_id, False


def forgets_keys(stores: Stores, clock: Clock) -> DataAccess:
    """Each call with an idempotency key is a new one."""
    keys: Any = _AnyKeyIsNew(stores.idempotency_keys)
    return DirectDataAccess(dataclasses.replace(stores, idempotency_keys=keys), clock=clock)


class KeepsTokensOfReleasedCalls(MemoryQueue):
    """Whoever gave a call back may go on as its holder."""

    async def release(self, keys: Sequence[LeaseKey]) -> None:
        tokens = {key.id: key.token for key in keys if self._held(key)}
        await super().release(keys)
        for call_id, token in tokens.items():
            self._messages[call_id].token = token


class CountsNoAttempts(MemoryQueue):
    """A call that is sent back has its attempts before it."""

    async def requeue(self, keys: Sequence[LeaseKey], delay: float) -> list[str]:
        lost = await super().requeue(keys, delay)
        for key in keys:
            if key.id not in lost:
                self._messages[key.id].attempt -= 1
        return lost


class LastInFirstOut(MemoryQueue):
    """The newest call is the first."""

    async def push(self, call: Call) -> bool:
        self._pushed -= 2
        return await super().push(call)


class RenewsNoLeases(RunnerLife):
    """It takes a lease to last for as long as the call does."""

    async def _renew(self) -> None:
        pass
