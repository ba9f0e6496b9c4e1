"""What every queue does the same way: callers that wait for a call, one look at a time."""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from collections.abc import Callable

from services.queue.bell import Bell
from shared_models.call import LeasedCall
from shared_models.interfaces import MessageQueue

_SOONEST = 0.001


class WaitingQueue(MessageQueue):
    """A queue whose waiting callers are woken by its bell.

    A subclass rings ``_bell`` whenever a call may have become free: after a push, a release, an
    extension, and when another node says so. *clock* gives the queue's time in unix seconds.
    *look_every*: seconds after which a waiting caller looks by itself; infinite where the backend
    tells every node.
    """

    def __init__(self, clock: Callable[[], float], look_every: float = math.inf) -> None:
        self._clock = clock
        self._look_every = look_every
        self._bell = Bell()

    async def reserve(self, limit: int, wait: float, ttl: float) -> list[LeasedCall]:
        if limit <= 0:
            return []
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        try:
            while True:
                with self._bell.listening() as rung:
                    if taken := await self._take(limit, ttl):
                        return taken
                    left = deadline - loop.time()
                    if left <= 0:
                        return []
                    due = await self._next_free() - self._clock()
                    await asyncio.wait((rung,), timeout=min(left, self._look_every, max(_SOONEST, due)))
        finally:
            # The next in line sees what is left, and when the next call falls due.
            self._bell.ring()

    @abstractmethod
    async def _take(self, limit: int, ttl: float) -> list[LeasedCall]:
        """Leases the first *limit* free calls. When it is cancelled, what it leased is given back."""

    @abstractmethod
    async def _next_free(self) -> float:
        """Unix seconds when the next call may be handed out; infinite when there is none."""
