"""What runners are to have ready, told to all of them from one look at the datastore."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shared_models import times
from shared_models.interfaces import Datastore
from shared_models.wanted import MAX_IMAGES, MAX_WARM, Wanted

SETTLED = 10.0
"""Seconds after which a change has been committed, and is passed by no clock of another API node."""
FRESH = 1.0
"""Seconds for which one answer is good for all runners that ask the same."""
MANY = 100
"""Cursors whose answers are kept meanwhile: most runners have the same one."""


class Wanting:
    """Of one node."""

    def __init__(self, datastore: Datastore, clock: Callable[[], float]) -> None:
        self._datastore = datastore
        self._clock = clock
        self._looks: dict[str, tuple[float, asyncio.Task[Wanted]]] = {}

    async def wanted(self, since: str) -> Wanted:
        """As ``DataAccess.wanted``. An answer may be a second old."""
        now = self._clock()
        found = self._looks.get(since)
        if found is None or abs(now - found[0]) >= FRESH:
            if len(self._looks) >= MANY:
                self._looks.clear()
            looking = asyncio.create_task(self._look(since), name="what is wanted")
            found = self._looks[since] = now, looking
            looking.add_done_callback(lambda task: self._looked(since, task))
        return await asyncio.shield(found[1])

    def _looked(self, since: str, task: asyncio.Task[Wanted]) -> None:
        """A failure is nobody's answer but of those who wait for it."""
        if task.cancelled() or task.exception():
            known = self._looks.get(since)
            if known and known[1] is task:
                del self._looks[since]

    async def _look(self, since: str) -> Wanted:
        now = self._clock()
        warm = await self._datastore.warm(MAX_WARM)
        if not since:
            # One that begins pulls for what changes from now on; what is warm it has to have anyway.
            return Wanted(warm=warm, cursor=times.to_text(now - SETTLED))
        changes = await self._datastore.changes(since, MAX_IMAGES)
        settled = [change.at for change in changes if change.at < times.to_text(now - SETTLED)]
        cursor = settled[-1] if settled else since
        full = len(changes) == MAX_IMAGES
        if full and changes[-1].at == since and settled:
            # More at one moment than an answer has: those beyond are pulled when they are called.
            cursor = times.to_text(times.seconds_of(since) + 0.0015)
        images = list(dict.fromkeys(change.image for change in changes if change.image))
        return Wanted(images=images, warm=warm, cursor=cursor, more=full and cursor > since)
