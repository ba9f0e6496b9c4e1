"""One call's place in the line of its function, until it has a container or gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runner_node.deadlines import Deadlines, Due
from runner_node.hot_container import HotContainer
from runner_node.slots import SlotQueue, Waiter
from shared_models import errors

Ended = Callable[["Wait", bool], None]
Expired = Callable[["Wait"], errors.FnError]


class Wait(Due):
    """Made by ``Scheduler.enter``; *size* bytes of a body are kept meanwhile.

    Who waits either awaits ``served``, or looks at ``container`` when that is done and calls ``end``: once,
    whatever comes of it. *until* (loop's time) its patience lasts; then *expired* says what it is told.
    """

    __slots__ = ("_deadlines", "_ended", "_expired", "queue", "size", "until", "waiter")

    def __init__(
        self,
        queue: SlotQueue,
        waiter: Waiter,
        size: int,
        until: float,
        deadlines: Deadlines,
        ended: Ended,
        expired: Expired,
    ) -> None:
        self.queue = queue
        self.waiter = waiter
        self.size = size
        self.until = until
        self._deadlines = deadlines
        self._ended = ended
        self._expired = expired
        deadlines.add(self)

    @property
    def container(self) -> asyncio.Future[HotContainer]:
        """What it waits for; else the error that the caller is to be told."""
        return self.waiter.container

    async def served(self) -> HotContainer:
        """The container; raises what ``Scheduler.acquire`` raises."""
        taken = False
        try:
            container = await self.waiter.container
            taken = True
            return container
        finally:
            self.end(taken=taken)

    def end(self, *, taken: bool) -> None:
        """It waits no more; what it was given and has not *taken* goes to the next one in the line."""
        self._deadlines.discard(self)
        self._ended(self, taken)

    def expire(self) -> None:
        """See Due."""
        if not self.waiter.container.done():
            self.waiter.container.set_exception(self._expired(self))
