"""What every queue does the same way: callers that wait for a call, one look at a time."""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from services.queue.bell import Bell
from shared_models.call import LeasedCall
from shared_models.errors import FnError
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
        self._returns: set[asyncio.Task[None]] = set()

    def ring(self) -> None:
        """Some call may have become free."""
        self._bell.ring()

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

    async def _given_back_if_left(self, lease: Coroutine[Any, Any, list[LeasedCall]]) -> list[LeasedCall]:
        """What *lease* leases; it goes on when the caller is cancelled, and what it leased is released."""
        asked = asyncio.create_task(lease, name="queue-lease")
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            # Nobody will get these leases: they are given back, so that the attempt does not count.
            giving = asyncio.create_task(self._give_back(asked), name="queue-give-back")
            self._returns.add(giving)
            giving.add_done_callback(self._returns.discard)
            raise

    async def _give_back(self, asked: asyncio.Task[list[LeasedCall]]) -> None:
        with suppress(FnError):
            if taken := await asked:
                await self.release([one.key for one in taken])

    async def _settle_returns(self) -> None:
        """Returns when all that was left behind has been given back."""
        while self._returns:
            await asyncio.wait(self._returns)
