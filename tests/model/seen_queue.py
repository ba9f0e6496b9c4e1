"""The queue, watched from outside: what it hands out to whom, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from shared_models.call import Call, LeasedCall, LeaseKey
from shared_models.interfaces import MessageQueue
from tests.model.history import History, Violation


class SeenQueue:
    """A queue that all API nodes share; *queue* is the real one."""

    def __init__(self, queue: MessageQueue, history: History, clock: Callable[[], float]) -> None:
        self._queue = queue
        self._history = history
        self._clock = clock
        self._waiting: dict[str, tuple[int, float, Call]] = {}
        """Those that were never leased: their number, and when they are due."""
        self._pushes = 0

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._queue, verb)

    async def push(self, call: Call) -> bool:
        """See MessageQueue."""
        new = await self._queue.push(call)
        if new:
            self._pushes += 1
            self._history.queued_as[call.id] = call
            self._waiting[call.id] = (self._pushes, self._clock() + max(0, call.delay), call)
        return new

    async def reserve(
        self, limit: int, wait: float, ttl: float, without: Collection[str] = ()
    ) -> list[LeasedCall]:
        """See MessageQueue; raises Violation when an older call was passed over."""
        leased = await self._queue.reserve(limit, wait, ttl, without)
        for number, _, call in self._note(leased):
            for other, due, older in self._waiting.values():
                if (
                    other < number
                    and older.priority == call.priority
                    and due <= self._clock()
                    and older.fn_id not in without
                ):
                    names = self._history.name(call.id), self._history.name(older.id)
                    raise Violation(f"order: {names[0]} was handed out before {names[1]}, which is older")
        return leased

    async def reserve_named(self, call_ids: Sequence[str], ttl: float) -> list[LeasedCall]:
        """See MessageQueue."""
        leased = await self._queue.reserve_named(call_ids, ttl)
        self._note(leased)
        return leased

    def _note(self, leased: Sequence[LeasedCall]) -> list[tuple[int, float, Call]]:
        """Those of *leased* that were never leased before."""
        first = [self._waiting.pop(one.call.id) for one in leased if one.call.id in self._waiting]
        for one in leased:
            assert one.lease is not None
            self._history.current[one.call.id] = one.lease.token
            self._history.leases[one.lease.token] = one
        return first

    async def release(self, keys: Sequence[LeaseKey]) -> None:
        """See MessageQueue."""
        self._history.released.update(key.token for key in keys)
        await self._queue.release(keys)
        self._free(keys)

    async def requeue(self, keys: Sequence[LeaseKey], delay: float) -> list[str]:
        """See MessageQueue."""
        lost = await self._queue.requeue(keys, delay)
        self._free([key for key in keys if key.id not in lost])
        return lost

    async def delete(self, keys: Sequence[LeaseKey]) -> None:
        """See MessageQueue."""
        await self._queue.delete(keys)
        left = await self._queue.holds([key.id for key in keys])
        for key in keys:
            if key.id not in left:
                self._history.current.pop(key.id, None)
                self._waiting.pop(key.id, None)

    def _free(self, keys: Sequence[LeaseKey]) -> None:
        for key in keys:
            if self._history.holds(key):
                del self._history.current[key.id]
