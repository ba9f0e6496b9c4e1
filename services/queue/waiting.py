"""What every queue does the same way: callers that wait for a call, one look at a time."""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from collections.abc import Callable, Collection

from services.queue.bell import Bell
from shared_models.call import LeasedCall
from shared_models.interfaces import MessageQueue
from shared_models.unclaimed import Unclaimed

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
        self._unclaimed = Unclaimed(self.release)

    def ring(self, fn_id: str | None = None) -> None:
        """Some call, of the function *fn_id* where that is known, may have become free."""
        self._bell.ring(fn_id)

    async def reserve(
        self, limit: int, wait: float, ttl: float, without: Collection[str] = ()
    ) -> list[LeasedCall]:
        if limit <= 0:
            return []
        # Calls of routes are of no function: nobody can pass them over.
        passed_over = frozenset(without) - {""}
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        try:
            while True:
                with self._bell.listening(passed_over) as rung:
                    if taken := await self._take(limit, ttl, passed_over):
                        return taken
                    left = deadline - loop.time()
                    if left <= 0:
                        return []
                    # Leases that others are given meanwhile run out after *ttl*, and no sooner.
                    due = min(await self._next_free() - self._clock(), ttl)
                    await asyncio.wait((rung,), timeout=min(left, self._look_every, max(_SOONEST, due)))
        finally:
            # The next in line sees what is left, and when the next call falls due.
            self._bell.pass_on(passed_over)

    @abstractmethod
    async def _take(self, limit: int, ttl: float, without: Collection[str]) -> list[LeasedCall]:
        """Leases the first *limit* free calls of other functions than *without*.

        When it is cancelled, what it leased is given back.
        """

    @abstractmethod
    async def _next_free(self) -> float:
        """Unix seconds when the next call falls due that was not free at the last look; infinite without one.

        Asked right after a look that leased nothing. What was free then is passed over, or others were taking
        it: a time that has come already would only have the caller look again and again.
        """
